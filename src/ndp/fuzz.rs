//! The other side of router advertisements, for fuzzing and tests: guests that read them.

use std::net::{IpAddr, Ipv6Addr};

use super::{Advertisement, Claim, HOP_LIMIT, Options, SOURCE_LINK_LAYER, Solicitation};
use crate::dhcp::fuzz::Host;
use crate::engine::claim::Claimed;
use crate::fuzz::Choices;
use crate::model::clock::Now;
use crate::model::lease::ADDRESS6_S;
use crate::model::mac::Mac;
use crate::model::net::{Ipv6Network, NetworkConfig, Told};
use crate::model::prefix::Prefix;
use crate::model::spec::NetworkSpec;
use crate::packet::Malformed;
use crate::packet::v6::{
    self, ALL_NODES, ALL_ROUTERS, Content, Endpoints, NEIGHBOUR_SOLICITATION, Packet,
    ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION,
};

/// The group of all neighbours whose address ends in the same 24 bits (RFC 4291, 2.7.1).
const SOLICITED_NODE: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
/// Who answers for names.
pub const SERVER: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 2, 3, 0, 0, 0, 1);

/// A host whose network has IPv6.
pub(crate) fn host(told: Told) -> Host {
    let prefix = Prefix::containing(SERVER, 64).expect("64 bits");
    let sample = NetworkConfig::sample("default", "vbr0", "192.168.127.0/24", "192.168.127.1");
    Host::on(NetworkConfig { told, ipv6: Some(Ipv6Network::new(prefix, true)), ..sample })
}

/// Reads the frame of an advertisement as a guest does, and gives the address that it goes to.
///
/// # Panics
///
/// If it is none that a guest accepts (RFC 4861, 6.1.2).
pub fn read(frame: &[u8]) -> (Advertisement, Endpoints) {
    let packet = v6::parse(frame).expect("a packet");
    let Content::Icmp { kind: ROUTER_ADVERTISEMENT, code: 0, body } = packet.content else {
        panic!("{packet:?}")
    };
    assert_eq!(packet.hop_limit, HOP_LIMIT);
    assert!(packet.addresses.source.is_unicast_link_local());
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    let (head, options) = body.split_at(12);
    assert!(head[0] > 0 && head[1] & 0xc0 == 0xc0 && head[4..] == [0; 8]);
    let mut told = Advertisement {
        router_s: u16::from_be_bytes([head[2], head[3]]),
        last: head[1] & 0x18 == 0x18,
        mac: Mac([0; 6]),
        mtu: 0,
        prefix: Prefix::containing(Ipv6Addr::UNSPECIFIED, 0).expect("no bits"),
        autonomous: false,
        prefix_s: 0,
        names_s: 0,
        servers: Vec::new(),
        search: Vec::new(),
    };
    for option in Options(options) {
        match option.expect("an option") {
            (SOURCE_LINK_LAYER, value) => told.mac = Mac(value.try_into().expect("six bytes")),
            (5, value) => told.mtu = number(&value[2..]).try_into().expect("an MTU"),
            (3, value) => {
                let network: [u8; 16] = value[14..].try_into().expect("an address");
                let prefix = Prefix::containing(Ipv6Addr::from(network), value[0]);
                assert_eq!((value[1] & 0xbf, &value[2..6]), (0x80, &value[6..10]));
                told.autonomous = value[1] & 0x40 != 0;
                (told.prefix, told.prefix_s) = (prefix.expect("a length"), number(&value[2..6]));
            }
            (25, value) => {
                let ips = value[6..].chunks(16).map(|ip| <[u8; 16]>::try_from(ip).expect("one"));
                told.servers = ips.map(Ipv6Addr::from).collect();
                told.names_s = number(&value[2..6]);
            }
            (31, value) => {
                told.search = domains(&value[6..]);
                told.names_s = number(&value[2..6]);
            }
            other => panic!("{other:?}"),
        }
    }
    (told, packet.addresses)
}

/// Reads a list of domains, which may be followed by zeros.
pub(crate) fn domains(mut list: &[u8]) -> Vec<String> {
    let (mut domains, mut labels) = (Vec::new(), Vec::new());
    while let Some((length, rest)) = list.split_first() {
        let (label, rest) = rest.split_at(usize::from(*length));
        list = rest;
        match label {
            [] if labels.is_empty() => break,
            [] => domains.push(std::mem::take(&mut labels).join(".")),
            label => labels.push(std::str::from_utf8(label).expect("text").to_owned()),
        }
    }
    assert!(labels.is_empty() && list.iter().all(|byte| *byte == 0));
    domains
}

