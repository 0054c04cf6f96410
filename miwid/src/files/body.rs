//! A file on its way to the client, in pieces: from the page cache at once, from the disk by a thread that may wait.
//!
//! The length was promised in the head. A file that becomes shorter meanwhile ends in an error, which cuts the
//! connection; it never ends as if it were whole.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IoSliceMut},
    os::unix::fs::FileExt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::JoinHandle;

/// Large enough that a system call is cheap beside the copy, small enough for the second-level cache.
const CHUNK_BYTES: u64 = 128 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Bytes(Bytes),
    File { offset: u64, length: u64 },
}

impl Segment {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

/// Slices of one file, and bytes between them (the heads of a multipart answer).
pub(super) struct FileBody {
    file: Arc<File>,
    segments: VecDeque<Segment>,
    left: u64,
    cold: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    pub(super) fn new(file: Arc<File>, segments: impl IntoIterator<Item = Segment>) -> Self {
        let segments: VecDeque<_> = segments.into_iter().filter(|segment| segment.length() > 0).collect();
        let left = segments.iter().map(Segment::length).sum();
        Self { file, segments, left, cold: None }
    }

    fn advance(&mut self, bytes: u64) {
        self.left -= bytes;
        match self.segments.front_mut() {
            Some(Segment::File { offset, length }) if *length > bytes => {
                *offset += bytes;
                *length -= bytes;
            }
            _ => drop(self.segments.pop_front()),
        }
    }

    fn poll_read(&mut self, offset: u64, length: u64, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.cold.is_none() {
            match read_warm(&self.file, offset, length) {
                Ok(Some(bytes)) => return Poll::Ready(Ok(bytes)),
                Ok(None) => self.cold = Some(read_cold(&self.file, offset, length)),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let Some(task) = &mut self.cold else { return Poll::Pending };
        let read = ready!(Pin::new(task).poll(cx));
        self.cold = None;
        Poll::Ready(read.unwrap_or_else(|error| Err(io::Error::other(error))))
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let me = &mut *self;
        let bytes = match me.segments.front() {
            None => return Poll::Ready(None),
            Some(Segment::Bytes(bytes)) => Ok(bytes.clone()),
            Some(&Segment::File { offset, length }) => ready!(me.poll_read(offset, length.min(CHUNK_BYTES), cx)),
        };
        match bytes {
            Ok(bytes) => {
                me.advance(bytes.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Err(error) => {
                // Nothing may follow an error; `left` stays, so that nobody takes this for the end.
                me.segments.clear();
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The whole slice, for small files that are answered in one piece.
pub(super) async fn read_whole(file: &Arc<File>, offset: u64, length: u64) -> io::Result<Bytes> {
    if let Some(bytes) = read_warm(file, offset, length)?
        && bytes.len() as u64 == length
    {
        return Ok(bytes);
    }
    let bytes = read_cold(file, offset, length).await.map_err(io::Error::other)??;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(truncated()) }
}

/// What the page cache has of it, at least one byte; `None` when the disk would have to be waited for.
fn read_warm(file: &File, offset: u64, length: u64) -> io::Result<Option<Bytes>> {
    if length == 0 {
        return Ok(Some(Bytes::new()));
    }
    let mut buffer = vec![0; length as usize];
    match preadv2(file, &mut [IoSliceMut::new(&mut buffer)], offset, ReadWriteFlags::NOWAIT) {
        Ok(0) => Err(truncated()),
        Ok(read) => {
            buffer.truncate(read);
            Ok(Some(Bytes::from(buffer)))
        }
        // Cold, or a file system (or kernel) that cannot tell.
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn read_cold(file: &Arc<File>, offset: u64, length: u64) -> JoinHandle<io::Result<Bytes>> {
    let file = file.clone();
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; length as usize];
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => return Err(truncated()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Bytes::from(buffer))
    })
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http_body::Body as _;
    use http_body_util::BodyExt;

    use super::*;

    fn file(bytes: &[u8]) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Arc::new(file)
    }

    #[tokio::test]
    async fn segments_arrive_in_order_and_the_size_counts_down() {
        let bytes: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
        let slice = Segment::File { offset: 1, length: 299_000 };
        let mut body = FileBody::new(
            file(&bytes),
            [Segment::Bytes(Bytes::from_static(b"<")), slice, Segment::Bytes(Bytes::from_static(b">"))],
        );
        let mut left = 299_002;
        let mut seen = Vec::new();
        assert_eq!(body.size_hint().exact(), Some(left));
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            left -= data.len() as u64;
            assert_eq!(body.size_hint().exact(), Some(left));
            seen.extend_from_slice(&data);
        }
        assert!(body.is_end_stream());
        assert_eq!(seen, [b"<", &bytes[1..299_001], b">"].concat());
    }

    #[tokio::test]
    async fn a_file_that_becomes_shorter_is_an_error_and_no_end() {
        let file = file(&[7; 300_000]);
        let mut body = FileBody::new(file.clone(), [Segment::File { offset: 0, length: 300_000 }]);
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap().len() as u64;
        file.set_len(first).unwrap();
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(!body.is_end_stream());
        assert!(read_whole(&file, first - 10, 20).await.is_err());
    }

    #[tokio::test]
    async fn cold_reads_give_the_same_bytes() {
        let file = file(b"0123456789");
        assert_eq!(read_cold(&file, 2, 5).await.unwrap().unwrap(), "23456");
        assert_eq!(read_whole(&file, 2, 5).await.unwrap(), "23456");
        assert!(read_cold(&file, 8, 5).await.unwrap().is_err());
    }
}
