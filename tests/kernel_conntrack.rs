//! Tracked connections of an address on the real kernel, planted and read back with `conntrack`.

#![cfg(target_os = "linux")]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{in_namespace, run};
use volnet::network::Network;
use volnet::network::linux::Linux;
use volnet::network::linux::conntrack::{Conntrack, FlowSelector};
use volnet::network::linux::nft::Nft;
use volnet::network::linux::socket::{NetlinkFamily, Socket};
use volnet::plan::op::{Handover, Op};

const GUEST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 127, 9));

/// Connections of the guest: begun and answered, as itself and behind NAT, in a zone.
const GUESTS: [&str; 5] = [
    "-p tcp --state ESTABLISHED -s 192.168.127.9 -d 203.0.113.1 --sport 40000 --dport 443",
    "-p udp -s 192.168.127.9 -d 203.0.113.1 --sport 40001 --dport 53 --src-nat 192.0.2.1",
    "-p udp -s 192.168.127.1 -d 192.168.127.9 --sport 40002 --dport 53",
    "-p udp -s 198.51.100.7 -d 192.0.2.1 --sport 40003 --dport 53 --dst-nat 192.168.127.9",
    "-p udp -s 192.168.127.9 -d 203.0.113.1 --sport 40001 --dport 53 --zone 7",
];
/// Connections of others, with the guest's in every way but the address.
const OTHERS: [&str; 2] = [
    "-p udp -s 192.168.127.8 -d 203.0.113.1 --sport 40001 --dport 53",
    "-p udp -s 192.168.127.1 -d 192.168.127.90 --sport 40002 --dport 53",
];

fn plant(flows: &[&str]) {
    for flow in flows {
        run(&format!("conntrack -I -t 600 {flow}"));
    }
}

fn tracked() -> usize {
    run("conntrack -L").lines().filter(|line| line.contains("src=")).count()
}

/// What becomes of a way to delete connections on a kernel that may lack it.
fn possible(how: Conntrack) -> Conntrack {
    match Nft::new().unwrap().connections().unwrap() {
        Conntrack::Filter => how,
        there => there,
    }
}

#[test]
fn the_connections_of_an_address_go_and_no_others() {
    for how in [Conntrack::Filter, Conntrack::Single] {
        in_namespace(|| {
            let (mut socket, mut conntrack) =
                (Socket::open(NetlinkFamily::Netfilter).unwrap(), how);
            conntrack.forget(&mut socket, FlowSelector::Of(GUEST)).unwrap();
            plant(&GUESTS);
            plant(&OTHERS);
            assert_eq!(tracked(), 7);
            for _ in 0..2 {
                conntrack.forget(&mut socket, FlowSelector::Of(GUEST)).unwrap();
                assert_eq!(tracked(), 2);
                assert!(!run("conntrack -L").contains("192.168.127.9 "));
            }
            assert_eq!(conntrack, possible(how), "the kernel did as it was asked");
        });
    }
}

/// Of both families, by one reading of the table.
#[test]
fn the_connections_of_several_addresses_go_together_and_no_others() {
    in_namespace(|| {
        plant(&GUESTS);
        plant(&["-p udp -s fd00::9 -d fd00::1 --sport 40001 --dport 53"]);
        plant(&OTHERS);
        let ipv6 = IpAddr::V6("fd00::9".parse().unwrap());
        let mut socket = Socket::open(NetlinkFamily::Netfilter).unwrap();
        Conntrack::Single.forget_all(&mut socket, &[ipv6].into()).unwrap();
        assert_eq!(run("conntrack -L -f ipv6").lines().filter(|it| it.contains("src=")).count(), 0);
        assert_eq!(tracked(), GUESTS.len() + OTHERS.len());
        plant(&["-p udp -s fd00::9 -d fd00::1 --sport 40001 --dport 53"]);
        Conntrack::Single.forget_all(&mut socket, &[GUEST, ipv6].into()).unwrap();
        assert_eq!(tracked(), OTHERS.len());
        assert_eq!(run("conntrack -L -f ipv6").lines().filter(|it| it.contains("src=")).count(), 0);
    });
}

/// Addresses that are given out in a moment, while the thread waits for more of them.
#[test]
fn the_connections_of_addresses_that_are_assigned_together_all_go() {
    for others in [10, 100] {
        in_namespace(|| {
            let mut linux = Linux::new(0).unwrap();
            run("ip link add vbr0 type bridge");
            plant(&GUESTS);
            plant(&["-p udp -s fd00::9 -d fd00::1 --sport 40001 --dport 53"]);
            plant(&OTHERS);
            let others = (100..100 + others).map(|last| Ipv4Addr::new(192, 168, 127, last).into());
            for address in others.chain([GUEST, IpAddr::V6("fd00::9".parse().unwrap())]) {
                let (link, at) = ("vbr0".into(), Handover::Assigned);
                linux.apply(&Op::ForgetAddress { link, address, at }).unwrap();
            }
            linux.flush();
            assert_eq!(tracked(), OTHERS.len());
            let left = run("conntrack -L -f ipv6");
            assert_eq!(left.lines().filter(|it| it.contains("src=")).count(), 0);
        });
    }
}

