//! The rights of processes: hypervisors have none, and taps are passed on open. The tests read
//! `/proc`.

mod common;

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use common::daemon::Daemon;
use common::{eventually, in_namespace, ip_link, link_exists, run, try_run};

/// Calls OpenTap as a program would that knows nothing of volnet, and says what came.
const OPENER: &str = r#"
import fcntl, json, os, socket, struct, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
call = {"method": "io.volnet.OpenTap", "parameters": json.loads(sys.argv[2])}
client.sendall(json.dumps(call).encode() + b"\0" + b'{"method":"io.volnet.List"}\0')
data, fds = b"", []
while data.count(b"\0") < 2:
    piece, more, _, _ = socket.recv_fds(client, 65536, 8)
    data, fds = data + piece, fds + more
reply = json.loads(data.split(b"\0")[0])
if "error" not in reply:
    request = fcntl.ioctl(fds[reply["parameters"]["fd"]], 0x800454D2, bytes(40))  # TUNGETIFF
    reply["name"] = request[:16].rstrip(b"\0").decode()
    reply["flags"] = struct.unpack_from("H", request, 16)[0]
    reply["blocking"] = os.get_blocking(fds[0])
reply["count"] = len(fds)
print(json.dumps(reply))
"#;

/// A guest that does nothing but to answer ARP and pings: descriptor, MAC and IPv4 address of its
/// tap.
const GUEST: &str = r#"
import os, select, socket, sys
tap, ip = int(sys.argv[1]), socket.inet_aton(sys.argv[3])
mac = bytes.fromhex(sys.argv[2].replace(":", ""))
def checksum(data):
    total = sum(int.from_bytes(data[at:at + 2], "big") for at in range(0, len(data), 2))
    total = (total >> 16) + (total & 0xffff)
    return (~(total + (total >> 16)) & 0xffff).to_bytes(2, "big")
while True:
    select.select([tap], [], [])
    frame = os.read(tap, 65536)[10:]
    peer, kind, body = frame[6:12], frame[12:14], frame[14:]
    if kind == b"\x08\x06" and body[24:28] == ip:
        body = body[:6] + b"\0\2" + mac + ip + body[8:18]
    elif kind == b"\x08\0" and body[9] == 1 and body[20] == 8:
        echo = b"\0\0\0\0" + body[24:]
        echo = echo[:2] + checksum(echo) + echo[4:]
        body = body[:12] + ip + body[12:16] + echo
    else:
        continue
    os.write(tap, bytes(10) + peer + mac + kind + body)
"#;

/// What a process gets that may do nothing.
const NOBODY: [&str; 7] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--inh-caps=-all",
    "--bounding-set=-all",
];

/// A process that ends with the value.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(command.stdin(Stdio::null()).spawn().expect("it starts"))
    }

    fn status(&self, field: &str) -> String {
        status(self.0.id(), field)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A field of `/proc/PID/status`.
fn status(pid: impl Display, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.expect("a field").trim().to_string()
}

/// What OpenTap answers somebody who knows nothing of volnet.
fn open_tap(daemon: &Daemon, name: &str) -> Value {
    open_tap_with(daemon, &json!({ "name": name }))
}

fn open_tap_with(daemon: &Daemon, parameters: &Value) -> Value {
    let output = Command::new("python3")
        .args(["-c", OPENER])
        .arg(daemon.socket())
        .arg(parameters.to_string())
        .output()
        .expect("python runs");
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{error}"))
}

/// What a process has open, and for a tap which one it is.
fn descriptors(pid: &Value) -> Vec<String> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let numbers = fs::read_dir(folder.join("fd")).expect("it runs").flatten();
    let mut all: Vec<String> = numbers
        .map(|entry| {
            let path = fs::read_link(entry.path()).expect("a descriptor").display().to_string();
            let info = folder.join("fdinfo").join(entry.file_name());
            let info = fs::read_to_string(info).expect("a descriptor");
            let tap = info.lines().find_map(|line| line.strip_prefix("iff:"));
            // All pipes, and a terminal, are its standard streams.
            let path = match path.starts_with("/dev/pts/") {
                true => "terminal".to_string(),
                false => path.split(":[").next().expect("a word").to_string(),
            };
            tap.map_or(path, |tap| tap.trim().to_string())
        })
        .collect();
    all.sort();
    all
}

