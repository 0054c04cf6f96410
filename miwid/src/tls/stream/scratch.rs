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
/// Streams whose client is slow take theirs along and bring it back.
const WRITE_SPARE: usize = 8;

thread_local! {
    static READING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static WRITING: Cell<Vec<Held>> = const { Cell::new(Vec::new()) };
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
    let mut spare = WRITING.try_with(Cell::take).unwrap_or_default();
    let room = spare.pop().unwrap_or_else(|| Held::with_room(WRITE_BYTES));
    let _ = WRITING.try_with(|it| it.set(spare));
    room
}

/// Takes back what `writing` gave; anything else is dropped.
pub(super) fn has_written(mut room: Held) {
    if room.capacity() < WRITE_BYTES {
        return;
    }
    room.clear();
    let _ = WRITING.try_with(|it| {
        let mut spare = it.take();
        if spare.len() < WRITE_SPARE {
            spare.push(room);
        }
        it.set(spare);
    });
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
