//! IPv4 addresses of links: `struct ifaddrmsg` and `IFA_*` (linux/if_addr.h).

use std::net::Ipv4Addr;

use neli::consts::rtnl::{Ifa, Rtm};

use super::AF_INET;
use crate::netlink::Error;
use crate::netlink::attr::Attrs;
use crate::netlink::message::{ACK, CREATE, DUMP, EXCL, REQUEST, array_at, u32_at};
use crate::netlink::writer::Writer;

/// Bytes of `struct ifaddrmsg`: family, prefix length, flags, scope, index.
const HEADER: usize = 8;

/// An IPv4 address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressMessage {
    /// Index of the link.
    pub index: u32,
    /// The address itself.
    pub address: Ipv4Addr,
    /// Length of its prefix in bits, 0 to 32.
    pub length: u8,
}

impl AddressMessage {
    /// Reads the payload of `RTM_NEWADDR` or `RTM_DELADDR` of family `AF_INET`.
    pub fn read(payload: &[u8]) -> Result<AddressMessage, Error> {
        let [family, length, ..] = array_at::<HEADER>(payload, 0)?;
        if family != AF_INET || length > 32 {
            return Err(Error::Unknown);
        }
        let (mut local, mut address) = (None, None);
        for attr in Attrs::new(&payload[HEADER..]) {
            let attr = attr?;
            match attr.kind {
                _ if attr.is(Ifa::Local) => local = Some(Ipv4Addr::from(attr.array::<4>()?)),
                _ if attr.is(Ifa::Address) => address = Some(Ipv4Addr::from(attr.array::<4>()?)),
                _ => {}
            }
        }
        // On a point-to-point link IFA_ADDRESS is the other end's.
        let address = local.or(address).ok_or(Error::Missing)?;
        Ok(AddressMessage { index: u32_at(payload, 4)?, address, length })
    }
}

/// Asks for the IPv4 addresses of all links.
pub fn dump(writer: &mut Writer, sequence: u32) {
    let open = writer.message(Rtm::Getaddr.into(), REQUEST | DUMP, sequence);
    writer.raw(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
    writer.close_message(open);
}

/// Gives a link an address; EEXIST when it has it already.
pub fn add(writer: &mut Writer, sequence: u32, address: &AddressMessage) {
    change(writer, Rtm::Newaddr, REQUEST | CREATE | EXCL | ACK, sequence, address);
}

/// Takes an address from a link; EADDRNOTAVAIL when it does not have it.
pub fn delete(writer: &mut Writer, sequence: u32, address: &AddressMessage) {
    change(writer, Rtm::Deladdr, REQUEST | ACK, sequence, address);
}

fn change(writer: &mut Writer, kind: Rtm, flags: u16, sequence: u32, address: &AddressMessage) {
    let open = writer.message(kind.into(), flags, sequence);
    writer.raw(&[AF_INET, address.length, 0, 0]);
    writer.raw(&address.index.to_ne_bytes());
    writer.attr(Ifa::Local.into(), &address.address.octets());
    writer.attr(Ifa::Address.into(), &address.address.octets());
    writer.close_message(open);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_what_is_an_ipv4_address() {
        let attr = |kind: Ifa, value: &[u8]| {
            let mut writer = Writer::new();
            writer.attr(kind.into(), value);
            writer.finish().unwrap().to_vec()
        };
        let (local, peer) = (attr(Ifa::Local, &[10, 0, 0, 1]), attr(Ifa::Address, &[10, 0, 0, 2]));
        let read = |header: [u8; 4], attrs: &[u8]| {
            let payload = [&header[..], &3_u32.to_ne_bytes(), attrs].concat();
            AddressMessage::read(&payload).map(|found| (found.index, found.address.octets()[3]))
        };
        assert_eq!(read([2, 24, 0, 0], &local), Ok((3, 1)));
        assert_eq!(read([2, 32, 0, 0], &[&peer[..], &local].concat()), Ok((3, 1)));
        assert_eq!(read([2, 32, 0, 0], &peer), Ok((3, 2)));
        assert_eq!(read([2, 33, 0, 0], &local), Err(Error::Unknown));
        assert_eq!(read([10, 24, 0, 0], &local), Err(Error::Unknown));
        assert_eq!(read([2, 24, 0, 0], &[]), Err(Error::Missing));
        assert_eq!(read([2, 24, 0, 0], &attr(Ifa::Local, &[1, 1])), Err(Error::WrongSize));
        assert_eq!(AddressMessage::read(&[2; 7]), Err(Error::Truncated));
    }
}
