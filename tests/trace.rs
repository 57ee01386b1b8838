//! `volnet trace` on hosts that are broken in one way each: it says who dropped the packet.

#![cfg(target_os = "linux")]

mod common;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use common::daemon::{Connection, Daemon};
use common::room::Room;
use common::space::{Guest, Space, host};
use common::{eventually, fill_connections, in_namespace, run, try_run};

/// What the kernel has to tell of: a table that is there only while somebody looks.
fn traced() -> String {
    try_run("nft list table bridge volnet-trace").1
}

/// Begins a trace of what the VM `web` sends.
fn begin(daemon: &Daemon, to: &str) -> Connection {
    begin_with(daemon, json!({ "name": "web", "to": to, "seconds": 3 }))
}

/// Begins a trace of the VM `web`.
fn begin_with(daemon: &Daemon, parameters: Value) -> Connection {
    let mut connection = daemon.connect();
    let call = json!({ "method": "io.volnet.Trace", "parameters": parameters });
    connection.send(format!("{call}\n").as_bytes());
    eventually("the tap is traced", || traced().contains("vttap-web"));
    connection
}

/// The tool, which tells of packets for so many seconds.
fn tool(daemon: &Daemon, seconds: &str, words: &[&str]) -> Child {
    let mut command = Command::new(&daemon.program);
    command.args(["trace", "--seconds", seconds]).args(words).arg("--socket").arg(daemon.socket());
    command.stdout(Stdio::piped()).spawn().expect("volnet runs")
}

/// What becomes of a ping: the lines of the way.
fn ping(daemon: &Daemon, guest: &Guest, to: &str, options: &str) -> Value {
    let connection = begin(daemon, to);
    guest.space.run_any(&format!("ping -q -c 2 -i 0.2 -W 1 {options} {to}"));
    let way = first(connection);
    assert!(!traced().contains("vttap-web"), "{}", traced());
    way
}

/// The way of a ping, or else the first of those that a trace tells, once it has ended.
fn first(mut connection: Connection) -> Value {
    let mut answer = connection.receive().expect("an answer");
    let ways = answer["parameters"]["ways"].as_array_mut();
    let ways = ways.unwrap_or_else(|| panic!("the ways"));
    let icmp = ways.iter_mut().find(|way| way["packet"].as_str().unwrap().starts_with("icmp from"));
    match icmp {
        Some(way) => way.take(),
        None => ways.first_mut().expect("a way").take(),
    }
}

