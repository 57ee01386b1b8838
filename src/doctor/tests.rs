//! Findings from facts, without a kernel.

use std::net::Ipv4Addr;

use super::guest::{self, Asker, Heard, Interface};
use super::host::{self, Bounds, Used, Way};
use super::vm::{self, Process};
use crate::model::expose::{HostPort, PORTS_DEFAULT, Ports, Protocol};
use crate::model::mac::Mac;
use crate::model::name::VmName;
use crate::model::net::NetworkConfig;
use crate::model::view::{Finding, Level, Status};
use crate::network::Network;
use crate::network::fake::Fake;
use crate::packet::arp::{self, Arp};
use crate::packet::v6::{self, Content, Endpoints, Packet};
use crate::plan::firewall::{Hinders, Hindrance};
use crate::plan::reconcile::LinkKind;

const GUEST: Mac = Mac([2, 0, 0, 0, 0, 9]);
const HOST: Asker = Asker { mac: Mac([2, 0, 0, 0, 0, 1]), ip: Ipv4Addr::new(192, 0, 2, 1) };
const IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

fn web() -> VmName {
    VmName::new("web").unwrap()
}

fn interface() -> Interface {
    Interface {
        tap: "vttap-web".into(),
        mac: GUEST,
        ip: Some((IP, 24)),
        ip6: Some("2001:db8::9".parse().unwrap()),
        movable: vec![Ipv4Addr::new(192, 0, 2, 99)],
        antispoof: true,
    }
}

fn levels(findings: &[Finding]) -> Vec<(&str, Level)> {
    findings.iter().map(|finding| (&*finding.check, finding.level)).collect()
}

/// What a guest says of an IPv6 address.
fn advertisement(target: &str) -> Vec<u8> {
    let target: std::net::Ipv6Addr = target.parse().unwrap();
    let body = [&[0x40, 0, 0, 0][..], &target.octets()].concat();
    v6::build(&Packet {
        addresses: Endpoints {
            from: GUEST,
            to: HOST.mac,
            source: target,
            destination: HOST.mac.link_local(),
        },
        hop_limit: 255,
        content: Content::Icmp { kind: 136, code: 0, body: &body },
    })
}

#[test]
fn a_guest_is_asked_for_each_of_its_addresses() {
    let questions = interface().questions(HOST);
    let asked = Arp::read(&questions[0]).expect("ARP");
    assert_eq!((asked.mac, asked.sender, asked.target), (HOST.mac, HOST.ip, IP));
    let six: Vec<_> = questions[1..].iter().map(|frame| v6::parse(frame).unwrap()).collect();
    let targets: Vec<String> =
        six.iter().map(|packet| packet.addresses.destination.to_string()).collect();
    assert_eq!(targets, ["ff02::1:ff00:9", "ff02::1:ff00:9", "ff02::1"]);
    assert!(six.iter().all(|packet| packet.hop_limit == 255));
}

#[test]
fn what_a_guest_says_is_told_from_what_it_should_say() {
    let interface = interface();
    let say = |frames: &[Vec<u8>]| {
        let mut heard = Heard::default();
        frames.iter().for_each(|frame| heard.take(&interface, frame));
        (heard.is_enough(&interface), guest::findings(&web(), &interface, &heard, "eth0"))
    };
    let (v4, v6) = (arp::question(GUEST, IP, HOST.ip), advertisement("2001:db8::9"));
    use Level::{Error, Ok, Warning};
    for (frames, enough, expected) in [
        (vec![], false, vec![("guest", Error)]),
        (vec![vec![0; 13], vec![]], false, vec![("guest", Error)]),
        (vec![v4.clone()], false, vec![("guest", Ok), ("address", Ok), ("address", Warning)]),
        (vec![v4.clone(), v6.clone()], true, vec![("guest", Ok), ("address", Ok), ("address", Ok)]),
        (
            vec![advertisement("fe80::9"), v6.clone()],
            false,
            vec![("guest", Ok), ("address", Error), ("address", Ok)],
        ),
        (
            vec![arp::question(Mac([2; 6]), IP, HOST.ip), v6],
            true,
            vec![("guest", Ok), ("address", Ok), ("address", Ok), ("address", Error)],
        ),
    ] {
        let (is_enough, findings) = say(&frames);
        assert_eq!((is_enough, levels(&findings)), (enough, expected), "{frames:?}");
    }
    // A movable address is its own.
    let other = |last| arp::question(GUEST, Ipv4Addr::new(192, 0, 2, last), HOST.ip);
    let (_, findings) = say(&(90..=99).map(other).collect::<Vec<_>>());
    let named = "; it sends from 192.0.2.90, 192.0.2.91, 192.0.2.92, 192.0.2.93, and that is \
                 dropped";
    assert!(findings[1].message.ends_with(named), "{findings:?}");
    let (_, findings) = say(&[other(99)]);
    assert!(findings[1].message.ends_with("its address"), "{findings:?}");
}

