//! `volnet doctor` on hosts that are broken in one way each: it names the cause, and what it says
//! mends it.

#![cfg(target_os = "linux")]

mod common;

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::space::{Guest, Space, host};
use common::{eventually, fill_connections, in_namespace, run};

/// A line of doctor: level, check, message, hint.
#[derive(Debug)]
struct Line {
    level: String,
    check: String,
    message: String,
    hint: String,
}

fn doctor(daemon: &Daemon, parameters: Value) -> Vec<Line> {
    let answer = daemon.call("Doctor", parameters);
    let findings = answer["parameters"]["findings"].as_array();
    let findings = findings.unwrap_or_else(|| panic!("{answer}"));
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or("").to_string();
    let line = |finding: &Value| Line {
        level: text(finding, "level"),
        check: text(finding, "check"),
        message: text(finding, "message"),
        hint: text(finding, "hint"),
    };
    findings.iter().map(line).collect()
}

/// What is wrong with the VM `web`: each line without those that are well.
fn wrong(daemon: &Daemon) -> Vec<Line> {
    let lines = doctor(daemon, json!({ "name": "web" }));
    lines.into_iter().filter(|line| line.level != "ok").collect()
}

/// The one thing that is wrong with the VM `web`.
fn cause(daemon: &Daemon) -> Line {
    let mut wrong = wrong(daemon);
    assert_eq!(wrong.len(), 1, "{wrong:#?}");
    wrong.remove(0)
}

/// What a user types, and what comes of it.
fn typed(daemon: &Daemon, words: &[&str]) -> Output {
    let mut command = Command::new(&daemon.program);
    command.args(words).arg("--socket").arg(daemon.socket()).output().expect("volnet runs")
}

/// Types what doctor says, one command after the other.
fn type_in(hint: &str) {
    hint.split(" && ").for_each(|command| drop(run(command)));
}

#[test]
fn of_a_vm_that_is_well_every_line_is_ok() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({ "ipv6": { "prefix": "fd00:1::/64" } }));
        let vm = daemon.create(json!({ "name": "web" }));
        let guest = Guest::of(&vm);
        let addresses = run("ip -6 -o addr show dev vbr0 scope link");
        let router = addresses.split_ascii_whitespace().nth(3).expect("an address");
        let router = router.split('/').next().expect("without its length");
        let _guest = guest.with_ipv6(&vm, &format!("{router} dev eth0"));
        run("ip -6 route add default dev uplink");
        let lines = doctor(&daemon, json!({ "name": "web" }));
        assert!(lines.iter().all(|line| line.level == "ok"), "{lines:#?}");
        let checks: Vec<&str> = lines.iter().map(|line| &*line.check).collect();
        for check in [
            "process",
            "tap",
            "guest",
            "address",
            "gateway",
            "policy",
            "nat",
            "route",
            "mtu",
            "forwarding",
            "rules",
            "conntrack",
            "port range",
            "disk",
        ] {
            assert!(checks.contains(&check), "{check}: {lines:#?}");
        }
        let said = typed(&daemon, &["doctor", "web"]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success(), "{text}");
        assert!(text.starts_with("ok       process: "), "{text}");
        let absent = daemon.call("Doctor", json!({ "name": "db" }));
        assert_eq!(absent["error"], "io.volnet.VmNotFound");
    });
}

#[test]
fn a_guest_that_nobody_runs() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        daemon.create(json!({ "name": "web" }));
        let wrong = wrong(&daemon);
        let [process, tap] = &wrong[..] else { panic!("{wrong:#?}") };
        assert!(process.message.contains("nobody has its tap open"), "{process:?}");
        assert_eq!(process.hint, "volnet args web, and start a hypervisor with that");
        assert!(tap.message.contains("no process has it open"), "{tap:?}");
        assert_eq!(typed(&daemon, &["doctor", "web"]).status.code(), Some(1));
    });
}