/// The way of the first packet over TCP among those that a trace tells, once it has ended.
fn of_tcp(mut connection: Connection) -> Value {
    let answer = connection.receive().expect("an answer");
    let ways = answer["parameters"]["ways"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let tcp = ways.iter().find(|way| way["packet"].as_str().unwrap().starts_with("tcp"));
    tcp.unwrap_or_else(|| panic!("{answer:#}")).clone()
}

/// Whether a connection from a namespace comes about.
fn connects(space: &Space, to: &str) -> bool {
    let to: SocketAddr = to.parse().expect("an address with a port");
    let connect = || {
        space.enter();
        TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok()
    };
    std::thread::scope(|scope| scope.spawn(connect).join().expect("it does not panic"))
}

/// Listens in a namespace. The kernel takes connections, which is enough.
fn listens(space: &Space, at: &str) -> TcpListener {
    let listen = || {
        space.enter();
        TcpListener::bind(at).expect("a free port")
    };
    std::thread::scope(|scope| scope.spawn(listen).join().expect("it does not panic"))
}

fn has_step(way: &Value, step: &str) {
    let steps = way["steps"].as_array().expect("steps");
    assert!(steps.iter().any(|it| it.as_str().unwrap().starts_with(step)), "{step}: {way:#}");
}

fn is(way: &Value, end: &str, message: &str) {
    assert_eq!(way["end"], end, "{way:#}");
    assert!(way["message"].as_str().unwrap().contains(message), "{message}: {way:#}");
}

#[test]
fn an_answer_and_what_let_the_packet_pass() {
    in_namespace(|| {
        let (world, daemon) = host(json!({ "ipv6": { "prefix": "fd00:1::/64" } }));
        let vm = daemon.create(json!({ "name": "web" }));
        let guest = Guest::of(&vm);
        let way = ping(&daemon, &guest, "203.0.113.2", "");
        is(&way, "answered", "delivered, and answered");
        assert_eq!(way["packet"], "icmp from 192.168.127.2 to 203.0.113.2");
        let steps: Vec<&str> =
            way["steps"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        for step in [
            "passed: antispoof: the guest sends from its own addresses",
            "passed: policy open: everything else is allowed",
            "passed: masquerade",
        ] {
            assert!(steps.contains(&step), "{step}: {steps:?}");
        }
        // Its gateway answers, by IPv6, too.
        is(&ping(&daemon, &guest, "192.168.127.1", ""), "answered", "");
        let addresses = run("ip -6 -o addr show dev vbr0 scope link");
        let router = addresses.split_ascii_whitespace().nth(3).expect("an address");
        let router = router.split('/').next().expect("without its length");
        let guest = guest.with_ipv6(&vm, &format!("{router} dev eth0"));
        is(&ping(&daemon, &guest, "fd00:1::1", ""), "answered", "");
        let way = ping(&daemon, &guest, "fd00:2::1", "");
        assert_ne!(way["end"], "answered", "{way:#}");
        world.run("sysctl -qw net.ipv4.icmp_echo_ignore_all=1");
        let way = ping(&daemon, &guest, "203.0.113.2", "");
        is(&way, "unanswered", "left by uplink, and no answer came to the guest");

        // As a user sees it. Nobody asks by ARP meanwhile, which would be told.
        guest.space.run("ip neigh change 192.168.127.1 dev eth0 nud permanent");
        run("ip neigh change 192.168.127.2 dev vbr0 nud permanent");
        let nothing_sent = |to: &str| {
            let mut command = Command::new(&daemon.program);
            let command = command.args(["trace", "web", "--to", to, "--seconds", "1"]);
            let output = command.arg("--socket").arg(daemon.socket()).output();
            let output = output.expect("volnet runs");
            assert!(output.status.success(), "{output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "the guest sent no such packet\n");
        };
        nothing_sent("203.0.113.2:80");
        // Its interface is down, whatever it tries.
        guest.space.run("ip link set eth0 down");
        let mut tries = guest.space.command("ping");
        let tries = tries.args(["-q", "-i", "0.1", "203.0.113.2"]);
        let mut tries = tries.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("ping");
        nothing_sent("203.0.113.2");
        tries.kill().and_then(|()| tries.wait()).expect("it is ours");
    });
}

#[test]
fn rules_of_volnet_are_told_in_words() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        let network = json!({ "policy": "internet", "isolated": true });
        let config = json!({ "network": network });
        let vm = daemon.create(json!({ "name": "web", "config": config }));
        let guest = Guest::of(&vm);
        let other = Guest::of(&daemon.create(json!({ "name": "db", "config": config })));
        let way = ping(&daemon, &guest, "10.1.2.3", "");
        is(&way, "dropped", "dropped by policy internet: 10.0.0.0/8 is denied");
        is(&ping(&daemon, &guest, "169.254.169.254", ""), "dropped", "169.254.0.0/16 is denied");
        let way = ping(&daemon, &guest, "192.168.127.3", "");
        is(&way, "lost", "gives isolated guests nothing of each other");
        drop(other);

        // Another address than its own.
        guest.space.run("ip addr flush dev eth0");
        guest.space.run("ip addr add 192.168.127.99/24 dev eth0");
        let way = ping(&daemon, &guest, "192.168.127.1", "");
        is(&way, "dropped", "antispoof: the guest's ARP does not state its own addresses");
        assert_eq!(way["packet"], "arp from 192.168.127.99 for 192.168.127.1");
    });
}

