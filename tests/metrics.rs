//! Metrics over HTTP: what Prometheus and its `promtool` make of them, whether the numbers are
//! those of the kernel, and scrapers that do harm, or try to.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::space::Guest;
use common::{eventually, in_namespace, json as read_json, run};

const AT: &str = "127.0.0.1:9744";
/// What Prometheus 2 accepts.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
/// A VM of this many has a text that no socket takes at once.
const MANY: usize = 300;

/// A daemon that serves metrics.
fn daemon() -> Daemon {
    run("ip link set lo up");
    Daemon::configured(&json!({ "metrics": AT }))
}

/// Asks as a browser does that accepts anything, or as Prometheus.
fn get(accept: &str) -> String {
    format!("GET /metrics HTTP/1.1\r\nHost: {AT}\r\nAccept: {accept}\r\n\r\n")
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect(AT).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream
}

/// The answer to these bytes, up to the end of the connection.
fn answer(mut stream: impl Read + Write, bytes: &str) -> String {
    stream.write_all(bytes.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer that ends");
    answer
}

/// The body of an answer in chunks, which must be whole.
fn body(answer: &str) -> String {
    let (head, mut chunks) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n"), "{head}");
    let mut body = String::new();
    loop {
        let (length, rest) = chunks.split_once("\r\n").expect("a length");
        let length = usize::from_str_radix(length, 16).expect("a number");
        body.push_str(&rest[..length]);
        chunks = rest[length..].strip_prefix("\r\n").expect("the end of a chunk");
        if length == 0 {
            assert_eq!(chunks, "");
            return body;
        }
    }
}

fn scrape(accept: &str) -> String {
    body(&answer(connect(), &get(accept)))
}

/// What a verb prints.
fn volnet(daemon: &Daemon, verb: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volnet"));
    let output = command.args([verb, "--socket"]).arg(daemon.socket()).output().expect("it runs");
    String::from_utf8(output.stdout).expect("text")
}

/// The value of a sample.
fn value(text: &str, sample: &str) -> Option<f64> {
    let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    samples.into_iter().find(|(name, _)| *name == sample)?.1.parse().ok()
}

#[test]
fn the_numbers_are_those_of_the_kernel_and_of_the_daemon() {
    in_namespace(|| {
        let daemon = daemon();
        daemon.create(json!({"name": "web", "config": {"network": {"limits": {"rx_mbit": 1}}}}));
        daemon.call("Get", json!({"name": "nobody"}));
        run("ip tuntap add dev other mode tap");
        let text = scrape(ACCEPT);
        assert!(text.ends_with("# EOF\n"), "{text}");
        for (sample, expected) in [
            ("volnet_vms{status=\"created\"}", 1.0),
            ("volnet_vm_status{vm=\"web\",status=\"created\"}", 1.0),
            ("volnet_vm_receive_bytes_total{vm=\"web\",nic=\"0\"}", 0.0),
            ("volnet_vm_dropped_packets_total{vm=\"web\",nic=\"0\",reason=\"receive_limit\"}", 0.0),
            ("volnet_requests_total{method=\"Create\",outcome=\"done\"}", 1.0),
            ("volnet_requests_total{method=\"Get\",outcome=\"refused\"}", 1.0),
            ("volnet_request_seconds_count{method=\"Create\"}", 1.0),
            ("volnet_operations_total{operation=\"create tap\"}", 1.0),
            ("volnet_plan_operations_bucket{le=\"+Inf\"}", 2.0),
        ] {
            let found = value(&text, sample);
            assert!(found.is_some_and(|found| found >= expected), "{sample} {found:?}\n{text}");
        }
        // `volnet metrics` prints the same.
        let printed = volnet(&daemon, "metrics");
        let names = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| line.starts_with("# "));
            lines.map(String::from).collect()
        };
        assert_eq!(names(&printed), names(&text));

        // Somebody takes the tap away, and it comes back: a repair.
        let tap = daemon.call("Get", json!({"name": "web"}))["parameters"]["vm"]["tap"].take();
        run(&format!("ip link delete {}", tap.as_str().expect("a tap")));
        eventually("the repair is counted", || {
            value(&scrape("*/*"), "volnet_repairs_total{operation=\"create tap\"}") == Some(1.0)
        });
    });
}

