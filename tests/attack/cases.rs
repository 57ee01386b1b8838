//! All frames, and the parties that they may reach.

use std::net::Ipv4Addr;

use crate::arena::Party::{
    self, Asker, Attacker, Fresh, Host, Left, Other, Right, Server, Stranger, Trusted, Victim,
    Wire, World,
};
use crate::arena::{
    Case, Cast, GATEWAY, LAB_GATEWAY, LISTED, METADATA, MOVABLE_IP, OTHER_IP, UNLISTED, UPLINK_IP,
    lab_gateway6, link_local, mac_of,
};
use crate::frame::{
    ARP, ARP_REPLY, ARP_REQUEST, BROADCAST, DHCP_DISCOVER, DHCP_OFFER, DHCP_RELEASE, IGMP, IPV4,
    IPV6, Mac, SERVICE_VLAN, Tag, VLAN, arp, dhcp, echo, ethernet, first_fragment, igmp_query,
    ipv4, llc, syn, tagged, udp, udp6,
};
use crate::{forged6, ipv6};

/// An address that nobody has.
const NOBODY_IP: Ipv4Addr = Ipv4Addr::new(10, 10, 99, 99);
const NOBODY_MAC: Mac = [0x02, 0, 0, 0, 0, 0x99];
/// Who else is on the default network, by its ports.
const ALL: &[Party] = &[Victim, Left, Right, Fresh, Trusted, Wire];

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let lists = [
        spoofing(),
        movable(),
        groups(),
        strange(),
        servers(),
        without_address(),
        leased_elsewhere(),
        ipv6::all(),
        forged6::all(),
        trusted(),
        isolation(),
        routes(),
        host(),
    ];
    lists.into_iter().flatten().collect()
}

