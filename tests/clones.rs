//! Guests that all believe in the same addresses, on the real kernel. They are namespaces behind
//! their taps.

#![cfg(target_os = "linux")]

#[path = "attack/frame.rs"]
#[allow(dead_code, reason = "the attacks use the rest of it")]
mod frame;

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::flow::{Flow, Running, ask, serve};
use common::space::{Guest, Space, WORLD_IP, attach};
use common::{eventually, in_namespace, json, run, try_run};
use frame::{ARP, ARP_REPLY, ARP_REQUEST, BROADCAST, IPV4, Mac, arp, ethernet, udp};

const HOST: &str = "203.0.113.1";
const GATEWAY: &str = "192.168.127.1";
/// What all clones have inside. An ordinary VM has the address outside.
const INNER_IP: &str = "192.168.127.200";
const INNER_MAC: &str = "02:aa:aa:aa:aa:aa";
/// In bytes, and those of others.
const INSIDE: (Mac, Ipv4Addr) =
    ([0x02, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa], Ipv4Addr::new(192, 168, 127, 200));
const HOST_INSIDE: (Mac, Ipv4Addr) =
    ([0x02, 0x76, 0x6f, 0x6c, 0x67, 0x77], Ipv4Addr::new(192, 168, 127, 1));
/// Bytes of `struct virtio_net_hdr` in front of each frame.
const VNET_HDR_BYTES: usize = 10;
const NOBODY: (Mac, Ipv4Addr) = ([0x02, 0, 0, 0, 0, 0x99], Ipv4Addr::new(192, 168, 127, 99));

fn create(daemon: &Daemon, name: &str, network: Value) -> Value {
    daemon.create(json!({ "name": name, "config": { "network": network } }))
}

fn clone(daemon: &Daemon, name: &str) -> Value {
    create(daemon, name, json!({ "inner": { "mac": INNER_MAC, "ip": INNER_IP } }))
}

fn ip(vm: &Value) -> String {
    vm["ip"].as_str().expect("an address").into()
}

fn mac_of(text: &str) -> Mac {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect();
    bytes.try_into().expect("six bytes")
}

/// Two clones, an ordinary VM with their inner address outside, another one, and the world.
struct Scene {
    daemon: Daemon,
    world: Space,
    vms: [Value; 4],
    guests: [Guest; 4],
}

impl Scene {
    fn new(flags: &[&str]) -> Scene {
        run("ip link set lo up");
        let world = Space::world();
        let daemon = Daemon::start(flags);
        let namesake = create(&daemon, "namesake", json!({ "ip": INNER_IP }));
        let vms = [
            clone(&daemon, "one"),
            clone(&daemon, "two"),
            namesake,
            create(&daemon, "other", json!({})),
        ];
        let guests = [0, 1, 2, 3].map(|at: usize| Guest::of(&vms[at]));
        Scene { daemon, world, vms, guests }
    }

    fn outside(&self, at: usize) -> (Mac, Ipv4Addr) {
        let vm = &self.vms[at];
        (mac_of(vm["mac"].as_str().unwrap()), ip(vm).parse().unwrap())
    }

    /// Everybody reaches everybody, but for the namesake and the clones.
    fn check(&self) {
        let [one, two, namesake, other] = &self.guests;
        let [one_ip, two_ip, _, other_ip] = [0, 1, 2, 3].map(|at| ip(&self.vms[at]));
        assert_ne!(one_ip, two_ip);
        for (from, to) in [(one, &two_ip), (two, &one_ip), (one, &other_ip), (other, &one_ip)] {
            assert!(from.reaches(to), "{to}: {}", self.daemon.log());
        }
        for guest in [one, two, namesake] {
            assert!(guest.reaches(GATEWAY) && guest.reaches(WORLD_IP), "{}", self.daemon.log());
        }
        assert!(other.reaches(INNER_IP), "that is the namesake's address");
        assert!(try_run(&format!("ping -q -c 1 -W 2 {two_ip}")).0, "the host");
    }
}

