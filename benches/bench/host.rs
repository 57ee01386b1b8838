//! What the daemon as a whole costs: memory, wake-ups, restarts, long lists, bursts, system calls.

use std::fs;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::client::{self, Client, assert_good, message};
use crate::contender::Contender;
use crate::daemon::{BINARY, Daemon};
use crate::record::Record;
use crate::traffic::{self, BRIDGE, Guest, Place, bytes_of};
use crate::{BURST, IP};

/// How long the kernel has late news of links: it looks at carriers once a second.
const SETTLED: Duration = Duration::from_secs(2);
/// How often the daemon is restarted.
const RESTARTS: usize = 7;
/// How many requests of a kind are made that change nothing.
const ROUND_TRIPS: usize = 200;
/// How many VMs come and go while others are watched.
const OTHERS: usize = 500;
/// How often a guest sends a packet meanwhile.
const PING_INTERVAL: Duration = Duration::from_millis(10);

/// The size of the file.
pub(crate) fn file_size(record: &mut Record) {
    let size = fs::metadata(BINARY).unwrap_or_else(|error| panic!("{BINARY}: {error}")).len();
    record.value("size of the binary", "volnet", None, size as f64, "bytes");
}

/// Memory, as the kernel counts it: resident, its proportional share, and what is the process's
/// own.
pub(crate) fn memory(daemon: &Daemon, what: &str, vms: usize, record: &mut Record) {
    let rollup = |field| daemon.proc("smaps_rollup", field) as f64;
    for (kind, kib) in [
        ("VmRSS", daemon.proc("status", "VmRSS") as f64),
        ("Pss", rollup("Pss")),
        ("anonymous", rollup("Pss_Anon")),
    ] {
        record.value(&format!("memory, {what}"), kind, Some(vms), kib, "KiB");
    }
}

/// How often it wakes up when nobody asks anything, and the kernel has told all that it had to.
pub(crate) fn wakeups(daemon: &Daemon, idle: Duration, vms: usize, record: &mut Record) {
    let count = || daemon.proc("status", "voluntary_ctxt_switches");
    std::thread::sleep(SETTLED);
    let before = count();
    std::thread::sleep(idle);
    let what = format!("wake-ups in {} s idle", idle.as_secs());
    record.value(&what, "volnet", Some(vms), (count() - before) as f64, "count");
}

/// From the start of the process to its first answer. It answers once it has reconciled.
pub(crate) fn restarts(daemon: &mut Daemon, vms: usize, record: &mut Record) {
    let times: Vec<Duration> = (0..RESTARTS).map(|_| daemon.restart()).collect();
    record.times("restart to first answer, all reconciled", daemon.name(), vms, &times);
    let reply = daemon.call(&message("List", json!({})));
    let reply: Value = serde_json::from_str(&reply).expect("JSON");
    let found = reply["parameters"]["vms"].as_array().map(Vec::len);
    assert_eq!(found, Some(vms), "VMs after a restart");
}

/// The way to the daemon and back, with nearly nothing and with a list of all VMs.
pub(crate) fn round_trips(daemon: &mut Daemon, vms: usize, record: &mut Record) {
    let mut client = Client::connect(&daemon.socket()).expect("a connection");
    for method in ["Version", "List"] {
        let request = message(method, json!({}));
        let times: Vec<Duration> = (0..ROUND_TRIPS).map(|_| client.timed(&request)).collect();
        record.times(method, daemon.name(), vms, &times);
    }
}

/// Creates at once, each on a connection of its own, of VMs that stay.
pub(crate) fn burst(daemon: &mut Daemon, vms: usize, record: &mut Record) {
    let requests = daemon.creates(vms + BURST);
    let connect = |_: &Vec<u8>| Client::connect(&daemon.socket()).expect("a connection");
    let mut clients: Vec<Client> = requests.iter().map(connect).collect();
    let start = Instant::now();
    for (client, request) in clients.iter_mut().zip(&requests) {
        client.send(request);
    }
    let replies: Vec<String> = clients.iter_mut().map(Client::receive).collect();
    let took = start.elapsed();
    replies.iter().for_each(|reply| assert_good(reply));
    let what = format!("burst of {BURST} clients, all attached");
    record.times(&what, daemon.name(), vms, &[took]);
}

/// Deletes all VMs that stayed, some in each write.
pub(crate) fn delete_all(daemon: &mut Daemon, vms: usize, record: &mut Record) {
    let delete = |number| client::delete(&format!("vm{number}"));
    let requests: Vec<Vec<u8>> = (0..vms).map(delete).collect();
    let times: Vec<Duration> = requests.chunks(BURST).map(|some| daemon.pipelined(some)).collect();
    record.times(&format!("detach, {BURST} pipelined, each"), daemon.name(), vms, &times);
}

/// The system calls of one create among many, one at a time, counted by strace.
pub(crate) fn system_calls(daemon: &mut Daemon, record: &mut Record) {
    const CREATES: usize = 20;
    let (pid, output) = (daemon.pid().to_string(), "/run/strace");
    let mut strace = Command::new("strace")
        .args(["-qq", "-c", "-f", "-o", output, "-p", &pid])
        .spawn()
        .expect("strace");
    while daemon.proc("status", "TracerPid") == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    for number in 0..CREATES {
        daemon.attach(&format!("traced{number}"));
    }
    kill(Pid::from_raw(strace.id() as i32), Signal::SIGINT).expect("to end strace");
    let _ = strace.wait().expect("its end");
    for number in 0..CREATES {
        daemon.detach(&format!("traced{number}"));
    }
    // % time, seconds, usecs/call, calls, errors if any, name
    let table = fs::read_to_string(output).expect("what strace counted");
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(calls), Some(name)) = (words.get(3), words.last()) else { continue };
        if let Ok(calls) = calls.parse::<f64>() {
            let what = format!("system calls of a create: {name}");
            record.value(&what, daemon.name(), None, calls / CREATES as f64, "calls");
        }
    }
}

