//! Exposed ports: maps of `ip volnet`.
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
//! it back. So connections from our prefixes get the host as their source. A guest can even reach
//! itself that way. It is different if bridged frames pass these rules (`bridge-nf-call-iptables`):
//! then the bridge forwards such a packet as a frame, and never sends it back to its port.

use std::net::Ipv4Addr;

use super::{
    Chain, ChainKind, Element, Expose, Family, Field, Hook, Match, NetworkConfig, PacketField,
    Rule, Set, TABLE, Value, Verdict, masked, prefixes, rule, set, within,
};

/// The keys of the maps.
pub(super) const PORTS: &[Field] = &[Field::Protocol, Field::Port, Field::Target];
pub(super) const PORTS_AT: &[Field] = &[Field::Ipv4, Field::Protocol, Field::Port, Field::Target];
/// Before `NF_IP_PRI_NAT_DST` (linux/netfilter_ipv4.h), where others translate.
const PRIORITY_DESTINATION_NAT: i32 = -101;
/// 127.0.0.0/8 (RFC 1122).
const LOOPBACK: Match = masked(PacketField::IpDestination, 0xff00_0000, 0x7f00_0000);

pub(super) fn sets(networks: &[&NetworkConfig]) -> [Set; 3] {
    [
        set("exposed", PORTS, Vec::new()),
        set("exposed_at", PORTS_AT, Vec::new()),
        prefixes("inside", networks.iter().copied()),
    ]
}

/// For connections from other machines and guests.
pub(super) fn prerouting() -> Chain {
    chain("exposed_prerouting", Hook::Prerouting, translated().into())
}

/// For connections from the host.
pub(super) fn output() -> Chain {
    let mut rules = vec![rule([LOOPBACK], Verdict::Accept)];
    rules.extend(translated());
    chain("exposed_output", Hook::Output, rules)
}

fn chain(name: &'static str, hook: Hook, rules: Vec<Rule>) -> Chain {
    Chain { name, kind: ChainKind::Nat, hook, priority: PRIORITY_DESTINATION_NAT, rules }
}

fn translated() -> [Rule; 2] {
    use PacketField::{DestinationPort, IpDestination, Protocol};
    let to = |fields, map| rule([Match::Local], Verdict::Translate { fields, map });
    [
        to(&[IpDestination, Protocol, DestinationPort], "exposed_at"),
        to(&[Protocol, DestinationPort], "exposed"),
    ]
}

/// Connections by an exposed port are forwarded to the guest, wherever they come from.
pub(super) fn forwarded() -> Rule {
    rule([Match::Translated, within(&[PacketField::OutLink], "bridges")], Verdict::Accept)
}

/// Connections from guests get the host as their source.
pub(super) fn masqueraded() -> Rule {
    use PacketField::{IpSource, OutLink};
    let of_guests =
        [Match::Translated, within(&[IpSource], "inside"), within(&[OutLink], "bridges")];
    rule(of_guests, Verdict::Masquerade)
}

/// The map elements of these ports.
pub(super) fn elements(address: Ipv4Addr, ports: &[Expose]) -> Vec<Element> {
    let element =
        |set: &'static str, key| Element { family: Family::Ip, table: TABLE, set: set.into(), key };
    let of_pair = |exposed: &Expose, (host_port, port)| {
        let protocol = Value::Protocol(exposed.protocol.number());
        let (at, to) = (Value::Port(host_port), Value::Target(address.into(), port));
        match exposed.host_ip {
            Some(ip) => element("exposed_at", vec![Value::Address(ip.into()), protocol, at, to]),
            None => element("exposed", vec![protocol, at, to]),
        }
    };
    let of = |exposed| Expose::pairs(exposed).map(move |pair| of_pair(exposed, pair));
    ports.iter().flat_map(of).collect()
}
