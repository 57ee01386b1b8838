#![no_main]

use volnet::hypervisor::linux::exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exercise::process_stat(bytes));