pub(crate) fn case(
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

/// A question by ARP to everybody.
pub(crate) fn question(from: Party) -> Case {
    let ask = move |c: &Cast, tag: Tag| {
        let packet = arp(ARP_REQUEST, (c.mac(from), c.ip(from)), NOBODY_IP, &tag.text());
        ethernet(BROADCAST, c.mac(from), ARP, &packet)
    };
    case("a question", from, ask, &[])
}

/// A datagram from one to the other.
pub(crate) fn word(from: Party, to: Party) -> Case {
    case("a word", from, direct(from, to), &[])
}

/// The host alone.
pub(crate) const HOST: &[Party] = &[Host];

/// A datagram from a port of the attacker's to one that the host does not list.
pub(crate) fn answer(from: u16, to: &'static [Party]) -> Case {
    let answer = move |c: &Cast, tag: Tag| {
        let packet = udp((c.ip(Attacker), from), (GATEWAY, UNLISTED), &tag.text());
        ethernet(c.mac(Host), own(c), IPV4, &packet)
    };
    case("an answer", Attacker, answer, to)
}

/// Frames with another's source address.
fn spoofing() -> Vec<Case> {
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

/// Frames from an address that moves between those who may use it.
fn movable() -> Vec<Case> {
    let datagram = |from: Party, to: Party| {
        move |c: &Cast, tag: Tag| {
            let packet = udp((MOVABLE_IP, 9), (c.ip(to), 9), &tag.text());
            ethernet(c.mac(to), c.mac(from), IPV4, &packet)
        }
    };
    let announced = |from: Party, stated: Party| {
        move |c: &Cast, tag: Tag| {
            let packet = arp(ARP_REQUEST, (c.mac(stated), MOVABLE_IP), MOVABLE_IP, &tag.text());
            ethernet(BROADCAST, c.mac(from), ARP, &packet)
        }
    };
    vec![
        case("from an address that others may use", Attacker, datagram(Attacker, Wire), &[]),
        case(
            "ARP for an address that others may use",
            Attacker,
            announced(Attacker, Attacker),
            &[],
        ),
        case("an address that it may use", Victim, datagram(Victim, Attacker), &[Attacker]),
        case(
            "ARP for an address that it may use",
            Victim,
            announced(Victim, Victim),
            &[Attacker, Left, Right, Fresh, Trusted, Wire],
        ),
        case("the same of another", Left, datagram(Left, Wire), &[Wire]),
        case(
            "the same ARP of another",
            Left,
            announced(Left, Left),
            &[Attacker, Victim, Fresh, Trusted, Wire],
        ),
        case("the address in another's name", Victim, announced(Victim, Left), &[]),
        case("the address to an isolated one by the host", Left, to_right_by_host(), &[]),
    ]
}

/// From the address that moves to an isolated guest, by way of the host.
fn to_right_by_host() -> impl Fn(&Cast, Tag) -> Vec<u8> {
    |c, tag| {
        let packet = udp((MOVABLE_IP, 9), (c.ip(Right), 9), &tag.text());
        ethernet(c.mac(Host), c.mac(Left), IPV4, &packet)
    }
}

/// Frames to link-local groups: they must not carry packets past the rules, and the bridge must not
/// learn from them.
fn groups() -> Vec<Case> {
    let to_group = |last: u8| {
        case(
            "a datagram to a link-local group",
            Attacker,
            move |c, tag| {
                let packet = udp((c.ip(Victim), 9), (GATEWAY, LISTED), &tag.text());
                ethernet([0x01, 0x80, 0xc2, 0, 0, last], c.mac(Victim), IPV4, &packet)
            },
            &[],
        )
    };
    let own_to_group = |last: u8| {
        case(
            "a datagram of its own to a link-local group",
            Attacker,
            move |c, tag| {
                let packet = udp((c.ip(Attacker), 9), (GATEWAY, LISTED), &tag.text());
                ethernet([0x01, 0x80, 0xc2, 0, 0, last], own(c), IPV4, &packet)
            },
            &[],
        )
    };
    let mut cases: Vec<Case> = (0..16).map(to_group).chain((0..16).map(own_to_group)).collect();
    cases.push(case("the victim is where it was", Wire, direct(Wire, Victim), &[Victim]));
    cases
}

/// Frames from the attacker that are not plain IPv4 or ARP.
fn strange() -> Vec<Case> {
    const STP: Mac = [0x01, 0x80, 0xc2, 0, 0, 0];
    const CISCO: Mac = [0x01, 0, 0x0c, 0xcc, 0xcc, 0xcc];
    let plain = direct(Attacker, Victim);
    let mut cases = vec![
        case(
            "spanning tree",
            Attacker,
            |c, tag| llc(STP, own(c), [0x42, 0x42, 3], &tag.text()),
            &[],
        ),
        case(
            "spanning tree to one",
            Attacker,
            |c, tag| llc(c.mac(Victim), own(c), [0x42, 0x42, 3], &tag.text()),
            &[],
        ),
        case("SNAP", Attacker, |c, tag| llc(CISCO, own(c), [0xaa, 0xaa, 3], &tag.text()), &[]),
        case("a VLAN tag", Attacker, move |c, tag| tagged(VLAN, &plain(c, tag)), &[]),
        case(
            "a service VLAN tag",
            Attacker,
            |c, tag| tagged(SERVICE_VLAN, &direct(Attacker, Victim)(c, tag)),
            &[],
        ),
        case(
            "two VLAN tags",
            Attacker,
            |c, tag| tagged(SERVICE_VLAN, &tagged(VLAN, &direct(Attacker, Victim)(c, tag))),
            &[],
        ),
        case(
            "a VLAN tag for the host",
            Attacker,
            |c, tag| {
                let packet = udp((c.ip(Attacker), 9), (GATEWAY, LISTED), &tag.text());
                tagged(VLAN, &ethernet(c.mac(Host), own(c), IPV4, &packet))
            },
            &[],
        ),
        case(
            "a membership query",
            Attacker,
            |c, tag| {
                let query = igmp_query(&tag.text());
                let all = Ipv4Addr::new(224, 0, 0, 1);
                let packet = ipv4(c.ip(Attacker), all, IGMP, &query);
                ethernet([0x01, 0, 0x5e, 0, 0, 1], own(c), IPV4, &packet)
            },
            &[],
        ),
    ];
    // Nothing, the loopback of Ethernet, RARP, AppleTalk, PPPoE, 802.1X, AoE, LLDP, PTP, nothing.
    for kind in [0, 0x0060, 0x9000, 0x8035, 0x809b, 0x8863, 0x888e, 0x88a2, 0x88cc, 0x88f7, 0xffff]
    {
        cases.push(case(
            "an EtherType that is neither",
            Attacker,
            move |c, tag| ethernet(c.mac(Victim), own(c), kind, &tag.text()),
            &[],
        ));
    }
    // Hardware, protocol, and the lengths of their addresses, each wrong by itself.
    for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16)] {
        cases.push(case(
            "ARP of another kind",
            Attacker,
            move |c, tag| {
                let sender = (own(c), c.ip(Attacker));
                let mut packet = arp(ARP_REQUEST, sender, NOBODY_IP, &tag.text());
                packet[at] = value;
                ethernet(BROADCAST, own(c), ARP, &packet)
            },
            &[],
        ));
    }
    cases
}

