//! Hostile clients: whatever they do, another client's calls are answered, and the daemon's memory
//! for them is bounded.

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use common::daemon::{Connection, Daemon};
use common::{eventually, in_namespace};

/// What all of them begin with: `connect`, and `ready`, which tells the test that it is in place.
const PRELUDE: &str = r#"
import array, os, socket, struct, sys, time
def connect():
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[1])
    return client
def ready(*words):
    print(*words, flush=True)
LIST = b'{"method":"io.volnet.List"}\n'
"#;

/// Sends requests on many connections, as fast as it can, and reads no reply.
const FLOOD: &str = r#"
clients = [connect() for _ in range(30)]
for client in clients:
    client.setblocking(False)
request = (b'{"method":"io.volnet.Check","oneway":true}\n'
    b'{"method":"io.volnet.Version","oneway":true}\n')
turn = 0
while True:
    for client in clients:
        try:
            client.send(request * 1000)
        except BlockingIOError:
            pass
    turn += 1
    if turn == 5000:
        ready()
"#;

/// Begins messages and never ends them.
const HALVES: &str = r#"
clients = [connect() for _ in range(60)]
for client in clients:
    client.send(b'{"method":"io.volnet.Create","parameters":{"name":"' + b"x" * 60000)
ready()
time.sleep(1000)
"#;

/// Asks for much and reads nothing.
const DEAF: &str = r#"
clients = [connect() for _ in range(60)]
for client in clients:
    try:
        client.sendall(LIST * 50)
    except OSError:
        pass
ready()
time.sleep(1000)
"#;

/// Connects a thousand times, and says how many connections it was left.
const CROWD: &str = r#"
clients = [connect() for _ in range(int(sys.argv[2]))]
left = 0
for client in clients:
    try:
        client.sendall(LIST)
        left += client.recv(65536) != b""
    except OSError:
        pass
ready(left)
time.sleep(1000)
"#;

/// Sends descriptors beside its calls: of a file, and the only one of a connection that lingers,
/// which takes an hour to close. Says how many it could send.
const THROWER: &str = r#"
listener = socket.create_server(("127.0.0.1", 0))
lingering = socket.create_connection(listener.getsockname())
lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
lingering.setblocking(False)
try:
    while True:
        lingering.send(b"x" * 65536)
except BlockingIOError:
    pass
thrown = 0
for descriptor in [os.open("/dev/null", os.O_RDONLY)] * 20 + [lingering.fileno()]:
    client = connect()
    try:
        socket.send_fds(client, [LIST[:9]], [descriptor])
        os.dup2(0, descriptor)
        client.sendall(LIST[9:])
        thrown += 1
    except PermissionError:
        client.sendall(LIST)
    assert client.recv(65536).endswith(b"\n")
ready(thrown)
time.sleep(1000)
"#;

/// Asks for what it may not do, and says what it was answered last.
const IMPERTINENT: &str = r#"
client = connect()
replies = client.makefile()
for _ in range(3000):
    client.sendall(b'{"method":"io.volnet.Create","parameters":{"name":"web"}}\n')
    reply = replies.readline()
ready(reply.strip())
time.sleep(1000)
"#;

/// Memory that the daemon may use for what a hostile user does, in KiB: what it may leave unread,
/// and as much again for what is on its way.
const HOSTILE_KIB: u64 = 64 << 10;

/// A hostile client of an unprivileged user, which ends with the value.
struct Hostile {
    child: Child,
    /// What it said when it was in place.
    said: String,
}

