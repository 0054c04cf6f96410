//! The socket to an endpoint, whatever it is, as one type: no box between HTTP and it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

use crate::net::Pipe;

pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket that the kernel can move bytes from by itself.
pub(super) trait Splice {
    fn is_spliceable(&self) -> bool;

    /// Into a pipe that is empty; Ready with how much, 0 at the end.
    fn poll_splice(&self, cx: &mut Context<'_>, pipe: &mut Pipe, limit: u64) -> Poll<io::Result<usize>>;
}

impl Splice for Stream {
    fn is_spliceable(&self) -> bool {
        !matches!(self, Self::Tls(_))
    }

    fn poll_splice(&self, cx: &mut Context<'_>, pipe: &mut Pipe, limit: u64) -> Poll<io::Result<usize>> {
        loop {
            let moved = match self {
                Self::Tcp(stream) => stream.try_io(Interest::READABLE, || pipe.fill(stream, limit)),
                Self::Unix(stream) => stream.try_io(Interest::READABLE, || pipe.fill(stream, limit)),
                Self::Tls(_) => return Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
            };
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_readable(cx))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                moved => return Poll::Ready(moved),
            }
        }
    }
}

impl Stream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Tls(_) => Poll::Ready(Ok(())),
        }
    }
}

macro_rules! on {
    ($stream:expr, $it:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Tcp(stream) => {
                let $it = Pin::new(stream);
                $call
            }
            Stream::Unix(stream) => {
                let $it = Pin::new(stream);
                $call
            }
            Stream::Tls(stream) => {
                let $it = Pin::new(&mut **stream);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on!(self, it => it.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on!(self, it => it.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, it => it.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, it => it.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(self, it => it.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
