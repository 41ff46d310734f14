//! Rows D: deadlines and clocks.
