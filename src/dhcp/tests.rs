//! Captures of real clients and a real server, and whole conversations.

use std::net::Ipv4Addr;

use super::DhcpQuery;
use super::fuzz::{Host, ask};
use super::message::{Head, Kind, Message, Writer, option};
use crate::model::clock::Now;
use crate::model::inner::{GATEWAY_MAC, InnerSpec};
use crate::model::mac::Mac;
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::net::Told;
use crate::model::nic::Lease;
use crate::model::spec::NetworkSpec;
use crate::packet::Malformed;
use crate::packet::v4::{self, Datagram, Endpoints};

const HOST_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 1);
const HOUR: u64 = 3_600_000;
/// How long the host has run when a test begins, in milliseconds.
const BOOT: u64 = 90_000;

/// A capture, see `tests/golden/capture-dhcp.sh`.
const UDHCPC: &str = include_str!("../../tests/golden/dhcp/udhcpc.hex");
const DHCLIENT: &str = include_str!("../../tests/golden/dhcp/dhclient.hex");
const RELEASE: &str = include_str!("../../tests/golden/dhcp/dhclient-release.hex");

/// The frames of a capture; those of the client first.
fn frames(capture: &str) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut client, mut server) = (Vec::new(), Vec::new());
    let mut side = &mut client;
    for line in capture.lines().skip(1) {
        match line {
            ">" | "<" => {
                side = if line == ">" { &mut client } else { &mut server };
                side.push(Vec::new());
            }
            hex => {
                let bytes = (0..hex.len()).step_by(2);
                let bytes = bytes.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
                side.last_mut().unwrap().extend(bytes);
            }
        }
    }
    (client, server)
}

fn at(ms: u64) -> Now {
    Now { wall: 1_700_000_000_000 + ms, mono: ms, boot: BOOT + ms }
}

fn head(mac: Mac) -> Head {
    let none = Ipv4Addr::UNSPECIFIED;
    let (ciaddr, yiaddr, giaddr) = (none, none, none);
    Head { reply: false, xid: 7, broadcast: false, ciaddr, yiaddr, giaddr, chaddr: mac }
}

/// The request for a VM in dhcp mode.
fn asks() -> NetworkSpec {
    NetworkSpec { mode: Mode::Dhcp, ..NetworkSpec::default() }
}

/// A host with a VM named `asks`.
fn with_guest() -> (Host, Mac) {
    let mut host = Host::new("192.168.127.0/24");
    let mac = host.create("asks", asks());
    (host, mac)
}

/// The messages of a client, in the words of RFC 2131.
fn discover(mac: Mac, requested: Option<Ipv4Addr>) -> Vec<u8> {
    let mut writer = Writer::new(&head(mac), Kind::Discover);
    if let Some(requested) = requested {
        writer.address(option::REQUESTED_IP, requested);
    }
    ask(mac, &writer.finish())
}

fn select(mac: Mac, address: Ipv4Addr, server: Ipv4Addr) -> Vec<u8> {
    let mut writer = Writer::new(&head(mac), Kind::Request);
    writer.address(option::REQUESTED_IP, address).address(option::SERVER_ID, server);
    ask(mac, &writer.finish())
}

fn reboot(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut writer = Writer::new(&head(mac), Kind::Request);
    writer.address(option::REQUESTED_IP, address);
    ask(mac, &writer.finish())
}

fn renew(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    ask(mac, &Writer::new(&Head { ciaddr: address, ..head(mac) }, Kind::Request).finish())
}

fn release(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    ask(mac, &Writer::new(&Head { ciaddr: address, ..head(mac) }, Kind::Release).finish())
}

fn decline(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut writer = Writer::new(&head(mac), Kind::Decline);
    writer.address(option::REQUESTED_IP, address);
    ask(mac, &writer.finish())
}

/// An answer: its kind, the address and the seconds.
fn answer(frame: &[u8]) -> (Kind, Ipv4Addr, Option<u32>) {
    let message = Message::read(v4::parse(frame).unwrap().payload).unwrap();
    (message.kind, message.head.yiaddr, message.number(option::LEASE_TIME))
}

