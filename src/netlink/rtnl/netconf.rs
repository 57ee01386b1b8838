//! Switches of IPv4 and IPv6 that links have: `struct netconfmsg` and `NETCONFA_*`
//! (linux/netconf.h).

use neli::consts::rtnl::Rtm;

use super::{AF_INET, AF_INET6};
use crate::netlink::Error;
use crate::netlink::attr::Attrs;
use crate::netlink::message::{DUMP, REQUEST, array_at};
use crate::netlink::writer::Writer;

/// Bytes of `struct netconfmsg`, padded.
const HEADER: usize = 4;

// NETCONFA_*: linux/netconf.h.
const IFINDEX: u16 = 1;
const FORWARDING: u16 = 2;
/// `NETCONFA_IFINDEX_ALL`: the switch of the whole namespace.
const INDEX_ALL: u32 = u32::MAX;
/// `NETCONFA_IFINDEX_DEFAULT`: the switch that links have which are made later.
const INDEX_DEFAULT: u32 = u32::MAX - 1;

/// A switch, as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetconfMessage {
    /// Whose it is.
    pub of: Owner,
    /// The family that it is about.
    pub family: u8,
    /// Whether packets of the family are forwarded, if the message says it.
    pub forwarding: Option<bool>,
}

/// Whose a switch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The namespace (`net.ipv4.ip_forward`). To turn it turns those of all links.
    Namespace,
    /// Links that are made later.
    Later,
    /// The link with this index: what comes in by it.
    Link(u32),
}

impl NetconfMessage {
    /// Reads the payload of `RTM_NEWNETCONF` of either family.
    pub fn read(payload: &[u8]) -> Result<NetconfMessage, Error> {
        let [family, ..] = array_at::<HEADER>(payload, 0)?;
        if !matches!(family, AF_INET | AF_INET6) {
            return Err(Error::Unknown);
        }
        let (mut index, mut forwarding) = (None, None);
        for attr in Attrs::new(&payload[HEADER..]) {
            let attr = attr?;
            match attr.kind {
                IFINDEX => index = Some(attr.u32()?),
                FORWARDING => forwarding = Some(attr.u32()? != 0),
                _ => {}
            }
        }
        let of = match index.ok_or(Error::Missing)? {
            INDEX_ALL => Owner::Namespace,
            INDEX_DEFAULT => Owner::Later,
            link => Owner::Link(link),
        };
        Ok(NetconfMessage { of, family, forwarding })
    }
}

/// Asks for the switches of a family (`AF_*`): those of the namespace and of all links.
pub fn dump(writer: &mut Writer, sequence: u32, family: u8) {
    let open = writer.message(Rtm::Getnetconf.into(), REQUEST | DUMP, sequence);
    writer.raw(&[family, 0, 0, 0]);
    writer.close_message(open);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_of_the_namespace_or_of_a_link() {
        let read = |family: u8, index: i32, value: u32| {
            let mut writer = Writer::new();
            writer.raw(&[family, 0, 0, 0]);
            writer.attr(IFINDEX, &index.to_ne_bytes());
            writer.attr(FORWARDING, &value.to_ne_bytes());
            NetconfMessage::read(writer.finish().unwrap())
        };
        let switch = |of, on| Ok(NetconfMessage { of, family: AF_INET, forwarding: Some(on) });
        assert_eq!(read(AF_INET, -1, 1), switch(Owner::Namespace, true));
        assert_eq!(read(AF_INET, -1, 0), switch(Owner::Namespace, false));
        assert_eq!(read(AF_INET, -2, 0), switch(Owner::Later, false));
        assert_eq!(read(AF_INET, 4, 0), switch(Owner::Link(4), false));
        let six =
            NetconfMessage { of: Owner::Namespace, family: AF_INET6, forwarding: Some(false) };
        assert_eq!(read(AF_INET6, -1, 0), Ok(six));
        assert_eq!(read(7, -1, 0), Err(Error::Unknown));
        assert_eq!(NetconfMessage::read(&[2, 0, 0]), Err(Error::Truncated));
        assert_eq!(NetconfMessage::read(&[2, 0, 0, 0]), Err(Error::Missing));
    }
}
