//! What is to be written on a connection: a head, data that follows it, and what ends that; in as few system calls as there
//! can be.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Data that is shorter is copied behind what goes before it.
const COPIED_MAX: usize = 4 << 10;
/// A longer buffer for heads is given back to the allocator.
const SCRATCH_MAX: usize = 16 << 10;
/// As many as exchanges are usually under way on a worker, each with one for either side; they are short.
const SCRATCH_SPARE: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that are to be written, in their order.
pub struct Staged {
    pub before: Vec<u8>,
    written: usize,
    data: Bytes,
    after: &'static [u8],
    /// What ends a chunked body.
    pub last: Vec<u8>,
}

impl Staged {
    #[expect(clippy::new_without_default, reason = "it takes a buffer from those who have written before")]
    pub fn new() -> Self {
        let before = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
        Self { before, written: 0, data: Bytes::new(), after: b"", last: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.before.len() == self.written && self.data.is_empty() && self.after.is_empty() && self.last.is_empty()
    }

    /// Only when there is no data yet.
    pub fn put(&mut self, data: Bytes, after: &'static [u8]) {
        if data.len() <= COPIED_MAX {
            self.before.extend_from_slice(&data);
            self.before.extend_from_slice(after);
        } else {
            (self.data, self.after) = (data, after);
        }
    }

    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<usize>> {
        if self.data.is_empty() && self.after.is_empty() && !self.last.is_empty() {
            self.before.append(&mut self.last);
        }
        let before = &self.before[self.written..];
        let count = if self.data.is_empty() && self.after.is_empty() {
            ready!(Pin::new(stream).poll_write(cx, before))?
        } else {
            let parts = [before, &self.data, self.after, &self.last].map(IoSlice::new);
            ready!(Pin::new(stream).poll_write_vectored(cx, &parts))?
        };
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(count);
        Poll::Ready(Ok(count))
    }

    fn advance(&mut self, count: usize) {
        let before = count.min(self.before.len() - self.written);
        self.written += before;
        if self.written == self.before.len() {
            self.before.clear();
            self.written = 0;
        }
        let data = (count - before).min(self.data.len());
        self.data.advance(data);
        let after = (count - before - data).min(self.after.len());
        self.after = &self.after[after..];
        self.last.drain(..count - before - data - after);
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let mut scratch = std::mem::take(&mut self.before);
        scratch.clear();
        let _ = SCRATCH.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if (1..=SCRATCH_MAX).contains(&scratch.capacity()) && spare.len() < SCRATCH_SPARE {
                spare.push(scratch);
            }
        });
    }
}
