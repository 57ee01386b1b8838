#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volnet::spec::exercise::vm_config(bytes));