#[test]
fn rules_of_others_are_told_with_their_owner() {
    in_namespace(|| {
        run("iptables -P FORWARD DROP");
        run("iptables -N DOCKER-USER");
        run("iptables -A FORWARD -j DOCKER-USER");
        let (_world, daemon) = host(json!({}));
        let guest = Guest::of(&daemon.create(json!({ "name": "web" })));
        let to = "203.0.113.2";
        let way = ping(&daemon, &guest, to, "");
        is(&way, "answered", "");
        assert!(
            way["steps"].to_string().contains("in chain DOCKER-USER of table ip filter (Docker)")
        );
        run("iptables -I DOCKER-USER -i vbr0 -j DROP");
        let way = ping(&daemon, &guest, to, "");
        is(&way, "dropped", "in chain DOCKER-USER of table ip filter (Docker)");
        run("iptables -D DOCKER-USER -i vbr0 -j DROP");

        for (table, words) in [
            ("inet own", "the policy of chain out of table inet own"),
            ("inet firewalld", "the policy of chain out of table inet firewalld (firewalld)"),
        ] {
            run(&format!("nft add table {table}"));
            run(&format!(
                "nft add chain {table} out {{ type filter hook forward priority 5; policy drop; }}"
            ));
            is(&ping(&daemon, &guest, to, ""), "dropped", words);
            run(&format!("nft add rule {table} out ip daddr {to} reject"));
            is(
                &ping(&daemon, &guest, to, ""),
                "dropped",
                &format!("in chain out of table {table}"),
            );
            run(&format!("nft delete table {table}"));
        }
    });
}

#[test]
fn the_way_to_the_world() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        let guest = Guest::of(&daemon.create(json!({ "name": "web" })));
        let connection = begin(&daemon, "203.0.113.2");
        assert!(!connects(&guest.space, "203.0.113.2:81"));
        is(&of_tcp(connection), "refused", "delivered, and refused by 203.0.113.2: nobody listens");
        run("ip link set uplink mtu 1280");
        let way = ping(&daemon, &guest, "203.0.113.2", "-s 1400 -M do");
        is(&way, "refused", "192.168.127.1 says: the packet is too long for a link");
        run("ip route del default");
        let way = ping(&daemon, &guest, "198.51.100.1", "");
        is(&way, "refused", "there is no way to the destination");
    });
}

#[test]
fn a_packet_that_no_rule_dropped_and_that_went_nowhere() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        let guest = Guest::of(&daemon.create(json!({ "name": "web" })));
        fill_connections(&daemon.folder);
        let way = ping(&daemon, &guest, "203.0.113.2", "");
        is(&way, "lost", "there is no room for one more connection (see volnet doctor)");
    });
}

#[test]
fn a_guest_with_another_address_inside() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        let inner = json!({ "mac": "02:aa:aa:aa:aa:aa", "ip": "192.168.127.200" });
        let config = json!({ "network": { "inner": inner } });
        let guest = Guest::of(&daemon.create(json!({ "name": "web", "config": config })));
        let way = ping(&daemon, &guest, "203.0.113.2", "");
        is(&way, "answered", "");
        assert_eq!(way["packet"], "icmp from 192.168.127.200 to 203.0.113.2");
        assert_eq!(way["packets"], 2);
        let steps = way["steps"].to_string();
        assert!(steps.contains("its source 192.168.127.200 became 192.168.127.2"), "{steps}");
    });
}

