//! How much many hold together, where each of them is bounded and all of them are not.
//!
//! Owns the sum. It never takes anything away: whoever makes it too much is told, and has to go.

use std::cell::Cell;
use std::rc::Rc;

/// What is held in all, bytes, and what may be.
#[derive(Debug)]
pub struct Budget {
    held: Cell<usize>,
    bytes_max: Cell<usize>,
}

/// It is too much, and this share has just grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverBudget;

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

    /// It holds that much now, bytes. `Err`: more than before, and all hold too much.
    pub fn hold(&mut self, bytes: usize) -> Result<(), OverBudget> {
        if bytes == self.bytes {
            return Ok(());
        }
        let Budget { held, bytes_max } = &*self.budget;
        held.set(held.get() + bytes - self.bytes);
        let grown = bytes > self.bytes;
        self.bytes = bytes;
        match grown && held.get() > bytes_max.get() {
            true => Err(OverBudget),
            false => Ok(()),
        }
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
    fn whoever_makes_it_too_much_is_told_and_what_is_gone_counts_no_more() {
        let budget = Rc::new(Budget::new(10));
        let (mut one, mut other) = (Share::of(&budget), Share::of(&budget));
        assert_eq!(one.hold(6), Ok(()));
        assert_eq!(other.hold(4), Ok(()));
        assert_eq!(other.hold(5), Err(OverBudget));
        assert_eq!(other.hold(5), Ok(()), "it has not grown");
        assert_eq!(other.hold(1), Ok(()));
        budget.allow(5);
        assert_eq!(one.hold(5), Ok(()), "it has shrunk");
        assert_eq!(one.hold(7), Err(OverBudget));
        drop(one);
        assert_eq!((budget.held(), other.bytes()), (1, 1));
    }
}
