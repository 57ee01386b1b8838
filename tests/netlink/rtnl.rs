//! The rtnetlink codec against bytes that ip(8), tc(8) and the kernel exchanged
//! (`golden/capture.sh`).

use crate::golden;
use neli::consts::nl::Nlmsg;
use neli::consts::rtnl::Rtm;
use volnet::netlink::attr::{Attr, Attrs};
use volnet::netlink::message::{DUMP, Message, Messages, REQUEST};
use volnet::netlink::rtnl::address::{self, AddressMessage};
use volnet::netlink::rtnl::filter;
use volnet::netlink::rtnl::link::{
    self, Bridge, LinkChange, LinkMessage, PortChange, Target, TunKind,
};
use volnet::netlink::rtnl::neighbour::{self, NeighbourMessage};
use volnet::netlink::rtnl::qdisc::{self, Bucket, OURS, QdiscMessage, ROOT};
use volnet::netlink::rtnl::route::{self, RouteMessage};
use volnet::netlink::rtnl::{AF_INET, Notice};
use volnet::netlink::writer::Writer;

/// Everything the kernel sent to a command.
fn received(golden: &golden::Golden) -> Vec<Message<'_>> {
    golden.received.iter().flat_map(|bytes| Messages::new(bytes)).map(Result::unwrap).collect()
}

fn of_kind<'a>(messages: &[Message<'a>], kind: impl Into<u16>) -> Vec<Message<'a>> {
    let kind = kind.into();
    messages.iter().copied().filter(|message| message.kind == kind).collect()
}

fn notices<'a>(messages: &[Message<'a>]) -> Vec<Notice<'a>> {
    messages.iter().filter_map(|message| Notice::read(message).unwrap()).collect()
}

fn link<'a>(links: &[LinkMessage<'a>], name: &str) -> LinkMessage<'a> {
    *links.iter().find(|link| link.name == name.as_bytes()).unwrap()
}

#[test]
fn reads_a_dump_of_links() {
    let golden = golden::read("rtnl/link-dump");
    let messages = received(&golden);
    assert_eq!(of_kind(&messages, Nlmsg::Done)[0].answer().unwrap().errno, 0);
    let links: Vec<_> = of_kind(&messages, Rtm::Newlink)
        .iter()
        .map(|message| LinkMessage::read(message.payload).unwrap())
        .collect();
    assert_eq!(links.len(), 7);

    let lo = link(&links, "lo");
    assert_eq!((lo.index, lo.mtu, lo.kind, lo.alias, lo.master), (1, 65536, None, None, None));
    assert!(lo.is_up() && lo.carrier && !lo.is_bridge());

    let bridge = link(&links, "vbr0");
    assert!(bridge.is_bridge() && bridge.is_up());
    assert_eq!((bridge.mac, bridge.mtu), (Some([2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]), 1400));
    assert_eq!((bridge.alias, bridge.tun, bridge.port), (Some(&b"volnet:"[..]), None, None));

    let tap = link(&links, "vttap-web1");
    assert_eq!((tap.master, tap.group, tap.mtu), (Some(bridge.index), 77, 1400));
    assert_eq!((tap.alias, tap.hardware), (Some(&b"volnet:web-1"[..]), 1));
    assert_eq!((tap.kind, tap.slave_kind), (Some(&b"tun"[..]), Some(&b"bridge"[..])));
    let tun = link::Tun {
        kind: TunKind::Tap,
        vnet_hdr: true,
        multi_queue: true,
        persistent: true,
        owner: Some(1000),
    };
    assert_eq!(tap.tun, Some(tun));
    // A tap that nobody holds open has no carrier, and its port is disabled.
    let port = link::BridgePort {
        state: 0,
        isolated: true,
        hairpin: false,
        guard: true,
        learning: false,
        group_forward: 0,
    };
    assert_eq!(tap.port, Some(port));

    let plain = link(&links, "vttap-db").tun.unwrap();
    assert!(!plain.vnet_hdr && !plain.multi_queue && plain.persistent && plain.owner.is_none());
    let tun = link(&links, "tun0");
    assert_eq!((tun.tun.unwrap().kind, tun.mac), (TunKind::Tun, None));
    assert_eq!(link(&links, "veth0").kind, Some(&b"veth"[..]));
}

