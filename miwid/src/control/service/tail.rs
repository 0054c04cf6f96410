//! The end of a log file, and what is appended. A file that became shorter or another one was rotated: it is read from
//! its beginning.

use std::{fmt, io, num::ParseIntError, os::unix::fs::MetadataExt as _, path::PathBuf, str::FromStr, time::Duration};

use futures_util::{StreamExt as _, stream};
use proto::v1::LogLine;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom},
};
use tonic::Status;

use super::Streamed;

/// How much of the end is looked at, and read at a time.
const WINDOW_BYTES: u64 = 1 << 20;
const POLL: Duration = Duration::from_millis(250);

struct Reader {
    name: String,
    path: PathBuf,
    read: Position,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

/// Where a reading begins.
#[derive(Debug)]
pub(super) enum Start {
    /// That many lines before the end.
    Last(usize),
    After(Position),
}

/// A file, and how far it has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    inode: u64,
    offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.inode, self.offset)
    }
}

impl FromStr for Position {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let (inode, offset) = text.split_once(':').unwrap_or_default();
        Ok(Self { inode: inode.parse()?, offset: offset.parse()? })
    }
}

/// What the file at `path` has from there on; with `follow` also what comes.
pub(super) async fn file(name: String, path: PathBuf, from: Start, follow: bool) -> io::Result<Streamed<LogLine>> {
    let mut reader = Reader { name, path, read: Position::default(), partial: Vec::new() };
    let recent = match from {
        Start::Last(lines) => {
            let mut recent = reader.end().await?;
            recent.drain(..recent.len().saturating_sub(lines));
            recent
        }
        Start::After(position) => {
            reader.read = position;
            reader.more().await?
        }
    };
    let recent = stream::iter(recent.into_iter().map(Ok));
    Ok(if follow { Box::pin(recent.chain(following(reader))) } else { Box::pin(recent) })
}

fn following(reader: Reader) -> Streamed<LogLine> {
    let batches = stream::unfold(reader, |mut reader| async move {
        tokio::time::sleep(POLL).await;
        // A file that is missing for a moment is being rotated.
        let lines = reader.more().await.unwrap_or_default();
        Some((stream::iter(lines.into_iter().map(Ok::<_, Status>)), reader))
    });
    Box::pin(batches.flatten())
}

impl Reader {
    async fn end(&mut self) -> io::Result<Vec<LogLine>> {
        let found = tokio::fs::metadata(&self.path).await?;
        self.read = Position { inode: found.ino(), offset: found.len().saturating_sub(WINDOW_BYTES) };
        let cut = self.read.offset > 0;
        let mut lines = self.more().await?;
        if cut && !lines.is_empty() {
            lines.remove(0);
        }
        Ok(lines)
    }

    async fn more(&mut self) -> io::Result<Vec<LogLine>> {
        let mut file = File::open(&self.path).await?;
        let found = file.metadata().await?;
        if found.ino() != self.read.inode || found.len() < self.read.offset {
            self.read = Position { inode: found.ino(), offset: 0 };
            self.partial.clear();
        }
        file.seek(SeekFrom::Start(self.read.offset)).await?;
        let read = file.take(WINDOW_BYTES).read_to_end(&mut self.partial).await?;
        let mut end = Position { offset: self.read.offset + read as u64 - self.partial.len() as u64, ..self.read };
        self.read.offset += read as u64;
        let whole = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text: Vec<u8> = self.partial.drain(..whole).collect();
        let lines = text.split_inclusive(|byte| *byte == b'\n').map(|line| {
            end.offset += line.len() as u64;
            self.line(line.strip_suffix(b"\n").unwrap_or(line), end)
        });
        Ok(lines.filter(|it| !it.line.is_empty()).collect())
    }

    fn line(&self, bytes: &[u8], end: Position) -> LogLine {
        LogLine {
            app: self.name.clone(),
            line: String::from_utf8_lossy(bytes).into_owned(),
            position: end.to_string(),
            ..LogLine::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write as _;

    use super::*;

    async fn texts(stream: Streamed<LogLine>, count: usize) -> Vec<String> {
        let lines = stream.take(count).map(|line| line.unwrap().line).collect();
        tokio::time::timeout(Duration::from_secs(20), lines).await.unwrap()
    }

    #[tokio::test]
    async fn the_last_lines_come_first_then_what_is_appended_even_after_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        let stream = file("access".into(), path.clone(), Start::Last(2), true).await.unwrap();
        std::fs::rename(&path, dir.path().join("access.log.1")).unwrap();
        std::fs::write(&path, "four\n").unwrap();
        assert_eq!(texts(stream, 3).await, ["two", "three", "four"]);
    }

    #[tokio::test]
    async fn without_following_the_stream_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let stream = file("access".into(), path, Start::Last(10), false).await.unwrap();
        assert_eq!(texts(stream, 10).await, ["one", "two"]);
    }

    #[tokio::test]
    async fn reading_goes_on_behind_any_line_also_in_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        std::fs::write(&path, "one\n\ntwo\nthr").unwrap();
        let read = async |from, count| -> Vec<LogLine> {
            let stream = file("access".into(), path.clone(), from, true).await.unwrap();
            let lines = stream.take(count).map(Result::unwrap).collect();
            tokio::time::timeout(Duration::from_secs(20), lines).await.unwrap()
        };
        let after = |line: &LogLine| Start::After(line.position.parse().unwrap());
        let (lines, more) =
            (|lines: &[LogLine]| lines.iter().map(|it| it.line.clone()).collect::<Vec<_>>(), "ee\nfour\n");
        let first = read(Start::Last(9), 2).await;
        assert_eq!(lines(&first), ["one", "two"]);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(more.as_bytes()).unwrap();
        assert_eq!(lines(&read(after(&first[0]), 3).await), ["two", "three", "four"]);
        let rest = read(after(&first[1]), 2).await;
        assert_eq!(lines(&rest), ["three", "four"]);
        std::fs::rename(&path, dir.path().join("access.log.1")).unwrap();
        std::fs::write(&path, "five\n").unwrap();
        assert_eq!(lines(&read(after(&rest[1]), 1).await), ["five"]);
        assert!(["", "1", "1:", ":1", "a:1"].iter().all(|it| it.parse::<Position>().is_err()));
    }
}
