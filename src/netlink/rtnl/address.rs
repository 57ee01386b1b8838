//! IP addresses of links: `struct ifaddrmsg` and `IFA_*` (linux/if_addr.h).

use std::net::IpAddr;

use neli::consts::rtnl::{Ifa, Rtm};

use super::{AF_INET, AF_INET6, address_of, family};
use crate::netlink::Error;
use crate::netlink::attr::Attrs;
use crate::netlink::message::{ACK, CREATE, DUMP, EXCL, REQUEST, array_at, u32_at};
use crate::netlink::writer::Writer;

/// Bytes of `struct ifaddrmsg`: family, prefix length, flags, scope, index.
const HEADER: usize = 8;

/// `IFA_F_NODAD`: the kernel uses an IPv6 address at once. Otherwise it first looks whether a
/// neighbour has it, which takes a second, and on a bridge without ports for ever.
const NODAD: u8 = 2;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressMessage {
    /// Index of the link.
    pub index: u32,
    /// The address itself.
    pub address: IpAddr,
    /// Length of its prefix in bits, 0 to 32 or to 128.
    pub length: u8,
}

impl AddressMessage {
    /// Reads the payload of `RTM_NEWADDR` or `RTM_DELADDR` of either family.
    pub fn read(payload: &[u8]) -> Result<AddressMessage, Error> {
        let [family, length, ..] = array_at::<HEADER>(payload, 0)?;
        if !matches!((family, length), (AF_INET, 0..=32) | (AF_INET6, 0..=128)) {
            return Err(Error::Unknown);
        }
        let (mut local, mut address) = (None, None);
        for attr in Attrs::new(&payload[HEADER..]) {
            let attr = attr?;
            match attr.kind {
                _ if attr.is(Ifa::Local) => local = Some(address_of(family, attr)?),
                _ if attr.is(Ifa::Address) => address = Some(address_of(family, attr)?),
                _ => {}
            }
        }
        // On a point-to-point link IFA_ADDRESS is the other end's.
        let address = local.or(address).ok_or(Error::Missing)?;
        Ok(AddressMessage { index: u32_at(payload, 4)?, address, length })
    }
}

/// Asks for the addresses of a family of all links.
pub fn dump(writer: &mut Writer, sequence: u32, family: u8) {
    let open = writer.message(Rtm::Getaddr.into(), REQUEST | DUMP, sequence);
    writer.raw(&[family, 0, 0, 0, 0, 0, 0, 0]);
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
    let flags = if address.address.is_ipv6() { NODAD } else { 0 };
    writer.raw(&[family(address.address), address.length, flags, 0]);
    writer.raw(&address.index.to_ne_bytes());
    writer.attr_address(Ifa::Local.into(), address.address);
    writer.attr_address(Ifa::Address.into(), address.address);
    writer.close_message(open);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_what_is_an_address() {
        let attr = |kind: Ifa, value: &[u8]| {
            let mut writer = Writer::new();
            writer.attr(kind.into(), value);
            writer.finish().unwrap().to_vec()
        };
        let (local, peer) = (attr(Ifa::Local, &[10, 0, 0, 1]), attr(Ifa::Address, &[10, 0, 0, 2]));
        let read = |header: [u8; 4], attrs: &[u8]| {
            let payload = [&header[..], &3_u32.to_ne_bytes(), attrs].concat();
            let found = AddressMessage::read(&payload)?;
            Ok((found.index, found.address.to_string()))
        };
        let four = |last: u8| Ok((3, format!("10.0.0.{last}")));
        let six = attr(Ifa::Address, &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(read([2, 24, 0, 0], &local), four(1));
        assert_eq!(read([2, 32, 0, 0], &[&peer[..], &local].concat()), four(1));
        assert_eq!(read([2, 32, 0, 0], &peer), four(2));
        assert_eq!(read([2, 33, 0, 0], &local), Err(Error::Unknown));
        assert_eq!(read([10, 64, 0, 0], &six), Ok((3, "fd00::1".to_string())));
        assert_eq!(read([10, 129, 0, 0], &six), Err(Error::Unknown));
        assert_eq!(read([7, 24, 0, 0], &local), Err(Error::Unknown));
        assert_eq!(read([10, 24, 0, 0], &local), Err(Error::WrongSize));
        assert_eq!(read([2, 24, 0, 0], &[]), Err(Error::Missing));
        assert_eq!(read([2, 24, 0, 0], &attr(Ifa::Local, &[1, 1])), Err(Error::WrongSize));
        assert_eq!(AddressMessage::read(&[2; 7]), Err(Error::Truncated));
    }
}
