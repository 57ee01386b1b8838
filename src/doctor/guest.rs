//! The guest itself: what it is asked on its tap, and what it says there.
//!
//! It is asked as its gateway asks: by ARP who has its IPv4 address, and by neighbour solicitations
//! (RFC 4861, 4.3) for its IPv6 address and its link-local one. An echo request to all nodes (RFC
//! 4443, RFC 4291) has an answer from a guest that has another link-local address. The questions go
//! to the guest's own tap, and nobody else sees them. Answers are taken there, before any rule.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{broken, doubtful, well};
use crate::model::mac::Mac;
use crate::model::name::VmName;
use crate::model::view::Finding;
use crate::packet::arp::{self, Arp};
use crate::packet::v6::{self, ALL_NODES, Content, Endpoints, Packet};

/// Types of ICMPv6: echo request, neighbour solicitation and advertisement (RFC 4443, RFC 4861).
const ECHO: u8 = 128;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// The source link-layer option, and its length in units of eight bytes (RFC 4861, 4.6.1).
const SOURCE_OPTION: [u8; 2] = [1, 1];
/// The hop limit of neighbour discovery (RFC 4861, 7.1).
const HOP_LIMIT: u8 = 255;
/// The Ethernet address of all nodes (RFC 2464, 7).
const TO_ALL_NODES: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
/// `ETH_P_IP` (linux/if_ether.h), and where the source stands in an IPv4 header (RFC 791).
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const IPV4_SOURCE: usize = 14 + 12;
/// The most strange addresses that are remembered of a guest.
const STRANGE_MAX: usize = 4;

/// Who asks a guest: its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its address on the guest's network.
    pub ip: Ipv4Addr,
}

/// What a guest is asked, and what it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its tap.
    pub tap: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The IPv4 address that volnet gave it, with the length of its prefix.
    pub ip: Option<(Ipv4Addr, u8)>,
    /// Its IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// The movable addresses that it may use besides.
    pub movable: Vec<Ipv4Addr>,
    /// Whether what comes from other addresses is dropped.
    pub antispoof: bool,
}

/// What a guest has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// It has sent something.
    pub speaks: bool,
    /// It has its IPv4 address.
    pub has_ip: bool,
    /// It has its IPv6 address.
    pub has_ip6: bool,
    /// IPv4 addresses that are not its own, from which it sends.
    pub strange: BTreeSet<Ipv4Addr>,
    /// Ethernet addresses that are not its own.
    pub strange_macs: BTreeSet<Mac>,
}

impl Interface {
    /// The frames that ask it.
    pub fn questions(&self, asker: Asker) -> Vec<Vec<u8>> {
        let by_arp = self.ip.map(|(ip, _)| arp::question(asker.mac, asker.ip, ip));
        let six = self.ip6.into_iter().chain([self.mac.link_local()]);
        let solicited = six.map(|target| solicitation(asker.mac, self.mac, target));
        by_arp.into_iter().chain(solicited).chain([echo(asker.mac)]).collect()
    }

    /// Whether an address is not its own. If volnet does not know that, none is strange.
    fn is_strange(&self, ip: Ipv4Addr) -> bool {
        self.ip.is_some_and(|(own, _)| own != ip) && !self.movable.contains(&ip)
    }
}

impl Heard {
    /// Takes a frame that the guest has sent.
    pub fn take(&mut self, interface: &Interface, frame: &[u8]) {
        let Some(Said { mac, source, says_it_has }) = Said::read(frame) else { return };
        self.speaks = true;
        if mac != interface.mac && self.strange_macs.len() < STRANGE_MAX {
            self.strange_macs.insert(mac);
        }
        let strange = source.filter(|ip| interface.is_strange(*ip));
        self.strange.extend(strange.filter(|_| self.strange.len() < STRANGE_MAX));
        let Some(has) = says_it_has else { return };
        self.has_ip |= interface.ip.is_some_and(|(ip, _)| has == ip);
        self.has_ip6 |= interface.ip6.is_some_and(|ip| has == ip);
    }

    /// Whether nothing is left to hear.
    pub fn is_enough(&self, interface: &Interface) -> bool {
        self.speaks
            && (self.has_ip || interface.ip.is_none())
            && (self.has_ip6 || interface.ip6.is_none())
    }
}

/// What a frame says of its sender.
struct Said {
    mac: Mac,
    /// The IPv4 address that it sends from.
    source: Option<Ipv4Addr>,
    /// The address that it says it has.
    says_it_has: Option<IpAddr>,
}

