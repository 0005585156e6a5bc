//! libFuzzer for the target `stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (fuzz::named("stream").expect("a target").run)(bytes));
