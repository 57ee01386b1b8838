//! Events about guests that do the same again and again, with their causes.

#![cfg(target_os = "linux")]

mod common;

use std::net::UdpSocket;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use common::space::{Guest, host};
use common::{eventually, in_namespace, run};

/// Asks for an address many times, and gets what it is told of none.
const ASKER: &str = r#"
import socket, struct, sys
mac = bytes.fromhex(sys.argv[1].replace(":", ""))
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
out.bind(("", 68))
head = struct.pack("!4BIHH16x", 1, 1, 6, 0, 7, 0, 0x8000) + mac + bytes(10 + 192)
for _ in range(40):
    out.sendto(head + b"\x63\x82\x53\x63\x35\x01\x01\xff", ("255.255.255.255", 67))
"#;

/// Sends what no policy allows.
const SENDER: &str = r#"
import socket, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(400):
    for _ in range(10):
        out.sendto(b"", ("10.1.2.3", 9))
    time.sleep(0.005)
"#;

/// The event comes after minutes, so this is not part of the suite:
/// `cargo test --test troubles -- --ignored`
#[test]
#[ignore = "takes three minutes"]
fn a_limit_that_drops_for_minutes_is_told() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({}));
        let mut events = daemon.connect();
        events.send(b"{\"method\":\"io.volnet.Monitor\",\"more\":true}\n");
        events.receive().expect("the state");
        let limited = json!({ "network": { "limits": { "rx_mbit": 1 } } });
        let vm = daemon.create(json!({ "name": "web", "config": limited }));
        let _guest = Guest::of(&vm);
        let to = (vm["ip"].as_str().expect("an address"), 9);
        let out = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        out.set_nonblocking(true).expect("a socket that does not wait");
        let began = Instant::now();
        let line = loop {
            for _ in 0..50 {
                let _ = out.send_to(&[0; 1400], to);
            }
            let log = daemon.log();
            if let Some(line) = log.lines().find(|line| line.contains("event=limit_drops")) {
                break line.to_owned();
            }
            assert!(began.elapsed() < Duration::from_secs(400), "{log}");
            sleep(Duration::from_millis(50));
        };
        assert!(began.elapsed() >= Duration::from_secs(120), "{line}");
        assert!(line.contains("VM web: its limits have dropped packets for 2 minutes"), "{line}");
        let told = loop {
            let event = events.receive().expect("an event")["parameters"]["event"].take();
            if event["kind"] == "limit_drops" {
                break event;
            }
        };
        assert_eq!(told["vm"], "web", "{told}");
        let queue = run("tc -s qdisc show dev vttap-web");
        assert!(queue.contains("tbf") && !queue.contains("dropped 0,"), "{queue}");
    });
}

#[test]
fn what_a_guest_does_again_and_again_is_told_with_its_cause() {
    in_namespace(|| {
        let (_world, daemon) = host(json!({ "policy": "none" }));
        let mut events = daemon.connect();
        events.send(b"{\"method\":\"io.volnet.Monitor\",\"more\":true}\n");
        events.receive().expect("the state");
        let vm = daemon.create(json!({ "name": "web" }));
        let guest = Guest::of(&vm);
        let mac = vm["mac"].as_str().expect("an Ethernet address");
        let python = |script: &str| {
            let status = guest.space.command("python3").args(["-c", script, mac]).status();
            assert!(status.expect("python").success());
        };
        // The first look.
        daemon.call("Usage", json!({}));
        python(ASKER);
        guest.space.run("ip addr add 192.168.127.99/24 dev eth0");
        guest.space.run("ip neigh flush dev eth0");
        guest.space.run_any("ping -q -c 4 -W 1 -I 192.168.127.99 192.168.127.1");
        python(SENDER);
        let told = |kind: &str| {
            let log = daemon.log();
            let lines = log.lines().filter(|line| line.contains(&format!("event={kind}")));
            lines.map(String::from).collect::<Vec<_>>()
        };
        eventually("all is told", || {
            daemon.call("Usage", json!({}));
            ["dhcp_repeated", "denied_flood", "address_conflict"]
                .iter()
                .all(|kind| !told(kind).is_empty())
        });
        for (kind, words) in [
            ("dhcp_repeated", "VM web: its guest has asked for its address 20 times in "),
            ("denied_flood", "VM web: its policy has denied "),
            ("address_conflict", "VM web: its guest uses an IPv4 address that it does not have: "),
        ] {
            let lines = told(kind);
            assert_eq!(lines.len(), 1, "{lines:#?}");
            assert!(lines[0].starts_with("WARN ") && lines[0].contains(words), "{lines:#?}");
        }
        let mut kinds = Vec::new();
        while kinds.len() < 3 {
            let event = events.receive().expect("an event")["parameters"]["event"].take();
            let kind = event["kind"].as_str().unwrap_or_default().to_owned();
            if matches!(&*kind, "dhcp_repeated" | "denied_flood" | "address_conflict") {
                assert_eq!(event["vm"], Value::from("web"), "{event}");
                kinds.push(kind);
            }
        }
        kinds.sort();
        assert_eq!(kinds, ["address_conflict", "denied_flood", "dhcp_repeated"]);
    });
}
