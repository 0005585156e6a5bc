//! libFuzzer for the target `trailer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (fuzz::named("trailer").expect("a target").run)(bytes));
