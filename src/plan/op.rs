//! Changes of the kernel's state.
//!
//! An [`Op`] is one kernel request or one nf_tables batch. A [`Plan`] is an ordered list of Ops.
//! [`Op::undo`] is the inverse of an Op. If a plan fails midway, it is undone by the inverses in
//! reverse order. An Op has all values that its inverse needs: if it overwrites a value, it has the
//! former value, too.

mod commands;

use std::fmt;
use std::net::IpAddr;

use crate::model::limits::Shaping;
use crate::model::mac::Mac;
use crate::plan::ruleset::{Accept, Element, Family, Table, Value};

/// `rtm_protocol` of our routes, which tells them from those of others. No program is known to have
/// it (/etc/iproute2/rt_protos).
pub const ROUTE_PROTOCOL: u8 = 118;

/// Ops in the order in which they are applied.
pub type Plan = Vec<Op>;

/// One atomic change of the kernel's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make a bridge. The kernel refuses it if the name is taken.
    CreateBridge { name: String, mac: Mac, mtu: u16, alias: String },
    /// Make a persistent tap with vnet_hdr. It is refused if the name is taken. The tap gets its
    /// alias before it becomes persistent, so that a tap that outlives a crash has a mark.
    CreateTap { name: String, owner: Option<u32>, multi_queue: bool, alias: String },
    /// Make a pair of Ethernet links. The outer end is here and down; it gets its alias last. The
    /// inner end is complete, in the namespace that was entered
    /// ([`crate::network::Network::enter`]). It is refused if one of the names is taken.
    CreateVeth { name: String, mac: Mac, mtu: u16, alias: String, inner: InnerLink },
    /// Change a link's settings; `None` leaves a setting as it is. `former` has the overwritten
    /// settings, if they can be restored. This is the only Op that can be half done: the kernel
    /// applies the settings one by one.
    SetLink { name: String, set: LinkSettings, former: LinkSettings },
    /// Remove a link. With an index, only the link that has both name and index. If it is gone
    /// already, that is success.
    DeleteLink { name: String, index: Option<u32> },
    /// Limit the rate at which a link sends. `None` removes the limit. `former` is the previous
    /// limit.
    ShapeLink { name: String, to: Option<Shaping>, former: Option<Shaping> },
    /// Give a link an address. If the link has it already, that is success. `length` is that of the
    /// prefix.
    AddAddress { link: String, address: IpAddr, length: u8 },
    /// Take an address from a link. If the link does not have it, that is success.
    RemoveAddress { link: String, address: IpAddr, length: u8 },
    /// Give the host a route to a guest, which has the guest's MTU. It replaces another route to
    /// the guest's address alone.
    AddRoute(GuestRoute),
    /// Remove it. If it is gone already, or its link is, that is success.
    RemoveRoute(GuestRoute),
    /// Switch IPv4 forwarding (`net.ipv4.ip_forward`). It has the other value now.
    SetForwarding { on: bool },
    /// Turn a switch of IPv6. `former` is its value now.
    SetSwitch { switch: Switch, to: u8, former: u8 },
    /// Make a table with its content, in one batch. It is refused if a table has the name.
    CreateTable(Box<Table>),
    /// Replace a table with this one, in one batch.
    ReplaceTable(Box<Table>),
    /// Remove a table with its content. If it is gone already, that is success.
    RemoveTable { family: Family, name: &'static str },
    /// Add elements to sets of our tables, all in one batch.
    AddElements(Vec<Element>),
    /// Remove elements. If an element, its set or its table is absent, that is success.
    RemoveElements(Vec<Element>),
    /// Remove elements and add others, all in one batch.
    ExchangeElements { gone: Vec<Element>, new: Vec<Element> },
    /// Put an accept rule for a bridge into a chain of a table `filter`, which is not ours.
    AddAccept(Accept),
    /// Remove that rule, however often it is there.
    RemoveAccept(Accept),
    /// Delete the kernel's memory of an address: the neighbour entry on a link, and its
    /// connections. If these, or the link, do not exist, that is success. So it can be repeated.
    ForgetAddress { link: String, address: IpAddr, at: Handover },
    /// Delete the connections from a port of the host to a port of the guest with this address.
    /// `protocol` is its number in IP. It can be repeated.
    ForgetFlows { protocol: u8, host_port: u16, address: IpAddr, port: u16 },
}

