//! Problems: differences that volnet may not change.

use std::fmt;

use super::{Link, LinkKind};

/// A difference that volnet leaves alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A link that is not ours has the name of a network's bridge. Nothing is attached to it.
    BridgeTaken { bridge: String, found: String },
    /// The bridge of a network that volnet does not manage is not there.
    BridgeMissing { bridge: String },
    /// A network has IPv6, and the kernel does not speak it.
    NoIpv6 { network: String },
    /// A network has services, and bridged frames pass none of their rules.
    NoBridgeFilter { network: String },
    /// A link that is not ours has the name of a VM's tap.
    TapTaken { vm: String, tap: String, found: String },
    /// A VM's tap has the wrong flags, and cannot be made anew because a process has it open.
    TapInUse { vm: String, tap: String, found: String },
    /// A tap with our mark belongs to no VM, and a process holds it open.
    TapHeld { tap: String, found: String },
    /// A bridge with our mark belongs to no network, and has ports that stay.
    BridgeHeld { bridge: String, ports: Vec<String> },
}

impl Problem {
    pub(super) fn bridge_taken(link: &Link) -> Problem {
        Problem::BridgeTaken { bridge: link.name.clone(), found: describe(link) }
    }

    /// Whether it is about a link that no VM and no network needs. The link stays, and everything
    /// else can be done.
    pub fn is_left_over(&self) -> bool {
        match self {
            Problem::TapHeld { .. } | Problem::BridgeHeld { .. } => true,
            Problem::BridgeTaken { .. }
            | Problem::BridgeMissing { .. }
            | Problem::NoIpv6 { .. }
            | Problem::NoBridgeFilter { .. }
            | Problem::TapTaken { .. }
            | Problem::TapInUse { .. } => false,
        }
    }
}

/// The kind and the owner of a link.
pub(super) fn describe(link: &Link) -> String {
    let kind = match link.kind {
        LinkKind::Bridge => "a bridge".to_string(),
        LinkKind::Tap { vnet_hdr, multi_queue, owner, .. } => format!(
            "a tap ({}{}{})",
            if vnet_hdr { "vnet_hdr" } else { "no vnet_hdr" },
            if multi_queue { ", multi_queue" } else { "" },
            owner.map_or(String::new(), |owner| format!(", owner {owner}"))
        ),
        LinkKind::Veth => "a veth".to_string(),
        LinkKind::Other => "neither bridge nor tap".to_string(),
    };
    match &link.alias {
        Some(alias) => format!("link {} is {kind} with the alias {alias:?}", link.index),
        None => format!("link {} is {kind} without an alias", link.index),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::BridgeTaken { bridge, found } => write!(
                f,
                "bridge {bridge} is not volnet's: {found}; choose another name, or set managed of \
                 the network to false: then volnet uses the bridge as it is"
            ),
            Problem::BridgeMissing { bridge } => write!(
                f,
                "there is no bridge {bridge}, and volnet makes none: \
                 managed of its network is false"
            ),
            Problem::NoIpv6 { network } => write!(
                f,
                "network {network} has IPv6, and the kernel does not speak it: set ipv6 of the \
                 network to false, or start the host without ipv6.disable"
            ),
            Problem::NoBridgeFilter { network } => write!(
                f,
                "network {network} has services, and the kernel has no rules for them on a \
                 bridge: load the module br_netfilter (modprobe br_netfilter), or set services of \
                 the network to false"
            ),
            Problem::TapTaken { vm, tap, found } => {
                write!(f, "tap {tap} of VM {vm} is not volnet's: {found}")
            }
            Problem::TapInUse { vm, tap, found } => {
                write!(f, "tap {tap} of VM {vm} has other flags and is in use: {found}")
            }
            Problem::TapHeld { tap, found } => write!(
                f,
                "tap {tap} belongs to no VM and a process holds it open: {found}; it is on no \
                 bridge, and stays until that process ends, or volnet setup --force removes it"
            ),
            Problem::BridgeHeld { bridge, ports } => write!(
                f,
                "bridge {bridge} belongs to no network and has ports: {}; it stays",
                ports.join(", ")
            ),
        }
    }
}
