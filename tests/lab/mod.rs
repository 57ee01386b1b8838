//! A host for real guests: network namespaces, a daemon in one of them, and the guests' consoles.
//!
//! A [`Lab`] is two namespaces with their own names: the *host*, where the daemon runs, and the
//! *world* behind its uplink, which has no route back to the guests. Everything ends with the
//! value, also the guests' hypervisors. Waiting is always for a visible condition, and at most
//! [`PATIENCE`]: a guest in emulation on a busy machine is slow.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before the test has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The host's address on its uplink.
pub(crate) const UPLINK_IP: &str = "203.0.113.1";
/// The address of the world.
pub(crate) const WORLD_IP: &str = "203.0.113.2";
/// The port where the world tells its callers what address they have.
pub(crate) const WORLD_PORT: &str = "7";

/// The user of the hypervisors, without any rights.
pub(crate) const HYPERVISOR_USER: &str = "65534";

const WHO_CALLS: &str = r#"
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    peer, address = server.accept()
    peer.sendall(f"you are {address[0]}\n".encode())
    peer.close()
"#;

/// A resolver on the host's 127.0.0.53: all names are the world's, and are told by TCP only.
const RESOLVER: &str = r#"
import socket, sys, threading
at, world = ("127.0.0.53", 53), socket.inet_aton(sys.argv[1])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(at)
tcp = socket.create_server(at)
def answer(question, flags, count):
    end = question.index(0, 12) + 5
    return question[:2] + flags + b"\0\1" + count + bytes(4) + question[12:end]
def cut():
    while True:
        question, peer = udp.recvfrom(4096)
        udp.sendto(answer(question, b"\x83\x80", b"\0\0"), peer)
threading.Thread(target=cut, daemon=True).start()
while True:
    peer, _ = tcp.accept()
    question = peer.recv(4096)[2:]
    is_a = question[question.index(0, 12) + 2] == 1
    reply = answer(question, b"\x81\x80", b"\0\1" if is_a else b"\0\0")
    if is_a:
        reply += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + world
    peer.sendall(len(reply).to_bytes(2, "big") + reply)
    peer.close()
"#;

/// Namespaces, a folder, and the processes that this test started.
pub(crate) struct Lab {
    host: String,
    world: String,
    /// Namespaces of others on the host.
    rooms: Vec<String>,
    folder: PathBuf,
    /// The binary that the next daemon runs, and more flags for it.
    pub(crate) program: PathBuf,
    pub(crate) flags: Vec<&'static str>,
    daemon: Option<Child>,
    children: Vec<Child>,
}

impl Lab {
    /// The namespaces, with a world that answers, and a daemon that does.
    pub(crate) fn new() -> Lab {
        Lab::configured("{}")
    }

    /// The same, and the daemon has this configuration file.
    pub(crate) fn configured(configuration: &str) -> Lab {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vt{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir(&folder).expect("a folder of this test's own");
        fs::write(folder.join("config.json"), configuration).expect("a configuration");
        let (host, world) = (format!("{name}-host"), format!("{name}-world"));
        let mut lab = Lab {
            host,
            world,
            rooms: Vec::new(),
            folder,
            program: env!("CARGO_BIN_EXE_volnet").into(),
            flags: Vec::new(),
            daemon: None,
            children: Vec::new(),
        };
        lab.make_namespaces();
        lab.open_in_world(WORLD_PORT);
        lab.start_daemon();
        lab
    }

    /// Where the host's own files of /etc are.
    fn names(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.host)
    }

    fn make_namespaces(&self) {
        let (host, world) = (self.host.as_str(), self.world.as_str());
        // ip-netns(8): this is /etc/resolv.conf for those in the namespace.
        fs::create_dir_all(self.names()).expect("a folder");
        fs::write(self.names().join("resolv.conf"), "nameserver 127.0.0.53\n").expect("a file");
        for command in [
            format!("netns add {host}"),
            format!("netns add {world}"),
            format!("-n {host} link set lo up"),
            format!("-n {world} link set lo up"),
            format!("-n {host} link add uplink type veth peer name hosts netns {world}"),
            format!("-n {host} addr add {UPLINK_IP}/24 dev uplink"),
            format!("-n {host} link set uplink up"),
            format!("-n {world} addr add {WORLD_IP}/24 dev hosts"),
            format!("-n {world} link set hosts up"),
        ] {
            success(Command::new("ip").args(command.split(' ')));
        }
    }

