//! Changes by others: volnet notices, names and repairs them.

mod common;

use serde_json::{Value, json};

use common::daemon::{Connection, Daemon};
use common::shown::shown;
use common::{eventually, in_namespace, run};

/// A hypervisor that opens the tap as a real one does, and ends when it is asked to.
const HOLDER: &str = r#"
import fcntl, signal, struct, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
tun = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH22x", sys.argv[1].encode(), 0x5002))
while True:
    signal.pause()
"#;

/// A connection that is told of events. What is there already is read.
fn subscribe(daemon: &Daemon) -> Connection {
    let mut events = daemon.connect();
    let call = json!({ "method": "io.volnet.Monitor", "more": true });
    events.send(format!("{call}\n").as_bytes());
    let state = events.receive().expect("the state");
    assert!(state["parameters"]["vms"].is_array(), "{state}");
    events
}

/// The next event of this kind.
fn next(events: &mut Connection, kind: &str) -> Value {
    loop {
        let event = events.receive().expect("an event")["parameters"]["event"].take();
        if event["kind"] == kind {
            return event;
        }
    }
}

/// Each change, and the words of its event.
const CHANGES: &[(&str, &str)] = &[
    ("ip link del vbr0", "bridge vbr0 is gone"),
    ("ip link set vbr0 down", "link vbr0 is down"),
    ("ip addr del 192.168.127.1/24 dev vbr0", "bridge vbr0 has lost its address 192.168.127.1/24"),
    ("ip addr add 10.9.9.9/24 dev vbr0", "bridge vbr0 has the address 10.9.9.9/24"),
    (
        "ip link set vbr0 address 02:00:00:00:00:77",
        "link vbr0 has the address 02:00:00:00:00:77, not",
    ),
    ("ip link set vbr0 mtu 1300", "link vbr0 has the MTU 1300, not 1500"),
    ("ip link set vbr0 type bridge mcast_snooping 1", "link vbr0 has mcast_snooping on"),
    ("ip link del vttap-web", "tap vttap-web is gone"),
    ("ip link set vttap-web down", "link vttap-web is down"),
    ("ip link set vttap-web nomaster", "link vttap-web is not a port of vbr0"),
    ("ip link set vttap-web master vbr1", "link vttap-web is a port of vbr1, not of vbr0"),
    ("ip link set vttap-web mtu 1400", "link vttap-web has the MTU 1400, not 1500"),
    ("ip link set vttap-db type bridge_slave isolated on", "link vttap-db is isolated"),
    ("bridge link set dev vttap-db isolated on", "link vttap-db is isolated"),
    ("bridge link set dev vttap-web hairpin on", "link vttap-web sends frames back by their port"),
    (
        "ip link set vbr0 type bridge nf_call_iptables 1",
        "link vbr0 passes IPv4 frames through the rules for routed packets",
    ),
    (
        "ip link set vttap-db type bridge_slave group_fwd_mask 0",
        "link vttap-db has another group_fwd_mask",
    ),
    ("ip link set vttap-db alias mine", "link vttap-db does not have the alias volnet:db"),
    ("ip link set vttap-db down name mine", "link mine is left over"),
    ("sysctl -qw net.ipv4.ip_forward=0", "IPv4 forwarding is off"),
    ("tc qdisc del dev vttap-db root", "link vttap-db is not limited to 12500000 bytes/s"),
    (
        "tc qdisc replace dev vttap-db root handle 1: tbf rate 1gbit burst 64kb limit 64kb",
        "link vttap-db is not limited to 12500000 bytes/s",
    ),
    (
        "tc qdisc change dev vttap-db root handle 766f: tbf rate 8mbit burst 128kb limit 64kb",
        "link vttap-db is limited to 1000000 bytes/s, not 12500000",
    ),
    (
        "tc qdisc add dev vttap-web root handle 766f: tbf rate 8mbit burst 128kb limit 64kb",
        "link vttap-web has a limit",
    ),
];

