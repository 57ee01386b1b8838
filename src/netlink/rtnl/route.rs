//! Routes of the main table: `struct rtmsg` and `RTA_*` (linux/rtnetlink.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use neli::consts::rtnl::{Rta, Rtm};

use super::{AF_INET, AF_INET6, address_of};
use crate::netlink::Error;
use crate::netlink::attr::Attrs;
use crate::netlink::message::{DUMP, REQUEST, array_at, u32_at};
use crate::netlink::writer::Writer;

/// Bytes of `struct rtmsg`: family, lengths of destination and source, TOS, table, protocol,
/// scope, type, flags.
const HEADER: usize = 12;
/// `RT_TABLE_MAIN` (linux/rtnetlink.h).
pub const TABLE_MAIN: u32 = 254;

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteMessage {
    /// The table it is in.
    pub table: u32,
    /// The first address it leads to; with a length of 0 it is the default route.
    pub destination: IpAddr,
    /// Length of the destination's prefix in bits, 0 to 32 or to 128.
    pub length: u8,
    /// Index of the link it leads out by, the first of several. None for a route that leads
    /// nowhere, such as a blackhole.
    pub link: Option<u32>,
}

impl RouteMessage {
    /// Reads the payload of `RTM_NEWROUTE` or `RTM_DELROUTE` of either family.
    pub fn read(payload: &[u8]) -> Result<RouteMessage, Error> {
        let [family, length, _, _, table, ..] = array_at::<HEADER>(payload, 0)?;
        let unspecified = match (family, length) {
            (AF_INET, 0..=32) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            (AF_INET6, 0..=128) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            _ => return Err(Error::Unknown),
        };
        let mut route =
            RouteMessage { table: u32::from(table), destination: unspecified, length, link: None };
        for attr in Attrs::new(&payload[HEADER..]) {
            let attr = attr?;
            match attr.kind {
                _ if attr.is(Rta::Dst) => route.destination = address_of(family, attr)?,
                _ if attr.is(Rta::Oif) => route.link = Some(attr.u32()?),
                // `struct rtnexthop`: length, flags, hops, index.
                _ if attr.is(Rta::Multipath) => route.link = Some(u32_at(attr.value, 4)?),
                _ if attr.is(Rta::Table) => route.table = attr.u32()?,
                _ => {}
            }
        }
        Ok(route)
    }
}

/// Asks for the routes of a family in the main table. ENOENT when nothing was ever put into it,
/// which is how a fresh namespace answers.
pub fn dump(writer: &mut Writer, sequence: u32, family: u8) {
    let open = writer.message(Rtm::Getroute.into(), REQUEST | DUMP, sequence);
    writer.raw(&[family, 0, 0, 0, TABLE_MAIN as u8, 0, 0, 0, 0, 0, 0, 0]);
    writer.close_message(open);
}
