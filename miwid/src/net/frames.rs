//! How often an HTTP/2 client may send what costs us work and brings it nothing. Only the nine bytes that open a frame are
//! looked at, in the bytes as they pass: whether a frame is right is for the HTTP/2 library to say, this guard counts.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::telemetry::Metrics;

const PREFACE: usize = 24;
const HEAD: usize = 9;
const END_STREAM: u8 = 1;
const DATA: u8 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;
/// So much of what a flood still sends is thrown away before the connection closes: bytes that nobody has read make the
/// kernel reset the connection, and the client would never see why.
const DISCARD_MAX: usize = 1 << 20;

/// What is counted, how many at once are borne, and how many a second for good.
const LIMITS: [(&str, f64, f64); 7] = [
    ("ping-flood", 100.0, 10.0),
    ("settings-flood", 100.0, 10.0),
    ("rapid-reset", 1000.0, 100.0),
    ("empty-frames", 100.0, 10.0),
    ("continuation-flood", 64.0, 10.0),
    ("priority-flood", 1000.0, 100.0),
    ("window-flood", 20_000.0, 5000.0),
];
const PING: usize = 0;
const WINDOW: usize = 6;

/// What a DATA frame of ours entitles the client to beyond the limits. Clients that measure the path send a PING for the
/// data that they get, and one window update for the stream and one for the connection for each piece that they read, which
/// may be a small part of a frame: a fast download brings many of both, and is no flood.
const PINGS_EARNED: f64 = 1.0;
const UPDATES_EARNED: f64 = 16.0;

/// Where frames open in bytes that come in pieces.
struct Heads {
    /// Bytes until the next frame opens.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
}

impl Heads {
    fn after(preface: usize) -> Self {
        Self { skip: preface, head: [0; HEAD], have: 0 }
    }

    /// The next head that these bytes complete; they are taken up to it, or all.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<[u8; HEAD]> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        *bytes = &bytes[skipped..];
        let taken = bytes.len().min(HEAD - self.have);
        self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
        self.have += taken;
        *bytes = &bytes[taken..];
        if self.have < HEAD {
            return None;
        }
        self.have = 0;
        self.skip = length(&self.head);
        Some(self.head)
    }

    fn between_frames(&self) -> bool {
        self.skip == 0 && self.have == 0
    }
}

fn length(head: &[u8; HEAD]) -> usize {
    u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize
}

/// Counts the frames of one connection.
pub struct Guard {
    heads: Heads,
    levels: [f64; LIMITS.len()],
    at: Instant,
    last_stream: u32,
}

impl Guard {
    pub fn new(now: Instant) -> Self {
        Self { heads: Heads::after(PREFACE), levels: [0.0; LIMITS.len()], at: now, last_stream: 0 }
    }

    /// The kind of flood that these bytes complete.
    pub fn read(&mut self, mut bytes: &[u8], now: Instant) -> Option<&'static str> {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        for (level, (_, _, rate)) in self.levels.iter_mut().zip(LIMITS) {
            *level = (*level - elapsed * rate).max(level.min(0.0));
        }
        while let Some(head) = self.heads.next(&mut bytes) {
            let flood = self.frame(&head);
            if flood.is_some() {
                return flood;
            }
        }
        None
    }

    /// So many DATA frames of ours have gone out.
    pub fn sent(&mut self, frames: usize) {
        for (counted, earned) in [(PING, PINGS_EARNED), (WINDOW, UPDATES_EARNED)] {
            self.levels[counted] -= frames as f64 * earned;
            // Nobody saves up: what is owed to the client is the time of one burst.
            self.levels[counted] = self.levels[counted].max(-LIMITS[counted].1);
        }
    }

    fn frame(&mut self, head: &[u8; HEAD]) -> Option<&'static str> {
        let [.., kind, flags, s0, s1, s2, s3] = *head;
        let counted = match kind {
            DATA if length(head) == 0 && flags & END_STREAM == 0 => 3,
            DATA => return None,
            1 => {
                self.last_stream = self.last_stream.max(u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]));
                return None;
            }
            2 | 16 => 5,
            3 => 2,
            4 => 1,
            6 => PING,
            9 => 4,
            // WINDOW_UPDATE, and what nobody knows.
            _ => WINDOW,
        };
        self.levels[counted] += 1.0;
        let (flood, burst, _) = LIMITS[counted];
        (self.levels[counted] > burst).then_some(flood)
    }
}

