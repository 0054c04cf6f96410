//! The first bytes of a cleartext connection say whether it is HTTP/2 by prior knowledge (RFC 9113, 3.3). They are read
//! once, judged, and given back before the rest.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    Http1,
    Http2,
    /// The client left without a word.
    Closed,
}

/// Reads until the first bytes can be told apart: one byte is enough for every HTTP/1 method but `PRI`.
pub async fn sniff<T: AsyncRead + AsyncWrite + Unpin>(mut io: T) -> io::Result<(Preface, Prefixed<T>)> {
    let mut head = BytesMut::with_capacity(HTTP2_PREFACE.len());
    let preface = loop {
        if io.read_buf(&mut head).await? == 0 {
            break if head.is_empty() { Preface::Closed } else { Preface::Http1 };
        }
        if head.len() >= HTTP2_PREFACE.len() {
            break if head.starts_with(HTTP2_PREFACE) { Preface::Http2 } else { Preface::Http1 };
        }
        if !HTTP2_PREFACE.starts_with(&head) {
            break Preface::Http1;
        }
    };
    Ok((preface, Prefixed { prefix: head.freeze(), io }))
}

/// An io that gives back what was read ahead before it reads on.
pub struct Prefixed<T> {
    prefix: Bytes,
    io: T,
}

impl<T> Prefixed<T> {
    pub fn new(prefix: Bytes, io: T) -> Self {
        Self { prefix, io }
    }

    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let n = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..n]);
        self.prefix.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
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
    use super::*;

    async fn check(first: &[u8], expected: Preface) {
        let (mut client, server) = tokio::io::duplex(256);
        tokio::io::AsyncWriteExt::write_all(&mut client, first).await.expect("the pipe is open");
        drop(client);
        let (preface, mut io) = sniff(server).await.expect("a pipe reads");
        assert_eq!(preface, expected, "{}", String::from_utf8_lossy(first));
        let mut all = Vec::new();
        io.read_to_end(&mut all).await.expect("a pipe reads");
        assert_eq!(all, first, "every byte is given back");
    }

    #[tokio::test]
    async fn first_bytes_tell_the_protocols_apart() {
        check(b"", Preface::Closed).await;
        check(b"G", Preface::Http1).await;
        check(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Preface::Http1).await;
        check(b"PRI", Preface::Http1).await;
        check(b"PRIVATE / HTTP/1.1\r\n\r\n", Preface::Http1).await;
        check(HTTP2_PREFACE, Preface::Http2).await;
        check(&[HTTP2_PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat(), Preface::Http2).await;
    }
}
