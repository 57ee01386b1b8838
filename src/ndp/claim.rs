//! The question of a guest that tells which address it wants to use, or uses.

use std::net::Ipv6Addr;

use super::{HOP_LIMIT, Options};
use crate::model::mac::Mac;
use crate::packet::Malformed;
use crate::packet::v6::{
    self, ALL_NODES, Content, Endpoints, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, Packet,
};

/// Bytes of the reserved field, and of the target after it.
const RESERVED: usize = 4;
const TARGET: usize = 16;
/// An advertisement that nobody asked for by an address replaces what is known (RFC 4861, 4.4).
const OVERRIDE: u8 = 0x20;
/// The link-layer address of the target (RFC 4861, 4.6.1).
const TARGET_LINK_LAYER: u8 = 2;

/// A neighbour solicitation, as far as it tells of the guest. See [`crate::engine::claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The guest's Ethernet address.
    pub mac: Mac,
    /// The address: the sender's, or that which a guest without an address asks for (RFC 4862,
    /// 5.4.2).
    pub address: Ipv6Addr,
    /// Whether the guest does not use the address yet, and waits for an answer.
    pub tentative: bool,
}

impl Claim {
    /// Reads the frame of a guest, with the checks of RFC 4861, 7.1.1.
    pub fn read(frame: &[u8]) -> Result<Claim, Malformed> {
        let packet = v6::parse(frame)?;
        let Content::Icmp { kind: NEIGHBOUR_SOLICITATION, code: 0, body } = packet.content else {
            return Err(Malformed::NotOurs);
        };
        let head = body.get(RESERVED..).and_then(|rest| rest.split_first_chunk::<TARGET>());
        let (target, options) = head.ok_or(Malformed::Cut)?;
        for option in Options(options) {
            option?;
        }
        let source = packet.addresses.source;
        let tentative = source.is_unspecified();
        let address = if tentative { (*target).into() } else { source };
        let (mac, is_usable) = (packet.addresses.from, !address.is_multicast());
        match packet.hop_limit == HOP_LIMIT && is_usable && !address.is_unspecified() {
            true => Ok(Claim { mac, address, tentative }),
            false => Err(Malformed::NotOurs),
        }
    }

    /// The frame that tells the guest that a neighbour has the address. It is from the guest's
    /// router.
    pub fn refusal(&self, router: Mac) -> Vec<u8> {
        let mut body = vec![OVERRIDE, 0, 0, 0];
        body.extend(self.address.octets());
        body.extend([TARGET_LINK_LAYER, 1]);
        body.extend(router.0);
        v6::build(&Packet {
            addresses: Endpoints {
                from: router,
                to: self.mac,
                source: router.link_local(),
                destination: ALL_NODES,
            },
            hop_limit: HOP_LIMIT,
            content: Content::Icmp { kind: NEIGHBOUR_ADVERTISEMENT, code: 0, body: &body },
        })
    }
}
