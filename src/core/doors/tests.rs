//! The doors by themselves, and under many hands.
