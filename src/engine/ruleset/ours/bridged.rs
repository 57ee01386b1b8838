//! `bridge volnet`: frames as they come from guests and go to them.
//!
//! A port whose guest has a lease sends IPv4 from its own Ethernet and IPv4 address, and ARP that
//! says the same thing in the frame's header and in the packet; everything else is dropped before
//! the bridge learns from it or floods it. A port without a lease is not among them, because nobody
//! has told us its address. For this to hold, all frames of a port must come by here: see
//! [`crate::engine::plan::LinkSettings::group_forward`].
//!
//! Two isolated ports exchange no frames, which is the bridge's own doing. They could still send
//! each other packets by way of the host, as their gateway. Such a packet goes out to the one with
//! an address of the network as its source that is not the host's, and is dropped there. Frames
//! that pass from port to port are not seen in that chain, so it says nothing about others.

use super::{
    Chain, ChainKind, Element, Family, Field, Guest, Hook, Match, NetworkConfig, PacketField, Rule,
    TABLE, Table, Value, Verdict, is, outside, prefixes, rule, set, within,
};

/// Before everything else that looks at a frame: `NF_BR_PRI_NAT_DST_BRIDGED`
/// (linux/netfilter_bridge.h).
const PRIORITY_FIRST: i32 = -300;
/// Behind what others do to what the host sends: `NF_BR_PRI_FILTER_OTHER`.
const PRIORITY_FILTER_OTHER: i32 = 200;
/// `ETH_P_IP` (linux/if_ether.h).
const IPV4: Match = is(PacketField::EtherType, 0x0800);
/// `ETH_P_ARP`.
const ARP: Match = is(PacketField::EtherType, 0x0806);

pub(super) fn table(networks: &[&NetworkConfig], owned: bool) -> Table {
    let all = || networks.iter().copied();
    let hosts = all().map(|network| vec![Value::Ipv4(network.host_ip)]).collect();
    Table {
        family: Family::Bridge,
        name: TABLE,
        owned,
        sets: vec![
            set("ports", &[Field::Link], Vec::new()),
            set("guests", &[Field::Link, Field::Ether, Field::Ipv4], Vec::new()),
            set("isolated", &[Field::Link], Vec::new()),
            prefixes("subnets", all()),
            set("hosts", &[Field::Ipv4], hosts),
        ],
        chains: vec![
            Chain {
                name: "prerouting",
                kind: ChainKind::Filter,
                hook: Hook::Prerouting,
                priority: PRIORITY_FIRST,
                rules: from_guests(),
            },
            Chain {
                name: "output",
                kind: ChainKind::Filter,
                hook: Hook::Output,
                priority: PRIORITY_FILTER_OTHER,
                rules: from_host(),
            },
        ],
    }
}

/// What a guest is in the sets.
pub(super) fn elements(guest: &Guest<'_>) -> Vec<Element> {
    let link = || Value::Link(guest.tap.to_string());
    let element = |set, key| Element { family: Family::Bridge, table: TABLE, set, key };
    let mut elements = Vec::new();
    if let Some(ip) = guest.ip {
        let key = vec![link(), Value::Ether(guest.mac), Value::Ipv4(ip)];
        elements.extend([element("guests", key), element("ports", vec![link()])]);
    }
    if guest.isolated {
        elements.push(element("isolated", vec![link()]));
    }
    elements
}

fn from_guests() -> Vec<Rule> {
    use PacketField::{ArpSenderEther, ArpSenderIp, EtherSource, InLink, IpSource};
    vec![
        rule([outside(&[InLink], "ports")], Verdict::Accept),
        rule([IPV4, within(&[InLink, EtherSource, IpSource], "guests")], Verdict::Accept),
        rule(
            [
                ARP,
                within(&[InLink, ArpSenderEther, ArpSenderIp], "guests"),
                within(&[InLink, EtherSource, ArpSenderIp], "guests"),
            ],
            Verdict::Accept,
        ),
        rule([], Verdict::Drop),
    ]
}

fn from_host() -> Vec<Rule> {
    use PacketField::{IpSource, OutLink};
    vec![rule(
        [
            within(&[OutLink], "isolated"),
            IPV4,
            within(&[IpSource], "subnets"),
            outside(&[IpSource], "hosts"),
        ],
        Verdict::Drop,
    )]
}
