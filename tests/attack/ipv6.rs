//! Frames of IPv6.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::arena::Party::{self, Asker, Attacker, Host, Other, Server, Stranger, Victim};
use crate::arena::{Case, Cast, UNLISTED, global, lab_gateway6, link_local, mac_of};
use crate::cases::case;
use crate::frame::{
    FRAGMENT, ICMP6, IGMP, IPV4, IPV6, Mac, Tag, UDP, ethernet, fragment6, icmp6, igmp_query,
    igmp_report, ipv4, udp6,
};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const TO_ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// Types of ICMPv6.
pub(crate) const ECHO6: u8 = 128;
const LISTENER_QUERY: u8 = 130;
const LISTENER_REPORT: u8 = 131;
const ROUTER_SOLICITATION: u8 = 133;
pub(crate) const ROUTER: u8 = 134;
pub(crate) const SOLICITATION: u8 = 135;
pub(crate) const ADVERTISEMENT: u8 = 136;
pub(crate) const REDIRECT6: u8 = 137;
/// Headers of IPv6 before others (RFC 8200).
pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const DESTINATION: u8 = 60;

/// The link-layer option of a source or a target (RFC 4861, 4.6.1).
pub(crate) fn option(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

/// A message of the stranger, to all nodes. The length of neighbour discovery counts: there the tag
/// is in the reserved bytes.
fn to_all(c: &Cast, tag: Tag, from: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let body = match kind {
        SOLICITATION | ADVERTISEMENT => [&[0, 0], &tag.0.to_be_bytes()[..], &body[4..]].concat(),
        _ => [body, &tag.text()].concat(),
    };
    ethernet(TO_ALL_NODES, c.mac(Stranger), IPV6, &icmp6(from, ALL_NODES, kind, &body))
}

/// Neighbour discovery: what follows the reserved bytes.
pub(crate) fn about(target: Ipv6Addr, option: Vec<u8>) -> Vec<u8> {
    [&[0; 4][..], &target.octets(), &option].concat()
}

/// The same message behind this header, which is eight bytes long.
pub(crate) fn behind(header: u8, frame: &[u8]) -> Vec<u8> {
    let (ether, packet) = frame.split_at(14);
    let mut packet = packet.to_vec();
    let length = u16::from_be_bytes([packet[4], packet[5]]) + 8;
    let next = std::mem::replace(&mut packet[6], header);
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    // Of a fragment: the first and last. Of options: four bytes of padding.
    let rest = if header == FRAGMENT { [0, 0, 0, 0, 0, 0, 7] } else { [0, 1, 4, 0, 0, 0, 0] };
    [ether, &packet[..40], &[next], &rest, &packet[40..]].concat()
}

pub(crate) fn all() -> Vec<Case> {
    let mut cases = ipv6_sources();
    cases.extend(discovery());
    cases.extend(router_solicitations());
    cases
}

/// General queries for the members of groups, as a router of multicast sends them.
pub(crate) fn queries(by: Party, to: &'static [Party]) -> [Case; 2] {
    const TO_ALL_SYSTEMS: Mac = [0x01, 0, 0x5e, 0, 0, 1];
    let of_ipv4 = move |c: &Cast, tag: Tag| {
        let (from, all) = (c.ip(by), Ipv4Addr::new(224, 0, 0, 1));
        let query = igmp_query(&[&[0; 4][..], &tag.text()].concat());
        ethernet(TO_ALL_SYSTEMS, c.mac(by), IPV4, &ipv4(from, all, IGMP, &query))
    };
    let of_ipv6 = move |c: &Cast, tag: Tag| {
        let (from, query) = (link_local(c.mac(by)), [&[0; 24][..], &tag.text()].concat());
        let query = icmp6(from, ALL_NODES, LISTENER_QUERY, &query);
        behind(HOP_BY_HOP, &ethernet(TO_ALL_NODES, c.mac(by), IPV6, &query))
    };
    [case("a membership query", by, of_ipv4, to), case("a listener query", by, of_ipv6, to)]
}

/// Somebody says that it listens to groups, each time to others.
pub(crate) fn reports(by: Party, to: &'static [Party]) -> [Case; 2] {
    let of_ipv4 = move |c: &Cast, tag: Tag| {
        let [high, low] = tag.0.to_be_bytes();
        let group = Ipv4Addr::new(239, 9, high, low);
        let report = ipv4(c.ip(by), group, IGMP, &igmp_report(group, &tag.text()));
        ethernet([0x01, 0, 0x5e, 9, high, low], c.mac(by), IPV4, &report)
    };
    let of_ipv6 = move |c: &Cast, tag: Tag| {
        let ([high, low], from) = (tag.0.to_be_bytes(), link_local(c.mac(by)));
        let group = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 9, tag.0);
        let body = [&[0; 4][..], &group.octets(), &tag.text()].concat();
        let report = icmp6(from, group, LISTENER_REPORT, &body);
        behind(HOP_BY_HOP, &ethernet([0x33, 0x33, 0, 9, high, low], c.mac(by), IPV6, &report))
    };
    [case("a membership report", by, of_ipv4, to), case("a listener report", by, of_ipv6, to)]
}