/// Answers the first question on a hypervisor's control socket, whatever hypervisor it stands for:
/// the guest runs. Then the socket is gone.
const SAYS_THAT_IT_RUNS: &str = r#"
import os, re, socket, sys
os.closerange(3, 4096)
found = re.search(r"/[^ ,=:]*/(?:qmp|api)\.sock", " ".join(sys.argv))
if found:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(found[0])
        listener.listen()
        client = listener.accept()[0]
        client.recv(65536)
        client.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"state": "Running"}{"status": "running"}')
        os.unlink(found[0])
"#;

/// A daemon whose hypervisors do nothing but run, and say so.
fn idle_hypervisors(mut settings: Value) -> Daemon {
    let mut daemon = Daemon::without(&[]);
    let (program, says) = (daemon.folder.join("idle"), daemon.folder.join("says"));
    fs::write(&says, SAYS_THAT_IT_RUNS).expect("a program");
    let says =
        format!("/usr/bin/python3 -BS {} \"$@\" </dev/null >/dev/null 2>&1 &", says.display());
    // Firecracker is asked when it has a thread of this name.
    let sleep = daemon.folder.join("fc_vcpu");
    std::os::unix::fs::symlink("/bin/sleep", &sleep).expect("a link");
    let text = format!("#!/bin/sh\n{says}\nexec {} 100000\n", sleep.display());
    fs::write(&program, text).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
    settings["hypervisors"] = json!({
        "qemu": { "program": program },
        "cloud-hypervisor": { "program": program },
        "firecracker": { "program": program },
        "other": { "program": program, "args": ["{tap}"] },
    });
    settings["kernel_vmlinux"] = "/etc/hostname".into();
    fs::write(daemon.folder.join("config.json"), settings.to_string()).expect("settings");
    daemon.start_again();
    daemon
}

/// What a VM needs for its hypervisor to be started.
fn started(name: &str, config: Value) -> Value {
    json!({ "name": name, "start": true, "config": config })
}

fn refused(daemon: &Daemon, parameters: Value) -> (Value, String) {
    let mut answer = daemon.call("Create", parameters);
    assert_eq!(answer["error"], "io.volnet.InvalidConfig", "{answer}");
    let reason = answer["parameters"]["reason"].as_str().expect("a reason").to_string();
    (answer["parameters"]["field"].take(), reason)
}

#[test]
fn a_tap_comes_open_with_the_reply() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        daemon.create(json!({ "name": "web" }));
        daemon.create(json!({ "name": "wide", "config": { "network": { "queues": 2 } } }));
        // IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_PERSIST, and IFF_MULTI_QUEUE (linux/if_tun.h).
        for (name, flags) in [("web", 0x5802), ("wide", 0x5902)] {
            // Twice: what is not wanted any more is not kept open.
            for _ in 0..2 {
                let reply = open_tap(&daemon, name);
                assert_eq!(reply["parameters"], json!({ "fd": 0 }), "{reply}");
                assert_eq!(reply["name"], format!("vttap-{name}"));
                assert_eq!((&reply["flags"], &reply["count"]), (&json!(flags), &json!(1)));
                assert_eq!(reply["blocking"], false);
            }
        }
    });
}

#[test]
fn each_nic_has_a_tap_to_be_opened() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let config = json!({ "networks": [{}, {}] });
        let answer = daemon.call("Create", json!({ "name": "web", "config": config }));
        let nics = &answer["parameters"]["vm"]["nics"];
        assert_eq!(open_tap(&daemon, "web")["name"], nics[0]["tap"]);
        for nic in 0..2 {
            let opened = open_tap_with(&daemon, &json!({ "name": "web", "nic": nic }));
            assert_eq!(opened["name"], nics[nic]["tap"], "{opened}");
        }
        let none = open_tap_with(&daemon, &json!({ "name": "web", "nic": 2 }));
        assert_eq!(
            (&none["error"], &none["count"]),
            (&json!("io.volnet.InvalidConfig"), &json!(0))
        );
    });
}

