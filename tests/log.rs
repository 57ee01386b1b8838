//! The log of the daemon: what is told at which level, once, and how a request is followed in it.

#![cfg(target_os = "linux")]

mod common;

use std::path::Path;

use serde_json::json;

use common::daemon::Daemon;
use common::{eventually, in_namespace, run};

/// A daemon whose log has this much, in this format.
fn daemon(settings: serde_json::Value, level: &str, format: &str) -> Daemon {
    let mut daemon = Daemon::without(&[]);
    let file = daemon.folder.join("config.json");
    std::fs::write(file, settings.to_string()).expect("a configuration");
    daemon.set("VOLNET_LOG", level);
    daemon.set("VOLNET_LOG_FORMAT", format);
    daemon.start_again();
    daemon
}

/// The lines with all of these words.
fn lines(daemon: &Daemon, words: &[&str]) -> Vec<String> {
    let log = daemon.log();
    let lines = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
    lines.map(String::from).collect()
}

/// A field of a line.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let mut fields = line.split(' ').filter_map(|word| word.split_once('='));
    fields.find(|(field, _)| *field == name).unwrap_or_else(|| panic!("{name}: {line}")).1
}

#[test]
fn a_request_is_followed_from_the_socket_to_the_kernel() {
    in_namespace(|| {
        let daemon = daemon(json!({}), "debug", "text");
        // One write, which is carried out as a group.
        let mut connection = daemon.connect();
        let create = |name: &str| {
            let call = json!({ "method": "io.volnet.Create", "parameters": { "name": name } });
            format!("{call}\n")
        };
        connection.send(["web", "db"].map(create).concat().as_bytes());
        for _ in 0..2 {
            assert!(connection.receive().expect("an answer")["error"].is_null());
        }
        for name in ["web", "db"] {
            let vm = format!("vm={name} ");
            let asked = lines(&daemon, &["asked", "method=Create", &vm]);
            assert_eq!(asked.len(), 1, "{}", daemon.log());
            assert_eq!(field(&asked[0], "pid"), std::process::id().to_string());
            assert_eq!(field(&asked[0], "uid"), "0");
            let number = field(&asked[0], "id");
            let id = format!(" id={number}");
            let log = daemon.log();
            let theirs = log.lines().filter(|line| line.split(' ').any(|it| id[1..] == *it));
            let theirs: Vec<&str> = theirs.collect();
            let other = if name == "web" { "db" } else { "web" };
            let mut rest = theirs.iter();
            for words in [
                "asked".to_string(),
                format!("create tap vttap-{name}"),
                "the record is written".into(),
                format!("VM {name} was created"),
                "done".into(),
            ] {
                assert!(rest.any(|line| line.contains(&words)), "{words}: {theirs:#?}");
            }
            assert!(!theirs.iter().any(|line| line.contains(other)), "{theirs:#?}");
        }
        daemon.call("Delete", json!({ "name": "web" }));
        daemon.call("Delete", json!({ "name": "web" }));
        let refused = lines(&daemon, &["refused", "method=Delete", "no VM"]);
        assert_eq!(refused.len(), 1, "{}", daemon.log());
    });
}

#[test]
fn what_somebody_asked_for_is_for_debugging_alone() {
    in_namespace(|| {
        let daemon = daemon(json!({}), "info", "text");
        daemon.create(json!({ "name": "web" }));
        daemon.call("SetPolicy", json!({ "name": "web", "policy": "none" }));
        daemon.call("Start", json!({ "name": "web" }));
        daemon.call("Delete", json!({ "name": "web" }));
        let log = daemon.log();
        assert!(log.starts_with("INFO  volnet::daemon::serve: serves on "), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
    });
}

#[test]
fn a_drift_and_its_repair_are_one_warning() {
    in_namespace(|| {
        let daemon = daemon(json!({ "nft_owner": false }), "info", "journal");
        daemon.create(json!({ "name": "web" }));
        run("ip link set vttap-web down");
        let is_repaired = || !lines(&daemon, &["link vttap-web is down: repaired"]).is_empty();
        eventually("the repair is told", is_repaired);
        let told = ["<4>link vttap-web is down: repaired vm=web event=repaired"];
        assert_eq!(lines(&daemon, &["vttap-web"]), told);

        run("nft flush chain ip volnet forward");
        eventually("the repair is told", || !lines(&daemon, &[" by="]).is_empty());
        let told = lines(&daemon, &["event="]);
        assert_eq!(told.len(), 2, "{told:#?}");
        let is_named = told[1].starts_with("<4>") && told[1].contains("(nft)\"");
        assert!(is_named && told[1].contains("event=repaired by=\""), "{}", told[1]);
        let log = daemon.log();
        assert!(log.starts_with("<6>serves on "), "{log}");
    });
}

#[test]
fn a_hypervisor_that_fails_is_told_once() {
    in_namespace(|| {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vmm/cloud-hypervisor");
        let hypervisors = json!({ "cloud-hypervisor": { "program": program } });
        let settings = json!({ "kernel_vmlinux": "/bin/true", "hypervisors": hypervisors });
        let daemon = daemon(settings, "info", "text");
        let config = json!({
            "hypervisor": "cloud-hypervisor",
            "initramfs": { "url": "/etc/hostname" },
        });
        let vm = daemon.create(json!({ "name": "web", "start": true, "config": config }));
        run(&format!("kill -9 {}", vm["pid"]));
        eventually("its end is told", || !lines(&daemon, &["event=vm_exited"]).is_empty());
        let told = lines(&daemon, &["vm=web"]);
        let [started, ended] = &told[..] else { panic!("{told:#?}") };
        assert!(started.starts_with("INFO ") && started.contains("VM web was started"));
        assert!(ended.starts_with("WARN ") && ended.contains("signal 9"), "{ended}");

        let mut broken = config.clone();
        broken["kernel_override"] = json!("/etc/hostname");
        let failed = json!({ "name": "bad", "start": true, "config": broken });
        let failed = daemon.call("Create", failed);
        assert_eq!(failed["error"], "io.volnet.HypervisorFailed", "{failed}");
        let told = lines(&daemon, &["WARN", "VM bad: it ended with status 1 before"]);
        assert_eq!(told.len(), 1, "{}", daemon.log());
        assert_eq!(lines(&daemon, &["vm=bad event=vm_exited"]).len(), 1, "{}", daemon.log());
    });
}
