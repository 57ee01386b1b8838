//! Inner identities: guests that believe in other addresses than their VMs have
//! ([`crate::model::inner`]).
//!
//! A frame of such a guest is checked as the guest sends it: antispoof holds the guest to its inner
//! addresses. Then `outward` gives it the outer ones, before the bridge learns from it. So all else
//! on the host sees the outer addresses alone: the bridge, the host's IP stack, the rules of `ip
//! volnet`, and the daemon. A frame to such a guest gets the inner addresses at its very end, in
//! `inward`.
//!
//! **Keyed by port and address.** Only the guest's own addresses are translated, and those of its
//! gateway: other frames that leave by its port are not for it, and stay as they are. Each field of
//! ARP is translated by itself, so a probe keeps its sender 0.0.0.0, and asks for the address that
//! the VM has outside. All other frames to guests see one look-up, which fails. Those from guests
//! tell by their priority: it is [`INNER`] from antispoof to the end of `outward`.
//!
//! **Whoever has its inner addresses outside** is hidden from the guest: the guest would take him
//! for itself or for its gateway, answer for him, or give its address up. Frames from him and to
//! him are dropped on their way to the guest, and so are frames to the guest's inner Ethernet
//! address, which the bridge floods.
//!
//! **Errors of ICMP** quote the packet that they are about, whose addresses the receiver compares
//! with its sockets. They are translated with the checksum of the quoted header. That leaves the
//! sum of the whole message as it was, so its own checksum stays right. nft(8) writes such a field
//! without a checksum: in a table that is made of the text, errors are translated wrong.
//!
//! **The gateway** has an address in the guest's prefix, which stands for the outer gateway, and an
//! Ethernet address that stands for the host's. Whoever made the snapshot knew it, on whatever host
//! that was. A frame to it is for the host, although it came to another address than the bridge's.

use std::net::Ipv4Addr;

use super::{
    Bytes, Chain, Field, GUEST, Hook, ICMP, INNER, Layer, Match, PacketField, Rule, Set, Value,
    Verdict, filter, is, masked, outside, rule, set, within,
};
use crate::model::mac::Mac;

use super::bridged::{ARP, IPV4};

/// Behind antispoof, and before all that looks at addresses.
const PRIORITY_OUTWARD: i32 = -290;
/// Behind source NAT of bridges (`NF_BR_PRI_NAT_SRC`), and before nothing but br_netfilter.
const PRIORITY_INWARD: i32 = 310;

/// A field of the quoted packet. Its offset does not matter: all of four bytes are of one type.
const QUOTED: Bytes = Bytes { layer: Layer::Transport, offset: 20, length: 4 };
const ETHERS: &[Field] = &[Field::Link, Field::Ether, Field::TargetEther];
const ADDRESSES: &[Field] = &[Field::Link, Field::Ipv4, Field::TargetIpv4];
const QUOTES: &[Field] = &[Field::Link, Field::Bytes(QUOTED), Field::TargetBytes(QUOTED)];

/// No later fragment (RFC 791): those have no header of ICMP.
const WHOLE_OR_FIRST: Match = masked(PacketField::IpFragment, 0x1fff, 0);
/// Destination unreachable and time exceeded (RFC 792).
const UNREACHABLE_OR_LATE: Match = masked(PacketField::IcmpType, 0xf7, 3);
const PARAMETER_PROBLEM: Match = is(PacketField::IcmpType, 12);

/// An inner identity, and what it stands for outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerPort {
    /// The guest's Ethernet address and address inside.
    pub mac: Mac,
    pub ip: Ipv4Addr,
    /// Its gateway inside and outside.
    pub gateway: [Ipv4Addr; 2],
    /// The Ethernet address of the host inside and outside, if it is the gateway.
    pub gateway_mac: Option<[Mac; 2]>,
}

/// The names of the maps of one direction.
#[derive(Clone, Copy)]
struct Maps {
    ethers: &'static str,
    addresses: &'static str,
    quoted: &'static str,
}

const OUTWARD: Maps = Maps { ethers: "outer_macs", addresses: "outer_ips", quoted: "outer_quoted" };
const INWARD: Maps = Maps { ethers: "inner_macs", addresses: "inner_ips", quoted: "inner_quoted" };

pub(super) fn sets() -> [Set; 9] {
    let set = |name, key| set(name, key, Vec::new());
    [
        set("inner", &[Field::Link]),
        set(OUTWARD.ethers, ETHERS),
        set(OUTWARD.addresses, ADDRESSES),
        set(OUTWARD.quoted, QUOTES),
        set(INWARD.ethers, ETHERS),
        set(INWARD.addresses, ADDRESSES),
        set(INWARD.quoted, QUOTES),
        set("hidden_macs", &[Field::Link, Field::Ether]),
        set("hidden_ips", &[Field::Link, Field::Ipv4]),
    ]
}

pub(super) fn chains() -> [Chain; 2] {
    [
        filter("outward", Hook::Prerouting, PRIORITY_OUTWARD, outward()),
        filter("inward", Hook::Postrouting, PRIORITY_INWARD, inward()),
    ]
}

