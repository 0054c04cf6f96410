//! From bytes of a pipe to lines within bounds, pure: a splitter with a longest line, a ring with a number of bytes, a
//! rate with a burst. Bytes stay as received, whatever their encoding.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

/// A longer line is written in pieces.
pub(super) const LINE_BYTES_MAX: usize = 16 << 10;
/// Ends each piece of a line that was too long.
const SPLIT_MARK: &[u8] = b" [miwid: line split]";

/// Cuts a stream into lines without their ends.
#[derive(Default)]
pub(super) struct Splitter {
    partial: BytesMut,
}

impl Splitter {
    pub(super) fn push(&mut self, mut chunk: &[u8], mut line: impl FnMut(Bytes)) {
        while !chunk.is_empty() {
            let room = LINE_BYTES_MAX - self.partial.len();
            match memchr::memchr(b'\n', &chunk[..chunk.len().min(room + 1)]) {
                Some(end) => {
                    self.partial.extend_from_slice(&chunk[..end]);
                    line(self.partial.split().freeze());
                    chunk = &chunk[end + 1..];
                }
                None if chunk.len() > room => {
                    self.partial.extend_from_slice(&chunk[..room]);
                    self.partial.extend_from_slice(SPLIT_MARK);
                    line(self.partial.split().freeze());
                    chunk = &chunk[room..];
                }
                None => {
                    self.partial.extend_from_slice(chunk);
                    return;
                }
            }
        }
    }

    /// What is left without an end when the stream ends.
    pub(super) fn finish(&mut self) -> Option<Bytes> {
        (!self.partial.is_empty()).then(|| self.partial.split().freeze())
    }
}

/// A text that is waited for in what an instance prints.
#[derive(Debug)]
pub(super) struct Needle {
    text: String,
    found: AtomicBool,
}

impl Needle {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), found: AtomicBool::new(false) }
    }

    pub(super) fn look(&self, line: &[u8]) {
        if !self.is_found() && memchr::memmem::find(line, self.text.as_bytes()).is_some() {
            self.found.store(true, Relaxed);
        }
    }

    /// It was seen before we looked.
    pub(super) fn recall(&self) {
        self.found.store(true, Relaxed);
    }

    pub(super) fn is_found(&self) -> bool {
        self.found.load(Relaxed)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Lines on their way to the disk. When full the oldest go, counted.
pub(super) struct Ring {
    lines: VecDeque<Bytes>,
    bytes: usize,
    bytes_max: usize,
    dropped_lines: u64,
    dropped_bytes: u64,
    marker: fn(u64, u64) -> String,
}

/// What the file says of lines that are missing.
fn plain_marker(lines: u64, bytes: u64) -> String {
    format!("[miwid] dropped {lines} lines ({bytes} bytes)\n")
}

impl Ring {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { lines: VecDeque::new(), bytes: 0, bytes_max, dropped_lines: 0, dropped_bytes: 0, marker: plain_marker }
    }

    /// The same with another way to say what is missing; it ends in a newline.
    pub(super) fn marked_by(self, marker: fn(u64, u64) -> String) -> Self {
        Self { marker, ..self }
    }

    pub(super) fn push(&mut self, line: Bytes) {
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len() + 1;
            self.drop_line(&oldest);
        }
    }

    /// Counts a line that never got in.
    pub(super) fn drop_line(&mut self, line: &[u8]) {
        self.dropped_lines += 1;
        self.dropped_bytes += line.len() as u64 + 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped_lines == 0
    }

    /// Takes up to `bytes` as one block of whole lines; what was dropped is said first, because it was older. The number
    /// is how many lines that were.
    pub(super) fn take(&mut self, bytes: usize) -> (Vec<u8>, u64) {
        let mut block = Vec::with_capacity(self.bytes.min(bytes) + 64);
        let dropped = std::mem::take(&mut self.dropped_lines);
        if dropped > 0 {
            let lost = std::mem::take(&mut self.dropped_bytes);
            block.extend_from_slice((self.marker)(dropped, lost).as_bytes());
        }
        while block.len() < bytes {
            let Some(line) = self.lines.pop_front() else { break };
            self.bytes -= line.len() + 1;
            block.extend_from_slice(&line);
            block.push(b'\n');
        }
        (block, dropped)
    }
}

/// How much one app may write: so many bytes and lines per second, four times that at once.
pub(super) struct Rate {
    bytes_per_second: f64,
    lines_per_second: f64,
    bytes: f64,
    lines: f64,
    at: Instant,
}

const BURST: f64 = 4.0;

impl Rate {
    pub(super) fn new(bytes_per_second: u64, lines_per_second: u32, now: Instant) -> Self {
        let (bytes_per_second, lines_per_second) = (bytes_per_second as f64, f64::from(lines_per_second));
        Self {
            bytes_per_second,
            lines_per_second,
            bytes: bytes_per_second * BURST,
            lines: lines_per_second * BURST,
            at: now,
        }
    }

    pub(super) fn admits(&mut self, bytes: usize, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).max(Duration::ZERO).as_secs_f64();
        self.at = now;
        self.bytes = (self.bytes + passed * self.bytes_per_second).min(self.bytes_per_second * BURST);
        self.lines = (self.lines + passed * self.lines_per_second).min(self.lines_per_second * BURST);
        let fits = self.bytes >= bytes as f64 && self.lines >= 1.0;
        if fits {
            self.bytes -= bytes as f64;
            self.lines -= 1.0;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Bytes> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |line| lines.push(line));
        }
        lines.extend(splitter.finish());
        lines
    }

    #[test]
    fn lines_are_whole_however_the_chunks_are_cut() {
        assert_eq!(split(&[b"on", b"e\n\ntw", b"o\n", b"three"]), ["one", "", "two", "three"]);
    }

    #[test]
    fn a_line_of_the_greatest_length_is_whole_and_a_longer_one_is_split_and_marked() {
        let mut longest = vec![b'x'; LINE_BYTES_MAX];
        longest.push(b'\n');
        assert_eq!(split(&[&longest]).len(), 1);
        let lines = split(&[&vec![b'y'; 1 << 20]]);
        assert_eq!(lines.len(), (1 << 20) / LINE_BYTES_MAX);
        assert!(lines[0].ends_with(SPLIT_MARK));
        let content: usize = lines.iter().map(|line| line.iter().filter(|&&byte| byte == b'y').count()).sum();
        assert_eq!(content, 1 << 20);
    }

    #[test]
    fn bytes_that_are_not_text_stay_exactly_as_they_were() {
        assert_eq!(split(&[b"\xff\x00\xfe\n"])[0], &b"\xff\x00\xfe"[..]);
    }

    #[test]
    fn a_full_ring_drops_the_oldest_lines_and_says_how_many() {
        let mut ring = Ring::new(30);
        for at in 0..10 {
            ring.push(Bytes::from(format!("line {at}")));
        }
        let (block, dropped) = ring.take(1_000);
        let text = String::from_utf8(block).expect("text");
        assert_eq!(dropped, 6);
        let expected = "[miwid] dropped 6 lines (42 bytes)\nline 6\nline 7\nline 8\nline 9\n";
        // 30 bytes hold four lines of 7.
        assert_eq!(text, expected);
        assert!(ring.is_empty());
    }

    #[test]
    fn a_rate_admits_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(1_000_000, 10, start);
        assert_eq!((0..100).filter(|_| rate.admits(10, start)).count(), 40);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| rate.admits(10, later)).count(), 10);
    }
}