#[test]
fn a_way_is_told_when_it_is_known_and_the_trace_ends_with_the_tool() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({ "policy": "internet" }));
        let guest = Guest::of(&daemon.create(json!({ "name": "web" })));
        let mut tool = tool(&daemon, "60", &["web"]);
        eventually("the tap is traced", || traced().contains("vttap-web"));
        guest.space.run_any("ping -q -c 1 -W 1 10.1.2.3");
        let told = BufReader::new(tool.stdout.take().expect("its output"));
        let mut lines = told.lines().map_while(Result::ok);
        let dropped = "    dropped by policy internet: 10.0.0.0/8 is denied";
        assert!(lines.any(|line| line == dropped), "it ended before that");
        assert!(tool.try_wait().expect("it is ours").is_none() && traced().contains("vttap-web"));
        tool.kill().expect("it is ours");
        tool.wait().expect("it is ours");
        eventually("it is gone", || !traced().contains("vttap-web"));
    });
}

#[test]
fn packets_of_another_vm_are_told() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        daemon.create(json!({ "name": "web" }));
        let db = Guest::of(&daemon.create(json!({ "name": "db" })));
        let mut tool = tool(&daemon, "60", &["web", "--from", "db"]);
        eventually("the tap is traced", || traced().contains("vttap-db"));
        // There is no guest: nobody answers its ARP.
        db.space.run("ip neigh replace 192.168.127.2 lladdr 02:00:00:00:00:99 dev eth0");
        db.space.run_any("ping -q -c 1 -W 1 192.168.127.2");
        let mut lines = BufReader::new(tool.stdout.take().expect("its output")).lines();
        let packet = "icmp from 192.168.127.3 to 192.168.127.2, 1 packet";
        assert!(lines.any(|line| line.expect("a line") == packet), "it ended before that");
        tool.kill().expect("it is ours");
        tool.wait().expect("it is ours");
    });
}

#[test]
fn packets_of_a_namespace_that_is_attached_are_told() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({ "policy": "internet" }));
        let room = Room::new();
        let mut attach = Command::new(&daemon.program);
        attach.args(["attach", "box", "--netns", &room.netns(), "--json", "--socket"]);
        let attached = attach.arg(daemon.socket()).output().expect("volnet runs");
        let reply: Value = serde_json::from_slice(&attached.stdout).expect("JSON");
        let vm = reply["vm"]["name"].as_str().expect("a name").to_owned();
        let mut connection = daemon.connect();
        let parameters = json!({ "name": vm, "to": "10.1.2.3", "seconds": 60 });
        let call = json!({ "method": "io.volnet.Trace", "parameters": parameters });
        connection.send(format!("{call}\n").as_bytes());
        eventually("the link is traced", || traced().contains("vttap-"));
        assert!(!room.can("ping -q -c 1 -W 1 10.1.2.3"));
        let answer = connection.receive().expect("an answer");
        let ways = answer["parameters"]["ways"].as_array().expect("ways");
        let last = ways.last().unwrap_or_else(|| panic!("{answer}"));
        is(last, "dropped", "policy internet: 10.0.0.0/8 is denied");
    });
}

#[test]
fn the_mark_goes_with_the_caller_and_after_a_crash() {
    in_namespace(|| {
        let (_world, mut daemon) = host(json!({}));
        daemon.create(json!({ "name": "web" }));
        let connection = begin(&daemon, "203.0.113.2");
        // While it lasts it is no drift.
        let check = daemon.call("Check", json!({}));
        assert!(!check.to_string().contains("differs"), "{check}");
        drop(connection);
        eventually("it is gone", || !traced().contains("vttap-web"));

        let _connection = begin(&daemon, "203.0.113.2");
        daemon.crash();
        assert!(traced().contains("vttap-web"));
        daemon.start_again();
        eventually("it is gone", || !traced().contains("vttap-web"));

        let _connection = begin(&daemon, "203.0.113.2");
        daemon.stop();
        assert!(!run("nft list tables").contains("volnet-trace"));
    });
}

