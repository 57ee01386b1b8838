//! Addresses of links, neighbour entries, and routes, which show the addresses that the host
//! reaches elsewhere.

use std::net::IpAddr;

use crate::model::prefix::Prefix;
use crate::netlink::rtnl::address::{self, AddressMessage};
use crate::netlink::rtnl::neighbour;
use crate::netlink::rtnl::route::{self, RouteMessage, TABLE_MAIN};
use crate::netlink::rtnl::{AF_INET, AF_INET6};
use crate::netlink::writer::Writer;

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

/// Reads the routes of the main table: index of the link (0 for a route that leads nowhere) and
/// destination. One may be missing if others change routes without end. Then the warning about an
/// overlapping network is missing, too.
pub fn routes(socket: &mut Socket) -> Result<Vec<(u32, Prefix<IpAddr>)>, Error> {
    let mut found = Vec::new();
    for family in FAMILIES {
        let dump = |writer: &mut Writer, sequence| route::dump(writer, sequence, family);
        let dumped = socket.dump_or_last(dump, |message| {
            let route = RouteMessage::read(message.payload)?;
            let prefix = Prefix::containing(route.destination, route.length);
            Ok(prefix
                .filter(|_| route.table == TABLE_MAIN)
                .map(|prefix| (route.link.unwrap_or(0), prefix)))
        });
        match dumped {
            // The table never had a route.
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            dumped => found.extend(dumped?.items),
        }
    }
    Ok(found)
}
