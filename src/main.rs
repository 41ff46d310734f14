//! The binary: everything it does is `wharf::cli`'s.
#![forbid(unsafe_code)]

fn main() {}
