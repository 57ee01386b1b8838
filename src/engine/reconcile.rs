//! From what should be and what is, to what is to be done.

use std::net::Ipv4Addr;

use super::mac::Mac;
use super::ruleset::{Accept, Family, Key};

/// What the kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every link of the namespace.
    pub links: Vec<Link>,
    /// Every IPv4 address: index of its link, the address, length of its prefix.
    pub addresses: Vec<(u32, Ipv4Addr, u8)>,
    /// Destinations of the host's IPv4 routes in the main table, with the index of the link.
    pub routes: Vec<(u32, super::prefix::Prefix)>,
    /// Whether IPv4 forwarding is on.
    pub forwarding: bool,
    /// The tables of ours that are there.
    pub tables: Vec<ObservedTable>,
    /// Accept rules of ours in other people's chains.
    pub accepts: Vec<Accept>,
    /// The chain in `ip filter` that our accept rules belong into, if there is one.
    pub accept_chain: Option<String>,
}

/// A link as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `ifalias`, how ownership is marked.
    pub alias: Option<String>,
    /// What it is.
    pub kind: LinkKind,
    /// Index of the bridge it is attached to.
    pub master: Option<u32>,
    /// Administratively up.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Hardware address.
    pub mac: Mac,
    /// Whether its bridge keeps it from other isolated ports.
    pub isolated: bool,
}

/// The kinds of link that volnet tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// A TAP device, with its flags.
    Tap { vnet_hdr: bool, multi_queue: bool, persistent: bool, owner: Option<u32> },
    /// Anything else.
    Other,
}

/// A table of ours as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedTable {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: &'static str,
    /// Whether it is owned and persistent.
    pub owned: bool,
    /// Whether chains, rules and sets are exactly those that this binary makes
    /// (see [`super::ruleset::Table::fingerprint`]).
    pub fingerprint: Option<u64>,
    /// The sets with their elements.
    pub sets: Vec<(String, Vec<Key>)>,
}