#[test]
fn every_change_of_links_addresses_and_forwarding_is_named_and_put_right() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        run("ip link add vbr1 address 02:00:00:00:00:66 type bridge");
        for (name, limits, mtu) in
            [("db", json!({ "rx_mbit": 100 }), 1400), ("web", json!({}), 1500)]
        {
            let config = json!({ "network": { "limits": limits, "mtu": mtu } });
            let answer = daemon.call("Create", json!({ "name": name, "config": config }));
            assert!(answer["error"].is_null(), "{answer}");
        }
        let before = shown();
        let routes = before["routes"][0].as_str().unwrap();
        assert!(routes.starts_with("192.168.127.2 dev vbr0 scope link mtu 1400"), "{routes}");
        let mut events = subscribe(&daemon);
        for (change, words) in CHANGES {
            run(change);
            let drift = next(&mut events, "drift");
            let message = drift["message"].as_str().unwrap();
            assert!(message.starts_with(words), "{change}: {drift}");
            let owner =
                ["web", "db"].into_iter().find(|vm| words.contains(&format!("vttap-{vm} ")));
            assert_eq!(drift["vm"].as_str(), owner, "{change}");
            let repaired = next(&mut events, "repaired");
            assert_eq!(repaired["message"], format!("{message}: repaired"), "{change}");
            eventually(change, || shown() == before);
        }
        // After all that, what is shown is still what is there.
        let web = daemon.call("Get", json!({ "name": "web" }));
        assert_eq!(web["parameters"]["vm"]["ifindex"], common::ip_link("vttap-web")["ifindex"]);
        let answer = daemon.call("Delete", json!({ "name": "web" }));
        assert!(answer["error"].is_null() && !common::link_exists("vttap-web"), "{answer}");
    });
}

#[test]
fn what_services_need_is_put_right_and_goes_with_them() {
    in_namespace(|| {
        let network = |services: bool| json!({ "networks": [{ "services": services }] });
        let mut daemon = Daemon::configured(&network(true));
        assert!(daemon.call("Create", json!({ "name": "web" }))["error"].is_null());
        let before = shown();
        let mut events = subscribe(&daemon);
        for (change, words) in [
            (
                "ip link set vttap-web type bridge_slave hairpin off",
                "link vttap-web sends no frame back by its port",
            ),
            (
                "ip link set vbr0 type bridge nf_call_iptables 0 nf_call_ip6tables 0",
                "link vbr0 does not pass IPv4 frames through the rules for routed packets, \
                 does not pass IPv6 frames through",
            ),
            ("ip link del vbr0", "bridge vbr0 is gone"),
        ] {
            run(change);
            let drift = next(&mut events, "drift");
            assert!(drift["message"].as_str().unwrap().starts_with(words), "{change}: {drift}");
            next(&mut events, "repaired");
            eventually(change, || shown() == before);
        }
        let switches = || {
            let bridge = &common::ip_link("vbr0")["linkinfo"]["info_data"];
            let hairpin = &common::ip_link("vttap-web")["linkinfo"]["info_slave_data"]["hairpin"];
            let numbers = ["nf_call_iptables", "nf_call_ip6tables"].map(|it| bridge[it].clone());
            (json!(numbers), hairpin.clone())
        };
        assert_eq!(switches(), (json!([1, 1]), json!(true)));
        daemon.crash();
        let settings = daemon.folder.join("config.json");
        std::fs::write(settings, network(false).to_string()).expect("settings");
        daemon.start_again();
        assert_eq!(switches(), (json!([0, 0]), json!(false)));
    });
}

