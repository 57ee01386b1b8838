//! Every frame that is tried, and whom it may reach.

use std::net::Ipv4Addr;

use crate::arena::Party::{self, Attacker, Host, Left, Right, Stranger, Victim, Wire, World};
use crate::arena::{Case, Cast, GATEWAY, mac_of};
use crate::frame::{
    ARP, ARP_REPLY, ARP_REQUEST, BROADCAST, IPV4, Mac, Tag, arp, echo, ethernet, udp,
};

/// An address that nobody has.
const NOBODY_IP: Ipv4Addr = Ipv4Addr::new(10, 10, 99, 99);
const NOBODY_MAC: Mac = [0x02, 0, 0, 0, 0, 0x99];
/// Where clouds hand out credentials.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [spoofing(), groups(), isolation(), routes(), host()].into_iter().flatten().collect()
}

fn case(
    name: &'static str,
    from: Party,
    frame: impl Fn(&Cast, Tag) -> Vec<u8> + 'static,
    to: &'static [Party],
) -> Case {
    Case { name, from, frame: Box::new(frame), to }
}

/// A datagram from one to the other, as both are, sent to an Ethernet address.
fn datagram(cast: &Cast, from: Party, ip: Ipv4Addr, mac: Mac, tag: Tag) -> Vec<u8> {
    let packet = udp((cast.ip(from), 9), (ip, 9), &tag.text());
    ethernet(mac, cast.mac(from), IPV4, &packet)
}

fn direct(from: Party, to: Party) -> impl Fn(&Cast, Tag) -> Vec<u8> {
    move |cast, tag| datagram(cast, from, cast.ip(to), cast.mac(to), tag)
}

/// By way of the host.
fn routed(from: Party, bridge: &'static str, to: Party) -> impl Fn(&Cast, Tag) -> Vec<u8> {
    move |cast, tag| datagram(cast, from, cast.ip(to), mac_of(bridge), tag)
}

/// A frame of the attacker's to everybody, from this Ethernet address.
fn shout(
    from: impl Fn(&Cast) -> Mac + 'static,
    kind: u16,
    payload: impl Fn(&Cast, Tag) -> Vec<u8> + 'static,
) -> impl Fn(&Cast, Tag) -> Vec<u8> {
    move |cast, tag| ethernet(BROADCAST, from(cast), kind, &payload(cast, tag))
}

fn own(cast: &Cast) -> Mac {
    cast.mac(Attacker)
}

/// Frames that say they come from somebody else.
fn spoofing() -> Vec<Case> {
    const ALL: &[Party] = &[Victim, Left, Right, Wire];
    let ask = |sender: fn(&Cast) -> (Mac, Ipv4Addr)| {
        move |cast: &Cast, tag: Tag| arp(ARP_REQUEST, sender(cast), NOBODY_IP, &tag.text())
    };
    vec![
        case("a datagram", Attacker, direct(Attacker, Victim), &[Victim]),
        case(
            "a question by ARP",
            Attacker,
            shout(own, ARP, ask(|c| (own(c), c.ip(Attacker)))),
            ALL,
        ),
        case(
            "an answer by ARP",
            Attacker,
            |c, tag| {
                let answer = arp(ARP_REPLY, (own(c), c.ip(Attacker)), c.ip(Victim), &tag.text());
                ethernet(c.mac(Victim), own(c), ARP, &answer)
            },
            &[Victim],
        ),
        case(
            "another's Ethernet address",
            Attacker,
            |c, tag| {
                let packet = udp((c.ip(Attacker), 9), (c.ip(Victim), 9), &tag.text());
                ethernet(c.mac(Victim), c.mac(Left), IPV4, &packet)
            },
            &[],
        ),
        case(
            "the host's Ethernet address",
            Attacker,
            |c, tag| {
                let packet = udp((c.ip(Attacker), 9), (c.ip(Victim), 9), &tag.text());
                ethernet(c.mac(Victim), c.mac(Host), IPV4, &packet)
            },
            &[],
        ),
        case(
            "an Ethernet address that nobody has",
            Attacker,
            |c, tag| {
                let packet = udp((c.ip(Attacker), 9), (c.ip(Victim), 9), &tag.text());
                ethernet(c.mac(Victim), NOBODY_MAC, IPV4, &packet)
            },
            &[],
        ),
        case(
            "another's IPv4 address",
            Attacker,
            |c, tag| {
                let packet = udp((c.ip(Left), 9), (c.ip(Victim), 9), &tag.text());
                ethernet(c.mac(Victim), own(c), IPV4, &packet)
            },
            &[],
        ),
        case(
            "an IPv4 address that nobody has, to the world",
            Attacker,
            |c, tag| {
                let packet = udp((NOBODY_IP, 9), (c.ip(World), 9), &tag.text());
                ethernet(c.mac(Host), own(c), IPV4, &packet)
            },
            &[],
        ),
        case("ARP for another", Attacker, shout(own, ARP, ask(|c| (own(c), c.ip(Victim)))), &[]),
        case("ARP for the gateway", Attacker, shout(own, ARP, ask(|c| (own(c), GATEWAY))), &[]),
        case(
            "ARP in another's name",
            Attacker,
            shout(own, ARP, ask(|c| (c.mac(Victim), c.ip(Attacker)))),
            &[],
        ),
        case(
            "ARP in another's frame",
            Attacker,
            shout(|c| c.mac(Victim), ARP, ask(|c| (own(c), c.ip(Attacker)))),
            &[],
        ),
    ]
}

