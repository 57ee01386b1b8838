//! Bodies of fuzz targets: each takes any bytes, and panics where this module breaks a promise.

use super::identity::Stat;

/// The fields after the name are found, whatever the name of a process is.
pub fn process_stat(bytes: &[u8]) {
    let _ = Stat::parse(bytes);
    // proc_pid_stat(5): each number is that of its field.
    let before = b"1 (".as_slice();
    let behind =
        b") S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 \
        32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52\n";
    let stat = Stat { state: b'S', group: 5, start_time: 22, status: 52 };
    assert_eq!(Stat::parse(&[before, bytes, behind].concat()), Some(stat));
}
