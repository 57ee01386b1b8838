//! The queries of guests.

use std::net::Ipv4Addr;

use super::message::{Kind, Message, option};
use crate::model::mac::Mac;
use crate::packet::Malformed;
use crate::packet::v4::{self, SERVER_PORT};

/// A message of a guest. It comes directly to volnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhcpQuery<'a> {
    /// The message.
    pub message: Message<'a>,
    /// The Ethernet address that it comes from.
    from: Mac,
}

impl<'a> DhcpQuery<'a> {
    /// Reads the frame of a guest.
    pub fn read(frame: &'a [u8]) -> Result<DhcpQuery<'a>, Malformed> {
        let datagram = v4::parse(frame)?;
        if datagram.destination_port != SERVER_PORT {
            return Err(Malformed::NotOurs);
        }
        let message = Message::read(datagram.payload)?;
        let head = message.head;
        if head.reply || !head.giaddr.is_unspecified() {
            return Err(Malformed::NotOurs);
        }
        Ok(DhcpQuery { message, from: datagram.addresses.from })
    }

    /// The guest's Ethernet address, as the network knows it.
    pub fn mac(&self) -> Mac {
        self.from
    }

    /// The Ethernet address that it names, which is the one that the guest knows.
    pub fn named(&self) -> Mac {
        self.message.head.chaddr
    }

    /// The kind of the message.
    pub fn kind(&self) -> Kind {
        self.message.kind
    }

    /// The address that the guest has or wants.
    pub fn wanted(&self) -> Option<Ipv4Addr> {
        let has = Some(self.message.head.ciaddr).filter(|address| !address.is_unspecified());
        self.message.address(option::REQUESTED_IP).or(has)
    }

    /// The server that it has chosen.
    pub fn server(&self) -> Option<Ipv4Addr> {
        self.message.address(option::SERVER_ID)
    }
}
