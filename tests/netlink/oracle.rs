//! neli's typed messages decode what we encode, and decode the kernel's messages as we do.

use std::io::Cursor;
use std::net::IpAddr;

use neli::FromBytesWithInput;
use neli::consts::rtnl::RtaType;
use neli::consts::rtnl::{Arphrd, Ifa, Iff, Ifla, IflaInfo, Nda, RtAddrFamily, RtTable, Rta, Rtm};
use neli::rtnl::{Ifaddrmsg, Ifinfomsg, Ndmsg, Rtmsg};
use neli::types::{Buffer, RtBuffer};
use volnet::netlink::message::Messages;
use volnet::netlink::rtnl::AF_INET;
use volnet::netlink::rtnl::address::{self, AddressMessage};
use volnet::netlink::rtnl::link::{self, LinkChange, LinkMessage, PortChange, Target};
use volnet::netlink::rtnl::neighbour::{self, NeighbourMessage};
use volnet::netlink::rtnl::route::{self, AddressRoute};
use volnet::netlink::writer::Writer;

use crate::golden;

fn decode<T: FromBytesWithInput<Input = usize>>(payload: &[u8]) -> T {
    T::from_bytes_with_input(&mut Cursor::new(payload), payload.len()).unwrap()
}

/// What our writer wrote as one message, read by neli.
fn written<T: FromBytesWithInput<Input = usize>>(write: impl FnOnce(&mut Writer)) -> T {
    let mut writer = Writer::new();
    write(&mut writer);
    let mut messages = Messages::new(writer.finish().unwrap());
    let payload = messages.next().unwrap().unwrap().payload;
    assert!(messages.next().is_none());
    decode(payload)
}

/// Payloads of one kind that the kernel sent.
fn received(name: &str, kind: Rtm) -> Vec<Vec<u8>> {
    let golden = golden::read(name);
    let messages =
        golden.received.iter().flat_map(|bytes| Messages::new(bytes)).map(Result::unwrap);
    messages
        .filter(|message| Rtm::from(message.kind) == kind)
        .map(|message| message.payload.to_vec())
        .collect()
}

fn text(link: &Ifinfomsg, attr: Ifla) -> Option<String> {
    let bytes =
        link.rtattrs().get_attr_handle().get_attribute(attr)?.rta_payload().as_ref().to_vec();
    Some(String::from_utf8(bytes).unwrap().trim_end_matches('\0').to_owned())
}

fn number(link: &Ifinfomsg, attr: Ifla) -> Option<u32> {
    link.rtattrs().get_attr_handle().get_attr_payload_as(attr).ok()
}

/// The value of an attribute that we marked as a nest (bit 0x8000), which neli does not look past.
fn nest<T: RtaType>(attrs: &RtBuffer<T, Buffer>, kind: T) -> Vec<u8> {
    let marked: u16 = kind.into() | 0x8000;
    let attr = attrs.iter().find(|attr| (*attr.rta_type()).into() == marked).unwrap();
    attr.rta_payload().as_ref().to_vec()
}

#[test]
fn links_are_read_alike() {
    let payloads = received("rtnl/link-dump", Rtm::Newlink);
    for payload in &payloads {
        let (ours, theirs) = (LinkMessage::read(payload).unwrap(), decode::<Ifinfomsg>(payload));
        let ours_text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(ours.index as i32, *theirs.ifi_index());
        assert_eq!(Arphrd::from(ours.hardware), *theirs.ifi_type());
        assert_eq!(Iff::from_bits_retain(ours.flags), *theirs.ifi_flags());
        assert_eq!(Some(ours_text(ours.name)), text(&theirs, Ifla::Ifname));
        assert_eq!(ours.alias.map(ours_text), text(&theirs, Ifla::Ifalias));
        assert_eq!(Some(ours.mtu), number(&theirs, Ifla::Mtu));
        assert_eq!(Some(ours.group), number(&theirs, Ifla::Group));
        assert_eq!(ours.master, number(&theirs, Ifla::Master));
        let handle = theirs.rtattrs().get_attr_handle();
        let info = handle.get_nested_attributes::<IflaInfo>(Ifla::Linkinfo);
        let kind = info
            .ok()
            .map(|info| info.get_attr_payload_as_with_len::<String>(IflaInfo::Kind).unwrap());
        assert_eq!(ours.kind.map(ours_text), kind);
    }
    assert_eq!(payloads.len(), 7);
}

#[test]
fn addresses_and_neighbours_are_read_alike() {
    for payload in received("rtnl/address-dump", Rtm::Newaddr) {
        let (ours, theirs) =
            (AddressMessage::read(&payload).unwrap(), decode::<Ifaddrmsg>(&payload));
        let handle = theirs.rtattrs().get_attr_handle();
        let address = handle.get_attr_payload_as::<[u8; 4]>(Ifa::Local).unwrap();
        let theirs = (*theirs.ifa_index(), IpAddr::from(address), *theirs.ifa_prefixlen());
        assert_eq!((ours.index, ours.address, ours.length), theirs);
    }
    for payload in received("rtnl/neighbour-dump", Rtm::Newneigh) {
        let (ours, theirs) = (NeighbourMessage::read(&payload).unwrap(), decode::<Ndmsg>(&payload));
        let handle = theirs.rtattrs().get_attr_handle();
        let address = handle.get_attr_payload_as::<[u8; 4]>(Nda::Dst).unwrap();
        let mac = handle.get_attr_payload_as::<[u8; 6]>(Nda::Lladdr).unwrap();
        assert_eq!((ours.address, ours.mac), (IpAddr::from(address), Some(mac)));
        assert_eq!(ours.index as i32, *theirs.ndm_index());
    }
}