/// Whose name a guest uses in packets of IPv6.
fn ipv6_sources() -> Vec<Case> {
    type By = fn(&Cast) -> Ipv6Addr;
    let to_asker = |from: By, port: u16| {
        move |c: &Cast, tag: Tag| {
            let packet = udp6((from(c), port), (link_local(c.mac(Asker)), 9), &tag.text());
            ethernet(c.mac(Asker), c.mac(Stranger), IPV6, &packet)
        }
    };
    let to_host = |port: u16| {
        move |c: &Cast, tag: Tag| {
            let from = (link_local(c.mac(Stranger)), 9);
            let packet = udp6(from, (lab_gateway6(), port), &tag.text());
            ethernet(mac_of("vbr1"), c.mac(Stranger), IPV6, &packet)
        }
    };
    let between = |from: Party, to: Party| {
        move |c: &Cast, tag: Tag| {
            let packet =
                udp6((link_local(c.mac(from)), 9), (link_local(c.mac(to)), 9), &tag.text());
            ethernet(c.mac(to), c.mac(from), IPV6, &packet)
        }
    };
    let own: By = |c| link_local(c.mac(Stranger));
    vec![
        case("without IPv6: a datagram", Attacker, between(Attacker, Victim), &[]),
        case("its link-local address", Stranger, to_asker(own, 9), &[Asker]),
        case("its address", Stranger, to_asker(|c| global(c.mac(Stranger)), 9), &[Asker]),
        case("another's link-local", Stranger, to_asker(|c| link_local(c.mac(Other)), 9), &[]),
        case("another's address", Stranger, to_asker(|c| global(c.mac(Other)), 9), &[]),
        case("the gateway's address", Stranger, to_asker(|_| lab_gateway6(), 9), &[]),
        case("nobody's address", Stranger, to_asker(|_| global([7; 6]), 9), &[]),
        case("no address", Stranger, to_asker(|_| Ipv6Addr::UNSPECIFIED, 9), &[]),
        case("a DHCP server by IPv6", Stranger, to_asker(own, 547), &[]),
        case(
            "an answer of DHCP by IPv6 from no server's port",
            Stranger,
            |c, tag| {
                let asker = (link_local(c.mac(Asker)), 546);
                let packet = udp6((link_local(c.mac(Stranger)), 9), asker, &tag.text());
                ethernet(c.mac(Asker), c.mac(Stranger), IPV6, &packet)
            },
            &[],
        ),
        case(
            "the same behind options",
            Stranger,
            move |c, tag| behind(DESTINATION, &to_asker(own, 547)(c, tag)),
            &[],
        ),
        case(
            "a datagram behind options",
            Stranger,
            move |c, tag| behind(DESTINATION, &to_asker(own, 9)(c, tag)),
            &[Asker],
        ),
        case(
            "IPv6 with another's Ethernet address",
            Stranger,
            |c, tag| {
                let packet =
                    udp6((link_local(c.mac(Other)), 9), (link_local(c.mac(Asker)), 9), &tag.text());
                ethernet(c.mac(Asker), c.mac(Other), IPV6, &packet)
            },
            &[],
        ),
        case("what the host lists, by IPv6", Stranger, to_host(67), &[Host]),
        case("what it does not, by IPv6", Stranger, to_host(UNLISTED), &[]),
    ]
}

/// An echo request of the stranger.
fn echoes(c: &Cast, tag: Tag) -> Vec<u8> {
    let (from, to) = (global(c.mac(Stranger)), global(c.mac(Asker)));
    let packet = icmp6(from, to, ECHO6, &[&[0; 4][..], &tag.text()].concat());
    ethernet(c.mac(Asker), c.mac(Stranger), IPV6, &packet)
}

