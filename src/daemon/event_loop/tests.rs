//! The loop with the kernel's poll: sources that become ready in one batch, in every order.
//!
//! Connections are pairs of sockets. So is the pidfd of a process: its other end is closed when the
//! process ends. Kernel, disk and processes behind the shell are in memory.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::Events;
use serde_json::Value;

use super::{EventLoop, Source};
use crate::config::{self, Flags};
use crate::daemon::client::PART;
use crate::daemon::launch::Launcher;
use crate::daemon::shell::Shell;
use crate::daemon::sources::Key;
use crate::engine::decide::Engine;
use crate::hypervisor::fake::FakeProcesses;
use crate::hypervisor::log::Logs;
use crate::hypervisor::process::{Given, Processes, Streams};
use crate::hypervisor::{Control, HypervisorCommand};
use crate::model::error::Failure;
use crate::model::name::VmName;
use crate::model::record::{Exit, Heard, Order, ProcessId, Progress};
use crate::model::spec::Owner;
use crate::network::fake::Fake;
use crate::store::memory::Memory;
use crate::store::{Paths, Store};

const SETTINGS: &str = r#"{
    "networks": [{"name": "default", "bridge": "vbr0", "subnet": "10.1.0.0/24"}],
    "hypervisor": "qemu",
    "hypervisors": {"qemu": {"program": "/bin/sh"}},
    "kernel_vmlinux": "/bin/sh",
    "kvm": false
}"#;
/// A key that no source has.
const NOBODY: Key = 0;
/// The most rounds of the loop until every caller is answered.
const ROUNDS_MAX: usize = 200;

/// Processes in memory, with descriptors that the kernel can wait for.
#[derive(Debug, Default)]
struct Watchable {
    processes: FakeProcesses,
    /// The descriptor of each process, and its other end while the process runs.
    pidfds: BTreeMap<VmName, (OwnedFd, Option<UnixStream>)>,
    /// How many of the next descriptors cannot be polled.
    unwatchable: usize,
}

/// Shared by the loop and the test.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Watchable>>);

impl Shared {
    /// Acts on processes, and closes the descriptors of those that have ended.
    fn with<T>(&self, run: impl FnOnce(&mut FakeProcesses) -> T) -> T {
        let mut this = self.0.borrow_mut();
        let result = run(&mut this.processes);
        for name in this.processes.ended() {
            this.pidfds.get_mut(&name).expect("it was started").1 = None;
        }
        result
    }
}

impl Processes for Shared {
    fn open_streams(
        &mut self,
        name: &VmName,
        logs: &Logs,
        terminal: bool,
    ) -> Result<Streams, Failure> {
        self.with(|processes| processes.open_streams(name, logs, terminal))
    }

    fn spawn(
        &mut self,
        name: &VmName,
        command: &HypervisorCommand,
        given: Given,
    ) -> Result<ProcessId, Failure> {
        let mut this = self.0.borrow_mut();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let pidfd = match this.unwatchable.checked_sub(1) {
            None => (ours.into(), Some(theirs)),
            Some(left) => {
                this.unwatchable = left;
                // epoll_ctl(2): EPERM, a file does not support epoll.
                (File::open("/proc/self/exe").unwrap().into(), None)
            }
        };
        this.pidfds.insert(name.clone(), pidfd);
        this.processes.spawn(name, command, given)
    }

    fn adopt(&mut self, name: &VmName, id: &ProcessId) -> Result<bool, Failure> {
        self.with(|processes| processes.adopt(name, id))
    }

    fn find_all(&mut self, users: &BTreeMap<VmName, u32>) -> BTreeMap<VmName, ProcessId> {
        self.with(|processes| processes.find_all(users))
    }

    fn ask(&mut self, name: &VmName, control: &Control, order: Order) -> Result<(), Failure> {
        self.with(|processes| processes.ask(name, control, order))
    }

    fn hang_up(&mut self, name: &VmName) {
        self.with(|processes| processes.hang_up(name))
    }

    fn hear(&mut self, name: &VmName) -> Heard {
        self.with(|processes| processes.hear(name))
    }

    fn events(&self, _: &VmName) -> Option<RawFd> {
        None
    }

    fn progress(&mut self, name: &VmName, control: &Control) -> Progress {
        self.with(|processes| processes.progress(name, control))
    }

    fn terminate(&mut self, name: &VmName) -> Result<(), Failure> {
        self.with(|processes| processes.terminate(name))
    }

    fn kill(&mut self, name: &VmName) -> Result<(), Failure> {
        self.with(|processes| processes.kill(name))
    }

