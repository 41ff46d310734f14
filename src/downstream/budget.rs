//! How much many hold together, where each of them is bounded and all of them are not.
//!
//! Owns the sum. It never takes anything away: whoever makes it too much is told, and has to go. Small calls are spared for as long
//! as that goes well.

use std::cell::Cell;
use std::rc::Rc;

/// A share of so little is refused only where twice as much is held as may be, bytes: else a few who hold much would cost all others
/// their small calls.
const SMALL_BYTES: usize = 4 << 10;

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
        let most = match bytes {
            0..=SMALL_BYTES => bytes_max.get().saturating_mul(2),
            _ => bytes_max.get(),
        };
        match grown && held.get() > most {
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
        const KB: usize = 1 << 10;
        let budget = Rc::new(Budget::new(100 * KB));
        let (mut one, mut other) = (Share::of(&budget), Share::of(&budget));
        assert_eq!(one.hold(60 * KB), Ok(()));
        assert_eq!(other.hold(40 * KB), Ok(()));
        assert_eq!(other.hold(50 * KB), Err(OverBudget));
        assert_eq!(other.hold(50 * KB), Ok(()), "it has not grown");
        assert_eq!(other.hold(10 * KB), Ok(()));
        budget.allow(50 * KB);
        assert_eq!(one.hold(50 * KB), Ok(()), "it has shrunk");
        assert_eq!(one.hold(70 * KB), Err(OverBudget));
        // Who holds little is not whom it hangs on, up to twice as much.
        let mut small = Share::of(&budget);
        assert_eq!(small.hold(SMALL_BYTES), Ok(()));
        assert_eq!(one.hold(99 * KB), Err(OverBudget));
        assert_eq!(small.hold(1), Ok(()));
        assert_eq!(small.hold(SMALL_BYTES), Err(OverBudget));
        drop((one, small));
        assert_eq!((budget.held(), other.bytes()), (10 * KB, 10 * KB));
    }
}