/// The end of a pair of links that is in a namespace of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerLink {
    /// The namespace, by the path that its owner has for it.
    pub netns: String,
    /// Its name.
    pub name: String,
    /// Its Ethernet address: that of the guest.
    pub mac: Mac,
    /// Its addresses, each with the length of its prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The gateways of its default routes. A default route that is there already stays.
    pub gateways: Vec<IpAddr>,
    /// A tap beside it, which a hypervisor opens there: what one receives, the other sends. Then
    /// the guest has the addresses, and the link none.
    pub tap: Option<InnerTap>,
}

/// A persistent tap with vnet_hdr in a namespace of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerTap {
    /// Its name.
    pub name: String,
    /// The user who may open it.
    pub owner: u32,
}

/// A route to one address, behind a bridge, with an MTU below that of the bridge. The bridge drops
/// what its port cannot send, and tells nobody (net/bridge/br_forward.c, `is_skb_forwardable`).
/// With the route, the host itself sends no more, and answers whoever it forwards for (RFC 1191,
/// RFC 8201).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestRoute {
    /// The bridge.
    pub link: String,
    /// The guest's address.
    pub to: IpAddr,
    /// The guest's MTU in bytes.
    pub mtu: u16,
}

/// A switch of IPv6 (ip-sysctl.rst).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Switch {
    /// `net.ipv6.conf.all.forwarding`. Turning it on deletes the default routes that came by router
    /// advertisement, except those of links with `accept_ra` 2 (net/ipv6/addrconf.c,
    /// `rt6_purge_dflt_routers`).
    Forwarding,
    /// `net.ipv6.conf.LINK.accept_ra`: 1 accepts router advertisements unless the host forwards, 2
    /// always.
    AcceptRa(String),
}

impl Switch {
    /// Its path below `/proc/sys`.
    pub fn path(&self) -> String {
        match self {
            Switch::Forwarding => "net/ipv6/conf/all/forwarding".into(),
            Switch::AcceptRa(link) => format!("net/ipv6/conf/{link}/accept_ra"),
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Switch::Forwarding => f.write_str("net.ipv6.conf.all.forwarding"),
            Switch::AcceptRa(link) => write!(f, "net.ipv6.conf.{link}.accept_ra"),
        }
    }
}

/// When an address is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// Before a VM gets the address.
    Assigned,
    /// After the VM with the address lost it.
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
    /// Of a bridge: whether it looks at who listens to which group of IPv4 and IPv6. One that does
    /// keeps a table of what guests say of themselves.
    pub snooping: Option<bool>,
    /// What it does with bridged frames, if it is a bridge.
    pub filtered: Option<Filtered>,
    /// Its settings as a port of its bridge.
    pub port: Option<PortSettings>,
}

/// Whether bridged frames of a bridge pass the rules for routed packets, too. The host may say so
/// of all its bridges besides (ip-sysctl.rst, `bridge-nf-call-iptables`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filtered {
    /// Those with IPv4.
    pub ipv4: bool,
    /// Those with IPv6.
    pub ipv6: bool,
}

/// The settings of a bridge port. The default is that of a new port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSettings {
    /// Whether it is kept from other isolated ports.
    pub isolated: bool,
    /// Whether frames may leave by the port that they came by.
    pub hairpin: bool,
    /// `group_fwd_mask`: the groups 01:80:c2:00:00:00 to :0f (a bit for each last byte) whose
    /// frames are forwarded like others. The kernel takes frames to the other groups as the host's
    /// own. They pass no rule before the bridge learns their source, and IPv4 in them reaches the
    /// host as if the port had its own address.
    pub group_forward: u16,
}

impl LinkSettings {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == LinkSettings::default()
    }
}

impl Op {
    /// The Op that deletes the connections of a removed map element.
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

