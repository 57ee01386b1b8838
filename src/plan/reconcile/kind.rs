//! The kinds of link by which a NIC is joined to its bridge.
//!
//! This is the one place where a kind says how its link is made, known again and removed. All else
//! (the bridge, settings, limits, rules) is the same for each kind.

use std::net::IpAddr;

use super::{ALIAS, Link, LinkKind};
use crate::model::mac::Mac;
use crate::plan::op::{InnerLink, InnerTap, Op};

/// A kind of link, with what is fixed when the link is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NicKind<'a> {
    /// A persistent TAP device with vnet_hdr, which a hypervisor opens.
    Tap {
        /// It can have more than one queue.
        multi_queue: bool,
        /// The user who may open it; `None`: anyone.
        owner: Option<u32>,
    },
    /// A pair of links, of which one end is in a namespace of others. It cannot be made anew: there
    /// is no way into the namespace without its owner. Its end is the end of its VM.
    Veth(VethEnds<'a>),
}

/// The two ends of a veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VethEnds<'a> {
    /// MTU of both in bytes.
    pub mtu: u16,
    /// The Ethernet address of the outer end.
    pub outer: Mac,
    /// The namespace of the inner end, by the path that its owner has for it.
    pub netns: &'a str,
    /// The name of the inner end.
    pub ifname: &'a str,
    /// Its Ethernet address.
    pub mac: Mac,
    /// What is behind it.
    pub behind: Behind<'a>,
}

/// What is behind an inner end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind<'a> {
    /// The namespace itself, with these addresses of both families, and their gateways.
    Namespace([Option<InnerAddress>; 2]),
    /// A guest, by a tap of this name that this user may open.
    Tap(&'a str, u32),
}

/// An address of an inner end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerAddress {
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix.
    pub length: u8,
    /// The gateway of the default route.
    pub gateway: IpAddr,
}

impl NicKind<'_> {
    /// Makes the link.
    pub(super) fn make(self, name: String, alias: String) -> Op {
        match self {
            NicKind::Tap { multi_queue, owner } => {
                Op::CreateTap { name, owner, multi_queue, alias }
            }
            NicKind::Veth(VethEnds { mtu, outer, netns, ifname, mac, behind }) => {
                let (addresses, tap) = match behind {
                    Behind::Namespace(addresses) => (addresses, None),
                    Behind::Tap(name, owner) => {
                        ([None, None], Some(InnerTap { name: name.into(), owner }))
                    }
                };
                let addresses = addresses.iter().flatten();
                let inner = InnerLink {
                    netns: netns.into(),
                    name: ifname.into(),
                    mac,
                    addresses: addresses.clone().map(|it| (it.address, it.length)).collect(),
                    gateways: addresses.map(|it| it.gateway).collect(),
                    tap,
                };
                Op::CreateVeth { name, mac: outer, mtu, alias, inner }
            }
        }
    }

    /// Whether a link of the kernel was made as this one would be. If not, it has to be made anew.
    pub(super) fn fits(self, link: LinkKind) -> bool {
        match (self, link) {
            (
                NicKind::Tap { multi_queue, owner },
                LinkKind::Tap { vnet_hdr: true, multi_queue: is, persistent: true, owner: by },
            ) => (multi_queue, owner) == (is, by),
            (NicKind::Veth(_), LinkKind::Veth) => true,
            (
                NicKind::Tap { .. } | NicKind::Veth(_),
                LinkKind::Tap { .. } | LinkKind::Veth | LinkKind::Bridge | LinkKind::Other,
            ) => false,
        }
    }

    /// Whether the link can be made anew.
    pub fn can_be_remade(self) -> bool {
        match self {
            NicKind::Tap { .. } => true,
            NicKind::Veth(_) => false,
        }
    }

    /// Whether an open link has more than one queue.
    pub fn is_multi_queue(self) -> bool {
        match self {
            NicKind::Tap { multi_queue, .. } => multi_queue,
            NicKind::Veth(_) => false,
        }
    }
}

impl LinkKind {
    /// Whether links of NICs are of this kind.
    pub(super) fn is_of_nics(self) -> bool {
        match self {
            LinkKind::Tap { .. } | LinkKind::Veth => true,
            LinkKind::Bridge | LinkKind::Other => false,
        }
    }
}

impl Link {
    /// Whether it is the link of a NIC that volnet made.
    pub fn is_of_nic(&self) -> bool {
        self.nic().is_some()
    }

    /// The NIC that such a link is marked with: `web`, `web/1`.
    pub fn nic(&self) -> Option<&str> {
        let nic = self.alias.as_deref()?.strip_prefix(ALIAS)?;
        (self.kind.is_of_nics() && !nic.is_empty()).then_some(nic)
    }

    /// Whether it is the link of a NIC that volnet was about to remove: its alias has no VM.
    pub fn is_retired(&self) -> bool {
        self.kind.is_of_nics() && self.alias.as_deref() == Some(ALIAS)
    }

    /// Whether a process has it open, and would lose its network with it. Nobody opens a veth: it
    /// has a carrier while both ends are up.
    pub fn is_open(&self) -> bool {
        self.carrier && self.kind != LinkKind::Veth
    }
}

/// The name of the link that an Op makes for a NIC, and the name of that NIC.
pub fn made(op: &Op) -> Option<(&str, &str)> {
    match op {
        Op::CreateTap { name, alias, .. } | Op::CreateVeth { name, alias, .. } => {
            Some((name, alias.strip_prefix(ALIAS)?))
        }
        _ => None,
    }
}

/// Removes the link, if it has both the name and the index.
pub fn remove(name: &str, index: u32) -> Op {
    Op::DeleteLink { name: name.to_string(), index: Some(index) }
}
