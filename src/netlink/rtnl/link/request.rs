//! Requests about links.

use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};

use neli::consts::rtnl::Rtm;

use super::*;
use crate::netlink::message::{ACK, CREATE, DUMP, EXCL, REQUEST};
use crate::netlink::rtnl::{AF_INET6, AF_UNSPEC};
use crate::netlink::writer::{Open, Writer};

/// Which link is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The link of this index, whatever its name.
    Index(u32),
    /// The link of this name, whatever its index.
    Name(&'a str),
}

/// What to change of a link; `None` leaves a setting as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkChange<'a> {
    /// Index of the bridge to attach to; 0 detaches. A change that fails still detaches the link
    /// from the bridge that it is on.
    pub master: Option<u32>,
    /// Administratively up or down.
    pub up: Option<bool>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// `ifalias`; an empty one takes it away.
    pub alias: Option<&'a str>,
    /// Keep the kernel from giving the link IPv6 addresses of its own making. The kernel does this
    /// last, after `up`: a link that has a carrier by then has an address already. Where there is
    /// no IPv6 the whole request fails with EAFNOSUPPORT.
    pub no_ipv6: bool,
    /// The group to put it in.
    pub group: Option<u32>,
    /// Its new name, where it is meant by its index. Before Linux 6.2 it must be down.
    pub name: Option<&'a str>,
}

/// What to change of a bridge port; `None` leaves a setting as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortChange {
    /// Exchange no frames with other isolated ports.
    pub isolated: Option<bool>,
    /// Let frames leave by the port that they came by.
    pub hairpin: Option<bool>,
    /// Shut the port when it receives a BPDU.
    pub guard: Option<bool>,
    /// Learn addresses on it.
    pub learning: Option<bool>,
    /// Which link-local groups are forwarded; see [`BridgePort::group_forward`].
    pub group_forward: Option<u16>,
}

/// A pair of links to be made.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// MTU of both ends in bytes.
    pub mtu: u32,
    /// The name of the end that is here.
    pub name: &'a str,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its group.
    pub group: NonZeroU32,
    /// The name of the other end.
    pub peer: &'a str,
    /// Its Ethernet address.
    pub peer_mac: [u8; 6],
    /// The network namespace of the other end.
    pub netns: BorrowedFd<'a>,
}

/// Asks for all links, without their statistics.
pub fn dump(writer: &mut Writer, sequence: u32) {
    let open = begin(writer, Rtm::Getlink, REQUEST | DUMP, sequence, Target::Index(0));
    writer.attr_u32(Ifla::ExtMask.into(), SKIP_STATS);
    writer.close_message(open);
}

/// Asks for one link, without its statistics.
pub fn get(writer: &mut Writer, sequence: u32, target: Target<'_>) {
    let open = begin(writer, Rtm::Getlink, REQUEST | ACK, sequence, target);
    writer.attr_u32(Ifla::ExtMask.into(), SKIP_STATS);
    writer.close_message(open);
}

/// Makes a bridge, in this group, that does not look at who listens ([`set_bridge`]). EEXIST when
/// the name is taken. Alias and MTU are for [`set`]: here the kernel ignores the alias without a
/// word, and forgets the MTU when the first port comes or the last one goes. The index is for
/// [`get`]: NLM_F_ECHO is answered since Linux 6.2 only.
pub fn new_bridge(
    writer: &mut Writer,
    sequence: u32,
    name: &str,
    mac: [u8; 6],
    group: Option<NonZeroU32>,
) {
    let flags = REQUEST | CREATE | EXCL | ACK;
    let open = begin(writer, Rtm::Newlink, flags, sequence, Target::Name(name));
    writer.attr(Ifla::Address.into(), &mac);
    if let Some(group) = group {
        writer.attr_u32(Ifla::Group.into(), group.get());
    }
    let info = writer.nest(Ifla::Linkinfo.into());
    bridge_data(writer, Bridge { snooping: Some(false), filtered: None });
    writer.close(info);
    writer.close_message(open);
}

/// Changes a bridge. EOPNOTSUPP when the link is none. What the kernel cannot do it takes without a
/// word.
pub fn set_bridge(writer: &mut Writer, sequence: u32, target: Target<'_>, change: Bridge) {
    let open = begin(writer, Rtm::Newlink, REQUEST | ACK, sequence, target);
    let info = writer.nest(Ifla::Linkinfo.into());
    bridge_data(writer, change);
    writer.close(info);
    writer.close_message(open);
}

fn bridge_data(writer: &mut Writer, Bridge { snooping, filtered }: Bridge) {
    writer.attr_text(IflaInfo::Kind.into(), KIND_BRIDGE);
    let data = writer.nest(IflaInfo::Data.into());
    for (kind, value) in [
        (BR_MCAST_SNOOPING, snooping),
        (BR_NF_CALL_IPTABLES, filtered.map(|filtered| filtered.ipv4)),
        (BR_NF_CALL_IP6TABLES, filtered.map(|filtered| filtered.ipv6)),
    ] {
        if let Some(value) = value {
            writer.attr_u8(kind, u8::from(value));
        }
    }
    writer.close(data);
}

