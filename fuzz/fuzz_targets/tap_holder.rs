#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volnet::network::linux::fuzz::tap_holder(bytes));