/// The elements of a guest: the sets with their keys. `mac` and `ip` are its outer addresses.
pub(super) fn keys(
    inner: &InnerPort,
    link: &Value,
    mac: Mac,
    ip: Ipv4Addr,
) -> Vec<(&'static str, Vec<Value>)> {
    let mut keys = vec![("inner", vec![link.clone()])];
    let key = |field, target| vec![link.clone(), field, target];
    for [inside, outside] in pairs([inner.mac, mac], inner.gateway_mac) {
        keys.push((OUTWARD.ethers, key(Value::Ether(inside), Value::TargetEther(outside))));
        keys.push((INWARD.ethers, key(Value::Ether(outside), Value::TargetEther(inside))));
    }
    for [inside, outside] in pairs([inner.ip, ip], Some(inner.gateway)) {
        for (maps, from, to) in [(OUTWARD, inside, outside), (INWARD, outside, inside)] {
            let (quoted, target) = (from.octets().to_vec(), to.octets().to_vec());
            keys.push((maps.addresses, key(Value::Address(from.into()), Value::TargetIpv4(to))));
            keys.push((maps.quoted, key(Value::Bytes(quoted), Value::TargetBytes(target))));
        }
    }
    let outer_macs = [Some(mac), inner.gateway_mac.map(|[_, outside]| outside)];
    if !outer_macs.contains(&Some(inner.mac)) {
        keys.push(("hidden_macs", vec![link.clone(), Value::Ether(inner.mac)]));
    }
    let outer_ips = [ip, inner.gateway[1]];
    let hidden = [inner.ip, inner.gateway[0]].into_iter().filter(|own| !outer_ips.contains(own));
    keys.extend(hidden.map(|own| ("hidden_ips", vec![link.clone(), Value::Address(own.into())])));
    keys
}

/// What is translated: pairs of an inner and an outer address that differ.
fn pairs<T: PartialEq>(own: [T; 2], gateway: Option<[T; 2]>) -> Vec<[T; 2]> {
    let both = std::iter::once(own).chain(gateway);
    both.filter(|[inside, outside]| inside != outside).collect()
}

/// From a guest.
fn outward() -> Vec<Rule> {
    use PacketField::{EtherSource, InLink};
    let mut rules = vec![
        rule([is(PacketField::Priority, GUEST.into())], Verdict::Accept),
        rule([outside(&[InLink], "inner")], Verdict::Accept),
    ];
    rules.extend(translated(InLink, OUTWARD));
    rules.push(rule([], rewrite(InLink, EtherSource, OUTWARD.ethers)));
    rules.push(rule([], Verdict::Deliver { map: OUTWARD.ethers }));
    rules.push(rule([is(PacketField::Priority, INNER.into())], Verdict::SetPriority(GUEST)));
    rules
}

/// To a guest.
fn inward() -> Vec<Rule> {
    use PacketField::{
        ArpSenderIp, ArpTargetIp, EtherDestination, EtherSource, IpDestination, IpSource, OutLink,
    };
    let hides = |kind, fields| rule([kind, within(fields, "hidden_ips")], Verdict::Drop);
    let mut rules = vec![
        rule([outside(&[OutLink], "inner")], Verdict::Accept),
        rule([within(&[OutLink, EtherDestination], "hidden_macs")], Verdict::Drop),
        hides(IPV4, &[OutLink, IpSource]),
        hides(IPV4, &[OutLink, IpDestination]),
        hides(ARP, &[OutLink, ArpSenderIp]),
        hides(ARP, &[OutLink, ArpTargetIp]),
    ];
    rules.extend(translated(OutLink, INWARD));
    rules.push(rule([], rewrite(OutLink, EtherSource, INWARD.ethers)));
    rules.push(rule([], rewrite(OutLink, EtherDestination, INWARD.ethers)));
    rules
}

/// All but the Ethernet header.
fn translated(link: PacketField, maps: Maps) -> Vec<Rule> {
    use PacketField::{
        ArpSenderEther, ArpSenderIp, ArpTargetEther, ArpTargetIp, IpDestination, IpSource,
        QuotedDestination, QuotedSource,
    };
    let mut rules = vec![
        rule([IPV4], rewrite(link, IpSource, maps.addresses)),
        rule([IPV4], rewrite(link, IpDestination, maps.addresses)),
        rule([ARP], rewrite(link, ArpSenderEther, maps.ethers)),
        rule([ARP], rewrite(link, ArpSenderIp, maps.addresses)),
        rule([ARP], rewrite(link, ArpTargetEther, maps.ethers)),
        rule([ARP], rewrite(link, ArpTargetIp, maps.addresses)),
    ];
    for kind in [UNREACHABLE_OR_LATE, PARAMETER_PROBLEM] {
        for field in [QuotedSource, QuotedDestination] {
            let matches = [IPV4, ICMP, WHOLE_OR_FIRST, kind.clone()];
            rules.push(rule(matches, rewrite(link, field, maps.quoted)));
        }
    }
    rules
}

fn rewrite(link: PacketField, field: PacketField, map: &'static str) -> Verdict {
    Verdict::Rewrite { link, field, map }
}
