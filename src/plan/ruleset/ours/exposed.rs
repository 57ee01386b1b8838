//! Exposed ports: maps of `ip volnet` and of `ip6 volnet`.
//!
//! A port leads to the guest's addresses, each in the table of its family.
//!
//! A connection to one of them gets the guest's address and port as its destination: in prerouting
//! if it comes from another machine or a guest, and in output if it comes from the host itself.
//! Packets from the host to loopback stay there. The tracked connection translates all later
//! packets and the replies, so these rules see one packet of each connection.
//!
//! Others may translate the same port, as Docker does if a container publishes it. Of chains with
//! one priority, the kernel runs the newest first, so it would be chance who gets a connection. Our
//! chains come before those of others.
//!
//! A range is as many elements as it has ports, in the same maps. The rules stay the same, and the
//! guest's ports may have other numbers than the host's.
//!
//! A guest's reply to a client in its own network would bypass the host, which could not translate
//! it back. So connections from our prefixes get the host as their source, whoever translates them.
//! A guest can even reach itself that way. It is different if bridged frames pass these rules
//! (`bridge-nf-call-iptables`): then the bridge forwards such a packet as a frame, and never sends
//! it back to its port.
//!
//! A network with services (`served`) has its bridge pass replies by these rules, and send frames
//! back to their port. There a guest sees who connects, as pods of Kubernetes have to. Only a guest
//! that reaches itself is shown the host: it would not take its own address for another's. The
//! pairs in `itself` tell such a connection.
//!
//! No router forwards what comes from a link-local address of IPv6 (RFC 4291, 2.5.6), so that is
//! not translated.

use std::net::{IpAddr, Ipv6Addr};

use super::{
    Chain, ChainKind, Element, Expose, Family, Field, Hook, Match, NetworkConfig, PacketField,
    Rule, Set, TABLE, Value, Verdict, bridge, masked, of_prefix, outside, prefixes, prefixes6,
    rule, set, within,
};

/// The keys of the maps.
pub(super) const PORTS: &[Field] = &[Field::Protocol, Field::Port, Field::Target];
pub(super) const PORTS_AT: &[Field] = &[Field::Ipv4, Field::Protocol, Field::Port, Field::Target];
const PORTS6: &[Field] = &[Field::Protocol, Field::Port, Field::Target6];
const PORTS6_AT: &[Field] = &[Field::Ipv6, Field::Protocol, Field::Port, Field::Target6];
/// The pairs of a guest's address with itself.
const ITSELF: &str = "itself";
/// Before `NF_IP_PRI_NAT_DST` (linux/netfilter_ipv4.h), where others translate.
pub const PRIORITY_DESTINATION_NAT: i32 = -101;
/// 127.0.0.0/8 (RFC 1122).
const LOOPBACK: Match = masked(PacketField::IpDestination, 0xff00_0000, 0x7f00_0000);
/// `::1` and `fe80::/10` (RFC 4291, 2.4).
const LOOPBACK6: (Ipv6Addr, u8) = (Ipv6Addr::LOCALHOST, 128);
const LINK_LOCAL6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

pub(super) fn sets(networks: &[&NetworkConfig]) -> [Set; 5] {
    [
        served(networks),
        set(ITSELF, &[Field::Ipv4, Field::Ipv4], Vec::new()),
        set("exposed", PORTS, Vec::new()),
        set("exposed_at", PORTS_AT, Vec::new()),
        prefixes("inside", networks.iter().copied()),
    ]
}

pub(super) fn sets6(networks: &[&NetworkConfig]) -> [Set; 5] {
    [
        served(networks),
        set(ITSELF, &[Field::Ipv6, Field::Ipv6], Vec::new()),
        set("exposed", PORTS6, Vec::new()),
        set("exposed_at", PORTS6_AT, Vec::new()),
        prefixes6("inside", networks.iter().copied()),
    ]
}

/// The bridges of networks with services.
fn served(networks: &[&NetworkConfig]) -> Set {
    let served = networks.iter().filter(|network| network.services);
    set("served", &[Field::Link], served.map(|network| vec![bridge(network)]).collect())
}