#[test]
fn whoever_is_given_an_open_tap_needs_no_rights() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let vm = daemon.create(json!({ "name": "web" }));
        let text = |field: &str| vm[field].as_str().expect("a text");
        let guest = Running::start(
            Command::new(&daemon.program)
                .args(["exec", "web", "--"])
                .args(NOBODY)
                // Not one of PATH, which may lie where only root can look.
                .args(["/usr/bin/python3", "-c", GUEST, "{fd}", text("mac"), text("ip")])
                .env("VOLNET_CONFIG", daemon.folder.join("config.json"))
                .env("VOLNET_SOCKET", daemon.socket()),
        );
        let ping = format!("ping -c 1 -W 1 {}", text("ip"));
        eventually("an answer", || try_run(&ping).0);
        assert_eq!(guest.status("Uid"), "65534\t65534\t65534\t65534");
        assert_eq!(guest.status("CapPrm"), "0000000000000000");
        let held = open_tap(&daemon, "web");
        assert_eq!(held["error"], "io.volnet.KernelRefused", "{held}");
        assert_eq!(held["parameters"]["errno"], libc::EBUSY);
        drop(guest);
        assert_eq!(open_tap(&daemon, "web")["count"], 1);
    });
}

#[test]
fn a_tap_that_is_missing_or_not_ours_is_not_opened() {
    in_namespace(|| {
        let daemon = idle_hypervisors(json!({}));
        let other = json!({ "hypervisor": "other" });
        let busy = daemon.create(json!({ "name": "busy", "start": true, "config": other }));
        daemon.create(json!({ "name": "deaf", "config": { "network": { "mode": "vsock" } } }));
        let refused = |name: &str| {
            let mut reply = open_tap(&daemon, name);
            assert_eq!(reply["count"], 0, "{reply}");
            (reply["error"].take(), reply["parameters"].take())
        };
        let running = json!({ "tap": "vttap-busy", "pid": busy["pid"] });
        assert_eq!(refused("busy"), (json!("io.volnet.TapBusy"), running));
        assert_eq!(refused("deaf").1["field"], "network.mode");
        assert_eq!(refused("none").0, "io.volnet.VmNotFound");

        // Another link of its name, which a daemon that sleeps cannot put right before it is asked.
        daemon.create(json!({ "name": "web" }));
        let pid = Pid::from_raw(daemon.pid() as i32);
        kill(pid, Signal::SIGSTOP).expect("it runs");
        let mut client = daemon.connect();
        client.send(b"{\"method\":\"io.volnet.OpenTap\",\"parameters\":{\"name\":\"web\"}}\n");
        run("ip link del vttap-web");
        run("ip tuntap add dev vttap-web mode tap");
        kill(pid, Signal::SIGCONT).expect("it runs");
        let answer = client.receive().expect("an answer");
        assert_eq!(answer["error"], "io.volnet.KernelRefused", "{answer}");
        assert_eq!(answer["parameters"]["errno"], libc::ENODEV);
        assert!(!run("ip -d link show vttap-web").contains("vnet_hdr on"), "it is left as it is");
    });
}

#[test]
fn a_hypervisor_has_its_tap_and_its_streams_and_nothing_else() {
    in_namespace(|| {
        let daemon = idle_hypervisors(json!({}));
        for (hypervisor, queues, pipes, terminals, taps) in [
            ("qemu", 1, 3, 0, 1),
            ("qemu", 4, 3, 0, 4),
            ("cloud-hypervisor", 1, 2, 1, 1),
            ("cloud-hypervisor", 2, 2, 1, 2),
            ("firecracker", 1, 3, 0, 0),
            ("other", 1, 2, 1, 0),
        ] {
            let name = format!("{}{queues}", &hypervisor[..1]);
            let config = json!({
                "hypervisor": hypervisor,
                "resources": { "cpu_cores": 4 },
                "network": { "queues": queues },
            });
            let vm = daemon.create(json!({ "name": name, "start": true, "config": config }));
            let mut expected = vec!["pipe".to_string(); pipes];
            expected.extend(vec!["terminal".to_string(); terminals]);
            expected.extend(vec![format!("vttap-{name}"); taps]);
            assert_eq!(descriptors(&vm["pid"]), expected, "{hypervisor}");
        }
    });
}

