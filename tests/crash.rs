//! kill -9 of the daemon at random moments of creates, deletes, starts, stops, and of its own
//! recovery. After each, the next daemon is started. Then `List`, the kernel, the process table and
//! the files must agree, and all replies before the kill must be true.
//!
//! Every client has its own VMs and sends several requests at once. The daemon handles the requests
//! of a connection one after the other. So each unanswered request may have been done, in part or
//! not at all, but only in this order: [`Names`] keeps the possible states of a VM.
//!
//! `VOLNET_CRASHES` is the number of kills, and `VOLNET_SEED` is the seed. The clock decides when
//! the daemon dies within a request, so a seed repeats the requests, but not the moments.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use common::agreement::Agreement;
use common::daemon::{Connection, Daemon};
use common::in_namespace;

/// The default number of crashes.
const CRASHES: usize = 300;
/// Clients at a time.
const CLIENTS: usize = 3;
/// VMs of each; [`config`] says what they are.
const VMS_EACH: usize = 4;
/// The most requests that a client sends before a crash.
const REQUESTS_MAX: u64 = 5;
/// The longest time from the requests to the crash, in microseconds: what they take here.
const LIFE_MAX_US: u64 = 60_000;
/// One time in this many, the next daemon is killed, too, while it recovers.
const KILLED_AGAIN: u64 = 3;
/// How long it then has, in microseconds.
const TAKE_OVER_MAX_US: u64 = 20_000;
/// Every so often the daemon lives until those are answered who wait for a start.
const LONG_LIFE_EVERY: usize = 20;
/// How long that takes, and a little, in microseconds.
const LONG_LIFE_US: u64 = 1_200_000;

/// A possible state of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Absent,
    Idle,
    Running,
}

/// A request for a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Create,
    CreateAndStart,
    Start,
    Stop,
    Restart,
    Delete,
}

/// The possible states of each VM.
type Names = BTreeMap<String, Known>;

/// The knowledge about a VM.
#[derive(Debug)]
struct Known {
    /// Its possible states.
    fates: BTreeSet<Fate>,
    /// Its process was told to end by somebody who was not answered, or ends on its own.
    may_end: bool,
}

/// xorshift64* (Marsaglia, "Xorshift RNGs"; Vigna's multiplier).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

impl Verb {
    fn drawn(random: &mut Random) -> Verb {
        use Verb::{Create, CreateAndStart, Delete, Restart, Start, Stop};
        let verbs = [CreateAndStart, CreateAndStart, Create, Start, Start, Stop, Restart, Delete];
        verbs[random.below(verbs.len() as u64) as usize]
    }

    fn request(self, name: &str) -> String {
        let (method, parameters) = match self {
            Verb::Create => ("Create", json!({ "name": name, "config": config(name) })),
            Verb::CreateAndStart => {
                ("Create", json!({ "name": name, "config": config(name), "start": true }))
            }
            Verb::Start => ("Start", json!({ "name": name })),
            Verb::Stop => ("Stop", json!({ "name": name, "timeout_ms": 400 })),
            Verb::Restart => ("Restart", json!({ "name": name, "timeout_ms": 400 })),
            Verb::Delete => ("Delete", json!({ "name": name, "timeout_ms": 400 })),
        };
        format!(
            "{}\n",
            json!({ "method": format!("io.volnet.{method}"), "parameters": parameters })
        )
    }

    /// What a VM is after this was done to it, and whether that is answered with yes.
    fn done_to(self, fate: Fate) -> (Fate, bool) {
        use Fate::{Absent, Idle, Running};
        match (self, fate) {
            (Verb::Create, Absent) => (Idle, true),
            (Verb::Create, fate) => (fate, true),
            (Verb::CreateAndStart, _) => (Running, true),
            (Verb::Start, Idle) | (Verb::Restart, Idle | Running) => (Running, true),
            (Verb::Stop, Running) => (Idle, true),
            (Verb::Delete, Idle | Running) => (Absent, true),
            (Verb::Start | Verb::Stop | Verb::Restart | Verb::Delete, fate) => (fate, false),
        }
    }

    /// What a VM may be while this is done to it, besides what it was and will be.
    fn on_the_way(self, fate: Fate) -> Option<Fate> {
        match (self, fate) {
            (Verb::CreateAndStart, Fate::Absent) => Some(Fate::Absent),
            (Verb::Restart | Verb::Delete, Fate::Running) => Some(Fate::Idle),
            _ => None,
        }
    }
}

/// What a VM is, by the number at the end of its name: each mode, one NIC and several, and each
/// kind of process.
fn config(name: &str) -> Value {
    let mut config = match name.as_bytes()[name.len() - 1] {
        b'0' => json!({ "hypervisor": "plain", "networks": [{}, { "mode": "dhcp" }, {}] }),
        b'1' => json!({ "hypervisor": "slow", "ephemeral": true, "network": { "mode": "dhcp" } }),
        b'2' => json!({ "hypervisor": "plain", "network": { "mode": "vsock" } }),
        _ => json!({ "hypervisor": "fails", "restart": "on-failure" }),
    };
    config["kernel_override"] = "/etc/hostname".into();
    // Each start writes a disk for it, which is in the VM's folder.
    config["cloud_init"] = json!({});
    config
}

/// Whether a VM's process ends by itself, and is started again.
fn ends_by_itself(name: &str) -> bool {
    name.ends_with('3')
}

