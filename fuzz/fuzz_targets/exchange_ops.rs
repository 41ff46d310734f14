//! The checks of `exchange_ops` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wharf_fuzz::exchange_ops::check(input));