/// The address of an offer.
fn offered(host: &mut Host, mac: Mac, requested: Option<Ipv4Addr>, now: Now) -> Ipv4Addr {
    let (kind, address, seconds) = answer(&host.hear(&discover(mac, requested), now).unwrap());
    assert_eq!((kind, seconds), (Kind::Offer, Some(3600)));
    address
}

/// A guest that has got its lease.
fn bound(host: &mut Host, mac: Mac, now: Now) -> Ipv4Addr {
    let address = offered(host, mac, None, now);
    let ack = host.hear(&select(mac, address, HOST_IP), now).unwrap();
    assert_eq!(answer(&ack), (Kind::Ack, address, Some(3600)));
    address
}

fn is_refused(host: &mut Host, frame: &[u8], now: Now) -> bool {
    let answer = answer(&host.hear(frame, now).expect("an answer"));
    answer == (Kind::Nak, Ipv4Addr::UNSPECIFIED, None)
}

fn lease(host: &Host, name: &str) -> Option<Lease> {
    let vm = host.engine.vm(&VmName::new(name).unwrap()).unwrap();
    vm.record.nics.first().unwrap().lease
}

fn shown(host: &Host, name: &str) -> Option<Ipv4Addr> {
    host.engine.show(host.engine.vm(&VmName::new(name).unwrap()).unwrap()).ip
}

#[test]
fn what_real_clients_say_is_understood() {
    for (capture, expected) in [
        (UDHCPC, &[Kind::Discover, Kind::Request][..]),
        (DHCLIENT, &[Kind::Discover, Kind::Request]),
        (RELEASE, &[Kind::Release]),
    ] {
        let (client, server) = frames(capture);
        let queries: Vec<DhcpQuery<'_>> =
            client.iter().map(|f| DhcpQuery::read(f).unwrap()).collect();
        assert_eq!(queries.iter().map(DhcpQuery::kind).collect::<Vec<_>>(), expected);
        assert!(queries.iter().all(|query| query.mac() == Mac([2, 0, 0, 0, 0, 2])));
        // A message of the server is a message, but not a query.
        for frame in &server {
            assert_eq!(DhcpQuery::read(frame), Err(Malformed::NotOurs));
            let message = Message::read(v4::parse(frame).unwrap().payload).unwrap();
            assert_eq!(message.head.yiaddr, Ipv4Addr::new(192, 168, 127, 9));
        }
    }
    let (client, _) = frames(RELEASE);
    let query = DhcpQuery::read(&client[0]).unwrap();
    assert_eq!(query.message.head.ciaddr, Ipv4Addr::new(192, 168, 127, 9));
    assert_eq!(query.server(), Some(HOST_IP));
}

#[test]
fn real_clients_are_answered_as_dnsmasq_answered_them() {
    for capture in [UDHCPC, DHCLIENT] {
        let (client, server) = frames(capture);
        let mut host = Host::new("192.168.127.0/24");
        host.create(
            "web",
            NetworkSpec {
                ip: Some(Ipv4Addr::new(192, 168, 127, 9)),
                mac: Some(Mac([2, 0, 0, 0, 0, 2])),
                mtu: Some(1400),
                ..NetworkSpec::default()
            },
        );
        for (asked, theirs) in client.iter().zip(&server) {
            let ours = host.hear(asked, at(0)).unwrap();
            let (ours, theirs) = (v4::parse(&ours).unwrap(), v4::parse(theirs).unwrap());
            let from = host.engine.configured().next().unwrap().mac;
            assert_eq!(ours.addresses, Endpoints { from, ..theirs.addresses });
            let (ours, theirs) =
                (Message::read(ours.payload).unwrap(), Message::read(theirs.payload).unwrap());
            assert_eq!((ours.kind, ours.head), (theirs.kind, theirs.head));
            for code in 1..=61 {
                match code {
                    // The broadcast address follows from the mask.
                    28 => {}
                    // dnsmasq sends these only to clients that ask for them.
                    option::MTU | option::HOST_NAME if theirs.option(code).is_none() => {}
                    option::CLIENT_ID => {
                        // RFC 6842 is younger than its default.
                        let asked = DhcpQuery::read(asked).unwrap();
                        assert_eq!(ours.option(code), asked.message.option(code));
                    }
                    _ => assert_eq!(ours.option(code), theirs.option(code), "{code}"),
                }
            }
            assert_eq!(ours.option(option::HOST_NAME), Some(&b"web"[..]));
            assert_eq!(ours.option(option::MTU), Some(&1400_u16.to_be_bytes()[..]));
        }
    }
}