#[test]
fn clones_are_reached_at_addresses_of_their_own_and_know_only_one() {
    in_namespace(|| {
        let scene = Scene::new(&[]);
        scene.check();
        let [one, two, namesake, other] = &scene.guests;
        let [one_ip, two_ip, _, other_ip] = [0, 1, 2, 3].map(|at| ip(&scene.vms[at]));
        let _servers = [one, two, other].map(|guest| serve(&guest.space, 80));
        let _of_world = serve(&scene.world, 80);
        for protocol in ["tcp", "udp"] {
            for (from, to, known_as) in [
                (one, &two_ip, &one_ip),
                (two, &one_ip, &two_ip),
                (other, &two_ip, &other_ip),
                (two, &other_ip, &two_ip),
                (one, &WORLD_IP.to_string(), &HOST.to_string()),
            ] {
                let seen = ask(Some(&from.space), protocol, to, 80);
                assert_eq!(seen.as_ref(), Some(known_as), "{protocol} {to} {}", scene.daemon.log());
            }
            assert_eq!(ask(None, protocol, &one_ip, 80).as_deref(), Some(GATEWAY), "the host");
        }
        // A clone takes the namesake for itself, so they are kept from each other.
        let _namesakes = serve(&namesake.space, 80);
        assert_eq!(ask(Some(&namesake.space), "tcp", &one_ip, 80), None);
        assert_eq!(ask(Some(&other.space), "tcp", INNER_IP, 80), Some(other_ip));
        // Whether somebody else has its address, it asks with the address that it has outside.
        let probed = one.space.command("python3").args(["-c", PROBE, INNER_IP, GATEWAY]).output();
        let probed = probed.expect("python3 runs");
        assert_eq!(String::from_utf8_lossy(&probed.stdout), "nobody has it\n", "{probed:?}");
        send(
            &one.space,
            &[ethernet(BROADCAST, INSIDE.0, ARP, &arp(ARP_REQUEST, INSIDE, INSIDE.1, &[]))],
        );
        assert!(other.reaches(&one_ip), "what was announced before is read");
        let neighbour = other.space.run(&format!("ip neigh show {INNER_IP}"));
        assert!(neighbour.contains(scene.vms[2]["mac"].as_str().unwrap()), "{neighbour}");
        let links = one.space.run("ip -o addr show dev eth0") + &one.space.run("ip -o link");
        assert!(links.contains(INNER_IP) && links.contains(INNER_MAC), "{links}");
    });
}

