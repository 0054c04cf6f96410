//! Bytes both ways, without a buffer for those that have nothing to say: a direction borrows one from its worker while bytes
//! are in it, and a tunnel that waits holds none. An end that one side says is carried to the other, whose own direction
//! goes on.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const BUFFER: usize = 16 << 10;
/// More than so many waiting buffers are given back to the allocator.
const SPARE_MAX: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn borrow() -> Box<[u8]> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice())
}

fn give_back(buffer: Box<[u8]>) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}

/// Resolves when both directions have ended, or one has failed.
pub(super) async fn both<A, B>(a: &mut A, b: &mut B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut there, mut back) = (Direction::default(), Direction::default());
    std::future::poll_fn(|cx| {
        let there = there.poll(a, b, cx)?;
        let back = back.poll(b, a, cx)?;
        if there.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// Bytes that were read and are still to be written.
struct Held {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

#[derive(Default)]
struct Direction {
    held: Option<Held>,
    unflushed: bool,
    read_all: bool,
    done: bool,
}

impl Direction {
    fn poll(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.done {
            ready!(self.poll_write(to, cx))?;
            if self.read_all {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.done = true;
                break;
            }
            if self.poll_fill(from, cx)?.is_pending() {
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, to: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(held) = &mut self.held {
            if held.start == held.end {
                give_back(self.held.take().expect("it is held").buffer);
                break;
            }
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &held.buffer[held.start..held.end]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            held.start += written;
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_fill(&mut self, from: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = borrow();
        let mut space = ReadBuf::new(&mut buffer);
        let read = Pin::new(from).poll_read(cx, &mut space);
        let end = space.filled().len();
        if matches!(read, Poll::Ready(Ok(()))) && end > 0 {
            self.held = Some(Held { buffer, start: 0, end });
        } else {
            give_back(buffer);
            self.read_all = matches!(read, Poll::Ready(Ok(())));
        }
        read
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn an_end_is_carried_on_and_the_other_direction_lives() {
        let (mut client, mut a) = duplex(64);
        let (mut server, mut b) = duplex(64);
        let tunnel = tokio::spawn(async move { both(&mut a, &mut b).await });
        let sent = vec![7; 100_000];
        let all = sent.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&all).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, sent);
        let mut client = writer.await.unwrap();
        server.write_all(b"late").await.unwrap();
        drop(server);
        let mut late = Vec::new();
        client.read_to_end(&mut late).await.unwrap();
        assert_eq!(late, b"late");
        tunnel.await.unwrap().unwrap();
    }
}