/// A guest that runs without KVM is told of by an event, by `get` and by `check`, also by the next
/// daemon.
#[test]
fn a_guest_does_not_run_without_kvm_unsaid() {
    in_namespace(|| {
        // Nobody can write to it here.
        if Path::new("/dev/kvm").exists() {
            run("mount --bind /proc/version /dev/kvm");
        }
        let mut daemon = idle_hypervisors(json!({ "hypervisor_user": "nobody" }));
        let mut monitor = daemon.connect();
        monitor.send(b"{\"method\":\"io.volnet.Monitor\",\"more\":true}\n");
        monitor.receive().expect("the state");
        let vm = daemon.create(started("web", json!({ "hypervisor": "qemu" })));
        assert_eq!(vm["kvm"], false);
        let event = loop {
            let mut reply = monitor.receive().expect("an event");
            let event = reply["parameters"]["event"].take();
            if event["kind"] == "vm_slow" {
                break event;
            }
        };
        assert_eq!(event["vm"], "web");
        assert_eq!(event["message"], "VM web runs without KVM: /dev/kvm cannot be used");
        let other = daemon.create(started("other", json!({ "hypervisor": "other" })));
        assert_eq!(other["kvm"], Value::Null, "a template says itself");
        let slow = |daemon: &Daemon| -> Vec<Value> {
            let mut findings = daemon.call("Check", json!({}))["parameters"]["findings"].take();
            let findings = findings.as_array_mut().expect("findings");
            findings.retain(|finding| finding["check"] == "kvm");
            findings.iter_mut().map(|finding| finding["message"].take()).collect()
        };
        let said = [json!("VM web was started without KVM and is slow")];
        assert_eq!(slow(&daemon), said);
        drop(monitor);
        daemon.crash();
        daemon.start_again();
        assert_eq!(daemon.call("Get", json!({ "name": "web" }))["parameters"]["vm"]["kvm"], false);
        assert_eq!(slow(&daemon), said);
        let stopped = daemon.call("Stop", json!({ "name": "web", "timeout_ms": 0 }));
        assert_eq!(stopped["parameters"]["vm"]["kvm"], Value::Null, "{stopped}");
        assert_eq!(slow(&daemon), [] as [Value; 0]);
    });
}

#[test]
fn a_hypervisor_is_nobody_and_outlives_the_daemon_as_such() {
    in_namespace(|| {
        let mut daemon = idle_hypervisors(json!({ "hypervisor_user": "nobody" }));
        let vm = daemon.create(started("web", json!({ "hypervisor": "qemu" })));
        let pid = vm["pid"].clone();
        for (field, expected) in [
            ("Uid", "65534\t65534\t65534\t65534"),
            ("Gid", "65534\t65534\t65534\t65534"),
            ("Groups", ""),
            ("CapInh", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
        ] {
            assert_eq!(status(&pid, field), expected, "{field}");
        }
        let expected = ["pipe", "pipe", "pipe", "vttap-web"];
        assert_eq!(descriptors(&pid), expected);
        let owner = |path: &str| fs::metadata(daemon.folder.join(path)).expect("a file").uid();
        assert_eq!((owner("run/vm/web"), owner("run/vm"), owner("log/web.log")), (65534, 0, 0));

        daemon.crash();
        daemon.start_again();
        let adopted = daemon.call("Get", json!({ "name": "web" }));
        assert_eq!(adopted["parameters"]["vm"]["pid"], pid, "{adopted}");
        // Not our child, and not of our user: the kernel tells how it ended all the same.
        run(&format!("kill -9 {pid}"));
        eventually("its end is seen", || {
            let vm = daemon.call("Get", json!({ "name": "web" }));
            vm["parameters"]["vm"]["exit_signal"] == 9
        });
        let again = daemon.call("Start", json!({ "name": "web" }));
        assert!(again["error"].is_null(), "{again}");
        let stopped = daemon.call("Stop", json!({ "name": "web", "timeout_ms": 1 }));
        assert_eq!(stopped["parameters"]["vm"]["exit_signal"], 15, "{stopped}");
        assert_eq!(daemon.call("Delete", json!({ "name": "web" })), json!({ "parameters": {} }));
        assert!(!daemon.folder.join("run/vm/web").exists());
    });
}

/// The soft and the hard limit of open descriptors.
fn limits(pid: impl Display) -> (u64, u64) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.expect("a limit").split_ascii_whitespace();
    let mut number = || numbers.next().and_then(|word| word.parse().ok()).expect("a number");
    (number(), number())
}