/// Makes a pair of links, both down. EEXIST when one of the names is taken. Both addresses are
/// given here: a link that was made without one may get another from udev a moment later.
pub fn new_veth(writer: &mut Writer, sequence: u32, veth: &Veth<'_>) {
    let flags = REQUEST | CREATE | EXCL | ACK;
    let open = begin(writer, Rtm::Newlink, flags, sequence, Target::Name(veth.name));
    writer.attr(Ifla::Address.into(), &veth.mac);
    writer.attr_u32(Ifla::Mtu.into(), veth.mtu);
    writer.attr_u32(Ifla::Group.into(), veth.group.get());
    let info = writer.nest(Ifla::Linkinfo.into());
    writer.attr_text(IflaInfo::Kind.into(), KIND_VETH);
    let data = writer.nest(IflaInfo::Data.into());
    let peer = writer.nest(VETH_INFO_PEER);
    writer.raw(&[0; HEADER]);
    writer.attr_text(Ifla::Ifname.into(), veth.peer);
    writer.attr(Ifla::Address.into(), &veth.peer_mac);
    writer.attr_u32(Ifla::Mtu.into(), veth.mtu);
    writer.attr_u32(Ifla::NetNsFd.into(), veth.netns.as_raw_fd() as u32);
    writer.close(peer);
    writer.close(data);
    writer.close(info);
    writer.close_message(open);
}

/// Changes a link that exists; ENODEV when it does not. The kernel makes one change after the
/// other, and when one fails, those before it stay made. This is `RTM_SETLINK` and must stay so:
/// before Linux 5.19, `RTM_NEWLINK` with a group and a name that nobody has changes *every* link of
/// that group.
pub fn set(writer: &mut Writer, sequence: u32, target: Target<'_>, change: &LinkChange<'_>) {
    let up = change.up.map(|up| (if up { UP } else { 0 }, UP));
    let open =
        begin_with(writer, Rtm::Setlink, REQUEST | ACK, sequence, target, up.unwrap_or((0, 0)));
    if let Some(mac) = change.mac {
        writer.attr(Ifla::Address.into(), &mac);
    }
    for (kind, value) in
        [(Ifla::Mtu, change.mtu), (Ifla::Master, change.master), (Ifla::Group, change.group)]
    {
        if let Some(value) = value {
            writer.attr_u32(kind.into(), value);
        }
    }
    if let Some(name) = change.name {
        writer.attr_text(Ifla::Ifname.into(), name);
    }
    if let Some(alias) = change.alias {
        // Not terminated: the kernel takes the length of the alias from that of the attribute.
        writer.attr(Ifla::Ifalias.into(), alias.as_bytes());
    }
    if change.no_ipv6 {
        let families = writer.nest(Ifla::AfSpec.into());
        let inet6 = writer.nest(AF_INET6.into());
        writer.attr_u8(INET6_ADDR_GEN_MODE, ADDR_GEN_MODE_NONE);
        writer.close(inet6);
        writer.close(families);
    }
    writer.close_message(open);
}

/// Changes a port of a bridge. It is a message of its own, after the one that attaches: the kernel
/// looks for the port before it does what the message says, and answers EOPNOTSUPP in one.
pub fn set_port(writer: &mut Writer, sequence: u32, target: Target<'_>, change: &PortChange) {
    let open = begin(writer, Rtm::Newlink, REQUEST | ACK, sequence, target);
    let info = writer.nest(Ifla::Linkinfo.into());
    writer.attr_text(IflaInfo::SlaveKind.into(), KIND_BRIDGE);
    let data = writer.nest(IflaInfo::SlaveData.into());
    for (kind, value) in [
        (BRPORT_MODE, change.hairpin),
        (BRPORT_GUARD, change.guard),
        (BRPORT_LEARNING, change.learning),
        (BRPORT_ISOLATED, change.isolated),
    ] {
        if let Some(value) = value {
            writer.attr_u8(kind, u8::from(value));
        }
    }
    if let Some(mask) = change.group_forward {
        writer.attr_u16(BRPORT_GROUP_FWD_MASK, mask);
    }
    writer.close(data);
    writer.close(info);
    writer.close_message(open);
}

/// Removes a link; ENODEV when it is gone.
pub fn delete(writer: &mut Writer, sequence: u32, target: Target<'_>) {
    let open = begin(writer, Rtm::Dellink, REQUEST | ACK, sequence, target);
    writer.close_message(open);
}

/// Removes all links of a group that can be removed. Never group 0: all links begin there.
pub fn delete_group(writer: &mut Writer, sequence: u32, group: NonZeroU32) {
    let open = begin(writer, Rtm::Dellink, REQUEST | ACK, sequence, Target::Index(0));
    writer.attr_u32(Ifla::Group.into(), group.get());
    writer.close_message(open);
}

fn begin(writer: &mut Writer, kind: Rtm, flags: u16, sequence: u32, target: Target<'_>) -> Open {
    begin_with(writer, kind, flags, sequence, target, (0, 0))
}

/// Begins a message with `struct ifinfomsg`; `state` is `IFF_*` and the mask of those that change.
fn begin_with(
    writer: &mut Writer,
    kind: Rtm,
    flags: u16,
    sequence: u32,
    target: Target<'_>,
    state: (u32, u32),
) -> Open {
    let index = match target {
        Target::Index(index) => index,
        Target::Name(_) => 0,
    };
    let open = writer.message(kind.into(), flags, sequence);
    writer.raw(&[AF_UNSPEC, 0, 0, 0]);
    writer.raw(&index.to_ne_bytes());
    writer.raw(&state.0.to_ne_bytes());
    writer.raw(&state.1.to_ne_bytes());
    if let Target::Name(name) = target {
        writer.attr_text(Ifla::Ifname.into(), name);
    }
    open
}
