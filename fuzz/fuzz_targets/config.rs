//! libFuzzer for the target `config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (fuzz::named("config").expect("a target").run)(bytes));
