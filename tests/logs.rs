//! The logs of VMs: whose they are, and how much they take.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use common::daemon::Daemon;
use common::{eventually, in_namespace};

/// The bound of a log in these tests, in MiB and in bytes.
const BOUND_MB: u64 = 1;
const BOUND: u64 = BOUND_MB << 20;

/// Settings of hypervisors that are this line of the shell.
fn settings(line: &str) -> Value {
    json!({ "log_mb": BOUND_MB, "hypervisors": {
        "shell": { "program": "/bin/sh", "args": [["-c", line, "{name}"]] }
    } })
}

fn daemon(line: &str) -> Daemon {
    Daemon::configured(&settings(line))
}

fn create(daemon: &Daemon, name: &str, more: Value) {
    let mut config = json!({ "hypervisor": "shell", "kernel_override": "/etc/hostname" });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = daemon.call("Create", json!({ "name": name, "start": true, "config": config }));
    assert!(answer["error"].is_null(), "{answer}");
}

fn delete(daemon: &Daemon, name: &str) {
    let answer = daemon.call("Delete", json!({ "name": name, "timeout_ms": 0 }));
    assert!(answer["error"].is_null(), "{answer}");
}

fn path(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.folder.join(format!("log/{name}.log"))
}

fn log(daemon: &Daemon, name: &str) -> String {
    fs::read_to_string(path(daemon, name)).unwrap_or_default()
}

#[test]
fn a_log_ends_with_its_vm() {
    in_namespace(|| {
        let mut daemon = daemon("echo $$ is of $0; exec sleep 100000");
        let starts = || log(&daemon, "box").matches("is of box").count();
        create(&daemon, "box", json!({}));
        eventually("it has printed something", || starts() == 1);
        // A restart of the same VM goes on with its log.
        let answer = daemon.call("Restart", json!({ "name": "box", "timeout_ms": 0 }));
        assert!(answer["error"].is_null(), "{answer}");
        eventually("it has printed more", || starts() == 2);
        delete(&daemon, "box");
        assert!(!path(&daemon, "box").exists());
        create(&daemon, "box", json!({}));
        eventually("the next one has printed something", || starts() == 1);
        delete(&daemon, "box");

        // What is left of one whose record went with the host is not of the next one.
        daemon.stop();
        fs::write(path(&daemon, "box"), "the tenant before is of box\n").unwrap();
        daemon.start_again();
        create(&daemon, "box", json!({ "ephemeral": true }));
        eventually("it has printed something", || log(&daemon, "box").contains("is of box"));
        assert!(!log(&daemon, "box").contains("the tenant before"));
    });
}

/// The processes that keep the logs of this daemon's VMs, by VM.
fn keepers(daemon: &Daemon) -> Vec<(String, u32)> {
    let run = format!("VOLNET_RUNTIME={}", daemon.folder.join("run").display());
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let keeper = |pid: u32| {
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).ok()?;
        let mut entries = environment.split('\0');
        let vm = entries.clone().find_map(|entry| entry.strip_prefix("VOLNET_KEEPER="))?;
        entries.any(|entry| entry == run).then(|| (vm.to_string(), pid))
    };
    pids.filter_map(keeper).collect()
}

fn size(daemon: &Daemon, name: &str) -> u64 {
    fs::metadata(path(daemon, name)).map_or(0, |log| log.len())
}

/// Waits until a VM has printed more than its log may have.
fn flooded(daemon: &Daemon, name: &str) {
    eventually("it has printed much", || {
        assert!(size(daemon, name) <= BOUND);
        log(daemon, name).starts_with("--- volnet dropped ")
    });
}

#[test]
fn a_log_is_bounded_whatever_its_vm_prints_and_the_newest_is_kept() {
    in_namespace(|| {
        let line = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); echo $0 says line number $i; done; \
            echo the last words; exec sleep 100000";
        let daemon = daemon(line);
        create(&daemon, "chatty", json!({}));
        eventually("it has said all", || log(&daemon, "chatty").ends_with("the last words\n"));
        let log = log(&daemon, "chatty");
        assert!(log.len() as u64 <= BOUND, "{}", log.len());
        let (first, rest) = log.split_once('\n').unwrap();
        let dropped = first.strip_prefix("--- volnet dropped ").expect("the first line");
        let dropped: u64 = dropped.split(' ').next().unwrap().parse().unwrap();
        let said = "--- volnet starts /bin/sh\n".len()
            + (1..=60_000).map(|n| format!("chatty says line number {n}\n").len()).sum::<usize>()
            + "the last words\n".len();
        assert_eq!(dropped as usize + rest.len(), said);
        for (at, line) in rest.lines().rev().skip(1).enumerate() {
            assert_eq!(line, format!("chatty says line number {}", 60_000 - at));
        }
    });
}

#[test]
fn a_log_is_bounded_while_the_daemon_is_down_and_its_keeper_ends_with_the_vm() {
    in_namespace(|| {
        let mut daemon = daemon("exec yes $0 says what it says");
        create(&daemon, "chatty", json!({}));
        create(&daemon, "other", json!({}));
        flooded(&daemon, "chatty");
        daemon.crash();
        let gone = || log(&daemon, "chatty").split(' ').nth(3).map(str::to_owned);
        let before = gone();
        eventually("it goes on", || size(&daemon, "chatty") <= BOUND && gone() != before);
        assert_eq!(keepers(&daemon).len(), 2);
        daemon.start_again();
        let answer = daemon.call("Restart", json!({ "name": "chatty", "timeout_ms": 0 }));
        assert!(answer["error"].is_null(), "{answer}");
        flooded(&daemon, "chatty");
        eventually("one keeper of each", || keepers(&daemon).len() == 2);
        delete(&daemon, "chatty");
        delete(&daemon, "other");
        eventually("no keeper is left", || keepers(&daemon).is_empty());
        assert!(!path(&daemon, "chatty").exists());
    });
}

