//! IPv4 addresses of links, the neighbours behind them, and the routes that say which addresses the
//! host reaches elsewhere.

use std::net::Ipv4Addr;

use crate::model::prefix::Prefix;
use crate::netlink::rtnl::address::{self, AddressMessage};
use crate::netlink::rtnl::neighbour;
use crate::netlink::rtnl::route::{self, RouteMessage, TABLE_MAIN};

use super::links;
use super::socket::{Error, Socket};

/// Gives a link an address. One that it has already is as good as given.
pub fn add(socket: &mut Socket, link: &str, address: Ipv4Addr, length: u8) -> Result<(), Error> {
    let index = links::index_of(socket, link)?;
    let given = AddressMessage { index, address, length };
    match socket.request(1, |writer, sequence| address::add(writer, sequence.take(), &given)) {
        // The kernel says so only when address and prefix are the same.
        Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

/// Takes an address from a link. When either is gone, that is as good as taken.
pub fn remove(socket: &mut Socket, link: &str, address: Ipv4Addr, length: u8) -> Result<(), Error> {
    let removed = links::index_of(socket, link).and_then(|index| {
        let taken = AddressMessage { index, address, length };
        socket.request(1, |writer, sequence| address::delete(writer, sequence.take(), &taken))
    });
    match removed {
        Err(error) if matches!(error.errno(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
        result => result,
    }
}

/// Forgets the neighbour of this address behind a link. When either is gone, that is as good as
/// forgotten.
pub fn forget_neighbour(socket: &mut Socket, link: &str, address: Ipv4Addr) -> Result<(), Error> {
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
/// missing where others change links without end; to give it to its link once more does no harm.
pub fn observe(socket: &mut Socket) -> Result<Vec<(u32, Ipv4Addr, u8)>, Error> {
    let dumped = socket.dump_or_last(address::dump, |message| {
        let found = AddressMessage::read(message.payload)?;
        Ok(Some((found.index, found.address, found.length)))
    })?;
    Ok(dumped.items)
}

/// Reads the routes of the main table: index of the link (0 for a route that leads nowhere) and
/// destination. One may be missing where others change routes without end: then a warning of a
/// network that overlaps is.
pub fn routes(socket: &mut Socket) -> Result<Vec<(u32, Prefix)>, Error> {
    let dumped = socket.dump_or_last(route::dump, |message| {
        let route = RouteMessage::read(message.payload)?;
        let prefix = Prefix::containing(route.destination, route.length);
        Ok(prefix
            .filter(|_| route.table == TABLE_MAIN)
            .map(|prefix| (route.link.unwrap_or(0), prefix)))
    });
    match dumped {
        // Nothing was ever put into the table.
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
        dumped => dumped.map(|dumped| dumped.items),
    }
}