#[test]
fn what_goes_through_a_tap_is_counted_as_the_kernel_counts_it() {
    in_namespace(|| {
        let daemon = daemon();
        daemon.create(json!({"name": "web"}));
        let tap = daemon.call("Get", json!({"name": "web"}))["parameters"]["vm"]["tap"].take();
        let tap = tap.as_str().expect("a tap").to_owned();
        // Its end of the tap is open, so the bridge sends there. Nobody reads, so the queue is full
        // after some hundred frames.
        let _guest = Command::new("python3")
            .args(["-c", HOLDER, &tap])
            .stdin(Stdio::piped())
            .spawn()
            .map(Ended)
            .expect("python");
        eventually("frames that nobody reads", || {
            let _ = common::try_run("ping -c 300 -i 0.002 -W 1 -b 192.168.127.255 -q");
            let text = scrape("*/*");
            let sample = "volnet_vm_dropped_packets_total{vm=\"web\",nic=\"0\",reason=\"unread\"}";
            value(&text, sample).is_some_and(|dropped| dropped > 0.0)
        });
        eventually("the kernel's own numbers", || {
            let text = scrape("*/*");
            let link = read_json(&format!("ip -s -j link show dev {tap}"))[0]["stats64"].take();
            let is = |sample: &str, theirs: &Value| {
                let ours = value(&text, &format!("{sample}{{vm=\"web\",nic=\"0\"}}"));
                ours.is_some() && ours == theirs.as_f64()
            };
            is("volnet_vm_receive_bytes_total", &link["tx"]["bytes"])
                && is("volnet_vm_receive_packets_total", &link["tx"]["packets"])
                && is("volnet_vm_transmit_bytes_total", &link["rx"]["bytes"])
                && is("volnet_vm_transmit_packets_total", &link["rx"]["packets"])
        });
    });
}

#[test]
fn what_a_guest_may_not_send_is_counted_by_its_reason() {
    in_namespace(|| {
        let daemon = daemon();
        let limited = json!({ "network": { "limits": { "pps": 20 } } });
        let guest = Guest::of(&daemon.create(json!({ "name": "web", "config": limited })));
        let dropped = |reason: &str| {
            let labels = format!("vm=\"web\",nic=\"0\",reason=\"{reason}\"");
            let sample = format!("volnet_vm_dropped_packets_total{{{labels}}}");
            value(&scrape("*/*"), &sample).unwrap_or_else(|| panic!("{reason} is not counted"))
        };
        // A scraper may get numbers of a second ago.
        let grows = |reason: &str, before: f64| {
            eventually("it is counted", || dropped(reason) > before);
            dropped(reason)
        };
        let before = dropped("antispoof");
        guest.space.run("ip addr add 192.168.127.99/24 dev eth0");
        guest.space.run("ip neigh flush dev eth0");
        // ARP that states another address, and then packets from it.
        guest.space.run_any("ping -c 1 -W 1 -I 192.168.127.99 192.168.127.1");
        let of_arp = grows("antispoof", before);
        let bridge = read_json("ip -j link show vbr0")[0]["address"].take();
        let bridge = bridge.as_str().expect("an address").to_owned();
        guest.space.run(&format!("ip neigh replace 192.168.127.1 lladdr {bridge} dev eth0"));
        guest.space.run_any("ping -c 1 -W 1 -I 192.168.127.99 192.168.127.1");
        grows("antispoof", of_arp);

        assert_eq!((dropped("policy"), dropped("send_limit")), (0.0, 0.0));
        guest.space.run_any("ping -q -c 100 -i 0.002 -W 1 192.168.127.1");
        grows("send_limit", 0.0);
        eventually("the same is told to who asks for the usage", || {
            let usage = daemon.call("Usage", json!({}))["parameters"]["vms"][0].take();
            usage["spoofed"].as_f64() == Some(dropped("antispoof"))
                && usage["overrun"].as_f64() == Some(dropped("send_limit"))
        });
    });
}