#[test]
fn ports_policies_and_limits_of_a_clone_are_those_of_its_vm() {
    in_namespace(|| {
        let scene = Scene::new(&[]);
        let [one, two, ..] = &scene.guests;
        let call = |method: &str, parameters: Value| {
            let reply = scene.daemon.call(method, parameters);
            assert!(reply["error"].is_null(), "{reply}");
        };
        let _servers = [serve(&one.space, 80), serve(&two.space, 80), serve(&scene.world, 80)];
        for (name, port) in [("one", 8081), ("two", 8082)] {
            call("Expose", json!({ "name": name, "port": 80, "host_port": port }));
        }
        for port in [8081, 8082] {
            let seen = ask(Some(&scene.world), "tcp", HOST, port);
            assert_eq!(seen.as_deref(), Some(WORLD_IP), "{}", scene.daemon.log());
        }
        call("SetPolicy", json!({ "name": "one", "policy": "none" }));
        assert_eq!(ask(Some(&one.space), "tcp", WORLD_IP, 80), None);
        assert_eq!(ask(Some(&two.space), "tcp", WORLD_IP, 80).as_deref(), Some(HOST));
        let metrics = scene.daemon.call("Metrics", json!({}))["parameters"]["text"].to_string();
        assert!(metrics.contains(r#"{vm=\"one\",verdict=\"denied\"} "#), "{metrics}");
        call("SetLimits", json!({ "name": "one", "rx_mbit": 50 }));
        assert!(run("tc qdisc show dev vttap-one").contains("50Mbit"));
    });
}

#[test]
fn errors_of_icmp_reach_the_socket_that_they_are_about() {
    in_namespace(|| {
        let scene = Scene::new(&[]);
        let [one, _, _, other] = &scene.guests;
        let refused = |from: &Guest, to: &str| {
            let flow = Flow::open(Some(&from.space), "udp", to, 9);
            flow.said.contains("refused")
        };
        assert!(refused(other, &ip(&scene.vms[0])), "of a clone, to another guest");
        assert!(refused(one, &ip(&scene.vms[3])), "of another guest, to a clone");
        assert!(refused(one, &ip(&scene.vms[1])), "of a clone, to a clone");
        // A path whose next link takes less.
        run(&format!("ip route add {WORLD_IP}/32 dev uplink mtu 1300"));
        let answer = one.space.run_any(&format!("ping -c 2 -i 0.2 -W 2 -M do -s 1400 {WORLD_IP}"));
        assert!(answer.contains("mtu = 1300") || answer.contains("mtu=1300"), "{answer}");
        let route = one.space.run(&format!("ip route get {WORLD_IP}"));
        assert!(route.contains("mtu 1300"), "{route}");
        // Its kernel counts errors that it can make no sense of, and wrong checksums.
        let counted = one.space.run("nstat -az IcmpInErrors IcmpInCsumErrors TcpInCsumErrors");
        for line in counted.lines().filter(|line| line.contains("Errors")) {
            assert_eq!(line.split_whitespace().nth(1), Some("0"), "{counted}");
        }
    });
}

#[test]
fn connections_of_the_original_end_at_its_clones_and_stay_with_it() {
    in_namespace(|| {
        let scene = Scene::new(&[]);
        let [original, woken, _, other] = &scene.guests;
        let _servers = [serve(&scene.world, 80), serve(&other.space, 80)];
        let _bystander = serve(&woken.space, 80);
        for to in [WORLD_IP.to_string(), ip(&scene.vms[3])] {
            let mut flow = Flow::open(Some(&original.space), "tcp", &to, 80);
            assert!(flow.known_as.is_some(), "{}", flow.said);
            let sockets = original.space.run(&format!("ss -Htn dst {to}"));
            let own = sockets.split_whitespace().nth(3).expect("a connection");
            let port = own.rsplit_once(':').expect("a port").1;
            // The clone goes on with a connection that it has in its memory.
            let mut goes_on = woken.space.command("python3");
            let goes_on = goes_on.args(["-c", GO_ON, INNER_IP, port, &to]).output();
            let goes_on = goes_on.expect("python3 runs");
            assert_eq!(String::from_utf8_lossy(&goes_on.stdout), "reset\n", "{to}: {goes_on:?}");
            assert_eq!(flow.echo("still here"), "still here", "{to}");
        }
    });
}

#[test]
fn a_clone_may_believe_in_another_subnet() {
    in_namespace(|| {
        run("ip link set lo up");
        let world = Space::world();
        let daemon = Daemon::configured(&json!({ "networks": [{
            "name": "default", "bridge": "vbr0", "subnet": "192.168.127.0/24",
            "inner": { "mac": INNER_MAC, "ip": "172.16.0.2/30", "gateway": "172.16.0.1" },
            "host_services": ["ping", "tcp/80"],
        }] }));
        let vms = [create(&daemon, "one", json!({})), create(&daemon, "two", json!({}))];
        assert_eq!(vms[0]["inner"]["gateway"], "172.16.0.1", "{}", vms[0]);
        let args = vms[0]["kernel_args"].as_str().unwrap();
        assert_eq!(args, "ip=172.16.0.2::172.16.0.1:255.255.255.252:one:eth0:off:172.16.0.1");
        let guests = [Guest::of(&vms[0]), Guest::of(&vms[1])];
        let [one, two] = &guests;
        let _servers = guests.each_ref().map(|guest| serve(&guest.space, 80));
        let (one_ip, two_ip) = (ip(&vms[0]), ip(&vms[1]));
        let _world = serve(&world, 80);
        for protocol in ["tcp", "udp"] {
            let ask = |from: &Guest, to: &str| ask(Some(&from.space), protocol, to, 80);
            assert_eq!(ask(one, &two_ip), Some(one_ip.clone()), "{}", daemon.log());
            assert_eq!(ask(two, &one_ip), Some(two_ip.clone()));
            assert_eq!(ask(two, WORLD_IP).as_deref(), Some(HOST));
        }
        // Who looks it over finds it as it is.
        let found =
            daemon.call("Doctor", json!({ "name": "one" }))["parameters"]["findings"].take();
        let of_guest = |finding: &&Value| finding["check"] == "guest";
        let of_guest: Vec<&Value> = found.as_array().unwrap().iter().filter(of_guest).collect();
        let good = of_guest.iter().all(|finding| finding["level"] == "ok");
        assert!(!of_guest.is_empty() && good, "{found}");
        // It asks the gateway for names, and for its address.
        let named = one.space.command("python3").args(["-c", ASK_NAME]).output().expect("python3");
        assert_eq!(String::from_utf8_lossy(&named.stdout).trim(), two_ip, "{}", daemon.log());
        let path = |file: &str| daemon.folder.join(file).display().to_string();
        std::fs::write(path("conf"), "supersede dhcp-renewal-time 1;").expect("a file");
        let files = [("-cf", "conf"), ("-lf", "leases"), ("-pf", "pid")];
        let files = files.map(|(flag, name)| format!("{flag} {}", path(name))).join(" ");
        let line = format!("-4 -d -v {files} -sf /bin/true eth0");
        let mut client = one.space.command("dhclient");
        let client = client.args(line.split(' ')).stderr(Stdio::piped()).spawn();
        let mut client = Running(client.expect("dhclient runs"));
        let said = BufReader::new(client.0.stderr.take().expect("a pipe")).lines();
        let said: Vec<String> =
            said.map_while(Result::ok).take_while(is_not_renewed()).take(60).collect();
        let asked = "DHCPREQUEST for 172.16.0.2 on eth0 to 172.16.0.1 port 67";
        assert!(said.iter().any(|line| line == asked), "it renews its lease: {said:?}");
        drop(client);
        // The gateway has an Ethernet address that is the same on each host.
        let neighbour = one.space.run("ip neigh show 172.16.0.1");
        assert!(neighbour.contains("02:76:6f:6c:67:77"), "{neighbour}");
        assert!(try_run(&format!("ping -q -c 1 -W 2 {one_ip}")).0, "the host");
    });
}

#[test]
fn isolated_clones_do_not_reach_each_other_by_their_gateway_either() {
    in_namespace(|| {
        run("ip link set lo up");
        let _world = Space::world();
        let daemon = Daemon::configured(&json!({ "networks": [{
            "name": "default", "bridge": "vbr0", "subnet": "192.168.127.0/24", "isolated": true,
            "inner": { "mac": INNER_MAC, "ip": "172.16.0.2/30", "gateway": "172.16.0.1" },
        }] }));
        let vms = [create(&daemon, "one", json!({})), create(&daemon, "two", json!({}))];
        let [one, two] = [Guest::of(&vms[0]), Guest::of(&vms[1])];
        assert!(one.reaches(WORLD_IP) && two.reaches(WORLD_IP), "{}", daemon.log());
        assert!(!one.reaches(&ip(&vms[1])) && !two.reaches(&ip(&vms[0])));
        assert!(try_run(&format!("ping -q -c 1 -W 2 {}", ip(&vms[0]))).0, "the host");
    });
}

#[test]
fn a_guest_that_knows_its_gateway_from_another_host_is_not_deaf() {
    in_namespace(|| {
        run("ip link set lo up");
        let daemon = Daemon::start(&[]);
        let of_old = "02:99:99:99:99:99";
        let inner = json!({ "mac": INNER_MAC, "ip": INNER_IP, "gateway_mac": of_old });
        let vm = create(&daemon, "one", json!({ "inner": inner }));
        let guest = Guest::of(&vm);
        guest
            .space
            .run(&format!("ip neigh replace {GATEWAY} lladdr {of_old} dev eth0 nud permanent"));
        assert!(guest.reaches(GATEWAY), "{}", daemon.log());
        // Whoever made the snapshot did not know: then the guest is told.
        clone(&daemon, "two");
        let tap = attach("vttap-two");
        let mut frame = [0; 2048];
        let said = arp(ARP_REQUEST, (HOST_INSIDE.0, HOST_INSIDE.1), HOST_INSIDE.1, &[]);
        let said = ethernet(BROADCAST, HOST_INSIDE.0, ARP, &said);
        eventually("it is told", || {
            nix::unistd::read(tap.as_fd(), &mut frame).is_ok_and(|length| {
                frame[..length].get(VNET_HDR_BYTES..).is_some_and(|frame| *frame == said[..])
            })
        });
    });
}

/// Whether a line of dhclient comes before those about a lease that was renewed.
fn is_not_renewed() -> impl FnMut(&String) -> bool {
    let mut bound = 0;
    move |line| {
        bound += usize::from(line.starts_with("bound to 172.16.0.2"));
        bound < 2
    }
}

/// Asks for the address of `two.volnet`.
const ASK_NAME: &str = r#"
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.settimeout(10)
server.connect(("172.16.0.1", 53))
server.send(b"\0\1\1\0\0\1\0\0\0\0\0\0\3two\6volnet\0\0\1\0\1")
print(socket.inet_ntoa(server.recv(512)[-4:]))
"#;

/// Goes on with a connection that somebody else has made, as the memory of a guest has it
/// (`TCP_REPAIR`, `TCP_REPAIR_QUEUE`, `TCP_QUEUE_SEQ` of linux/tcp.h), and says how that ends.
const GO_ON: &str = r#"
import errno, socket, sys
own, port, to = sys.argv[1], int(sys.argv[2]), sys.argv[3]
link = socket.socket()
link.setsockopt(socket.IPPROTO_TCP, 19, 1)
link.bind((own, port))
for queue in (1, 2):
    link.setsockopt(socket.IPPROTO_TCP, 20, queue)
    link.setsockopt(socket.IPPROTO_TCP, 21, 1000000)
link.connect((to, 80))
link.setsockopt(socket.IPPROTO_TCP, 19, 0)
link.settimeout(10)
try:
    link.send(b"hello")
    print(link.recv(10))
except OSError as error:
    print("reset" if error.errno in (errno.ECONNRESET, errno.EPIPE) else error)
"#;

/// Probes an address by ARP (RFC 5227), asks for the gateway then, and says who has answered.
const PROBE: &str = r#"
import socket, sys
own, gateway = map(socket.inet_aton, sys.argv[1:])
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x806))
link.bind(("eth0", 0x806))
link.settimeout(10)
mac = link.getsockname()[4]
def ask(sender, target):
    header = bytes([0, 1, 8, 0, 6, 4, 0, 1])
    link.send(b"\xff" * 6 + mac + b"\x08\x06" + header + mac + sender + bytes(6) + target)