#[test]
fn links_are_written_as_meant() {
    let change = LinkChange {
        master: Some(9),
        up: Some(false),
        mtu: Some(1400),
        mac: Some([2, 0, 0, 0, 0, 7]),
        alias: Some("volnet:web-1"),
        no_ipv6: true,
        group: Some(77),
        name: None,
    };
    let link: Ifinfomsg = written(|w| link::set(w, 1, Target::Name("vttap-web1"), &change));
    assert_eq!((*link.ifi_index(), *link.ifi_family()), (0, RtAddrFamily::Unspecified));
    assert_eq!((*link.ifi_flags(), *link.ifi_change()), (Iff::empty(), Iff::UP));
    assert_eq!(text(&link, Ifla::Ifname).as_deref(), Some("vttap-web1"));
    assert_eq!(text(&link, Ifla::Ifalias).as_deref(), Some("volnet:web-1"));
    assert_eq!(number(&link, Ifla::Master), Some(9));
    assert_eq!(number(&link, Ifla::Mtu), Some(1400));
    assert_eq!(number(&link, Ifla::Group), Some(77));
    let handle = link.rtattrs().get_attr_handle();
    assert_eq!(handle.get_attr_payload_as::<[u8; 6]>(Ifla::Address).unwrap(), [2, 0, 0, 0, 0, 7]);

    let named = LinkChange { name: Some("vtgone3"), ..LinkChange::default() };
    let named: Ifinfomsg = written(|w| link::set(w, 1, Target::Index(3), &named));
    assert_eq!(text(&named, Ifla::Ifname).as_deref(), Some("vtgone3"));

    let nothing: Ifinfomsg = written(|w| link::set(w, 1, Target::Index(3), &LinkChange::default()));
    assert_eq!((*nothing.ifi_index(), *nothing.ifi_change()), (3, Iff::empty()));
    assert_eq!(nothing.rtattrs().get_attr_handle().iter().count(), 0);

    let bridge: Ifinfomsg = written(|w| link::new_bridge(w, 1, "vbr0", [2; 6], None));
    let info: RtBuffer<IflaInfo, Buffer> = decode(&nest(bridge.rtattrs(), Ifla::Linkinfo));
    let kind = info.get_attr_handle().get_attr_payload_as_with_len::<String>(IflaInfo::Kind);
    assert_eq!(kind.unwrap(), "bridge");

    let change =
        PortChange { isolated: Some(true), group_forward: Some(8), ..PortChange::default() };
    let port: Ifinfomsg = written(|w| link::set_port(w, 1, Target::Index(3), &change));
    let info: RtBuffer<IflaInfo, Buffer> = decode(&nest(port.rtattrs(), Ifla::Linkinfo));
    let kind = info.get_attr_handle().get_attr_payload_as_with_len::<String>(IflaInfo::SlaveKind);
    assert_eq!(kind.unwrap(), "bridge");
    let isolated = [&5_u16.to_ne_bytes()[..], &33_u16.to_ne_bytes(), &[1, 0, 0, 0]].concat();
    let groups = [6_u16, 31, 8, 0].map(u16::to_ne_bytes).concat();
    assert_eq!(nest(&info, IflaInfo::SlaveData), [isolated, groups].concat());
}

#[test]
fn addresses_neighbours_and_routes_are_written_as_meant() {
    let given = AddressMessage { index: 5, address: [10, 0, 0, 1].into(), length: 24 };
    let address: Ifaddrmsg = written(|w| address::add(w, 1, &given));
    assert_eq!((*address.ifa_index(), *address.ifa_prefixlen()), (5, 24));
    let handle = address.rtattrs().get_attr_handle();
    for attr in [Ifa::Local, Ifa::Address] {
        assert_eq!(handle.get_attr_payload_as::<[u8; 4]>(attr).unwrap(), [10, 0, 0, 1]);
    }

    let neighbour: Ndmsg = written(|w| neighbour::delete(w, 1, 5, [10, 0, 0, 9].into()));
    assert_eq!((*neighbour.ndm_index(), *neighbour.ndm_family()), (5, RtAddrFamily::Inet));
    let handle = neighbour.rtattrs().get_attr_handle();
    assert_eq!(handle.get_attr_payload_as::<[u8; 4]>(Nda::Dst).unwrap(), [10, 0, 0, 9]);

    let routes: Rtmsg = written(|w| route::dump(w, 1, AF_INET));
    assert_eq!((*routes.rtm_family(), *routes.rtm_table()), (RtAddrFamily::Inet, RtTable::Main));
    assert_eq!((*routes.rtm_dst_len(), routes.rtattrs().get_attr_handle().iter().count()), (0, 0));

    let to = AddressRoute { link: 5, to: [10, 0, 0, 9].into(), mtu: 1400, protocol: 118 };
    let route: Rtmsg = written(|w| route::add(w, 1, &to));
    assert_eq!((*route.rtm_dst_len(), u8::from(*route.rtm_protocol())), (32, 118));
    let handle = route.rtattrs().get_attr_handle();
    assert_eq!(handle.get_attr_payload_as::<[u8; 4]>(Rta::Dst).unwrap(), [10, 0, 0, 9]);
    assert_eq!(handle.get_attr_payload_as::<u32>(Rta::Oif).unwrap(), 5);
    // A nest with one attribute: length 8, `RTAX_MTU`, 1400.
    let metrics = [8_u16, 2].map(u16::to_ne_bytes).concat();
    let metrics = [metrics, 1400_u32.to_ne_bytes().to_vec()].concat();
    let attr = handle.iter().find(|attr| u16::from(*attr.rta_type()) & 0x3fff == 8).unwrap();
    assert_eq!(attr.rta_payload().as_ref(), &metrics[..]);
}
