//! A state directory that cannot be written or read: a request that needs it fails with the reason
//! and is undone, and everything else goes on.

mod common;

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use common::agreement::Agreement;
use common::daemon::Daemon;
use common::{in_namespace, link_exists, run};

/// The whole of the state directory's file system, in the words of mount(8).
const SIZE: &str = "size=256k";

/// A daemon whose state directory is a file system of its own, with a VM `web` that runs and a VM
/// `idle` that does not.
fn daemon() -> (Daemon, Agreement) {
    let mut daemon = Daemon::without(&[]);
    let configuration = json!({ "hypervisors": {
        "plain": { "program": "sleep", "args": [["100000"]] }
    } });
    fs::write(daemon.folder.join("config.json"), configuration.to_string()).unwrap();
    fs::create_dir(state(&daemon)).unwrap();
    mount(Some("state"), &state(&daemon), Some("tmpfs"), MsFlags::empty(), Some(SIZE)).unwrap();
    daemon.start_again();
    let agreement = Agreement::with(&daemon);
    for (name, start) in [("web", true), ("idle", false)] {
        let answer = create(&daemon, name, start, json!({}));
        assert!(answer["error"].is_null(), "{answer}");
    }
    agreement.check(&daemon);
    (daemon, agreement)
}

fn state(daemon: &Daemon) -> PathBuf {
    daemon.folder.join("state")
}

fn record(daemon: &Daemon, name: &str) -> PathBuf {
    state(daemon).join(format!("vms/{name}.json"))
}

fn create(daemon: &Daemon, name: &str, start: bool, more: Value) -> Value {
    let mut config = json!({ "hypervisor": "plain", "kernel_override": "/etc/hostname" });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    daemon.call("Create", json!({ "name": name, "start": start, "config": config }))
}

fn call(daemon: &Daemon, method: &str, name: &str) -> Value {
    daemon.call(method, json!({ "name": name }))
}

/// The answer says that the record of this VM could not be written, and why.
fn not_written(daemon: &Daemon, answer: &Value, name: &str, why: &str) {
    assert_eq!(answer["error"], "io.volnet.StateNotWritten", "{answer}");
    let path = record(daemon, name);
    assert_eq!(answer["parameters"]["path"], path.to_str().unwrap(), "{answer}");
    assert!(answer["parameters"]["reason"].as_str().unwrap().contains(why), "{answer}");
}

/// What needs no state works, and nothing of what failed is left.
fn goes_on(daemon: &Daemon, agreement: &Agreement, before: &[Value]) {
    assert_eq!(told(&agreement.check(daemon)), told(before));
    let passing = json!({ "ephemeral": true });
    let answer = create(daemon, "passing", true, passing);
    assert!(answer["error"].is_null(), "{answer}");
    agreement.check(daemon);
    let answer = daemon.call("Delete", json!({ "name": "passing", "timeout_ms": 1000 }));
    assert!(answer["error"].is_null(), "{answer}");
    assert_eq!(told(&agreement.check(daemon)), told(before));
}

/// What is told of VMs, except why the last start failed.
fn told(vms: &[Value]) -> Vec<Value> {
    let mut vms = vms.to_vec();
    vms.iter_mut().for_each(|vm| drop(vm["last_error"].take()));
    vms
}

/// Writes a file until there is no room for more.
fn fill(path: &Path) {
    let mut size = 1 << 20;
    while size > 0 {
        let mut contents = fs::read(path).unwrap_or_default();
        contents.resize(contents.len() + size, 0);
        if fs::write(path, contents).is_err() {
            size /= 2;
        }
    }
}

#[test]
fn a_full_state_directory_fails_what_needs_it_and_nothing_else() {
    in_namespace(|| {
        let (mut daemon, agreement) = daemon();
        let filler = state(&daemon).join("filler");
        fill(&filler);
        let before = agreement.check(&daemon);
        let why = "No space left on device";
        for (answer, name) in [
            (create(&daemon, "db", true, json!({})), "db"),
            (create(&daemon, "db", false, json!({})), "db"),
            (call(&daemon, "Start", "idle"), "idle"),
        ] {
            not_written(&daemon, &answer, name, why);
            goes_on(&daemon, &agreement, &before);
        }
        daemon.crash();
        daemon.start_again();
        goes_on(&daemon, &agreement, &before);

        // Room comes of what is removed.
        assert!(call(&daemon, "Delete", "idle")["error"].is_null());
        fs::remove_file(filler).unwrap();
        let answer = create(&daemon, "db", true, json!({}));
        assert!(answer["error"].is_null(), "{answer}");
        assert_eq!(agreement.check(&daemon).len(), 2);
    });
}

