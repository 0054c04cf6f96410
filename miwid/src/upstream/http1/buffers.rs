//! Read buffers of one worker. A buffer comes back while what was read into it may still be on its way to a client: it is
//! given out again only when nobody looks into it any more, which the memory itself knows.

use std::cell::RefCell;

use bytes::BytesMut;

/// For heads, and for bodies as far as they fit.
pub(super) const SMALL: usize = 16 << 10;
/// For the rest of a long body.
pub(super) const LARGE: usize = 64 << 10;
/// Less room than this is not worth a read.
const ROOM_MIN: usize = 2 << 10;
/// Spare buffers of each size; more go back to the allocator.
const SPARE_MAX: usize = 32;
/// The newest are warm but may be in use yet: so many are looked at.
const LOOKS: usize = 4;

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

#[derive(Default)]
struct Spare {
    small: Vec<BytesMut>,
    large: Vec<BytesMut>,
    /// Buffers of these sizes were asked for since the last `trim`.
    used: [bool; 2],
}

impl Spare {
    fn of(&mut self, size: usize) -> Option<&mut Vec<BytesMut>> {
        match size {
            SMALL => Some(&mut self.small),
            LARGE => Some(&mut self.large),
            _ => None,
        }
    }
}

/// Gives back to the allocator what nobody has needed since the last time.
pub(in crate::upstream) fn trim() {
    SPARE.with_borrow_mut(|spare| {
        let used = std::mem::take(&mut spare.used);
        for (spare, used) in [&mut spare.small, &mut spare.large].into_iter().zip(used) {
            if !used {
                *spare = Vec::new();
            }
        }
    });
}

/// Bytes that were read; without any it has no memory either.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub bytes: BytesMut,
    size: usize,
}

impl Buffer {
    /// Room for a read of `size` (`SMALL` or `LARGE`), or for part of it where there are bytes already.
    pub(super) fn make_room(&mut self, size: usize) {
        let room = self.bytes.capacity() - self.bytes.len();
        // Another buffer costs less than another read.
        let enough = if self.bytes.is_empty() { size / 2 } else { ROOM_MIN };
        if room >= enough {
            return;
        }
        if self.bytes.is_empty() {
            *self = take(size);
            return;
        }
        let held = std::mem::take(self);
        let needed = held.bytes.len() + ROOM_MIN;
        *self = if needed <= size { take(size) } else { Self { bytes: BytesMut::with_capacity(needed * 2), size: 0 } };
        self.bytes.extend_from_slice(&held.bytes);
    }

    /// What nobody has taken is forgotten.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.size == 0 {
            return;
        }
        let (mut bytes, size) = (std::mem::take(&mut self.bytes), self.size);
        bytes.clear();
        // A worker that ends has no spare any more.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if let Some(spare) = spare.of(size)
                && spare.len() < SPARE_MAX
            {
                spare.push(bytes);
            }
        });
    }
}

fn take(size: usize) -> Buffer {
    let spare = SPARE.with_borrow_mut(|spare| {
        spare.used[usize::from(size == LARGE)] = true;
        let spare = spare.of(size)?;
        let newest = (0..spare.len()).rev().take(LOOKS).find(|it| spare[*it].try_reclaim(size))?;
        Some(spare.swap_remove(newest))
    });
    Buffer { bytes: spare.unwrap_or_else(|| BytesMut::with_capacity(size)), size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_nobody_looks_into_it() {
        let mut buffer = take(SMALL);
        let memory = buffer.bytes.as_ptr();
        buffer.bytes.extend_from_slice(b"head and body");
        let read = buffer.bytes.split_to(4).freeze();
        drop(buffer);
        assert_ne!(take(SMALL).bytes.as_ptr(), memory, "somebody reads it");
        drop(read);
        let again: Vec<_> = (0..2).map(|_| take(SMALL)).collect();
        assert!(again.iter().any(|it| it.bytes.as_ptr() == memory));
    }

    #[test]
    fn what_was_read_stays_when_there_has_to_be_more_room() {
        let mut buffer = Buffer::default();
        buffer.make_room(SMALL);
        let text = vec![7; SMALL - 10];
        buffer.bytes.extend_from_slice(&text);
        for size in [SMALL, LARGE] {
            buffer.make_room(size);
            assert!(buffer.bytes.capacity() - buffer.bytes.len() >= ROOM_MIN);
            assert_eq!(buffer.bytes, text);
        }
    }

    #[test]
    fn memory_that_is_not_needed_goes() {
        drop([take(SMALL), take(LARGE)]);
        trim();
        assert_eq!(SPARE.with_borrow(|it| (it.small.len(), it.large.len())), (1, 1));
        trim();
        assert_eq!(SPARE.with_borrow(|it| (it.small.len(), it.large.len())), (0, 0));
    }
}