#[test]
fn packets_from_the_world_and_the_way_of_the_answers() {
    in_namespace(|| {
        let (world, daemon) = host(json!({ "ipv6": { "prefix": "fd00:1::/64" } }));
        let ports = json!([{ "port": 80, "host_port": 8080 }, { "port": 81, "host_port": 8081 }]);
        let config = json!({ "expose": ports });
        let vm = daemon.create(json!({ "name": "web", "config": config }));
        let guest = Guest::of(&vm);
        let addresses = run("ip -6 -o addr show dev vbr0 scope link");
        let router = addresses.split_ascii_whitespace().nth(3).expect("an address");
        let router = router.split('/').next().expect("without its length");
        let guest = guest.with_ipv6(&vm, &format!("{router} dev eth0"));
        run("ip addr add fd00:9::1/64 dev uplink nodad");
        world.run("ip addr add fd00:9::2/64 dev eth0 nodad");
        let _listener = listens(&guest.space, "[::]:80");
        let comes = |to: &str| {
            let from = if to.starts_with('[') { "fd00:9::2" } else { "203.0.113.2" };
            let parameters = json!({ "name": "web", "from": from, "seconds": 3 });
            let connection = begin_with(&daemon, parameters);
            connects(&world, to);
            of_tcp(connection)
        };
        let way = comes("203.0.113.1:8080");
        is(&way, "answered", "delivered, and answered");
        assert_eq!(way["packet"], "tcp from 203.0.113.2 to 203.0.113.1:8080");
        has_step(&way, "translated: its destination 203.0.113.1:8080 became 192.168.127.2:80");
        has_step(&way, "passed: an exposed port leads to its guest");
        has_step(&way, "passed: an exposed port");
        has_step(&way, "the answer passed: antispoof: the guest sends from its own addresses");
        let way = comes("[fd00:9::1]:8080");
        is(&way, "answered", "delivered, and answered");
        let ip6 = vm["ip6"].as_str().expect("an address");
        let became = format!("its destination [fd00:9::1]:8080 became [{ip6}]:80");
        has_step(&way, &format!("translated: {became}"));

        // The guest has nobody who listens there.
        for to in ["203.0.113.1:8081", "[fd00:9::1]:8081"] {
            is(&comes(to), "refused", "delivered, and refused by the guest: nobody listens");
        }

        // Another leads the port elsewhere before volnet does.
        run("nft add table ip own");
        run("nft add chain ip own pre { type nat hook prerouting priority -150; }");
        run("nft add rule ip own pre tcp dport 8080 dnat to 203.0.113.2:9");
        let way = comes("203.0.113.1:8080");
        is(&way, "lost", "it left by uplink, which is not the guest's");
        let became = "its destination 203.0.113.1:8080 became 203.0.113.2:9, by rule ";
        has_step(&way, &format!("translated: {became}"));
        assert!(way["steps"].to_string().contains("in chain pre of table ip own"), "{way:#}");
        run("nft delete table ip own");

        run("nft add table inet own");
        for (hook, rule, words) in [
            ("prerouting priority -300", "tcp dport 8080 drop", "dropped by rule "),
            ("forward priority 5", "tcp sport 80 drop", "delivered, but the answer was dropped by"),
        ] {
            run(&format!("nft add chain inet own out {{ type filter hook {hook}; }}"));
            run(&format!("nft add rule inet own out {rule}"));
            for to in ["203.0.113.1:8080", "[fd00:9::1]:8080"] {
                let way = comes(to);
                is(&way, "dropped", words);
                is(&way, "dropped", "in chain out of table inet own");
            }
            run("nft delete chain inet own out");
        }

        guest.space.run("ip link set eth0 down");
        run("ip neigh flush dev vbr0");
        let way = comes("203.0.113.1:8080");
        is(&way, "unanswered", "given to vbr0, where the guest does not say");
        run(&format!("ip neigh replace {ip6} lladdr 02:00:00:00:00:99 dev vbr0"));
        let mac = vm["mac"].as_str().expect("an address");
        run(&format!("ip neigh replace 192.168.127.2 lladdr {mac} dev vbr0"));
        let way = comes("203.0.113.1:8080");
        is(&way, "unanswered", "given to the guest by vttap-web, and no answer came from it");

        // As a user sees it.
        let words = ["web", "--from", "world", "--to", "203.0.113.1:8080"];
        let mut tool = tool(&daemon, "3", &words);
        eventually("it is traced", || traced().contains("vttap-web"));
        connects(&world, "203.0.113.1:8080");
        let mut lines = BufReader::new(tool.stdout.take().expect("its output")).lines();
        let packet = "tcp from 203.0.113.2 to 203.0.113.1:8080, ";
        assert!(lines.any(|line| line.expect("a line").starts_with(packet)), "it ended before");
        tool.wait().expect("it is ours");
    });
}

