//! Addresses of links, neighbour entries, and routes, which show the addresses that the host
//! reaches elsewhere.

use std::net::IpAddr;

use crate::model::prefix::Prefix;
use crate::netlink::rtnl::address::{self, AddressMessage};
use crate::netlink::rtnl::neighbour;
use crate::netlink::rtnl::route::{self, AddressRoute, RouteMessage, TABLE_MAIN};
use crate::netlink::rtnl::{AF_INET, AF_INET6};
use crate::netlink::writer::Writer;
use crate::plan::op::{GuestRoute, ROUTE_PROTOCOL};

use super::links;
use super::socket::{Error, Socket};

/// The families of addresses.
const FAMILIES: [u8; 2] = [AF_INET, AF_INET6];

/// Gives a link an address. If the link has it already, that is success.
pub fn add(socket: &mut Socket, link: &str, address: IpAddr, length: u8) -> Result<(), Error> {
    let index = links::index_of(socket, link)?;
    let given = AddressMessage { index, address, length };
    match socket.request(1, |writer, sequence| address::add(writer, sequence.take(), &given)) {
        // The kernel reports this only if address and prefix are the same.
        Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

/// Takes an address from a link. If either is gone, that is success.
pub fn remove(socket: &mut Socket, link: &str, address: IpAddr, length: u8) -> Result<(), Error> {
    let removed = links::index_of(socket, link).and_then(|index| {
        let taken = AddressMessage { index, address, length };
        socket.request(1, |writer, sequence| address::delete(writer, sequence.take(), &taken))
    });
    match removed {
        Err(error) if matches!(error.errno(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
        result => result,
    }
}

/// Deletes the neighbour entry of this address on a link. If either is gone, that is success.
pub fn forget_neighbour(socket: &mut Socket, link: &str, address: IpAddr) -> Result<(), Error> {
    let forgotten = links::index_of(socket, link).and_then(|index| {
        socket.request(1, |writer, sequence| {
            neighbour::delete(writer, sequence.take(), index, address);
        })
    });
    match forgotten {
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        result => result,
    }
}

/// Reads the addresses of all links: index of the link, address, length of the prefix. One may be
/// missing if others change links without end. That is harmless: it is only given to its link once
/// more.
pub fn observe(socket: &mut Socket) -> Result<Vec<(u32, IpAddr, u8)>, Error> {
    let mut found = Vec::new();
    for family in FAMILIES {
        let dump = |writer: &mut Writer, sequence| address::dump(writer, sequence, family);
        let dumped = socket.dump_or_last(dump, |message| {
            let found = AddressMessage::read(message.payload)?;
            Ok(Some((found.index, found.address, found.length)))
        })?;
        found.extend(dumped.items);
    }
    Ok(found)
}

/// Gives the host a route to a guest. If its link has no IPv6, nothing is sent there, and none is
/// needed.
pub fn add_route(socket: &mut Socket, route: &GuestRoute) -> Result<(), Error> {
    let route = message_of(socket, route)?;
    match socket.request(1, |writer, sequence| route::add(writer, sequence.take(), &route)) {
        Err(error)
            if route.to.is_ipv6()
                && matches!(error.errno(), Some(libc::EACCES | libc::EOPNOTSUPP)) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// Removes such a route. If it is gone, that is success.
pub fn remove_route(socket: &mut Socket, route: &GuestRoute) -> Result<(), Error> {
    let removed = message_of(socket, route).and_then(|route| {
        socket.request(1, |writer, sequence| route::delete(writer, sequence.take(), &route))
    });
    match removed {
        Err(error)
            if matches!(error.errno(), Some(libc::ESRCH | libc::ENODEV | libc::EOPNOTSUPP)) =>
        {
            Ok(())
        }
        result => result,
    }
}

fn message_of(socket: &mut Socket, route: &GuestRoute) -> Result<AddressRoute, Error> {
    let link = links::index_of(socket, &route.link)?;
    let (to, mtu) = (route.to, route.mtu.into());
    Ok(AddressRoute { link, to, mtu, protocol: ROUTE_PROTOCOL })
}

/// The routes of the main table.
#[derive(Debug, Default)]
pub struct Routes {
    /// All of them: index of the link (0 for a route that leads nowhere) and destination.
    pub all: Vec<(u32, Prefix<IpAddr>)>,
    /// Those of ours to guests: index of the link, address, MTU.
    pub of_guests: Vec<(u32, IpAddr, u16)>,
}

/// Reads the routes of the main table. One may be missing if others change routes without end. Then
/// the warning about an overlapping network is missing, too, or a route of ours is added once more.
pub fn routes(socket: &mut Socket) -> Result<Routes, Error> {
    let mut found = Routes::default();
    for family in FAMILIES {
        let dump = |writer: &mut Writer, sequence| route::dump(writer, sequence, family);
        let dumped = socket.dump_or_last(dump, |message| {
            let route = RouteMessage::read(message.payload)?;
            Ok(Some(route).filter(|route| route.table == TABLE_MAIN))
        });
        match dumped {
            // The table never had a route.
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            dumped => dumped?.items.iter().for_each(|route| found.take(route)),
        }
    }
    Ok(found)
}

/// The route of a packet that comes in by a link: the index of the link that it leaves by, and the
/// MTU of the route, if it has one.
pub fn way(
    socket: &mut Socket,
    link: &str,
    from: IpAddr,
    to: IpAddr,
) -> Result<Option<(u32, Option<u32>)>, Error> {
    let index = links::index_of(socket, link)?;
    routed(socket, Some((index, from)), to)
}

/// The same for a packet of the host's own.
pub fn way_out(socket: &mut Socket, to: IpAddr) -> Result<Option<(u32, Option<u32>)>, Error> {
    routed(socket, None, to)
}

fn routed(
    socket: &mut Socket,
    from: Option<(u32, IpAddr)>,
    to: IpAddr,
) -> Result<Option<(u32, Option<u32>)>, Error> {
    let mut found = None;
    socket.request_and(
        1,
        |writer, sequence| route::ask(writer, sequence.take(), from, to),
        |message| {
            let route = RouteMessage::read(message.payload)?;
            found = route.link.map(|link| (link, route.mtu));
            Ok(())
        },
    )?;
    Ok(found)
}

impl Routes {
    fn take(&mut self, route: &RouteMessage) {
        let link = route.link.unwrap_or(0);
        let prefix = Prefix::containing(route.destination, route.length);
        self.all.extend(prefix.map(|prefix| (link, prefix)));
        let whole = if route.destination.is_ipv4() { 32 } else { 128 };
        if route.protocol == ROUTE_PROTOCOL && route.length == whole {
            let mtu = route.mtu.and_then(|mtu| mtu.try_into().ok()).unwrap_or(0);
            self.of_guests.push((link, route.destination, mtu));
        }
    }
}