#[test]
fn get_renew_release_and_get_again() {
    let (mut host, mac) = with_guest();
    assert_eq!((lease(&host, "asks"), shown(&host, "asks")), (None, None));
    let address = offered(&mut host, mac, None, at(0));
    assert_eq!(shown(&host, "asks"), None, "an offer is not a lease yet");
    assert_eq!(offered(&mut host, mac, None, at(10)), address, "the same offer, however often");
    let ack = host.hear(&select(mac, address, HOST_IP), at(20)).unwrap();
    assert_eq!(answer(&ack), (Kind::Ack, address, Some(3600)));
    assert_eq!(shown(&host, "asks"), Some(address));
    assert_eq!(lease(&host, "asks").unwrap().until, at(20 + HOUR).boot);

    // First it is too early for a write; then the renewal is due.
    let ack = host.hear(&renew(mac, address), at(60_020)).unwrap();
    assert_eq!(answer(&ack), (Kind::Ack, address, Some(3540)));
    assert_eq!(lease(&host, "asks").unwrap().until, at(20 + HOUR).boot);
    let ack = host.hear(&renew(mac, address), at(HOUR / 2)).unwrap();
    assert_eq!(answer(&ack), (Kind::Ack, address, Some(3600)));
    assert_eq!(lease(&host, "asks").unwrap().until, at(HOUR / 2 + HOUR).boot);

    assert_eq!(host.hear(&release(mac, address), at(HOUR)), None);
    assert_eq!((lease(&host, "asks"), host.engine.networks()[0].leased), (None, 0));
    assert_ne!(bound(&mut host, mac, at(HOUR)), address, "what was released rests");
}

#[test]
fn a_guest_that_knows_what_it_wants_gets_it_if_that_is_free() {
    let (mut host, mac) = with_guest();
    let (wish, other) = (Ipv4Addr::new(192, 168, 127, 9), Ipv4Addr::new(192, 168, 127, 10));
    assert_eq!(offered(&mut host, mac, Some(wish), at(0)), wish);
    // It says that it took another server's offer.
    assert_eq!(host.hear(&select(mac, wish, other), at(1)), None);
    // After a restart of the guest, with what it remembers.
    assert!(is_refused(&mut host, &reboot(mac, other), at(2)));
    let ack = host.hear(&reboot(mac, wish), at(3)).unwrap();
    assert_eq!(answer(&ack), (Kind::Ack, wish, Some(3600)));

    let second = host.create("second", asks());
    assert_ne!(offered(&mut host, second, Some(wish), at(4)), wish, "it is somebody's");
    assert!(is_refused(&mut host, &reboot(second, wish), at(5)));
    assert!(is_refused(&mut host, &renew(second, Ipv4Addr::new(10, 0, 0, 1)), at(6)));
    assert!(is_refused(&mut host, &renew(second, HOST_IP), at(7)));
    // An address that only the guest remembers, for example after our files were lost.
    let third = host.create("third", asks());
    let old = Ipv4Addr::new(192, 168, 127, 20);
    let ack = host.hear(&renew(third, old), at(8)).unwrap();
    assert_eq!(answer(&ack), (Kind::Ack, old, Some(3600)));
}

#[test]
fn a_bridged_guest_that_asks_gets_its_own_address_and_no_other() {
    let (mut host, _) = with_guest();
    let mac = host.create("own", NetworkSpec::default());
    let own = shown(&host, "own").unwrap();
    let other = Ipv4Addr::new(192, 168, 127, 9);
    assert_eq!(offered(&mut host, mac, Some(other), at(0)), own);
    assert!(is_refused(&mut host, &select(mac, other, HOST_IP), at(1)));
    let ack = host.hear(&select(mac, own, HOST_IP), at(2)).unwrap();
    assert_eq!(answer(&ack), (Kind::Ack, own, Some(3600)));
    assert_eq!(host.hear(&release(mac, own), at(3)), None);
    assert_eq!(host.hear(&decline(mac, own), at(4)), None);
    assert_eq!((lease(&host, "own"), shown(&host, "own")), (None, Some(own)));
}

