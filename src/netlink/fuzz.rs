//! Bodies of fuzz targets. Each takes any bytes, and panics if this module breaks a promise.

mod tree;

use std::hint::black_box;
use std::net::IpAddr;

use neli::consts::nl::{Nlmsg, NlmsgerrAttr};
use neli::consts::rtnl::Rtm;

use super::attr::{Attrs, HEADER};
use super::conntrack::{self, FlowMessage};
use super::message::{self, ACK_TLVS, CAPPED, Message, Messages};
use super::nft::{self, Kind, batch::Generation, element, object};
use super::rtnl::Notice;
use super::rtnl::address::AddressMessage;
use super::rtnl::link::{LinkMessage, PortMessage};
use super::rtnl::neighbour::NeighbourMessage;
use super::rtnl::netconf::NetconfMessage;
use super::rtnl::route::RouteMessage;
use super::rtnl::stats::StatsMessage;
use super::writer::Writer;
use crate::fuzz::Choices;
use tree::Tree;

/// Reads everything as everything: whatever the bytes are, they are taken for a datagram, each
/// message in it for every kind of message, and each value for every type.
pub fn datagram(datagram: &[u8]) {
    payload(datagram);
    let mut left = datagram.len();
    for message in Messages::new(datagram).flatten() {
        let whole = message::HEADER + message.payload.len();
        left = left.checked_sub(whole).expect("messages do not overlap");
        one(&message);
    }
}

/// Messages of rtnetlink with attributes of any kind in any order, each with the bytes of its
/// fixed header, are read as they were written.
pub fn rtnetlink(bytes: &[u8]) {
    of_rtnetlink(bytes, one);
}