#[test]
fn the_connections_of_an_ipv6_address_go_and_no_others() {
    let guest = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9));
    let tracked = || run("conntrack -L -f ipv6").lines().filter(|it| it.contains("src=")).count();
    for how in [Conntrack::Filter, Conntrack::Single] {
        in_namespace(|| {
            let (mut socket, mut conntrack) =
                (Socket::open(NetlinkFamily::Netfilter).unwrap(), how);
            plant(&[
                "-p udp -s fd00::9 -d 2001:db8::1 --sport 40001 --dport 53",
                "-p udp -s 2001:db8::7 -d fd00::9 --sport 40002 --dport 53",
                "-p udp -s fd00::8 -d 2001:db8::1 --sport 40001 --dport 53",
            ]);
            plant(&OTHERS);
            assert_eq!(tracked(), 3);
            for _ in 0..2 {
                conntrack.forget(&mut socket, FlowSelector::Of(guest)).unwrap();
                assert_eq!(tracked(), 1);
            }
            assert!(run("conntrack -L -f ipv6").contains("src=fd00::8"));
            assert_eq!(self::tracked(), 1 + OTHERS.len());
            assert_eq!(conntrack, how, "nothing is learnt: no filter is used for IPv6");
        });
    }
}

/// Connections that a port of the host led to the guest, and some that it did not.
#[test]
fn the_connections_of_a_port_that_leads_nowhere_go_and_no_others() {
    let led = [
        "-p tcp --state ESTABLISHED -s 198.51.100.7 -d 192.0.2.1 --sport 4000 --dport 8080 \
         --dst-nat 192.168.127.9:80",
        "-p tcp --state ESTABLISHED -s 192.168.127.8 -d 192.168.127.1 --sport 4001 --dport 8080 \
         --dst-nat 192.168.127.9:80 --src-nat 192.168.127.1",
    ];
    let others = [
        "-p tcp --state ESTABLISHED -s 198.51.100.7 -d 192.0.2.1 --sport 4000 --dport 8081 \
         --dst-nat 192.168.127.9:80",
        "-p tcp --state ESTABLISHED -s 192.168.127.1 -d 192.168.127.9 --sport 4002 --dport 80",
        "-p udp -s 198.51.100.7 -d 192.0.2.1 --sport 4000 --dport 8080 --dst-nat 192.168.127.9:80",
        "-p tcp --state ESTABLISHED -s 198.51.100.7 -d 192.0.2.2 --sport 4000 --dport 8080 \
         --dst-nat 192.168.127.8:80",
        "-p icmp -s 198.51.100.7 -d 192.168.127.9 --icmp-type 8 --icmp-code 0",
    ];
    for how in [Conntrack::Filter, Conntrack::Single] {
        in_namespace(|| {
            let (mut socket, mut conntrack) =
                (Socket::open(NetlinkFamily::Netfilter).unwrap(), how);
            plant(&led);
            plant(&others);
            assert_eq!(tracked(), 7);
            let flows =
                FlowSelector::Led { protocol: 6, host_port: 8080, address: GUEST, port: 80 };
            for _ in 0..2 {
                conntrack.forget(&mut socket, flows).unwrap();
                assert_eq!(tracked(), 5);
            }
            assert_eq!(conntrack, possible(how), "the kernel did as it was asked");
        });
    }
}

#[test]
fn an_address_of_which_nothing_is_kept_is_as_good_as_forgotten() {
    in_namespace(|| {
        let mut linux = Linux::new(0).unwrap();
        let (link, at) = ("vbr0".to_string(), Handover::Assigned);
        let forget = Op::ForgetAddress { link, address: GUEST, at };
        plant(&GUESTS);
        linux.apply(&forget).expect("without the link");
        linux.flush();
        assert_eq!(tracked(), 0);
        run("ip link add vbr0 type bridge");
        linux.apply(&forget).expect("with no neighbour");
        run("ip link set vbr0 up");
        run("ip neigh add 192.168.127.9 lladdr 02:00:00:00:00:09 dev vbr0");
        linux.apply(&forget).unwrap();
        assert_eq!(run("ip -4 neigh show dev vbr0"), "");
    });
}

/// More than are read at a time, and more than are deleted in one send.
#[test]
fn many_connections_go_in_rounds() {
    in_namespace(|| {
        let plant: String = (0..5000)
            .map(|n| {
                format!(
                    "-I -p udp -t 600 -s 192.168.127.9 -d 203.0.113.1 --sport {} --dport 53\n",
                    1024 + n
                )
            })
            .collect();
        let file = std::env::temp_dir().join(format!("volnet-flows-{}", std::process::id()));
        std::fs::write(&file, plant).unwrap();
        run(&format!("conntrack --load-file {}", file.display()));
        std::fs::remove_file(file).unwrap();
        assert_eq!(tracked(), 5000);
        let mut socket = Socket::open(NetlinkFamily::Netfilter).unwrap();
        Conntrack::Single.forget(&mut socket, FlowSelector::Of(GUEST)).unwrap();
        assert_eq!(tracked(), 0);
    });
}