#[test]
fn rules_that_others_change_are_put_right_and_it_is_said_who_did() {
    in_namespace(|| {
        run("iptables -N DOCKER-USER");
        let daemon = Daemon::start(&["--nft-owner", "no"]);
        let limits = json!({ "network": { "limits": { "tx_mbit": 8 } } });
        let answer = daemon.call("Create", json!({ "name": "web", "config": limits }));
        assert!(answer["error"].is_null(), "{answer}");
        let mut events = subscribe(&daemon);
        let before = shown();
        let mut repaired = |words: &str| {
            while !next(&mut events, "repaired")["message"].as_str().unwrap().starts_with(words) {}
        };
        run("nft flush ruleset");
        repaired("table bridge volnet is gone");
        run("iptables -N DOCKER-USER");
        repaired("the accept rule for vbr0 is missing");
        eventually("all is there again", || shown() == before);
        for (change, program, words) in [
            ("nft delete table bridge volnet", "nft", "table bridge volnet is gone"),
            ("nft flush chain ip volnet forward", "nft", "table ip volnet was changed"),
            ("nft flush set bridge volnet ports", "nft", "table volnet lacks 1 element"),
            (
                "nft delete element bridge volnet limited { \"vttap-web\" }",
                "nft",
                "table volnet lacks 1 element",
            ),
            (
                "nft delete element bridge volnet limited { \"vttap-web\" } ; \
                 add element bridge volnet limited \
                 { \"vttap-web\" limit rate over 9 mbytes/second burst 1 mbytes }",
                "nft",
                "table volnet has 1 element too many",
            ),
            (
                "iptables -F DOCKER-USER",
                "iptables",
                "the accept rule for vbr0 is missing from chain",
            ),
            (
                "iptables -D DOCKER-USER 1",
                "iptables",
                "the accept rule for vbr0 is missing from chain",
            ),
        ] {
            run(change);
            let drift = next(&mut events, "drift");
            assert!(drift["message"].as_str().unwrap().starts_with(words), "{change}: {drift}");
            assert_eq!(drift["by_name"], program, "{change}: {drift}");
            assert!(drift["by_pid"].as_u64().is_some_and(|pid| pid > 0), "{change}: {drift}");
            next(&mut events, "repaired");
            eventually(change, || shown() == before);
        }
        run("nft add table ip mine");
        run("ip link add mine type bridge");
        run("nft delete table ip mine");
        run("ip link del mine");
        assert!(daemon.call("Create", json!({ "name": "db" }))["error"].is_null());
        let event = events.receive().expect("an event")["parameters"]["event"].take();
        assert_eq!(event["kind"], "vm_created", "what is not ours is no news: {event}");
    });
}

#[test]
fn who_does_it_again_and_again_is_not_fought() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        assert!(daemon.call("Create", json!({ "name": "web" }))["error"].is_null());
        let mut events = subscribe(&daemon);
        let mut last = String::new();
        for _ in 0..20 {
            run("ip link set vttap-web down");
            last = next(&mut events, "drift")["message"].as_str().unwrap().to_string();
            if last.contains("the next repair is in") {
                break;
            }
            next(&mut events, "repaired");
        }
        assert_eq!(
            last,
            "link vttap-web is down; it was repaired several times, so the next repair is in 10 s"
        );
        run("ip link set vbr0 down");
        assert_eq!(next(&mut events, "repaired")["message"], "link vbr0 is down: repaired");
        assert!(!common::ip_link("vttap-web")["flags"].to_string().contains("\"UP\""));
    });
}

#[test]
fn a_hypervisor_that_lost_its_tap_is_restarted_as_its_policy_says() {
    in_namespace(|| {
        let daemon = Daemon::configured(&json!({ "hypervisors": { "holds": {
            "program": "python3", "args": [["-c", HOLDER, "{tap}"]]
        } } }));
        for (name, policy) in [("stays", "no"), ("comes", "on-failure")] {
            let config = json!({ "hypervisor": "holds", "restart": policy,
                "kernel_override": "/etc/hostname" });
            let create = json!({ "name": name, "start": true, "config": config });
            let answer = daemon.call("Create", create);
            assert_eq!(answer["parameters"]["vm"]["status"], "running", "{answer}");
        }
        let pid = |name: &str| {
            daemon.call("Get", json!({ "name": name }))["parameters"]["vm"]["pid"].take()
        };
        let (stays, comes) = (pid("stays"), pid("comes"));
        let mut events = subscribe(&daemon);
        run("ip link del vttap-stays");
        let said = |events: &mut Connection, kind: &str, words: &str| {
            while !next(events, kind)["message"].as_str().unwrap().contains(words) {}
        };
        said(&mut events, "drift", "its guest has no network until it is restarted");
        assert_eq!(pid("stays"), stays);
        run("ip link del vttap-comes");
        said(
            &mut events,
            "vm_stopping",
            "the hypervisor of VM comes has lost its tap: it is restarted",
        );
        said(&mut events, "vm_started", "comes");
        eventually("another process", || pid("comes") != comes && !pid("comes").is_null());
        eventually("its tap is open", || {
            common::ip_link("vttap-comes")["flags"].to_string().contains("LOWER_UP")
        });
    });
}