#[test]
fn reads_what_a_monitor_hears() {
    let golden = golden::read("rtnl/monitor");
    let heard = received(&golden);
    let links = notices(&heard);
    let attached = links.iter().position(
        |notice| matches!(notice, Notice::Link(tap) if tap.master.is_some() && tap.port.is_some()),
    );
    let detached = links.iter().rposition(|notice| {
        matches!(notice, Notice::Link(tap)
            if tap.name == b"vttap-db" && tap.master.is_none())
    });
    let gone = links
        .iter()
        .position(|notice| matches!(notice, Notice::LinkGone(tap) if tap.name == b"vttap-db"));
    assert!(attached.unwrap() < detached.unwrap() && detached.unwrap() < gone.unwrap());
    // The bridge said RTM_DELLINK as well, when the port was detached. That is not news of a link.
    let gone = links.iter().filter(|notice| matches!(notice, Notice::LinkGone(_))).count();
    assert_eq!((of_kind(&heard, Rtm::Dellink).len(), gone), (2, 1));
}

#[test]
fn reads_addresses_routes_and_neighbours() {
    let golden = golden::read("rtnl/address-dump");
    let addresses = of_kind(&received(&golden), Rtm::Newaddr)
        .iter()
        .map(|message| AddressMessage::read(message.payload).unwrap())
        .map(|found| (found.index, found.address, found.length))
        .collect::<Vec<_>>();
    let expected = [(1, [127, 0, 0, 1].into(), 8), (2, [192, 168, 127, 1].into(), 24)];
    assert_eq!(addresses, expected);

    let golden = golden::read("rtnl/neighbour-dump");
    let neighbours = received(&golden);
    let neighbour = of_kind(&neighbours, Rtm::Newneigh)[0];
    let expected = NeighbourMessage {
        index: 2,
        address: [192, 168, 127, 9].into(),
        mac: Some([2, 0, 0, 0, 0, 9]),
        state: 2,
    };
    assert_eq!(NeighbourMessage::read(neighbour.payload), Ok(expected));

    let golden = golden::read("rtnl/route-dump");
    let mut routes = of_kind(&received(&golden), Rtm::Newroute)
        .iter()
        .map(|message| RouteMessage::read(message.payload).unwrap())
        .filter(|route| route.table == route::TABLE_MAIN)
        .map(|route| (route.destination.to_string(), route.length, route.link))
        .collect::<Vec<_>>();
    routes.sort();
    let expected = [
        ("0.0.0.0", 0, Some(7)),
        ("10.10.0.0", 16, Some(7)),
        ("10.11.0.0", 16, Some(7)),
        ("10.12.0.0", 16, None),
        ("10.9.0.0", 30, Some(7)),
        ("192.168.127.0", 24, Some(2)),
    ];
    assert_eq!(routes, expected.map(|(to, length, link)| (to.to_owned(), length, link)));
}

#[test]
fn reads_the_words_of_the_kernel() {
    let answer = |name: &str| {
        let golden = golden::read(name);
        let errors = received(&golden);
        let answer = of_kind(&errors, Nlmsg::Error).last().unwrap().answer().unwrap();
        (answer.errno, answer.words.map(str::to_owned))
    };
    let words = "mtu less than device minimum".to_owned();
    assert_eq!(answer("rtnl/mtu-too-small"), (22, Some(words)));
    assert_eq!(answer("rtnl/bridge-add-exists"), (17, None));
    assert_eq!(answer("rtnl/link-get-missing"), (19, None));
    assert_eq!(answer("rtnl/bridge-add"), (0, None));
}

/// A request, with its attributes and those inside them sorted: what it means, however it is laid
/// out.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    kind: u16,
    flags: u16,
    header: Vec<u8>,
    attrs: Vec<(Vec<u16>, Vec<u8>)>,
}

/// The attributes that hold attributes: IFLA_LINKINFO and IFLA_INFO_SLAVE_DATA in it,
/// IFLA_AF_SPEC and AF_INET6 in it.
const NESTS: &[&[u16]] = &[&[18], &[18, 5], &[26], &[26, 10]];

fn flatten(attrs: Attrs<'_>, path: &[u16], found: &mut Vec<(Vec<u16>, Vec<u8>)>) {
    for attr in attrs.map(Result::unwrap) {
        let path = [path, &[attr.kind]].concat();
        if NESTS.contains(&&path[..]) {
            flatten(attr.nested().unwrap(), &path, found);
            continue;
        }
        // Terminated or not, padded or not: the same string.
        let text = path == [3] || path == [20] || path == [18, 1] || path == [18, 4];
        let value = if text { attr.string() } else { attr.value };
        found.push((path, value.to_vec()));
    }
}

fn meaning(datagram: &[u8], header: usize) -> Meaning {
    let message = Messages::new(datagram).next().unwrap().unwrap();
    let mut attrs = Vec::new();
    flatten(Attrs::new(&message.payload[header..]), &[], &mut attrs);
    attrs.sort();
    let header = message.payload[..header].to_vec();
    Meaning { kind: message.kind, flags: message.flags, header, attrs }
}

