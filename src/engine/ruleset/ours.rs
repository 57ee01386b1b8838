//! The two tables of volnet, and what a VM is in their sets.
//!
//! `ip volnet` joins the NATed networks to the world: what their guests send elsewhere is
//! masqueraded, and nothing that begins outside is forwarded to them. Traffic between two of our
//! bridges is neither masqueraded nor stopped here.
//!
//! `bridge volnet` keeps guests honest. A port whose guest has a lease sends IPv4 from its own
//! Ethernet and IPv4 address, and ARP that says the same thing in the frame's header and in the
//! packet; everything else is dropped before the bridge learns from it or floods it. A port without
//! a lease is not among them, because nobody has told us its address.

use std::net::Ipv4Addr;

use super::{
    Chain, ChainKind, Element, Family, Field, Hook, Key, Match, PacketField, Rule, Set, Table,
    Value, Verdict,
};
use crate::engine::mac::Mac;
use crate::engine::name::TapName;
use crate::engine::state::NetworkConfig;

/// The name of both tables.
pub const TABLE: &str = "volnet";

/// `NF_IP_PRI_NAT_SRC` (linux/netfilter_ipv4.h).
const PRIORITY_SOURCE_NAT: i32 = 100;
/// `NF_IP_PRI_FILTER` (linux/netfilter_ipv4.h).
const PRIORITY_FILTER: i32 = 0;
/// Before everything else that looks at a frame: `NF_BR_PRI_NAT_DST_BRIDGED`
/// (linux/netfilter_bridge.h).
const PRIORITY_BRIDGE_FIRST: i32 = -300;
/// `ETH_P_IP` (linux/if_ether.h).
const ETHERTYPE_IPV4: u16 = 0x0800;
/// `ETH_P_ARP`.
const ETHERTYPE_ARP: u16 = 0x0806;

/// Both tables, with these elements in their sets.
pub fn tables(networks: &[&NetworkConfig], elements: Vec<Element>, owned: bool) -> Vec<Table> {
    let mut tables = vec![routed(networks, owned), bridged(owned)];
    for element in elements {
        let table = tables.iter_mut().find(|table| table.family == element.family);
        let sets = table.into_iter().flat_map(|table| &mut table.sets);
        if let Some(set) = sets.into_iter().find(|set| set.name == element.set) {
            set.elements.push(element.key);
        }
    }
    tables
}

/// What a VM is in the sets. Nothing without a lease.
pub fn elements(tap: &TapName, mac: Mac, ip: Option<Ipv4Addr>) -> Vec<Element> {
    let Some(ip) = ip else { return Vec::new() };
    let link = || Value::Link(tap.to_string());
    let element = |set, key| Element { family: Family::Bridge, table: TABLE, set, key };
    vec![
        element("guests", vec![link(), Value::Ether(mac), Value::Ipv4(ip)]),
        element("ports", vec![link()]),
    ]
}

fn routed(networks: &[&NetworkConfig], owned: bool) -> Table {
    use PacketField::{InLink, IpSource, OutLink};
    let nat = || networks.iter().filter(|network| network.nat);
    let bridges = nat().map(|network| vec![Value::Link(network.bridge.clone())]).collect();
    let subnets = nat().map(|network| vec![Value::Prefix(network.subnet)]).collect();
    let postrouting = vec![rule(
        [within(&[IpSource], "subnets"), outside(&[OutLink], "bridges")],
        Verdict::Masquerade,
    )];
    let forward = vec![
        rule([Match::Established], Verdict::Accept),
        rule([within(&[OutLink], "bridges"), outside(&[InLink], "bridges")], Verdict::Drop),
    ];
    Table {
        family: Family::Ip,
        name: TABLE,
        owned,
        sets: vec![
            set("bridges", &[Field::Link], false, bridges),
            set("subnets", &[Field::Ipv4], true, subnets),
        ],
        chains: vec![
            Chain {
                name: "postrouting",
                kind: ChainKind::Nat,
                hook: Hook::Postrouting,
                priority: PRIORITY_SOURCE_NAT,
                rules: postrouting,
            },
            Chain {
                name: "forward",
                kind: ChainKind::Filter,
                hook: Hook::Forward,
                priority: PRIORITY_FILTER,
                rules: forward,
            },
        ],
    }
}

fn bridged(owned: bool) -> Table {
    use PacketField::{ArpSenderEther, ArpSenderIp, EtherSource, InLink, IpSource};
    let rules = vec![
        rule([outside(&[InLink], "ports")], Verdict::Accept),
        rule(
            [Match::EtherType(ETHERTYPE_IPV4), within(&[InLink, EtherSource, IpSource], "guests")],
            Verdict::Accept,
        ),
        rule(
            [
                Match::EtherType(ETHERTYPE_ARP),
                within(&[InLink, ArpSenderEther, ArpSenderIp], "guests"),
                within(&[InLink, EtherSource, ArpSenderIp], "guests"),
            ],
            Verdict::Accept,
        ),
        rule([], Verdict::Drop),
    ];
    Table {
        family: Family::Bridge,
        name: TABLE,
        owned,
        sets: vec![
            set("guests", &[Field::Link, Field::Ether, Field::Ipv4], false, Vec::new()),
            set("ports", &[Field::Link], false, Vec::new()),
        ],
        chains: vec![Chain {
            name: "prerouting",
            kind: ChainKind::Filter,
            hook: Hook::Prerouting,
            priority: PRIORITY_BRIDGE_FIRST,
            rules,
        }],
    }
}

fn set(name: &'static str, key: &'static [Field], interval: bool, elements: Vec<Key>) -> Set {
    Set { name, key, interval, elements }
}

fn rule<const N: usize>(matches: [Match; N], verdict: Verdict) -> Rule {
    Rule { matches: matches.into(), verdict }
}

fn within(fields: &'static [PacketField], set: &'static str) -> Match {
    Match::InSet { fields, set, negated: false }
}

fn outside(fields: &'static [PacketField], set: &'static str) -> Match {
    Match::InSet { fields, set, negated: true }
}
