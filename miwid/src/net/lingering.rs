//! An end that the other side gets to hear. A socket that is closed while something comes in answers with a reset, and a reset may
//! destroy what was sent before it: the GOAWAY that tells a client which requests were never looked at. So what still comes
//! is read and thrown away, for a moment and up to a limit, until the other side has closed, too.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// Longer than a round trip to anywhere.
const PATIENCE: Duration = Duration::from_secs(1);
const BYTES_MAX: usize = 256 << 10;

pub struct Lingering<T> {
    io: T,
    end: Option<End>,
}

struct End {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<T> Lingering<T> {
    pub fn new(io: T) -> Self {
        Self { io, end: None }
    }
}

impl<T: AsyncRead + Unpin> Lingering<T> {
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end =
            self.end.get_or_insert_with(|| End { until: Box::pin(tokio::time::sleep(PATIENCE)), left: BYTES_MAX });
        let mut thrown = [0_u8; 4096];
        while end.left > 0 && end.until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut thrown);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer));
            let count = buffer.filled().len();
            if read.is_err() || count == 0 {
                break;
            }
            end.left = end.left.saturating_sub(count);
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Lingering<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        }
        self.poll_silence(cx).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_end_comes_when_the_other_side_has_closed_or_after_a_moment() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut ours = Lingering::new(ours);
        ours.write_all(b"goodbye").await.expect("written");
        let ending = tokio::spawn(async move { ours.shutdown().await });
        theirs.write_all(b"one more request").await.expect("it is still read");
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.expect("the end");
        assert_eq!(heard, "goodbye");
        assert!(!ending.is_finished(), "it waits for the other side");
        drop(theirs);
        ending.await.expect("no panic").expect("a quiet end");

        let (ours, theirs) = tokio::io::duplex(64);
        Lingering::new(ours).shutdown().await.expect("a quiet end, and not never");
        drop(theirs);
    }
}
