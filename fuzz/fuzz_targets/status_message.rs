//! The checks of `status_message` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wharf_fuzz::status_message::check(input));