#[test]
fn who_runs_a_guest() {
    let name = web();
    let of = |status, pid, can_start, is_held, waits| {
        let last_error = Some("it ended\nwith a log");
        let (halt, is_broken) = (None, false);
        let vm = &name;
        Process { vm, status, pid, can_start, waits, last_error, halt, is_broken, is_held }
    };
    let paused = |halt, is_broken| Process {
        halt,
        is_broken,
        ..of(Status::Paused, Some(7), true, true, false)
    };
    for (process, level, hint) in [
        (of(Status::Running, Some(7), true, true, false), Level::Ok, None),
        (of(Status::Created, None, false, true, false), Level::Ok, None),
        (of(Status::Created, Some(7), true, true, false), Level::Warning, Some("volnet logs web")),
        (paused(None, false), Level::Error, Some("volnet resume web")),
        (paused(Some("no room"), false), Level::Error, Some("volnet resume web")),
        (paused(Some("it is over"), true), Level::Error, Some("volnet restart web")),
        (of(Status::Crashed, None, true, false, true), Level::Warning, Some("volnet logs web")),
        (of(Status::Crashed, None, true, false, false), Level::Error, Some("volnet start web")),
        (
            of(Status::Created, None, false, false, false),
            Level::Error,
            Some("volnet args web, and start a hypervisor with that"),
        ),
    ] {
        let finding = vm::process(&process);
        assert_eq!((finding.level, finding.hint.as_deref()), (level, hint), "{finding:?}");
        assert!(!finding.message.contains('\n'), "{finding:?}");
        assert!(finding.message.ends_with(process.halt.unwrap_or_default()), "{finding:?}");
    }
}

#[test]
fn a_tap_has_to_be_up_on_its_bridge_open_and_forwarding() {
    let network = NetworkConfig::sample("default", "vbr0", "192.0.2.0/24", "192.0.2.1");
    let mut fake = Fake::new();
    let said = |fake: &mut Fake| {
        let seen = fake.observe().expect("a kernel");
        let finding = vm::tap("vttap-web", &network, 1500, &seen);
        (finding.level, finding.hint.unwrap_or_default())
    };
    let wrong = |hint: &str| (Level::Error, hint.to_string());
    assert_eq!(said(&mut fake), wrong("volnet setup"));
    let bridge = fake.add_link("vbr0", LinkKind::Bridge);
    let (vnet_hdr, multi_queue, persistent, owner) = (true, false, true, None);
    fake.add_link("vttap-web", LinkKind::Tap { vnet_hdr, multi_queue, persistent, owner });
    assert_eq!(said(&mut fake), wrong("ip link set vttap-web up"));
    fake.link_mut("vttap-web").unwrap().up = true;
    assert_eq!(said(&mut fake), wrong("ip link set vttap-web master vbr0"));
    fake.link_mut("vttap-web").unwrap().master = Some(bridge);
    assert_eq!(said(&mut fake), wrong("see the first line"));
    let tap = fake.link_mut("vttap-web").unwrap();
    (tap.carrier, tap.mtu) = (true, 1400);
    assert_eq!(said(&mut fake), (Level::Warning, "ip link set vttap-web mtu 1500".into()));
    let tap = fake.link_mut("vttap-web").unwrap();
    (tap.mtu, tap.state) = (1500, Some(4));
    assert_eq!(said(&mut fake), wrong("ip link set vbr0 type bridge stp_state 0"));
    fake.link_mut("vttap-web").unwrap().state = Some(3);
    assert_eq!(said(&mut fake), (Level::Ok, String::new()));
}