/// The chains for connections from other machines and guests, and for those from the host.
pub(super) fn chains() -> [Chain; 2] {
    let translated = || translated(Family::Ip, PacketField::IpDestination);
    let mut output = vec![rule([LOOPBACK], Verdict::Accept)];
    output.extend(translated());
    both(translated().into(), output)
}

/// The same for IPv6.
pub(super) fn chains6() -> [Chain; 2] {
    use PacketField::{Ip6Destination, Ip6Source};
    let mut prerouting = vec![rule([of_prefix(Ip6Source, LINK_LOCAL6)], Verdict::Accept)];
    prerouting.extend(translated(Family::Ip6, Ip6Destination));
    let mut output = vec![rule([of_prefix(Ip6Destination, LOOPBACK6)], Verdict::Accept)];
    output.extend(prerouting.iter().cloned());
    both(prerouting, output)
}

fn both(prerouting: Vec<Rule>, output: Vec<Rule>) -> [Chain; 2] {
    let chain = |name, hook, rules| {
        let priority = PRIORITY_DESTINATION_NAT;
        Chain { name, kind: ChainKind::Nat, hook, priority, rules }
    };
    [
        chain("exposed_prerouting", Hook::Prerouting, prerouting),
        chain("exposed_output", Hook::Output, output),
    ]
}

fn translated(family: Family, destination: PacketField) -> [Rule; 2] {
    use PacketField::{DestinationPort, Ip6Destination, IpDestination, Protocol};
    let to = |fields, map| rule([Match::Local], Verdict::Translate { family, fields, map });
    let at: &[PacketField] = match destination {
        Ip6Destination => &[Ip6Destination, Protocol, DestinationPort],
        _ => &[IpDestination, Protocol, DestinationPort],
    };
    [to(at, "exposed_at"), to(&[Protocol, DestinationPort], "exposed")]
}

/// Connections by an exposed port are forwarded to the guest, wherever they come from.
pub(super) fn forwarded() -> Rule {
    rule([Match::Translated, within(&[PacketField::OutLink], "bridges")], Verdict::Accept)
}

/// Connections from guests, whose addresses are in this field, get the host as their source, unless
/// the network has services. Both fields are source and destination.
pub(super) fn masqueraded(
    source: &'static [PacketField],
    both: &'static [PacketField],
) -> [Rule; 2] {
    let from_guest = within(source, "inside");
    let to_guest = within(&[PacketField::OutLink], "bridges");
    let is_served = outside(&[PacketField::OutLink], "served");
    [
        rule([Match::Translated, from_guest, to_guest, is_served], Verdict::Masquerade),
        rule([Match::Translated, within(both, ITSELF)], Verdict::Masquerade),
    ]
}

/// The element of a guest with this address on a network with services.
pub(super) fn itself(address: IpAddr) -> Element {
    let family = if address.is_ipv4() { Family::Ip } else { Family::Ip6 };
    let key = vec![Value::Address(address), Value::Address(address)];
    Element { family, table: TABLE, set: ITSELF.into(), key }
}

/// The map elements of these ports of a guest with this address.
pub(super) fn elements(address: IpAddr, ports: &[Expose]) -> Vec<Element> {
    let family = if address.is_ipv4() { Family::Ip } else { Family::Ip6 };
    let element = |set: &'static str, key| Element { family, table: TABLE, set: set.into(), key };
    let of_pair = |exposed: &Expose, (host_port, port)| {
        let protocol = Value::Protocol(exposed.protocol.number());
        let (at, to) = (Value::Port(host_port), Value::Target(address, port));
        match exposed.host_ip.filter(|ip| !ip.is_unspecified()) {
            Some(ip) => element("exposed_at", vec![Value::Address(ip), protocol, at, to]),
            None => element("exposed", vec![protocol, at, to]),
        }
    };
    let is_of_family =
        |exposed: &&Expose| exposed.host_ip.is_none_or(|ip| ip.is_ipv4() == address.is_ipv4());
    let of = |exposed| Expose::pairs(exposed).map(move |pair| of_pair(exposed, pair));
    ports.iter().filter(is_of_family).flat_map(of).collect()
}