#[test]
fn the_daemon_may_open_as_much_as_there_is_and_a_hypervisor_what_the_daemon_was_given() {
    in_namespace(|| {
        for user in ["nobody", "root"] {
            let mut daemon = idle_hypervisors(json!({ "hypervisor_user": user }));
            daemon.stop();
            let program = daemon.folder.join("limited");
            let script =
                format!("#!/bin/sh\nulimit -Sn 300\nexec {} \"$@\"\n", daemon.program.display());
            fs::write(&program, script).expect("a program");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
            daemon.program = program;
            daemon.start_again();
            let (soft, hard) = limits(daemon.pid());
            assert!(soft == hard && hard > 300, "{soft} of {hard}");
            let vm = daemon.create(started("web", json!({ "hypervisor": "other" })));
            let pid = vm["pid"].clone();
            assert_eq!(limits(&pid), (300, hard), "as {user}");
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs");
            assert_eq!(name, "fc_vcpu\n");
            daemon.call("Delete", json!({ "name": "web", "timeout_ms": 1 }));
        }
    });
}

#[test]
fn a_vm_has_the_files_of_its_hypervisors_user_and_no_others() {
    in_namespace(|| {
        let daemon = idle_hypervisors(json!({ "hypervisor_user": "65534" }));
        let file = |name: &str, mode: u32| {
            let path = daemon.folder.join(name);
            fs::write(&path, "x").expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a file");
            path.display().to_string()
        };
        let (secret, public) = (file("secret", 0o600), file("public", 0o644));
        let denied = format!("{secret}: Permission denied (os error 13), for user nobody");
        let config = json!({ "hypervisor": "qemu", "kernel_override": secret });
        assert_eq!(refused(&daemon, started("web", config)), ("kernel_override".into(), denied));
        // Not even whether it is what somebody thinks it is.
        let initramfs = json!({ "url": secret, "checksum": format!("sha256:{:064}", 0) });
        let config = json!({ "hypervisor": "qemu", "initramfs": initramfs });
        assert_eq!(refused(&daemon, started("web", config)).0, "initramfs");
        let disk = |path: &str, readonly: bool| {
            let disk = json!({ "source": path, "readonly": readonly });
            let mut parameters = started("web", json!({ "hypervisor": "qemu" }));
            parameters["manifest"] = json!({ "disks": [disk] });
            parameters
        };
        assert_eq!(refused(&daemon, disk(&secret, true)).0, "disks");
        assert_eq!(refused(&daemon, disk(&public, false)).0, "disks");
        assert_eq!(daemon.call("List", json!({}))["parameters"]["vms"], json!([]));
        assert!(!link_exists("vttap-web"));
        daemon.create(disk(&public, true));
    });
}

