//! Limits: the kernel's objects for them, and real transfers at the rate of the limit, among a
//! hundred other limited VMs. Guests are namespaces behind their taps.

#![cfg(target_os = "linux")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::space::{Guest, Space};
use common::{eventually, in_namespace, json as shown_json, run, try_run};

const GATEWAY: &str = "192.168.127.1";
/// Where transfers go, which the host lets its guests reach.
const PORT: u16 = 9000;
/// Other VMs that are limited.
const OTHERS: usize = 100;
/// How long a transfer is watched. A rate of bytes lets a second's worth come at once, which is
/// over by the time of [`SETTLE`].
const WINDOW: Duration = Duration::from_millis(2500);
const SETTLE: Duration = Duration::from_millis(1500);
/// How often a transfer is watched before it is said to be at another rate: the machine may be
/// busy.
const WINDOWS: usize = 3;
/// How far the payload may be from the rate, which counts headers, too.
const TOLERANCE: f64 = 0.1;
/// How long a transfer may say nothing before its threads look whether it is over.
const LOOK: Duration = Duration::from_millis(100);

/// A transfer by TCP that goes on until it is dropped.
struct Transfer {
    received: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Transfer {
    /// From a guest to the host.
    fn sent_by(guest: &Guest) -> Transfer {
        Transfer::between(Some(&guest.space), None, GATEWAY)
    }

    /// From the host to a guest of this address.
    fn received_by(guest: &Guest, address: &str) -> Transfer {
        Transfer::between(None, Some(&guest.space), address)
    }

    /// `None` is the host.
    fn between(from: Option<&Space>, to: Option<&Space>, address: &str) -> Transfer {
        let (received, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let listener = inside(to, || TcpListener::bind((address, PORT)).expect("a port"));
        let receiver = std::thread::spawn({
            let (received, over) = (Arc::clone(&received), Arc::clone(&over));
            move || receive(&listener, &received, &over)
        });
        let stream = inside(from, || TcpStream::connect((address, PORT)).expect("a connection"));
        let sender = std::thread::spawn({
            let over = Arc::clone(&over);
            move || send(stream, &over)
        });
        Transfer { received, over, threads: vec![receiver, sender] }
    }

    /// Mbit/s of payload while it is watched.
    fn rate(&self) -> f64 {
        let (before, at) = (self.received.load(Ordering::Relaxed), Instant::now());
        sleep(WINDOW);
        let bytes = self.received.load(Ordering::Relaxed) - before;
        8.0 * bytes as f64 / 1e6 / at.elapsed().as_secs_f64()
    }

    /// Waits until it is at this rate in Mbit/s, and tells the rates that were seen.
    fn comes_to(&self, mbit: f64, what: &str) {
        sleep(SETTLE);
        let mut seen = Vec::new();
        while seen.len() < WINDOWS {
            let rate = self.rate();
            seen.push(rate);
            if (rate - mbit).abs() <= TOLERANCE * mbit {
                println!("{what}, {mbit} Mbit/s: {seen:.2?}");
                return;
            }
        }
        panic!("{what} is not at {mbit} Mbit/s: {seen:.2?}");
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn inside<T: Send>(space: Option<&Space>, make: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            space.into_iter().for_each(Space::enter);
            make()
        });
        made.join().expect("a socket")
    })
}

fn receive(listener: &TcpListener, received: &AtomicU64, over: &AtomicBool) {
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(LOOK)).expect("a socket");
    let mut buffer = vec![0; 1 << 18];
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => drop(received.fetch_add(count as u64, Ordering::Relaxed)),
            Err(_) => {}
        }
    }
}

fn send(mut stream: TcpStream, over: &AtomicBool) {
    stream.set_write_timeout(Some(LOOK)).expect("a socket");
    let buffer = vec![0; 1 << 16];
    while !over.load(Ordering::Relaxed) {
        let _ = stream.write(&buffer);
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn create(daemon: &Daemon, name: &str, limits: Value) -> Value {
    let config = json!({ "network": { "limits": limits } });
    daemon.create(json!({ "name": name, "config": config }))
}

fn text<'a>(vm: &'a Value, field: &str) -> &'a str {
    vm[field].as_str().unwrap_or_else(|| panic!("{field} of {vm}"))
}

