//! What is to be done to the kernel.
//!
//! An [`Op`] is one kernel request or one nf_tables batch. A [`Plan`] is an ordered list of them;
//! [`Op::undo`] is the inverse of one, and a plan that fails midway is undone by the inverses in
//! reverse order. An Op says by itself all that its inverse needs to know: where it overwrites
//! something, the former value stands beside the new one.

mod commands;

use std::net::Ipv4Addr;

use crate::model::limits::Shaping;
use crate::model::mac::Mac;
use crate::plan::ruleset::{Accept, Element, Family, Table, Value};

/// Ops in the order in which they are applied.
pub type Plan = Vec<Op>;

/// One atomic change of the kernel's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make a bridge. Refused by the kernel when the name is taken.
    CreateBridge { name: String, mac: Mac, mtu: u16, alias: String },
    /// Make a persistent tap with vnet_hdr. Refused when the name is taken. It has the alias before
    /// it becomes persistent, so that whatever outlives a crash says whose it is.
    CreateTap { name: String, owner: Option<u32>, multi_queue: bool, alias: String },
    /// Change a link's settings; `None` leaves a setting as it is. `former` holds the settings that
    /// are overwritten, as far as there is anything to go back to. The one Op that can be half
    /// done: the kernel goes through the settings one by one.
    SetLink { name: String, set: LinkSettings, former: LinkSettings },
    /// Remove a link; with an index only the one that has both. One that is gone already is as good
    /// as removed.
    DeleteLink { name: String, index: Option<u32> },
    /// Hold what a link sends back to a rate; `None` no more. `former` is how it was.
    ShapeLink { name: String, to: Option<Shaping>, former: Option<Shaping> },
    /// Give a link an address; one that it has is as good as given. `length` is that of the prefix.
    AddAddress { link: String, address: Ipv4Addr, length: u8 },
    /// Take an address from a link; one that it does not have is as good as taken.
    RemoveAddress { link: String, address: Ipv4Addr, length: u8 },
    /// Switch IPv4 forwarding (`net.ipv4.ip_forward`), which is the other way now.
    SetForwarding { on: bool },
    /// Make a table with all that it holds, in one batch. Refused when there is one of that name.
    CreateTable(Box<Table>),
    /// Put a table there as it stands, in place of what was there, in one batch.
    ReplaceTable(Box<Table>),
    /// Remove a table with all that it holds. One that is gone already is as good as removed.
    RemoveTable { family: Family, name: &'static str },
    /// Add elements to sets of our tables, all in one batch.
    AddElements(Vec<Element>),
    /// Remove elements; one that is absent, be it with its set or table, is as good as removed.
    RemoveElements(Vec<Element>),
    /// Take elements away and add others, all in one batch.
    ExchangeElements { gone: Vec<Element>, new: Vec<Element> },
    /// Put an accept rule for a bridge into a chain of somebody else's `ip filter` table.
    AddAccept(Accept),
    /// Take that rule out again, however often it stands there.
    RemoveAccept(Accept),
    /// Delete what the kernel keeps of an address: the neighbour behind a link, and the connections
    /// that it began or answers. What is not there, be it the link, is as good as deleted, so that
    /// half of this is as good as none.
    ForgetAddress { link: String, address: Ipv4Addr, at: Handover },
    /// Delete the connections that were led from a port of the host to one of a guest, whose address
    /// this is; `protocol` is its number in IP. Half of this is as good as none.
    ForgetFlows { protocol: u8, host_port: u16, address: Ipv4Addr, port: u16 },
}

/// When an address is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// Before a VM gets it.
    Assigned,
    /// When the VM that had it has it no more.
    Released,
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
    /// What it is as a port of its bridge.
    pub port: Option<PortSettings>,
}

/// What a link is as a port of a bridge. The default is what each port begins as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSettings {
    /// Whether the bridge keeps it from other isolated ports.
    pub isolated: bool,
    /// Which frames to the groups 01:80:c2:00:00:00 to :0f (a bit for each last byte) go the way of
    /// all others. The kernel takes the rest aside as the host's own: they pass no rule before the
    /// bridge has learned their source, and IPv4 in them reaches the host as if the port had an
    /// address of its own.
    pub group_forward: u16,
}

impl LinkSettings {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == LinkSettings::default()
    }
}

impl Op {
    /// What has the connections forgotten that were led by an element of a map that is gone.
    pub fn forget_flows(gone: &Element) -> Option<Op> {
        match *gone.key.as_slice() {
            [
                ..,
                Value::Protocol(protocol),
                Value::Port(host_port),
                Value::Target(address, port),
            ] => Some(Op::ForgetFlows { protocol, host_port, address, port }),
            _ => None,
        }
    }

