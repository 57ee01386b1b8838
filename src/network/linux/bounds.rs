//! What the kernel has room for, as /proc shows it (nf_conntrack-sysctl.rst, ip-sysctl.rst). What a
//! file of another network namespace would say is not there, and `None`.

use std::fs;

use crate::doctor::host::{Bounds, Used};
use crate::model::expose::Ports;

/// Tracked connections of this namespace, and the most of them.
const CONNECTIONS: [&str; 2] =
    ["/proc/sys/net/netfilter/nf_conntrack_count", "/proc/sys/net/netfilter/nf_conntrack_max"];
/// The tables of neighbours, which all namespaces share, and the most of each.
const NEIGHBOURS: [&str; 2] =
    ["/proc/thread-self/net/stat/arp_cache", "/proc/sys/net/ipv4/neigh/default/gc_thresh3"];
const NEIGHBOURS6: [&str; 2] =
    ["/proc/thread-self/net/stat/ndisc_cache", "/proc/sys/net/ipv6/neigh/default/gc_thresh3"];
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Reads all of them.
pub(super) fn observe() -> Bounds {
    let text = |path: &str| fs::read_to_string(path).ok();
    let number = |path: &str| text(path)?.trim().parse().ok();
    let used = |now: Option<u64>, most: &str| Some(Used { now: now?, most: number(most)? });
    let entries = |path: &str| text(path).as_deref().and_then(entries);
    Bounds {
        connections: used(number(CONNECTIONS[0]), CONNECTIONS[1]),
        neighbours: used(entries(NEIGHBOURS[0]), NEIGHBOURS[1]),
        neighbours6: used(entries(NEIGHBOURS6[0]), NEIGHBOURS6[1]),
        local_ports: text(LOCAL_PORTS).as_deref().and_then(ports),
    }
}

/// The entries of a table of neighbours: the first number of each line behind the heading, in
/// hexadecimal digits. Each processor has a line, and all say the same of the entries
/// (net/core/neighbour.c, `neigh_stat_seq_show`).
fn entries(text: &str) -> Option<u64> {
    let first = text.lines().nth(1)?.split_ascii_whitespace().next()?;
    u64::from_str_radix(first, 16).ok()
}

fn ports(text: &str) -> Option<Ports> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(Ports { first, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_kernel_are_read() {
        let stat = "entries  allocs   destroys\n0000001a  00000000 00000000\n0000001a  0 0\n";
        assert_eq!(entries(stat), Some(26));
        assert_eq!(entries("entries allocs\n"), None);
        assert_eq!(ports("32768\t60999\n"), Some(Ports { first: 32768, last: 60999 }));
        assert_eq!(ports("32768\n"), None);
    }
}
