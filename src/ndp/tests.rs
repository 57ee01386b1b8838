//! What guests ask and are told, and a capture of Linux.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::fuzz::{SERVER, advertising, ask, claim, host, read};
use super::{Advertisement, Claim, Solicitation};
use crate::model::lease::ADDRESS6_S;
use crate::model::mac::Mac;
use crate::model::net::Told;
use crate::model::spec::NetworkSpec;
use crate::packet::Malformed;
use crate::packet::v6::{self, ALL_NODES, ALL_ROUTERS, Content, Endpoints, Packet};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
/// No options, and the guest's Ethernet address.
const PLAIN: [u8; 4] = [0; 4];
const NAMED: [u8; 12] = [0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 9];

#[test]
fn a_guest_asks_with_and_without_an_address() {
    let own = MAC.link_local();
    for body in [&PLAIN[..], &NAMED, &[&NAMED[..], &[14, 1, 1, 2, 3, 4, 5, 6]].concat()] {
        let asked = Solicitation::read(&ask(MAC, own, body));
        assert_eq!(asked, Ok(Solicitation { mac: MAC, source: Some(own) }));
    }
    let none = Ipv6Addr::UNSPECIFIED;
    let asked = Solicitation::read(&ask(MAC, none, &PLAIN));
    assert_eq!(asked, Ok(Solicitation { mac: MAC, source: None }));
}

#[test]
fn what_a_host_would_not_accept_is_not_answered() {
    let (own, none) = (MAC.link_local(), Ipv6Addr::UNSPECIFIED);
    let refused = |frame: &[u8]| Solicitation::read(frame).unwrap_err();
    assert_eq!(refused(&ask(MAC, none, &NAMED)), Malformed::NotOurs, "an option of nobody");
    assert_eq!(refused(&ask(MAC, ALL_ROUTERS, &PLAIN)), Malformed::NotOurs);
    assert_eq!(refused(&ask(MAC, own, &PLAIN[..3])), Malformed::Cut);
    for options in [&[1][..], &[1, 0], &[1, 2, 0, 0, 0, 0, 0, 0], &[0; 8]] {
        let body = [&PLAIN, options].concat();
        assert_eq!(refused(&ask(MAC, own, &body)), Malformed::Cut, "{options:?}");
    }
    let addresses = Endpoints { from: MAC, to: MAC, source: own, destination: ALL_ROUTERS };
    let icmp = |kind, code| Content::Icmp { kind, code, body: &PLAIN };
    for (hop_limit, content) in [
        (254, icmp(133, 0)),
        (255, icmp(133, 1)),
        (255, icmp(134, 0)),
        (255, Content::Udp { source_port: 133, destination_port: 0, payload: &PLAIN }),
    ] {
        let frame = v6::build(&Packet { addresses, hop_limit, content });
        assert_eq!(refused(&frame), Malformed::NotOurs);
    }
}

#[test]
fn a_claim_is_of_the_target_of_nobody_and_of_whoever_asks() {
    let (own, target) = (MAC.link_local(), Ipv6Addr::from([0xfe; 16]));
    let read = |source, target| Claim::read(&claim(MAC, source, target));
    let (mac, none) = (MAC, Ipv6Addr::UNSPECIFIED);
    assert_eq!(read(none, target), Ok(Claim { mac, address: target, tentative: true }));
    assert_eq!(read(own, target), Ok(Claim { mac, address: own, tentative: false }));
    for (source, target) in [(none, none), (none, ALL_ROUTERS), (ALL_ROUTERS, target)] {
        assert_eq!(read(source, target), Err(Malformed::NotOurs), "{source} {target}");
    }
    let addresses = Endpoints { from: MAC, to: MAC, source: own, destination: ALL_ROUTERS };
    let of = |hop_limit, body: &[u8]| {
        let content = Content::Icmp { kind: 135, code: 0, body };
        Claim::read(&v6::build(&Packet { addresses, hop_limit, content }))
    };
    assert!(of(255, &[1; 20]).is_ok());
    assert_eq!(of(254, &[1; 20]), Err(Malformed::NotOurs));
    assert_eq!(of(255, &[1; 19]), Err(Malformed::Cut));
    assert_eq!(of(255, &[1; 22]), Err(Malformed::Cut), "half an option");
    assert_eq!(of(255, &[0; 28]), Err(Malformed::Cut), "an option of no length");
}

#[test]
fn a_guest_that_cannot_have_an_address_is_told_of_a_neighbour_that_has_it() {
    let (router, address) = (Mac([2, 0, 0, 0, 0, 1]), Ipv6Addr::from([0xfd; 16]));
    let frame = Claim { mac: MAC, address, tentative: true }.refusal(router);
    let packet = v6::parse(&frame).unwrap();
    let addresses =
        Endpoints { from: router, to: MAC, source: router.link_local(), destination: ALL_NODES };
    let body = [&[0x20, 0, 0, 0][..], &address.octets(), &[2, 1], &router.0].concat();
    let content = Content::Icmp { kind: 136, code: 0, body: &body };
    assert_eq!(packet, Packet { addresses, hop_limit: 255, content });
}

#[test]
fn a_guest_is_told_its_router_prefix_mtu_and_names() {
    let search = vec!["lan".into(), "eng.example.com".into()];
    let mut host = host(Told { search: search.clone(), ..Told::default() });
    let mac = host.create("a", NetworkSpec { mtu: Some(1400), ..NetworkSpec::default() });
    let guest = host.engine.guest("default", mac, None).unwrap();
    let servers = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(SERVER)];
    let (told, addresses) =
        read(&Advertisement::of(&guest, &servers).unwrap().frame(mac, Some(mac.link_local())));
    let router = guest.network.mac;
    let expected = Advertisement {
        router_s: 65_535,
        last: false,
        mac: router,
        mtu: 1400,
        prefix: "fd00:1:2:3::/64".parse().unwrap(),
        autonomous: true,
        prefix_s: ADDRESS6_S,
        names_s: 65_535,
        servers: vec![SERVER],
        search,
    };
    assert_eq!(told, expected);
    assert_eq!((addresses.from, addresses.source), (router, router.link_local()));
    assert_eq!((addresses.to, addresses.destination), (mac, mac.link_local()));
}

proptest! {
    #[test]
    fn an_advertisement_is_read_as_it_was_meant(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        advertising(&bytes);
    }
}
