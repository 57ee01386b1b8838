//! Routes of the main table: `struct rtmsg` and `RTA_*` (linux/rtnetlink.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use neli::consts::rtnl::{Rta, Rtm};

use super::{AF_INET, AF_INET6, address_of, family};
use crate::netlink::Error;
use crate::netlink::attr::Attrs;
use crate::netlink::message::{ACK, CREATE, DUMP, EXCL, REPLACE, REQUEST, array_at, u32_at};
use crate::netlink::writer::{Open, Writer};

/// Bytes of `struct rtmsg`: family, lengths of destination and source, TOS, table, protocol,
/// scope, type, flags.
const HEADER: usize = 12;
/// `RTPROT_STATIC` (linux/rtnetlink.h): an administrator made the route.
const PROTOCOL_STATIC: u8 = 4;
/// `RT_TABLE_MAIN` (linux/rtnetlink.h).
pub const TABLE_MAIN: u32 = 254;

/// `RTAX_MTU`, `RT_SCOPE_LINK`, `RT_SCOPE_NOWHERE`, `RTN_UNICAST` (linux/rtnetlink.h).
const RTAX_MTU: u16 = 2;
const SCOPE_LINK: u8 = 253;
const SCOPE_NOWHERE: u8 = 255;
const UNICAST: u8 = 1;

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
    /// Whose it is (`RTPROT_*`).
    pub protocol: u8,
    /// Its MTU (`RTAX_MTU`), if it has one of its own.
    pub mtu: Option<u32>,
}

/// A route to one address, with an MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRoute {
    /// Index of the link it leads out by.
    pub link: u32,
    /// The address.
    pub to: IpAddr,
    /// The MTU in bytes.
    pub mtu: u32,
    /// Whose it is (`RTPROT_*`).
    pub protocol: u8,
}

impl RouteMessage {
    /// Reads the payload of `RTM_NEWROUTE` or `RTM_DELROUTE` of either family.
    pub fn read(payload: &[u8]) -> Result<RouteMessage, Error> {
        let [family, length, _, _, table, protocol, ..] = array_at::<HEADER>(payload, 0)?;
        let unspecified = match (family, length) {
            (AF_INET, 0..=32) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            (AF_INET6, 0..=128) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            _ => return Err(Error::Unknown),
        };
        let table = u32::from(table);
        let (destination, link, mtu) = (unspecified, None, None);
        let mut route = RouteMessage { table, destination, length, link, protocol, mtu };
        for attr in Attrs::new(&payload[HEADER..]) {
            let attr = attr?;
            match attr.kind {
                _ if attr.is(Rta::Dst) => route.destination = address_of(family, attr)?,
                _ if attr.is(Rta::Oif) => route.link = Some(attr.u32()?),
                // `struct rtnexthop`: length, flags, hops, index.
                _ if attr.is(Rta::Multipath) => route.link = Some(u32_at(attr.value, 4)?),
                _ if attr.is(Rta::Table) => route.table = attr.u32()?,
                _ if attr.is(Rta::Metrics) => {
                    for metric in Attrs::new(attr.value) {
                        let metric = metric?;
                        if metric.kind == RTAX_MTU {
                            route.mtu = Some(metric.u32()?);
                        }
                    }
                }
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

/// Asks which route a packet takes that comes in by the link of this index: that is looked up as if
/// it came. An errno says that it would be dropped.
pub fn ask(writer: &mut Writer, sequence: u32, from: Option<(u32, IpAddr)>, to: IpAddr) {
    let open = writer.message(Rtm::Getroute.into(), REQUEST | ACK, sequence);
    let length = if to.is_ipv4() { 32 } else { 128 };
    writer.raw(&[family(to), length, length, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    writer.attr_address(Rta::Dst.into(), to);
    if let Some((link, from)) = from {
        writer.attr_address(Rta::Src.into(), from);
        writer.attr_u32(Rta::Iif.into(), link);
    }
    writer.close_message(open);
}

/// Adds a route, or replaces one to the same address.
pub fn add(writer: &mut Writer, sequence: u32, route: &AddressRoute) {
    let flags = REQUEST | CREATE | REPLACE | ACK;
    let open = begin(writer, Rtm::Newroute, flags, sequence, route, SCOPE_LINK);
    let metrics = writer.nest(Rta::Metrics.into());
    writer.attr_u32(RTAX_MTU, route.mtu);
    writer.close(metrics);
    writer.close_message(open);
}

/// Removes a route, whatever its MTU; ESRCH when there is none.
pub fn delete(writer: &mut Writer, sequence: u32, route: &AddressRoute) {
    let open = begin(writer, Rtm::Delroute, REQUEST | ACK, sequence, route, SCOPE_NOWHERE);
    writer.close_message(open);
}

fn begin(
    writer: &mut Writer,
    kind: Rtm,
    flags: u16,
    sequence: u32,
    route: &AddressRoute,
    scope: u8,
) -> Open {
    let open = writer.message(kind.into(), flags, sequence);
    let length = if route.to.is_ipv4() { 32 } else { 128 };
    writer.raw(&[family(route.to), length, 0, 0, TABLE_MAIN as u8, route.protocol, scope, UNICAST]);
    writer.raw(&[0; 4]);
    writer.attr_address(Rta::Dst.into(), route.to);
    writer.attr_u32(Rta::Oif.into(), route.link);
    open
}

/// Adds a default route of the main table; EEXIST when there is one of this family already.
pub fn add_default(writer: &mut Writer, sequence: u32, gateway: IpAddr, link: u32) {
    let open = writer.message(Rtm::Newroute.into(), REQUEST | CREATE | EXCL | ACK, sequence);
    // The scope is the universe: the route leads anywhere.
    let (table, scope) = (TABLE_MAIN as u8, 0);
    writer.raw(&[family(gateway), 0, 0, 0, table, PROTOCOL_STATIC, scope, UNICAST, 0, 0, 0, 0]);
    writer.attr_address(Rta::Gateway.into(), gateway);
    writer.attr_u32(Rta::Oif.into(), link);
    writer.close_message(open);
}