    /// Lets the world tell those who call this port what address they have.
    pub(crate) fn open_in_world(&mut self, port: &str) {
        let server = ["python3", "-c", WHO_CALLS, WORLD_IP, port];
        self.children.push(self.spawn_in(&self.world, &server, "world"));
    }

    /// Lets the host resolve names of the world.
    pub(crate) fn resolve(&mut self) {
        let server = ["python3", "-c", RESOLVER, WORLD_IP];
        self.children.push(self.spawn_in(&self.host, &server, "resolver"));
        self.wait_for("the resolver", || {
            self.on_host(&["ss", "-Htln"]).contains("127.0.0.53:53").then_some(())
        });
    }

    /// Starts the daemon, and waits until it answers.
    pub(crate) fn start_daemon(&mut self) {
        let folder = self.folder.display();
        let (state, run, log) =
            (format!("{folder}/state"), format!("{folder}/run"), format!("{folder}/log"));
        let socket = self.socket();
        let configuration = format!("{folder}/config.json");
        let mut command = vec![
            self.program.to_str().expect("a path in UTF-8"),
            "serve",
            "--config-file",
            &configuration,
            "--state-dir",
            &state,
            "--runtime-dir",
            &run,
            "--log-dir",
            &log,
            "--socket",
            &socket,
            "--kvm",
            "no",
        ];
        command.extend(&self.flags);
        self.daemon = Some(self.spawn_in(&self.host, &command, "daemon"));
        self.wait_for("the daemon", || self.run(&["list"]).status.success().then_some(()));
    }

    /// Ends the daemon with SIGTERM, and waits until it has ended well.
    pub(crate) fn stop_daemon(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon runs");
        success(Command::new("kill").arg(daemon.id().to_string()));
        let status = daemon.wait().expect("the daemon is our child");
        assert!(status.success(), "the daemon ended with {status}\n{}", self.report());
    }

    /// Ends the daemon at once, as a crash would.
    pub(crate) fn crash_daemon(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon runs");
        daemon.kill().expect("the daemon is our child");
        daemon.wait().expect("the daemon is our child");
    }

