//! Services as kube-proxy makes them, by destination NAT, between namespaces on one bridge: a guest
//! reaches another by a service, and itself.

#![cfg(target_os = "linux")]

mod common;

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::room::Room;
use common::{in_namespace, run};

/// The addresses and the port of the service, and the port behind it.
const SERVICE: &str = "10.96.0.10";
const SERVICE6: &str = "fd00:96::10";
const PORT: u16 = 80;
const TARGET_PORT: u16 = 8080;
/// Whether bridged frames of all bridges pass the rules for routed packets (ip-sysctl.rst).
const BRIDGE_NF: [&str; 2] = ["iptables", "ip6tables"];
/// Longer than a packet that was lost is waited for (RFC 6298: a second).
const PATIENCE: Duration = Duration::from_millis(2500);
const IMPATIENCE: Duration = Duration::from_millis(700);

/// A namespace on the network, which listens.
struct Pod {
    room: Room,
    ip: IpAddr,
    ip6: IpAddr,
    listens: TcpListener,
}

impl Pod {
    fn new(daemon: &Daemon, name: &str, flags: &[&str]) -> Pod {
        let room = Room::new();
        let output = Command::new(&daemon.program)
            .args(["attach", name, "--netns", &room.netns(), "--json", "--socket"])
            .arg(daemon.socket())
            .args(flags)
            .stderr(Stdio::inherit())
            .output()
            .expect("volnet runs");
        let reply: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let address = |field: &str| reply["vm"][field].as_str().unwrap().parse().unwrap();
        let listens = room.opened(|| TcpListener::bind(("::", TARGET_PORT)).expect("a socket"));
        Pod { ip: address("ip"), ip6: address("ip6"), room, listens }
    }

    /// Whether a connection to the service comes about.
    fn reaches(&self, service: &str, patience: Duration) -> bool {
        let to = SocketAddr::new(service.parse().expect("an address"), PORT);
        let connection = self.room.opened(|| TcpStream::connect_timeout(&to, patience));
        connection.is_ok_and(|mut connection| connection.write_all(b"x").is_ok())
    }

    fn reaches_both(&self, patience: Duration) -> [bool; 2] {
        [SERVICE, SERVICE6].map(|service| self.reaches(service, patience))
    }
}

/// A host with a network that has services, or not.
fn host(services: bool) -> Daemon {
    run("ip link set lo up");
    Daemon::configured(&json!({ "networks": [{
        "name": "pods", "bridge": "vbr0", "subnet": "10.244.1.0/24", "services": services,
        "ipv6": { "prefix": "fd00:244:1::/64" }
    }] }))
}

/// What kube-proxy makes of a service with this pod behind it. A pod that reaches itself is
/// masqueraded (kubernetes/kubernetes, pkg/proxy/nftables/proxier.go).
fn serve(pod: &Pod) {
    let (ip, ip6) = (pod.ip, pod.ip6);
    let rules = format!(
        "table inet proxy {{
          chain nat-prerouting {{
            type nat hook prerouting priority dstnat; policy accept;
            ip daddr {SERVICE} tcp dport {PORT} ip saddr {ip} meta mark set 0x4000
            ip6 daddr {SERVICE6} tcp dport {PORT} ip6 saddr {ip6} meta mark set 0x4000
            ip daddr {SERVICE} tcp dport {PORT} dnat ip to {ip}:{TARGET_PORT}
            ip6 daddr {SERVICE6} tcp dport {PORT} dnat ip6 to [{ip6}]:{TARGET_PORT}
          }}
          chain nat-postrouting {{
            type nat hook postrouting priority srcnat; policy accept;
            meta mark & 0x4000 != 0 meta mark set mark & 0xffffbfff masquerade fully-random
          }}
        }}"
    );
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft");
    nft.stdin.take().expect("a pipe").write_all(rules.as_bytes()).expect("nft reads");
    assert!(nft.wait().expect("nft").success(), "{rules}");
}

