//! The tables `volnet-trace`, which have the kernel tell of the packets of some guests.
//!
//! They are there only while somebody looks: with no rule anywhere that traces, the kernel passes
//! by all of its own code for that, too. They decide nothing.
//!
//! A packet is marked where it is seen first (`arriving`): a frame of a guest, a frame to it from
//! another port of its bridge, and a packet that the host routes to it, by its address or by an
//! exposed port. That is before all chains of others, but for those that drop what one device
//! receives. Answers to a guest may be for the address of the host. So they are known by who began
//! the connection (`answers`, and `answers_output` for those of the host itself), behind the
//! kernel's tracking. The mark stays with the packet from table to table.
//!
//! The last chain of each table (`leaving`) has no rule. There the kernel tells how the packet
//! leaves: behind the translation of its source, which no other chain would show.

use std::net::IpAddr;

use super::bridged::{IPV4, IPV6};
use super::{
    Chain, Element, Expose, Family, Field, Hook, Match, PacketField, Rule, Set, TRACE_TABLE, Table,
    Value, Verdict, exposed, filter, rule, set, within,
};
use crate::model::name::TapName;

/// The chain where packets are marked that a trace is about.
pub const ARRIVING: &str = "arriving";
/// The chain that sees them last.
pub const LEAVING: &str = "leaving";

/// Before all chains of ours and, as a rule, of others: before `NF_IP_PRI_RAW`
/// (linux/netfilter_ipv4.h) and `NF_BR_PRI_NAT_DST_BRIDGED` (linux/netfilter_bridge.h).
const PRIORITY_FIRST: i32 = -350;
/// Right behind `NF_IP_PRI_CONNTRACK`.
const PRIORITY_TRACKED: i32 = -199;
/// Behind source NAT, and behind [`super::inner`].
const PRIORITY_LAST: i32 = 320;

const LINKS: &str = "traced";
const ADDRESSES: &str = "traced_addresses";
const ADDRESSES6: &str = "traced_addresses6";
/// The keys of the maps of exposed ports, without what they lead to.
const EXPOSED: &str = "traced_exposed";
const EXPOSED_AT: &str = "traced_exposed_at";

/// An interface of a guest that is traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedPort<'a> {
    /// Its tap.
    pub tap: &'a TapName,
    /// Its addresses that are routed.
    pub addresses: Vec<IpAddr>,
    /// Its exposed ports.
    pub exposed: &'a [Expose],
}

/// The tables: for frames, and for packets of IPv4 and, if the host has it for guests, of IPv6.
pub(super) fn tables(ipv6: bool, owned: bool) -> Vec<Table> {
    let mut tables = vec![bridged(owned), routed(Family::Ip, owned)];
    tables.extend(ipv6.then(|| routed(Family::Ip6, owned)));
    tables
}

fn bridged(owned: bool) -> Table {
    use PacketField::{InLink, Ip6Destination, IpDestination};
    let arriving = vec![
        rule([within(&[InLink], LINKS)], Verdict::Trace),
        rule([IPV4, within(&[IpDestination], ADDRESSES)], Verdict::Trace),
        rule([IPV6, within(&[Ip6Destination], ADDRESSES6)], Verdict::Trace),
    ];
    let sets = vec![
        set(LINKS, &[Field::Link], Vec::new()),
        set(ADDRESSES, &[Field::Ipv4], Vec::new()),
        set(ADDRESSES6, &[Field::Ipv6], Vec::new()),
    ];
    table(Family::Bridge, owned, sets, arriving, Vec::new())
}

fn routed(family: Family, owned: bool) -> Table {
    use PacketField::{
        Beginner, Beginner6, DestinationPort, Ip6Destination, IpDestination, Protocol,
    };
    type Fields = &'static [PacketField];
    let (destination, at, beginner): (Fields, Fields, Fields) = match family {
        Family::Ip6 => {
            (&[Ip6Destination], &[Ip6Destination, Protocol, DestinationPort], &[Beginner6])
        }
        Family::Ip | Family::Bridge => {
            (&[IpDestination], &[IpDestination, Protocol, DestinationPort], &[Beginner])
        }
    };
    type Keys = (&'static [Field], &'static [Field]);
    let (address, port_at): Keys = match family {
        Family::Ip6 => (&[Field::Ipv6], &[Field::Ipv6, Field::Protocol, Field::Port]),
        Family::Ip | Family::Bridge => {
            (&[Field::Ipv4], &[Field::Ipv4, Field::Protocol, Field::Port])
        }
    };
    let arriving = vec![
        rule([within(destination, ADDRESSES)], Verdict::Trace),
        rule([within(at, EXPOSED_AT)], Verdict::Trace),
        rule([within(&[Protocol, DestinationPort], EXPOSED), Match::Local], Verdict::Trace),
    ];
    let answers = || vec![rule([within(beginner, ADDRESSES)], Verdict::Trace)];
    let sets = vec![
        set(ADDRESSES, address, Vec::new()),
        set(EXPOSED, &[Field::Protocol, Field::Port], Vec::new()),
        set(EXPOSED_AT, port_at, Vec::new()),
    ];
    let chains = vec![
        filter("answers", Hook::Prerouting, PRIORITY_TRACKED, answers()),
        filter("answers_output", Hook::Output, PRIORITY_TRACKED, answers()),
    ];
    table(family, owned, sets, arriving, chains)
}

fn table(
    family: Family,
    owned: bool,
    sets: Vec<Set>,
    arriving: Vec<Rule>,
    between: Vec<Chain>,
) -> Table {
    let mut chains = vec![filter(ARRIVING, Hook::Prerouting, PRIORITY_FIRST, arriving)];
    chains.extend(between);
    chains.push(filter(LEAVING, Hook::Postrouting, PRIORITY_LAST, Vec::new()));
    Table { family, name: TRACE_TABLE, owned, sets, chains }
}

/// The elements of an interface. `ipv6`: whether there is a table for IPv6.
pub(super) fn elements(port: &TracedPort<'_>, ipv6: bool) -> Vec<Element> {
    let element = |family, set: &'static str, key| Element {
        family,
        table: TRACE_TABLE,
        set: set.into(),
        key,
    };
    let mut elements =
        vec![element(Family::Bridge, LINKS, vec![Value::Link(port.tap.to_string())])];
    for address in port.addresses.iter().filter(|address| ipv6 || address.is_ipv4()) {
        let (family, bridged) = match address {
            IpAddr::V4(_) => (Family::Ip, ADDRESSES),
            IpAddr::V6(_) => (Family::Ip6, ADDRESSES6),
        };
        elements.push(element(Family::Bridge, bridged, vec![Value::Address(*address)]));
        elements.push(element(family, ADDRESSES, vec![Value::Address(*address)]));
        for mut led in exposed::elements(*address, port.exposed) {
            led.key.pop();
            let set = if led.key.len() == 2 { EXPOSED } else { EXPOSED_AT };
            let led = element(family, set, led.key);
            // The guest may have several addresses of a family.
            if !elements.contains(&led) {
                elements.push(led);
            }
        }
    }
    elements
}
