//! `bridge volnet`: frames from guests and to guests.
//!
//! **What a guest may send** is decided before the bridge learns from a frame or floods it. So all
//! frames of a port must pass these rules: see [`crate::plan::op::PortSettings::group_forward`]. In
//! the order of the rules:
//!
//! - nearly all frames are told by the first rules, which cost a frame two look-ups: IPv4 and IPv6
//!   from the guest's own addresses to one machine, if there is nothing special about the guest
//!   (`ordinary`) or the frame. They accept nothing that the rules below would not accept as well,
//!   so these can be read as if the first ones were not there;
//! - ports that are not ours may send anything; frames from our ports are marked as a guest's, for
//!   the rules about the host;
//! - frames over a guest's limits are dropped, by bytes or by packets. This is also so for trusted
//!   guests (`antispoof: false`), which may otherwise send anything;
//! - frames to a link-local group (spanning tree, LLDP, port authentication) are dropped. The rate
//!   of frames to groups and broadcast is limited, because each is sent to all ports;
//! - a guest cannot be a DHCP server, query multicast listeners, or use a DHCP server in another's
//!   name;
//! - IPv4 must come from the guest's own addresses, and ARP must state these. A guest without an
//!   address may ask for one by DHCP, and probe it by ARP (RFC 5227);
//! - IPv6, if the network has it, must come from the guest's own addresses: the one that volnet
//!   knows, and the link-local one with the same identifier. Neighbour discovery must state these,
//!   and its link-layer options the guest's Ethernet address. A guest may look whether an address
//!   of its own is a neighbour's (RFC 4862), and report to multicast routers and ask for its router
//!   before it has one.
//!   Router advertisements, redirects, multicast queries and DHCP servers are dropped;
//! - a neighbour solicitation for another address, or from one, is a claim. It goes to the host
//!   alone, which hears it before its rules and IP stack do: these drop it. If the address is
//!   nobody's, volnet adds it to those of the guest (`crate::engine::claim`). The rate of claims is
//!   limited;
//! - everything else is dropped: VLAN tags, IEEE 802.3, and other EtherTypes.
//!
//! **What is dropped is counted** by port: frames over a limit, ARP that does not state the guest's
//! own addresses, and whatever else it may not send. The look-up that counts is the last before the
//! verdict, so other frames do not pay for it. A rule without it follows: no element that only
//! counts keeps a frame from being dropped. For limits there is none, as their look-up would count
//! a frame twice.
//!
//! **Headers that hide.** The kernel walks over extension headers, and a rule about the protocol
//! never matches a packet whose headers it cannot walk. Such a packet is dropped at the end. For a
//! rule, the walk ends at an authentication header (include/net/netfilter/nf_tables_ipv6.h), behind
//! which anything could be. So IPv6 with such a header is dropped.
//!
//! Only the first fragment of an IPv6 packet is checked: without it, the receiver cannot put the
//! packet together. It must show the type of an ICMPv6 message and the ports of a UDP datagram (RFC
//! 7112): extension headers could fill it, and leave these to the next fragment. So rules that
//! accept ICMPv6 or UDP read the type or a port, and match nothing that does not have it. Their
//! later fragments have the fragment header right behind the IPv6 header. Neighbour discovery must
//! be there, too. So it cannot be in fragments, which receivers need not check (RFC 6980).
//!
//! **Its own addresses.** If a guest has its address from volnet, on its kernel command line or by
//! DHCP, (link, Ethernet, IPv4) is in `guests`. So is each movable address that its VM names, once
//! for each VM that names it: whoever of them announces it may have it. If it has its address from
//! another DHCP server, the server's answer on its way to the port puts the address into `leases`.
//! Only a machine that is not a guest can answer, and only to the port of the guest that the answer
//! names. The kernel does not know when a lease ends. A guest may use its address as long as it
//! keeps sending.
//!
//! **Two isolated ports** exchange no frames: the bridge itself prevents this. They could still
//! send each other packets by way of the host, their gateway. Such a packet goes out to the port
//! with a source address of the network that is not the host's, and is dropped there. That chain
//! does not see frames from port to port, so it does not affect other guests.
//!
//! **A guest with an inner identity** is held to that: it is the one in `guests` and `macs`. Behind
//! these rules, [`super::inner`] gives its frames the outer addresses.

