//! libFuzzer for the target `control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (fuzz::named("control").expect("a target").run)(bytes));