/// Runs the command line tool, which must succeed, and gives what it printed.
fn volnet(daemon: &Daemon, line: &str) -> String {
    let mut command = Command::new(&daemon.program);
    command.args(line.split(' ')).env("VOLNET_SOCKET", daemon.socket());
    let output = command.output().expect("volnet runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What tc says of the root of a link: kind, and of a token bucket rate in bytes a second and
/// burst.
fn root(link: &str) -> (String, u64, u64) {
    let all = shown_json(&format!("tc -j qdisc show dev {link}"));
    let root = all.as_array().into_iter().flatten().find(|qdisc| qdisc["root"] == true);
    let root = root.unwrap_or(&Value::Null);
    let number = |field: &str| root["options"][field].as_u64().unwrap_or(0);
    (root["kind"].as_str().unwrap_or("none").into(), number("rate"), number("burst"))
}

fn handle(link: &str) -> Value {
    shown_json(&format!("tc -j qdisc show dev {link} root"))[0]["handle"].take()
}

/// What nft says of the limits in a set: link, a second, burst.
fn limits(set: &str) -> Vec<(String, u64, u64)> {
    let list = shown_json(&format!("nft -j list set bridge volnet {set}"));
    let elements = list["nftables"][1]["set"]["elem"].as_array().cloned().unwrap_or_default();
    let read = |element: &Value| {
        let limit = &element["elem"]["limit"];
        let number = |field: &str| limit[field].as_u64().expect("a number");
        let unit = if limit["burst_unit"] == "kbytes" { 1024 } else { 1 };
        assert_eq!((&limit["per"], &limit["inv"]), (&json!("second"), &json!(true)), "{element}");
        (text(&element["elem"], "val").into(), number("rate"), number("burst") * unit)
    };
    elements.iter().map(read).collect()
}

#[test]
fn limits_are_set_changed_and_taken_away() {
    in_namespace(|| {
        let mut daemon = Daemon::configured(&json!({
            "networks": [{ "limits": { "rx_mbit": 40, "pps": 1000 } }]
        }));
        let rules = || run("nft list ruleset").lines().filter(|line| line.contains("drop")).count();
        let before = rules();
        let web = create(&daemon, "web", json!({ "tx_mbit": 50, "pps": 0 }));
        let shown = json!({ "rx_mbit": 40, "tx_mbit": 50, "burst_kb": null, "pps": null });
        assert_eq!(web["limits"], shown);
        let held = |rx: u64, tx: u64, pps: u64| {
            let (kind, rate, burst) = root("vttap-web");
            let expected = if rx == 0 { (false, 0) } else { (true, rx * 125_000) };
            assert_eq!((kind == "tbf", rate), expected);
            assert!(rx == 0 || (65_000..=65_536).contains(&burst) || burst > 100_000, "{burst}");
            let of = |set| limits(set).iter().map(|(_, rate, _)| *rate).collect::<Vec<_>>();
            let some = |rate: u64| if rate == 0 { vec![] } else { vec![rate] };
            assert_eq!((of("limited"), of("paced")), (some(tx * 125_000), some(pps)));
        };
        held(40, 50, 0);
        assert_eq!(limits("limited"), [("vttap-web".to_string(), 6_250_000, 65_536)]);

        let printed = volnet(&daemon, "limit web --rx 200 --pps 5000");
        assert!(printed.contains("limits       --rx 200 --tx 50 --pps 5000\n"), "{printed}");
        held(200, 50, 5000);
        // What waits in a queue may be larger than a smaller burst, and would never be sent.
        let kept = handle("vttap-web");
        volnet(&daemon, "limit web --rx 300");
        assert_eq!(handle("vttap-web"), kept);
        volnet(&daemon, "limit web --rx 40");
        assert_ne!(handle("vttap-web"), kept);
        held(40, 50, 5000);
        volnet(&daemon, "limit web --burst 200");
        volnet(&daemon, "limit web --burst 100");
        assert_eq!(handle("vttap-web"), kept, "there are two in all");
        volnet(&daemon, "limit web --rx 200");
        let again = daemon.call("SetLimits", json!({ "name": "web", "pps": 5000 }));
        assert_eq!(again["parameters"]["vm"]["limits"]["rx_mbit"], 200, "{again}");
        daemon.crash();
        daemon.start_again();
        held(200, 50, 5000);
        let got = daemon.call("Get", json!({ "name": "web" }));
        assert_eq!(got["parameters"]["vm"]["limits"]["tx_mbit"], 50, "{got}");
        volnet(&daemon, "limit web --tx 0 --burst 128");
        held(200, 0, 5000);
        assert_eq!(root("vttap-web").2 / 1024, 127, "a little less, as tc rounds it");
        volnet(&daemon, "limit web --rx 0 --pps 0");
        held(0, 0, 0);
        assert_eq!(rules(), before, "rules are as many as before");
        volnet(&daemon, "limit web --tx 10 --pps 7");
        volnet(&daemon, "delete web");
        assert_eq!((limits("limited"), limits("paced")), (vec![], vec![]));
    });
}

#[test]
fn a_tap_that_was_made_ahead_is_limited_as_its_vm_is() {
    in_namespace(|| {
        let daemon = Daemon::configured(&json!({ "pool": 2 }));
        let made_ahead = || run("ip -o link").matches("vtnew").count() == 2;
        for (name, limits, rate) in [
            ("first", json!({ "rx_mbit": 10 }), 1_250_000),
            ("other", json!({}), 0),
            ("again", json!({ "rx_mbit": 20 }), 2_500_000),
        ] {
            let vm = create(&daemon, name, limits);
            assert_eq!(root(text(&vm, "tap")).1, rate, "{name}");
            eventually("taps are made ahead", made_ahead);
            volnet(&daemon, &format!("delete {name}"));
        }
    });
}

#[test]
fn flags_and_a_dry_run_say_the_same() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let flags = "--rx 100 --tx 50 --burst 256 --pps 4000";
        let plan = volnet(&daemon, &format!("create web {flags} --dry-run"));
        for words in [
            "tc qdisc replace dev vttap-web root handle 766f: tbf rate 12500000bps burst 256kb",
            "limited { \"vttap-web\" limit rate over 6250000 bytes/second burst 262144 bytes }",
            "paced { \"vttap-web\" limit rate over 4000/second burst 400 packets }",
        ] {
            assert!(plan.contains(words), "{words}\n{plan}");
        }
        assert!(!common::link_exists("vttap-web"));
        let printed = volnet(&daemon, &format!("create web {flags}"));
        assert!(printed.contains(&format!("limits       {flags}\n")), "{printed}");
        assert_eq!(root("vttap-web").1, 12_500_000);
        let unlimited = volnet(&daemon, "create db --dry-run");
        assert!(!unlimited.contains("tc qdisc"), "{unlimited}");
    });
}