#[test]
fn a_guest_with_another_address_or_with_its_interface_down() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        let vm = daemon.create(json!({ "name": "web" }));
        let guest = Guest::of(&vm);
        let ip = vm["ip"].as_str().expect("an address");
        let inside = |line: &Line| {
            let command = line.hint.strip_prefix("in the guest: ").expect("a command");
            guest.space.run(command);
        };

        guest.space.run("ip addr flush dev eth0");
        guest.space.run("ip addr add 10.9.9.9/24 dev eth0");
        let line = cause(&daemon);
        assert_eq!((&*line.level, &*line.check), ("error", "address"));
        assert!(line.message.starts_with(&format!("the guest does not have {ip}")), "{line:?}");
        let mut speaks = guest.space.command("ping");
        let speaks = speaks.args(["-q", "-i", "0.1", "10.9.9.1"]).stdout(Stdio::null());
        let mut speaks = speaks.spawn().expect("ping starts");
        eventually("it says from where the guest sends", || {
            cause(&daemon).message.ends_with("; it sends from 10.9.9.9, and that is dropped")
        });
        speaks.kill().and_then(|()| speaks.wait()).expect("it is ours");
        inside(&line);
        assert_eq!(wrong(&daemon).len(), 0);

        guest.space.run("ip link set eth0 down");
        let line = cause(&daemon);
        assert!(line.message.starts_with("the guest is silent on vttap-web: "), "{line:?}");
        assert!(line.message.contains("or its interface is down"), "{line:?}");
        inside(&line);
        eventually("it speaks again", || wrong(&daemon).is_empty());

        guest.space.run("ip link set eth0 address 02:00:00:00:00:77");
        let line = cause(&daemon);
        assert!(line.message.contains("Ethernet address 02:00:00:00:00:77"), "{line:?}");
    });
}

#[test]
fn what_a_policy_denies_and_isolation_are_told() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        let network = json!({ "policy": "internet", "isolated": true });
        let vm = daemon.create(json!({ "name": "web", "config": { "network": network } }));
        let guest = Guest::of(&vm);
        assert!(!guest.reaches("10.1.2.3"));
        let lines = doctor(&daemon, json!({ "name": "web" }));
        let of_policy: Vec<&str> =
            lines.iter().filter(|it| it.check == "policy").map(|it| &*it.message).collect();
        assert!(of_policy[0].starts_with("internet: "), "{lines:#?}");
        assert!(of_policy[0].contains("2 packets were denied"), "{lines:#?}");
        assert!(of_policy[1].starts_with("isolated: "), "{lines:#?}");
    });
}

#[test]
fn firewalls_of_others_are_named_and_what_it_says_mends_them() {
    let table = |text: &str| run(&format!("nft {text}"));
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        let guest = Guest::of(&daemon.create(json!({ "name": "web" })));
        let through = || guest.reaches("203.0.113.2");
        assert!(through());

        // As firewalld has it. Its own command is not here.
        table("add table inet firewalld");
        let line = cause(&daemon);
        assert_eq!((&*line.check, &*line.level), ("firewalld", "warning"));
        assert!(line.hint.starts_with("firewall-cmd --permanent --zone=trusted"), "{line:?}");
        table("delete table inet firewalld");

        table("add table inet own");
        table("add chain inet own out { type filter hook forward priority 0; policy drop; }");
        assert!(!through());
        let line = cause(&daemon);
        assert!(line.message.starts_with("chain out of table inet own drops"), "{line:?}");
        type_in(&line.hint);
        assert!(through(), "{line:?}");
        assert_eq!(wrong(&daemon).len(), 0);
        table("delete table inet own");
    });
    in_namespace(|| {
        run("iptables -P FORWARD DROP");
        run("iptables -N DOCKER-USER");
        run("iptables -A FORWARD -j DOCKER-USER");
        let (_world, daemon) = host(json!({}));
        let guest = Guest::of(&daemon.create(json!({ "name": "web" })));
        // volnet has its own rules there.
        assert!(guest.reaches("203.0.113.2"));
        assert_eq!(wrong(&daemon).len(), 0);
        run("iptables -I DOCKER-USER -i vbr0 -j DROP");
        // This one drops some on purpose.
        run("iptables -I DOCKER-USER -i vbr0 -p tcp --dport 25 -j DROP");
        assert!(!guest.reaches("203.0.113.2"));
        let line = cause(&daemon);
        assert!(line.message.starts_with("rule "), "{line:?}");
        assert!(
            line.message.ends_with(" in chain DOCKER-USER of table ip filter drops what vbr0 has"),
            "{line:?}"
        );
        type_in(&line.hint);
        assert!(guest.reaches("203.0.113.2"), "{line:?}");
        assert_eq!(wrong(&daemon).len(), 0);
    });
}

