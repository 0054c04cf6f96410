//! `miwictl logs top`: a report that is drawn again each second while the log grows.
//!
//! A file is followed for ever (also through a rotation); standard input ends the command when it ends.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal as _, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    time::{Duration, Instant},
};

use super::{Period, lines, render, summary::Summary};

const REDRAW: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(crate) struct TopArgs {
    /// `-` is standard input.
    pub(crate) file: PathBuf,
}

/// Draws until the input ends or writing fails.
pub(crate) fn run_top(args: &TopArgs, out: &mut dyn Write) -> io::Result<()> {
    // The reader may wait for ever in a pipe; the screen must not. A full queue slows the reader.
    let (queue, received) = mpsc::sync_channel(1024);
    let path = args.file.clone();
    let reader = std::thread::spawn(move || if path.as_os_str() == "-" { pipe(&queue) } else { follow(&path, &queue) });
    draw(&received, out)?;
    drop(received);
    reader.join().unwrap_or_else(|_| Err(io::Error::other("the reader died")))
}

fn draw(received: &Receiver<Vec<u8>>, out: &mut dyn Write) -> io::Result<()> {
    let clear = if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    let mut summary = Summary::new(Period::Hourly);
    let mut next = Instant::now() + REDRAW;
    loop {
        let ended = match received.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                summary.line(&line);
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        if ended || Instant::now() >= next {
            write!(out, "{clear}")?;
            render::text(&summary, out)?;
            out.flush()?;
            next = Instant::now() + REDRAW;
        }
        if ended {
            return Ok(());
        }
    }
}

fn pipe(queue: &SyncSender<Vec<u8>>) -> io::Result<()> {
    lines(io::stdin().lock(), |line| {
        // Nobody draws any more: the process is about to end.
        let _ = queue.send(line.to_vec());
    })
}

fn follow(path: &Path, queue: &SyncSender<Vec<u8>>) -> io::Result<()> {
    let mut input = BufReader::new(File::open(path)?);
    let (mut line, mut rotated) = (Vec::new(), false);
    loop {
        // Without a newline the line is still being written: what is there stays in `line` until the rest comes.
        if input.read_until(b'\n', &mut line)? > 0 {
            if line.last() == Some(&b'\n') {
                if queue.send(line.trim_ascii_end().to_vec()).is_err() {
                    return Ok(());
                }
                line.clear();
            }
            continue;
        }
        if rotated {
            input = BufReader::new(File::open(path)?);
            line.clear();
            rotated = false;
            continue;
        }
        // What was written just before the rename is still to be read: one more round, then the new file.
        rotated = was_rotated(input.get_ref(), path);
        if rotated {
            continue;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// There is another file at the path. None at all: it is between rename and create.
fn was_rotated(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) != (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_input_draws_everything_once_more() {
        let (queue, received) = mpsc::sync_channel(4);
        let line = br#"127.0.0.1 - - [09/Aug/2025:10:15:32 +0000] "GET /last HTTP/1.1" 200 7"#;
        queue.send(line.to_vec()).expect("there is room");
        drop(queue);
        let mut out = Vec::new();
        draw(&received, &mut out).expect("draws");
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("Requests 1 ") && text.contains("         1  /last\n"), "{text}");
    }

    #[test]
    fn a_followed_file_goes_on_after_a_rotation() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("access.log");
        std::fs::write(&path, "one\n").expect("writes");
        let (queue, received) = mpsc::sync_channel(4);
        let followed = path.clone();
        let reader = std::thread::spawn(move || follow(&followed, &queue));
        let patience = Duration::from_secs(30);
        assert_eq!(received.recv_timeout(patience).expect("the first line"), b"one");
        std::fs::rename(&path, home.path().join("access.log.1")).expect("renames");
        std::fs::write(&path, "two\nthree\n").expect("writes");
        assert_eq!(received.recv_timeout(patience).expect("a line of the new file"), b"two");
        drop(received);
        // The reader notices at its next line that nobody listens.
        std::fs::write(&path, "two\nthree\nfour\n").expect("writes");
        drop(reader);
    }
}