use std::net::Ipv6Addr;

use super::{
    Bytes, CLAIM, Element, Family, Field, GUEST, GuestPort, Hook, ICMP6, IGMP, INNER, IS_CLAIM,
    IS_STRANGE, Layer, Match, NetworkConfig, PacketField, Rule, STRANGE, Set, SetKind, TABLE,
    Table, UDP, Unit, Value, Verdict, filter, inner, is, is_not, masked, of_prefix, outside,
    prefixes, prefixes6, rule, set, within,
};
use crate::model::limits::Rate;

/// Before all other chains: `NF_BR_PRI_NAT_DST_BRIDGED` (linux/netfilter_bridge.h).
const PRIORITY_FIRST: i32 = -300;
/// After other chains for frames of the host: `NF_BR_PRI_FILTER_OTHER`.
const PRIORITY_FILTER_OTHER: i32 = 200;
/// At source NAT of bridges: `NF_BR_PRI_NAT_SRC`.
const PRIORITY_NAT_SOURCE: i32 = 300;

/// `ETH_P_IP` (linux/if_ether.h).
pub(super) const IPV4: Match = is(PacketField::EtherType, 0x0800);
/// `ETH_P_ARP`.
pub(super) const ARP: Match = is(PacketField::EtherType, 0x0806);
/// `ETH_P_IPV6`.
pub(super) const IPV6: Match = is(PacketField::EtherType, 0x86dd);
/// 01:80:c2:00:00:00 to :0f, which no bridge forwards (IEEE 802.1Q, 8.6.3).
const TO_LINK_LOCAL_GROUP: Match =
    masked(PacketField::EtherDestination, 0xffff_ffff_fff0, 0x0180_c200_0000);
/// Broadcast and multicast.
const TO_GROUP: Match = masked(PacketField::EtherDestination, 0x0100_0000_0000, 0x0100_0000_0000);
/// Neither.
const TO_ONE: Match = masked(PacketField::EtherDestination, 0x0100_0000_0000, 0);
/// Frames a second to groups and broadcast from one port. ARP for a whole /24 is within it; a
/// multicast stream is not.
const GROUP_RATE: Rate = Rate { per_second: 250, burst: 250 };
/// Claims of addresses a second from one port: volnet hears each. A guest makes few addresses when
/// its link comes up, and then one a day.
const CLAIM_RATE: Rate = Rate { per_second: 2, burst: 20 };
/// How long a silent guest that does not renew its lease may use it: a week.
const LEASE_TIMEOUT_S: u32 = 7 * 24 * 3600;
/// How long a port without such frames is kept.
const STORM_TIMEOUT_S: u32 = 10;

/// Ports of DHCP (RFC 2131) and of DHCP for IPv6 (RFC 8415). Clients accept an answer from any
/// port, so the port that it goes to tells it as well.
const FROM_DHCP_SERVER: Match = is(PacketField::SourcePort, 67);
const TO_DHCP_SERVER: Match = is(PacketField::DestinationPort, 67);
const NOT_FROM_DHCP_SERVER: Match = is_not(PacketField::SourcePort, 67);
const NOT_TO_DHCP_SERVER: Match = is_not(PacketField::DestinationPort, 67);
const NOT_TO_DHCP_CLIENT: Match = is_not(PacketField::DestinationPort, 68);
const FROM_DHCP_CLIENT: Match = is(PacketField::SourcePort, 68);
const TO_DHCP_CLIENT: Match = is(PacketField::DestinationPort, 68);
const NOT_FROM_DHCP6_SERVER: Match = is_not(PacketField::SourcePort, 547);
const TO_DHCP6_CLIENT: Match = is(PacketField::DestinationPort, 546);
const NOT_TO_DHCP6_CLIENT: Match = is_not(PacketField::DestinationPort, 546);
/// As numbers (IANA, protocol numbers).
const NOT_IGMP: Match = is_not(PacketField::Protocol, 2);
const NOT_UDP: Match = is_not(PacketField::Protocol, 17);
const NOT_AUTHENTICATED: Match = is_not(PacketField::Protocol, 51);
const NOT_ICMP6: Match = is_not(PacketField::Protocol, 58);
/// More fragments follow, or this is not the first (RFC 791).
const FRAGMENT: Match =
    Match::Is { field: PacketField::IpFragment, mask: Some(0x3fff), value: 0, negated: true };
