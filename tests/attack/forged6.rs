//! Frames of IPv6 in the name of the router and of nobodies, behind one header after another, and
//! to the world.

use std::net::Ipv6Addr;

use crate::arena::Party::{self, Asker, Stranger, World};
use crate::arena::{
    Case, Cast, METADATA6, WORLD_IP6, global, lab_address6, lab_gateway6, link_local, mac_of,
};
use crate::cases::case;
use crate::frame::{IPV6, Mac, Tag, ethernet, icmp6, udp6};
use crate::ipv6::{
    ADVERTISEMENT, DESTINATION, ECHO6, HOP_BY_HOP, REDIRECT6, ROUTER, SOLICITATION, about, behind,
    option,
};

/// More headers of IPv6 before others: routing (RFC 8200, 4.4), and authentication (RFC 4302).
const ROUTING: u8 = 43;
const AUTHENTICATION: u8 = 51;
/// How many addresses a guest tries.
const HUNDREDS: u16 = 300;

type By = fn(&Cast) -> Ipv6Addr;
const OWN: By = |c| global(c.mac(Stranger));
const ROUTERS: By = |_| lab_gateway6();
const NOBODY: By = |_| Ipv6Addr::UNSPECIFIED;

pub(crate) fn all() -> Vec<Case> {
    let mut cases = discovery();
    cases.extend(headers());
    cases.extend(routes());
    cases
}

/// Neighbour discovery of the stranger to one guest alone. The tag is in the reserved bytes.
fn says(kind: u8, from: By, target: By, with_option: bool) -> impl Fn(&Cast, Tag) -> Vec<u8> {
    move |c, tag| {
        let of_kind = if kind == SOLICITATION { 1 } else { 2 };
        let own = if with_option { option(of_kind, c.mac(Stranger)) } else { Vec::new() };
        let body = [&[0, 0], &tag.0.to_be_bytes()[..], &about(target(c), own)[4..]].concat();
        to_asker(c, from(c), kind, &body)
    }
}

fn to_asker(c: &Cast, from: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let to: Mac = c.mac(Asker);
    ethernet(to, c.mac(Stranger), IPV6, &icmp6(from, global(to), kind, body))
}

/// Between the router and a guest, in both directions.
fn discovery() -> Vec<Case> {
    let asks = |from, target| says(SOLICITATION, from, target, true);
    let tells = |from, target| says(ADVERTISEMENT, from, target, true);
    let alone = |kind: u8| {
        move |c: &Cast, tag: Tag| {
            let body = [&[0; 4][..], &[0; 32], &tag.text()].concat();
            to_asker(c, OWN(c), kind, &body)
        }
    };
    vec![
        case("a question to one neighbour", Stranger, asks(OWN, ROUTERS), &[Asker]),
        case("an answer to one neighbour", Stranger, tells(OWN, OWN), &[Asker]),
        case("an answer for the router", Stranger, tells(OWN, ROUTERS), &[]),
        case("an answer in the router's name", Stranger, tells(ROUTERS, ROUTERS), &[]),
        case("the router's answer for a guest", Stranger, tells(ROUTERS, OWN), &[]),
        case("a question in the router's name", Stranger, asks(ROUTERS, OWN), &[]),
        case(
            "is the router's address a neighbour's",
            Stranger,
            says(SOLICITATION, NOBODY, ROUTERS, false),
            &[],
        ),
        case("an answer from no address", Stranger, tells(NOBODY, OWN), &[]),
        case("a router for one neighbour", Stranger, alone(ROUTER), &[]),
        case("a redirect for one neighbour", Stranger, alone(REDIRECT6), &[]),
    ]
}

