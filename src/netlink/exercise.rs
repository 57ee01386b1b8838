//! Bodies of fuzz targets: each takes any bytes, and panics where this module breaks a promise.

use super::attr::{Attrs, HEADER};
use super::conntrack::FlowMessage;
use super::message::{Message, Messages};
use super::nft;
use super::rtnl::Notice;
use super::rtnl::address::AddressMessage;
use super::rtnl::link::LinkMessage;
use super::rtnl::neighbour::NeighbourMessage;
use super::rtnl::route::RouteMessage;

/// Reads everything as everything: whatever the bytes are, they are taken for a datagram, each
/// message in it for every kind of message, and each value for every type.
pub fn datagram(datagram: &[u8]) {
    payload(datagram);
    let mut left = datagram.len();
    for message in Messages::new(datagram).flatten() {
        let whole = super::message::HEADER + message.payload.len();
        left = left.checked_sub(whole).expect("messages do not overlap");
        one(&message);
    }
}

fn one(message: &Message<'_>) {
    if let Ok(answer) = message.answer() {
        assert!(answer.errno >= 0);
    }
    let _ = Notice::read(message);
    let _ = nft::notice::Notice::read(message);
    payload(message.payload);
    nft::exercise(message.payload);
}

fn payload(bytes: &[u8]) {
    if let Ok(link) = LinkMessage::read(bytes) {
        assert!(link.index != 0 && !link.name.is_empty());
        assert!(!link.name.contains(&0) && !link.alias.unwrap_or_default().contains(&0));
    }
    let lengths = [
        AddressMessage::read(bytes).map(|address| address.length),
        RouteMessage::read(bytes).map(|route| route.length),
    ];
    assert!(lengths.into_iter().flatten().all(|length| length <= 32));
    let _ = NeighbourMessage::read(bytes);
    let _ = FlowMessage::read(bytes);
    // Attributes begin after a header of one of these sizes (`struct nfgenmsg` is the smallest).
    for start in [0, 4, 8, 12, 16] {
        attributes(Attrs::new(bytes.get(start..).unwrap_or_default()), bytes.len());
    }
}

fn attributes(attrs: Attrs<'_>, mut left: usize) {
    for attr in attrs.flatten() {
        left = left.checked_sub(HEADER + attr.value.len()).expect("attributes do not overlap");
        assert!(attr.string().len() <= attr.value.len());
        let _ = (attr.u8(), attr.u16(), attr.u32(), attr.be32(), attr.be64(), attr.text());
        if let Ok(inner) = attr.nested() {
            attributes(inner, attr.value.len());
        }
    }
}