/// A membership query (RFC 3376) and a multicast listener query (RFC 2710).
const IGMP_QUERY: Match = is(PacketField::IgmpType, 0x11);
const NO_LISTENER_QUERY: Match = is_not(PacketField::Icmp6Type, 130);
/// A report of a multicast listener (RFC 3810).
const LISTENER_REPORT: Match = is(PacketField::Icmp6Type, 143);
/// Neighbour solicitation and advertisement (RFC 4861).
const SOLICITATION: Match = is(PacketField::Icmp6Type, 135);
const NO_SOLICITATION: Match = is_not(PacketField::Icmp6Type, 135);
const ADVERTISEMENT: Match = is(PacketField::Icmp6Type, 136);
const NO_ADVERTISEMENT: Match = is_not(PacketField::Icmp6Type, 136);
/// ICMPv6 right behind the IPv6 header (RFC 8200, 3).
const NEXT_IS_ICMP6: Match = is_bytes(6, 1, 58);
/// A fragment header there, and that the fragment is not the first (RFC 8200, 4.5).
const NEXT_IS_FRAGMENT: Match = is_bytes(6, 1, 44);
const LATER_FRAGMENT: Match =
    Match::Is { field: network_bytes(42, 2), mask: Some(0xfff8), value: 0, negated: true };
/// As [`NEXT_IS_ICMP6`], and before it the length of neighbour discovery without options, or with
/// one link-layer option. nft would make one of two matches.
const WITHOUT_OPTION: Match = is_bytes(4, 3, 24 << 8 | 58);
const WITH_OPTION: Match = is_bytes(4, 3, (24 + 8) << 8 | 58);
/// Type and length of the source and the target link-layer option (RFC 4861, 4.6.1).
const SOURCE_OPTION: Match = is_bytes(64, 2, 0x0101);
const TARGET_OPTION: Match = is_bytes(64, 2, 0x0201);
/// Router solicitation, and before it its length without options, or with one (RFC 4861, 4.1).
const ROUTER_SOLICITATION: Match = is(PacketField::Icmp6Type, 133);
const NO_ROUTER_SOLICITATION: Match = is_not(PacketField::Icmp6Type, 133);
const PLAIN_ROUTER_SOLICITATION: Match = is_bytes(4, 3, 8 << 8 | 58);
const NAMED_ROUTER_SOLICITATION: Match = is_bytes(4, 3, (8 + 8) << 8 | 58);
const ITS_OPTION: Match = is_bytes(48, 2, 0x0101);
/// Router advertisement and redirect (RFC 4861).
const NO_ROUTER: Match = is_not(PacketField::Icmp6Type, 134);
const NO_REDIRECT: Match = is_not(PacketField::Icmp6Type, 137);

/// Fields that are compared with bytes of a DHCP message. They must be bytes, too, and in two
/// parts: nft lists a whole field by its name, which has another type than bytes, and could not
/// read its own listing back. A part of a field has no name.
const ETHER_SOURCE: [Bytes; 2] = parts(Layer::Link, 6, 6);
const IP_SOURCE: [Bytes; 2] = parts(Layer::Network, 12, 4);
const ARP_SENDER_ETHER: [Bytes; 2] = parts(Layer::Network, 8, 6);
const ARP_SENDER_IP: [Bytes; 2] = parts(Layer::Network, 14, 4);
/// `chaddr` and `yiaddr` (RFC 2131, 2) after the UDP header: the client and its new address.
const DHCP_CLIENT: [Bytes; 2] = parts(Layer::Transport, 8 + 28, 6);
const DHCP_YOURS: [Bytes; 2] = parts(Layer::Transport, 8 + 16, 4);

/// IPv6 source address, the target of neighbour discovery, and the address in its option.
const IP6_SOURCE: [Bytes; 3] = thirds(8);
const TARGET: [Bytes; 3] = thirds(48);
const OPTION_ETHER: [Bytes; 2] = parts(Layer::Network, 66, 6);
/// The address in the option of a router solicitation.
const ITS_OPTION_ETHER: [Bytes; 2] = parts(Layer::Network, 50, 6);