#[test]
fn packets_from_a_lan_come_as_frames() {
    in_namespace(|| {
        let lan = Space::world();
        run("ip link add br0 type bridge");
        run("ip addr flush dev uplink");
        run("ip link set uplink master br0");
        run("ip addr add 192.168.50.10/24 dev br0");
        run("ip link set br0 up");
        lan.run("ip addr add 192.168.50.1/24 dev eth0");
        let network = json!({
            "name": "lan", "bridge": "br0", "subnet": "192.168.50.0/24",
            "host_ip": "192.168.50.10", "gateway": "192.168.50.1", "nat": false,
            "managed": false, "dns": "off",
        });
        let daemon = Daemon::configured(&json!({ "networks": [network] }));
        let moves = json!({ "network": { "addresses": ["192.168.50.200"] } });
        let vm = daemon.create(json!({ "name": "web", "config": moves }));
        let guest = Guest::of(&vm);
        let ip = vm["ip"].as_str().expect("an address");
        let comes_to = |ip: &str| {
            let parameters = json!({ "name": "web", "from": "192.168.50.1", "seconds": 3 });
            let connection = begin_with(&daemon, parameters);
            lan.run_any(&format!("ping -q -c 2 -i 0.2 -W 1 {ip}"));
            first(connection)
        };
        let comes = || comes_to(ip);
        let way = comes();
        is(&way, "answered", "delivered, and answered");
        assert_eq!(way["packet"], format!("icmp from 192.168.50.1 to {ip}"));
        // To an address that moves, where it is now, and where nobody has it.
        guest.space.run("ip addr add 192.168.50.200/32 dev eth0");
        let way = comes_to("192.168.50.200");
        is(&way, "answered", "delivered, and answered");
        assert_eq!(way["packet"], "icmp from 192.168.50.1 to 192.168.50.200");
        guest.space.run("ip addr del 192.168.50.200/32 dev eth0");
        run("nft add table bridge own");
        run("nft add chain bridge own out { type filter hook forward priority 0; }");
        run("nft add rule bridge own out iifname vttap-web ip protocol icmp drop");
        is(&comes(), "dropped", "delivered, but the answer was dropped by rule ");
        run("nft delete table bridge own");
        guest.space.run("sysctl -qw net.ipv4.icmp_echo_ignore_all=1");
        is(&comes(), "unanswered", "given to the guest by vttap-web, and no answer came from it");
    });
}