/// Reads messages of rtnetlink and hands each over.
pub(crate) fn of_rtnetlink(bytes: &[u8], each: impl FnMut(&Message<'_>)) {
    let kinds = [
        (Rtm::Newlink, 16),
        (Rtm::Dellink, 16),
        (Rtm::Newaddr, 8),
        (Rtm::Deladdr, 8),
        (Rtm::Newneigh, 12),
        (Rtm::Delneigh, 12),
        (Rtm::Newroute, 12),
        (Rtm::Delroute, 12),
        (Rtm::Newnetconf, 4),
        (Rtm::Newqdisc, 20),
        (Rtm::Delqdisc, 20),
    ];
    let kinds = kinds.map(|(kind, header)| (u16::from(kind), header));
    well_formed(bytes, &kinds, each);
}

/// So are messages of nf_tables.
pub fn nf_tables(bytes: &[u8]) {
    of_nf_tables(bytes, one);
}

/// Reads messages of nf_tables and hands each over.
pub(crate) fn of_nf_tables(bytes: &[u8], each: impl FnMut(&Message<'_>)) {
    const KINDS: [(u16, usize); 7] = [
        (Kind::NewTable.message(), nft::HEADER),
        (Kind::NewChain.message(), nft::HEADER),
        (Kind::NewRule.message(), nft::HEADER),
        (Kind::NewSet.message(), nft::HEADER),
        (Kind::NewSetElem.message(), nft::HEADER),
        (Kind::NewGen.message(), nft::HEADER),
        (nft::trace::TRACE, nft::HEADER),
    ];
    well_formed(bytes, &KINDS, each);
}

/// So are connections; and what names one to the kernel is its own tuple, so that no other is
/// deleted.
pub fn connections(bytes: &[u8]) {
    well_formed(bytes, &[(conntrack::NEW, nft::HEADER)], |message| {
        let Ok(flow) = FlowMessage::read(message.payload) else { return };
        let mut writer = Writer::new();
        conntrack::delete(&mut writer, 1, flow.id);
        let deletion = Messages::new(writer.finish().expect("it fits")).next();
        let mut payload =
            deletion.expect("it was written").expect("it is well-formed").payload.to_vec();
        // With the other tuple it is the connection again.
        let attrs = Attrs::new(&message.payload[nft::HEADER..]).flatten();
        for reply in attrs.filter(|attr| attr.kind == conntrack::TUPLE_REPLY) {
            let mut writer = Writer::new();
            writer.attr(reply.kind, reply.value);
            payload.extend(writer.finish().expect("it fits"));
        }
        assert_eq!(FlowMessage::read(&payload), Ok(flow));
    });
}

/// Writes messages of these kinds and fixed headers, reads them and hands each over.
fn well_formed(bytes: &[u8], kinds: &[(u16, usize)], mut each: impl FnMut(&Message<'_>)) {
    let mut choices = Choices::new(bytes);
    let mut writer = Writer::new();
    let mut written = Vec::new();
    while !choices.is_empty() {
        let (kind, header) = choices.one_of(kinds);
        let open = writer.message(kind, 0, written.len() as u32);
        let fixed = choices.bytes(header);
        writer.raw(fixed);
        writer.raw(&[0; 20][..header - fixed.len()]);
        let tree = Tree::read(&mut choices);
        tree.write(&mut writer);
        writer.close_message(open);
        written.push((kind, header, tree));
    }
    // A nest can be longer than its length can say.
    let Ok(bytes) = writer.finish() else { return };
    let mut messages = Messages::new(bytes);
    for (sequence, (kind, header, tree)) in (0..).zip(written) {
        let message = messages.next().expect("it was written").expect("it is well-formed");
        assert_eq!((message.kind, message.sequence), (kind, sequence));
        tree.check(Attrs::new(&message.payload[header..]));
        each(&message);
    }
    assert!(messages.next().is_none());
}

/// The errno and the kernel's words are found whatever else stands in an answer.
pub fn ext_ack(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let kind = choices.one_of(&[Nlmsg::Error, Nlmsg::Done]);
    let flags = choices.one_of(&[ACK_TLVS | CAPPED, ACK_TLVS, CAPPED, 0]);
    let code = i32::from_ne_bytes(choices.array());
    let echoed = choices.byte();
    let echoed = choices.bytes(echoed.into());
    let tree = Tree::read(&mut choices);
    let mut writer = Writer::new();
    let open = writer.message(kind.into(), flags, 1);
    writer.raw(&code.to_ne_bytes());
    if kind == Nlmsg::Error {
        let request = writer.message(Rtm::Newlink.into(), message::REQUEST, 1);
        if flags & CAPPED == 0 {
            writer.raw(echoed);
        }
        writer.close_message(request);
    }
    tree.write(&mut writer);
    writer.close_message(open);
    let Ok(bytes) = writer.finish() else { return };
    let message = Messages::new(bytes).next().expect("it was written").expect("it is well-formed");
    let text = |value: &[u8]| {
        let text = value.split(|&byte| byte == 0).next()?;
        Some(std::str::from_utf8(text).ok()?.to_owned())
    };
    match (message.answer(), tree.first(NlmsgerrAttr::Msg.into()).filter(|_| flags & ACK_TLVS != 0))
    {
        (Err(_), _) => assert!(code > 0 || code == i32::MIN),
        (Ok(answer), Some(Err(()))) => assert_eq!(answer.errno, -code),
        (Ok(answer), words) => {
            let words = words.and_then(Result::ok).and_then(text);
            assert_eq!((answer.errno, answer.words), (-code, words.as_deref()));
        }
    }
}

/// Reads a message as each of the things that it could be.
fn one(message: &Message<'_>) {
    if let Ok(answer) = message.answer() {
        assert!(answer.errno >= 0);
    }
    let _ = Notice::read(message);
    let _ = nft::notice::Notice::read(message);
    if let Ok(Some(told)) = nft::trace::TraceMessage::read(message) {
        let headers: usize = told.headers.iter().map(|header| header.len()).sum();
        assert!(headers <= message.payload.len());
    }
    payload(message.payload);
}

fn payload(bytes: &[u8]) {
    rtnetlink_payload(bytes);
    nf_tables_payload(bytes);
    let _ = FlowMessage::read(bytes);
    let _ = StatsMessage::read(bytes);
    // Attributes begin after a header of one of these sizes (`struct nfgenmsg` is the smallest).
    for start in [0, 4, 8, 12, 16] {
        attributes(Attrs::new(bytes.get(start..).unwrap_or_default()), bytes.len());
    }
}

fn rtnetlink_payload(bytes: &[u8]) {
    if let Ok(link) = LinkMessage::read(bytes) {
        assert!(link.index != 0 && !link.name.is_empty());
        assert!(!link.name.contains(&0) && !link.alias.unwrap_or_default().contains(&0));
    }
    let prefixes = [
        AddressMessage::read(bytes).map(|read| (read.address, read.length)),
        RouteMessage::read(bytes).map(|read| (read.destination, read.length)),
    ];
    let fits = |(address, length): (IpAddr, u8)| length <= if address.is_ipv4() { 32 } else { 128 };
    assert!(prefixes.into_iter().flatten().all(fits));
    let _ = (PortMessage::read(bytes), NeighbourMessage::read(bytes), NetconfMessage::read(bytes));
}

fn nf_tables_payload(bytes: &[u8]) {
    let _ = (object::TableMessage::read(bytes), object::ChainMessage::read(bytes));
    let _ = (object::SetMessage::read(bytes), Generation::read(bytes));
    if let Ok(rule) = object::RuleMessage::read(bytes) {
        for expression in rule.expressions().flatten() {
            let _ = expression.matched_link();
        }
        let _ = (rule.comment(), rule.tag());
    }
    let _ = element::read(bytes, |key, with, flags| {
        black_box((key, with, flags));
        Ok(())
    });
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
