//! rtnetlink: links, addresses, neighbours, routes and queueing disciplines (linux/rtnetlink.h,
//! rtnetlink(7)).
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
pub mod link;
pub mod neighbour;
pub mod netconf;
pub mod qdisc;
pub mod route;

use super::Error;
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
const AF_INET6: u16 = 10;

/// `RTM_NEWLINK` (linux/rtnetlink.h): make or change a link; also news of one.
pub const NEWLINK: u16 = 16;
/// `RTM_DELLINK`: remove a link.
pub const DELLINK: u16 = 17;
/// `RTM_GETLINK`: ask for a link or for all.
pub const GETLINK: u16 = 18;
/// `RTM_SETLINK`: change a link that exists.
pub const SETLINK: u16 = 19;
/// `RTM_NEWADDR`: give a link an address; also news of one.
pub const NEWADDR: u16 = 20;
/// `RTM_DELADDR`: take an address from a link.
pub const DELADDR: u16 = 21;
/// `RTM_GETADDR`: ask for addresses.
pub const GETADDR: u16 = 22;
/// `RTM_NEWROUTE`: news of a route.
pub const NEWROUTE: u16 = 24;
/// `RTM_DELROUTE`: news that a route is gone.
pub const DELROUTE: u16 = 25;
/// `RTM_GETROUTE`: ask for routes.
pub const GETROUTE: u16 = 26;
/// `RTM_NEWNEIGH`: news of a neighbour.
pub const NEWNEIGH: u16 = 28;
/// `RTM_DELNEIGH`: forget a neighbour.
pub const DELNEIGH: u16 = 29;
/// `RTM_GETNEIGH`: ask for neighbours.
pub const GETNEIGH: u16 = 30;
/// `RTM_NEWQDISC`: set a queueing discipline; also news of one.
pub const NEWQDISC: u16 = 36;
/// `RTM_DELQDISC`: remove a queueing discipline; also news that one is gone.
pub const DELQDISC: u16 = 37;
/// `RTM_GETQDISC`: ask for queueing disciplines.
pub const GETQDISC: u16 = 38;
/// `RTM_NEWNETCONF`: news of a switch of a link.
pub const NEWNETCONF: u16 = 80;

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
        Ok(Some(match (message.kind, family) {
            (NEWLINK, AF_UNSPEC) => Notice::Link(LinkMessage::read(payload)?),
            (DELLINK, AF_UNSPEC) => Notice::LinkGone(LinkMessage::read(payload)?),
            (NEWLINK, AF_BRIDGE) => match PortMessage::read(payload) {
                Err(Error::Missing) => return Ok(None),
                port => Notice::Port(port?),
            },
            (NEWADDR, AF_INET) => Notice::Address(AddressMessage::read(payload)?),
            (DELADDR, AF_INET) => Notice::AddressGone(AddressMessage::read(payload)?),
            (NEWNEIGH, AF_INET) => Notice::Neighbour(NeighbourMessage::read(payload)?),
            (DELNEIGH, AF_INET) => Notice::NeighbourGone(NeighbourMessage::read(payload)?),
            (NEWROUTE, AF_INET) => Notice::Route(RouteMessage::read(payload)?),
            (DELROUTE, AF_INET) => Notice::RouteGone(RouteMessage::read(payload)?),
            (NEWNETCONF, AF_INET) => Notice::Netconf(NetconfMessage::read(payload)?),
            (NEWQDISC, AF_UNSPEC) => Notice::Qdisc(QdiscMessage::read(payload)?),
            (DELQDISC, AF_UNSPEC) => Notice::QdiscGone(QdiscMessage::read(payload)?),
            _ => return Ok(None),
        }))
    }
}