#[test]
fn tables_of_the_kernel_fill_up() {
    let of = |now, most| {
        let used = Some(Used { now, most });
        let bounds = Bounds {
            connections: used,
            neighbours: used,
            neighbours6: None,
            local_ports: Some(Ports { first: 32_768, last: 60_999 }),
        };
        host::bounds(&bounds, PORTS_DEFAULT)
    };
    use Level::{Error, Ok, Warning};
    for (now, expected) in [
        (0, [Ok, Ok]),
        (899, [Ok, Ok]),
        (900, [Warning; 2]),
        (989, [Warning; 2]),
        (990, [Error, Warning]),
        (1000, [Error, Warning]),
    ] {
        let levels: Vec<Level> = of(now, 1000).iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [expected[0], expected[1], Ok], "{now}");
    }
    let hints: Vec<_> = of(1000, 1000).into_iter().filter_map(|finding| finding.hint).collect();
    let expected = [
        "sysctl -w net.netfilter.nf_conntrack_max=2000",
        "sysctl -w net.ipv4.neigh.default.gc_thresh3=2000",
    ];
    assert_eq!(hints, expected);
    assert_eq!(host::bounds(&Bounds::default(), PORTS_DEFAULT), []);
}

#[test]
fn ports_of_the_host_and_of_guests_are_apart() {
    let of = |first, last| {
        let local_ports = Some(Ports { first, last });
        let bounds = Bounds { local_ports, ..Bounds::default() };
        host::bounds(&bounds, PORTS_DEFAULT).remove(0).hint
    };
    assert_eq!(of(32_768, 60_999), None);
    assert_eq!(of(1024, 29_999), None);
    let set = |range: &str| Some(format!("sysctl -w net.ipv4.ip_local_port_range=\"{range}\""));
    assert_eq!(of(1024, 65_535), set("32768 65535"));
    assert_eq!(of(1024, 31_000), set("1024 29999"));
}

#[test]
fn the_way_out_may_be_missing_or_narrow() {
    let network = NetworkConfig::sample("default", "vbr0", "192.0.2.0/24", "192.0.2.1");
    let by = |mtu| Way::By { link: "eth0".into(), mtu };
    let of = |way: &Way| host::way(&network, "IPv4", way, 1500);
    assert_eq!(of(&Way::Unknown), []);
    assert_eq!(levels(&of(&Way::None("no route".into()))), [("route", Level::Error)]);
    assert_eq!(levels(&of(&by(1500))), [("route", Level::Ok), ("mtu", Level::Ok)]);
    assert_eq!(levels(&of(&by(1499))), [("route", Level::Ok), ("mtu", Level::Warning)]);
}

#[test]
fn the_way_to_peers_may_be_missing_or_narrow() {
    let network = NetworkConfig::sample("pods", "vbr0", "10.244.0.0/24", "10.244.0.1");
    let peers = "10.244.0.0/16".parse().unwrap();
    // An address that is not the network's own, which may be at either end.
    assert_eq!(network.an_address_of(peers), Some([10, 244, 255, 254].into()));
    let other = "10.245.0.0/16".parse().unwrap();
    assert_eq!(network.an_address_of(other), Some([10, 245, 0, 1].into()));
    assert_eq!(network.an_address_of("10.244.0.0/24".parse().unwrap()), None);
    let of = |way: &Way| host::peers(&network, peers, way);
    let by = |mtu| of(&Way::By { link: "vx0".into(), mtu });
    assert_eq!(of(&Way::Unknown), None);
    assert_eq!(by(1500), None);
    assert!(by(1450).unwrap().message.contains("vx0 takes 1450"));
    let missing = of(&Way::None("Network is unreachable".into())).unwrap();
    assert!(missing.message.contains("no route to the peers 10.244.0.0/16"), "{missing:?}");
}

#[test]
fn a_rule_of_others_is_told_if_it_is_in_the_way() {
    let rule = |what| Hindrance {
        family: "ip",
        table: "own".into(),
        chain: "pre".into(),
        handle: 5,
        what,
    };
    let of_bridge = |link: &str| rule(Hinders::Link(link.into())).of_bridges(&["vbr0"]);
    assert_eq!(of_bridge("vbr1"), None);
    let finding = of_bridge("vbr0").expect("a finding");
    assert_eq!(finding.hint.as_deref(), Some("nft delete rule ip own pre handle 5"));
    let port = HostPort { protocol: Protocol::Tcp, port: 8080, count: 2, ip: None };
    let taken = |port_of_rule| rule(Hinders::Port(port_of_rule)).of_port(&port, &web()).is_some();
    let all = [Some(8079), Some(8080), Some(8081), Some(8082), None].map(taken);
    assert_eq!(all, [false, true, true, false, false]);
    assert_eq!(rule(Hinders::Port(Some(8080))).of_bridges(&["vbr0"]), None);
}