#[test]
fn what_cannot_be_is_refused_by_its_field() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        create(&daemon, "web", json!({}));
        for (field, value) in
            [("rx_mbit", 32_001), ("tx_mbit", 32_001), ("burst_kb", 63), ("pps", 10_000_001)]
        {
            let limits = json!({ "name": "web", field: value });
            let answer = daemon.call("SetLimits", limits);
            assert_eq!(answer["parameters"]["field"], format!("network.limits.{field}"));
            let config = json!({ "network": { "limits": { field: value } } });
            let answer = daemon.call("Create", json!({ "name": "db", "config": config }));
            assert_eq!(answer["parameters"]["field"], format!("network.limits.{field}"));
        }
        let answer = daemon.call("SetLimits", json!({ "name": "web", "rx_mbit": "fast" }));
        assert_eq!(answer["parameters"]["parameter"], "rx_mbit", "{answer}");
        let vsock = json!({ "network": { "mode": "vsock" } });
        daemon.call("Create", json!({ "name": "alone", "config": vsock }));
        let answer = daemon.call("SetLimits", json!({ "name": "alone", "rx_mbit": 1 }));
        assert_eq!(answer["parameters"]["field"], "network.limits", "{answer}");
    });
}

#[test]
fn a_host_without_rules_for_its_bridges_limits_only_what_guests_receive() {
    in_namespace(|| {
        let daemon = Daemon::configured(&json!({ "networks": [{ "antispoof": false }] }));
        create(&daemon, "web", json!({ "rx_mbit": 10 }));
        assert_eq!(root("vttap-web").1, 1_250_000);
        for field in ["tx_mbit", "pps"] {
            let answer = daemon.call("SetLimits", json!({ "name": "web", field: 10 }));
            assert_eq!(answer["parameters"]["field"], format!("network.limits.{field}"));
            let reason = answer["parameters"]["reason"].as_str().expect("a reason");
            assert!(reason.contains("antispoof"), "{answer}");
        }
        let check = volnet(&daemon, "check");
        assert!(check.contains("limits: the send rate of guests cannot be limited"), "{check}");
    });
}

#[test]
fn transfers_come_to_the_rate_in_both_directions_among_a_hundred_limited_vms() {
    in_namespace(|| {
        let daemon = Daemon::configured(&json!({
            "networks": [{ "host_services": ["ping", format!("tcp/{PORT}")] }]
        }));
        for number in 0..OTHERS {
            let limits = json!({ "rx_mbit": 1 + number, "tx_mbit": 1 + number, "pps": 1000 });
            create(&daemon, &format!("other{number}"), limits);
        }
        let vm = create(&daemon, "web", json!({ "rx_mbit": 200, "tx_mbit": 10 }));
        let web = Guest::of(&vm);
        {
            let sends = Transfer::sent_by(&web);
            sends.comes_to(10.0, "what a guest sends");
            volnet(&daemon, "limit web --tx 50");
            sends.comes_to(50.0, "what a guest sends");
        }
        let receives = Transfer::received_by(&web, text(&vm, "ip"));
        // More than a slow machine carries, so that what waits is larger than the burst that
        // follows.
        sleep(SETTLE);
        assert!(receives.rate() < 220.0);
        for rx in [20, 60] {
            volnet(&daemon, &format!("limit web --rx {rx}"));
            receives.comes_to(rx.into(), "what a guest receives");
        }
        volnet(&daemon, "limit web --rx 0");
        sleep(SETTLE);
        assert!(receives.rate() > 90.0, "it is not held back any more");
    });
}

#[test]
fn packets_are_limited_however_small_they_are() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let web = Guest::of(&create(&daemon, "web", json!({ "pps": 50 })));
        let ping = |guest: &Guest| guest.space.run_any(&format!("ping -q -f -c 400 {GATEWAY}"));
        let received = |text: String| -> u32 {
            let (before, _) = text.split_once(" received").unwrap_or_else(|| panic!("{text}"));
            before.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a number")
        };
        let limited = received(ping(&web));
        assert!(limited < 380, "{limited}");
        volnet(&daemon, "limit web --pps 0");
        assert_eq!(received(ping(&web)), 400);
        assert!(try_run("nft list set bridge volnet paced").0);
    });
}
