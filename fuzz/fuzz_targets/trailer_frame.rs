//! The checks of `trailer_frame` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wharf_fuzz::trailer_frame::check(input));