/// Bytes of the network header that have this value.
const fn is_bytes(offset: u8, length: u8, value: u64) -> Match {
    is(network_bytes(offset, length), value)
}

const fn network_bytes(offset: u8, length: u8) -> PacketField {
    PacketField::Bytes(Bytes { layer: Layer::Network, offset, length })
}

/// The three parts of an IPv6 address. An nft before 1.0 has types for bytes of these lengths.
const fn thirds(offset: u8) -> [Bytes; 3] {
    const fn part(offset: u8, length: u8) -> Bytes {
        Bytes { layer: Layer::Network, offset, length }
    }
    [part(offset, 6), part(offset + 6, 6), part(offset + 12, 4)]
}

/// The first two bytes of a field, and the others.
const fn parts(layer: Layer, offset: u8, length: u8) -> [Bytes; 2] {
    let rest = length - PART;
    [Bytes { layer, offset, length: PART }, Bytes { layer, offset: offset + PART, length: rest }]
}

/// Bytes of the first part.
const PART: u8 = 2;

/// A link and the Ethernet address of its guest.
pub(super) const MAC: &[Field] =
    &[Field::Link, Field::Bytes(ETHER_SOURCE[0]), Field::Bytes(ETHER_SOURCE[1])];
/// A link, a part of its guest's Ethernet address, and the guest's address. The whole Ethernet
/// address is compared with `asking`: nft shows no types for a key of five parts.
pub(super) const LEASE: &[Field] = &[
    Field::Link,
    Field::Bytes(ETHER_SOURCE[1]),
    Field::Bytes(IP_SOURCE[0]),
    Field::Bytes(IP_SOURCE[1]),
];

/// A link and an IPv6 address of its guest. The Ethernet address is compared with `macs`.
pub(super) const ADDRESS6: &[Field] = &[
    Field::Link,
    Field::Bytes(IP6_SOURCE[0]),
    Field::Bytes(IP6_SOURCE[1]),
    Field::Bytes(IP6_SOURCE[2]),
];

/// The fields of a packet that are compared with [`ADDRESS6`].
const fn address6([a, b, c]: [Bytes; 3]) -> [PacketField; 4] {
    use PacketField::{Bytes, InLink};
    [InLink, Bytes(a), Bytes(b), Bytes(c)]
}

/// The fields of a packet that are compared with [`MAC`].
const fn mac([first, rest]: [Bytes; 2], link: PacketField) -> [PacketField; 3] {
    [link, PacketField::Bytes(first), PacketField::Bytes(rest)]
}

/// The fields of a packet that are compared with [`LEASE`].
const fn lease(
    ether: [Bytes; 2],
    [first, rest]: [Bytes; 2],
    link: PacketField,
) -> [PacketField; 4] {
    [link, PacketField::Bytes(ether[1]), PacketField::Bytes(first), PacketField::Bytes(rest)]
}

/// A link and its rate.
pub(super) const BYTES: &[Field] = &[Field::Link, Field::Rate(Unit::Bytes)];
pub(super) const PACKETS: &[Field] = &[Field::Link, Field::Rate(Unit::Packets)];

