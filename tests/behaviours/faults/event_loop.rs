//! Rows X: what happens inside the loop: short reads, stale events, lost wake-ups, the order of drops.