/// Frames to the groups that a bridge takes aside: they must not carry packets past the rules, nor
/// teach the bridge where somebody is.
fn groups() -> Vec<Case> {
    let to_group = |last: u8| {
        case(
            "a datagram to a link-local group",
            Attacker,
            move |c, tag| {
                let packet = udp((c.ip(Victim), 9), (GATEWAY, 7777), &tag.text());
                ethernet([0x01, 0x80, 0xc2, 0, 0, last], c.mac(Victim), IPV4, &packet)
            },
            &[],
        )
    };
    let mut cases: Vec<Case> = (0..16).map(to_group).collect();
    cases.push(case("the victim is where it was", Wire, direct(Wire, Victim), &[Victim]));
    cases
}

/// Isolated guests, on the straight way and by way of the gateway.
fn isolation() -> Vec<Case> {
    vec![
        case("isolated to isolated", Left, direct(Left, Right), &[]),
        case("the same by the gateway", Left, routed(Left, "vbr0", Right), &[]),
        case("and back", Right, routed(Right, "vbr0", Left), &[]),
        case("isolated to another", Left, direct(Left, Attacker), &[Attacker]),
        case("another to isolated", Attacker, direct(Attacker, Left), &[Left]),
        case("isolated to the world", Left, routed(Left, "vbr0", World), &[World]),
        case(
            "the host to isolated",
            Left,
            |c, tag| {
                ethernet(c.mac(Host), c.mac(Left), IPV4, &echo(c.ip(Left), GATEWAY, &tag.text()))
            },
            &[Left],
        ),
    ]
}

/// What is routed: to the world, and not to other networks.
fn routes() -> Vec<Case> {
    vec![
        case("to the world", Attacker, routed(Attacker, "vbr0", World), &[World]),
        case("to the world, not NATed", Stranger, routed(Stranger, "vbr1", World), &[World]),
        case("to another network", Attacker, routed(Attacker, "vbr0", Stranger), &[]),
        case("and back", Stranger, routed(Stranger, "vbr1", Attacker), &[]),
        case(
            "to the metadata of the cloud",
            Attacker,
            |c, tag| datagram(c, Attacker, METADATA, c.mac(Host), tag),
            &[],
        ),
        case(
            "to the metadata of the cloud, not NATed",
            Stranger,
            |c, tag| datagram(c, Stranger, METADATA, mac_of("vbr1"), tag),
            &[],
        ),
        case("from the world to a NATed guest", World, direct_in(Victim), &[]),
        case("from the world to a routed one", World, direct_in(Stranger), &[Stranger]),
    ]
}

/// From the world to a guest whose address it knows.
fn direct_in(to: Party) -> impl Fn(&Cast, Tag) -> Vec<u8> {
    move |cast, tag| {
        let packet = udp((cast.ip(World), 9), (cast.ip(to), 9), &tag.text());
        ethernet(cast.mac(World), NOBODY_MAC, IPV4, &packet)
    }
}

/// What the host is asked by a guest.
fn host() -> Vec<Case> {
    let ping = |ip: Ipv4Addr| {
        move |c: &Cast, tag: Tag| {
            ethernet(c.mac(Host), own(c), IPV4, &echo(c.ip(Attacker), ip, &tag.text()))
        }
    };
    vec![case("ping", Attacker, ping(GATEWAY), &[Attacker])]
}