/// What `ip` asked for last: before that it looks up names and probes the kernel.
fn theirs(name: &str, header: usize) -> Meaning {
    meaning(golden::read(name).sent.last().unwrap(), header)
}

fn ours(header: usize, write: impl FnOnce(&mut Writer)) -> Meaning {
    let mut writer = Writer::new();
    write(&mut writer);
    meaning(writer.finish().unwrap(), header)
}

const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;
const NDMSG: usize = 12;

#[test]
fn makes_and_removes_links_as_ip_does() {
    let mac = [2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee];
    let expected = theirs("rtnl/bridge-add", IFINFOMSG);
    assert_eq!(ours(IFINFOMSG, |w| link::new_bridge(w, 1, "vbr0", mac, None)), expected);

    let expected = theirs("rtnl/delete", IFINFOMSG);
    assert_eq!(ours(IFINFOMSG, |w| link::delete(w, 1, Target::Index(2))), expected);
    let expected = theirs("rtnl/delete-group", IFINFOMSG);
    assert_eq!(ours(IFINFOMSG, |w| link::delete_group(w, 1, 77.try_into().unwrap())), expected);
}

#[test]
fn changes_links_as_ip_does() {
    let set = |index, change: LinkChange<'_>| {
        let mut ours = ours(IFINFOMSG, |w| link::set(w, 1, Target::Index(index), &change));
        // ip(8) says RTM_NEWLINK; see `set` for why we do not.
        assert_eq!(ours.kind, u16::from(Rtm::Setlink));
        ours.kind = Rtm::Newlink.into();
        ours
    };
    let change = LinkChange {
        mtu: Some(1400),
        alias: Some("volnet:"),
        up: Some(true),
        ..Default::default()
    };
    assert_eq!(set(2, change), theirs("rtnl/bridge-set", IFINFOMSG));
    let change = LinkChange { no_ipv6: true, ..Default::default() };
    assert_eq!(set(2, change), theirs("rtnl/no-ipv6", IFINFOMSG));
    let change = LinkChange {
        mtu: Some(1400),
        master: Some(2),
        alias: Some("volnet:web-1"),
        group: Some(77),
        up: Some(true),
        ..Default::default()
    };
    assert_eq!(set(3, change), theirs("rtnl/attach", IFINFOMSG));
    let change = PortChange {
        isolated: Some(true),
        hairpin: None,
        guard: Some(true),
        learning: Some(false),
        group_forward: None,
    };
    let mut expected = theirs("rtnl/port", IFINFOMSG);
    // ip(8) names a kind that no kernel has, and the kernel goes by the master's. We name that.
    assert_eq!(expected.attrs[0], (vec![18, 1], b"bridge_slave".to_vec()));
    expected.attrs[0] = (vec![18, 4], b"bridge".to_vec());
    let port = ours(IFINFOMSG, |w| link::set_port(w, 1, Target::Index(3), &change));
    assert_eq!(port, expected);
}

#[test]
fn changes_bridges_as_ip_does() {
    let ours = ours(IFINFOMSG, |w| {
        let change = Bridge { snooping: Some(true), filtered: None };
        link::set_bridge(w, 1, Target::Index(2), change);
    });
    assert_eq!(ours, theirs("rtnl/bridge-snoop", IFINFOMSG));
}

#[test]
fn changes_addresses_and_neighbours_as_ip_does() {
    let address = AddressMessage { index: 2, address: [192, 168, 127, 1].into(), length: 24 };
    assert_eq!(
        ours(IFADDRMSG, |w| address::add(w, 1, &address)),
        theirs("rtnl/address-add", IFADDRMSG)
    );
    assert_eq!(
        ours(IFADDRMSG, |w| address::delete(w, 1, &address)),
        theirs("rtnl/address-delete", IFADDRMSG)
    );
    let guest = [192, 168, 127, 9].into();
    let mut expected = theirs("rtnl/neighbour-delete", NDMSG);
    // ip(8) writes NUD_PERMANENT, which means nothing here.
    expected.header[8] = 0;
    assert_eq!(ours(NDMSG, |w| neighbour::delete(w, 1, 2, guest)), expected);
}

/// A message without its sequence number.
fn message(bytes: &[u8]) -> (u16, u16, Vec<u8>) {
    let message = Messages::new(bytes).next().unwrap().unwrap();
    (message.kind, message.flags, message.payload.to_vec())
}

