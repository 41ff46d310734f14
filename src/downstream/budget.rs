//! How much many hold together, where each of them is bounded and all of them are not.
//!
//! Owns the sum. It never takes anything away: the core asks whether it is too much, and decides who has to go.

use std::cell::Cell;
use std::rc::Rc;

/// What is held in all, bytes, and what may be.
#[derive(Debug)]
pub struct Budget {
    held: Cell<usize>,
    bytes_max: Cell<usize>,
}

impl Budget {
    /// Nothing is held, and no more than `bytes_max` may be, bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            held: Cell::new(0),
            bytes_max: Cell::new(bytes_max),
        }
    }

    /// From now on that much may be held, bytes.
    pub fn allow(&self, bytes_max: usize) {
        self.bytes_max.set(bytes_max);
    }

    /// How much is held, bytes.
    pub fn held(&self) -> usize {
        self.held.get()
    }

    /// How much may be held, bytes.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max.get()
    }
}

/// One of those who hold something. Dropped, it holds nothing.
#[derive(Debug)]
pub struct Share {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Share {
    /// A share that holds nothing yet.
    pub fn of(budget: &Rc<Budget>) -> Self {
        Self {
            budget: Rc::clone(budget),
            bytes: 0,
        }
    }

    /// It holds that much now, bytes.
    pub fn hold(&mut self, bytes: usize) {
        let held = &self.budget.held;
        held.set(held.get() + bytes - self.bytes);
        self.bytes = bytes;
    }

    /// How much it holds, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = &self.budget.held;
        held.set(held.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_counts_no_more() {
        let budget = Rc::new(Budget::new(100));
        let (mut one, mut other) = (Share::of(&budget), Share::of(&budget));
        one.hold(60);
        other.hold(50);
        assert_eq!((budget.held(), budget.bytes_max()), (110, 100));
        other.hold(10);
        budget.allow(50);
        assert_eq!((budget.held(), budget.bytes_max()), (70, 50));
        drop(one);
        assert_eq!((budget.held(), other.bytes()), (10, 10));
    }
}