ask(bytes(4), own)
ask(own, gateway)
while True:
    frame, (_, _, kind, *_) = link.recvfrom(2048)
    if kind != 4 and frame[20:22] == b"\0\2":
        if frame[28:32] == own:
            print("somebody has it")
        elif frame[28:32] == gateway:
            print("nobody has it")
            break
"#;

/// Writes the frames of its input, in hexadecimal, to `eth0`.
const SEND: &str = r#"
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(("eth0", 0))
for line in sys.stdin:
    link.send(bytes.fromhex(line))
"#;

/// Prints the payload of each frame that comes by `eth0` and has one of the test's, to the last.
const HEAR: &str = r#"
import re, socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.bind(("eth0", 3))
link.settimeout(20)
print("ready", flush=True)
while True:
    frame, (_, _, kind, *_) = link.recvfrom(2048)
    if kind != 4 and (tag := re.search(rb"<(.*)>", frame)):
        print(tag[1].decode(), flush=True)
        if tag[1] == b"last":
            break
"#;

struct Hearer(Child, BufReader<std::process::ChildStdout>);

impl Hearer {
    fn at(space: &Space) -> Hearer {
        let mut child = space
            .command("python3")
            .args(["-c", HEAR])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        out.read_line(&mut line).expect("text");
        assert_eq!(line, "ready\n");
        Hearer(child, out)
    }