    /// Starts a process in a namespace, its output in a file of that name in the lab's folder.
    fn spawn_in(&self, namespace: &str, command: &[&str], name: &str) -> Child {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(format!("{name}.out")))
            .expect("a log file");
        Command::new("ip")
            .args(["netns", "exec", namespace])
            .args(command)
            .env("VOLNET_HYPERVISOR_USER", HYPERVISOR_USER)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log file"))
            .stderr(log)
            .spawn()
            .expect("ip can be started")
    }

    /// Starts a process on the host, which ends with the lab.
    pub(crate) fn spawn(&mut self, command: &[&str], name: &str) {
        self.children.push(self.spawn_in(&self.host, command, name));
    }

    /// What a process of [`Lab::spawn`] has printed.
    pub(crate) fn output_of(&self, name: &str) -> String {
        read(&self.folder.join(format!("{name}.out")))
    }

    /// The lab's own folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The daemon's socket.
    pub(crate) fn socket(&self) -> String {
        format!("{}/run/volnet.sock", self.folder.display())
    }

    /// Runs a command on the host, which must succeed.
    pub(crate) fn on_host(&self, command: &[&str]) -> String {
        success(Command::new("ip").args(["netns", "exec", &self.host]).args(command))
    }

    /// Runs a command on the host; the error is what it printed.
    pub(crate) fn try_on_host(&self, command: &[&str]) -> Result<(), String> {
        Lab::try_in(&self.host, command)
    }

    /// Runs a command in the world; the error is what it printed.
    pub(crate) fn try_in_world(&self, command: &[&str]) -> Result<(), String> {
        Lab::try_in(&self.world, command)
    }

    fn try_in(namespace: &str, command: &[&str]) -> Result<(), String> {
        let all = [&["netns", "exec", namespace], command].concat();
        let output = Command::new("ip").args(all).output().expect("ip can be started");
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(text.into_owned()) }
    }

    /// Runs `volnet` with these words.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_volnet"))
            .args(words)
            .env("VOLNET_SOCKET", self.socket())
            .output()
            .expect("volnet can be started")
    }

    /// Makes a network namespace of others, and returns its path.
    pub(crate) fn make_room(&mut self) -> String {
        let room = format!("{}-room{}", self.host, self.rooms.len());
        success(Command::new("ip").args(["netns", "add", &room]));
        self.rooms.push(room.clone());
        format!("/run/netns/{room}")
    }

    /// Runs `volnet` as the plugin of a container engine, which must succeed, and returns the
    /// result.
    pub(crate) fn cni(&self, verb: &str, container: &str, netns: &str, conf: &Value) -> Value {
        let file = self.folder.join("conf");
        fs::write(&file, conf.to_string()).expect("a configuration");
        let plugin = env!("CARGO_BIN_EXE_volnet");
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.host, plugin])
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .stdin(fs::File::open(file).expect("a configuration"));
        serde_json::from_str(&success(&mut command)).unwrap_or_default()
    }

    /// Runs `volnet`, which must succeed.
    pub(crate) fn volnet(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "volnet {words:?}: {out}{err}\n{}", self.report());
        out.into_owned()
    }

    /// Runs the test guest under QEMU: `words` are more words for `volnet run`, `orders` what the
    /// guest is to do.
    pub(crate) fn run_guest(&self, name: &str, words: &[&str], orders: &str) {
        let (kernel, initramfs) = (guest_file("vmlinux"), guest_file("initramfs"));
        let cmdline = format!("quiet {orders}");
        let mut command = vec!["run", name, "--hypervisor", "qemu", "--memory", "128"];
        command.extend(["--kernel", &kernel, "--initramfs", &initramfs, "--cmdline", &cmdline]);
        command.extend(words);
        self.volnet(&command);
    }

    /// A VM as `volnet get` has it.
    pub(crate) fn vm(&self, name: &str) -> Value {
        let text = self.volnet(&["get", name, "--json"]);
        serde_json::from_str::<Value>(&text).expect("JSON")["vm"].clone()
    }

    /// What the guest has printed on its console.
    pub(crate) fn console(&self, name: &str) -> String {
        read(&self.folder.join("log").join(format!("{name}.log"))).replace('\r', "")
    }

    /// Waits for a line of the guest's console that contains `text`, and returns it.
    pub(crate) fn wait_for_line(&self, name: &str, text: &str) -> String {
        self.wait_for(&format!("{name} to say {text:?}"), || {
            self.console(name).lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// Looks again and again until there is something to see.
    pub(crate) fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            assert!(Instant::now() < end, "waited in vain for {what}\n{}", self.report());
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }

    /// All that was printed, for a test that has failed.
    fn report(&self) -> String {
        let mut report = String::new();
        for folder in [self.folder.clone(), self.folder.join("log")] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_file() {
                    let _ =
                        writeln!(report, "--- {}\n{}", entry.path().display(), read(&entry.path()));
                }
            }
        }
        report
    }

    fn vm_names(&self) -> Vec<String> {
        let list = self.run(&["list", "--json"]).stdout;
        let list: Value = serde_json::from_slice(&list).unwrap_or_default();
        let vms = list["vms"].as_array().cloned().unwrap_or_default();
        vms.iter().filter_map(|vm| vm["name"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in self.vm_names() {
            self.run(&["delete", &name, "--timeout", "1"]);
        }
        for child in self.daemon.iter_mut().chain(&mut self.children) {
            let _ = child.kill();
            let _ = child.wait();
        }
        for namespace in self.rooms.iter().chain([&self.host, &self.world]) {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_dir_all(self.names());
    }
}

/// A file of the test guest.
pub(crate) fn guest_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/guest").join(name);
    assert!(path.exists(), "{} is missing: run make guest first", path.display());
    path.to_str().expect("a path in UTF-8").into()
}

/// Checks that a hypervisor is nobody, and that its tap was handed to it.
pub(crate) fn assert_has_no_rights(pid: &Value) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in [
        "Uid:\t65534\t65534\t65534\t65534\n",
        "Gid:\t65534\t65534\t65534\t65534\n",
        "Groups:\t \n",
        "CapPrm:\t0000000000000000\n",
        "CapEff:\t0000000000000000\n",
    ] {
        assert!(status.contains(line), "{line:?} in {status}");
    }
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(command.contains("tap,id=net0,fd="), "{command:?}");
}

/// Runs a command, which must succeed, and returns what it printed.
fn success(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {text}{error}", output.status);
    text
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
