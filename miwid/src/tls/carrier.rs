//! One TLS connection over TCP, whoever encrypts it: we do, until a file is to go out that the kernel may have the keys for.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    kernel::{KernelStream, Support, prepare},
    stream::TlsStream,
};

pub struct Carrier {
    by: By,
    /// What the kernel may be asked for.
    support: Option<Support>,
}

#[expect(clippy::large_enum_variant, reason = "whoever has it is in a box")]
enum By {
    Us(TlsStream<TcpStream>),
    Kernel(KernelStream),
    /// The keys were on their way and are lost.
    Nobody,
}

impl Carrier {
    pub fn new(stream: TlsStream<TcpStream>, support: Option<Support>) -> Self {
        Self { by: By::Us(stream), support }
    }

    /// Whether the kernel encrypts, from now on if not before. If it cannot, everything stays as it is.
    pub fn hand_over(&mut self) -> io::Result<bool> {
        match (&self.by, self.support) {
            (By::Kernel(_), _) => return Ok(true),
            (By::Us(stream), Some(support)) => {
                let is_taken = stream.at_rest().is_some_and(|it| support.takes(it));
                if !is_taken || !prepare(stream.io()) {
                    return Ok(false);
                }
            }
            (By::Us(_) | By::Nobody, _) => return Ok(false),
        }
        let (By::Us(stream), Some(support)) = (std::mem::replace(&mut self.by, By::Nobody), self.support) else {
            return Ok(false);
        };
        let (socket, connection) = stream.into_parts();
        self.by = By::Kernel(KernelStream::new(socket, connection, support)?);
        Ok(true)
    }

    /// What a file may be sent to; only if the kernel encrypts.
    pub fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&TcpStream>> {
        match &mut self.by {
            By::Kernel(stream) => stream.poll_socket(cx),
            By::Us(_) | By::Nobody => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    /// So many bytes of a file went there at once.
    pub fn has_sent(&mut self, bytes: usize) {
        if let By::Kernel(stream) = &mut self.by {
            stream.has_sent(bytes);
        }
    }
}

fn nobody<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Carrier {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.by {
            By::Us(stream) => Pin::new(stream).poll_read(cx, buf),
            By::Kernel(stream) => Pin::new(stream).poll_read(cx, buf),
            By::Nobody => nobody(),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.by {
            By::Us(stream) => Pin::new(stream).poll_write(cx, bytes),
            By::Kernel(stream) => Pin::new(stream).poll_write(cx, bytes),
            By::Nobody => nobody(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.by {
            By::Us(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            By::Kernel(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            By::Nobody => nobody(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.by {
            By::Us(stream) => Pin::new(stream).poll_flush(cx),
            By::Kernel(stream) => Pin::new(stream).poll_flush(cx),
            By::Nobody => nobody(),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.by {
            By::Us(stream) => Pin::new(stream).poll_shutdown(cx),
            By::Kernel(stream) => Pin::new(stream).poll_shutdown(cx),
            By::Nobody => Poll::Ready(Ok(())),
        }
    }
}