/// Opens a tap by name as Firecracker does, and says what came of it.
const BY_NAME: &str = r#"#!/usr/bin/python3
import fcntl, json, os, struct, sys, time
def attach(name):
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, 0x400454ca, struct.pack("16sH22x", name.encode(), 0x5002))
if "--config-file" in sys.argv:
    config = json.load(open(sys.argv[sys.argv.index("--config-file") + 1]))
    attach(config["network-interfaces"][0]["host_dev_name"])
    try:
        attach("vttap-other")
    except PermissionError as error:
        print("others' taps:", error, flush=True)
    if os.fork() == 0:
        says = os.path.join(os.path.dirname(sys.argv[0]), "says")
        os.execv("/usr/bin/python3", ["python3", "-BS", says, *sys.argv[1:]])
    open("/proc/self/comm", "w").write("fc_vcpu 0")
time.sleep(1000)
"#;

#[test]
fn a_tap_that_is_opened_by_name_belongs_to_its_hypervisors_user() {
    in_namespace(|| {
        let daemon = idle_hypervisors(json!({ "hypervisor_user": "65534" }));
        fs::write(daemon.folder.join("idle"), BY_NAME).expect("a program");
        // Where udev is, anybody can open this one.
        let tun = daemon.folder.join("tun").display().to_string();
        run(&format!("mknod -m 666 {tun} c 10 200"));
        run(&format!("mount --bind {tun} /dev/net/tun"));
        daemon.create(json!({ "name": "other", "config": { "hypervisor": "qemu" } }));
        let vm = daemon.create(started("web", json!({ "hypervisor": "firecracker" })));
        eventually("it has its tap", || descriptors(&vm["pid"]).contains(&"vttap-web".into()));
        let logs = || fs::read_to_string(daemon.folder.join("log/web.log")).unwrap_or_default();
        eventually("it was denied the other", || logs().contains("Operation not permitted"));
        let owner = |tap: &str| ip_link(tap)["linkinfo"]["info_data"]["user"].clone();
        assert_eq!((owner("vttap-web"), owner("vttap-other")), (json!("nobody"), json!("root")));
    });
}

/// Asks for a VM with a file, or with a user, as a member of the group `volnet`, and prints the
/// answer.
const MEMBER: &str = r#"
import json, socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
config = {
    "file": {"hypervisor": "qemu", "kernel_override": "/etc/shadow"},
    "user": {"hypervisor": "qemu", "kernel_override": "/etc/hostname", "run_as": "1234"},
    "own": {"hypervisor": "qemu", "kernel_override": "/etc/hostname", "run_as": "own"},
    "args": {"hypervisor": "qemu", "kernel_override": "/etc/hostname", "args": ["-S"]},
    "none": {},
}[sys.argv[2]]
parameters = {"name": "web", "config": config, "dry_run": True}
call = {"method": "io.volnet.Create", "parameters": parameters}
client.sendall(json.dumps(call).encode() + b"\n")
print(client.makefile().readline())
"#;

/// Lets the user 60000 be a member of the group `volnet`, here.
fn have_a_member(daemon: &Daemon) {
    let groups = daemon.folder.join("group");
    let listed = fs::read_to_string("/etc/group").expect("groups");
    fs::write(&groups, format!("volnet:x:60001:\n{listed}")).expect("groups");
    run(&format!("mount --bind {} /etc/group", groups.display()));
}