/// Neighbour discovery in one's own name and in another's, routers, and headers that hide.
fn discovery() -> Vec<Case> {
    const LAB: &[Party] = &[Asker, Other, Server];
    type By = fn(&Cast) -> Ipv6Addr;
    type Option = fn(&Cast, u8) -> Vec<u8>;
    const OWN: By = |c| global(c.mac(Stranger));
    const THEIRS: By = |c| global(c.mac(Other));
    const NOBODY: By = |_| Ipv6Addr::UNSPECIFIED;
    const OWN_MAC: Option = |c, kind| option(kind, c.mac(Stranger));
    const THEIR_MAC: Option = |c, kind| option(kind, c.mac(Other));
    const NONE: Option = |_, _| Vec::new();
    let says = |kind: u8, from: By, target: By, of: Option| {
        let of_kind = if kind == SOLICITATION { 1 } else { 2 };
        move |c: &Cast, tag: Tag| to_all(c, tag, from(c), kind, &about(target(c), of(c, of_kind)))
    };
    let asks = |from, target, of| says(SOLICITATION, from, target, of);
    let tells = |from, target, of| says(ADVERTISEMENT, from, target, of);
    let other = |kind: u8| move |c: &Cast, tag: Tag| to_all(c, tag, OWN(c), kind, &[0; 24]);
    let hidden = |header: u8, kind: u8| {
        move |c: &Cast, tag: Tag| {
            behind(header, &to_all(c, tag, OWN(c), kind, &about(OWN(c), Vec::new())))
        }
    };
    vec![
        case("a question", Stranger, asks(OWN, THEIRS, OWN_MAC), LAB),
        case("a question without option", Stranger, asks(OWN, THEIRS, NONE), LAB),
        case("a question in another's name", Stranger, asks(THEIRS, OWN, OWN_MAC), &[]),
        case("a question with another's option", Stranger, asks(OWN, THEIRS, THEIR_MAC), &[]),
        case("is my address a neighbour's", Stranger, asks(NOBODY, OWN, NONE), LAB),
        case("that of another's address", Stranger, asks(NOBODY, THEIRS, NONE), &[]),
        case("an answer", Stranger, tells(OWN, OWN, OWN_MAC), LAB),
        case("an answer without option", Stranger, tells(OWN, OWN, NONE), LAB),
        case("an answer for another", Stranger, tells(OWN, THEIRS, OWN_MAC), &[]),
        case("an answer in another's name", Stranger, tells(THEIRS, THEIRS, OWN_MAC), &[]),
        case("an answer with another's option", Stranger, tells(OWN, OWN, THEIR_MAC), &[]),
        case(
            "an answer with a second option",
            Stranger,
            |c, tag| {
                let options = [OWN_MAC(c, 2), THEIR_MAC(c, 2)].concat();
                to_all(c, tag, OWN(c), ADVERTISEMENT, &about(OWN(c), options))
            },
            &[],
        ),
        case("an answer behind options", Stranger, hidden(DESTINATION, ADVERTISEMENT), &[]),
        case("an answer in a fragment", Stranger, hidden(FRAGMENT, ADVERTISEMENT), &[]),
        case("a question in a fragment", Stranger, hidden(FRAGMENT, SOLICITATION), &[]),
        case("a router", Stranger, other(ROUTER), &[]),
        case("a router behind options", Stranger, hidden(HOP_BY_HOP, ROUTER), &[]),
        case("a router in a fragment", Stranger, hidden(FRAGMENT, ROUTER), &[]),
        case("a redirect by IPv6", Stranger, other(REDIRECT6), &[]),
        case("a listener query", Stranger, other(LISTENER_QUERY), &[]),
        case("an echo", Stranger, echoes, &[Asker]),
        case("an echo in a fragment", Stranger, |c, t| behind(FRAGMENT, &echoes(c, t)), &[Asker]),
        case(
            "without IPv6: a question",
            Attacker,
            |c, tag| {
                let body = [&[0; 20][..], &tag.text()].concat();
                let packet = icmp6(link_local(c.mac(Attacker)), ALL_NODES, SOLICITATION, &body);
                ethernet(TO_ALL_NODES, c.mac(Attacker), IPV6, &packet)
            },
            &[],
        ),
        case(
            "a router on the wire",
            Server,
            |c, tag| {
                let body = [&[0; 12][..], &tag.text()].concat();
                let packet = icmp6(link_local(c.mac(Server)), ALL_NODES, ROUTER, &body);
                ethernet(TO_ALL_NODES, c.mac(Server), IPV6, &packet)
            },
            &[Asker, Other, Stranger],
        ),
    ]
}

