//! libFuzzer for the target `datagram`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (fuzz::named("datagram").expect("a target").run)(bytes));