/// More than a guest may receive is dropped by the kernel's queue at its tap.
#[test]
fn what_a_limit_holds_back_is_what_the_kernel_says() {
    in_namespace(|| {
        let daemon = daemon();
        let limited = json!({ "network": { "limits": { "rx_mbit": 1, "pps": 20 } } });
        let vm = daemon.create(json!({ "name": "web", "config": limited }));
        let guest = Guest::of(&vm);
        // Without sending anything, which it may not do so often.
        let to = (vm["ip"].as_str().expect("an address"), 9);
        let out = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let queue = || {
            let all = read_json("tc -s -j qdisc show dev vttap-web");
            let all = all.as_array().expect("queues").iter();
            all.filter(|it| it["kind"] == "tbf")
                .map(|it| it["drops"].as_u64().expect("drops"))
                .sum()
        };
        assert_eq!(queue(), 0);
        eventually("the queue is full", || {
            for _ in 0..200 {
                // What the socket has no room for is lost, too, but is not the limit's.
                let _ = out.send_to(&[0; 1400], to);
            }
            queue() > 100
        });
        guest.space.run_any("ping -q -c 100 -i 0.002 -W 1 192.168.127.1");
        let over = || {
            let set = read_json("nft -j list set bridge volnet overrun");
            set["nftables"][1]["set"]["elem"][0]["elem"]["counter"]["packets"].as_u64()
        };
        eventually("metrics and Usage say what tc and nft say", || {
            let (text, usage) = (scrape("*/*"), daemon.call("Usage", json!({})));
            let usage = &usage["parameters"]["vms"][0];
            let is = |reason: &str, field: &str, theirs: Option<u64>| {
                let labels = format!("vm=\"web\",nic=\"0\",reason=\"{reason}\"");
                let ours = value(&text, &format!("volnet_vm_dropped_packets_total{{{labels}}}"));
                theirs > Some(0)
                    && ours == theirs.map(|it| it as f64)
                    && usage[field].as_u64() == theirs
            };
            is("receive_limit", "limited", Some(queue())) && is("send_limit", "overrun", over())
        });
    });
}

/// Opens a tap and reads nothing.
const HOLDER: &str = r#"
import fcntl, struct, sys
tap = open('/dev/net/tun', 'r+b', buffering=0)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x5002))
sys.stdin.read()
"#;

/// A child that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn promtool_is_content_and_prometheus_reads_every_sample() {
    in_namespace(|| {
        let daemon = daemon();
        for name in ["web", "db"] {
            daemon.create(json!({"name": name}));
        }
        let mut checked = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool (make deps)");
        let text = scrape("*/*");
        checked.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
        let checked = checked.wait_with_output().expect("it ends");
        let words = [&checked.stdout[..], &checked.stderr[..]].concat();
        assert_eq!(String::from_utf8_lossy(&words), "");
        assert!(checked.status.success());

        let prometheus = prometheus(&daemon.folder);
        let query = |query: &str| -> Vec<(Value, String)> {
            let answer = asked("127.0.0.1:9090", &format!("/api/v1/query?query={query}"));
            let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
            let of = |result: &Value| {
                let value = result["value"][1].as_str().unwrap_or_default().to_owned();
                (result["metric"].clone(), value)
            };
            results.iter().map(of).collect()
        };
        eventually("Prometheus has scraped", || query("up").iter().any(|(_, up)| up == "1"));
        let samples = text.lines().filter(|line| !line.starts_with('#')).count();
        let scraped = query("scrape_samples_scraped");
        let scraped: usize = scraped[0].1.parse().expect("a number");
        // By now there may be a method more.
        assert!((samples..samples + 20).contains(&scraped), "{samples} {scraped}");
        let of_vm = query("volnet_vm_status");
        let mut names: Vec<&str> = of_vm.iter().filter_map(|(it, _)| it["vm"].as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["db", "web"]);
        drop(prometheus);
    });
}

/// Prometheus, which scrapes the daemon every second, as OpenMetrics.
fn prometheus(folder: &Path) -> Ended {
    let configuration = folder.join("prometheus.yml");
    let text = format!(
        "scrape_configs:\n- job_name: volnet\n  scrape_interval: 1s\n  static_configs:\n  \
         - targets: [\"{AT}\"]\n"
    );
    fs::write(&configuration, text).expect("a file");
    let log = fs::File::create(folder.join("prometheus.log")).expect("a log");
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", configuration.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
        .arg("--web.listen-address=127.0.0.1:9090")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("prometheus (make deps)");
    Ended(child)
}

/// JSON by HTTP; null while nobody listens.
fn asked(at: &str, path: &str) -> Value {
    let Ok(mut stream) = TcpStream::connect(at) else { return Value::Null };
    let request = format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).unwrap_or(Value::Null)
}

