//! Tracked connections, ctnetlink: `CTA_*` (linux/netfilter/nfnetlink_conntrack.h) over nfnetlink.
//!
//! A connection has two tuples, one for each direction. The source of the first is the side that
//! began it, and the source of the second is the side that answers, each with its real address.
//! With NAT the destinations are translated addresses. So the owner of an address is found as one
//! of the two sources ([`End`]). A connection by an exposed port is found by the port that it was
//! sent to and the address and port that answer ([`Flows::Led`]).
//!
//! [`delete_all`] deletes by a filter (Linux 6.12). An older kernel takes the same message as the
//! deletion of one connection with an incomplete name, and refuses it with EINVAL. It never takes
//! it as the deletion of all. Older kernels can [`dump`] (with a filter since 5.8, before that
//! everything) and [`delete`] one by one.
//!
//! The kernel's filter takes IPv6 addresses the wrong way round: it matches all connections but
//! those of the address (net/netfilter/nf_conntrack_netlink.c, `ctnetlink_filter_match_tuple`,
//! since 5.8). So nothing is deleted by an IPv6 address, and a dump is of the whole family.

use std::net::IpAddr;

use super::Error;
use super::attr::{Attr, Attrs};
use super::message::{DUMP, REQUEST};
use super::nft::{FAMILY_IP, FAMILY_IP6, split};
use super::writer::{Open, Writer};

/// `NFNL_SUBSYS_CTNETLINK` (linux/netfilter/nfnetlink.h).
const SUBSYSTEM: u16 = 1;
/// `AF_UNSPEC`: of each family.
const FAMILY_ANY: u8 = 0;
// IPCTNL_MSG_CT_*.
/// A message with a connection.
#[cfg(any(test, feature = "testing"))]
pub(super) const NEW: u16 = SUBSYSTEM << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;

// CTA_*.
const TUPLE_ORIG: u16 = 1;
pub(super) const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
// CTA_TUPLE_*, CTA_IP_*, CTA_PROTO_*.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V6_SRC: u16 = 3;
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_DESTINATION_PORT: u16 = 3;
// CTA_FILTER_*: the fields of the tuple that count, as flags that no public header of the kernel
// has (`CTA_FILTER_F_CTA_IP_SRC` in net/netfilter/nf_internals.h).
const FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
const BY_SOURCE: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_SOURCE_PORT: u32 = 1 << 4;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// A selection of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flows {
    /// Connections with this address at this end.
    At(End, IpAddr),
    /// Connections of a protocol (its number in IP) that were sent to port `to` and are answered by
    /// this address and port.
    Led { protocol: u8, to: u16, from: (IpAddr, u16) },
}

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one that began it.
    Began,
    /// The one that answers.
    Answers,
}

impl Flows {
    /// The number of the family of the addresses.
    fn family(self) -> u8 {
        match self {
            Flows::At(_, IpAddr::V4(_)) | Flows::Led { from: (IpAddr::V4(_), _), .. } => FAMILY_IP,
            Flows::At(_, IpAddr::V6(_)) | Flows::Led { from: (IpAddr::V6(_), _), .. } => FAMILY_IP6,
        }
    }
}

impl End {
    /// Both ends.
    pub const BOTH: [End; 2] = [End::Began, End::Answers];

    /// The tuple whose source this end is, and the attribute of its flags in a filter.
    fn attributes(self) -> (u16, u16) {
        match self {
            End::Began => (TUPLE_ORIG, FILTER_ORIG_FLAGS),
            End::Answers => (TUPLE_REPLY, FILTER_REPLY_FLAGS),
        }
    }
}

/// The attributes by which the kernel knows a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId<'a> {
    /// The number of the family of its addresses.
    pub family: u8,
    /// The attributes of the first tuple, as received.
    pub tuple: &'a [u8],
    /// The kernel's number for it. Another connection with the same tuple has another number.
    pub id: u32,
    /// Its zone, if it is not 0.
    pub zone: Option<u16>,
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowMessage<'a> {
    /// The address of the side that began it.
    pub began: IpAddr,
    /// The address of the side that answers.
    pub answers: IpAddr,
    /// The protocol, the port that it was sent to, and the port that answers, if it has ports.
    pub ports: Option<(u8, u16, u16)>,
    /// Which one it is.
    pub id: FlowId<'a>,
}