#[test]
fn a_keeper_lets_signals_pass_and_has_no_rights() {
    in_namespace(|| {
        let daemon =
            daemon("trap 'echo last words; exit 3' TERM; echo up; while :; do sleep 0.01; done");
        create(&daemon, "web", json!({}));
        let (_, keeper) = keepers(&daemon).remove(0);
        let status = fs::read_to_string(format!("/proc/{keeper}/status")).unwrap();
        let empty = |name: &str| status.contains(&format!("{name}:\t0000000000000000\n"));
        assert!(["CapInh", "CapPrm", "CapEff", "CapAmb"].into_iter().all(empty), "{status}");
        let descriptors = fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count();
        // Standard input, output and error, a copy of the first two, the messages and their log,
        // the hypervisor's input, and the socket of the console.
        assert!(descriptors <= 9, "{descriptors}");
        for signal in ["TERM", "INT", "HUP"] {
            Command::new("kill").args(["-s", signal, &keeper.to_string()]).status().unwrap();
        }
        let answer = daemon.call("Stop", json!({ "name": "web", "timeout_ms": 10000 }));
        assert!(answer["error"].is_null(), "{answer}");
        assert!(log(&daemon, "web").ends_with("up\nlast words\n"), "{}", log(&daemon, "web"));
        assert!(keepers(&daemon).is_empty());
    });
}

#[test]
fn whoever_follows_a_log_misses_nothing_of_its_end() {
    in_namespace(|| {
        // The shell waits for somebody who writes to a pipe in its folder, which is not there.
        let line = "mkfifo $1; exec 3<>$1; i=0; while read _ <&3; do n=0; \
            while [ $n -lt 20000 ]; do n=$((n+1)); i=$((i+1)); echo line number $i of $0; \
            done; done";
        let mut settings = settings(line);
        settings["hypervisors"]["shell"]["args"] = json!([["-c", line, "{name}", "{folder}/go"]]);
        let daemon = Daemon::configured(&settings);
        create(&daemon, "web", json!({}));
        let mut follower = Command::new(&daemon.program)
            .args(["logs", "-f", "web", "--log-dir"])
            .arg(daemon.folder.join("log"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
        let mut line = || lines.next().unwrap().unwrap();
        assert_eq!(line(), "--- volnet starts /bin/sh");
        let go = daemon.folder.join("run/vm/web/go");
        eventually("it waits", || go.exists());
        // Each round is less than half of the bound, so the follower can keep up.
        for round in 0..4 {
            fs::write(&go, "\n").unwrap();
            for n in 1..=20_000 {
                assert_eq!(line(), format!("line number {} of web", round * 20_000 + n));
            }
        }
        assert!(log(&daemon, "web").starts_with("--- volnet dropped "));
        follower.kill().unwrap();
        follower.wait().unwrap();
    });
}

#[test]
fn a_guest_does_not_fill_the_disk() {
    in_namespace(|| {
        let mut daemon = Daemon::without(&[]);
        let mut settings = settings("exec yes $0 says what it says");
        settings["log_mb"] = json!(1024);
        fs::write(daemon.folder.join("config.json"), settings.to_string()).unwrap();
        // Logs and records are on one small disk.
        for name in ["disk", "disk/state", "disk/log"] {
            fs::create_dir(daemon.folder.join(name)).unwrap();
            if name == "disk" {
                let disk = daemon.folder.join(name);
                mount(Some("disk"), &disk, Some("tmpfs"), MsFlags::empty(), Some("size=16m"))
                    .unwrap();
            }
        }
        for name in ["state", "log"] {
            std::os::unix::fs::symlink(format!("disk/{name}"), daemon.folder.join(name)).unwrap();
        }
        daemon.start_again();
        let check = |daemon: &Daemon| {
            let findings = daemon.call("Check", json!({}))["parameters"]["findings"].take();
            findings.as_array().unwrap().iter().filter(|found| found["check"] == "disk").count()
        };
        assert_eq!(check(&daemon), 0);
        create(&daemon, "chatty", json!({}));
        eventually("there is no room for its log", || {
            log(&daemon, "chatty").starts_with("--- volnet dropped ")
        });
        for n in 0..20 {
            let answer = daemon.call("Create", json!({ "name": format!("vm{n}") }));
            assert!(answer["error"].is_null(), "{answer}");
        }
        // Others fill it.
        let others = daemon.folder.join("disk/others");
        let mut others = fs::File::create(others).unwrap();
        let mut left = 12 << 20;
        eventually("the log makes room", || {
            let written = others.write(&vec![1; left.min(256 << 10)]).unwrap_or(0);
            left -= written;
            left == 0
        });
        eventually("the log is small", || size(&daemon, "chatty") <= 3 << 20);
        eventually("check says so", || check(&daemon) > 0);
        let answer = daemon.call("Create", json!({ "name": "last" }));
        assert!(answer["error"].is_null(), "{answer}");
    });
}

#[test]
fn a_program_that_opens_its_log_by_name_writes_to_it() {
    in_namespace(|| {
        let mut settings = settings("");
        settings["hypervisor_user"] = json!("nobody");
        let line = "id -nu >> $1; echo by name > $1; exec sleep 100000";
        settings["hypervisors"]["shell"]["args"] = json!([["-c", line, "{name}", "{log}"]]);
        let daemon = Daemon::configured(&settings);
        create(&daemon, "web", json!({}));
        eventually("it has printed something", || {
            log(&daemon, "web") == "--- volnet starts /bin/sh\nnobody\nby name\n"
        });
    });
}
