//! The logs of VMs: whose they are, and how much they take.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::{eventually, in_namespace};

/// A daemon with hypervisors that are this line of the shell.
fn daemon(line: &str) -> Daemon {
    Daemon::configured(&json!({ "hypervisors": {
        "shell": { "program": "/bin/sh", "args": [["-c", line, "{name}"]] }
    } }))
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
