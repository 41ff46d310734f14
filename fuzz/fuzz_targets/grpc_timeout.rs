//! The checks of `grpc_timeout` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wharf_fuzz::grpc_timeout::check(input));
