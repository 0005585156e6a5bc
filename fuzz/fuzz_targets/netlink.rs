//! libFuzzer for the target `netlink`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (fuzz::named("netlink").expect("a target").run)(bytes));
