#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volnet::hypervisor::fuzz::waking(bytes));
