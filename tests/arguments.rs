//! Hypervisors that are told more than volnet says by itself: extra arguments, and templates that
//! are started, watched and asked as the known hypervisors are. Stand-ins play them (`tests/vmm`).

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::{in_namespace, ip_link};

/// A daemon with these hypervisors. Any ELF file is a kernel for the stand-ins.
fn daemon(hypervisors: Value) -> Daemon {
    Daemon::configured(&json!({ "kernel_vmlinux": "/bin/true", "hypervisors": hypervisors }))
}

fn stand_in(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vmm").join(name).display().to_string()
}

fn create(daemon: &Daemon, config: Value) -> Value {
    let parameters = json!({ "name": "web", "start": true, "config": config });
    daemon.create(parameters)
}

fn command_line(vm: &Value) -> Vec<String> {
    let line = fs::read_to_string(format!("/proc/{}/cmdline", vm["pid"])).expect("it runs");
    line.trim_end_matches('\0').split('\0').map(String::from).collect()
}

#[test]
fn arguments_of_the_settings_and_then_of_the_vm_follow_volnets_own() {
    in_namespace(|| {
        let program = stand_in("cloud-hypervisor");
        let hypervisor = json!({ "program": program, "args": ["--rng", "src=/dev/random"] });
        let daemon = daemon(json!({ "cloud-hypervisor": hypervisor }));
        let config = json!({
            "hypervisor": "cloud-hypervisor",
            "initramfs": { "url": "/etc/hostname" },
            "args": ["--balloon", "size=64M,free_page_reporting=on"],
        });
        let line = command_line(&create(&daemon, config));
        let own = line.len() - 4;
        assert!(line[..own].iter().any(|word| word == "--kernel"), "{line:?}");
        let extra = ["--rng", "src=/dev/random", "--balloon", "size=64M,free_page_reporting=on"];
        assert_eq!(line[own..], extra);
    });
}

#[test]
fn arguments_need_a_hypervisor_that_volnet_starts() {
    in_namespace(|| {
        let daemon = daemon(json!({}));
        let config = json!({ "args": ["--balloon", "size=64M"] });
        let answer = daemon.call("Create", json!({ "name": "web", "config": config }));
        assert_eq!(answer["parameters"]["field"], "args", "{answer}");
        let made = Command::new(&daemon.program)
            .args(["create", "web", "--dry-run", "--arg", "--balloon", "--socket"])
            .arg(daemon.socket())
            .output()
            .expect("volnet runs");
        let error = String::from_utf8_lossy(&made.stderr);
        assert!(error.contains("volnet starts no hypervisor"), "{error}");
    });
}

/// A template has what the known hypervisors have: the tap by descriptor, a start that is answered
/// when the guest runs, the reason if it does not, and a power-off.
#[test]
fn a_template_is_told_and_asked_as_a_known_hypervisor_is() {
    in_namespace(|| {
        let template = json!({
            "program": stand_in("cloud-hypervisor"),
            "control": "cloud-hypervisor",
            "args": [
                ["--api-socket", "path={control}"],
                ["--kernel", "{kernel}"],
                ["--initramfs", "{initramfs}"],
                ["--cmdline", "{cmdline}"],
                ["--cpus", "boot={cpus}"],
                ["--memory", "size={memory_mb}M"],
                ["--serial", "tty", "--console", "off"],
                ["--net", "fd=[{fds}],mac={mac}"],
            ],
        });
        let daemon = daemon(json!({ "mine": template }));
        let config = |cmdline: &str| {
            json!({
                "hypervisor": "mine",
                "initramfs": { "url": "/etc/hostname" },
                "kernel_cmdline": cmdline,
            })
        };
        let vm = create(&daemon, config(""));
        assert_eq!(vm["status"], "running", "{vm}");
        // A tap that is handed over is root's.
        assert_eq!(ip_link("vttap-web")["linkinfo"]["info_data"]["user"], "root");
        let line = command_line(&vm);
        assert!(line.iter().any(|word| word.starts_with("fd=[")), "{line:?}");
        let stopped = daemon.call("Stop", json!({ "name": "web" }));
        assert_eq!(stopped["parameters"]["vm"]["status"], "stopped", "{stopped}");
        assert_eq!(stopped["parameters"]["vm"]["exit_code"], 0, "its guest powered off: {stopped}");

        let mut broken = config("");
        broken["kernel_override"] = json!("/etc/hostname");
        let failed = json!({ "name": "bad", "start": true, "config": broken });
        let failed = daemon.call("Create", failed);
        assert_eq!(failed["error"], "io.volnet.HypervisorFailed", "{failed}");
        assert!(failed["parameters"]["log"].to_string().contains("kernel"), "{failed}");
    });
}