/// What the member is answered.
fn member(daemon: &Daemon, word: &str) -> Value {
    let output = Command::new("setpriv")
        .args(["--reuid=60000", "--regid=60000", "--groups=60001"])
        .args(["/usr/bin/python3", "-c", MEMBER])
        .args([daemon.socket().as_os_str(), word.as_ref()])
        .output()
        .expect("setpriv runs");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn only_root_names_a_user_or_arguments() {
    in_namespace(|| {
        let mut daemon = Daemon::without(&[]);
        have_a_member(&daemon);
        let settings = json!({ "hypervisor_user": "65534" });
        fs::write(daemon.folder.join("config.json"), settings.to_string()).expect("settings");
        daemon.start_again();
        let denied = member(&daemon, "user");
        assert_eq!(denied["parameters"]["field"], "run_as", "{denied}");
        let denied = member(&daemon, "args");
        assert_eq!(denied["parameters"]["field"], "args", "{denied}");
        assert!(member(&daemon, "own")["error"].is_null());
        let root = json!({ "name": "web", "config": { "hypervisor": "qemu", "run_as": "1234" } });
        assert_eq!(daemon.create(root)["uid"], 1234);
    });
}

#[test]
fn where_hypervisors_are_root_only_root_names_their_files() {
    in_namespace(|| {
        let mut daemon = Daemon::without(&[]);
        have_a_member(&daemon);
        for (user, word) in [("root", "only root may name their files"), ("65534", "user nobody")] {
            let settings = json!({ "hypervisor_user": user });
            fs::write(daemon.folder.join("config.json"), settings.to_string()).expect("settings");
            daemon.start_again();
            let denied = member(&daemon, "file");
            assert_eq!(denied["error"], "io.volnet.InvalidConfig", "{denied}");
            assert!(denied["parameters"]["reason"].as_str().unwrap().contains(word), "{denied}");
            assert!(member(&daemon, "none")["error"].is_null());
            daemon.stop();
        }
    });
}

#[test]
fn a_link_in_the_place_of_a_socket_leads_nowhere() {
    in_namespace(|| {
        let daemon = idle_hypervisors(json!({ "hypervisor_user": "65534" }));
        daemon.create(started("web", json!({ "hypervisor": "qemu" })));
        let private = daemon.folder.join("private");
        fs::create_dir(&private).expect("a folder");
        fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).expect("a folder");
        let listener = UnixListener::bind(private.join("root.sock")).expect("a socket");
        listener.set_nonblocking(true).expect("a socket");
        symlink(private.join("root.sock"), daemon.folder.join("run/vm/web/qmp.sock"))
            .expect("a link");
        let stopped = daemon.call("Stop", json!({ "name": "web", "timeout_ms": 5000 }));
        assert_eq!(stopped["parameters"]["vm"]["exit_signal"], 15, "{stopped}");
        let asked = listener.accept();
        assert_eq!(asked.expect_err("nobody comes").kind(), std::io::ErrorKind::WouldBlock);
    });
}

/// CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW
/// (linux/capability.h).
const KEPT: u64 = 1 << 0 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 12 | 1 << 13;
const CAP_DAC_OVERRIDE: u64 = 1 << 1;

#[test]
fn the_daemon_keeps_the_capabilities_that_it_needs() {
    in_namespace(|| {
        for (user, kept) in [("65534", KEPT), ("root", KEPT | CAP_DAC_OVERRIDE)] {
            let daemon = idle_hypervisors(json!({ "hypervisor_user": user }));
            // It starts a thread with the first link that is removed.
            daemon.create(json!({ "name": "web" }));
            daemon.call("Delete", json!({ "name": "web" }));
            let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs");
            let tasks: Vec<String> =
                tasks.flatten().map(|task| task.file_name().to_string_lossy().into()).collect();
            assert!(tasks.len() > 1, "{tasks:?}");
            for task in &tasks {
                for field in ["CapPrm", "CapEff", "CapBnd"] {
                    assert_eq!(status(task, field), format!("{kept:016x}"), "{field} of {task}");
                }
                for field in ["CapInh", "CapAmb"] {
                    assert_eq!(status(task, field), format!("{:016x}", 0), "{field} of {task}");
                }
                assert_eq!(
                    (status(task, "NoNewPrivs"), status(task, "Groups")),
                    ("1".into(), "".into())
                );
            }
            // Without a user of its own, a hypervisor is as the daemon.
            let vm = daemon.create(started("vm", json!({ "hypervisor": "qemu" })));
            let its = if user == "root" { kept } else { 0 };
            assert_eq!(status(&vm["pid"], "CapEff"), format!("{its:016x}"));
            assert_eq!(status(&vm["pid"], "CapBnd"), format!("{kept:016x}"));
            let answer = daemon.call("Delete", json!({ "name": "vm", "timeout_ms": 0 }));
            assert!(answer["error"].is_null(), "{answer}");
        }
    });
}
