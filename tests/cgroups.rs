//! The control groups of VMs, on the kernel's own file system: who is in them, what limits them,
//! and when they end. Stand-ins play the hypervisors (`tests/vmm`).

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use common::daemon::Daemon;
use common::{eventually, in_namespace, run};

/// A daemon, and the control group that it has, which no other test has.
fn daemon() -> (Daemon, PathBuf) {
    let mut daemon = Daemon::without(&[]);
    let mount = daemon.folder.join("cgroup");
    fs::create_dir(&mount).expect("a directory");
    run(&format!("mount -t cgroup2 none {}", mount.display()));
    let name = daemon.folder.file_name().expect("a name").to_owned();
    let root = mount.join(name);
    let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vmm/cloud-hypervisor");
    let settings = json!({
        "cgroup": root,
        "hypervisors": { "cloud-hypervisor": { "program": stand_in } },
        // The stand-in takes any ELF file for a kernel.
        "kernel_bzimage": "/bin/true",
        "kernel_vmlinux": "/bin/true",
    });
    fs::write(daemon.folder.join("config.json"), settings.to_string()).expect("settings");
    daemon.start_again();
    (daemon, root)
}

fn parameters(name: &str, resources: Value) -> Value {
    let config = json!({
        "hypervisor": "cloud-hypervisor",
        "initramfs": { "url": "/etc/hostname" },
        "resources": resources,
    });
    json!({ "name": name, "start": true, "config": config })
}

fn create(daemon: &Daemon, name: &str, resources: Value) -> Value {
    daemon.create(parameters(name, resources))
}

/// The names of the groups of VMs.
fn groups(root: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().expect("a name"));
    names.filter(|name| name.starts_with("vm-")).collect()
}

/// The processes of a VM's group.
fn members(root: &Path, name: &str) -> Vec<String> {
    let listed = fs::read_to_string(root.join(format!("vm-{name}/cgroup.procs")));
    listed.expect("a group").lines().map(String::from).collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(|name| format!("vm-{name}")).into()
}

#[test]
fn each_vm_has_a_group_for_as_long_as_it_runs() {
    in_namespace(|| {
        let (mut daemon, root) = daemon();
        let vms = ["a", "b"].map(|name| create(&daemon, name, json!({})));
        for vm in &vms {
            let (name, pid) = (vm["name"].as_str().unwrap(), vm["pid"].to_string());
            assert_eq!(members(&root, name), [&*pid]);
            let of_process = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
            assert!(of_process.contains(&format!("/vm-{name}\n")), "{of_process}");
        }
        let metrics = daemon.call("Metrics", json!({}))["parameters"]["text"].take();
        let metrics = metrics.as_str().expect("a text");
        assert!(metrics.contains("volnet_vm_cpu_seconds_total{vm=\"a\"} 0."), "{metrics}");

        // What the next daemon finds: a VM that runs, and the group of one that has ended.
        daemon.crash();
        let pid = |vm: &Value| Pid::from_raw(vm["pid"].as_i64().expect("a pid") as i32);
        kill(pid(&vms[1]), Signal::SIGKILL).expect("it runs");
        eventually("the end of b", || members(&root, "b").is_empty());
        assert_eq!(groups(&root), names(["a", "b"]));
        daemon.start_again();
        assert_eq!(groups(&root), names(["a"]));
        assert_eq!(members(&root, "a"), [vms[0]["pid"].to_string()]);

        daemon.call("Stop", json!({ "name": "a", "timeout_ms": 0 }));
        assert_eq!(groups(&root), names([]));
        daemon.call("Start", json!({ "name": "a" }));
        assert_eq!(groups(&root), names(["a"]));
        daemon.call("Delete", json!({ "name": "a", "timeout_ms": 0 }));
        daemon.call("Delete", json!({ "name": "b", "timeout_ms": 0 }));
        daemon.call("Teardown", json!({}));
        assert!(!root.exists(), "nothing is left");
    });
}

/// A limit that the kernel can keep is in the files of the group, and one that it cannot is refused
/// by its name.
#[test]
fn limits_hold_or_are_refused() {
    in_namespace(|| {
        let (daemon, root) = daemon();
        let offered = fs::read_to_string(root.parent().unwrap().join("cgroup.controllers"));
        let offered = offered.expect("a control group");
        for (controller, field, value, file, text) in [
            ("cpu", "cpu_percent", 150, "cpu.max", "150000 100000\n"),
            ("memory", "memory_max_mb", 640, "memory.max", "671088640\n"),
        ] {
            let answer = daemon.call("Create", parameters(controller, json!({ field: value })));
            if offered.split_whitespace().any(|word| word == controller) {
                assert_eq!(answer["parameters"]["vm"]["budget"][field], value, "{answer}");
                let path = root.join(format!("vm-{controller}")).join(file);
                assert_eq!(fs::read_to_string(path).expect("a limit"), text);
                daemon.call("Delete", json!({ "name": controller, "timeout_ms": 0 }));
            } else {
                let of = &answer["parameters"]["field"];
                assert_eq!(of, &format!("resources.{field}"), "{answer}");
            }
        }
        for start in [true, false] {
            let mut io = parameters("io", json!({ "io": { "read_mb": 1 } }));
            io["start"] = start.into();
            let answer = daemon.call("Create", io);
            assert_eq!(answer["parameters"]["field"], "resources.io", "it has no disk: {answer}");
        }
        assert_eq!(groups(&root), names([]));
        daemon.call("Teardown", json!({}));
    });
}

/// Only root can move a process to another group, or lift a limit.
#[test]
fn a_vm_cannot_leave_its_group() {
    in_namespace(|| {
        let (daemon, root) = daemon();
        let vm = create(&daemon, "a", json!({}));
        let procs = root.join("vm-a/cgroup.procs");
        let write = format!("echo {} >{}", vm["pid"], procs.display());
        let as_user = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"])
            .args(["sh", "-c", &write])
            .output()
            .expect("setpriv runs");
        let error = String::from_utf8_lossy(&as_user.stderr);
        assert!(error.contains("Permission denied"), "{error}");
        assert!(Command::new("sh").args(["-c", &write]).status().expect("sh runs").success());
        daemon.call("Delete", json!({ "name": "a", "timeout_ms": 0 }));
        daemon.call("Teardown", json!({}));
    });
}
