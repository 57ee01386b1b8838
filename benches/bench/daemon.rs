//! volnet itself: the binary that `make dist` made, in a namespace of its own, driven over its
//! socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use volnet::network::linux::monitor::Monitor;

use crate::client::{self, Client, assert_good, message};
use crate::contender::{Contender, Detached};
use crate::stage::Stage;
use crate::{BUILD, BURST, SUBNET};

/// The binary.
pub(crate) const BINARY: &str = "dist/volnet";
/// How long anything may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// A daemon and a connection to it.
pub(crate) struct Daemon {
    name: &'static str,
    pub(crate) stage: Stage,
    /// Whether its VMs end with the host's uptime.
    pub(crate) ephemeral: bool,
    child: Child,
    client: Client,
    /// How many VMs stay.
    filled: usize,
    /// Its configuration file.
    configuration: &'static str,
}

impl Daemon {
    /// Starts it with no VMs.
    pub(crate) fn new(
        name: &'static str,
        stage: Stage,
        ephemeral: bool,
        configuration: &'static str,
    ) -> Daemon {
        let _ = fs::remove_dir_all(state_dir(&stage));
        let child = spawn(&stage, configuration);
        let client = connect(&stage);
        Daemon { name, stage, ephemeral, child, client, filled: 0, configuration }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> String {
        socket(&self.stage)
    }

    /// Sends a request and receives its reply.
    pub(crate) fn call(&mut self, message: &[u8]) -> String {
        self.client.call(message)
    }

    /// How long it takes until the reply to a request is there.
    pub(crate) fn timed(&mut self, message: &[u8]) -> Duration {
        self.client.timed(message)
    }

    /// Ends it as its service manager does and starts it again. How long that took from its start
    /// to its first answer, which is a list of all VMs.
    pub(crate) fn restart(&mut self) -> Duration {
        self.end();
        let list = message("List", serde_json::json!({}));
        let start = Instant::now();
        self.child = spawn(&self.stage, self.configuration);
        self.client = connect(&self.stage);
        self.client.call(&list);
        start.elapsed()
    }

    /// Sends requests together and receives all replies. How long that took a request.
    pub(crate) fn pipelined(&mut self, messages: &[Vec<u8>]) -> Duration {
        self.client.pipelined(messages)
    }

    /// The requests of VMs that stay, until there are so many. They are taken to be sent.
    pub(crate) fn creates(&mut self, vms: usize) -> Vec<Vec<u8>> {
        let numbers = self.filled..vms;
        self.filled = self.filled.max(vms);
        numbers.map(|number| client::create(&format!("vm{number}"), self.ephemeral)).collect()
    }

    /// A number that /proc/PID/FILE has behind a word, in KiB for memory.
    pub(crate) fn proc(&self, file: &str, field: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("its /proc");
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no {field} in /proc/PID/{file}"))
    }

    fn end(&mut self) {
        let pid = Pid::from_raw(self.pid() as i32);
        kill(pid, Signal::SIGTERM).expect("to end the daemon");
        let status = self.child.wait().expect("its end");
        assert!(status.success(), "volnet ended with {status}; see {}", log(&self.stage).display());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already, when what it did is why we are here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Contender for Daemon {
    fn name(&self) -> &str {
        self.name
    }

    fn attach(&mut self, vm: &str) -> Duration {
        let request = client::create(vm, self.ephemeral);
        self.client.timed(&request)
    }

    fn detach(&mut self, vm: &str) -> Detached {
        self.stage.enter();
        let (request, link) = (client::delete(vm), link(&mut self.client, vm));
        let mut monitor = Monitor::open(0).expect("news of links");
        let start = Instant::now();
        self.client.send(&request);
        let reply = self.client.receive();
        let answered = start.elapsed();
        wait_until_gone(&mut monitor, link);
        let gone = start.elapsed();
        assert_good(&reply);
        Detached { answered, gone }
    }

    fn fill(&mut self, vms: usize) -> Duration {
        let requests = self.creates(vms);
        requests.chunks(BURST).map(|some| self.pipelined(some) * some.len() as u32).sum()
    }
}

/// The index of a VM's tap: its name goes before it does.
fn link(client: &mut Client, vm: &str) -> u32 {
    let reply = client.call(&message("Get", serde_json::json!({ "name": vm })));
    let reply: serde_json::Value = serde_json::from_str(&reply).expect("JSON");
    reply["parameters"]["vm"]["ifindex"].as_u64().expect("a tap") as u32
}

/// Reads news of links until they say that this one is gone.
pub(crate) fn wait_until_gone(monitor: &mut Monitor, index: u32) {
    let start = Instant::now();
    while monitor.drain().links.get(&index).is_none_or(|(_, present)| *present) {
        assert!(start.elapsed() < PATIENCE, "link {index} does not go");
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn spawn(stage: &Stage, configuration: &str) -> Child {
    stage.enter();
    let log = fs::File::options().append(true).create(true).open(log(stage)).expect("a log");
    let file = format!("{}.json", runtime_dir(stage));
    fs::write(&file, configuration).expect("a configuration");
    Command::new(BINARY)
        .arg("serve")
        .env("VOLNET_SUBNET", SUBNET)
        .env("VOLNET_CONFIG", file)
        .env("VOLNET_STATE_DIR", state_dir(stage))
        .env("VOLNET_RUNTIME_DIR", runtime_dir(stage))
        .env("VOLNET_LOG_DIR", state_dir(stage).join("log"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{BINARY}: {error}"))
}

/// Connects as soon as that is possible.
fn connect(stage: &Stage) -> Client {
    let start = Instant::now();
    loop {
        match Client::connect(&socket(stage)) {
            Ok(client) => return client,
            Err(error) => {
                let log = log(stage);
                assert!(start.elapsed() < PATIENCE, "no answer: {error}; see {}", log.display());
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }
}

fn state_dir(stage: &Stage) -> PathBuf {
    let build = fs::canonicalize(BUILD).expect("the build directory");
    build.join(format!("bench/{}", stage.name()))
}

fn log(stage: &Stage) -> PathBuf {
    Path::new(BUILD).join(format!("bench/{}.log", stage.name()))
}

fn runtime_dir(stage: &Stage) -> String {
    format!("/run/{}", stage.name())
}

fn socket(stage: &Stage) -> String {
    format!("{}/volnet.sock", runtime_dir(stage))
}