    /// What was heard before the last.
    fn heard(self) -> Vec<String> {
        let Hearer(mut child, out) = self;
        let heard = out.lines().map(|line| line.expect("text"));
        let heard = heard.filter(|tag| tag != "last").collect();
        assert!(child.wait().expect("it ends").success(), "the last came");
        heard
    }
}

fn send(space: &Space, frames: &[Vec<u8>]) {
    let mut child = space
        .command("python3")
        .args(["-c", SEND])
        .stdin(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut input = child.stdin.take().expect("a pipe");
    for frame in frames {
        let digits: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(input, "{digits}").expect("it reads");
    }
    drop(input);
    assert!(child.wait().expect("it ends").success());
}

fn datagram(from: (Mac, Ipv4Addr), to: (Mac, Ipv4Addr), tag: &str) -> Vec<u8> {
    let text = format!("<{tag}>");
    ethernet(to.0, from.0, IPV4, &udp((from.1, 9), (to.1, 9), text.as_bytes()))
}

#[test]
fn a_hostile_clone_is_held_to_its_inner_identity() {
    in_namespace(|| {
        let scene = Scene::new(&[]);
        let [one, two, _, other] = &scene.guests;
        let [own, twin, _, victim] = [0, 1, 2, 3].map(|at| scene.outside(at));
        let gateway = HOST_INSIDE;
        let host = mac_of(common::ip_link("vbr0")["address"].as_str().unwrap());
        let claim = |kind, sender: (Mac, Ipv4Addr), tag: &str| {
            let text = format!("<{tag}>");
            ethernet(BROADCAST, INSIDE.0, ARP, &arp(kind, sender, victim.1, text.as_bytes()))
        };
        let hearers = [Hearer::at(&other.space), Hearer::at(&two.space)];
        let forbidden = [
            datagram((INSIDE.0, own.1), victim, "own outer address"),
            datagram((own.0, INSIDE.1), victim, "own outer Ethernet address"),
            datagram(own, victim, "both"),
            datagram((INSIDE.0, twin.1), victim, "another clone's address"),
            datagram((INSIDE.0, NOBODY.1), victim, "nobody's address"),
            datagram(gateway, victim, "the gateway"),
            datagram((host, gateway.1), victim, "the host"),
            claim(ARP_REPLY, (INSIDE.0, gateway.1), "ARP of the gateway"),
            claim(ARP_REQUEST, (INSIDE.0, own.1), "ARP of its outer address"),
            claim(ARP_REQUEST, (own.0, INSIDE.1), "ARP of its outer Ethernet address"),
            claim(ARP_REPLY, (INSIDE.0, twin.1), "ARP of another clone"),
        ];
        send(&one.space, &forbidden);
        let allowed = [
            claim(ARP_REQUEST, INSIDE, "its own announcement"),
            claim(ARP_REQUEST, (INSIDE.0, Ipv4Addr::UNSPECIFIED), "its own probe"),
            datagram(INSIDE, victim, "last"),
            datagram(INSIDE, twin, "last"),
        ];
        send(&one.space, &allowed);
        for hearer in hearers {
            let heard = hearer.heard();
            assert_eq!(heard, ["its own announcement", "its own probe"], "{}", scene.daemon.log());
        }
    });
}

#[test]
fn what_is_for_others_does_not_reach_a_clone_as_its_own() {
    in_namespace(|| {
        let scene = Scene::new(&[]);
        let [one, _, namesake, other] = &scene.guests;
        let [clone, _, holder, sender] = [0, 1, 2, 3].map(|at| scene.outside(at));
        let hearer = Hearer::at(&one.space);
        let ask = |target: Ipv4Addr, from: (Mac, Ipv4Addr), tag: &str| {
            let text = format!("<{tag}>");
            ethernet(BROADCAST, from.0, ARP, &arp(ARP_REQUEST, from, target, text.as_bytes()))
        };
        // All these are flooded, or broadcast.
        send(
            &other.space,
            &[
                datagram(sender, INSIDE, "its inner addresses"),
                datagram(sender, (INSIDE.0, clone.1), "its inner Ethernet address"),
                datagram(sender, (NOBODY.0, INSIDE.1), "its inner address"),
                datagram(sender, NOBODY, "nobody"),
                ask(INSIDE.1, sender, "who has its inner address"),
            ],
        );
        send(&namesake.space, &[ask(NOBODY.1, holder, "somebody else has its inner address")]);
        send(&other.space, &[datagram(sender, clone, "last")]);
        // A bridge floods what is for an address that it does not know, and that stays as it is.
        assert_eq!(hearer.heard(), ["nobody"], "{}", scene.daemon.log());
    });
}

/// The table of the bridges, without what packets put into it, in an order of its own.
fn listed() -> Vec<String> {
    // Without counters: guests send of themselves what is dropped and counted.
    let mut list = json("nft -s -j list table bridge volnet");
    let mut objects = std::mem::take(list["nftables"].as_array_mut().expect("a list"));
    objects.retain(|object| object["set"]["timeout"].is_null());
    for object in &mut objects {
        for (_, inner) in object.as_object_mut().expect("an object") {
            inner.as_object_mut().expect("an object").remove("handle");
            if let Some(elements) = inner["elem"].as_array_mut() {
                elements.sort_by_key(ToString::to_string);
            }
        }
    }
    let mut listed: Vec<String> = objects.iter().map(ToString::to_string).collect();
    listed.sort();
    listed
}

#[test]
fn elements_of_a_clone_come_back_and_go_with_it() {
    in_namespace(|| {
        let mut scene = Scene::new(&["--nft-owner", "no"]);
        let own = format!("\"vttap-one\" . {}", ip(&scene.vms[0]));
        for change in [
            format!("delete element bridge volnet inner_ips {{ {own} : {INNER_IP} }}"),
            format!(
                "delete element bridge volnet outer_macs {{ \"vttap-one\" . {INNER_MAC} : {} }}",
                scene.vms[0]["mac"].as_str().unwrap()
            ),
            "delete element bridge volnet inner { \"vttap-one\" }".to_string(),
            format!("add element bridge volnet hidden_ips {{ {own} }}"),
            "flush chain bridge volnet outward".to_string(),
            "delete chain bridge volnet inward".to_string(),
        ] {
            let before = listed();
            let ran = std::process::Command::new("nft").arg(&change).status().expect("nft runs");
            assert!(ran.success(), "{change}");
            eventually("it is mended", || listed() == before);
        }
        scene.check();
        scene.daemon.crash();
        scene.check();
        scene.daemon.start_again();
        scene.check();
        scene.daemon.stop();
        scene.daemon.start_again();
        scene.check();
        for name in ["one", "two"] {
            scene.daemon.call("Delete", json!({ "name": name }));
        }
        let rules = listed().join("\n");
        assert!(!rules.contains("vttap-one") && !rules.contains(INNER_MAC), "{rules}");
    });
}

#[test]
fn an_inner_identity_that_cannot_be_is_refused_by_its_field() {
    in_namespace(|| {
        let daemon = Daemon::configured(&json!({ "networks": [
            { "name": "default", "bridge": "vbr0", "subnet": "192.168.127.0/24" },
            { "name": "six", "bridge": "vbr1", "subnet": "192.168.128.0/24", "ipv6": true },
        ] }));
        let inner = |fields: Value| {
            let mut inner = json!({ "mac": INNER_MAC, "ip": INNER_IP });
            inner.as_object_mut().unwrap().append(&mut fields.as_object().unwrap().clone());
            inner
        };
        for (network, field) in [
            (json!({ "inner": inner(json!({})), "mode": "dhcp" }), "network.inner"),
            (json!({ "inner": inner(json!({})), "mode": "vsock" }), "network.inner"),
            (json!({ "inner": inner(json!({})), "name": "six" }), "network.inner"),
            (json!({ "inner": { "mac": INNER_MAC } }), "network.inner.ip"),
            (json!({ "inner": { "ip": INNER_IP } }), "network.inner.mac"),
            (json!({ "inner": inner(json!({ "ip": "10.0.0.2/33" })) }), "network.inner.ip"),
            (json!({ "inner": inner(json!({ "ip": "10.0.0.2/8" })) }), "network.inner.gateway"),
            (json!({ "inner": inner(json!({ "gateway": INNER_IP })) }), "network.inner.gateway"),
            (json!({ "inner": inner(json!({ "gateway_mac": INNER_MAC })) }), "network.inner.mac"),
            (json!({ "inner": inner(json!({ "vlan": 7 })) }), "network.inner.vlan"),
        ] {
            let config = json!({ "network": network });
            let reply = daemon.call("Create", json!({ "name": "one", "config": config }));
            let said = reply["parameters"]["field"].as_str().unwrap_or_default();
            assert!(said.ends_with(field), "{network}: {reply}");
        }
        // Nobody is given an address that a clone takes for its own, unless he asks for it.
        let inner = inner(json!({ "ip": "192.168.127.3" }));
        create(&daemon, "clone", json!({ "inner": inner }));
        let others = ["a", "b"].map(|name| ip(&create(&daemon, name, json!({}))));
        assert_eq!(others, ["192.168.127.4", "192.168.127.5"]);
        assert_eq!(ip(&create(&daemon, "c", json!({ "ip": "192.168.127.3" }))), "192.168.127.3");
    });
}
