//! A constant rate: requests are due at fixed moments, whatever the server does. A latency counts from the moment a
//! request was due, so that a server that stalls cannot hide behind a load that politely waits for it.
//!
//! One loop that never sleeps: timers are coarser than what is measured, and the core is the load's own.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::{Aim, latency::Latencies, result::Count};

/// How long answers may still come after the last request was due.
const GRACE: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 64 * 1024;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    aim: Aim,
    /// Requests a second.
    #[arg(long)]
    rate: f64,
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let mut load = Load::open(&options.aim)?;
    let count = Count::until(options.aim.seconds);
    let begun = Instant::now();
    let total = count_of(options.aim.seconds * options.rate);
    let (mut due, mut events) = (0_u64, Events::with_capacity(1024));
    loop {
        let now = Instant::now();
        while due < total {
            #[allow(clippy::cast_precision_loss)]
            let moment = begun + Duration::from_secs_f64(due as f64 / options.rate);
            if moment > now {
                break;
            }
            load.waiting.push_back(moment);
            due += 1;
        }
        load.send()?;
        load.poll.poll(&mut events, Some(Duration::ZERO))?;
        for event in &events {
            load.receive(event.token().0, &count)?;
        }
        let done = due == total && load.waiting.is_empty() && load.idle.len() == load.links.len();
        if done || now > count.end + GRACE {
            break;
        }
    }
    for _ in load.idle.len()..load.links.len() {
        count.failed("an answer that did not come in time");
    }
    let at = |share| load.latencies.within(share);
    count.tell(&[("p50_us", at(0.5)), ("p90_us", at(0.9)), ("p99_us", at(0.99))])
}

struct Load {
    poll: Poll,
    links: Vec<Link>,
    idle: Vec<usize>,
    /// When the requests that no connection was free for were due.
    waiting: VecDeque<Instant>,
    latencies: Latencies,
    request: Vec<u8>,
    buffer: Box<[u8]>,
}

struct Link {
    stream: TcpStream,
    due: Instant,
    /// Bytes of the answer's body that are still to come; none while its head is.
    left: Option<usize>,
    head: Vec<u8>,
}

// === impl Load ===

impl Load {
    fn open(aim: &Aim) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut links = Vec::with_capacity(aim.connections);
        for number in 0..aim.connections {
            let stream = std::net::TcpStream::connect(aim.address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            links.push(Link { stream, due: Instant::now(), left: None, head: Vec::with_capacity(1024) });
        }
        Ok(Self {
            poll,
            idle: (0..links.len()).collect(),
            links,
            waiting: VecDeque::new(),
            latencies: Latencies::new(),
            request: format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", aim.path).into_bytes(),
            buffer: vec![0; READ_BYTES].into(),
        })
    }

    /// Sends what is due on the connections that are free.
    fn send(&mut self) -> io::Result<()> {
        while let Some(&due) = self.waiting.front() {
            let Some(number) = self.idle.pop() else { return Ok(()) };
            self.waiting.pop_front();
            let link = &mut self.links[number];
            link.due = due;
            // An idle connection takes so little at once; anything else is an error to be told.
            link.stream.write_all(&self.request)?;
        }
        Ok(())
    }

    /// Takes what came on a connection until there is nothing more.
    fn receive(&mut self, number: usize, count: &Count) -> io::Result<()> {
        let link = &mut self.links[number];
        loop {
            match link.stream.read(&mut self.buffer) {
                Ok(0) => return Err(io::Error::other("the server closed a connection")),
                Ok(length) => {
                    if link.take(&self.buffer[..length])? {
                        self.latencies.record(link.due.elapsed());
                        count.answered();
                        self.idle.push(number);
                    }
                    // A short read emptied the socket; the next event says when there is more.
                    if length < READ_BYTES {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

// === impl Link ===

impl Link {
    /// Whether the answer ends with these bytes. There is one answer at a time, so nothing follows it.
    fn take(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let left = match self.left {
            Some(left) => left.checked_sub(bytes.len()).ok_or_else(|| io::Error::other("more than was announced"))?,
            None => {
                self.head.extend_from_slice(bytes);
                let Some(end) = self.head.windows(4).position(|it| it == b"\r\n\r\n") else { return Ok(false) };
                let length = body_length(&self.head[..end])?;
                let came = self.head.len() - end - 4;
                self.head.clear();
                length.checked_sub(came).ok_or_else(|| io::Error::other("more than was announced"))?
            }
        };
        self.left = (left > 0).then_some(left);
        Ok(left == 0)
    }
}

/// The length that the head of a 200 announces.
fn body_length(head: &[u8]) -> io::Result<usize> {
    let text = std::str::from_utf8(head).map_err(io::Error::other)?;
    if !text.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(format!("answered with {}", text.lines().next().unwrap_or_default())));
    }
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| io::Error::other("an answer without a length"))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn count_of(requests: f64) -> u64 {
    requests as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_found_whatever_its_case() {
        assert_eq!(body_length(b"HTTP/1.1 200 OK\r\nServer: a\r\ncontent-LENGTH: 12").ok(), Some(12));
        assert!(body_length(b"HTTP/1.1 200 OK\r\nServer: a").is_err(), "no length");
        assert!(body_length(b"HTTP/1.1 500 No\r\nContent-Length: 1").is_err(), "no 200");
    }
}