/// An HTTP/2 connection's io under a `Guard`. After a verdict it says GOAWAY, and reading fails.
pub struct Guarded<T> {
    io: T,
    guard: Guard,
    /// Of what we write: a frame of ours may be put only between two frames.
    outgoing: Heads,
    /// Bytes of DATA that have gone out.
    taken: Rc<Cell<u64>>,
    metrics: Metrics,
    flooded: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Guarded<T> {
    pub fn new(io: T, metrics: Metrics) -> Self {
        Self {
            io,
            guard: Guard::new(Instant::now()),
            outgoing: Heads::after(0),
            taken: Rc::default(),
            metrics,
            flooded: false,
        }
    }

    /// How many bytes of DATA the client has taken, as it grows.
    pub fn taken(&self) -> Rc<Cell<u64>> {
        self.taken.clone()
    }

    fn written(&mut self, mut bytes: &[u8]) {
        let mut data = 0;
        while let Some(head) = self.outgoing.next(&mut bytes) {
            if head[3] == DATA {
                data += 1;
                self.taken.set(self.taken.get() + length(&head) as u64);
            }
        }
        if data > 0 {
            self.guard.sent(data);
        }
    }

    /// As well as the kernel takes it at once: nobody waits for a client that floods.
    fn say_goaway(&mut self, cx: &mut Context<'_>) {
        if !self.outgoing.between_frames() {
            return;
        }
        let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        frame[9..13].copy_from_slice(&self.guard.last_stream.to_be_bytes());
        frame[13..].copy_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
        let _ = Pin::new(&mut self.io).poll_write(cx, &frame);
        let _ = Pin::new(&mut self.io).poll_flush(cx);
    }

    fn discard(&mut self, cx: &mut Context<'_>) {
        let mut scratch = [0; 4096];
        let mut discarded = 0;
        while discarded < DISCARD_MAX {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => discarded += buffer.filled().len(),
                _ => return,
            }
        }
    }
}

fn flooded() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the client floods")
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if me.flooded {
            return Poll::Ready(Err(flooded()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut me.io).poll_read(cx, buf))?;
        if let Some(kind) = me.guard.read(&buf.filled()[before..], Instant::now()) {
            me.flooded = true;
            me.metrics.connection_cut(kind);
            me.say_goaway(cx);
            me.discard(cx);
            return Poll::Ready(Err(flooded()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.flooded {
            return Poll::Ready(Err(flooded()));
        }
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.written(&bytes[..written]);
        Poll::Ready(Ok(written))
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
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.flooded {
            return Poll::Ready(Err(flooded()));
        }
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let part = left.min(slice.len());
            self.written(&slice[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + usize::from(length), 0xff);
        frame
    }

    fn verdict(frame: &[u8], count: usize, chunk: usize, pause: Duration) -> Option<&'static str> {
        let mut now = Instant::now();
        let mut guard = Guard::new(now);
        let bytes = [vec![0; PREFACE], frame.repeat(count)].concat();
        bytes.chunks(chunk).find_map(|chunk| {
            now += pause;
            guard.read(chunk, now)
        })
    }

    #[test]
    fn floods_are_told_from_traffic_however_the_bytes_are_cut() {
        for chunk in [1, 7, 9, 4096] {
            let told = |kind, flags, length, count| verdict(&frame(kind, flags, length), count, chunk, Duration::ZERO);
            assert_eq!(told(6, 0, 8, 100), None);
            assert_eq!(told(6, 0, 8, 101), Some("ping-flood"));
            assert_eq!(told(4, 0, 6, 101), Some("settings-flood"));
            assert_eq!(told(3, 0, 4, 1001), Some("rapid-reset"));
            assert_eq!(told(0, 0, 0, 101), Some("empty-frames"));
            assert_eq!(told(0, 1, 0, 5000), None, "the end of a stream is no empty frame");
            assert_eq!(told(0, 0, 1, 5000), None);
            assert_eq!(told(1, 4, 10, 5000), None);
            assert_eq!(told(9, 0, 0, 65), Some("continuation-flood"));
            assert_eq!(told(2, 0, 5, 1001), Some("priority-flood"));
            assert_eq!(told(8, 0, 4, 20_001), Some("window-flood"));
        }
    }

    #[test]
    fn what_a_download_brings_with_it_is_no_flood() {
        let now = Instant::now();
        let mut guard = Guard::new(now);
        assert_eq!(guard.read(&[0; PREFACE], now), None);
        // For each frame that it gets: a PING, and eight pieces read, each with an update for the stream and the connection.
        let answer = [frame(6, 0, 8), frame(8, 0, 4).repeat(16)].concat();
        for number in 0..100_000 {
            guard.sent(1);
            assert_eq!(guard.read(&answer, now), None, "after {number} frames");
        }
        let pings = frame(6, 0, 8).repeat(300);
        assert_eq!(guard.read(&pings, now), Some("ping-flood"), "a download does not excuse what comes after it");
    }

    #[test]
    fn what_is_spread_over_time_is_no_flood() {
        let ping = frame(6, 0, 8);
        assert_eq!(verdict(&ping, 2000, ping.len(), Duration::from_millis(200)), None);
        assert_eq!(verdict(&ping, 2000, ping.len(), Duration::from_millis(20)), Some("ping-flood"));
    }
}
