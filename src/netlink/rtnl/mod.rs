//! rtnetlink: links, addresses, neighbours, routes, queueing disciplines and filters
//! (linux/rtnetlink.h, rtnetlink(7)).
//!
//! Each kind of object has a file of the same shape: functions that write requests into a
//! [`Writer`](super::writer::Writer), and a type that reads what the kernel sends, borrowing from
//! the datagram. A multicast socket receives all of them: [`Notice`] tells them apart.
//!
//! Requests are written for a socket with NETLINK_GET_STRICT_CHK: a field of a dump's header is
//! zero unless it is a filter that the kernel knows. Names and aliases are bytes when they are
//! read: the kernel accepts nearly any byte, and one odd link of another program must not hide the
//! rest. They are text when they are written, because ours are.

pub mod address;
pub mod filter;
pub mod link;
pub mod neighbour;
pub mod netconf;
pub mod qdisc;
pub mod route;
pub mod stats;

use std::net::IpAddr;

use neli::consts::rtnl::Rtm;

use super::Error;
use super::attr::Attr;
use super::message::Message;
use address::AddressMessage;
use link::{LinkMessage, PortMessage};
use neighbour::NeighbourMessage;
use netconf::NetconfMessage;
use qdisc::QdiscMessage;
use route::RouteMessage;

/// `AF_UNSPEC` (linux/socket.h): any address family.
pub const AF_UNSPEC: u8 = 0;
/// `AF_INET` (linux/socket.h): IPv4.
pub const AF_INET: u8 = 2;
/// `AF_BRIDGE` (linux/socket.h): the ports of a bridge.
pub const AF_BRIDGE: u8 = 7;
/// `AF_INET6` (linux/socket.h): IPv6.
pub const AF_INET6: u8 = 10;

/// `RTNLGRP_LINK` (linux/rtnetlink.h): the multicast group of news about links.
pub const GROUP_LINK: u32 = 1;
/// `RTNLGRP_NEIGH`: news about neighbours.
pub const GROUP_NEIGHBOUR: u32 = 3;
/// `RTNLGRP_TC`: news about queueing disciplines.
pub const GROUP_QDISC: u32 = 4;
/// `RTNLGRP_IPV4_IFADDR`: news about IPv4 addresses.
pub const GROUP_ADDRESS: u32 = 5;
/// `RTNLGRP_IPV4_ROUTE`: news about IPv4 routes.
pub const GROUP_ROUTE: u32 = 7;
/// `RTNLGRP_IPV4_NETCONF`: news about switches of IPv4.
pub const GROUP_NETCONF: u32 = 24;

/// `RTNLGRP_IPV6_IFADDR`: news about IPv6 addresses.
pub const GROUP_ADDRESS6: u32 = 9;
/// `RTNLGRP_IPV6_NETCONF`: news about switches of IPv6.
pub const GROUP_NETCONF6: u32 = 25;

/// News from the kernel: an object as it is now, or as it was before it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// A link was made or changed.
    Link(LinkMessage<'a>),
    /// A link is gone.
    LinkGone(LinkMessage<'a>),
    /// A bridge changed a port of its own.
    Port(PortMessage<'a>),
    /// A link has this address.
    Address(AddressMessage),
    /// A link lost this address.
    AddressGone(AddressMessage),
    /// A neighbour was learnt or changed.
    Neighbour(NeighbourMessage),
    /// A neighbour was forgotten.
    NeighbourGone(NeighbourMessage),
    /// A route was made or changed.
    Route(RouteMessage),
    /// A route is gone.
    RouteGone(RouteMessage),
    /// A switch was turned.
    Netconf(NetconfMessage),
    /// A queueing discipline was set or changed.
    Qdisc(QdiscMessage<'a>),
    /// One is gone.
    QdiscGone(QdiscMessage<'a>),
}

impl<'a> Notice<'a> {
    /// Reads a message of a multicast group. `None` if volnet does not use it. A bridge also sends
    /// its own view of its ports, as `RTM_NEWLINK` and, when a port is *detached*, as
    /// `RTM_DELLINK`. Only the family distinguishes these from messages about the link itself. They
    /// have no settings of the bridge.
    pub fn read(message: &Message<'a>) -> Result<Option<Notice<'a>>, Error> {
        let payload = message.payload;
        let family = *payload.first().ok_or(Error::Truncated)?;
        Ok(Some(match (Rtm::from(message.kind), family) {
            (Rtm::Newlink, AF_UNSPEC) => Notice::Link(LinkMessage::read(payload)?),
            (Rtm::Dellink, AF_UNSPEC) => Notice::LinkGone(LinkMessage::read(payload)?),
            (Rtm::Newlink, AF_BRIDGE) => match PortMessage::read(payload) {
                Err(Error::Missing) => return Ok(None),
                port => Notice::Port(port?),
            },
            (Rtm::Newaddr, AF_INET | AF_INET6) => Notice::Address(AddressMessage::read(payload)?),
            (Rtm::Deladdr, AF_INET | AF_INET6) => {
                Notice::AddressGone(AddressMessage::read(payload)?)
            }
            (Rtm::Newneigh, AF_INET) => Notice::Neighbour(NeighbourMessage::read(payload)?),
            (Rtm::Delneigh, AF_INET) => Notice::NeighbourGone(NeighbourMessage::read(payload)?),
            (Rtm::Newroute, AF_INET) => Notice::Route(RouteMessage::read(payload)?),
            (Rtm::Delroute, AF_INET) => Notice::RouteGone(RouteMessage::read(payload)?),
            (Rtm::Newnetconf, AF_INET | AF_INET6) => {
                Notice::Netconf(NetconfMessage::read(payload)?)
            }
            (Rtm::Newqdisc, AF_UNSPEC) => Notice::Qdisc(QdiscMessage::read(payload)?),
            (Rtm::Delqdisc, AF_UNSPEC) => Notice::QdiscGone(QdiscMessage::read(payload)?),
            _ => return Ok(None),
        }))
    }
}

/// The number of the family of an address.
fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

/// An address of this family.
fn address_of(family: u8, attr: Attr<'_>) -> Result<IpAddr, Error> {
    attr.address().and_then(|found| match self::family(found) == family {
        true => Ok(found),
        false => Err(Error::WrongSize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::same;

    #[test]
    fn numbers_are_the_kernels() {
        same! {
            AF_UNSPEC => libc::AF_UNSPEC,
            AF_INET => libc::AF_INET,
            AF_BRIDGE => libc::AF_BRIDGE,
            AF_INET6 => libc::AF_INET6,
            GROUP_LINK => libc::RTNLGRP_LINK,
            GROUP_NEIGHBOUR => libc::RTNLGRP_NEIGH,
            GROUP_QDISC => libc::RTNLGRP_TC,
            GROUP_ADDRESS => libc::RTNLGRP_IPV4_IFADDR,
            GROUP_ROUTE => libc::RTNLGRP_IPV4_ROUTE,
            GROUP_NETCONF => libc::RTNLGRP_IPV4_NETCONF,
            GROUP_ADDRESS6 => libc::RTNLGRP_IPV6_IFADDR,
            GROUP_NETCONF6 => libc::RTNLGRP_IPV6_NETCONF,
            route::TABLE_MAIN => libc::RT_TABLE_MAIN,
        }
    }
}