/// One header after another hides nothing.
fn headers() -> Vec<Case> {
    let server = |port: u16| {
        move |c: &Cast, tag: Tag| {
            let (from, to) = ((OWN(c), port), (global(c.mac(Asker)), 9));
            ethernet(c.mac(Asker), c.mac(Stranger), IPV6, &udp6(from, to, &tag.text()))
        }
    };
    let message = |kind: u8| {
        move |c: &Cast, tag: Tag| {
            to_asker(c, OWN(c), kind, &[&[0; 4][..], &[0; 24], &tag.text()].concat())
        }
    };
    type Make = Box<dyn Fn(&Cast, Tag) -> Vec<u8>>;
    let after = |headers: &'static [u8], frame: Make| {
        move |c: &Cast, tag: Tag| {
            headers.iter().rev().fold(frame(c, tag), |frame, header| behind(*header, &frame))
        }
    };
    const TWO: &[u8] = &[HOP_BY_HOP, DESTINATION];
    const THREE: &[u8] = &[HOP_BY_HOP, DESTINATION, AUTHENTICATION];
    vec![
        case("an echo after two headers", Stranger, after(TWO, Box::new(message(ECHO6))), &[Asker]),
        case("a router after two headers", Stranger, after(TWO, Box::new(message(ROUTER))), &[]),
        case("a router after three", Stranger, after(THREE, Box::new(message(ROUTER))), &[]),
        case(
            "a router after authentication",
            Stranger,
            after(&[AUTHENTICATION], Box::new(message(ROUTER))),
            &[],
        ),
        case(
            "an answer after a routing header",
            Stranger,
            after(&[ROUTING], Box::new(says(ADVERTISEMENT, OWN, OWN, true))),
            &[],
        ),
        case(
            "a question after two headers",
            Stranger,
            after(TWO, Box::new(says(SOLICITATION, OWN, OWN, true))),
            &[],
        ),
        case("a DHCP server after three", Stranger, after(THREE, Box::new(server(547))), &[]),
        // For the rules, whatever is behind authentication is hidden.
        case("a datagram after three", Stranger, after(THREE, Box::new(server(9))), &[]),
        case("a datagram after two", Stranger, after(TWO, Box::new(server(9))), &[Asker]),
    ]
}

/// To the world and back, and where clouds hand out credentials.
fn routes() -> Vec<Case> {
    let out = |from: By, to: Ipv6Addr| {
        move |c: &Cast, tag: Tag| {
            let packet = udp6((from(c), 9), (to, 9), &tag.text());
            ethernet(mac_of("vbr1"), c.mac(Stranger), IPV6, &packet)
        }
    };
    let [aws, google] = METADATA6;
    let link_local: By = |c| link_local(c.mac(Stranger));
    let back = |to: fn(&Cast) -> Ipv6Addr| {
        move |c: &Cast, tag: Tag| {
            let packet = udp6((WORLD_IP6, 9), (to(c), 9), &tag.text());
            ethernet(c.mac(World), [0x02, 0, 0, 0, 0, 0x77], IPV6, &packet)
        }
    };
    vec![
        case("to the world by IPv6", Stranger, out(OWN, WORLD_IP6), &[World]),
        case("to the world from a link-local address", Stranger, out(link_local, WORLD_IP6), &[]),
        case("to the metadata of AWS by IPv6", Stranger, out(OWN, aws), &[]),
        case("to the metadata of Google by IPv6", Stranger, out(OWN, google), &[]),
        case("from the world by IPv6", World, back(OWN), &[Stranger]),
    ]
}

/// Hundreds of addresses of one guest: in packets, in questions from them, and whether they are a
/// neighbour's. All go to one neighbour, so the limit of storms has no part in it.
pub(crate) fn hundreds() -> Vec<Case> {
    const NO_ONE: &[Party] = &[];
    let of_number = |number: u16| {
        let packet = move |c: &Cast, tag: Tag| {
            let (from, to) = ((lab_address6(number), 9), (global(c.mac(Asker)), 9));
            ethernet(c.mac(Asker), c.mac(Stranger), IPV6, &udp6(from, to, &tag.text()))
        };
        let asks = move |unspecified: bool| {
            move |c: &Cast, tag: Tag| {
                let (own, target) = (lab_address6(number), global(c.mac(Asker)));
                let (from, target) =
                    if unspecified { (Ipv6Addr::UNSPECIFIED, own) } else { (own, target) };
                let about = about(target, Vec::new());
                let body = [&[0, 0], &tag.0.to_be_bytes()[..], &about[4..]].concat();
                to_asker(c, from, SOLICITATION, &body)
            }
        };
        [
            case("from one of hundreds", Stranger, packet, NO_ONE),
            case("a question from one of hundreds", Stranger, asks(false), NO_ONE),
            case("is one of hundreds a neighbour's", Stranger, asks(true), NO_ONE),
        ]
    };
    (0..HUNDREDS).flat_map(of_number).collect()
}