pub(super) fn table(networks: &[&NetworkConfig], owned: bool) -> Table {
    let hosts = networks.iter().filter_map(|network| network.ipv4);
    let hosts = hosts.map(|ipv4| vec![Value::Address(ipv4.host.into())]);
    let hosts6 = networks.iter().filter_map(|network| network.ipv6);
    let hosts6 = hosts6.map(|ipv6| vec![Value::Address(ipv6.host.into())]);
    let learned = |name: &'static str, key, timeout_s, kept| Set {
        name: name.into(),
        key,
        kind: SetKind::Learned { timeout_s },
        kept,
        elements: Vec::new(),
    };
    let counting =
        |name: &'static str| Set { kind: SetKind::Counting, ..set(name, LINK, Vec::new()) };
    let limiting = |name, key| Set { kind: SetKind::Limiting, ..set(name, key, Vec::new()) };
    let [prerouting, output, postrouting] = [
        filter("prerouting", Hook::Prerouting, PRIORITY_FIRST, from_guests()),
        filter("output", Hook::Output, PRIORITY_FILTER_OTHER, from_host()),
        filter("postrouting", Hook::Postrouting, PRIORITY_NAT_SOURCE, to_guests()),
    ];
    let [outward, inward] = inner::chains();
    let mut table = Table {
        family: Family::Bridge,
        name: TABLE,
        owned,
        sets: vec![
            set("ordinary", &[Field::Link], Vec::new()),
            set("ports", &[Field::Link], Vec::new()),
            limiting("limited", BYTES),
            limiting("paced", PACKETS),
            counting(OVERRUN),
            counting(SPOOFED),
            counting(FORGED),
            set("trusted", &[Field::Link], Vec::new()),
            set("guests", &[Field::Link, Field::Ether, Field::Ipv4], Vec::new()),
            set("macs", MAC, Vec::new()),
            set("asking", MAC, Vec::new()),
            learned("leases", LEASE, LEASE_TIMEOUT_S, true),
            learned("storms", &[Field::Link], STORM_TIMEOUT_S, false),
            learned("claims", &[Field::Link], STORM_TIMEOUT_S, false),
            set("guests6", ADDRESS6, Vec::new()),
            set("isolated", &[Field::Link], Vec::new()),
            prefixes("subnets", networks.iter().copied()),
            set("hosts", &[Field::Ipv4], hosts.collect()),
            prefixes6("subnets6", networks.iter().copied()),
            set("hosts6", &[Field::Ipv6], hosts6.collect()),
        ],
        chains: vec![prerouting, outward, output, postrouting, inward],
    };
    table.sets.extend(inner::sets());
    table
}

/// The sets that count what is dropped.
pub(super) const SPOOFED: &str = "spoofed";
pub(super) const FORGED: &str = "forged";
pub(super) const OVERRUN: &str = "overrun";
/// Their key.
const LINK: &[Field] = &[Field::Link];

/// The elements of a guest.
pub(super) fn elements(guest: &GuestPort<'_>) -> Vec<Element> {
    let link = || Value::Link(guest.tap.to_string());
    let (inside, ip) = match guest.inner {
        Some(inner) => (inner.mac, Some(inner.ip)),
        None => (guest.mac, guest.ip),
    };
    let mac = || {
        let (first, rest) = inside.0.split_at(PART.into());
        vec![link(), Value::Bytes(first.to_vec()), Value::Bytes(rest.to_vec())]
    };
    let usable = ip.iter().chain(guest.addresses);
    let own = usable.map(|ip| vec![link(), Value::Ether(inside), Value::Address((*ip).into())]);
    let mut keys = vec![("ports", vec![link()])];
    let of_sending = guest.limits.bytes().is_some() || guest.limits.packets().is_some();
    let special = !guest.antispoof || of_sending || guest.inner.is_some();
    keys.extend((!special).then(|| ("ordinary", vec![link()])));
    if guest.antispoof {
        keys.push(("macs", mac()));
        keys.extend([SPOOFED, FORGED].map(|set| (set, vec![link()])));
        keys.extend(own.map(|key| ("guests", key)));
        keys.extend(guest.asks_others.then(|| ("asking", mac())));
        let own6 = guest.ip6.map(|ip| [ip, guest.mac.link_local()]);
        let own6 = own6.into_iter().flatten().chain(guest.claimed.iter().copied());
        let key6 = |ip: Ipv6Addr| {
            let octets = ip.octets();
            let parts = [&octets[..6], &octets[6..12], &octets[12..]];
            let parts = parts.into_iter().map(|part| Value::Bytes(part.to_vec()));
            ("guests6", std::iter::once(link()).chain(parts).collect())
        };
        keys.extend(own6.map(key6));
    } else {
        keys.push(("trusted", vec![link()]));
    }
    let rate = |unit, rate| vec![link(), Value::Rate(unit, rate)];
    let is_limited = guest.limits.bytes().is_some() || guest.limits.packets().is_some();
    keys.extend(is_limited.then(|| (OVERRUN, vec![link()])));
    keys.extend(guest.limits.bytes().map(|bytes| ("limited", rate(Unit::Bytes, bytes))));
    keys.extend(guest.limits.packets().map(|packets| ("paced", rate(Unit::Packets, packets))));
    keys.extend(guest.isolated.then(|| ("isolated", vec![link()])));
    if let Some((inner, ip)) = guest.inner.zip(guest.ip) {
        keys.extend(inner::keys(&inner, &link(), guest.mac, ip));
    }
    let element = |(set, key): (&'static str, Vec<Value>)| Element {
        family: Family::Bridge,
        table: TABLE,
        set: set.into(),
        key,
    };
    keys.into_iter().map(element).collect()
}