/// The frame of a guest that asks for its router, with this after the checksum.
pub fn ask(mac: Mac, source: Ipv6Addr, body: &[u8]) -> Vec<u8> {
    v6::build(&Packet {
        addresses: Endpoints {
            from: mac,
            to: Mac([0x33, 0x33, 0, 0, 0, 2]),
            source,
            destination: ALL_ROUTERS,
        },
        hop_limit: HOP_LIMIT,
        content: Content::Icmp { kind: ROUTER_SOLICITATION, code: 0, body },
    })
}

/// The frame of a guest that asks from `source` whether a neighbour has this address.
pub fn claim(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let body = [&[0; 4][..], &target.octets()].concat();
    v6::build(&Packet {
        addresses: Endpoints {
            from: mac,
            to: Mac([0x33, 0x33, 0xff, a, b, c]),
            source,
            destination: Ipv6Addr::from_bits(SOLICITED_NODE | target.to_bits() & 0xff_ffff),
        },
        hop_limit: HOP_LIMIT,
        content: Content::Icmp { kind: NEIGHBOUR_SOLICITATION, code: 0, body: &body },
    })
}

/// Takes any bytes as a frame, and as the question of a guest. Makes an advertisement of them as
/// choices, which a guest must read as it was meant. The fuzzer and the test of its corpus call
/// this.
pub fn advertising(bytes: &[u8]) {
    let mut host = host(Told::default());
    let mac = host.create("a", NetworkSpec::default());
    check(&host, bytes);
    let body = bytes.get(..v6::BODY_MAX).unwrap_or(bytes);
    check(&host, &ask(mac, mac.link_local(), body));
    check(&host, &ask(mac, Ipv6Addr::UNSPECIFIED, body));
    if let Some((address, _)) = bytes.split_first_chunk::<16>() {
        claims(&mut host, &claim(mac, Ipv6Addr::UNSPECIFIED, Ipv6Addr::from(*address)));
    }
    claims(&mut host, bytes);

    let mut choices = Choices::new(bytes);
    let domain = |choices: &mut Choices<'_>| {
        let mut label = |most: u8| "a".repeat(1 + usize::from(choices.byte() % most));
        format!("{}.{}", label(63), label(20))
    };
    let mut told = Advertisement {
        router_s: u16::from_be_bytes(choices.array()),
        last: choices.flag(),
        mac: Mac(choices.array()),
        mtu: u16::from_be_bytes(choices.array()),
        prefix: Prefix::containing(choices.array().into(), choices.byte() % 129).expect("a length"),
        autonomous: choices.flag(),
        prefix_s: u32::from_be_bytes(choices.array()),
        names_s: u32::from_be_bytes(choices.array()),
        servers: (0..choices.byte() % 4).map(|_| choices.array().into()).collect(),
        search: (0..choices.byte() % 4).map(|_| domain(&mut choices)).collect(),
    };
    if told.servers.is_empty() && told.search.is_empty() {
        told.names_s = 0;
    }
    let (read, addresses) = read(&told.frame(mac, None));
    assert_eq!((&read, addresses.to, addresses.destination), (&told, mac, ALL_NODES));
}

/// A claim that is understood is of an address that a guest can have, and given or refused. Whoever
/// claims it once more has it.
fn claims(host: &mut Host, frame: &[u8]) {
    let Ok(claim) = Claim::read(frame) else { return };
    assert!(!claim.address.is_multicast() && !claim.address.is_unspecified());
    let engine = &mut host.engine;
    let mut ask = || engine.claim("default", claim.mac, claim.address, Now::default());
    if let Claimed::Given(_) = ask() {
        assert!(matches!(ask(), Claimed::Nothing));
    }
    let refusal = claim.refusal(claim.mac);
    let packet = v6::parse(&refusal).expect("a packet");
    assert_eq!((packet.addresses.to, packet.hop_limit), (claim.mac, HOP_LIMIT));
    assert_eq!(Claim::read(&refusal), Err(Malformed::NotOurs));
}

/// A question that is understood is answered to the guest whose Ethernet address it has.
fn check(host: &Host, frame: &[u8]) {
    let Ok(asked) = Solicitation::read(frame) else { return };
    let Some(guest) = host.engine.guest("default", asked.mac, None) else { return };
    let told = Advertisement::of(&guest, &[IpAddr::V6(SERVER)]).expect("the network has IPv6");
    let (read, addresses) = read(&told.frame(asked.mac, asked.source));
    assert_eq!(read, told);
    assert_eq!((read.mac, read.prefix_s), (guest.network.mac, ADDRESS6_S));
    assert_eq!((addresses.from, addresses.to), (guest.network.mac, guest.nic.mac));
    assert_eq!(addresses.destination, asked.source.unwrap_or(ALL_NODES));
}
