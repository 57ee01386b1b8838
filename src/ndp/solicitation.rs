//! The question of a guest for its router.

use std::net::Ipv6Addr;

use super::{HOP_LIMIT, Options, SOURCE_LINK_LAYER};
use crate::model::mac::Mac;
use crate::packet::Malformed;
use crate::packet::v6::{self, Content, ROUTER_SOLICITATION};

/// Bytes before its options.
const RESERVED: usize = 4;

/// A router solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// The guest's Ethernet address.
    pub mac: Mac,
    /// Its address; `None` if it has none yet.
    pub source: Option<Ipv6Addr>,
}

impl Solicitation {
    /// Reads the frame of a guest, with the checks of RFC 4861, 6.1.1.
    pub fn read(frame: &[u8]) -> Result<Solicitation, Malformed> {
        let packet = v6::parse(frame)?;
        let Content::Icmp { kind: ROUTER_SOLICITATION, code: 0, body } = packet.content else {
            return Err(Malformed::NotOurs);
        };
        let source = packet.addresses.source;
        if packet.hop_limit != HOP_LIMIT || source.is_multicast() {
            return Err(Malformed::NotOurs);
        }
        let options = body.get(RESERVED..).ok_or(Malformed::Cut)?;
        for option in Options(options) {
            let (kind, _) = option?;
            if kind == SOURCE_LINK_LAYER && source.is_unspecified() {
                return Err(Malformed::NotOurs);
            }
        }
        let source = Some(source).filter(|source| !source.is_unspecified());
        Ok(Solicitation { mac: packet.addresses.from, source })
    }
}
