//! The checks of `cors_origin` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wharf_fuzz::cors_origin::check(input));
