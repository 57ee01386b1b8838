//! Bodies of fuzz targets: each takes any bytes, and panics where this module breaks a promise.

mod asked;
mod check;
#[cfg(test)]
mod tests;
mod world;

use std::net::IpAddr;

use super::peer::{GROUP, group_id};
use crate::dns::resolvers::{RESOLVERS_MAX, reachable};
use crate::fuzz::Choices;
use crate::hypervisor::hardware::tsc_khz;
use world::World;

/// Any requests reach the engine, any of its decisions fail, processes end, guests ask for
/// addresses, others change the kernel, time passes, and the daemon or the host restarts. The
/// kernel in memory agrees with the engine whenever nothing is left to be looked at, nothing has
/// two owners, nothing is overdue, and every caller is answered once.
pub fn engine(bytes: &[u8]) {
    played(bytes);
}

/// Lets it all happen, and gives the world as it is then.
fn played(bytes: &[u8]) -> World<'_> {
    let mut world = World::new(Choices::new(bytes));
    while world.step() {
        check::all(&world);
    }
    world.come_to_rest();
    check::all(&world);
    world
}

/// Whatever the files of the host have, the group of the socket, the first processor's frequency
/// and the name servers for guests are found in them.
pub fn host_files(bytes: &[u8]) {
    // A carriage return is part of a line or of its end, depending on the next bytes.
    let text = String::from_utf8_lossy(bytes).replace('\r', " ");
    let (group, frequency) = (group_id(&text, GROUP), tsc_khz(&text));
    let line = format!("{GROUP}:x:998:ann");
    let mhz = "cpu MHz\t\t: 2595.124";
    // The first valid one counts. Ours comes before all others.
    assert_eq!(group_id(&format!("{line}\n{text}"), GROUP), Some(998));
    assert_eq!(tsc_khz(&format!("{mhz}\n{text}")), Some(2_595_124));
    let last = format!("{text}\n{line}\n{mhz}");
    assert_eq!(group_id(&last, GROUP), group.or(Some(998)));
    let servers = reachable(&format!("nameserver 192.0.2.1\n{text}"));
    assert!(servers[0] == IpAddr::from([192, 0, 2, 1]));
    assert!([true, false].iter().all(|v4| {
        servers.iter().filter(|server| server.is_ipv4() == *v4).count() <= RESOLVERS_MAX
    }));
    assert!(!servers.iter().any(|server| server.is_loopback() || server.is_unspecified()));
    assert!(frequency.is_none_or(|_| tsc_khz(&last) == frequency));
}