/// An offer of DHCP to a guest that asks, by whom.
fn offer(
    from: impl Fn(&Cast) -> (Mac, Ipv4Addr) + 'static,
    to: impl Fn(&Cast) -> Mac + 'static,
    client: Party,
    yours: impl Fn(&Cast) -> Ipv4Addr + 'static,
) -> impl Fn(&Cast, Tag) -> Vec<u8> {
    move |c, tag| {
        let ((mac, ip), message) =
            (from(c), dhcp(DHCP_OFFER, c.mac(client), yours(c), &tag.text()));
        let packet = udp((ip, 67), (Ipv4Addr::BROADCAST, 68), &message);
        ethernet(to(c), mac, IPV4, &packet)
    }
}

/// Messages that only servers and routers may send.
fn servers() -> Vec<Case> {
    let attacker = |c: &Cast| (own(c), c.ip(Attacker));
    let anywhere = |_: &Cast| NOBODY_IP;
    vec![
        case("an offer to all", Attacker, offer(attacker, |_| BROADCAST, Fresh, anywhere), &[]),
        case("an offer to one", Attacker, offer(attacker, |c| c.mac(Fresh), Fresh, anywhere), &[]),
        case(
            "an offer in the host's name",
            Attacker,
            offer(|c| (own(c), GATEWAY), |c| c.mac(Fresh), Fresh, anywhere),
            &[],
        ),
        case(
            "an offer from no server's port",
            Attacker,
            |c, tag| {
                let message = dhcp(DHCP_OFFER, c.mac(Fresh), NOBODY_IP, &tag.text());
                let packet = udp((c.ip(Attacker), 9), (Ipv4Addr::BROADCAST, 68), &message);
                ethernet(c.mac(Fresh), own(c), IPV4, &packet)
            },
            &[],
        ),
        case(
            "the first fragment of an offer",
            Attacker,
            |c, tag| {
                let message = [&tag.text()[..], &[0; 300]].concat();
                let packet = udp((c.ip(Attacker), 67), (Ipv4Addr::BROADCAST, 68), &message);
                ethernet(BROADCAST, own(c), IPV4, &first_fragment(&packet, 64))
            },
            &[],
        ),
        case(
            "a release of another's lease",
            Attacker,
            |c, tag| {
                let message = dhcp(DHCP_RELEASE, c.mac(Victim), Ipv4Addr::UNSPECIFIED, &tag.text());
                let packet = udp((c.ip(Attacker), 68), (c.ip(Wire), 67), &message);
                ethernet(c.mac(Wire), own(c), IPV4, &packet)
            },
            &[],
        ),
        case(
            "the same in fragments",
            Attacker,
            |c, tag| {
                let message = [&tag.text()[..], &[0; 300]].concat();
                let packet = udp((c.ip(Attacker), 68), (c.ip(Wire), 67), &message);
                ethernet(c.mac(Wire), own(c), IPV4, &first_fragment(&packet, 32))
            },
            &[],
        ),
        case(
            "a release of its own",
            Attacker,
            |c, tag| {
                let message = dhcp(DHCP_RELEASE, own(c), Ipv4Addr::UNSPECIFIED, &tag.text());
                let packet = udp((c.ip(Attacker), 68), (c.ip(Wire), 67), &message);
                ethernet(c.mac(Wire), own(c), IPV4, &packet)
            },
            &[Wire],
        ),
        case(
            "an offer from the wire",
            Wire,
            offer(|c| (c.mac(Wire), c.ip(Wire)), |c| c.mac(Fresh), Fresh, anywhere),
            &[Fresh],
        ),
    ]
}