    /// The inverse of this Op. `made` is the index of the link that this Op made, if the kernel
    /// reported it. `None` if there is no inverse: an object that was removed or replaced as a
    /// whole stays so.
    pub fn undo(&self, made: Option<u32>) -> Option<Op> {
        match self {
            Op::CreateBridge { name, .. }
            | Op::CreateTap { name, .. }
            | Op::CreateVeth { name, .. } => {
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
            Op::AddRoute(route) => Some(Op::RemoveRoute(route.clone())),
            Op::RemoveRoute(route) => Some(Op::AddRoute(route.clone())),
            Op::SetForwarding { on } => Some(Op::SetForwarding { on: !on }),
            Op::SetSwitch { switch, to, former } => {
                Some(Op::SetSwitch { switch: switch.clone(), to: *former, former: *to })
            }
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

    /// What removes these elements and adds those, if there are any.
    pub fn exchange(gone: Vec<Element>, new: Vec<Element>) -> Option<Op> {
        match (gone.is_empty(), new.is_empty()) {
            (true, true) => None,
            (true, false) => Some(Op::AddElements(new)),
            (false, true) => Some(Op::RemoveElements(gone)),
            (false, false) => Some(Op::ExchangeElements { gone, new }),
        }
    }

    /// The bridge that it attaches a link to.
    pub fn attaches_to(&self) -> Option<&str> {
        match self {
            Op::SetLink { set: LinkSettings { master: Some(Some(bridge)), .. }, .. } => {
                Some(bridge)
            }
            _ => None,
        }
    }

    /// The link that it makes, changes or removes, or whose addresses or routes it changes.
    pub fn link(&self) -> Option<&str> {
        match self {
            Op::CreateBridge { name, .. }
            | Op::CreateTap { name, .. }
            | Op::CreateVeth { name, .. }
            | Op::SetLink { name, .. }
            | Op::DeleteLink { name, .. }
            | Op::ShapeLink { name, .. } => Some(name),
            Op::AddAddress { link, .. } | Op::RemoveAddress { link, .. } => Some(link),
            Op::AddRoute(route) | Op::RemoveRoute(route) => Some(&route.link),
            _ => None,
        }
    }

    /// Whether it is about the host as a whole, and about no single link or VM.
    pub fn is_of_host(&self) -> bool {
        match self {
            Op::SetForwarding { .. }
            | Op::SetSwitch { .. }
            | Op::CreateTable(_)
            | Op::ReplaceTable(_)
            | Op::RemoveTable { .. }
            | Op::AddAccept(_)
            | Op::RemoveAccept(_) => true,
            Op::CreateBridge { .. }
            | Op::CreateTap { .. }
            | Op::CreateVeth { .. }
            | Op::SetLink { .. }
            | Op::DeleteLink { .. }
            | Op::ShapeLink { .. }
            | Op::AddAddress { .. }
            | Op::RemoveAddress { .. }
            | Op::AddRoute(_)
            | Op::RemoveRoute(_)
            | Op::AddElements(_)
            | Op::RemoveElements(_)
            | Op::ExchangeElements { .. }
            | Op::ForgetAddress { .. }
            | Op::ForgetFlows { .. } => false,
        }
    }

    /// Whether it can be applied twice with the same effect. The other Ops would find their own
    /// result, and fail or make it twice.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Op::CreateBridge { .. }
            | Op::CreateTap { .. }
            | Op::CreateVeth { .. }
            | Op::CreateTable(_)
            | Op::AddAccept(_) => false,
            Op::SetLink { .. }
            | Op::ShapeLink { .. }
            | Op::DeleteLink { .. }
            | Op::AddAddress { .. }
            | Op::RemoveAddress { .. }
            | Op::AddRoute(_)
            | Op::RemoveRoute(_)
            | Op::SetForwarding { .. }
            | Op::SetSwitch { .. }
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

    /// Whether a plan goes on if this Op fails. The memory of a released address can be deleted
    /// later: the link of its VM is gone, and it is deleted once more before another VM gets the
    /// address, or that VM does not get it. And no packet begins a connection by an element that is
    /// gone.
    pub fn can_wait(&self) -> bool {
        matches!(self, Op::ForgetAddress { at: Handover::Released, .. } | Op::ForgetFlows { .. })
    }

    /// The operation and the object, for failures: `("create tap", "vttap-web")`.
    pub fn describe(&self) -> (&'static str, String) {
        let of_elements = |elements: &[Element]| match elements {
            [] => String::new(),
            [one, ..] => {
                let table = table_name(one.family, one.table);
                format!("{} in set {} of table {table}", elements.len(), one.set)
            }
        };
        let object = match self {
            Op::CreateBridge { name, .. } | Op::CreateTap { name, .. } => name.clone(),
            Op::CreateVeth { name, inner, .. } => {
                format!("{name} with {} in {}", inner.name, inner.netns)
            }
            Op::SetLink { name, set, .. } => match &set.master {
                Some(Some(bridge)) => format!("{name} to {bridge}"),
                Some(None) | None => name.clone(),
            },
            Op::DeleteLink { name, .. } | Op::ShapeLink { name, .. } => name.clone(),
            Op::AddAddress { link, address, length } => format!("{address}/{length} to {link}"),
            Op::RemoveAddress { link, address, length } => {
                format!("{address}/{length} from {link}")
            }
            Op::AddRoute(GuestRoute { link, to, .. })
            | Op::RemoveRoute(GuestRoute { link, to, .. }) => format!("to {to} by {link}"),
            Op::SetForwarding { on } => format!("net.ipv4.ip_forward to {}", u8::from(*on)),
            Op::SetSwitch { switch, to, .. } => format!("{switch} to {to}"),
            Op::CreateTable(table) | Op::ReplaceTable(table) => {
                table_name(table.family, table.name)
            }
            Op::RemoveTable { family, name } => table_name(*family, name),
            Op::AddElements(elements) | Op::RemoveElements(elements) => of_elements(elements),
            Op::ExchangeElements { new, .. } => of_elements(new),
            Op::AddAccept(Accept { family, chain, bridge, .. }) => {
                format!("of {bridge} to {}", table_name(*family, chain))
            }
            Op::RemoveAccept(Accept { family, chain, bridge, .. }) => {
                format!("of {bridge} from {}", table_name(*family, chain))
            }
            Op::ForgetAddress { link, address, .. } => format!("{address} on {link}"),
            Op::ForgetFlows { host_port, address, port, .. } => {
                format!("from port {host_port} to {address}:{port}")
            }
        };
        (self.operation(), object)
    }

    /// What it does, without its object.
    pub fn operation(&self) -> &'static str {
        match self {
            Op::CreateBridge { .. } => "create bridge",
            Op::CreateTap { .. } => "create tap",
            Op::CreateVeth { .. } => "create veth",
            Op::SetLink { set, .. } => match &set.master {
                Some(Some(_)) => "attach link",
                Some(None) | None => "set link",
            },
            Op::DeleteLink { .. } => "delete link",
            Op::ShapeLink { .. } => "limit link",
            Op::AddAddress { .. } => "add address",
            Op::RemoveAddress { .. } => "remove address",
            Op::AddRoute(_) => "add route",
            Op::RemoveRoute(_) => "remove route",
            Op::SetForwarding { .. } | Op::SetSwitch { .. } => "set",
            Op::CreateTable(_) => "create table",
            Op::ReplaceTable(_) => "replace table",
            Op::RemoveTable { .. } => "remove table",
            Op::AddElements(_) => "add elements",
            Op::ExchangeElements { .. } => "exchange elements",
            Op::RemoveElements(_) => "remove elements",
            Op::AddAccept(_) => "add accept rule",
            Op::RemoveAccept(_) => "remove accept rule",
            Op::ForgetAddress { .. } => "delete neighbour",
            Op::ForgetFlows { .. } => "delete connections",
        }
    }
}

/// A table, as `nft` names it.
pub(in crate::plan) fn table_name(family: Family, name: &str) -> String {
    match family {
        Family::Ip => format!("ip {name}"),
        Family::Ip6 => format!("ip6 {name}"),
        Family::Bridge => format!("bridge {name}"),
    }
}