#[test]
fn translations_by_others_are_told_with_ports() {
    in_namespace(|| {
        let (world, daemon) = host(json!({}));
        let guest = Guest::of(&daemon.create(json!({ "name": "web" })));
        let _listener = listens(&world, "0.0.0.0:80");
        run("ip addr add 203.0.113.9/24 dev uplink");
        run("nft add table ip own");
        run("nft add chain ip own pre { type nat hook prerouting priority -150; }");
        run("nft add rule ip own pre tcp dport 8000 dnat to 203.0.113.2:80");
        run("nft add chain ip own post { type nat hook postrouting priority 50; }");
        run("nft add rule ip own post tcp dport 80 snat to 203.0.113.9:5000-5001");
        let goes = || {
            let connection = begin(&daemon, "198.51.100.7");
            connects(&guest.space, "198.51.100.7:8000");
            of_tcp(connection)
        };
        let way = goes();
        is(&way, "answered", "delivered, and answered");
        assert_eq!(way["packet"], "tcp from 192.168.127.2 to 198.51.100.7:8000");
        let steps: Vec<&str> =
            way["steps"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        let destination = "translated: its destination 198.51.100.7:8000 became 203.0.113.2:80, by";
        let led = steps.iter().find(|step| step.starts_with(destination));
        assert!(led.is_some_and(|it| it.ends_with("in chain pre of table ip own")), "{way:#}");
        let source =
            steps.iter().find(|it| it.starts_with("translated: its source 192.168.127.2:"));
        let source = source.unwrap_or_else(|| panic!("{way:#}"));
        assert!(source.contains(" became 203.0.113.9:500"), "{source}");
        assert!(source.ends_with("in chain post of table ip own"), "{source}");

        // What comes back is translated, too, before it is dropped.
        run("nft add table inet late");
        run("nft add chain inet late out { type filter hook forward priority 5; }");
        run("nft add rule inet late out ip daddr 192.168.127.2 tcp sport 8000 drop");
        run("nft add rule inet late out ip daddr 192.168.127.2 tcp sport 80 drop");
        let way = goes();
        is(&way, "dropped", "delivered, but the answer was dropped by rule ");
        is(&way, "dropped", "in chain out of table inet late");
    });
}

#[test]
fn fragments_go_the_way_of_the_first() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        let guest = Guest::of(&daemon.create(json!({ "name": "web" })));
        let mut connection = begin(&daemon, "203.0.113.2");
        guest.space.run("ping -q -c 1 -s 5000 203.0.113.2");
        let answer = connection.receive().expect("an answer");
        let ways = answer["parameters"]["ways"].as_array().expect("ways");
        let icmp: Vec<&Value> =
            ways.iter().filter(|it| it["packet"].as_str().unwrap().starts_with("icmp")).collect();
        let [way] = icmp[..] else { panic!("{answer:#}") };
        is(way, "answered", "delivered, and answered");
        assert_eq!(
            (&way["packet"], &way["packets"]),
            (&json!("icmp from 192.168.127.2 to 203.0.113.2"), &json!(1))
        );
    });
}

#[test]
fn two_traces_at_once() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({ "policy": "internet" }));
        let [web, db] =
            ["web", "db"].map(|name| Guest::of(&daemon.create(json!({ "name": name }))));
        let begin = |name: &str, from: Option<&str>, to: &str| {
            let mut connection = daemon.connect();
            let parameters = json!({ "name": name, "from": from, "to": to, "seconds": 60 });
            let call = json!({ "method": "io.volnet.Trace", "parameters": parameters });
            connection.send(format!("{call}\n").as_bytes());
            eventually("it is traced", || traced().contains(&format!("vttap-{name}")));
            connection
        };
        let of_web = begin("web", None, "203.0.113.2");
        let of_db = begin("db", None, "203.0.113.2");
        // What is sent to a guest, and what it sends, are looked at by two.
        let to_db = begin("db", Some("192.168.127.2"), "192.168.127.3");
        web.space.run("ping -q -c 1 203.0.113.2");
        let way = first(of_web);
        is(&way, "answered", "");
        assert_eq!(way["packet"], "icmp from 192.168.127.2 to 203.0.113.2");
        assert_eq!(way["packets"], 1);
        web.space.run("ping -q -c 1 192.168.127.3");
        let way = first(to_db);
        is(&way, "answered", "");
        assert_eq!(way["packet"], "icmp from 192.168.127.2 to 192.168.127.3");
        assert_eq!(way["packets"], 1);
        // The first have ended, and this one goes on.
        assert!(!traced().contains("vttap-web") && traced().contains("vttap-db"), "{}", traced());
        db.space.run("ping -q -c 1 203.0.113.2");
        let way = first(of_db);
        is(&way, "answered", "");
        assert_eq!(way["packet"], "icmp from 192.168.127.3 to 203.0.113.2");
        assert!(!run("nft list tables").contains("volnet-trace"));
    });
}
