//! Bytes from one socket to another past our memory: the kernel hands its pages from the one to a pipe, and from there to the
//! other (splice(2)). What is in the pipe belongs to whoever holds it.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

/// Pipes of all workers: a slow client holds one for long, and connections are counted without it. Beyond, bytes go through our
/// memory.
const PIPES_MAX: usize = 64;
/// Empty pipes that a worker keeps.
const SPARE_MAX: usize = 4;
/// Most answers that are worth a pipe fit in at once.
const PIPE_BYTES: usize = 256 << 10;
/// What is moved at once: more than a pipe holds, as its pages may be large.
const STRETCH: u64 = 1 << 20;

thread_local! {
    static SPARE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

static PIPES: Places = Places::new(PIPES_MAX);

/// How many more there may be.
struct Places(AtomicUsize);

/// Given back when it is dropped.
struct Place(&'static Places);

struct Ends {
    out: OwnedFd,
    into: OwnedFd,
    _place: Place,
}

impl Places {
    const fn new(count: usize) -> Self {
        Self(AtomicUsize::new(count))
    }

    fn take(&'static self) -> Option<Place> {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).ok().map(|_| Place(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Relaxed);
    }
}

pub struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

impl Pipe {
    pub fn open() -> io::Result<Self> {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        let ends = match spare {
            Some(ends) => ends,
            None => {
                let _place = PIPES.take().ok_or(io::ErrorKind::QuotaExceeded)?;
                let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                // A user may have so many pages in pipes, and gets the usual size beyond that.
                let _ = fcntl_setpipe_size(&into, PIPE_BYTES);
                Ends { out, into, _place }
            }
        };
        Ok(Self { ends: Some(ends), held: 0 })
    }

    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes up to `limit` bytes from a socket; 0: its end. Only when it is empty, so that being full never looks like having
    /// nothing to read.
    pub fn fill(&mut self, from: impl AsFd, limit: u64) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let length = usize::try_from(limit.min(STRETCH)).unwrap_or(usize::MAX);
        let count = splice(from, None, &ends.into, None, length, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?;
        self.held += count;
        Ok(count)
    }

    /// Gives what it holds to a socket; Ready with how much that took.
    pub fn poll_drain(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            let moved = to.try_io(Interest::WRITABLE, || {
                let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
                Ok(splice(&ends.out, None, to, None, self.held, flags)?)
            });
            match moved {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.held -= count;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(to.poll_write_ready(cx))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take().filter(|_| self.held == 0) else { return };
        // A worker that ends has no spare any more.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(ends);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{os::fd::AsRawFd, pin::pin};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    fn number(pipe: &Pipe) -> i32 {
        pipe.ends.as_ref().unwrap().out.as_raw_fd()
    }

    #[tokio::test]
    async fn bytes_pass_in_order_and_not_more_than_asked_for() {
        let ((mut source, from), (to, mut sink)) = (pair().await, pair().await);
        source.write_all(b"0123456789").await.unwrap();
        let mut pipe = Pipe::open().unwrap();
        let mut left = 7;
        while left > 0 {
            from.readable().await.unwrap();
            left -= pipe.fill(&from, left).unwrap() as u64;
            while !pipe.is_empty() {
                std::future::poll_fn(|cx| pipe.poll_drain(&to, cx)).await.unwrap();
            }
        }
        drop(to);
        let mut got = String::new();
        sink.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "0123456");
    }

    #[tokio::test]
    async fn a_socket_that_takes_nothing_is_waited_for() {
        let ((mut source, from), (to, mut sink)) = (pair().await, pair().await);
        let writing = tokio::spawn(async move {
            source.write_all(&vec![7; 8 << 20]).await.unwrap();
            source
        });
        let mut pipe = Pipe::open().unwrap();
        let mut moving = pin!(async {
            loop {
                from.readable().await.unwrap();
                match from.try_io(Interest::READABLE, || pipe.fill(&from, u64::MAX)) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => panic!("{error}"),
                }
                while !pipe.is_empty() {
                    std::future::poll_fn(|cx| pipe.poll_drain(&to, cx)).await.unwrap();
                }
            }
        });
        let mut got = 0;
        let mut buffer = vec![0; 64 << 10];
        while got < 8 << 20 {
            tokio::select! {
                () = &mut moving => panic!("the source has not ended"),
                read = sink.read(&mut buffer) => got += read.unwrap(),
            }
        }
        drop(writing.await.unwrap());
        moving.await;
    }

    #[tokio::test]
    async fn an_empty_pipe_is_used_again_and_one_that_holds_something_is_not() {
        let pipe = Pipe::open().unwrap();
        let first = number(&pipe);
        drop(pipe);
        let (mut source, from) = pair().await;
        source.write_all(b"secret of one client").await.unwrap();
        from.readable().await.unwrap();
        let mut pipe = Pipe::open().unwrap();
        assert_eq!(number(&pipe), first);
        pipe.fill(&from, 100).unwrap();
        drop(pipe);
        assert!(SPARE.with_borrow(Vec::is_empty));
    }

    #[test]
    fn places_are_given_back() {
        static TWO: Places = Places::new(2);
        let (first, second) = (TWO.take(), TWO.take());
        assert!(first.is_some() && second.is_some() && TWO.take().is_none());
        drop(first);
        assert!(TWO.take().is_some_and(|_| TWO.take().is_none()));
    }
}