/// A guest that has no address yet.
fn without_address() -> Vec<Case> {
    const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
    const OTHERS: &[Party] = &[Attacker, Victim, Left, Right, Trusted, Wire];
    let asks = |from: (Ipv4Addr, u16), to: u16, client: Party| {
        move |c: &Cast, tag: Tag| {
            let message = dhcp(DHCP_DISCOVER, c.mac(client), NONE, &tag.text());
            let packet = udp(from, (Ipv4Addr::BROADCAST, to), &message);
            ethernet(BROADCAST, c.mac(Fresh), IPV4, &packet)
        }
    };
    let probe = |sender: Party| {
        move |c: &Cast, tag: Tag| {
            let packet = arp(ARP_REQUEST, (c.mac(sender), NONE), NOBODY_IP, &tag.text());
            ethernet(BROADCAST, c.mac(Fresh), ARP, &packet)
        }
    };
    vec![
        case("it asks by DHCP", Fresh, asks((NONE, 68), 67, Fresh), OTHERS),
        case("it asks for another", Fresh, asks((NONE, 68), 67, Victim), &[]),
        case("it asks from a wrong port", Fresh, asks((NONE, 1068), 67, Fresh), &[]),
        case("it asks on a wrong port", Fresh, asks((NONE, 68), LISTED, Fresh), &[]),
        case("it asks with an address", Fresh, asks((NOBODY_IP, 68), 67, Fresh), &[]),
        case("it asks by ARP who has one", Fresh, probe(Fresh), OTHERS),
        case("it asks so for another", Fresh, probe(Victim), &[]),
        case(
            "it says by ARP that it has one",
            Fresh,
            |c, tag| {
                let packet = arp(ARP_REQUEST, (c.mac(Fresh), NOBODY_IP), NOBODY_IP, &tag.text());
                ethernet(BROADCAST, c.mac(Fresh), ARP, &packet)
            },
            &[],
        ),
        case(
            "it takes an address",
            Fresh,
            |c, tag| {
                let packet = udp((NOBODY_IP, 9), (c.ip(Victim), 9), &tag.text());
                ethernet(c.mac(Victim), c.mac(Fresh), IPV4, &packet)
            },
            &[],
        ),
        case(
            "a datagram from no address",
            Attacker,
            |c, tag| {
                let packet = udp((NONE, 9), (c.ip(Victim), 9), &tag.text());
                ethernet(c.mac(Victim), own(c), IPV4, &packet)
            },
            &[],
        ),
    ]
}

/// How many addresses [`leased_elsewhere`] has given to guests that may use them.
pub(crate) const LEASES: usize = 2;

