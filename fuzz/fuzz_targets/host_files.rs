#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volnet::daemon::fuzz::host_files(bytes));
