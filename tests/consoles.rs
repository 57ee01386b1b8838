//! The consoles of VMs: who sees and types what, and that nobody waits for anybody. Stand-ins play
//! Cloud Hypervisor and Firecracker (`tests/vmm`), with a shell as their guest. That of QEMU is
//! used by a person at a terminal in `guests.rs`.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use common::daemon::Daemon;
use common::{KVM, PATIENCE, copy_devices, eventually, in_namespace, put_device, run, stand_in};

const VMMS: [&str; 2] = ["cloud-hypervisor", "firecracker"];
/// How often a guest powers off: that its last words are lost would be a matter of luck.
const ROUNDS: usize = 20;
/// How many readers a console takes.
const VIEWERS: usize = 8;

fn settings() -> Value {
    json!({
        "log_mb": 1,
        "hypervisors": {
            "cloud-hypervisor": { "program": stand_in("cloud-hypervisor") },
            "firecracker": { "program": stand_in("firecracker") }
        }
    })
}

fn daemon() -> Daemon {
    Daemon::configured(&settings())
}

/// Starts a VM whose guest does this.
fn start(daemon: &Daemon, name: &str, vmm: &str, guest: &str) -> Value {
    let vm = daemon.create(json!({ "name": name, "start": true, "config": {
        "hypervisor": vmm,
        "kernel_override": env!("CARGO_BIN_EXE_volnet"),
        "kernel_cmdline": format!("guest={guest}"),
    } }));
    assert_eq!(vm["status"], "running", "{vm}");
    vm
}

fn status(daemon: &Daemon, name: &str) -> Value {
    daemon.call("Get", json!({ "name": name }))["parameters"]["vm"]["status"].take()
}

fn socket(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.folder.join("run/console").join(name)
}

fn log(daemon: &Daemon, file: &str) -> String {
    fs::read_to_string(daemon.folder.join("log").join(file)).unwrap_or_default()
}