fn from_guests() -> Vec<Rule> {
    use PacketField::InLink;
    const CLIENT: &[PacketField] = &mac(DHCP_CLIENT, InLink);
    let too_fast = Match::Faster { fields: &[InLink], set: "storms", rate: GROUP_RATE };
    let mut rules = ordinary();
    rules.extend([
        rule([outside(&[InLink], "ports")], Verdict::Accept),
        rule([], Verdict::SetPriority(GUEST)),
        rule([within(&[InLink], "inner")], Verdict::SetPriority(INNER)),
        rule([within(&[InLink], "limited"), within(&[InLink], OVERRUN)], Verdict::Drop),
        rule([within(&[InLink], "paced"), within(&[InLink], OVERRUN)], Verdict::Drop),
        rule([within(&[InLink], "trusted")], Verdict::Accept),
    ]);
    rules.extend(refused([TO_LINK_LOCAL_GROUP]));
    rules.push(rule([TO_GROUP, too_fast, within(&[InLink], SPOOFED)], Verdict::Drop));
    rules.extend(refused([UDP, FROM_DHCP_SERVER]));
    rules.extend(refused([UDP, TO_DHCP_CLIENT]));
    rules.extend(refused([UDP, TO_DHCP_SERVER, IPV4, FRAGMENT]));
    rules.extend(refused([UDP, TO_DHCP_SERVER, outside(CLIENT, "macs")]));
    rules.extend(refused([IGMP, IGMP_QUERY]));
    rules.extend(ipv4());
    rules.extend(arp());
    rules.extend(ipv6());
    rules.extend(router_solicitations());
    rules.extend(claims());
    rules.push(rule([ARP, within(&[InLink], FORGED)], Verdict::Drop));
    rules.extend(refused([]));
    rules
}

/// Drops and counts what a guest may not send.
fn refused<const N: usize>(matches: [Match; N]) -> [Rule; 2] {
    let counted = within(&[PacketField::InLink], SPOOFED);
    let counting = matches.iter().cloned().chain([counted]).collect();
    [Rule { matches: counting, verdict: Verdict::Drop }, rule(matches, Verdict::Drop)]
}

/// Nearly all frames. Each condition leaves out what a later rule drops. A condition on a port does
/// not hold for a frame that does not show it.
fn ordinary() -> Vec<Rule> {
    use PacketField::{EtherSource, InLink, IpSource};
    const MAC: &[PacketField] = &mac(ETHER_SOURCE, InLink);
    const SOURCE: &[PacketField] = &address6(IP6_SOURCE);
    let port = || [TO_ONE, within(&[InLink], "ordinary")];
    let own = || vec![within(&[InLink, EtherSource, IpSource], "guests")];
    let own6 = || vec![within(MAC, "macs"), within(SOURCE, "guests6")];
    let other = vec![NOT_UDP, NOT_IGMP];
    let other6 = vec![NOT_UDP, NOT_IGMP, NOT_ICMP6, NOT_AUTHENTICATED];
    let no_dhcp = vec![UDP, NOT_FROM_DHCP_SERVER, NOT_TO_DHCP_CLIENT, NOT_TO_DHCP_SERVER];
    // nft would move the source ports to the front.
    let no_dhcp6 = vec![
        UDP,
        NOT_FROM_DHCP_SERVER,
        NOT_FROM_DHCP6_SERVER,
        NOT_TO_DHCP_CLIENT,
        NOT_TO_DHCP_SERVER,
        NOT_TO_DHCP6_CLIENT,
    ];
    let rule = |kind: Match, carries: Vec<Match>, own: Vec<Match>| {
        let matches = [vec![kind], carries, port().into(), own].concat();
        Rule { matches, verdict: Verdict::Admit(GUEST) }
    };
    vec![
        rule(IPV4, other, own()),
        rule(IPV4, no_dhcp, own()),
        rule(IPV6, other6, own6()),
        rule(IPV6, no_dhcp6, own6()),
    ]
}

