//! What is to be done to the kernel.
//!
//! An [`Op`] is one kernel request or one nf_tables batch, so it is never half done. A [`Plan`] is
//! an ordered list of them; [`Op::undo`] is the inverse of one, and a plan that fails midway is
//! undone by the inverses in reverse order.

use std::net::Ipv4Addr;

use super::mac::Mac;
use super::ruleset::{Accept, Element, Family, Table};

/// Ops in the order in which they are applied.
pub type Plan = Vec<Op>;

/// One atomic change of the kernel's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make a bridge. Refused by the kernel when the name is taken.
    CreateBridge { name: String, mac: Mac, mtu: u16, alias: String },
    /// Make a persistent tap with vnet_hdr. Refused when the name is taken.
    CreateTap { name: String, owner: Option<u32>, multi_queue: bool },
    /// Change a link's settings; `None` leaves a setting as it is.
    SetLink { name: String, set: LinkSettings },
    /// Remove a link. One that is gone already is as good as removed.
    DeleteLink { name: String, index: Option<u32> },
    /// Give a link an address. `length` is that of the prefix.
    AddAddress { link: String, address: Ipv4Addr, length: u8 },
    /// Take an address from a link.
    RemoveAddress { link: String, address: Ipv4Addr, length: u8 },
    /// Switch IPv4 forwarding (`net.ipv4.ip_forward`).
    SetForwarding { on: bool },
    /// Put a table there as it stands, in place of what was there, in one batch.
    ReplaceTable(Box<Table>),
    /// Remove a table with all that it holds.
    RemoveTable { family: Family, name: &'static str },
    /// Add elements to sets of our tables, all in one batch.
    AddElements(Vec<Element>),
    /// Remove elements; one that is absent is as good as removed.
    RemoveElements(Vec<Element>),
    /// Put an accept rule for a bridge into a chain of somebody else's `ip filter` table.
    AddAccept(Accept),
    /// Take that rule out again.
    RemoveAccept(Accept),
}

/// Settings of a link and of its place on a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// Attach to this bridge. `Some(None)` detaches.
    pub master: Option<Option<String>>,
    /// Administratively up or down.
    pub up: Option<bool>,
    /// MTU in bytes.
    pub mtu: Option<u16>,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// `ifalias`: how ownership is marked.
    pub alias: Option<String>,
    /// Keep the kernel from giving the link an IPv6 address of its own.
    pub no_ipv6: bool,
    /// Whether the bridge keeps this port from other isolated ports.
    pub isolated: Option<bool>,
}
