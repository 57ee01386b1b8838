//! Settings under /proc/sys/net.
//!
//! A path is looked up in the network namespace of the thread that opens it. So no descriptor is
//! kept.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::plan::op::Switch;

/// Whether the host forwards IPv4 packets (ip-sysctl.rst, `ip_forward`).
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// It exists unless the kernel was built or started without IPv6.
const IPV6: &str = "/proc/sys/net/ipv6";
/// Whether bridged IPv4 frames pass the rules for routed packets, too. It exists only while the
/// kernel module br_netfilter is loaded (ip-sysctl.rst, `bridge-nf-call-iptables`).
const BRIDGE_NF: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Whether IPv4 forwarding is on.
pub fn forwarding() -> io::Result<bool> {
    read(FORWARDING)
}

/// Switches IPv4 forwarding. If it has the value already, it is not written, because a write resets
/// other settings of the kernel.
pub fn set_forwarding(on: bool) -> io::Result<()> {
    if forwarding()? == on { Ok(()) } else { fs::write(FORWARDING, if on { "1" } else { "0" }) }
}

/// Whether the kernel speaks IPv6.
pub fn has_ipv6() -> bool {
    Path::new(IPV6).exists()
}

/// Reads the switches of IPv6: forwarding, and `accept_ra` of these links where it is on. There are
/// none without IPv6, and a link that is gone has none.
pub fn switches<'a>(links: impl Iterator<Item = &'a str>) -> BTreeMap<Switch, u8> {
    let switch = |switch: Switch| {
        let value = fs::read_to_string(path(&switch)).ok()?.trim().parse().ok()?;
        Some((switch, value))
    };
    let accepting = links.map(|link| Switch::AcceptRa(link.into()));
    let accepting = accepting.filter_map(switch).filter(|(_, value)| *value > 0);
    switch(Switch::Forwarding).into_iter().chain(accepting).collect()
}

/// Turns a switch of IPv6. The link may be gone: then it has no switch.
pub fn set_switch(switch: &Switch, to: u8) -> io::Result<()> {
    match (fs::write(path(switch), to.to_string()), switch) {
        (Err(error), Switch::AcceptRa(_)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        (result, _) => result,
    }
}

fn path(switch: &Switch) -> String {
    format!("/proc/sys/{}", switch.path())
}

/// Whether bridged frames can pass the rules for routed packets.
pub fn has_bridge_filter() -> bool {
    Path::new(BRIDGE_NF).exists()
}

/// Whether bridged frames of all bridges pass the rules for routed packets.
pub fn bridged_frames_are_filtered() -> io::Result<bool> {
    match read(BRIDGE_NF) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result,
    }
}

fn read(path: &str) -> io::Result<bool> {
    let text = fs::read_to_string(path)?;
    Ok(text.trim() != "0")
}
