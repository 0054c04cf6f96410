//! The content of a file that is asked for again and again: kept by one worker, and offered to later requests for a moment.

use std::{
    cell::OnceCell,
    fs::File,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

/// For how long a file is not looked at again. What is served is never older than this, however busy the file is.
pub const FRESH_FOR: Duration = Duration::from_millis(250);

/// What a plain GET is answered with. Of one worker: not `Send`.
#[derive(Debug)]
pub struct Stored {
    /// `None`: only its bytes are what is sent.
    pub file: Option<Arc<File>>,
    pub length: u64,
    bytes: OnceCell<Bytes>,
}

impl Stored {
    pub fn of_file(file: Arc<File>, length: u64) -> Self {
        Self { file: Some(file), length, bytes: OnceCell::new() }
    }

    pub fn of_bytes(bytes: Bytes) -> Self {
        Self { file: None, length: bytes.len() as u64, bytes: OnceCell::from(bytes) }
    }

    /// The content, once it has been read into memory.
    pub fn bytes(&self) -> Option<&Bytes> {
        self.bytes.get()
    }

    /// The first reading stays.
    pub fn keep(&self, bytes: Bytes) {
        let _ = self.bytes.set(bytes);
    }
}

/// A whole answer for others who ask the same. Its time is its own: that somebody else has looked at the same file since
/// does not prolong it, because more than one file may have had a say in which one it is.
#[derive(Clone, Debug)]
pub struct Offer {
    pub stored: Rc<Stored>,
    pub until: Instant,
}