/// Somebody at a console.
fn connect(daemon: &Daemon, name: &str) -> UnixStream {
    let stream = UnixStream::connect(socket(daemon, name)).expect("a console");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Reads until this has come.
fn expect(from: &mut impl Read, text: &str) {
    let mut seen = Vec::new();
    while !seen.ends_with(text.as_bytes()) {
        let mut byte = [0];
        let length = from.read(&mut byte).unwrap_or_else(|error| {
            panic!("{error}: only {:?}", String::from_utf8_lossy(&seen));
        });
        assert_eq!(length, 1, "only {:?}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
}

/// The command line tool, with a flag that names a folder of this daemon.
fn tool(daemon: &Daemon, args: &[&str], folder: &str) -> Command {
    let mut command = Command::new(&daemon.program);
    command.args(args).arg(daemon.folder.join(folder));
    command
}

/// `volnet console`, typed by a program.
fn console(daemon: &Daemon, name: &str) -> Child {
    let mut command = tool(daemon, &["console", name, "--runtime-dir"], "run");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("volnet")
}

/// The processes that keep the consoles of this daemon's VMs.
fn keepers(daemon: &Daemon) -> Vec<u32> {
    let run = format!("VOLNET_RUNTIME={}", daemon.folder.join("run").display());
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_keeper = |pid: &u32| {
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut entries = environment.split('\0');
        entries.clone().any(|entry| entry.starts_with("VOLNET_KEEPER="))
            && entries.any(|entry| entry == run)
    };
    pids.filter(is_keeper).collect()
}

#[test]
fn guests_are_spoken_to_on_their_consoles_also_when_the_daemon_is_another() {
    for vmm in VMMS {
        in_namespace(|| {
            let mut daemon = daemon();
            start(&daemon, "web", vmm, "shell");
            for round in 0..3 {
                let mut other = connect(&daemon, "web");
                let mut child = console(&daemon, "web");
                let (mut keys, mut screen) =
                    (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
                keys.write_all(format!("line {round}\r").as_bytes()).unwrap();
                expect(&mut screen, &format!("LINE {round}\r\n"));
                expect(&mut other, &format!("LINE {round}\r\n"));
                other.write_all(b"both\r").unwrap();
                expect(&mut screen, "BOTH\r\n");
                keys.write_all(b"\x1d").unwrap();
                assert_eq!(child.wait().unwrap().code(), Some(0));
                match round {
                    0 => daemon.crash(),
                    1 => daemon.start_again(),
                    _ => {}
                }
            }
            let of_guest = log(&daemon, "web.log");
            assert!(of_guest.starts_with(&format!("--- volnet starts {}\n", stand_in(vmm))));
            assert!(of_guest.contains("login: "), "{of_guest}");
            assert!(of_guest.matches("BOTH").count() == 3, "{of_guest}");
            // What the hypervisor says itself is elsewhere.
            let logs = tool(&daemon, &["logs", "web", "--messages", "--log-dir"], "log").output();
            let starts = format!("--- volnet starts {}\n", stand_in(vmm));
            assert_eq!(logs.expect("volnet runs").stdout, starts.as_bytes());
            let stopped = daemon.call("Stop", json!({ "name": "web" }));
            assert_eq!(stopped["parameters"]["vm"]["status"], "stopped", "{stopped}");
            assert!(!socket(&daemon, "web").exists());
            eventually("its keeper ends", || keepers(&daemon).is_empty());
            let deleted = daemon.call("Delete", json!({ "name": "web" }));
            assert!(deleted["error"].is_null(), "{deleted}");
            let left: Vec<_> =
                fs::read_dir(daemon.folder.join("log/hypervisor")).unwrap().collect();
            assert!(left.is_empty(), "{left:?}");
        });
    }
}

#[test]
fn what_a_hypervisor_says_is_not_between_what_its_guest_prints() {
    for vmm in VMMS {
        in_namespace(|| {
            let daemon = daemon();
            let config = json!({ "hypervisor": vmm, "kernel_override": "/etc/hostname" });
            let made = daemon.create(json!({ "name": "web", "config": config }));
            assert_eq!(made["status"], "created");
            let failed = daemon.call("Start", json!({ "name": "web" }));
            let told = failed["parameters"]["log"].to_string();
            assert!(told.contains("kernel"), "{failed}");
            let starts = format!("--- volnet starts {}\n", stand_in(vmm));
            assert_eq!(log(&daemon, "web.log"), starts);
            let messages = log(&daemon, "hypervisor/web.log");
            assert!(messages.starts_with(&starts) && messages.len() > starts.len(), "{messages}");
            let refused = tool(&daemon, &["console", "web", "--runtime-dir"], "run").output();
            let refused = refused.expect("volnet runs");
            assert_eq!(refused.status.code(), Some(1));
            let words = String::from_utf8(refused.stderr).unwrap();
            assert!(
                words.starts_with("volnet: VM web has no console: it is not running"),
                "{words}"
            );
        });
    }
}

#[test]
fn the_last_words_of_a_guest_are_in_its_log_and_on_its_console() {
    for vmm in VMMS {
        in_namespace(|| {
            let daemon = daemon();
            start(&daemon, "web", vmm, "shell");
            for round in 1..=ROUNDS {
                let mut viewer = connect(&daemon, "web");
                // What is unread when the console ends is no reason to lose what it shows.
                viewer.write_all(b"poweroff\rnobody reads this\r").unwrap();
                let mut seen = Vec::new();
                let end = viewer.read_to_end(&mut seen);
                assert!(end.is_ok() || end.unwrap_err().kind() == ErrorKind::ConnectionReset);
                let seen = String::from_utf8(seen).unwrap();
                assert!(seen.ends_with("reboot: Power down\r\n"), "{round}: {seen}");
                eventually("it is off", || status(&daemon, "web") == "stopped");
                let log = log(&daemon, "web.log");
                assert!(log.ends_with("reboot: Power down\r\n"), "{round}: {log}");
                assert_eq!(log.matches("reboot: Power down").count(), round);
                let again = daemon.call("Start", json!({ "name": "web" }));
                assert!(again["error"].is_null(), "{again}");
            }
            let mut child = console(&daemon, "web");
            child.stdin.take().expect("a pipe").write_all(b"poweroff\r").unwrap();
            let mut seen = String::new();
            child.stdout.take().expect("a pipe").read_to_string(&mut seen).unwrap();
            assert!(seen.ends_with("reboot: Power down\r\n"), "{seen}");
            assert_eq!(
                child.wait().unwrap().code(),
                Some(0),
                "the guest's end is one of `console`"
            );
        });
    }
}

#[test]
fn who_does_not_read_keeps_nobody_waiting_and_is_told() {
    for vmm in VMMS {
        in_namespace(|| {
            let daemon = daemon();
            start(&daemon, "web", vmm, "flood");
            let (mut idle, mut busy) = (connect(&daemon, "web"), connect(&daemon, "web"));
            let gone = |log: &str| log.split(' ').nth(3).map(str::to_owned);
            eventually("the log moves on", || {
                log(&daemon, "web.log").starts_with("--- volnet dropped")
            });
            let before = gone(&log(&daemon, "web.log"));
            // More than the socket of a reader that does not read holds.
            let mut chunk = vec![0; 1 << 20];
            busy.read_exact(&mut chunk).expect("the guest goes on");
            eventually("and so does the log", || gone(&log(&daemon, "web.log")) != before);
            expect(&mut idle, " bytes are only in the log\r\n");
            assert_eq!(status(&daemon, "web"), "running");
        });
    }
}

/// Whether a process sleeps, each time when somebody looks.
fn sleeps(pid: u32) -> bool {
    let state = |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        stat[stat.rfind(')').expect("a name") + 2..].starts_with('S')
    };
    (0..20).all(|_| {
        std::thread::yield_now();
        state(pid)
    })
}

#[test]
fn what_nobody_reads_stays_with_whoever_types_it() {
    for vmm in VMMS {
        in_namespace(|| {
            let daemon = daemon();
            start(&daemon, "web", vmm, "hold");
            let keeper = keepers(&daemon)[0];
            let mut typist = connect(&daemon, "web");
            typist.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            let full = typist.write_all(&[b'x'; 4 << 20]).expect_err("the guest reads nothing");
            assert_eq!(full.kind(), ErrorKind::WouldBlock);
            // A connection of which one half is over.
            let half = connect(&daemon, "web");
            half.shutdown(std::net::Shutdown::Write).unwrap();
            eventually("its keeper sleeps", || sleeps(keeper));
            drop((typist, half));
            eventually("its keeper still sleeps", || sleeps(keeper));
            let stopped = daemon.call("Stop", json!({ "name": "web" }));
            assert_eq!(stopped["parameters"]["vm"]["exit_code"], 0, "{stopped}");
        });
    }
}

#[test]
fn a_console_has_room_for_some() {
    in_namespace(|| {
        let daemon = daemon();
        start(&daemon, "web", "firecracker", "shell");
        let mut viewers: Vec<UnixStream> = (0..VIEWERS).map(|_| connect(&daemon, "web")).collect();
        let mut said = String::new();
        connect(&daemon, "web").read_to_string(&mut said).expect("words");
        assert!(said.starts_with("volnet: this console has as many readers"), "{said}");
        viewers.pop();
        eventually("there is room for another", || {
            let mut viewer = connect(&daemon, "web");
            viewer.write_all(b"me\r").is_ok() && {
                let mut seen = [0; 2];
                viewer.read_exact(&mut seen).is_ok() && &seen == b"\r\n"
            }
        });
        viewers[0].write_all(b"i am here\r").unwrap();
        expect(&mut viewers[0], "I AM HERE\r\n");
    });
}

/// Connects to a console as a user, and types.
const AS_USER: &str = "
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.settimeout(10)
client.connect(sys.argv[1])
client.sendall(b'from a user\\r')
seen = b''
while b'FROM A USER' not in seen:
    seen += client.recv(100)
";

#[test]
fn who_may_use_the_daemon_may_use_its_consoles_and_nobody_else() {
    in_namespace(|| {
        let mut daemon = Daemon::without(&[]);
        let groups = daemon.folder.join("group");
        let listed = fs::read_to_string("/etc/group").expect("groups");
        fs::write(&groups, format!("volnet:x:60001:\n{listed}")).expect("groups");
        run(&format!("mount --bind {} /etc/group", groups.display()));
        let mut settings = settings();
        settings["hypervisor_user"] = json!("65534");
        fs::write(daemon.folder.join("config.json"), settings.to_string()).expect("settings");
        daemon.start_again();
        copy_devices(&daemon.folder);
        put_device(KVM.0, KVM.1, 0o666, 0);
        start(&daemon, "web", "cloud-hypervisor", "shell");
        let connects = |ids: [&str; 3]| {
            let output = Command::new("setpriv")
                .args(ids)
                .args(["/usr/bin/python3", "-c", AS_USER])
                .arg(socket(&daemon, "web"))
                .output()
                .expect("setpriv runs");
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (_, told) = connects(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        assert!(told.contains("PermissionError"), "the hypervisor's own user: {told}");
        let (admitted, told) = connects(["--reuid=60000", "--regid=60000", "--groups=60001"]);
        assert!(admitted, "a member: {told}");
    });
}

#[test]
fn a_vm_outlives_its_keeper_and_a_console_that_is_not_there_is_told() {
    for vmm in VMMS {
        in_namespace(|| {
            let daemon = daemon();
            start(&daemon, "web", vmm, "shell");
            let refused = |why: &str| {
                let output = tool(&daemon, &["console", "web", "--runtime-dir"], "run").output();
                let output = output.expect("volnet runs");
                let words = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(1), "{why}: {words}");
                assert!(words.contains("VM web has no console"), "{why}: {words}");
            };
            let mut viewer = connect(&daemon, "web");
            kill(Pid::from_raw(keepers(&daemon)[0] as i32), Signal::SIGKILL).unwrap();
            let _ = viewer.read_to_end(&mut Vec::new());
            refused("its keeper was killed");
            // So it is with a VM that a volnet before consoles has started.
            fs::remove_file(socket(&daemon, "web")).unwrap();
            refused("it has no socket");
            assert_eq!(status(&daemon, "web"), "running");
            let again = daemon.call("Restart", json!({ "name": "web" }));
            assert!(again["error"].is_null(), "{again}");
            connect(&daemon, "web").write_all(b"x").unwrap();
        });
    }
}
