//! The checks of `request_codec` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wharf_fuzz::request_codec::check(input));
