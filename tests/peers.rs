//! Networks on two hosts, each in a network namespace, with a VXLAN between them and a world beside
//! them: guests of both know each other by their own addresses, and nobody else begins a
//! connection.

mod common;

use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::room::Room;
use common::{in_namespace, run, try_run};

/// The prefix of all hosts' networks.
const PEERS: &str = "10.244.0.0/16";
const PEERS6: &str = "fd00:244::/32";
/// The port on which somebody listens.
const PORT: u16 = 7;

/// A host in the namespace of the calling thread, with one guest.
struct Host {
    daemon: Daemon,
    guest: Room,
    /// The guest's addresses.
    ip: String,
    ip6: String,
}

impl Host {
    /// The host with this number has 10.244.N.0/24.
    fn new(number: u8, host_services: &[&str]) -> Host {
        run("ip link set lo up");
        // A link asks for no neighbour before it is sure of its own address, which takes a second.
        run("sysctl -qw net.ipv6.conf.default.accept_dad=0");
        let daemon = Daemon::configured(&json!({"networks": [{
            "name": "pods", "bridge": "vbr0", "subnet": format!("10.244.{number}.0/24"),
            "peers": [PEERS, PEERS6], "host_services": host_services,
            "ipv6": {"prefix": format!("fd00:244:{number}::/64"), "nat": true}
        }]}));
        let networks = daemon.call("Networks", json!({}))["parameters"]["networks"].take();
        assert_eq!(networks[0]["peers"], json!([PEERS, PEERS6]), "{networks}");
        let guest = Room::new();
        let vm = attach(&daemon, "pod", &guest);
        let address = |field: &str| vm[field].as_str().expect("an address").to_string();
        Host { daemon, guest, ip: address("ip"), ip6: address("ip6") }
    }

    /// Runs a command line there, whichever thread calls.
    fn run(&self, line: &str) -> String {
        run(&format!("nsenter --net=/proc/{}/ns/net {line}", self.daemon.pid()))
    }

    fn can(&self, line: &str) -> bool {
        try_run(&format!("nsenter --net=/proc/{}/ns/net {line}", self.daemon.pid())).0
    }

    /// What Check has to say of peers.
    fn found(&self) -> Vec<String> {
        let findings = self.daemon.call("Check", json!({}))["parameters"]["findings"].take();
        let findings = findings.as_array().expect("findings").iter();
        let peers = findings.filter(|finding| finding["check"] == "peers");
        peers.map(|finding| finding["message"].as_str().expect("words").to_string()).collect()
    }
}

fn attach(daemon: &Daemon, name: &str, room: &Room) -> Value {
    let output = Command::new(&daemon.program)
        .args(["attach", name, "--netns", &room.netns(), "--json", "--socket"])
        .arg(daemon.socket())
        .stderr(Stdio::inherit())
        .output()
        .expect("volnet runs");
    let reply: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    reply["vm"].clone()
}

/// The address that somebody has for whom he sends something to; `None` if it does not arrive.
fn seen_from(from: &Room, to: &Room, address: &str) -> Option<String> {
    let listens = to.opened(|| UdpSocket::bind(("::", PORT)).expect("a socket"));
    listens.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let sends = from.opened(|| UdpSocket::bind("[::]:0").expect("a socket"));
    // Without a route, it is not even sent.
    let address: IpAddr = address.parse().expect("an address");
    let to = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    sends.send_to(b"x", (to, PORT)).ok()?;
    let (_, sender) = listens.recv_from(&mut [0; 8]).ok()?;
    Some(sender.ip().to_canonical().to_string())
}