/// IPv4 from the guest's own address. After the first rule, frames have the guest's own Ethernet
/// address.
fn ipv4() -> [Rule; 6] {
    use PacketField::{EtherSource, InLink, IpSource};
    const MAC: &[PacketField] = &mac(ETHER_SOURCE, InLink);
    const LEASE: &[PacketField] = &lease(ETHER_SOURCE, IP_SOURCE, InLink);
    let asks = [IPV4, is(IpSource, 0), UDP, FROM_DHCP_CLIENT, TO_DHCP_SERVER];
    let asking = within(MAC, "asking");
    let leased = within(LEASE, "leases");
    let still = Match::Put { fields: LEASE, set: "leases" };
    let [counting, other] = refused([IS_STRANGE]);
    [
        rule([IPV4, within(&[InLink, EtherSource, IpSource], "guests")], Verdict::Accept),
        rule([outside(MAC, "macs")], Verdict::SetPriority(STRANGE)),
        counting,
        other,
        rule([IPV4, asking, leased, still], Verdict::Accept),
        rule(asks, Verdict::Accept),
    ]
}

/// ARP for Ethernet and IPv4 that states the guest's own addresses, or probes an address.
fn arp() -> [Rule; 3] {
    use PacketField::{
        ArpHardware, ArpHardwareLength, ArpProtocol, ArpProtocolLength, ArpSenderEther,
        ArpSenderIp, InLink,
    };
    const MAC: &[PacketField] = &mac(ARP_SENDER_ETHER, InLink);
    const LEASE: &[PacketField] = &lease(ARP_SENDER_ETHER, ARP_SENDER_IP, InLink);
    let rule = |matches: &[Match]| {
        let usual = [
            ARP,
            is(ArpHardware, 1),
            is(ArpProtocol, 0x0800),
            is(ArpHardwareLength, 6),
            is(ArpProtocolLength, 4),
        ];
        Rule { matches: [&usual, matches].concat(), verdict: Verdict::Accept }
    };
    [
        rule(&[within(&[InLink, ArpSenderEther, ArpSenderIp], "guests")]),
        rule(&[
            within(MAC, "asking"),
            within(LEASE, "leases"),
            Match::Put { fields: LEASE, set: "leases" },
        ]),
        rule(&[is(ArpSenderIp, 0), within(MAC, "macs")]),
    ]
}

/// IPv6 from the guest's own addresses.
fn ipv6() -> [Rule; 13] {
    use PacketField::InLink;
    const SOURCE: &[PacketField] = &address6(IP6_SOURCE);
    const OF_TARGET: &[PacketField] = &address6(TARGET);
    const OPTION: &[PacketField] = &mac(OPTION_ETHER, InLink);
    let own = || within(SOURCE, "guests6");
    let own_target = || within(OF_TARGET, "guests6");
    let own_option = || within(OPTION, "macs");
    let discovery = |form, kind, matches: &[Match]| Rule {
        matches: [&[IPV6, form, kind], matches].concat(),
        verdict: Verdict::Accept,
    };
    let later = |of| rule([IPV6, of, NEXT_IS_FRAGMENT, LATER_FRAGMENT, own()], Verdict::Accept);
    let from_none = || from(Ipv6Addr::UNSPECIFIED);
    let harmless = [
        NO_LISTENER_QUERY,
        NO_ROUTER_SOLICITATION,
        NO_ROUTER,
        NO_SOLICITATION,
        NO_ADVERTISEMENT,
        NO_REDIRECT,
    ];
    let [counting, other] = refused([IPV6, UDP, TO_DHCP6_CLIENT]);
    [
        rule([IPV6, NOT_UDP, NOT_ICMP6, NOT_AUTHENTICATED, own()], Verdict::Accept),
        counting,
        other,
        rule([IPV6, UDP, NOT_FROM_DHCP6_SERVER, own()], Verdict::Accept),
        later(UDP),
        discovery(NEXT_IS_ICMP6, SOLICITATION, &[from_none(), own_target()]),
        discovery(WITHOUT_OPTION, SOLICITATION, &[own()]),
        discovery(WITH_OPTION, SOLICITATION, &[SOURCE_OPTION, own_option(), own()]),
        discovery(WITHOUT_OPTION, ADVERTISEMENT, &[own_target(), own()]),
        discovery(WITH_OPTION, ADVERTISEMENT, &[TARGET_OPTION, own_option(), own_target(), own()]),
        Rule {
            matches: [&[IPV6, ICMP6], &harmless[..], &[own()]].concat(),
            verdict: Verdict::Accept,
        },
        later(ICMP6),
        rule([IPV6, ICMP6, LISTENER_REPORT, from_none()], Verdict::Accept),
    ]
}

