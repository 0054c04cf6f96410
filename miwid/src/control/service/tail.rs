//! The end of a log file, and what is appended. A file that became shorter or another one was rotated: it is read from
//! its beginning.

use std::{io, os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration};

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
    inode: u64,
    offset: u64,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

/// The last `lines` lines of the file at `path`; with `follow` also those that come.
pub(super) async fn file(name: String, path: PathBuf, lines: usize, follow: bool) -> io::Result<Streamed<LogLine>> {
    let mut reader = Reader { name, path, inode: 0, offset: 0, partial: Vec::new() };
    let mut recent = reader.end().await?;
    recent.drain(..recent.len().saturating_sub(lines));
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
        self.inode = found.ino();
        self.offset = found.len().saturating_sub(WINDOW_BYTES);
        let cut = self.offset > 0;
        let mut lines = self.more().await?;
        if cut && !lines.is_empty() {
            lines.remove(0);
        }
        Ok(lines)
    }

    async fn more(&mut self) -> io::Result<Vec<LogLine>> {
        let mut file = File::open(&self.path).await?;
        let found = file.metadata().await?;
        if found.ino() != self.inode || found.len() < self.offset {
            (self.inode, self.offset) = (found.ino(), 0);
            self.partial.clear();
        }
        file.seek(SeekFrom::Start(self.offset)).await?;
        let read = file.take(WINDOW_BYTES).read_to_end(&mut self.partial).await?;
        self.offset += read as u64;
        let whole = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text: Vec<u8> = self.partial.drain(..whole).collect();
        Ok(text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| self.line(line)).collect())
    }

    fn line(&self, bytes: &[u8]) -> LogLine {
        LogLine { app: self.name.clone(), line: String::from_utf8_lossy(bytes).into_owned(), ..LogLine::default() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

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
        let stream = file("access".into(), path.clone(), 2, true).await.unwrap();
        std::fs::rename(&path, dir.path().join("access.log.1")).unwrap();
        std::fs::write(&path, "four\n").unwrap();
        assert_eq!(texts(stream, 3).await, ["two", "three", "four"]);
    }

    #[tokio::test]
    async fn without_following_the_stream_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let stream = file("access".into(), path, 10, false).await.unwrap();
        assert_eq!(texts(stream, 10).await, ["one", "two"]);
    }
}