/// Questions for a router. The host's own answers are no matter here.
fn router_solicitations() -> Vec<Case> {
    const LAB: &[Party] = &[Asker, Other, Server];
    type By = fn(&Cast) -> Ipv6Addr;
    type Options = fn(&Cast) -> Vec<u8>;
    const OWN: By = |c| link_local(c.mac(Stranger));
    const THEIRS: By = |c| link_local(c.mac(Other));
    const NOBODY: By = |_| Ipv6Addr::UNSPECIFIED;
    const OWN_MAC: Options = |c| option(1, c.mac(Stranger));
    const THEIR_MAC: Options = |c| option(1, c.mac(Other));
    const NONE: Options = |_| Vec::new();
    let asks = |from: By, options: Options| {
        move |c: &Cast, tag: Tag| {
            let body = [&[0, 0][..], &tag.0.to_be_bytes(), &options(c)].concat();
            let packet = icmp6(from(c), ALL_NODES, ROUTER_SOLICITATION, &body);
            ethernet(TO_ALL_NODES, c.mac(Stranger), IPV6, &packet)
        }
    };
    let twice: Options = |c| [OWN_MAC(c), THEIR_MAC(c)].concat();
    let hidden = |header: u8| move |c: &Cast, tag: Tag| behind(header, &asks(OWN, NONE)(c, tag));
    vec![
        case("who is my router", Stranger, asks(OWN, OWN_MAC), LAB),
        case("the same without option", Stranger, asks(OWN, NONE), LAB),
        case("the same without address", Stranger, asks(NOBODY, NONE), LAB),
        case("who is a router, by nobody with an option", Stranger, asks(NOBODY, OWN_MAC), &[]),
        case("who is another's router", Stranger, asks(THEIRS, OWN_MAC), &[]),
        case("the same without option", Stranger, asks(THEIRS, NONE), &[]),
        case("who is my router, with another's option", Stranger, asks(OWN, THEIR_MAC), &[]),
        case("the same with a second option", Stranger, asks(OWN, twice), &[]),
        case("who is my router, behind options", Stranger, hidden(DESTINATION), &[]),
        case("the same in a fragment", Stranger, hidden(FRAGMENT), &[]),
    ]
}

/// Fragments of IPv6: a first one shows what it is, and a later one goes with it.
pub(crate) fn fragments() -> Vec<Case> {
    type By = fn(&Cast) -> Ipv6Addr;
    const OWN: By = |c| global(c.mac(Stranger));
    const THEIRS: By = |c| global(c.mac(Other));
    let part = |from: By, header: u8, at: u16, shown: &'static [u8]| {
        move |c: &Cast, tag: Tag| {
            let bytes = [shown, &tag.text()].concat();
            let packet = fragment6((from(c), global(c.mac(Asker))), header, at, &bytes);
            ethernet(c.mac(Asker), c.mac(Stranger), IPV6, &packet)
        }
    };
    let first = |header, shown| part(OWN, header, 0, shown);
    let later = |from, header| part(from, header, 24, &[]);
    vec![
        case("an echo begins", Stranger, first(ICMP6, &[ECHO6, 0, 0, 0, 0, 0, 0, 0]), &[Asker]),
        case("ICMPv6 goes on", Stranger, later(OWN, ICMP6), &[Asker]),
        case("another's goes on", Stranger, later(THEIRS, ICMP6), &[]),
        // Neighbour discovery is never in fragments (RFC 6980).
        case("a router begins", Stranger, first(ICMP6, &[ROUTER, 0, 0, 0, 0, 0, 0, 0]), &[]),
        case("a redirect begins", Stranger, first(ICMP6, &[REDIRECT6, 0, 0, 0, 0, 0, 0, 0]), &[]),
        case(
            "a question begins",
            Stranger,
            first(ICMP6, &[SOLICITATION, 0, 0, 0, 0, 0, 0, 0]),
            &[],
        ),
        case(
            "an answer begins",
            Stranger,
            first(ICMP6, &[ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0]),
            &[],
        ),
        case(
            "a question for a router begins",
            Stranger,
            first(ICMP6, &[ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]),
            &[],
        ),
        case("a query begins", Stranger, first(ICMP6, &[LISTENER_QUERY, 0, 0, 0, 0, 0, 0, 0]), &[]),
        case("a datagram begins", Stranger, first(UDP, &[0, 9, 0, 9, 1, 0, 0, 0]), &[Asker]),
        case("UDP goes on", Stranger, later(OWN, UDP), &[Asker]),
        case("another's datagram goes on", Stranger, later(THEIRS, UDP), &[]),
        case("a DHCP server begins", Stranger, first(UDP, &[2, 35, 0, 9, 1, 0, 0, 0]), &[]),
        // Options fill the first fragment: the header before the text, its length, padding.
        case("a hidden type", Stranger, first(DESTINATION, &[58, 2, 1, 20, 0, 0, 0, 0]), &[]),
        case("hidden ports", Stranger, first(DESTINATION, &[17, 2, 1, 20, 0, 0, 0, 0]), &[]),
    ]
}
