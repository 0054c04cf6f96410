//! Bytes that wait to be taken: written at the end, taken from the front. Empty, it can be without any memory.

/// As `Vec` would have it, but that what lies behind the end stays initialized and is written over.
#[derive(Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Held {
    /// With room for so many bytes from the start.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes], from: 0, to: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.from == self.to
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    /// Room for so many bytes at least, behind all others. What is written there counts once it is `put`.
    pub(super) fn room(&mut self, bytes: usize) -> &mut [u8] {
        let needed = self.to + bytes;
        if self.bytes.len() < needed {
            self.bytes.reserve_exact(needed - self.bytes.len());
            self.bytes.resize(needed, 0);
        }
        &mut self.bytes[self.to..]
    }

    pub(super) fn put(&mut self, count: usize) {
        self.to = (self.to + count).min(self.bytes.len());
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.truncate(self.to);
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self.to = self.bytes.len();
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.from = (self.from + count).min(self.to);
        if self.from == self.to {
            self.clear();
        }
    }

    /// The memory stays.
    pub(super) fn clear(&mut self) {
        (self.from, self.to) = (0, 0);
    }

    /// Gives the memory back when nobody needs it.
    pub(super) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_comes_out_in_order_and_an_empty_one_can_be_without_memory() {
        let mut held = Held::default();
        held.push(b"abc");
        held.advance(2);
        held.push(b"def");
        held.push(b"");
        assert_eq!(held.bytes(), b"cdef");
        held.release();
        assert_eq!(held.bytes(), b"cdef", "nothing is lost");
        held.advance(100);
        assert!(held.is_empty() && held.capacity() > 0);
        held.release();
        assert_eq!(held.capacity(), 0);
    }

    #[test]
    fn room_that_was_not_used_does_not_count() {
        let mut held = Held::with_room(8);
        held.room(4)[..2].copy_from_slice(b"ab");
        held.put(2);
        assert_eq!(held.bytes(), b"ab");
        assert!(held.room(100).len() >= 100);
        held.put(usize::MAX / 2);
        assert_eq!(held.bytes().len(), 102, "never more than there is");
    }
}