#[test]
fn the_way_to_the_world() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        let guest = Guest::of(&daemon.create(json!({ "name": "web" })));
        assert_eq!(wrong(&daemon).len(), 0);
        run("ip route del default");
        let line = cause(&daemon);
        assert_eq!((&*line.check, &*line.level), ("route", "error"));
        assert!(line.message.contains("no way to the world"), "{line:?}");
        assert!(line.hint.starts_with("ip route add default via "), "{line:?}");
        run("ip route add default via 203.0.113.2");
        run("ip link set uplink mtu 1280");
        let line = cause(&daemon);
        assert_eq!((&*line.check, &*line.level), ("mtu", "warning"));
        assert!(line.message.starts_with("guests send 1500 bytes, and uplink takes 1280"));
        assert!(guest.reaches("203.0.113.2"));
        // The host as a whole has the same to say.
        let lines = doctor(&daemon, json!({}));
        let mtu = lines.iter().find(|it| it.check == "mtu").expect("a line");
        assert_eq!(mtu.message, line.message);
        assert!(lines.iter().any(|it| it.check == "/dev/net/tun"), "{lines:#?}");
    });
}

#[test]
fn a_full_table_of_connections() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        let guest = Guest::of(&daemon.create(json!({ "name": "web" })));
        assert_eq!(wrong(&daemon).len(), 0);
        fill_connections(&daemon.folder);
        assert!(!guest.reaches("203.0.113.2"));
        let line = cause(&daemon);
        assert_eq!((&*line.check, &*line.level), ("conntrack", "error"));
        assert!(line.message.contains("new ones are dropped"), "{line:?}");
        assert!(line.hint.starts_with("sysctl -w net.netfilter.nf_conntrack_max="), "{line:?}");
    });
}

#[test]
fn an_exposed_port_that_another_rule_takes() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        let config = json!({ "expose": [{ "port": 80, "host_port": 8080 }] });
        let _guest = Guest::of(&daemon.create(json!({ "name": "web", "config": config })));
        run("nft add table ip own");
        run("nft add chain ip own pre { type nat hook prerouting priority -150; }");
        run("nft add rule ip own pre tcp dport 8080 dnat to 203.0.113.2:80");
        let line = cause(&daemon);
        assert_eq!((&*line.check, &*line.level), ("ports", "error"));
        assert!(line.message.ends_with("takes port 8080, which leads to VM web"), "{line:?}");
        type_in(&line.hint);
        assert_eq!(wrong(&daemon).len(), 0);
        // A rule that comes later than volnet's takes nothing.
        run("nft delete table ip own");
        run("nft add table ip own");
        run("nft add chain ip own pre { type nat hook prerouting priority -100; }");
        run("nft add rule ip own pre tcp dport 8080 dnat to 203.0.113.2:80");
        assert_eq!(wrong(&daemon).len(), 0);
    });
}

#[test]
fn a_gateway_that_is_another_machine_is_asked() {
    in_namespace(|| {
        let lan = Space::world();
        run("ip link add br0 type bridge");
        run("ip addr flush dev uplink");
        run("ip link set uplink master br0");
        run("ip addr add 192.168.50.10/24 dev br0");
        run("ip link set br0 up");
        let network = json!({
            "name": "lan", "bridge": "br0", "subnet": "192.168.50.0/24",
            "host_ip": "192.168.50.10", "gateway": "192.168.50.1", "nat": false,
            "managed": false, "dns": "off",
        });
        let daemon = Daemon::configured(&json!({ "networks": [network] }));
        daemon.create(json!({ "name": "web" }));
        let gateway = || {
            let lines = doctor(&daemon, json!({ "name": "web" }));
            lines.into_iter().find(|line| line.check == "gateway").expect("a line")
        };
        let line = gateway();
        assert_eq!(line.level, "error", "{line:?}");
        assert!(line.message.contains("192.168.50.1, the gateway of network lan"), "{line:?}");
        lan.run("ip addr add 192.168.50.1/24 dev eth0");
        eventually("it answers", || gateway().level == "ok");
    });
}