#[test]
fn strangers_and_other_peoples_words_are_met_with_silence() {
    let (mut host, mac) = with_guest();
    let stranger = Mac([2, 9, 9, 9, 9, 9]);
    assert_eq!(host.hear(&discover(stranger, None), at(0)), None);
    let bridge = host.engine.configured().next().unwrap().mac;
    assert_eq!(host.hear(&discover(bridge, None), at(0)), None);
    // The frame is from one guest, and the message names another.
    let message = Writer::new(&head(mac), Kind::Discover).finish();
    assert_eq!(host.hear(&ask(stranger, &message), at(0)), None);
    // Through a relay; a reply; to another port.
    let relayed = Head { giaddr: HOST_IP, ..head(mac) };
    assert_eq!(host.hear(&ask(mac, &Writer::new(&relayed, Kind::Discover).finish()), at(0)), None);
    let reply = Head { reply: true, ..head(mac) };
    assert_eq!(host.hear(&ask(mac, &Writer::new(&reply, Kind::Discover).finish()), at(0)), None);
    let good = discover(mac, None);
    let datagram = v4::parse(&good).unwrap();
    let elsewhere = v4::build(&Datagram { destination_port: 68, ..datagram });
    assert_eq!(host.hear(&elsewhere, at(0)), None);
    assert_eq!(host.engine.networks()[0].leased, 0);
}

#[test]
fn an_address_that_is_declined_is_not_offered_next() {
    let (mut host, mac) = with_guest();
    let address = bound(&mut host, mac, at(0));
    assert_eq!(host.hear(&decline(mac, Ipv4Addr::new(192, 168, 127, 9)), at(1)), None);
    assert_eq!(shown(&host, "asks"), Some(address), "it declined what it does not have");
    assert_eq!(host.hear(&decline(mac, address), at(2)), None);
    assert_eq!(shown(&host, "asks"), None);
    assert_ne!(offered(&mut host, mac, None, at(3)), address);
}

#[test]
fn inform_is_answered_with_everything_but_an_address() {
    let (mut host, mac) = with_guest();
    let own = Ipv4Addr::new(10, 1, 1, 1);
    let inform = Writer::new(&Head { ciaddr: own, ..head(mac) }, Kind::Inform).finish();
    let told = host.hear(&ask(mac, &inform), at(0)).unwrap();
    assert_eq!(answer(&told), (Kind::Ack, Ipv4Addr::UNSPECIFIED, None));
    let datagram = v4::parse(&told).unwrap();
    assert_eq!((datagram.addresses.destination, datagram.addresses.to), (own, mac));
    let message = Message::read(datagram.payload).unwrap();
    assert_eq!(message.option(option::DNS), Some(&[192, 0, 2, 53][..]));
    assert_eq!(lease(&host, "asks"), None);
    let nowhere = Writer::new(&head(mac), Kind::Inform).finish();
    assert_eq!(host.hear(&ask(mac, &nowhere), at(0)), None);
}

#[test]
fn a_guest_that_cannot_be_reached_yet_is_answered_by_broadcast() {
    let (mut host, mac) = with_guest();
    let asked = Writer::new(&Head { broadcast: true, ..head(mac) }, Kind::Discover).finish();
    let offer = host.hear(&ask(mac, &asked), at(0)).unwrap();
    let Endpoints { to, destination, .. } = v4::parse(&offer).unwrap().addresses;
    assert_eq!((to, destination), (Mac([0xff; 6]), Ipv4Addr::BROADCAST));
    let offer = host.hear(&discover(mac, None), at(0)).unwrap();
    let Endpoints { to, destination, .. } = v4::parse(&offer).unwrap().addresses;
    assert_eq!((to, destination), (mac, answer(&offer).1));
    let nak = host.hear(&reboot(mac, HOST_IP), at(0)).unwrap();
    let Endpoints { to, destination, .. } = v4::parse(&nak).unwrap().addresses;
    assert_eq!((to, destination), (Mac([0xff; 6]), Ipv4Addr::BROADCAST));
}