#[test]
fn redirects_what_a_link_receives_as_tc_does() {
    let theirs = |name: &str| message(golden::read(name).sent.last().unwrap());
    let ours = |write: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::new();
        write(&mut writer);
        message(writer.finish().unwrap())
    };
    // tc(8) writes a group of options that is empty.
    let (kind, flags, payload) = theirs("rtnl/ingress-add");
    let ingress = ours(&|w| qdisc::ingress(w, 1, 3));
    assert_eq!((ingress.0, ingress.1), (kind, flags));
    assert!(payload.starts_with(&ingress.2), "{payload:?} {ingress:?}");
    let redirect = ours(&|w| filter::redirect(w, 1, 3, 4));
    let (kind, flags, payload) = theirs("rtnl/redirect-add");
    assert_eq!((redirect.0, redirect.1), (kind, flags));
    assert_eq!(redirect.2[..20], payload[..20], "the same link, place and priority");
    assert_eq!(filter::redirected(&payload), Ok(Some(4)));
    let shown = golden::read("rtnl/redirect-dump");
    let shown = received(&shown);
    let filters = of_kind(&shown, Rtm::Newtfilter);
    let found: Vec<_> =
        filters.iter().map(|message| filter::redirected(message.payload).unwrap()).collect();
    assert_eq!(found.iter().flatten().collect::<Vec<_>>(), [&4]);
}

/// A token bucket of 100 Mbit/s.
const BUCKET: Bucket = Bucket { rate: 12_500_000, burst: 128 << 10, queue: 625_000 };
/// `TCA_OPTIONS`, and `TCA_TBF_BURST` in it.
const OPTIONS: u16 = 2;
const BURST: u16 = 6;

fn within<'a>(mut attrs: Attrs<'a>, kind: u16) -> Option<Attr<'a>> {
    attrs.find_map(|attr| attr.ok().filter(|attr| attr.kind == kind))
}

#[test]
fn sets_and_deletes_queueing_disciplines_as_tc_does() {
    let theirs = |name: &str| message(golden::read(name).sent.last().unwrap());
    let ours = |write: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::new();
        write(&mut writer);
        message(writer.finish().unwrap())
    };
    assert_eq!(ours(&|w| qdisc::delete(w, 1, 3, OURS[0])), {
        let (kind, flags, payload) = theirs("rtnl/qdisc-delete");
        // tc(8) names a kind that it was not told: none.
        (kind, flags, payload[..20].to_vec())
    });
    // tc(8) sends a table that the kernel has no use for, and what that is like.
    let (ours, theirs) =
        (ours(&|w| qdisc::set(w, 1, 3, OURS[0], &BUCKET)), theirs("rtnl/qdisc-set"));
    assert_eq!((ours.0, ours.1), (theirs.0, theirs.1));
    let meant = |payload: &[u8]| {
        within(Attrs::new(&payload[20..]), OPTIONS)
            .and_then(|options| within(options.nested().unwrap(), BURST))
            .map(|burst| burst.u32().unwrap())
    };
    assert_eq!(meant(&ours.2), meant(&theirs.2));
    let read = |payload| {
        let mut read = QdiscMessage::read(payload).unwrap();
        // As a time it is rounded to microseconds by tc(8).
        read.bucket.iter_mut().for_each(|bucket| bucket.burst = BUCKET.burst);
        read
    };
    assert_eq!(read(&ours.2), read(&theirs.2));
    assert_eq!(read(&ours.2).bucket, Some(BUCKET));
}

#[test]
fn reads_a_dump_of_queueing_disciplines() {
    let golden = golden::read("rtnl/qdisc-dump");
    let messages = of_kind(&received(&golden), Rtm::Newqdisc);
    let all = messages.iter().map(|message| QdiscMessage::read(message.payload).unwrap());
    let roots: Vec<_> = all.filter(|qdisc| qdisc.parent == ROOT && qdisc.handle != 0).collect();
    let [ours] = roots[..] else { panic!("{roots:?}") };
    assert_eq!((ours.index, ours.handle, ours.kind), (3, OURS[0], &b"tbf"[..]));
    let bucket = ours.bucket.unwrap();
    assert_eq!((bucket.rate, bucket.queue), (BUCKET.rate, BUCKET.queue));
    assert!(BUCKET.burst - bucket.burst < 10, "{bucket:?}");
}

#[test]
fn asks_with_clean_headers() {
    let mut writer = Writer::new();
    link::dump(&mut writer, 1);
    address::dump(&mut writer, 2, AF_INET);
    neighbour::dump(&mut writer, 3, 9);
    route::dump(&mut writer, 4, AF_INET);
    qdisc::dump(&mut writer, 5);
    let headers: [&[u8]; 5] = [
        &[0; 16],
        &[2, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 254, 0, 0, 0, 0, 0, 0, 0],
        &[0; 20],
    ];
    for (message, header) in Messages::new(writer.finish().unwrap()).zip(headers) {
        let message = message.unwrap();
        assert_eq!(message.flags, DUMP | REQUEST);
        assert!(message.payload.starts_with(header), "message {}", message.sequence);
    }
}