    /// The Op that takes this one back. `made` is the index of the link that this one made, where
    /// the kernel told. `None` where there is nothing to go back to: what was removed or replaced
    /// as a whole stays so.
    pub fn undo(&self, made: Option<u32>) -> Option<Op> {
        match self {
            Op::CreateBridge { name, .. } | Op::CreateTap { name, .. } => {
                Some(Op::DeleteLink { name: name.clone(), index: made })
            }
            Op::SetLink { name, set, former } => (!former.is_empty()).then(|| Op::SetLink {
                name: name.clone(),
                set: former.clone(),
                former: set.clone(),
            }),
            Op::ShapeLink { name, to, former } => {
                Some(Op::ShapeLink { name: name.clone(), to: *former, former: *to })
            }
            Op::AddAddress { link, address, length } => {
                Some(Op::RemoveAddress { link: link.clone(), address: *address, length: *length })
            }
            Op::RemoveAddress { link, address, length } => {
                Some(Op::AddAddress { link: link.clone(), address: *address, length: *length })
            }
            Op::SetForwarding { on } => Some(Op::SetForwarding { on: !on }),
            Op::CreateTable(table) => {
                Some(Op::RemoveTable { family: table.family, name: table.name })
            }
            Op::AddElements(elements) => Some(Op::RemoveElements(elements.clone())),
            Op::RemoveElements(elements) => Some(Op::AddElements(elements.clone())),
            Op::ExchangeElements { gone, new } => {
                Some(Op::ExchangeElements { gone: new.clone(), new: gone.clone() })
            }
            Op::AddAccept(accept) => Some(Op::RemoveAccept(accept.clone())),
            Op::RemoveAccept(accept) => Some(Op::AddAccept(accept.clone())),
            Op::DeleteLink { .. }
            | Op::ReplaceTable(_)
            | Op::RemoveTable { .. }
            | Op::ForgetAddress { .. }
            | Op::ForgetFlows { .. } => None,
        }
    }

    /// Whether it does the same when it is applied once more. The others find what they made the
    /// first time, and fail or make it twice.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Op::CreateBridge { .. }
            | Op::CreateTap { .. }
            | Op::CreateTable(_)
            | Op::AddAccept(_) => false,
            Op::SetLink { .. }
            | Op::ShapeLink { .. }
            | Op::DeleteLink { .. }
            | Op::AddAddress { .. }
            | Op::RemoveAddress { .. }
            | Op::SetForwarding { .. }
            | Op::ReplaceTable(_)
            | Op::RemoveTable { .. }
            | Op::AddElements(_)
            | Op::RemoveElements(_)
            | Op::ExchangeElements { .. }
            | Op::RemoveAccept(_)
            | Op::ForgetAddress { .. }
            | Op::ForgetFlows { .. } => true,
        }
    }

    /// Whether a plan goes on when this one fails. An address that was released can be forgotten
    /// later: its VM's link is gone and does not come back, and whoever gets the address next gets
    /// it forgotten once more, or not at all. And no packet begins a connection by a map that leads
    /// nowhere.
    pub fn can_wait(&self) -> bool {
        matches!(self, Op::ForgetAddress { at: Handover::Released, .. } | Op::ForgetFlows { .. })
    }

    /// What is done and to what, as failures tell it: `("create tap", "vttap-web")`.
    pub fn describe(&self) -> (&'static str, String) {
        let of_elements = |elements: &[Element]| match elements {
            [] => String::new(),
            [one, ..] => {
                let table = table_name(one.family, one.table);
                format!("{} in set {} of table {table}", elements.len(), one.set)
            }
        };
        match self {
            Op::CreateBridge { name, .. } => ("create bridge", name.clone()),
            Op::CreateTap { name, .. } => ("create tap", name.clone()),
            Op::SetLink { name, set, .. } => match &set.master {
                Some(Some(bridge)) => ("attach link", format!("{name} to {bridge}")),
                Some(None) | None => ("set link", name.clone()),
            },
            Op::DeleteLink { name, .. } => ("delete link", name.clone()),
            Op::ShapeLink { name, .. } => ("limit link", name.clone()),
            Op::AddAddress { link, address, length } => {
                ("add address", format!("{address}/{length} to {link}"))
            }
            Op::RemoveAddress { link, address, length } => {
                ("remove address", format!("{address}/{length} from {link}"))
            }
            Op::SetForwarding { on } => {
                ("set", format!("net.ipv4.ip_forward to {}", u8::from(*on)))
            }
            Op::CreateTable(table) => ("create table", table_name(table.family, table.name)),
            Op::ReplaceTable(table) => ("replace table", table_name(table.family, table.name)),
            Op::RemoveTable { family, name } => ("remove table", table_name(*family, name)),
            Op::AddElements(elements) => ("add elements", of_elements(elements)),
            Op::ExchangeElements { new, .. } => ("exchange elements", of_elements(new)),
            Op::RemoveElements(elements) => ("remove elements", of_elements(elements)),
            Op::AddAccept(accept) => {
                ("add accept rule", format!("of {} to {}", accept.bridge, accept.chain))
            }
            Op::RemoveAccept(accept) => {
                ("remove accept rule", format!("of {} from {}", accept.bridge, accept.chain))
            }
            Op::ForgetAddress { link, address, .. } => {
                ("delete neighbour", format!("{address} on {link}"))
            }
            Op::ForgetFlows { host_port, address, port, .. } => {
                ("delete connections", format!("from port {host_port} to {address}:{port}"))
            }
        }
    }
}

fn table_name(family: Family, name: &str) -> String {
    match family {
        Family::Ip => format!("ip {name}"),
        Family::Ip6 => format!("ip6 {name}"),
        Family::Bridge => format!("bridge {name}"),
    }
}
