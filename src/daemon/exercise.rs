//! Bodies of fuzz targets: each takes any bytes, and panics where this module breaks a promise.

use super::launch::tsc_khz;
use super::peer::{GROUP, group_id};
use crate::dhcp::resolvers::{RESOLVERS_MAX, resolvers};

/// Whatever else stands in the files that describe the host, the group is found whose members may
/// change things, the first processor's frequency, and name servers that a guest can reach.
pub fn host_files(bytes: &[u8]) {
    // A carriage return is part of a line or of its end, by what is put behind it.
    let text = String::from_utf8_lossy(bytes).replace('\r', " ");
    let (group, frequency) = (group_id(&text, GROUP), tsc_khz(&text));
    let line = format!("{GROUP}:x:998:ann");
    let mhz = "cpu MHz\t\t: 2595.124";
    // The first that can be read counts; in front of all others, that is ours.
    assert_eq!(group_id(&format!("{line}\n{text}"), GROUP), Some(998));
    assert_eq!(tsc_khz(&format!("{mhz}\n{text}")), Some(2_595_124));
    let last = format!("{text}\n{line}\n{mhz}");
    assert_eq!(group_id(&last, GROUP), group.or(Some(998)));
    let servers = resolvers(&format!("nameserver 192.0.2.1\n{text}"));
    assert!(servers[0].octets() == [192, 0, 2, 1] && servers.len() <= RESOLVERS_MAX);
    assert!(!servers.iter().any(|server| server.is_loopback() || server.is_unspecified()));
    assert!(frequency.is_none_or(|_| tsc_khz(&last) == frequency));
}