/// The question of a guest for its router: from its own address, with its own Ethernet address or
/// none, or before it has an address.
fn router_solicitations() -> [Rule; 3] {
    use PacketField::InLink;
    const SOURCE: &[PacketField] = &address6(IP6_SOURCE);
    const OPTION: &[PacketField] = &mac(ITS_OPTION_ETHER, InLink);
    let (own, own_option) = (|| within(SOURCE, "guests6"), within(OPTION, "macs"));
    let plain = [IPV6, PLAIN_ROUTER_SOLICITATION, ROUTER_SOLICITATION];
    let named = [IPV6, NAMED_ROUTER_SOLICITATION, ROUTER_SOLICITATION];
    let accept = |form: &[Match], matches: &[Match]| Rule {
        matches: [form, matches].concat(),
        verdict: Verdict::Accept,
    };
    [
        accept(&plain, &[own()]),
        accept(&plain, &[from(Ipv6Addr::UNSPECIFIED)]),
        accept(&named, &[ITS_OPTION, own_option, own()]),
    ]
}

/// Neighbour solicitations about other addresses than the guest's own. Those to one machine are no
/// claims: the host might route them.
fn claims() -> [Rule; 3] {
    let too_fast =
        Match::Faster { fields: &[PacketField::InLink], set: "claims", rate: CLAIM_RATE };
    let counted = within(&[PacketField::InLink], SPOOFED);
    [
        rule([IPV6, NEXT_IS_ICMP6, SOLICITATION, TO_GROUP, too_fast, counted], Verdict::Drop),
        rule([IPV6, NEXT_IS_ICMP6, SOLICITATION, TO_GROUP], Verdict::SetPriority(CLAIM)),
        rule([IS_CLAIM], Verdict::Accept),
    ]
}

/// IPv6 packets from this address.
fn from(address: Ipv6Addr) -> Match {
    of_prefix(PacketField::Ip6Source, (address, 128))
}

fn from_host() -> Vec<Rule> {
    use PacketField::{Ip6Source, IpSource, OutLink};
    let isolated = || within(&[OutLink], "isolated");
    vec![
        rule(
            [IPV4, isolated(), within(&[IpSource], "subnets"), outside(&[IpSource], "hosts")],
            Verdict::Drop,
        ),
        rule(
            [IPV6, isolated(), within(&[Ip6Source], "subnets6"), outside(&[Ip6Source], "hosts6")],
            Verdict::Drop,
        ),
    ]
}

/// A DHCP server answers from the network itself or through a relay there. A server elsewhere could
/// be anybody.
fn to_guests() -> Vec<Rule> {
    use PacketField::{IpSource, OutLink};
    const CLIENT: &[PacketField] = &mac(DHCP_CLIENT, OutLink);
    const LEASE: &[PacketField] = &lease(DHCP_CLIENT, DHCP_YOURS, OutLink);
    let answer = vec![IPV4, UDP, FROM_DHCP_SERVER, TO_DHCP_CLIENT];
    let learn = vec![
        within(&[IpSource], "subnets"),
        within(CLIENT, "asking"),
        Match::Put { fields: LEASE, set: "leases" },
    ];
    vec![
        rule([IS_CLAIM], Verdict::Drop),
        Rule { matches: [answer, learn].concat(), verdict: Verdict::Accept },
    ]
}