/// Joins two hosts by a VXLAN on a link between them, as flannel does.
fn join(one: &Host, two: &Host) {
    one.run(&format!("ip link add fabric type veth peer name fabric netns {}", two.daemon.pid()));
    for (host, own, other) in [(one, 1, 2), (two, 2, 1)] {
        for line in [
            format!("ip address add 192.0.2.{own}/24 dev fabric"),
            "ip link set fabric up".into(),
            format!(
                "ip link add vx0 type vxlan id 7 dstport 4789 local 192.0.2.{own} \
                 remote 192.0.2.{other} dev fabric"
            ),
            format!("ip address add 10.255.0.{own}/24 dev vx0"),
            format!("ip address add fd00:255::{own}/64 dev vx0 nodad"),
            "ip link set vx0 up".into(),
        ] {
            host.run(&line);
        }
    }
    // The route to all peers has that to our own network within.
    one.run(&format!("ip route add {PEERS} via 10.255.0.2"));
    one.run(&format!("ip route add {PEERS6} via fd00:255::2"));
    two.run("ip route add 10.244.1.0/24 via 10.255.0.1");
    two.run("ip route add fd00:244:1::/64 via fd00:255::1");
}

/// A world beside a host, which knows the way to its guests.
fn world(host: &Host) -> Room {
    let world = Room::new();
    let pid = host.daemon.pid();
    world.run(&format!("ip link add uplink type veth peer name uplink netns {pid}"));
    world.run("ip address add 203.0.113.2/24 dev uplink");
    world.run("ip link set uplink up");
    host.run("ip address add 203.0.113.1/24 dev uplink");
    host.run("ip link set uplink up");
    world.run("ip route add 10.244.0.0/16 via 203.0.113.1");
    world
}

#[test]
fn guests_of_two_hosts_know_each_other_by_their_own_addresses() {
    in_namespace(|| {
        let mut one = Host::new(1, &["ping", "any"]);
        in_namespace(|| {
            let two = Host::new(2, &["ping"]);
            assert_eq!(one.found().len(), 2, "there is no way to them");
            join(&one, &two);
            let world = world(&one);
            let seen = |from: &Host, to: &Host| seen_from(&from.guest, &to.guest, &to.ip);
            assert_eq!(seen(&one, &two), Some(one.ip.clone()));
            assert_eq!(seen(&two, &one), Some(two.ip.clone()));
            let seen = |from: &Host, to: &Host| seen_from(&from.guest, &to.guest, &to.ip6);
            assert_eq!(seen(&one, &two), Some(one.ip6.clone()));
            assert_eq!(seen(&two, &one), Some(two.ip6.clone()));
            // The world is masqueraded to, and begins nothing.
            let to_world = || seen_from(&one.guest, &world, "203.0.113.2");
            assert_eq!(to_world().as_deref(), Some("203.0.113.1"));
            assert_eq!(seen_from(&world, &one.guest, &one.ip), None);
            // The other host is no peer itself.
            assert!(!two.can(&format!("ping -c 1 -W 1 -q -I 10.255.0.2 {}", one.ip)));
            assert!(!two.can(&format!("ping -c 1 -W 1 -q {}", one.ip6)));
            // A guest reaches all of the host where that is said, and no more elsewhere.
            for address in ["192.0.2.1", "203.0.113.1", "10.244.1.1"] {
                assert!(one.guest.can(&format!("ping -c 1 -W 2 -q {address}")), "{address}");
            }
            assert!(two.guest.can("ping -c 1 -W 2 -q 10.244.2.1"));
            assert!(!two.guest.can("ping -c 1 -W 1 -q 192.0.2.2"));
            // Longer packets than the way takes are told of.
            let found = one.found();
            assert!(found.len() == 2 && found[0].contains("vx0 takes 1450"), "{found:?}");
            one.daemon.crash();
        });
        // Nothing is wrong with a route that has the own network within.
        assert!(run("ip route").contains("10.244.0.0/16 via"));
        one.daemon.start_again();
        assert!(one.guest.can("ping -c 1 -W 2 -q 10.244.1.1"));
        let findings = one.daemon.call("Check", json!({})).to_string();
        assert!(!findings.contains("overlap"), "{findings}");
    });
}
