//! Writes that are made one after the other and sent together. The library of HTTP/2 writes frame by frame and flushes after
//! each, which over TLS is a record and a system call for every small answer; here they wait until it has said all it has to
//! say for now, and its driver sends them.

use std::{
    cell::{RefCell, RefMut},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is gathered at most; what is larger goes straight on.
const HELD_MAX: usize = 64 << 10;
/// Buffers that a worker keeps for connections that have something to say.
const SPARE_MAX: usize = 8;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The library's side: a write is done when it is held, and so is a flush.
pub struct Gathered<T>(Rc<RefCell<Inner<T>>>);

/// The driver's side.
pub struct Gatherer<T>(Rc<RefCell<Inner<T>>>);

struct Inner<T> {
    io: T,
    held: Vec<u8>,
    /// So much of it is written.
    written: usize,
    unflushed: bool,
    /// Why nothing can be sent any more, for the library to hear.
    error: Option<io::Error>,
}

pub fn gathered<T>(io: T) -> (Gathered<T>, Gatherer<T>) {
    let inner = Rc::new(RefCell::new(Inner { io, held: Vec::new(), written: 0, unflushed: false, error: None }));
    (Gathered(inner.clone()), Gatherer(inner))
}

impl<T: AsyncWrite + Unpin> Gatherer<T> {
    /// Sends what was gathered. To be called whenever the library has been polled; an error is told to the library, which is
    /// polled again for it.
    pub fn poll_send(&self, cx: &mut Context<'_>) {
        let mut inner = self.0.borrow_mut();
        if let Poll::Ready(Err(error)) = inner.poll_flush(cx) {
            inner.error = Some(error);
            cx.waker().wake_by_ref();
        }
    }
}

// === impl Inner ===

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Err(error));
        }
        while self.written < self.held.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.held[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.release();
        Poll::Ready(Ok(()))
    }

    /// Makes room for so many bytes. False: there are too many to be held, and nothing is.
    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<bool>> {
        self.unflushed = true;
        if self.held.len() + bytes > HELD_MAX || self.error.is_some() {
            ready!(self.poll_drain(cx))?;
        }
        if bytes > HELD_MAX {
            return Poll::Ready(Ok(false));
        }
        if self.held.capacity() == 0 {
            self.held = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(HELD_MAX));
        }
        Poll::Ready(Ok(true))
    }

    fn release(&mut self) {
        self.written = 0;
        let mut held = std::mem::take(&mut self.held);
        held.clear();
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if held.capacity() > 0 && spare.len() < SPARE_MAX {
                spare.push(held);
            }
        });
    }
}

impl<T> Gathered<T> {
    fn inner(&self) -> RefMut<'_, Inner<T>> {
        self.0.borrow_mut()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        if let Some(error) = inner.error.take() {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut inner.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.inner();
        if !ready!(inner.poll_room(cx, bytes.len()))? {
            return Pin::new(&mut inner.io).poll_write(cx, bytes);
        }
        inner.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.inner();
        let bytes = parts.iter().map(|it| it.len()).sum();
        if !ready!(inner.poll_room(cx, bytes))? {
            return Pin::new(&mut inner.io).poll_write_vectored(cx, parts);
        }
        parts.iter().for_each(|it| inner.held.extend_from_slice(it));
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner().io.is_write_vectored()
    }

    /// The driver does it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.inner().error.take().map_or(Ok(()), Err))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.inner();
        ready!(inner.poll_flush(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    async fn send<T: AsyncWrite + Unpin>(gatherer: &Gatherer<T>) {
        poll_fn(|cx| {
            gatherer.poll_send(cx);
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn small_writes_go_together_when_their_driver_sends_them() {
        let (near, mut far) = duplex(HELD_MAX * 4);
        let (mut io, gatherer) = gathered(near);
        for text in ["one ", "two ", "three"] {
            io.write_all(text.as_bytes()).await.unwrap();
            io.flush().await.unwrap();
        }
        let mut got = [0; 64];
        assert!(futures_util::FutureExt::now_or_never(far.read(&mut got)).is_none(), "nothing is sent yet");
        send(&gatherer).await;
        let count = far.read(&mut got).await.unwrap();
        assert_eq!(&got[..count], b"one two three");
    }

    #[tokio::test]
    async fn the_order_stays_whatever_the_sizes_and_a_slow_reader_is_waited_for() {
        let (near, mut far) = duplex(1000);
        let (mut io, gatherer) = gathered(near);
        let pieces: Vec<Vec<u8>> = (0..60_u8).map(|it| vec![it; 1 + usize::from(it) * usize::from(it) * 23]).collect();
        let expected = pieces.concat();
        let mut got = Vec::new();
        let write = async move {
            for piece in &pieces {
                io.write_all(piece).await.unwrap();
                send(&gatherer).await;
            }
            io.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(write, far.read_to_end(&mut got));
        read.unwrap();
        assert_eq!(got, expected);
    }

    #[tokio::test]
    async fn an_error_of_the_driver_is_told_to_the_library() {
        let (near, far) = duplex(10);
        let (mut io, gatherer) = gathered(near);
        drop(far);
        io.write_all(b"lost").await.unwrap();
        send(&gatherer).await;
        assert!(io.read_u8().await.is_err());
    }
}