#[test]
fn the_longest_client_id_leaves_room_for_what_matters() {
    let (mut host, mac) = with_guest();
    let mut writer = Writer::new(&head(mac), Kind::Discover);
    writer.option(option::CLIENT_ID, &[7; 255]);
    let offer = host.hear(&ask(mac, &writer.finish()), at(0)).unwrap();
    let message = Message::read(v4::parse(&offer).unwrap().payload).unwrap();
    assert_eq!(message.option(option::CLIENT_ID), Some(&[7; 255][..]));
    assert_eq!(message.address(option::ROUTER), Some(HOST_IP));
    assert_eq!(message.address(option::SUBNET_MASK), Some(Ipv4Addr::new(255, 255, 255, 0)));
}

#[test]
fn guests_are_told_where_to_look_up_names_and_what_to_boot() {
    let server = Ipv4Addr::new(192, 168, 127, 9);
    let mut host = Host::telling(Told {
        search: vec!["lab.example".into(), "example".into()],
        next_server: Some(server),
        boot_file: Some("ipxe.efi".into()),
    });
    let mac = host.create("asks", asks());
    let offer = host.hear(&discover(mac, None), at(0)).unwrap();
    let payload = v4::parse(&offer).unwrap().payload;
    let message = Message::read(payload).unwrap();
    assert_eq!(message.option(option::DOMAIN), Some(&b"lab.example"[..]));
    let search = &b"\x03lab\x07example\0\xc0\x04"[..];
    assert_eq!(message.option(option::SEARCH), Some(search));
    assert_eq!(message.option(option::BOOT_SERVER), Some(&b"192.168.127.9"[..]));
    assert_eq!(message.option(option::BOOT_FILE), Some(&b"ipxe.efi"[..]));
    assert_eq!(payload[20..24], server.octets(), "siaddr");
    assert_eq!(&payload[108..117], b"ipxe.efi\0", "file");
}

#[test]
fn when_the_pool_is_empty_the_lease_that_ended_first_makes_room() {
    let mut host = Host::new("192.168.127.0/29");
    let macs = ["a", "b", "c", "d", "e"].map(|name| host.create(name, asks()));
    let late = host.create("late", asks());
    let addresses = macs.map(|mac| bound(&mut host, mac, at(0)));
    host.hear(&renew(macs[0], addresses[0]), at(HOUR / 2)).unwrap();
    assert_eq!(host.hear(&discover(late, None), at(HOUR - 1)), None, "nothing has ended");
    // All but the first have expired. They stay as they are until somebody needs an address.
    assert_eq!(shown(&host, "b"), Some(addresses[1]));
    assert_eq!(bound(&mut host, late, at(HOUR)), addresses[1]);
    assert_eq!((shown(&host, "a"), shown(&host, "b")), (Some(addresses[0]), None));
    assert!(is_refused(&mut host, &renew(macs[1], addresses[1]), at(HOUR)));
    let ack = host.hear(&renew(macs[2], addresses[2]), at(HOUR + 1)).unwrap();
    assert_eq!(answer(&ack), (Kind::Ack, addresses[2], Some(3600)), "late, but it was not needed");
}

#[test]
fn a_guest_that_asks_for_change_after_change_is_slowed_down() {
    let (mut host, mac) = with_guest();
    let mut rounds = 0;
    while let Some(offer) = host.hear(&discover(mac, None), at(0)) {
        let address = answer(&offer).1;
        host.hear(&select(mac, address, HOST_IP), at(0));
        host.hear(&release(mac, address), at(0));
        rounds += 1;
        assert!(rounds < 100, "it goes on for ever");
    }
    assert!(rounds >= 3);
    assert!(host.hear(&discover(mac, None), at(60_000)).is_some(), "it may again later");
}

