//! The checks of `base64_stream` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wharf_fuzz::base64_stream::check(input));
