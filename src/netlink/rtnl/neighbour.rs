//! Neighbours, which ARP and NDP find: `struct ndmsg` and `NDA_*` (linux/neighbour.h).

use std::net::IpAddr;

use neli::consts::rtnl::{Nda, Rtm};

use super::{AF_INET, AF_INET6, address_of, family};
use crate::netlink::Error;
use crate::netlink::attr::Attrs;
use crate::netlink::message::{ACK, DUMP, REQUEST, array_at, u16_at, u32_at};
use crate::netlink::writer::Writer;

/// Bytes of `struct ndmsg`: family, padding, index, state, flags, type.
const HEADER: usize = 12;

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourMessage {
    /// Index of the link it is behind.
    pub index: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address, where that is known.
    pub mac: Option<[u8; 6]>,
    /// `NUD_*` (linux/neighbour.h): a bit each; 2 reachable, 4 stale, 32 failed, 128 permanent.
    pub state: u16,
}

impl NeighbourMessage {
    /// Reads the payload of `RTM_NEWNEIGH` or `RTM_DELNEIGH` of either family.
    pub fn read(payload: &[u8]) -> Result<NeighbourMessage, Error> {
        let [family, ..] = array_at::<HEADER>(payload, 0)?;
        if !matches!(family, AF_INET | AF_INET6) {
            return Err(Error::Unknown);
        }
        let (mut address, mut mac) = (None, None);
        for attr in Attrs::new(&payload[HEADER..]) {
            let attr = attr?;
            match attr.kind {
                _ if attr.is(Nda::Dst) => address = Some(address_of(family, attr)?),
                _ if attr.is(Nda::Lladdr) => mac = attr.array().ok(),
                _ => {}
            }
        }
        let address = address.ok_or(Error::Missing)?;
        Ok(NeighbourMessage {
            index: u32_at(payload, 4)?,
            address,
            mac,
            state: u16_at(payload, 8)?,
        })
    }
}

/// Asks for the IPv4 neighbours behind one link. The filter is an attribute: a dump whose header
/// has an index is refused.
pub fn dump(writer: &mut Writer, sequence: u32, index: u32) {
    let open = writer.message(Rtm::Getneigh.into(), REQUEST | DUMP, sequence);
    writer.raw(&[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    writer.attr_u32(Nda::Ifindex.into(), index);
    writer.close_message(open);
}

/// Forgets a neighbour; ENOENT when it is not known.
pub fn delete(writer: &mut Writer, sequence: u32, index: u32, address: IpAddr) {
    let open = writer.message(Rtm::Delneigh.into(), REQUEST | ACK, sequence);
    writer.raw(&[family(address), 0, 0, 0]);
    writer.raw(&index.to_ne_bytes());
    writer.raw(&[0; 4]);
    writer.attr_address(Nda::Dst.into(), address);
    writer.close_message(open);
}