impl Hostile {
    fn start(daemon: &Daemon, uid: u32, script: &str, argument: &str) -> Hostile {
        // The socket is not for everybody by itself.
        fs::set_permissions(daemon.socket(), fs::Permissions::from_mode(0o666)).expect("a socket");
        let mut child = Command::new("setpriv")
            .args(["--clear-groups", &format!("--reuid={uid}"), &format!("--regid={uid}")])
            .args(["/usr/bin/python3", "-c", &format!("{PRELUDE}{script}")])
            .arg(daemon.socket())
            .arg(argument)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv starts");
        let mut said = String::new();
        let mut output = child.stdout.take().expect("its output");
        let mut byte = [0; 1];
        while output.read(&mut byte).is_ok_and(|length| length == 1) && byte != *b"\n" {
            said.push(byte[0].into());
        }
        assert_eq!(byte, *b"\n", "it ended before it was in place");
        Hostile { child, said }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The daemon's resident memory in KiB.
fn memory(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a field");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The descriptors that a test can tell from connections, which come and go.
fn descriptors(daemon: &Daemon) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs").flatten();
    let is_socket = |path: &Path| path.to_string_lossy().starts_with("socket:");
    open.filter_map(|entry| fs::read_link(entry.path()).ok()).filter(|to| !is_socket(to)).count()
}

fn done(answer: &Value) {
    assert!(answer["error"].is_null(), "{answer}");
}

/// Another client makes and deletes VMs meanwhile; gives the most memory that was seen.
fn serves(daemon: &Daemon, before: u64) -> u64 {
    let mut most = 0;
    for _ in 0..40 {
        done(&daemon.call("Create", json!({ "name": "honest" })));
        done(&daemon.call("Delete", json!({ "name": "honest" })));
        most = most.max(memory(daemon));
    }
    assert!(most < before + HOSTILE_KIB, "{before} KiB became {most}");
    most
}

#[test]
fn requests_without_end() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let before = memory(&daemon);
        let _hostile = Hostile::start(&daemon, 65534, FLOOD, "");
        serves(&daemon, before);
    });
}

#[test]
fn halves_of_messages() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let before = memory(&daemon);
        let _hostile = Hostile::start(&daemon, 65534, HALVES, "");
        serves(&daemon, before);
    });
}

#[test]
fn replies_that_nobody_reads() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let mut honest = daemon.connect();
        // A list of a megabyte: 60 of them are more than one user may leave unread.
        for number in 0..3500 {
            let config = json!({ "ephemeral": true, "network": { "mode": "vsock" } });
            let parameters = json!({ "name": format!("vm{number}"), "config": config });
            done(&honest.call("Create", parameters));
        }
        let list = honest.call("List", json!({})).to_string();
        assert!(list.len() > 1_000_000, "{} bytes", list.len());
        let before = memory(&daemon);
        let _hostile = Hostile::start(&daemon, 65534, DEAF, "");
        serves(&daemon, before);
    });
}

#[test]
fn a_thousand_connections() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let before = memory(&daemon);
        let crowd = Hostile::start(&daemon, 65534, CROWD, "1000");
        assert_eq!(crowd.said, "64");
        serves(&daemon, before);
        let log = daemon.log();
        let lines = log.lines().filter(|line| line.contains("refused")).count();
        assert!(log.contains(&format!("process {} of user 65534", crowd.child.id())), "{log}");
        assert!((1..500).contains(&lines), "{lines} lines");
    });
}

#[test]
fn many_users_together_leave_room_for_root() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let users: Vec<Hostile> =
            (60_000..60_009).map(|uid| Hostile::start(&daemon, uid, CROWD, "70")).collect();
        let left: Vec<&str> = users.iter().map(|user| user.said.as_str()).collect();
        assert_eq!(left, ["64", "64", "64", "64", "64", "64", "64", "32", "0"]);
        done(&daemon.call("List", json!({})));
    });
}

#[test]
fn descriptors_that_nobody_asked_for() {
    in_namespace(|| {
        common::run("ip link set lo up");
        let daemon = Daemon::start(&[]);
        // Some it opens when they are first needed.
        serves(&daemon, memory(&daemon));
        let before = (memory(&daemon), descriptors(&daemon));
        let thrower = Hostile::start(&daemon, 65534, THROWER, "");
        serves(&daemon, before.0);
        println!("{} of 21 were let through by the kernel", thrower.said);
        assert_eq!(descriptors(&daemon), before.1);
    });
}

