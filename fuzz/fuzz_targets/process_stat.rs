#![no_main]

use volnet::hypervisor::linux::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::process_stat(bytes));