    fn kill_and_reap(&mut self, name: &VmName) -> Result<(), Failure> {
        self.with(|processes| processes.kill(name))?;
        self.reap(name);
        Ok(())
    }

    fn lend_folder(&mut self, name: &VmName, owner: Option<Owner>) -> Result<(), Failure> {
        self.with(|processes| processes.lend_folder(name, owner))
    }

    fn clean(&mut self, name: &VmName) {
        self.with(|processes| processes.clean(name));
    }

    fn sweep(&mut self) {
        self.with(FakeProcesses::sweep);
    }

    fn remove_part(&mut self, part: &Path) {
        self.with(|processes| processes.remove_part(part));
    }

    fn leave(&mut self) {
        self.with(FakeProcesses::leave);
    }

    fn remove_logs(&mut self, name: &VmName, logs: &Logs) {
        self.with(|processes| processes.remove_logs(name, logs));
    }

    fn reap(&mut self, name: &VmName) -> Option<Exit> {
        let exit = self.with(|processes| processes.reap(name))?;
        self.0.borrow_mut().pidfds.remove(name);
        Some(exit)
    }

    fn pidfd(&self, name: &VmName) -> Option<RawFd> {
        self.0.borrow().pidfds.get(name).map(|(pidfd, _)| pidfd.as_raw_fd())
    }
}

/// How many hypervisors start at once.
const STARTS: usize = 4;

/// How long a turn may wait.
const TURN_MAX: Duration = Duration::from_secs(5);

/// A loop, and the other ends of its sources.
struct Stage {
    event_loop: EventLoop<Fake, Memory, Shared>,
    events: Events,
    processes: Shared,
    _signals: UnixStream,
}

/// The client's end of a connection.
struct Caller {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Stage {
    fn new() -> Stage {
        let settings =
            config::resolve(&Flags::default(), &BTreeMap::new(), Some(SETTINGS), "host").unwrap();
        let hypervisor = settings.machine.hypervisor.clone();
        let engine = Engine::new(settings.networks.clone(), hypervisor, true).unwrap();
        // However slow the machine is that runs the test.
        let engine = engine.with_starts_at_once(STARTS).with_place(u64::MAX);
        let store = Store::open(Memory::new("/run"), Paths::new("/state", "/run")).unwrap();
        let (processes, launcher) = (Shared::default(), Launcher::new(&settings, None));
        let shell = Shell::new(engine, Fake::new(), store, processes.clone(), launcher);
        let (signals, _signals) = UnixStream::pair().unwrap();
        signals.set_nonblocking(true).unwrap();
        let signals = mio::net::UnixStream::from_std(signals);
        let event_loop = EventLoop::new(shell, None, None, signals, Instant::now()).unwrap();
        Stage { event_loop, events: Events::with_capacity(256), processes, _signals }
    }

    fn connect(&mut self) -> Caller {
        let (stream, other) = UnixStream::pair().unwrap();
        other.set_nonblocking(true).unwrap();
        self.event_loop.admit(mio::net::UnixStream::from_std(other)).unwrap();
        stream.set_nonblocking(true).unwrap();
        let answers = BufReader::new(stream.try_clone().unwrap());
        Caller { stream, answers }
    }

    /// Runs the loop until this caller is answered.
    fn answer(&mut self, caller: &mut Caller) -> String {
        let mut line = String::new();
        for _ in 0..ROUNDS_MAX {
            if caller.answers.read_line(&mut line).is_ok() {
                return line;
            }
            self.round();
        }
        panic!("no answer");
    }

    /// One turn of the loop. Every ready source has its turn, and the turn does not wait for
    /// actions of the test, nor for what is due later than a test lasts.
    fn round(&mut self) {
        if self.event_loop.timeout().is_none_or(|timeout| timeout > TURN_MAX) {
            self.event_loop.come_back(NOBODY);
        }
        self.event_loop.round(&mut self.events).unwrap();
        self.event_loop.tell();
    }

    /// Sends a request on a new connection, and returns the answer.
    fn ask(&mut self, method: &str, parameters: &str) -> String {
        let mut caller = self.connect();
        caller.say(method, parameters);
        let answer = self.answer(&mut caller);
        assert!(!answer.contains("\"error\""), "{method}: {answer}");
        answer
    }

