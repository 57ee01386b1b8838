#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volnet::dhcp6::fuzz::conversation(bytes));
