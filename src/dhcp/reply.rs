//! Writes the frame that answers a query.

use std::net::Ipv4Addr;

use super::Query;
use super::frame::{Addresses, CLIENT_PORT, Datagram, SERVER_PORT, build};
use super::message::{Head, Kind, Writer, option};
use crate::model::kernel_args::host_name;
use crate::model::lease::Guest;
use crate::model::mac::Mac;

/// The content of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpReply {
    /// An offer of this address for `seconds`.
    Offer { address: Ipv4Addr, seconds: u32 },
    /// A lease of this address for `seconds`.
    Ack { address: Ipv4Addr, seconds: u32 },
    /// A refusal.
    Nak,
    /// The settings of the network, for a guest that has its own address.
    Inform,
}

impl DhcpReply {
    /// The frame. `resolvers` are the name servers for the guest.
    pub fn frame(&self, guest: &Guest<'_>, query: &Query<'_>, resolvers: &[Ipv4Addr]) -> Vec<u8> {
        let payload = self.message(guest, query, resolvers);
        let (to, destination) = self.receiver(query);
        let (from, source) = (guest.network.mac, guest.network.host_ip);
        build(&Datagram {
            addresses: Addresses { from, to, source, destination },
            source_port: SERVER_PORT,
            destination_port: CLIENT_PORT,
            payload: &payload,
        })
    }

    /// The destination (RFC 2131, 4.1): the address that the guest has, otherwise the new one, or
    /// broadcast if the guest asks for it.
    fn receiver(&self, query: &Query<'_>) -> (Mac, Ipv4Addr) {
        let Head { broadcast, ciaddr, chaddr, .. } = query.message.head;
        let everybody = (Mac([0xff; 6]), Ipv4Addr::BROADCAST);
        let given = match self {
            DhcpReply::Nak => return everybody,
            DhcpReply::Offer { address, .. } | DhcpReply::Ack { address, .. } => *address,
            DhcpReply::Inform => ciaddr,
        };
        match (ciaddr.is_unspecified(), broadcast) {
            (false, _) => (chaddr, ciaddr),
            (true, true) => everybody,
            (true, false) => (chaddr, given),
        }
    }

    fn message(&self, guest: &Guest<'_>, query: &Query<'_>, resolvers: &[Ipv4Addr]) -> Vec<u8> {
        let asked = query.message.head;
        let (kind, lent) = match self {
            DhcpReply::Offer { address, seconds } => (Kind::Offer, Some((*address, *seconds))),
            DhcpReply::Ack { address, seconds } => (Kind::Ack, Some((*address, *seconds))),
            DhcpReply::Inform => (Kind::Ack, None),
            DhcpReply::Nak => (Kind::Nak, None),
        };
        let head = Head {
            reply: true,
            ciaddr: if kind == Kind::Ack { asked.ciaddr } else { Ipv4Addr::UNSPECIFIED },
            yiaddr: lent.map_or(Ipv4Addr::UNSPECIFIED, |(address, _)| address),
            ..asked
        };
        let mut writer = Writer::new(&head, kind);
        writer.address(option::SERVER_ID, guest.network.host_ip);
        if let Some(id) = query.message.option(option::CLIENT_ID) {
            writer.option(option::CLIENT_ID, id);
        }
        if let Some((_, seconds)) = lent {
            writer.number(option::LEASE_TIME, seconds);
            writer.number(option::RENEWAL_TIME, seconds / 2);
            writer.number(option::REBINDING_TIME, seconds - seconds / 8);
        }
        if kind != Kind::Nak {
            configure(&mut writer, guest, resolvers);
        }
        writer.finish()
    }
}

/// The options for every guest of the network. The mask must come before the router (RFC 2132,
/// 3.3).
fn configure(writer: &mut Writer, guest: &Guest<'_>, resolvers: &[Ipv4Addr]) {
    writer.address(option::SUBNET_MASK, guest.network.subnet.netmask());
    writer.address(option::ROUTER, guest.network.gateway());
    if !resolvers.is_empty() {
        let octets: Vec<u8> = resolvers.iter().flat_map(|resolver| resolver.octets()).collect();
        writer.option(option::DNS, &octets);
    }
    writer.option(option::MTU, &guest.mtu.to_be_bytes());
    writer.option(option::HOST_NAME, host_name(guest.vm).as_bytes());
}