impl<'a> FlowMessage<'a> {
    /// Reads the payload of a message about a connection.
    pub fn read(payload: &'a [u8]) -> Result<FlowMessage<'a>, Error> {
        let (family, attrs) = split(payload)?;
        if !matches!(family, FAMILY_IP | FAMILY_IP6) {
            return Err(Error::Unknown);
        }
        let (mut tuple, mut reply, mut id, mut zone) = (None, None, None, None);
        for attr in Attrs::new(attrs) {
            let attr = attr?;
            match attr.kind {
                TUPLE_ORIG => tuple = Some(attr),
                TUPLE_REPLY => reply = Some(attr),
                ID => id = Some(attr.be32()?),
                ZONE => zone = Some(attr.array().map(u16::from_be_bytes)?),
                _ => {}
            }
        }
        let (tuple, reply) = (tuple.ok_or(Error::Missing)?, reply.ok_or(Error::Missing)?);
        let to = protocol(tuple, PROTO_DESTINATION_PORT);
        let from = protocol(reply, PROTO_SOURCE_PORT);
        Ok(FlowMessage {
            began: source(tuple)?,
            answers: source(reply)?,
            ports: to.zip(from).map(|((protocol, to), (_, from))| (protocol, to, from)),
            id: FlowId { family, tuple: tuple.value, id: id.ok_or(Error::Missing)?, zone },
        })
    }

    /// Whether the connection matches.
    pub fn is_of(&self, flows: Flows) -> bool {
        match flows {
            Flows::At(End::Began, address) => self.began == address,
            Flows::At(End::Answers, address) => self.answers == address,
            Flows::Led { protocol, to, from: (address, port) } => {
                self.answers == address && self.ports == Some((protocol, to, port))
            }
        }
    }
}

/// The source address of a tuple.
fn source(tuple: Attr<'_>) -> Result<IpAddr, Error> {
    let nest = find(tuple, TUPLE_IP)?;
    match find(nest, IP_V4_SRC) {
        Err(Error::Missing) => find(nest, IP_V6_SRC)?.array::<16>().map(IpAddr::from),
        found => found?.array::<4>().map(IpAddr::from),
    }
}

/// The protocol of a tuple and one of its ports, if it has ports.
fn protocol(tuple: Attr<'_>, port: u16) -> Option<(u8, u16)> {
    let nest = find(tuple, TUPLE_PROTO).ok()?;
    let number = find(nest, PROTO_NUMBER).and_then(|attr| attr.array::<1>()).ok()?;
    let port = find(nest, port).and_then(|attr| attr.array()).ok()?;
    Some((number[0], u16::from_be_bytes(port)))
}

/// The first attribute of a kind that is nested in another.
fn find(nest: Attr<'_>, kind: u16) -> Result<Attr<'_>, Error> {
    for attr in nest.nested()? {
        let attr = attr?;
        if attr.kind == kind {
            return Ok(attr);
        }
    }
    Err(Error::Missing)
}

/// Deletes all of these connections, which are IPv4. Asks for no acknowledgement, but the kernel
/// still answers an error.
pub fn delete_all(writer: &mut Writer, sequence: u32, flows: Flows) {
    if flows.family() != FAMILY_IP {
        return writer.refuse(Error::Unknown);
    }
    let open = begin(writer, DELETE, REQUEST, sequence, flows.family());
    write_filter(writer, flows);
    writer.close_message(open);
}

/// Asks for all of these connections. A kernel without filters answers with all connections, and
/// every kernel with all IPv6 connections if these are IPv6.
pub fn dump(writer: &mut Writer, sequence: u32, flows: Flows) {
    let open = begin(writer, GET, REQUEST | DUMP, sequence, flows.family());
    if flows.family() == FAMILY_IP {
        write_filter(writer, flows);
    }
    writer.close_message(open);
}

/// Asks for all connections, of IPv4 and IPv6.
pub fn dump_all(writer: &mut Writer, sequence: u32) {
    let open = begin(writer, GET, REQUEST | DUMP, sequence, FAMILY_ANY);
    writer.close_message(open);
}

/// Asks for all IPv6 connections.
pub fn dump_ipv6(writer: &mut Writer, sequence: u32) {
    let open = begin(writer, GET, REQUEST | DUMP, sequence, FAMILY_IP6);
    writer.close_message(open);
}

fn begin(writer: &mut Writer, kind: u16, flags: u16, sequence: u32, family: u8) -> Open {
    let open = writer.message(SUBSYSTEM << 8 | kind, flags, sequence);
    writer.raw(&[family, 0, 0, 0]);
    open
}

/// Deletes one connection; ENOENT when it is gone. Asks for no acknowledgement.
pub fn delete(writer: &mut Writer, sequence: u32, flow: FlowId<'_>) {
    let open = writer.message(SUBSYSTEM << 8 | DELETE, REQUEST, sequence);
    writer.raw(&[flow.family, 0, 0, 0]);
    let nest = writer.nest(TUPLE_ORIG);
    writer.raw(flow.tuple);
    writer.close(nest);
    writer.attr_be32(ID, flow.id);
    if let Some(zone) = flow.zone {
        writer.attr(ZONE, &zone.to_be_bytes());
    }
    writer.close_message(open);
}

fn write_filter(writer: &mut Writer, flows: Flows) {
    match flows {
        Flows::At(end, address) => {
            let (tuple, filter_flags) = end.attributes();
            let nest = writer.nest(tuple);
            write_source(writer, address);
            writer.close(nest);
            let filter = writer.nest(FILTER);
            writer.attr_u32(filter_flags, BY_SOURCE);
            writer.close(filter);
        }
        Flows::Led { protocol, to, from: (address, port) } => {
            let nest = writer.nest(TUPLE_ORIG);
            write_protocol(writer, protocol, PROTO_DESTINATION_PORT, to);
            writer.close(nest);
            let nest = writer.nest(TUPLE_REPLY);
            write_source(writer, address);
            write_protocol(writer, protocol, PROTO_SOURCE_PORT, port);
            writer.close(nest);
            let filter = writer.nest(FILTER);
            writer.attr_u32(FILTER_ORIG_FLAGS, BY_PROTOCOL | BY_DESTINATION_PORT);
            writer.attr_u32(FILTER_REPLY_FLAGS, BY_SOURCE | BY_PROTOCOL | BY_SOURCE_PORT);
            writer.close(filter);
        }
    }
}

fn write_source(writer: &mut Writer, address: IpAddr) {
    let nest = writer.nest(TUPLE_IP);
    writer.attr_address(if address.is_ipv4() { IP_V4_SRC } else { IP_V6_SRC }, address);
    writer.close(nest);
}

fn write_protocol(writer: &mut Writer, protocol: u8, which: u16, port: u16) {
    let nest = writer.nest(TUPLE_PROTO);
    writer.attr_u8(PROTO_NUMBER, protocol);
    writer.attr(which, &port.to_be_bytes());
    writer.close(nest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::same;

    #[test]
    fn numbers_are_the_kernels() {
        same! { SUBSYSTEM => libc::NFNL_SUBSYS_CTNETLINK }
    }
}