    /// How many sources wait for the end of this VM's process.
    fn watchers(&self, name: &str) -> usize {
        let of = |source: &Source| matches!(source, Source::Process(vm) if vm.as_str() == name);
        self.event_loop.sources.iter().filter(|(_, source)| of(source)).count()
    }
}

impl Caller {
    fn say(&mut self, method: &str, parameters: &str) {
        let call = format!("{{\"method\":\"io.volnet.{method}\",\"parameters\":{parameters}}}\n");
        self.stream.write_all(call.as_bytes()).unwrap();
    }
}

/// All orders of `count` things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let with_last = |order: Vec<usize>| {
        (0..count).map(move |at| {
            let mut order = order.clone();
            order.insert(at, count - 1);
            order
        })
    };
    orders(count - 1).into_iter().flat_map(with_last).collect()
}

fn created(stage: &mut Stage, name: &str, start: bool) {
    let config = r#"{"ephemeral": true, "kernel_override": "/bin/sh"}"#;
    stage.ask("Create", &format!(r#"{{"name": "{name}", "start": {start}, "config": {config}}}"#));
}

/// Two clients start VMs, two subscribers hang up, a process ends, and a client deletes a running
/// VM, all in one batch. Every caller is answered, and each process is watched by one source.
#[test]
fn whatever_becomes_ready_together_nothing_is_lost() {
    for order in orders(5) {
        let mut stage = Stage::new();
        for (name, start) in [("a", false), ("b", true), ("c", true)] {
            created(&mut stage, name, start);
        }
        let mut watchers = [stage.connect(), stage.connect()].map(Some);
        for watcher in watchers.iter_mut().flatten() {
            let call = r#"{"method": "io.volnet.Monitor", "more": true}"#;
            writeln!(watcher.stream, "{call}").unwrap();
            stage.answer(watcher);
        }
        let (mut starter, mut deleter) = (stage.connect(), stage.connect());
        // The event that a new connection is writable is not part of the batch.
        stage.round();
        for thing in &order {
            match thing {
                0 => starter.say("Start", r#"{"name": "a"}"#),
                1 => watchers[0] = None,
                2 => watchers[1] = None,
                3 => {
                    let name = VmName::new("b").unwrap();
                    stage.processes.with(|processes| processes.end(&name, Exit::Code(1)));
                }
                _ => deleter.say("Delete", r#"{"name": "c", "timeout_ms": 500}"#),
            }
        }
        stage.round();
        let seen = stage.events.iter().count();
        assert!(seen >= order.len(), "one batch: {seen} of {order:?}");
        for caller in [&mut starter, &mut deleter] {
            let answer = stage.answer(caller);
            assert!(!answer.contains("\"error\""), "{order:?}: {answer}");
        }
        let watched = ["a", "b", "c"].map(|name| stage.watchers(name));
        assert_eq!(watched, [1, 0, 0], "{order:?}");
        stage.ask("Delete", r#"{"name": "a", "timeout_ms": 500}"#);
        assert_eq!(stage.watchers("a"), 0);
    }
}

/// The kernel may refuse to watch a process. The daemon still notices its end, its caller is
/// answered, and no connection ends.
#[test]
fn a_process_that_cannot_be_watched_is_looked_at() {
    let mut stage = Stage::new();
    stage.processes.0.borrow_mut().unwatchable = 1;
    let mut caller = stage.connect();
    caller.say(
        "Create",
        r#"{"name": "a", "start": true,
            "config": {"ephemeral": true, "kernel_override": "/bin/sh"}}"#,
    );
    let answer = stage.answer(&mut caller);
    assert!(!answer.contains("\"error\""), "{answer}");
    assert_eq!(stage.watchers("a"), 0);
    caller.say("Delete", r#"{"name": "a", "timeout_ms": 500}"#);
    let answer = stage.answer(&mut caller);
    assert!(!answer.contains("\"error\""), "{answer}");
}

/// Many start VMs at once, and no guest gets as far as to run. Others are answered, no more than
/// the bound are on their way, all in their order, and a start that fails makes room.
#[test]
fn starts_wait_for_those_before_them_and_nobody_waits_for_them() {
    const CROWD: usize = 3 * STARTS;
    let mut stage = Stage::new();
    stage.processes.with(|processes| processes.hang(true));
    let mut callers: Vec<Caller> = (0..CROWD).map(|_| stage.connect()).collect();
    // Not in the order of their names.
    let name = |at: usize| format!("vm{}", CROWD - at);
    for (at, caller) in callers.iter_mut().enumerate() {
        let config = r#"{"ephemeral": true, "kernel_override": "/bin/sh"}"#;
        let name = name(at);
        caller
            .say("Create", &format!(r#"{{"name": "{name}", "start": true, "config": {config}}}"#));
        stage.round();
    }
    let living = |stage: &Stage| -> BTreeSet<String> {
        stage.processes.with(|it| it.living().map(|(name, _)| name.to_string()).collect())
    };
    for (first, caller) in callers.iter_mut().enumerate() {
        let there = (first..CROWD.min(first + STARTS)).map(name).collect();
        // On a slow machine a round does a part of them.
        let mut rounds = 0..ROUNDS_MAX;
        while living(&stage) != there && rounds.next().is_some() {
            stage.round();
        }
        for _ in 0..10 {
            assert_eq!(listed(&stage.ask("List", "{}")).len(), living(&stage).len());
            assert_eq!(living(&stage), there);
        }
        if first % 2 == 0 {
            let name = VmName::new(&name(first)).unwrap();
            stage.processes.with(|processes| processes.end(&name, Exit::Code(1)));
        } else {
            // By somebody who does not wait for a place.
            stage.ask("Delete", &format!(r#"{{"name": "{}", "timeout_ms": 0}}"#, name(first)));
        }
        let answer = stage.answer(caller);
        assert!(answer.contains("HypervisorFailed"), "{answer}");
    }
    assert_eq!(listed(&stage.ask("List", "{}")), [] as [&str; 0]);
    assert_eq!(stage.event_loop.timeout(), None, "nothing is left to do");
}

/// VMs of which a list is longer than a socket holds.
const MANY: usize = 1000;

/// Makes these, and returns their names in order.
fn many(stage: &mut Stage) -> Vec<String> {
    let names: Vec<String> = (0..MANY).map(|number| format!("v{number:04}")).collect();
    names.iter().for_each(|name| vsock(stage, name));
    names
}

fn vsock(stage: &mut Stage, name: &str) {
    let config = r#"{"ephemeral": true, "network": {"mode": "vsock"}}"#;
    stage.ask("Create", &format!(r#"{{"name": "{name}", "config": {config}}}"#));
}

/// The names in a reply with all VMs.
fn listed(reply: &str) -> Vec<String> {
    let reply: Value = serde_json::from_str(reply).unwrap();
    let vms = reply["parameters"]["vms"].as_array().expect("a list").iter();
    vms.map(|vm| vm["name"].as_str().unwrap().to_owned()).collect()
}

/// The event in a reply: its kind and its VM.
fn event(reply: &str) -> (String, String) {
    let reply: Value = serde_json::from_str(reply).unwrap();
    let text = |field: &str| reply["parameters"]["event"][field].as_str().unwrap_or("").to_owned();
    (text("kind"), text("vm"))
}

/// A client that does not read its list holds nobody up, and needs the memory of a part. The list
/// has each VM that was there all the time once.
#[test]
fn a_list_is_sent_in_parts_and_others_have_their_turns() {
    let mut stage = Stage::new();
    let mut names = many(&mut stage);
    let mut lister = stage.connect();
    lister.say("List", "{}");
    // A request of the same client waits until its list is whole.
    lister.say("Get", r#"{"name": "zz"}"#);
    for _ in 0..ROUNDS_MAX {
        stage.round();
    }
    vsock(&mut stage, "zz");
    stage.ask("Delete", r#"{"name": "v0000"}"#);
    let queued = stage.event_loop.sources.clients().map(|(_, client)| client.queued()).max();
    assert!((1..2 * PART).contains(&queued.unwrap()), "{queued:?}");
    names.push("zz".into());
    let list = stage.answer(&mut lister);
    assert_eq!(listed(&list), names);
    assert!(stage.answer(&mut lister).contains("\"name\":\"zz\""));
}

/// Numbers are read and sent in parts. Whoever asks for something else meanwhile is answered
/// first, and those who ask for numbers share one reading.
#[test]
fn numbers_are_read_in_parts_and_others_have_their_turns() {
    let mut stage = Stage::new();
    let names = many(&mut stage);
    let mut askers = [stage.connect(), stage.connect()];
    askers.iter_mut().for_each(|asker| asker.say("Usage", "{}"));
    let mut gone = stage.connect();
    gone.say("Usage", "{}");
    let (mut caller, mut served) = (stage.connect(), 0);
    while stage.event_loop.shell.recent.is_none() {
        caller.say("Get", r#"{"name": "v0500"}"#);
        assert!(stage.answer(&mut caller).contains("\"name\":\"v0500\""));
        served += 1;
        gone.stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    assert!(served > 10, "others were served {served} times");
    // A second reply is more than a socket holds.
    askers[0].say("Usage", "{}");
    for _ in 0..ROUNDS_MAX {
        stage.round();
    }
    let kept = stage.event_loop.sources.clients().map(|(_, client)| client.queued()).max();
    assert!((MANY..2 * PART + MANY * 1024).contains(&kept.unwrap()), "{kept:?}");
    let [one, other] = askers.each_mut().map(|asker| stage.answer(asker));
    assert_eq!(listed(&one), names);
    assert_eq!(one, other);
    let read: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(read["parameters"]["vms"][7]["status"], "created");
    assert_eq!(stage.answer(&mut askers[0]), one);
    stage.round();
    assert_eq!(stage.event_loop.timeout(), None, "nothing is left to do");
}

/// Metrics are of the time after they were asked for, and are read and sent in parts, too.
#[test]
fn metrics_are_of_the_present_and_others_have_their_turns() {
    let mut stage = Stage::new();
    many(&mut stage);
    let (mut watcher, mut asker) = (stage.connect(), stage.connect());
    watcher.say("Usage", "{}");
    // The first VMs are read now. One that comes is not among them.
    (0..6).for_each(|_| stage.round());
    assert!(stage.event_loop.shell.is_reading());
    vsock(&mut stage, "a");
    asker.say("Metrics", "{}");
    let (mut caller, mut served) = (stage.connect(), 0);
    while stage.event_loop.shell.is_reading() {
        caller.say("Get", r#"{"name": "v0500"}"#);
        assert!(stage.answer(&mut caller).contains("\"name\":\"v0500\""));
        served += 1;
    }
    assert!(served > 10, "others were served {served} times");
    let kept = stage.event_loop.sources.clients().map(|(_, client)| client.queued()).max();
    assert!((MANY..2 * PART + MANY * 1024).contains(&kept.unwrap()), "{kept:?}");
    let reply: Value = serde_json::from_str(&stage.answer(&mut asker)).unwrap();
    let text = reply["parameters"]["text"].as_str().expect("a text");
    assert!(text.contains("volnet_vms{status=\"created\"} 1001\n") && text.ends_with("# EOF\n"));
    assert_eq!(listed(&stage.answer(&mut watcher)).len(), MANY);
    stage.round();
    assert_eq!(stage.event_loop.timeout(), None, "nothing is left to do");
}

/// A client that ends its side after its last request gets all answers, and then the end.
#[test]
fn what_was_asked_before_the_end_of_the_input_is_answered() {
    let mut stage = Stage::new();
    vsock(&mut stage, "a");
    for method in ["Networks", "List", "Usage", "Metrics"] {
        let mut caller = stage.connect();
        (0..2).for_each(|_| caller.say(method, "{}"));
        // The last line need not end.
        caller.stream.write_all(b"{\"method\":\"io.volnet.List\"}").unwrap();
        caller.stream.shutdown(std::net::Shutdown::Write).unwrap();
        for number in 0..3 {
            let answer = stage.answer(&mut caller);
            assert!(answer.starts_with("{\"parameters\":"), "{method}, {number}: {answer}");
        }
        assert_eq!(stage.answer(&mut caller), "", "{method}");
    }
}

/// Events that happen while a subscriber gets the state come after it, as many as its queue may
/// hold. If there are more, the state comes again.
#[test]
fn events_wait_for_the_end_of_the_state() {
    let mut stage = Stage::new();
    let names = many(&mut stage);
    for others in [1, 2000] {
        let mut watcher = stage.connect();
        writeln!(watcher.stream, r#"{{"method": "io.volnet.Monitor", "more": true}}"#).unwrap();
        for _ in 0..ROUNDS_MAX {
            stage.round();
        }
        for _ in 0..others {
            vsock(&mut stage, "a");
            stage.ask("Delete", r#"{"name": "a"}"#);
        }
        assert_eq!(listed(&stage.answer(&mut watcher)), names);
        let mut kinds = ["vm_created", "vm_deleted"].into_iter().cycle();
        let mut told = 0;
        let again = loop {
            let (kind, vm) = event(&stage.answer(&mut watcher));
            if kind == "resync" {
                break true;
            }
            assert_eq!((Some(kind.as_str()), vm.as_str()), (kinds.next(), "a"));
            told += 1;
            if told == 2 * others {
                break false;
            }
        };
        assert_eq!(again, others > 1);
        if again {
            assert_eq!(listed(&stage.answer(&mut watcher)), names);
        }
    }
}