impl Said {
    fn read(frame: &[u8]) -> Option<Said> {
        let from = frame.get(6..12)?.try_into().map(Mac).ok()?;
        if let Some(arp) = Arp::read(frame) {
            let source = Some(arp.sender).filter(|ip| !ip.is_unspecified());
            return Some(Said { mac: arp.mac, source, says_it_has: source.map(IpAddr::V4) });
        }
        if frame.get(12..14)? == ETHERTYPE_IPV4 {
            let octets: [u8; 4] = frame.get(IPV4_SOURCE..IPV4_SOURCE + 4)?.try_into().ok()?;
            let source = Some(octets.into()).filter(|ip: &Ipv4Addr| !ip.is_unspecified());
            return Some(Said { mac: from, source, says_it_has: None });
        }
        let advertised = match v6::parse(frame).map(|packet| packet.content) {
            // Four bytes of flags, then the target.
            Ok(Content::Icmp { kind: ADVERTISEMENT, body, .. }) => body.get(4..20),
            Ok(_) | Err(_) => None,
        };
        let octets = advertised.and_then(|octets| <[u8; 16]>::try_from(octets).ok());
        Some(Said { mac: from, source: None, says_it_has: octets.map(IpAddr::from) })
    }
}

/// Asks a guest whether it has an IPv6 address.
fn solicitation(from: Mac, guest: Mac, target: Ipv6Addr) -> Vec<u8> {
    let body = [&[0; 4][..], &target.octets(), &SOURCE_OPTION, &from.0].concat();
    icmp(from, (guest, solicited_node(target)), SOLICITATION, &body)
}

/// Asks all nodes for an answer. The identifier and the number do not matter.
fn echo(from: Mac) -> Vec<u8> {
    icmp(from, (TO_ALL_NODES, ALL_NODES), ECHO, &[0; 4])
}

fn icmp(from: Mac, (to, destination): (Mac, Ipv6Addr), kind: u8, body: &[u8]) -> Vec<u8> {
    let addresses = Endpoints { from, to, source: from.link_local(), destination };
    let content = Content::Icmp { kind, code: 0, body };
    v6::build(&Packet { addresses, hop_limit: HOP_LIMIT, content })
}

/// The group that an address is asked for in (RFC 4291, 2.7.1).
fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    const GROUP: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from_bits(GROUP | target.to_bits() & 0xff_ffff)
}

/// What is to be said of a guest that was asked. `inside` is what the interface is called in most
/// guests.
pub fn findings(vm: &VmName, interface: &Interface, heard: &Heard, inside: &str) -> Vec<Finding> {
    if !heard.speaks {
        let message = format!(
            "the guest is silent on {}: it has not booted (volnet logs {vm}), or its interface is \
             down",
            interface.tap
        );
        return vec![broken("guest", message, format!("in the guest: ip link set {inside} up"))];
    }
    let mut findings = vec![well("guest", format!("it answers on {}", interface.tap))];
    findings.extend(interface.ip.map(|(ip, length)| match heard.has_ip {
        true => well("address", format!("the guest has {ip}")),
        false => broken(
            "address",
            format!("the guest does not have {ip}, its address{}", sends_from(heard, interface)),
            format!("in the guest: ip address add {ip}/{length} dev {inside}"),
        ),
    }));
    findings.extend(interface.ip6.map(|ip| match heard.has_ip6 {
        true => well("address", format!("the guest has {ip}")),
        false => doubtful(
            "address",
            format!("the guest does not have {ip}, its IPv6 address"),
            format!("in the guest: ip address add {ip}/64 dev {inside}"),
        ),
    }));
    let strange = heard.strange_macs.first().filter(|_| interface.antispoof);
    findings.extend(strange.map(|mac| {
        broken(
            "address",
            format!("the guest sends from the Ethernet address {mac}: that is dropped"),
            format!("in the guest: ip link set {inside} address {}", interface.mac),
        )
    }));
    findings
}

/// Which other addresses a guest uses, in words.
fn sends_from(heard: &Heard, interface: &Interface) -> String {
    let strange: Vec<String> = heard.strange.iter().map(Ipv4Addr::to_string).collect();
    match (strange.as_slice(), interface.antispoof) {
        ([], _) => String::new(),
        (some, true) => format!("; it sends from {}, and that is dropped", some.join(", ")),
        (some, false) => format!("; it sends from {}", some.join(", ")),
    }
}