/// Guests whose addresses are given by a server that is not volnet's: they have what it gave them.
fn leased_elsewhere() -> Vec<Case> {
    let address = |last: u8| move |c: &Cast| Ipv4Addr::new(10, 20, 100 + c.time, last);
    let server = |c: &Cast| (c.mac(Server), c.ip(Server));
    let uses = |who: Party, last: u8| {
        move |c: &Cast, tag: Tag| {
            let packet = udp((address(last)(c), 9), (c.ip(Stranger), 9), &tag.text());
            ethernet(c.mac(Stranger), c.mac(who), IPV4, &packet)
        }
    };
    let says = |who: Party, last: u8| {
        move |c: &Cast, tag: Tag| {
            let packet = arp(ARP_REPLY, (c.mac(who), address(last)(c)), GATEWAY, &tag.text());
            ethernet(c.mac(Stranger), c.mac(who), ARP, &packet)
        }
    };
    let asks = |c: &Cast, tag: Tag| {
        let none = Ipv4Addr::UNSPECIFIED;
        let message = dhcp(DHCP_DISCOVER, c.mac(Asker), none, &tag.text());
        let packet = udp((none, 68), (Ipv4Addr::BROADCAST, 67), &message);
        ethernet(BROADCAST, c.mac(Asker), IPV4, &packet)
    };
    let to_asker = |c: &Cast| c.mac(Asker);
    let everybody = |_: &Cast| BROADCAST;
    vec![
        case("before it was given one", Asker, uses(Asker, 50), &[]),
        case("it asks", Asker, asks, &[Server, Stranger, Other, Host]),
        case("it is given one", Server, offer(server, to_asker, Asker, address(50)), &[Asker]),
        case("it uses it", Asker, uses(Asker, 50), &[Stranger]),
        case("it says so by ARP", Asker, says(Asker, 50), &[Stranger]),
        case("it uses another", Asker, uses(Asker, 51), &[]),
        case("it says another by ARP", Asker, says(Asker, 51), &[]),
        case("another uses it", Other, uses(Other, 50), &[]),
        case("another says so by ARP", Other, says(Other, 50), &[]),
        case(
            "all hear what one is given",
            Server,
            offer(server, everybody, Other, address(60)),
            &[Asker, Other, Stranger],
        ),
        case("he uses it", Other, uses(Other, 60), &[Stranger]),
        case("nobody else does", Asker, uses(Asker, 60), &[]),
        case(
            "an offer from another network",
            Server,
            offer(|c| (c.mac(Server), c.ip(World)), to_asker, Asker, address(70)),
            &[Asker],
        ),
        case("it is not believed", Asker, uses(Asker, 70), &[]),
        case(
            "an offer by a guest",
            Stranger,
            offer(|c| (c.mac(Stranger), c.ip(Stranger)), to_asker, Asker, address(80)),
            &[],
        ),
        case("it is not believed either", Asker, uses(Asker, 80), &[]),
    ]
}

/// A guest with `antispoof: false` may be a router, a server or a bridge. The host is as closed to
/// it as to others.
fn trusted() -> Vec<Case> {
    let trusted = |c: &Cast| (c.mac(Trusted), c.ip(Trusted));
    vec![
        case(
            "trusted: another's addresses",
            Trusted,
            |c, tag| {
                let packet = udp((NOBODY_IP, 9), (c.ip(Victim), 9), &tag.text());
                ethernet(c.mac(Victim), NOBODY_MAC, IPV4, &packet)
            },
            &[Victim],
        ),
        case(
            "trusted: an offer",
            Trusted,
            offer(trusted, |c| c.mac(Fresh), Fresh, |_| NOBODY_IP),
            &[Fresh],
        ),
        case(
            "trusted: a VLAN tag",
            Trusted,
            |c, tag| tagged(VLAN, &direct(Trusted, Victim)(c, tag)),
            &[Victim],
        ),
        case(
            "trusted: what the host does not list",
            Trusted,
            |c, tag| {
                let packet = udp((c.ip(Trusted), 9), (GATEWAY, UNLISTED), &tag.text());
                ethernet(c.mac(Host), c.mac(Trusted), IPV4, &packet)
            },
            &[],
        ),
    ]
}

/// Isolated guests, directly and by way of the gateway.
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

/// Routed packets: to the world, but not to other networks.
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

