//! Switches of IPv4 that links have: `struct netconfmsg` and `NETCONFA_*` (linux/netconf.h).

use super::AF_INET;
use crate::netlink::Error;
use crate::netlink::attr::Attrs;
use crate::netlink::message::array_at;

/// Bytes of `struct netconfmsg`, padded.
const HEADER: usize = 4;

// NETCONFA_*: linux/netconf.h.
const IFINDEX: u16 = 1;
const FORWARDING: u16 = 2;
/// `NETCONFA_IFINDEX_ALL`: the switch of the whole namespace.
const INDEX_ALL: u32 = u32::MAX;

/// News of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetconfMessage {
    /// Whether the namespace forwards IPv4 (`net.ipv4.ip_forward`), where the message is of that.
    pub forwarding: Option<bool>,
}

impl NetconfMessage {
    /// Reads the payload of `RTM_NEWNETCONF` of family `AF_INET`.
    pub fn read(payload: &[u8]) -> Result<NetconfMessage, Error> {
        let [family, ..] = array_at::<HEADER>(payload, 0)?;
        if family != AF_INET {
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
        Ok(NetconfMessage { forwarding: forwarding.filter(|_| index == Some(INDEX_ALL)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::writer::Writer;

    #[test]
    fn only_the_switch_of_the_namespace_counts() {
        let read = |family: u8, index: i32, value: u32| {
            let mut writer = Writer::new();
            writer.raw(&[family, 0, 0, 0]);
            writer.attr(IFINDEX, &index.to_ne_bytes());
            writer.attr(FORWARDING, &value.to_ne_bytes());
            NetconfMessage::read(writer.finish().unwrap()).map(|message| message.forwarding)
        };
        assert_eq!(read(AF_INET, -1, 1), Ok(Some(true)));
        assert_eq!(read(AF_INET, -1, 0), Ok(Some(false)));
        assert_eq!(read(AF_INET, 4, 0), Ok(None));
        assert_eq!(read(10, -1, 0), Err(Error::Unknown));
        assert_eq!(NetconfMessage::read(&[2, 0, 0]), Err(Error::Truncated));
    }
}
