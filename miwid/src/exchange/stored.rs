//! The content of a file that is asked for again and again: kept by one worker, and sure for a moment only.

use std::{
    cell::{Cell, OnceCell},
    fs::File,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

/// For how long a file is not looked at again. What is served is never older than this, however busy the file is.
const FRESH_FOR: Duration = Duration::from_millis(250);

/// What a plain GET of it is answered with. Of one worker: not `Send`.
#[derive(Debug)]
pub struct Stored {
    pub file: Arc<File>,
    pub length: u64,
    bytes: OnceCell<Bytes>,
    checked: Cell<Instant>,
}

impl Stored {
    pub fn new(file: Arc<File>, length: u64, checked: Instant) -> Self {
        Self { file, length, bytes: OnceCell::new(), checked: Cell::new(checked) }
    }

    /// The content, once it has been read into memory.
    pub fn bytes(&self) -> Option<&Bytes> {
        self.bytes.get()
    }

    /// The first reading stays.
    pub fn keep(&self, bytes: Bytes) {
        let _ = self.bytes.set(bytes);
    }

    /// The file was found to be the same.
    pub fn check(&self, now: Instant) {
        self.checked.set(now);
    }

    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.checked.get())
    }

    pub fn is_fresh(&self, now: Instant) -> bool {
        self.age(now) < FRESH_FOR
    }
}