/// Packets from a guest to the host.
fn host() -> Vec<Case> {
    let ping = |from: Party, bridge: &'static str, ip: Ipv4Addr| {
        move |c: &Cast, tag: Tag| {
            let packet = echo(c.ip(from), ip, &tag.text());
            ethernet(mac_of(bridge), c.mac(from), IPV4, &packet)
        }
    };
    let send = |from: Party, ip: Ipv4Addr, port: u16, mac: fn(&Cast) -> Mac| {
        move |c: &Cast, tag: Tag| {
            let packet = udp((c.ip(from), 9), (ip, port), &tag.text());
            ethernet(mac(c), c.mac(from), IPV4, &packet)
        }
    };
    let connect = |port: u16| {
        move |c: &Cast, tag: Tag| {
            let packet = syn(c.ip(Attacker), (GATEWAY, port), tag);
            ethernet(c.mac(Host), own(c), IPV4, &packet)
        }
    };
    let host = |c: &Cast| c.mac(Host);
    let broadcast = |_: &Cast| BROADCAST;
    const WITH_HOST: &[Party] = &[Victim, Left, Right, Fresh, Trusted, Wire, Host];
    vec![
        case("ping", Attacker, ping(Attacker, "vbr0", GATEWAY), &[Attacker]),
        case("ping on the lab", Stranger, ping(Stranger, "vbr1", LAB_GATEWAY), &[Stranger]),
        case("ping its other bridge", Attacker, ping(Attacker, "vbr0", LAB_GATEWAY), &[]),
        case("ping its uplink", Attacker, ping(Attacker, "vbr0", UPLINK_IP), &[]),
        case("ping its link-local address", Attacker, ping(Attacker, "vbr0", OTHER_IP), &[]),
        case("a port that is listed", Attacker, send(Attacker, GATEWAY, LISTED, host), &[Host]),
        case("a connection to it", Attacker, connect(LISTED), &[Attacker]),
        case("a port that is not", Attacker, send(Attacker, GATEWAY, UNLISTED, host), &[]),
        case("a connection to that", Attacker, connect(UNLISTED), &[]),
        case("the DHCP server's port", Attacker, send(Attacker, GATEWAY, 67, host), &[]),
        case(
            "a listed port of its other bridge",
            Attacker,
            send(Attacker, LAB_GATEWAY, LISTED, host),
            &[],
        ),
        case("a listed port of its uplink", Attacker, send(Attacker, UPLINK_IP, LISTED, host), &[]),
        case(
            "a port that is listed elsewhere",
            Stranger,
            send(Stranger, LAB_GATEWAY, LISTED, |_| mac_of("vbr1")),
            &[],
        ),
        case(
            "a listed port of everybody",
            Attacker,
            send(Attacker, Ipv4Addr::BROADCAST, LISTED, broadcast),
            WITH_HOST,
        ),
        case(
            "a port of everybody",
            Attacker,
            send(Attacker, Ipv4Addr::BROADCAST, UNLISTED, broadcast),
            ALL,
        ),
        case("a port, from the wire", Wire, send(Wire, GATEWAY, UNLISTED, host), &[Host]),
        case(
            "a port, from the world",
            World,
            send(World, UPLINK_IP, UNLISTED, |c| c.mac(World)),
            &[Host],
        ),
    ]
}

/// The protection without rules for bridges: the host is closed to everybody on its bridges, and
/// the networks are kept apart.
pub(crate) fn without_antispoof() -> Vec<Case> {
    let send = |from: Party, ip: Ipv4Addr, port: u16| {
        move |c: &Cast, tag: Tag| {
            let packet = udp((c.ip(from), 9), (ip, port), &tag.text());
            ethernet(c.mac(Host), c.mac(from), IPV4, &packet)
        }
    };
    vec![
        case(
            "another's addresses",
            Attacker,
            |c, tag| {
                let packet = udp((NOBODY_IP, 9), (c.ip(Victim), 9), &tag.text());
                ethernet(c.mac(Victim), NOBODY_MAC, IPV4, &packet)
            },
            &[Victim],
        ),
        case("a port that is listed", Attacker, send(Attacker, GATEWAY, LISTED), HOST),
        case("a port that is not", Attacker, send(Attacker, GATEWAY, UNLISTED), &[]),
        case("one of its uplink", Attacker, send(Attacker, UPLINK_IP, LISTED), &[]),
        case("a port, from the wire", Wire, send(Wire, GATEWAY, UNLISTED), &[]),
        case("to another network", Attacker, routed(Attacker, "vbr0", Stranger), &[]),
        case(
            "a port by IPv6",
            Stranger,
            |c, tag| {
                let to = (lab_gateway6(), UNLISTED);
                let packet = udp6((link_local(c.mac(Stranger)), 9), to, &tag.text());
                ethernet(mac_of("vbr1"), c.mac(Stranger), IPV6, &packet)
            },
            &[],
        ),
    ]
}