/// What others feel of a hundred hypervisors that start at once, each asked for by a client of its
/// own. They are stand-ins: beside the work of volnet, each start is a program of Python.
pub(crate) fn starts(daemon: &Daemon, record: &mut Record) {
    let config = json!({
        "ephemeral": true,
        "hypervisor": "cloud-hypervisor",
        "kernel_override": "/proc/self/exe",
        "resources": { "memory_mb": 64 }
    });
    let name = |number: usize| format!("start{number}");
    let of = |number| json!({ "name": name(number), "config": config, "start": true });
    let connect = || Client::connect(&daemon.socket()).expect("a connection");
    let mut starters: Vec<Client> = (0..BURST).map(|_| connect()).collect();
    let (mut other, mut times) = (connect(), Vec::new());
    let begin = Instant::now();
    for (number, starter) in starters.iter_mut().enumerate() {
        starter.send(&message("Create", of(number)));
    }
    let started = std::thread::spawn(move || {
        starters.iter_mut().for_each(|starter| assert_good(&starter.receive()));
    });
    while !started.is_finished() {
        times.push(other.timed(&message("List", json!({}))));
    }
    started.join().expect("answers");
    let each = begin.elapsed() / BURST as u32;
    record.times(&format!("start, {BURST} at once, each"), daemon.name(), BURST, &[each]);
    let longest = times.iter().max().copied().unwrap_or_default();
    let what = format!("list while {BURST} VMs start");
    record.times(&what, daemon.name(), BURST, &times);
    record.times(&format!("{what}: longest"), daemon.name(), BURST, &[longest]);
    for number in 0..BURST {
        other.call(&message("Delete", json!({ "name": name(number), "timeout_ms": 0 })));
    }
}

/// What a guest and whoever attaches feel of others that come and go, many at once.
pub(crate) fn disturbance(daemon: &mut Daemon, record: &mut Record) {
    let mut guest = guest(daemon, "guest", IP);
    let (mut sent, mut times) = (0, Vec::new());
    let others = Others::new(daemon, "first").start(true);
    while !others.is_finished() {
        sent += 1;
        times.extend(guest.echo(1, sent));
        std::thread::sleep(PING_INTERVAL);
    }
    let what = format!("packet while {OTHERS} VMs come and go");
    record.times(&what, "volnet", 1, &times);
    let lost = usize::from(sent) - times.len();
    record.value(&format!("{what}: lost"), "volnet", Some(1), lost as f64, "count");

    let (mut number, mut times) = (0, Vec::new());
    let others = Others::new(daemon, "second").start(false);
    while !others.is_finished() {
        number += 1;
        times.push(daemon.attach(&format!("meanwhile{number}")));
    }
    record.times(&format!("attach while {OTHERS} VMs go"), daemon.name(), 1, &times);
}

/// VMs that come and go on a connection of their own.
struct Others {
    client: Client,
    creates: Vec<Vec<u8>>,
    deletes: Vec<Vec<u8>>,
}

impl Others {
    fn new(daemon: &Daemon, name: &str) -> Others {
        let client = Client::connect(&daemon.socket()).expect("a connection");
        let names: Vec<String> = (0..OTHERS).map(|number| format!("{name}{number}")).collect();
        let creates = names.iter().map(|name| client::create(name, true)).collect();
        let deletes = names.iter().map(|name| client::delete(name)).collect();
        Others { client, creates, deletes }
    }

    /// Creates all and deletes all; what is watched is all of it, or only the deletes.
    fn start(mut self, watch_all: bool) -> JoinHandle<()> {
        let run = |client: &mut Client, all: &[Vec<u8>]| {
            for some in all.chunks(BURST) {
                client.pipelined(some);
            }
        };
        if !watch_all {
            run(&mut self.client, &std::mem::take(&mut self.creates));
        }
        std::thread::spawn(move || {
            run(&mut self.client, &self.creates);
            run(&mut self.client, &self.deletes);
        })
    }
}

/// Plays the guest of a new VM, with one of its addresses: that of a field of the reply, or the
/// one that it believes in.
pub(crate) fn guest(daemon: &mut Daemon, name: &str, address: &str) -> Guest {
    let reply = daemon.call(&client::create(name, true));
    let reply: Value = serde_json::from_str(&reply).expect("JSON");
    let vm = &reply["parameters"]["vm"];
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let ip = |value: &Value| text(value).parse().expect("an address");
    let mac = |value: &Value| bytes_of(&text(value));
    daemon.stage.enter();
    traffic::set_neighbour(BRIDGE, mac(&vm["mac"]), ip(&vm[address]));
    let place = match &vm["inner"] {
        Value::Null => {
            Place { mac: mac(&vm["mac"]), ip: ip(&vm[address]), gateway: traffic::bridge() }
        }
        inner => Place {
            mac: mac(&inner["mac"]),
            ip: ip(&inner["ip"]),
            gateway: mac(&inner["gateway_mac"]),
        },
    };
    Guest::new(&text(&vm["tap"]), &place)
}
