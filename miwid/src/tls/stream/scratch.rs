//! Buffers that all connections of a worker use in turn, each for as long as one poll takes.
//!
//! They are taken out of their cell and put back, so whoever comes in between finds none and makes one: a stream over
//! another stream works, and only pays for it.

use std::cell::Cell;

use super::held::Held;

/// What is read at once: some records, with what was left of the read before in front of them.
pub(super) const READ_BYTES: usize = 64 << 10;
/// What is encrypted at once: four records, and what the version and the cipher put around them.
const WRITE_BYTES: usize = (64 << 10) + 1024;

thread_local! {
    static READING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static WRITING: Cell<Option<Held>> = const { Cell::new(None) };
    static JOINING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// `READ_BYTES` long.
pub(super) fn reading() -> Vec<u8> {
    let mut room = READING.try_with(Cell::take).unwrap_or_default();
    room.resize(READ_BYTES, 0);
    room
}

pub(super) fn has_read(room: Vec<u8>) {
    let _ = READING.try_with(|it| it.set(room));
}

pub(super) fn writing() -> Held {
    WRITING.try_with(Cell::take).ok().flatten().unwrap_or_else(|| Held::with_room(WRITE_BYTES))
}

pub(super) fn has_written(mut room: Held) {
    room.clear();
    let _ = WRITING.try_with(|it| it.set(Some(room)));
}

/// For a record that is in several pieces.
pub(super) fn joining() -> Vec<u8> {
    let mut joined = JOINING.try_with(Cell::take).unwrap_or_default();
    joined.clear();
    joined
}

pub(super) fn has_joined(joined: Vec<u8>) {
    let _ = JOINING.try_with(|it| it.set(joined));
}
