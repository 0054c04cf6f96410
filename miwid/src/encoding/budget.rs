//! How much memory a worker's encoders may take together. Where there is none left, answers go as they are.

use std::{cell::Cell, rc::Rc};

/// Enough for forty bodies in zstd, or for two hundred streams of events, at once.
const BYTES_MAX: usize = 64 << 20;

/// One worker's; clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Rc<Cell<usize>>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::of(BYTES_MAX)
    }
}

impl Budget {
    pub fn of(bytes: usize) -> Self {
        Self { left: Rc::new(Cell::new(bytes)) }
    }

    pub fn take(&self, bytes: usize) -> Option<Permit> {
        let left = self.left.get().checked_sub(bytes)?;
        self.left.set(left);
        Some(Permit { budget: self.clone(), bytes })
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Budget,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let left = &self.budget.left;
        left.set(left.get() + self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Budget::of(10);
        let first = budget.take(6).expect("room");
        assert!(budget.take(5).is_none());
        let second = budget.take(4).expect("room");
        drop(first);
        assert!(budget.take(7).is_none());
        assert!(budget.take(6).is_some());
        drop(second);
        assert!(budget.take(10).is_some());
    }
}