#[test]
fn only_get_of_one_path_is_answered() {
    in_namespace(|| {
        let _daemon = daemon();
        for (request, status) in [
            ("POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "405"),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", "405"),
            ("GET /../etc/passwd HTTP/1.1\r\n\r\n", "404"),
            ("GET /metrics HTTP/3\r\n\r\n", "505"),
            ("hello\r\n\r\n", "400"),
            ("\r\n\r\n", "400"),
        ] {
            let answer = answer(connect(), request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?} {answer:?}");
            assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        }
        // A head without an end.
        let long = format!("GET /metrics HTTP/1.1\r\nA: {}", "a".repeat(100_000));
        let mut stream = connect();
        let _ = stream.write_all(long.as_bytes());
        let mut answered = String::new();
        let _ = stream.read_to_string(&mut answered);
        assert!(answered.starts_with("HTTP/1.1 431 "), "{answered:?}");
        // One who ends its side has its answer all the same, and HTTP/1.0 has it without chunks.
        let mut stream = connect();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it reads");
        stream.shutdown(Shutdown::Write).expect("its end");
        let mut answered = String::new();
        stream.read_to_string(&mut answered).expect("an answer");
        assert!(answered.contains("\r\n\r\n# HELP volnet_build_info "), "{answered}");
    });
}

#[test]
fn who_asks_badly_keeps_neither_scrapers_nor_clients_waiting() {
    in_namespace(|| {
        let mut daemon = daemon();
        for vm in 0..MANY {
            let name = format!("vm-with-a-rather-long-name-{vm}");
            daemon.create(json!({"name": name, "config": {"network": {"mode": "vsock"}}}));
        }
        let expected = scrape("*/*").lines().count();
        // Some never end their request, some never read their answer.
        let mut silent: Vec<TcpStream> = (0..100).map(|_| connect()).collect();
        for stream in &mut silent {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nA: ");
        }
        let deaf: Vec<TcpStream> = (0..40)
            .map(|_| {
                let mut stream = connect();
                stream.write_all(get("*/*").as_bytes()).expect("it reads");
                stream
            })
            .collect();
        for _ in 0..5 {
            let lines = scrape("*/*").lines().count();
            assert!(lines.abs_diff(expected) < 30, "{lines} {expected}");
            assert!(daemon.call("Version", json!({}))["error"].is_null());
        }
        // There are not more connections than there may be.
        let sockets = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs").count();
        assert!(sockets < 60, "{sockets}");
        drop((silent, deaf));
        // The daemon does not turn in circles over what they left.
        eventually("the daemon rests", || {
            let before = ticks(daemon.pid());
            std::thread::park_timeout(Duration::from_millis(300));
            ticks(daemon.pid()) == before
        });
        daemon.stop();
        assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    });
}

#[test]
fn who_stays_after_the_answer_keeps_nobody_out() {
    in_namespace(|| {
        let _daemon = daemon();
        let mut staying = Vec::new();
        // Twice as many as there may be.
        for _ in 0..32 {
            let mut stream = connect();
            let answer = answer(&mut stream, &get(ACCEPT));
            assert!(body(&answer).ends_with("# EOF\n"));
            staying.push(stream);
        }
    });
}

/// The processor time of a process.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name")..].split(' ').collect();
    fields[12..14].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[test]
fn a_unix_socket_is_for_the_group_alone_and_ends_with_the_daemon() {
    in_namespace(|| {
        let folder = tempfile("socket");
        let path = folder.join("metrics.sock");
        let mut daemon = Daemon::configured(&json!({ "metrics": path }));
        let stream = UnixStream::connect(&path).expect("it listens");
        assert!(body(&answer(stream, &get(ACCEPT))).ends_with("# EOF\n"));
        let mode = fs::metadata(&path).expect("a socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        daemon.stop();
        assert!(!path.exists());
        fs::remove_dir_all(folder).expect("it is ours");
    });
}

fn tempfile(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("volnet-metrics-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

#[test]
fn an_address_that_somebody_else_has_keeps_no_vm_from_its_network() {
    in_namespace(|| {
        run("ip link set lo up");
        let _other = TcpListener::bind(AT).expect("it is free");
        let daemon = Daemon::configured(&json!({ "metrics": AT }));
        daemon.create(json!({"name": "web"}));
        let check = volnet(&daemon, "check");
        assert!(check.contains("metrics are not served"), "{check}");
        assert!(daemon.log().contains("metrics are not served"), "{}", daemon.log());
    });
}

#[test]
fn usage_is_read_at_most_once_a_second() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        daemon.create(json!({ "name": "web" }));
        let at =
            || daemon.call("Usage", json!({}))["parameters"]["at_ms"].as_u64().expect("a time");
        let mut last = at();
        let mut changes = 0;
        eventually("it is read anew", || {
            let now = at();
            assert!(now == last || now >= last + 1000, "{last} {now}");
            changes += u32::from(now != std::mem::replace(&mut last, now));
            changes == 2
        });
    });
}