fn configuration() -> Value {
    let shell = |script: &str| json!({ "program": "sh", "args": [["-c", script]] });
    json!({ "hypervisor_user": "65534", "hypervisors": {
        "plain": { "program": "sleep", "args": [["100000"]] },
        "slow": shell("trap 'sleep 0.05; exit 0' TERM; while :; do sleep 0.02; done"),
        "fails": shell("sleep 1.5; exit 3"),
    } })
}

/// What a client sent, and what it was answered.
struct Client {
    connection: Connection,
    sent: Vec<(String, Verb)>,
}

impl Client {
    fn send(daemon: &Daemon, number: usize, random: &mut Random) -> Client {
        let mut connection = daemon.connect();
        let sent: Vec<(String, Verb)> = (0..=random.below(REQUESTS_MAX))
            .map(|_| {
                let vm = random.below(VMS_EACH as u64);
                (format!("client{number}-{vm}"), Verb::drawn(random))
            })
            .collect();
        let bytes: String = sent.iter().map(|(name, verb)| verb.request(name)).collect();
        connection.send(bytes.as_bytes());
        Client { connection, sent }
    }

    /// Takes over what came before the daemon died: what was answered holds, the rest may.
    fn settle(mut self, names: &mut Names) {
        for (name, verb) in std::mem::take(&mut self.sent) {
            let known = names.get_mut(&name).expect("every VM is known");
            match self.connection.try_receive() {
                Some(answer) => known.was_answered(verb, answer["error"].is_null(), &name),
                None => known.was_not_answered(verb),
            }
        }
    }
}

impl Known {
    fn new(name: &str) -> Known {
        Known { fates: BTreeSet::from([Fate::Absent]), may_end: ends_by_itself(name) }
    }

    fn was_answered(&mut self, verb: Verb, said: bool, name: &str) {
        let outcomes = self.fates.iter().map(|&fate| verb.done_to(fate));
        let after: BTreeSet<Fate> =
            outcomes.filter(|&(_, yes)| yes == said).map(|(after, _)| after).collect();
        assert!(!after.is_empty(), "{verb:?} of {name}, which may be {self:?}: {said}");
        self.fates = after;
        let renewed = matches!(verb, Verb::Start | Verb::Stop | Verb::Restart | Verb::Delete);
        if said && renewed {
            self.may_end = ends_by_itself(name);
        }
        self.admit_end();
    }

    fn was_not_answered(&mut self, verb: Verb) {
        let also = |fate| [Some(verb.done_to(fate).0), verb.on_the_way(fate)];
        let more: Vec<Fate> = self.fates.iter().copied().flat_map(also).flatten().collect();
        self.fates.extend(more);
        self.may_end |= matches!(verb, Verb::Stop | Verb::Restart | Verb::Delete);
        self.admit_end();
    }

    fn admit_end(&mut self) {
        if self.may_end && self.fates.contains(&Fate::Running) {
            self.fates.insert(Fate::Idle);
        }
    }

    /// What is there has to be what may be; from then on it is what is known.
    fn compare(&mut self, name: &str, vms: &[Value]) {
        let vm = vms.iter().find(|vm| vm["name"] == name);
        let fate = match vm {
            None => Fate::Absent,
            Some(vm) if vm["status"] == "running" => Fate::Running,
            Some(_) => Fate::Idle,
        };
        assert!(self.fates.contains(&fate), "{name} may be {self:?} and is {vm:#?}");
        self.fates = match fate {
            // It is started again.
            Fate::Idle if ends_by_itself(name) => BTreeSet::from([fate, Fate::Running]),
            Fate::Absent | Fate::Idle | Fate::Running => BTreeSet::from([fate]),
        };
        self.admit_end();
    }
}

fn pause(microseconds: u64) {
    std::thread::park_timeout(Duration::from_micros(microseconds));
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn nothing_is_lost_and_nothing_left_whenever_the_daemon_is_killed() {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    let seed = from_environment("VOLNET_SEED").unwrap_or(clock.as_nanos() as u64) | 1;
    let crashes = from_environment("VOLNET_CRASHES").map_or(CRASHES, |count| count as usize);
    println!("VOLNET_SEED={seed} VOLNET_CRASHES={crashes}");
    let mut random = Random(seed);
    let mut names: Names = (0..CLIENTS)
        .flat_map(|client| (0..VMS_EACH).map(move |vm| format!("client{client}-{vm}")))
        .map(|name| (name.clone(), Known::new(&name)))
        .collect();
    in_namespace(|| {
        let mut daemon = Daemon::configured(&configuration());
        let agreement = Agreement::with(&daemon);
        for round in 1..=crashes {
            let clients: Vec<Client> =
                (0..CLIENTS).map(|number| Client::send(&daemon, number, &mut random)).collect();
            pause(match round % LONG_LIFE_EVERY {
                0 => LONG_LIFE_US,
                _ => random.below(LIFE_MAX_US),
            });
            daemon.crash();
            clients.into_iter().for_each(|client| client.settle(&mut names));
            if random.below(KILLED_AGAIN) == 0 {
                daemon.spawn();
                pause(random.below(TAKE_OVER_MAX_US));
                daemon.crash();
            }
            daemon.start_again();
            let vms = agreement.check(&daemon);
            names.iter_mut().for_each(|(name, known)| known.compare(name, &vms));
        }
        let answer = daemon.call("Teardown", json!({ "force": true }));
        assert!(answer["error"].is_null(), "{answer}");
    });
}