#[test]
fn who_may_only_look_is_refused_and_named() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let hostile = Hostile::start(&daemon, 65534, IMPERTINENT, "");
        let refused: Value = serde_json::from_str(&hostile.said).expect("a reply");
        assert_eq!(refused["error"], "org.varlink.service.PermissionDenied");
        assert_eq!(daemon.call("List", json!({}))["parameters"]["vms"], json!([]));
        let log = daemon.log();
        let line = format!("a call of process {}: user 65534", hostile.child.id());
        let lines = log.lines().filter(|line| line.contains("refused")).count();
        assert!(log.contains(&line) && lines < 1000, "{lines} lines: {log}");
    });
}

/// A client that has many requests waiting delays another one by one of them, not by all.
#[test]
fn everybody_has_a_turn() {
    const CLIENTS: usize = 20;
    const EACH: usize = 50;
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let mut monitor = daemon.connect();
        monitor.send(b"{\"method\":\"io.volnet.Monitor\",\"more\":true}\n");
        monitor.receive().expect("the state");
        let pid = Pid::from_raw(daemon.pid() as i32);
        kill(pid, Signal::SIGSTOP).expect("it runs");
        let create = |name: &str| {
            let config = json!({ "network": { "mode": "vsock" }, "ephemeral": true });
            let parameters = json!({ "name": name, "config": config });
            format!("{}\n", json!({ "method": "io.volnet.Create", "parameters": parameters }))
        };
        let greedy: Vec<Connection> = (0..CLIENTS)
            .map(|client| {
                let mut connection = daemon.connect();
                let names = (0..EACH).map(|number| create(&format!("greedy{client}-{number}")));
                connection.send(names.collect::<String>().as_bytes());
                connection
            })
            .collect();
        let mut honest = daemon.connect();
        honest.send(create("honest").as_bytes());
        kill(pid, Signal::SIGCONT).expect("it runs");
        done(&honest.receive().expect("an answer"));
        let before = std::iter::from_fn(|| monitor.receive())
            .take_while(|event| event["parameters"]["event"]["vm"] != "honest")
            .count();
        // Connections are taken in the turn in which those taken before have their first turn.
        assert!(before <= 3 * CLIENTS, "{before} requests of others came before");
        drop(greedy);
    });
}

/// A file that takes hours to be compared with its checksum keeps nobody waiting but who named it,
/// and nobody at all once that one is gone.
#[test]
fn a_file_without_an_end() {
    in_namespace(|| {
        let settings = json!({ "hypervisor_user": "65534", "kernel_vmlinux": "/etc/hostname" });
        let daemon = Daemon::configured(&settings);
        let endless = daemon.folder.join("endless");
        fs::File::create(&endless).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
        let threads = || {
            let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs");
            let names = tasks.flatten().map(|task| fs::read_to_string(task.path().join("comm")));
            names.filter(|name| name.as_ref().is_ok_and(|name| name == "prepare\n")).count()
        };
        let ask = |path: &Path, sha256: &str| {
            let initramfs = json!({ "url": path, "checksum": sha256 });
            let config = json!({ "hypervisor": "qemu", "initramfs": initramfs });
            json!({ "name": "web", "start": true, "config": config })
        };
        let mut hostile = daemon.connect();
        let call =
            json!({ "method": "io.volnet.Create", "parameters": ask(&endless, &"0".repeat(64)) });
        hostile.send(format!("{call}\n").as_bytes());
        eventually("it is read", || threads() == 1);
        serves(&daemon, memory(&daemon));
        assert_eq!(threads(), 1);
        drop(hostile);
        eventually("it is not read any more", || threads() == 0);

        // sha256sum of nothing.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let file = daemon.folder.join("file");
        fs::write(&file, "not nothing").expect("a file");
        let wrong = daemon.call("Create", ask(&file, empty));
        assert_eq!(wrong["parameters"]["field"], "initramfs.checksum", "{wrong}");
        fs::write(&file, "").expect("a file");
        let right = daemon.call("Create", ask(&file, empty));
        assert_ne!(right["error"], "io.volnet.InvalidConfig", "{right}");
    });
}
