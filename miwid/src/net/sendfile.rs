//! From a file to a socket without passing through memory of ours. Two things are easy to get wrong: pages that are not in
//! memory would make the worker wait for the disk, and a file that has become shorter sends nothing, for ever.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    os::unix::fs::FileExt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::{
    io::{Errno, ReadWriteFlags, preadv2},
    net::SendFlags,
};
use tokio::{io::Interest, net::TcpStream, task::JoinHandle};

/// One system call sends at most this much: the others of the worker wait meanwhile.
const STRETCH: u64 = 1 << 20;
/// A poll sends at most so many stretches before others have their turn.
const STRETCHES_AT_ONCE: usize = 2;
/// Shorter files were read a moment ago.
const COLD_FROM: u64 = 256 << 10;

/// A file, or what is left of it, on its way.
pub struct Sending {
    file: Arc<File>,
    offset: u64,
    end: u64,
    /// As far as this it was seen to be in memory.
    warm: u64,
    warming: Option<JoinHandle<io::Result<()>>>,
}

impl Sending {
    pub fn new(file: Arc<File>, length: u64) -> Self {
        let warm = if length < COLD_FROM { length } else { 0 };
        Self { file, offset: 0, end: length, warm, warming: None }
    }

    pub fn is_done(&self) -> bool {
        self.offset == self.end
    }

    /// Moves what the socket takes. Ready with how much that was; 0 when all of it has been sent.
    pub fn poll_send(&mut self, socket: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let before = self.offset;
        for _ in 0..STRETCHES_AT_ONCE {
            if self.offset == self.end {
                break;
            }
            let length = (self.end - self.offset).min(STRETCH);
            match self.poll_warm(length, cx)? {
                Poll::Ready(()) => {}
                Poll::Pending if self.offset > before => break,
                Poll::Pending => return Poll::Pending,
            }
            match self.poll_stretch(socket, length as usize, cx)? {
                Poll::Ready(sent) if (sent as u64) < length => break,
                Poll::Ready(_) => {}
                Poll::Pending if self.offset > before => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok((self.offset - before) as usize))
    }

    fn poll_stretch(&mut self, socket: &TcpStream, length: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let mut offset = self.offset;
            let sent = socket.try_io(Interest::WRITABLE, || {
                Ok(rustix::fs::sendfile(socket, &self.file, Some(&mut offset), length)?)
            });
            match sent {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(sent) => {
                    self.offset += sent as u64;
                    return Poll::Ready(Ok(sent));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(socket.poll_write_ready(cx))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Ready when the next `length` bytes are in memory, as far as its last page tells.
    fn poll_warm(&mut self, length: u64, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let until = self.offset + length;
        if until <= self.warm {
            return Poll::Ready(Ok(()));
        }
        if self.warming.is_none() {
            if is_warm(&self.file, self.offset) && is_warm(&self.file, until - 1) {
                self.warm = until;
                return Poll::Ready(Ok(()));
            }
            self.warming = Some(warm(self.file.clone(), self.offset, length));
        }
        let Some(warming) = &mut self.warming else { return Poll::Pending };
        let warmed = ready!(Pin::new(warming).poll(cx));
        self.warming = None;
        self.warm = until;
        Poll::Ready(warmed.unwrap_or_else(|error| Err(io::Error::other(error))))
    }
}

/// File systems that cannot tell are taken for warm: most of them live in memory.
fn is_warm(file: &File, offset: u64) -> bool {
    let mut byte = [0];
    !matches!(preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT), Err(Errno::AGAIN))
}

fn warm(file: Arc<File>, offset: u64, length: u64) -> JoinHandle<io::Result<()>> {
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; 128 << 10];
        let mut at = offset;
        while at < offset + length {
            match file.read_at(&mut buffer, at) {
                Ok(0) => break,
                Ok(read) => at += read as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })
}

/// Writes a head that is followed by a file: in the same packet, if it fits.
pub fn poll_send_more(socket: &TcpStream, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    loop {
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        let sent = socket.try_io(Interest::WRITABLE, || Ok(rustix::net::send(socket, bytes, flags)?));
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(socket.poll_write_ready(cx))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::Write};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        (client, listener.accept().await.expect("somebody is at the door").0)
    }

    fn file(bytes: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().expect("temporary files can be made");
        file.write_all(bytes).expect("there is space");
        Arc::new(file)
    }

    async fn send(sending: &mut Sending, socket: &TcpStream) -> io::Result<u64> {
        let mut sent = 0;
        loop {
            match poll_fn(|cx| sending.poll_send(socket, cx)).await? {
                0 => return Ok(sent),
                more => sent += more as u64,
            }
        }
    }

    #[tokio::test]
    async fn a_head_and_a_file_arrive_in_order_and_whole() {
        let bytes: Vec<u8> = (0..3_000_001_u32).map(|it| (it % 251) as u8).collect();
        let (mut client, mut server) = sockets().await;
        let mut sending = Sending::new(file(&bytes), bytes.len() as u64);
        let reading = async {
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.expect("it is closed in order");
            all
        };
        let writing = async {
            let head = poll_fn(|cx| poll_send_more(&server, b"head", cx)).await.expect("the client reads");
            assert_eq!(head, 4);
            let sent = send(&mut sending, &server).await.expect("the client reads");
            server.shutdown().await.expect("open till now");
            sent
        };
        let (all, sent) = tokio::join!(reading, writing);
        assert_eq!(sent, bytes.len() as u64);
        assert!(all == [b"head", &bytes[..]].concat(), "{} bytes came", all.len());
    }

    #[tokio::test]
    async fn a_file_that_has_become_shorter_is_an_error() {
        let (_client, server) = sockets().await;
        let mut sending = Sending::new(file(b"short"), 10);
        let error = send(&mut sending, &server).await.expect_err("five bytes are missing");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