fn filter_all_bridges(on: bool) {
    for family in BRIDGE_NF {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        std::fs::write(path, if on { "1" } else { "0" }).expect("modprobe br_netfilter");
    }
}

#[test]
fn a_service_is_reached_from_another_guest_and_from_the_guest_behind_it() {
    in_namespace(|| {
        let mut daemon = host(true);
        let (server, client) = (Pod::new(&daemon, "server", &[]), Pod::new(&daemon, "client", &[]));
        serve(&server);
        for on in [false, true] {
            filter_all_bridges(on);
            for pod in [&client, &server] {
                assert_eq!(pod.reaches_both(PATIENCE), [true, true], "all bridges: {on}");
            }
        }
        // The kernel alone does it.
        daemon.crash();
        assert_eq!(client.reaches_both(PATIENCE), [true, true]);
        daemon.start_again();
        assert_eq!(server.reaches_both(PATIENCE), [true, true]);
        let networks = daemon.call("Networks", json!({}))["parameters"]["networks"].take();
        assert_eq!(networks[0]["services"], true, "{networks}");
    });
}

#[test]
fn the_guest_behind_a_service_sees_who_connects() {
    in_namespace(|| {
        let daemon = host(true);
        let (server, client) = (Pod::new(&daemon, "server", &[]), Pod::new(&daemon, "client", &[]));
        serve(&server);
        let sees = |pod: &Pod, service| {
            assert!(pod.reaches(service, PATIENCE));
            let (_, from) = server.listens.accept().expect("it came about");
            from.ip().to_canonical()
        };
        assert_eq!(sees(&client, SERVICE), client.ip);
        assert_eq!(sees(&client, SERVICE6), client.ip6);
        // It would not take its own address for another's.
        assert_eq!(sees(&server, SERVICE).to_string(), "10.244.1.1");
        assert_eq!(sees(&server, SERVICE6).to_string(), "fd00:244:1::1");
    });
}

#[test]
fn without_services_the_host_connects_and_nobody_reaches_himself() {
    in_namespace(|| {
        let daemon = host(false);
        let (server, client) = (Pod::new(&daemon, "server", &[]), Pod::new(&daemon, "client", &[]));
        serve(&server);
        filter_all_bridges(true);
        assert!(client.reaches(SERVICE, PATIENCE));
        let (_, from) = server.listens.accept().expect("it came about");
        assert_eq!(from.ip().to_canonical().to_string(), "10.244.1.1");
        assert!(!server.reaches(SERVICE, IMPATIENCE), "the frame does not go back by its port");
    });
}

#[test]
fn a_service_leads_nobody_where_he_may_not_go() {
    in_namespace(|| {
        let daemon = host(true);
        let server = Pod::new(&daemon, "server", &["--isolated"]);
        let apart = Pod::new(&daemon, "apart", &["--isolated"]);
        let client = Pod::new(&daemon, "client", &[]);
        serve(&server);
        assert_eq!(client.reaches_both(PATIENCE), [true, true]);
        assert_eq!(apart.reaches_both(IMPATIENCE), [false, false], "both are isolated");
        // Somebody else's address gets nothing, not even by a service.
        client.room.run("ip address replace 10.244.1.200/24 dev eth0");
        client.room.run(&format!("ip address delete {}/24 dev eth0", client.ip));
        assert!(!client.reaches(SERVICE, IMPATIENCE), "it is not its address");
        assert!(client.reaches(SERVICE6, PATIENCE));
    });
}

#[test]
fn a_guest_reaches_itself_by_an_exposed_port_where_bridged_frames_are_filtered() {
    in_namespace(|| {
        let daemon = host(true);
        filter_all_bridges(true);
        let flags = ["--expose", &format!("{PORT}:{TARGET_PORT}")];
        let server = Pod::new(&daemon, "server", &flags);
        let client = Pod::new(&daemon, "client", &[]);
        for pod in [&client, &server] {
            assert!(pod.reaches("10.244.1.1", PATIENCE), "the host's address on the network");
        }
    });
}
