//! The checks of `frame_gate` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wharf_fuzz::frame_gate::check(input));
