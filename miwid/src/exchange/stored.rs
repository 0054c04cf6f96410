//! The content of a file that is asked for again and again: kept by one worker, and sure for a moment only.

use std::{
    cell::{Cell, OnceCell},
    fs::File,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

/// For how long a file is not looked at again. What is served is never older than this, however busy the file is.
const FRESH_FOR: Duration = Duration::from_millis(250);

/// What a plain GET of it is answered with. Of one worker: not `Send`.
#[derive(Debug)]
pub struct Stored {
    /// `None`: only its bytes are what is sent.
    pub file: Option<Arc<File>>,
    pub length: u64,
    bytes: OnceCell<Bytes>,
    /// When the file was last found to be the same.
    checked: Rc<Cell<Instant>>,
}

impl Stored {
    pub fn new(file: Arc<File>, length: u64, checked: Instant) -> Self {
        Self { file: Some(file), length, bytes: OnceCell::new(), checked: Rc::new(Cell::new(checked)) }
    }

    /// The same in another coding, fresh as long as this is.
    pub fn in_other_words(&self, bytes: Bytes) -> Self {
        let length = bytes.len() as u64;
        Self { file: None, length, bytes: OnceCell::from(bytes), checked: self.checked.clone() }
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
