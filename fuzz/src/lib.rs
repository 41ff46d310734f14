//! What must hold of each decoder whatever it is fed: one file for each target, with one function `check(&[u8])` that
//! panics if something does not hold.
//!
//! The same functions run in two places: under libFuzzer (`fuzz_targets/`, by `scripts/fuzz`), and over the committed
//! corpus as a plain test (`tests/corpus.rs` includes this file by its path). A new target is a file here, a line in
//! [`TARGETS`], a `[[bin]]` with its three lines in `fuzz_targets/`, and some seeds in `corpus/<target>/`.

pub mod grpc_timeout;
pub mod h1_body;
pub mod h1_head;
pub mod metadata;

/// A target's check.
pub type Check = fn(&[u8]);

/// Every target with its check, in alphabetical order.
pub const TARGETS: &[(&str, Check)] = &[
    ("grpc_timeout", grpc_timeout::check),
    ("h1_body", h1_body::check),
    ("h1_head", h1_head::check),
    ("metadata", metadata::check),
];
