//! `volnet trace` on hosts that are broken in one way each: it says who dropped the packet.

#![cfg(target_os = "linux")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use common::daemon::{Connection, Daemon};
use common::room::Room;
use common::space::{Guest, host};
use common::{eventually, fill_connections, in_namespace, run, try_run};

fn traced() -> String {
    run("nft list set bridge volnet traced")
}

/// Begins a trace of the VM `web`.
fn begin(daemon: &Daemon, to: &str) -> Connection {
    let mut connection = daemon.connect();
    let parameters = json!({ "name": "web", "to": to, "seconds": 3 });
    let call = json!({ "method": "io.volnet.Trace", "parameters": parameters });
    connection.send(format!("{call}\n").as_bytes());
    eventually("the tap is traced", || traced().contains("vttap-web"));
    connection
}

/// The tool, which tells of packets for a minute.
fn tool(daemon: &Daemon, words: &[&str]) -> Child {
    let mut command = Command::new(&daemon.program);
    command.args(["trace", "--seconds", "60"]).args(words).arg("--socket").arg(daemon.socket());
    command.stdout(Stdio::piped()).spawn().expect("volnet runs")
}

/// What becomes of a ping: the lines of the way.
fn ping(daemon: &Daemon, guest: &Guest, to: &str, options: &str) -> Value {
    let mut connection = begin(daemon, to);
    guest.space.run_any(&format!("ping -q -c 2 -i 0.2 -W 1 {options} {to}"));
    let mut answer = connection.receive().expect("an answer");
    assert!(!traced().contains("vttap-web"), "{}", traced());
    let ways = answer["parameters"]["ways"].as_array_mut();
    let ways = ways.unwrap_or_else(|| panic!("the ways"));
    let icmp = ways.iter_mut().find(|way| way["packet"].as_str().unwrap().starts_with("icmp"));
    match icmp {
        Some(way) => way.take(),
        None => ways.first_mut().expect("a way").take(),
    }
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

        // As a user sees it.
        let mut command = Command::new(&daemon.program);
        let command = command.args(["trace", "web", "--to", "203.0.113.2:80", "--seconds", "1"]);
        let output = command.arg("--socket").arg(daemon.socket()).output().expect("volnet runs");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "the guest sent no such packet\n");
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
        let mut tool = tool(&daemon, &["web"]);
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
        let mut tool = tool(&daemon, &["web", "--from", "db"]);
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
        assert!(!traced().contains("vttap-web"), "{}", traced());
        assert!(try_run("nft list tables").0);
    });
}