#[test]
fn a_guest_that_asks_without_end_is_answered_at_a_pace() {
    let (mut host, mac) = with_guest();
    let other = host.create("other", asks());
    let address = bound(&mut host, mac, at(0));
    let mut answered = |from: u64, seconds: u64| {
        let asked = (0..1000 * seconds).map(|number| from + number);
        asked.filter(|ms| host.hear(&renew(mac, address), at(*ms)).is_some()).count()
    };
    // To confirm a lease costs no write, but it costs an answer.
    let (first, second) = (answered(0, 10), answered(10_000, 10));
    assert!((30..=40).contains(&first), "some at once: {first}");
    assert_eq!(second, 10, "then one a second");
    assert!(host.hear(&discover(other, None), at(20_000)).is_some(), "others do not feel it");
    let ack = host.hear(&renew(mac, address), at(60_000)).unwrap();
    assert_eq!(answer(&ack).0, Kind::Ack);
}

#[test]
fn a_clock_that_is_set_ends_no_lease_and_makes_none_endless() {
    let mut host = Host::new("192.168.127.0/30");
    let mac = host.create("asks", asks());
    let late = host.create("late", asks());
    let address = bound(&mut host, mac, at(0));
    for wall in [0, u64::MAX] {
        assert_eq!(host.hear(&discover(late, None), Now { wall, ..at(HOUR - 1) }), None);
        let ack = host.hear(&renew(mac, address), Now { wall, ..at(60_000) }).unwrap();
        assert_eq!(answer(&ack), (Kind::Ack, address, Some(3540)));
    }
    assert_eq!(lease(&host, "asks").unwrap().until, at(HOUR).boot);
    assert_eq!(bound(&mut host, late, Now { wall: 0, ..at(HOUR) }), address, "its time is over");
}

#[test]
fn a_guest_with_an_inner_identity_is_told_that_and_named_by_it() {
    let (inside, ip) = (Mac([2, 0, 0, 0, 0, 0xaa]), Ipv4Addr::new(172, 16, 0, 2));
    let gateway = Ipv4Addr::new(172, 16, 0, 1);
    let inner =
        InnerSpec { mac: inside, ip, prefix: Some(30), gateway: Some(gateway), gateway_mac: None };
    let mut host = Host::new("192.168.127.0/24");
    let wanted = NetworkSpec { inner: Some(Box::new(inner)), ..NetworkSpec::default() };
    let outside = host.create("clone", wanted);
    assert_ne!(outside, inside);
    let message = |kind, ciaddr, chaddr| Writer::new(&Head { ciaddr, ..head(chaddr) }, kind);
    let none = Ipv4Addr::UNSPECIFIED;

    let frame = ask(outside, &message(Kind::Discover, none, inside).finish());
    let offer = host.hear(&frame, at(0)).unwrap();
    assert_eq!(answer(&offer), (Kind::Offer, ip, Some(3600)));
    let datagram = v4::parse(&offer).unwrap();
    // It goes to the tap, where nothing translates it.
    let expected = Endpoints { from: GATEWAY_MAC, to: inside, source: gateway, destination: ip };
    assert_eq!(datagram.addresses, expected);
    let told = Message::read(datagram.payload).unwrap();
    for (option, address) in [
        (option::SUBNET_MASK, Ipv4Addr::new(255, 255, 255, 252)),
        (option::ROUTER, gateway),
        (option::SERVER_ID, gateway),
    ] {
        assert_eq!(told.address(option), Some(address), "{option}");
    }

    // One that woke renews what it believes it has.
    let frame = ask(outside, &message(Kind::Request, ip, inside).finish());
    assert_eq!(answer(&host.hear(&frame, at(1)).unwrap()), (Kind::Ack, ip, Some(3600)));
    let mut chosen = message(Kind::Request, none, inside);
    chosen.address(option::REQUESTED_IP, ip).address(option::SERVER_ID, HOST_IP);
    assert_eq!(host.hear(&ask(outside, &chosen.finish()), at(2)), None, "another server's");
    let frame = ask(outside, &message(Kind::Discover, none, outside).finish());
    assert_eq!(host.hear(&frame, at(3)), None, "it does not know that Ethernet address");
    let frame = ask(inside, &message(Kind::Discover, none, inside).finish());
    assert_eq!(host.hear(&frame, at(4)), None, "nobody on the network has it");
}
