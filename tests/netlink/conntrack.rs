//! The conntrack codec against bytes that conntrack(8) and the kernel exchanged
//! (`golden/capture.sh`), and against bytes put together by hand where conntrack(8) has no such
//! request.

use std::net::{IpAddr, Ipv4Addr};

use crate::golden;
use volnet::netlink::Error;
use volnet::netlink::attr::Attrs;
use volnet::netlink::conntrack::{self, End, FlowId, FlowMessage, Flows};
use volnet::netlink::message::{Message, Messages, REQUEST};
use volnet::netlink::writer::Writer;

/// `NFNL_SUBSYS_CTNETLINK << 8`, and in it the messages that make and delete a connection.
const NEW: u16 = 0x100;
const DELETE: u16 = 0x102;
/// Bytes of `struct nfgenmsg`.
const NFGENMSG: usize = 4;
const TUPLE_ORIG: u16 = 1;

const GUEST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 127, 9));

fn messages(datagrams: &[Vec<u8>]) -> Vec<Message<'_>> {
    datagrams.iter().flat_map(|bytes| Messages::new(bytes)).map(Result::unwrap).collect()
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.finish().unwrap().to_vec()
}

#[test]
fn reads_connections_by_their_ends() {
    let golden = golden::read("conntrack/delete");
    let messages = messages(&golden.received);
    let found: Vec<_> = messages
        .iter()
        .filter(|message| message.kind == NEW)
        .map(|message| FlowMessage::read(message.payload).unwrap())
        .map(|flow| (flow.began.to_string(), flow.answers.to_string(), flow.id.id, flow.id.zone))
        .collect();
    let expected = [
        ("192.168.127.9", "203.0.113.1", 0x58db_8987, None),
        // Asked for as 192.0.2.1.
        ("198.51.100.7", "192.168.127.9", 0xbd4e_8cfc, None),
        ("192.168.127.8", "203.0.113.1", 0x8e14_2880, Some(7)),
    ];
    assert_eq!(
        found,
        expected.map(|(began, answers, id, zone)| (began.into(), answers.into(), id, zone))
    );
}

#[test]
fn names_a_connection_as_conntrack_does() {
    let golden = golden::read("conntrack/delete");
    let flows = messages(&golden.received);
    let flow = FlowMessage::read(flows[0].payload).unwrap();
    let ours = written(|writer| conntrack::delete(writer, 1, flow.id));
    let (theirs, ours) = (messages(&golden.sent)[1], Messages::new(&ours).next().unwrap().unwrap());
    assert_eq!((ours.kind, theirs.kind, ours.flags), (DELETE, DELETE, REQUEST));
    // conntrack(8) sends all that it knows of it; the kernel looks at the first tuple and the id.
    let length = NFGENMSG + 4 + flow.id.tuple.len();
    assert_eq!(ours.payload[..length], theirs.payload[..length]);
    assert_eq!(ours.payload[length..], [8, 0, 12, 0, 0x58, 0xdb, 0x89, 0x87]);

    let ours = written(|writer| {
        conntrack::delete(writer, 1, FlowId { family: 2, tuple: &[], id: 1, zone: Some(7) })
    });
    assert_eq!(ours[ours.len() - 8..], [6, 0, 18, 0, 0, 7, 0, 0]);
}

/// Lengths and types of attributes and the flags of the filter in host order, here the usual one.
#[cfg(target_endian = "little")]
#[test]
fn writes_a_filter_by_hand() {
    #[rustfmt::skip]
    let expected = |tuple, flags| [
        // nlmsghdr: length, CTNETLINK << 8 | CT_DELETE, REQUEST, sequence, port; nfgenmsg.
        48, 0, 0, 0,  2, 1,  1, 0,  7, 0, 0, 0,  0, 0, 0, 0,  2, 0, 0, 0,
        // CTA_TUPLE_ORIG or _REPLY, nested: CTA_TUPLE_IP, nested: CTA_IP_V4_SRC.
        16, 0, tuple, 0x80,  12, 0, 1, 0x80,  8, 0, 1, 0, 192, 168, 127, 9,
        // CTA_FILTER, nested: CTA_FILTER_ORIG_FLAGS or _REPLY_FLAGS: the source.
        12, 0, 25, 0x80,  8, 0, flags, 0, 1, 0, 0, 0,
    ];
    for (end, number) in [(End::Began, 1), (End::Answers, 2)] {
        let ours = written(|writer| conntrack::delete_all(writer, 7, Flows::At(end, GUEST)));
        assert_eq!(ours, expected(number, number));
        let dump = written(|writer| conntrack::dump(writer, 7, Flows::At(end, GUEST)));
        assert_eq!((&dump[4..8], &dump[8..]), (&[1, 1, 1, 3][..], &ours[8..]));
    }
    // The kernel's filter is wrong for IPv6: nothing is deleted by it, and a dump has none.
    let six = Flows::At(End::Began, "fd00::9".parse().unwrap());
    let dump = written(|writer| conntrack::dump(writer, 7, six));
    assert_eq!(dump[4..], [1, 1, 1, 3, 7, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0]);
    let mut writer = Writer::new();
    conntrack::delete_all(&mut writer, 7, six);
    assert_eq!(writer.finish(), Err(Error::Unknown));
}

#[test]
fn reads_only_what_is_a_whole_connection() {
    let golden = golden::read("conntrack/delete");
    let whole = messages(&golden.received)[0].payload;
    let read = |payload: &[u8]| FlowMessage::read(payload).map(|flow| flow.began);
    assert_eq!(read(whole), Ok(GUEST));
    assert_eq!(read(&[&[7][..], &whole[1..]].concat()), Err(Error::Unknown));
    assert_eq!(read(&whole[..3]), Err(Error::Truncated));
    let attrs = || Attrs::new(&whole[NFGENMSG..]).map(Result::unwrap);
    for missing in [TUPLE_ORIG, 2, 12] {
        let rest = written(|writer| {
            writer.raw(&whole[..NFGENMSG]);
            for attr in attrs().filter(|attr| attr.kind != missing) {
                writer.attr(attr.kind, attr.value);
            }
        });
        assert_eq!(read(&rest), Err(Error::Missing), "{missing}");
    }
    let without_ip = written(|writer| {
        writer.raw(&whole[..NFGENMSG]);
        writer.attr(TUPLE_ORIG, &[8, 0, 2, 0, 0, 0, 0, 0]);
        attrs().skip(1).for_each(|attr| writer.attr(attr.kind, attr.value));
    });
    assert_eq!(read(&without_ip), Err(Error::Missing));
}
