//! The queries of guests.

use std::net::Ipv6Addr;

use super::message::{Kind, Message, option};
use crate::model::mac::Mac;
use crate::packet::Malformed;
use crate::packet::v6::{self, ALL_SERVERS, Content, SERVER_PORT};

/// The longest identifier, in bytes (RFC 8415, 11.1).
const IDENTIFIER_MAX: usize = 130;

/// A message of a guest to all servers of its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dhcp6Query<'a> {
    /// The guest's Ethernet address.
    pub mac: Mac,
    /// Its link-local address.
    pub source: Ipv6Addr,
    /// The message.
    pub message: Message<'a>,
}

impl<'a> Dhcp6Query<'a> {
    /// Reads the frame of a guest, with the checks of RFC 8415, 16.
    pub fn read(frame: &'a [u8]) -> Result<Dhcp6Query<'a>, Malformed> {
        let packet = v6::parse(frame)?;
        let Content::Udp { destination_port: SERVER_PORT, payload, .. } = packet.content else {
            return Err(Malformed::NotOurs);
        };
        let addresses = packet.addresses;
        if addresses.destination != ALL_SERVERS || !addresses.source.is_unicast_link_local() {
            return Err(Malformed::NotOurs);
        }
        let message = Message::read(payload)?;
        let query = Dhcp6Query { mac: addresses.from, source: addresses.source, message };
        if query.has_what_it_needs() { Ok(query) } else { Err(Malformed::NotOurs) }
    }

    /// The client's identifier.
    pub fn client(&self) -> Option<&'a [u8]> {
        self.message.option(option::CLIENT_ID)
    }

    /// The identifier of the server that it has chosen.
    pub fn server(&self) -> Option<&'a [u8]> {
        self.message.option(option::SERVER_ID)
    }

    fn has_what_it_needs(&self) -> bool {
        let identified = self.client().is_some_and(|id| (1..=IDENTIFIER_MAX).contains(&id.len()));
        let chosen = self.server().is_some();
        match self.message.kind {
            Kind::Solicit | Kind::Confirm | Kind::Rebind => identified && !chosen,
            Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => identified && chosen,
            Kind::InformationRequest => {
                (identified || self.client().is_none())
                    && self.message.associations().next().is_none()
            }
            // A server says them.
            Kind::Advertise | Kind::Reply => false,
        }
    }
}
