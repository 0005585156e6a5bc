//! libFuzzer for the target `replica`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (fuzz::named("replica").expect("a target").run)(bytes));