#[test]
fn of_creates_that_come_together_the_one_that_cannot_be_written_fails_alone() {
    in_namespace(|| {
        let (daemon, agreement) = daemon();
        let mut expected: Vec<String> = vec!["idle".into(), "web".into()];
        // Where the record of one goes by is the kernel's own full disk.
        let full = record(&daemon, "vm20").with_file_name(".vm20.json.tmp");
        symlink("/dev/full", full).unwrap();
        let create = |name: String, more: Value| {
            let parameters = json!({ "name": name, "config": { "network": more } });
            json!({ "method": "io.volnet.Create", "parameters": parameters }).to_string() + "\n"
        };
        let ip = json!({ "ip": "192.168.127.200" });
        let mut requests: Vec<String> =
            (0..50).map(|number| create(format!("vm{number}"), json!({}))).collect();
        requests.push(create("first".into(), ip.clone()));
        requests.push(create("second".into(), ip));
        requests.push(create("vm0".into(), json!({})));
        let mut client = daemon.connect();
        client.send(requests.concat().as_bytes());
        for number in 0..50 {
            let (answer, name) = (client.receive().unwrap(), format!("vm{number}"));
            if number == 20 {
                not_written(&daemon, &answer, &name, "No space left");
            } else {
                assert_eq!(answer["parameters"]["vm"]["name"], *name, "{answer}");
                assert!(record(&daemon, &name).is_file(), "{name} was answered before");
                expected.push(name);
            }
        }
        assert_eq!(client.receive().unwrap()["parameters"]["vm"]["name"], "first");
        let answer = client.receive().unwrap();
        assert_eq!(answer["error"], "io.volnet.AddressInUse", "{answer}");
        assert_eq!(answer["parameters"]["owner"], "first", "{answer}");
        assert_eq!(client.receive().unwrap()["parameters"]["vm"]["name"], "vm0");
        expected.push("first".into());
        expected.sort();
        let vms = agreement.check(&daemon);
        let mut names: Vec<&str> = vms.iter().map(|vm| vm["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, expected);
        assert!(!link_exists("vttap-vm20"));
        // It was undone, not found and healed.
        let log = daemon.log();
        assert!(!log.contains("left over") && !log.contains("repaired"), "{log}");
        let answer = daemon.call("Create", json!({ "name": "vm20", "config": {} }));
        assert!(answer["error"].is_null(), "{answer}");
        agreement.check(&daemon);
    });
}

#[test]
fn a_stop_that_cannot_be_written_down_is_one_all_the_same() {
    in_namespace(|| {
        let (daemon, agreement) = daemon();
        fill(&state(&daemon).join("filler"));
        let answer = daemon.call("Stop", json!({ "name": "web", "timeout_ms": 1000 }));
        not_written(&daemon, &answer, "web", "No space left on device");
        assert_eq!(call(&daemon, "Get", "web")["parameters"]["vm"]["status"], "stopped");
        agreement.check(&daemon);
    });
}

#[test]
fn a_read_only_state_directory_fails_what_needs_it_and_nothing_else() {
    in_namespace(|| {
        let (mut daemon, agreement) = daemon();
        let before = agreement.check(&daemon);
        let directory = state(&daemon);
        let remount = |how| {
            let flags = MsFlags::MS_REMOUNT | how;
            mount(None::<&str>, &directory, None::<&str>, flags, Some(SIZE)).unwrap();
        };
        remount(MsFlags::MS_RDONLY);
        let why = "Read-only file system";
        for (answer, name) in [
            (create(&daemon, "db", true, json!({})), "db"),
            (call(&daemon, "Start", "idle"), "idle"),
            (call(&daemon, "Delete", "idle"), "idle"),
        ] {
            not_written(&daemon, &answer, name, why);
            goes_on(&daemon, &agreement, &before);
        }
        daemon.crash();
        daemon.start_again();
        goes_on(&daemon, &agreement, &before);
        let second = daemon.volnet(&["serve"]);
        assert_eq!(second.status.code(), Some(1));

        remount(MsFlags::empty());
        let answer = create(&daemon, "db", true, json!({}));
        assert!(answer["error"].is_null(), "{answer}");
        assert_eq!(agreement.check(&daemon).len(), 3);
    });
}

#[test]
fn a_record_that_was_cut_short_is_moved_aside_and_the_others_come_up() {
    in_namespace(|| {
        let (mut daemon, agreement) = daemon();
        create(&daemon, "torn", true, json!({}));
        let before = agreement.check(&daemon);
        daemon.stop();
        let path = record(&daemon, "torn");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        daemon.start_again();
        let aside = path.with_extension("json.bad-1");
        let said = format!("cannot use a file, moved it to {}", aside.display());
        assert!(daemon.log().contains(&said), "{}", daemon.log());
        assert_eq!(fs::read(&aside).unwrap().len(), whole.len() / 2);
        fs::remove_file(aside).unwrap();
        let vms = agreement.check(&daemon);
        let others: Vec<_> = before.into_iter().filter(|vm| vm["name"] != "torn").collect();
        assert_eq!(vms, others);
    });
}

#[test]
fn a_record_of_another_owner_is_refused_and_vms_run_on() {
    in_namespace(|| {
        let (mut daemon, agreement) = daemon();
        let before = agreement.check(&daemon);
        daemon.stop();
        let path = record(&daemon, "web");
        chown(&path, Some(12345), None).unwrap();
        let refused = daemon.volnet(&["serve"]);
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1));
        assert!(words.contains(path.to_str().unwrap()) && words.contains("user 12345"), "{words}");
        assert!(path.exists() && link_exists("vttap-web"));
        assert_eq!(daemon.hypervisors().len(), 1);

        run(&format!("chown 0 {}", path.display()));
        daemon.start_again();
        assert_eq!(agreement.check(&daemon), before);
    });
}
