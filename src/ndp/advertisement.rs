//! What a guest is told of its router.

use std::net::{IpAddr, Ipv6Addr};

use super::{HOP_LIMIT, SOURCE_LINK_LAYER, UNIT};
use crate::model::lease::{ADDRESS6_S, Guest};
use crate::model::mac::Mac;
use crate::model::net::Ipv6Network;
use crate::model::prefix::Prefix;
use crate::packet::domain_list;
use crate::packet::v6::{self, ALL_NODES, Content, Endpoints, Packet, ROUTER_ADVERTISEMENT};

/// How long the host is the guest's router, in seconds. It is the longest time that there is: a
/// guest keeps its default route while no daemon runs. RFC 4861 allowed no router more than 9000
/// seconds, but guests always had to take more; RFC 8319 allows 65,535.
pub const ROUTER_S: u16 = u16::MAX;

/// The hop limit that the guest is to use (RFC 1700).
const HOPS: u8 = 64;
/// There is DHCPv6, for addresses and for all else (RFC 4861, 4.2).
const MANAGED_AND_OTHER: u8 = 0xc0;
/// Other routers come first (RFC 4191, 2.1).
const LOW_PREFERENCE: u8 = 0x18;
/// The prefix is that of the link, and guests make their addresses of it (RFC 4861, 4.6.2).
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

/// Types of options (RFC 4861, 4.6; RFC 8106, 5).
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const NAME_SERVERS: u8 = 25;
const SEARCH: u8 = 31;

/// A router advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// How long the host is a router, in seconds; 0: it is none.
    pub router_s: u16,
    /// Whether other routers of the guest come first.
    pub last: bool,
    /// The router's Ethernet address.
    pub mac: Mac,
    /// MTU of the guest's link in bytes.
    pub mtu: u16,
    /// The prefix of the link.
    pub prefix: Prefix<Ipv6Addr>,
    /// Whether the guest makes its address of the prefix.
    pub autonomous: bool,
    /// How long addresses of the prefix may be used, in seconds; 0: no longer.
    pub prefix_s: u32,
    /// How long the rest counts, in seconds; 0: no longer.
    pub names_s: u32,
    /// Who answers for names.
    pub servers: Vec<Ipv6Addr>,
    /// The domains in which names are looked up.
    pub search: Vec<String>,
}

impl Advertisement {
    /// What a guest is told whose network has IPv6. `servers` are its name servers. If its VM has
    /// chosen an address, it has to ask for it by DHCPv6, and makes none of the prefix. It has one
    /// default route: that of its first interface, as it is by IPv4.
    pub fn of(guest: &Guest<'_>, servers: &[IpAddr]) -> Option<Advertisement> {
        let six = |server: &IpAddr| match server {
            IpAddr::V6(ip) => Some(*ip),
            IpAddr::V4(_) => None,
        };
        let ipv6 = guest.network.ipv6?;
        Some(Advertisement {
            router_s: ROUTER_S,
            last: guest.index > 0,
            mac: guest.network.mac,
            mtu: guest.mtu,
            prefix: ipv6.prefix,
            autonomous: guest.nic.ip6 == Some(ipv6.address_of(guest.nic.mac)),
            prefix_s: ADDRESS6_S,
            names_s: ROUTER_S.into(),
            servers: servers.iter().filter_map(six).collect(),
            search: guest.network.search().to_vec(),
        })
    }

    /// What a guest is told whose network has lost this prefix, and all IPv6 if it has no other.
    pub fn of_lost(guest: &Guest<'_>, prefix: Prefix<Ipv6Addr>) -> Advertisement {
        let ipv6 = guest.network.ipv6;
        Advertisement {
            router_s: if ipv6.is_some() { ROUTER_S } else { 0 },
            last: guest.index > 0,
            mac: guest.network.mac,
            mtu: guest.mtu,
            prefix,
            autonomous: true,
            prefix_s: 0,
            names_s: 0,
            servers: vec![Ipv6Network::new(prefix, false).host],
            search: Vec::new(),
        }
    }

    /// The frame to the guest with this Ethernet address: to its own address, or to all nodes.
    pub fn frame(&self, guest: Mac, address: Option<Ipv6Addr>) -> Vec<u8> {
        v6::build(&Packet {
            addresses: Endpoints {
                from: self.mac,
                to: guest,
                source: self.mac.link_local(),
                destination: address.unwrap_or(ALL_NODES),
            },
            hop_limit: HOP_LIMIT,
            content: Content::Icmp { kind: ROUTER_ADVERTISEMENT, code: 0, body: &self.body() },
        })
    }

    /// What follows the checksum.
    pub(super) fn body(&self) -> Vec<u8> {
        let autonomous = if self.autonomous { AUTONOMOUS } else { 0 };
        let preference = if self.last { LOW_PREFERENCE } else { 0 };
        let mut body = vec![HOPS, MANAGED_AND_OTHER | preference];
        body.extend(self.router_s.to_be_bytes());
        // How long a neighbour counts as reachable, and when it is asked again: as the guest likes.
        body.extend([0; 8]);
        body.extend([SOURCE_LINK_LAYER, 1]);
        body.extend(self.mac.0);
        body.extend([MTU, 1, 0, 0]);
        body.extend(u32::from(self.mtu).to_be_bytes());
        body.extend([PREFIX, 4, self.prefix.length(), ON_LINK | autonomous]);
        // How long it is valid, and how long preferred; then reserved bytes.
        body.extend(self.prefix_s.to_be_bytes());
        body.extend(self.prefix_s.to_be_bytes());
        body.extend([0; 4]);
        body.extend(self.prefix.network().octets());
        let servers: Vec<u8> = self.servers.iter().flat_map(Ipv6Addr::octets).collect();
        self.put_names(&mut body, NAME_SERVERS, &servers);
        self.put_names(&mut body, SEARCH, &domain_list(&self.search));
        body
    }

    /// An option about names. None if there is nothing to say.
    fn put_names(&self, body: &mut Vec<u8>, kind: u8, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        let units = 1 + value.len().div_ceil(UNIT);
        body.extend([kind, units as u8, 0, 0]);
        body.extend(self.names_s.to_be_bytes());
        let end = body.len() + (units - 1) * UNIT;
        body.extend(value);
        body.resize(end, 0);
    }
}
