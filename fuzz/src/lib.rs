//! What must hold of each decoder whatever it is fed: one file for each target, with one function `check(&[u8])` that
//! panics if something does not hold. `shared` is no target: it holds what several of them read inputs and outputs with; nor is
//! `hyper_body`, a second opinion.
//!
//! The same functions run in two places: under libFuzzer (`fuzz_targets/`, by `scripts/fuzz`), and over the committed
//! corpus as a plain test (`tests/corpus.rs` includes this file by its path). A new target is a file here, a line in
//! [`TARGETS`], a `[[bin]]` with its three lines in `fuzz_targets/`, and some seeds in `corpus/<target>/`.

pub mod base64_stream;
pub mod client_gate;
#[cfg(feature = "sim")]
pub mod core_ops;
pub mod cors_origin;
pub mod envelope;
pub mod exchange_ops;
pub mod frame_gate;
pub mod grpc_timeout;
pub mod h1_body;
pub mod h1_head;
pub mod h2_head;
pub mod metadata;
pub mod request_codec;
pub mod response_codec;
pub mod status_message;
pub mod trailer_frame;

#[cfg(not(test))]
mod hyper_body;
mod shared;

/// A target's check.
pub type Check = fn(&[u8]);

/// Every target with its check, in alphabetical order.
pub const TARGETS: &[(&str, Check)] = &[
    ("base64_stream", base64_stream::check),
    ("client_gate", client_gate::check),
    #[cfg(feature = "sim")]
    ("core_ops", core_ops::check),
    ("cors_origin", cors_origin::check),
    ("envelope", envelope::check),
    ("exchange_ops", exchange_ops::check),
    ("frame_gate", frame_gate::check),
    ("grpc_timeout", grpc_timeout::check),
    ("h1_body", h1_body::check),
    ("h1_head", h1_head::check),
    ("h2_head", h2_head::check),
    ("metadata", metadata::check),
    ("request_codec", request_codec::check),
    ("response_codec", response_codec::check),
    ("status_message", status_message::check),
    ("trailer_frame", trailer_frame::check),
];
