//! vsock beside a network, and `volnet vsock`. Stand-ins play the hypervisors and a guest that
//! listens on one port (`tests/vmm`).

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::{in_namespace, link_exists};

fn daemon() -> Daemon {
    let stand_in = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vmm").join(name);
        json!({ "program": path })
    };
    // The stand-ins take any ELF file for a kernel.
    Daemon::configured(&json!({
        "kernel_vmlinux": "/bin/true",
        "hypervisors": {
            "cloud-hypervisor": stand_in("cloud-hypervisor"),
            "firecracker": stand_in("firecracker"),
        },
    }))
}

fn create(daemon: &Daemon, name: &str, config: Value) -> Value {
    let parameters = json!({ "name": name, "start": true, "config": config });
    daemon.create(parameters)
}

/// What a port of a guest answers.
fn vsock(daemon: &Daemon, name: &str, port: &str, input: &str) -> Output {
    vsock_with(daemon, &[name, port], input)
}

fn vsock_with(daemon: &Daemon, words: &[&str], input: &str) -> Output {
    let mut child = Command::new(&daemon.program)
        .arg("vsock")
        .args(words)
        .arg("--socket")
        .arg(daemon.socket())
        .arg("--runtime-dir")
        .arg(daemon.folder.join("run"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("volnet runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // It does not read if it cannot connect.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_guest_with_a_network_listens_on_vsock_too() {
    in_namespace(|| {
        let mut daemon = daemon();
        let config = |hypervisor: &str, mode: &str| {
            json!({
                "hypervisor": hypervisor,
                "initramfs": { "url": "/etc/hostname" },
                "network": { "mode": mode },
                "vsock": true,
            })
        };
        let all = [
            ("c", "cloud-hypervisor", "bridged"),
            ("f", "firecracker", "bridged"),
            ("d", "cloud-hypervisor", "dhcp"),
            ("v", "firecracker", "vsock"),
        ];
        for (name, hypervisor, mode) in all {
            let vm = create(&daemon, name, config(hypervisor, mode));
            assert_eq!((&vm["vsock"], &vm["status"]), (&json!(true), &json!("running")), "{vm}");
            assert_eq!(link_exists(&format!("vttap-{name}")), mode != "vsock");
        }
        daemon.crash();
        daemon.start_again();
        for (name, _, _) in all {
            // The input ends before the guest has answered.
            let answered = vsock(&daemon, name, "1024", "uname\nuptime\nquit\n");
            assert!(answered.status.success(), "{answered:?}");
            assert_eq!(String::from_utf8_lossy(&answered.stdout), "UNAME\nUPTIME\n");
            let nobody = vsock(&daemon, name, "1025", "");
            let error = String::from_utf8_lossy(&nobody.stderr);
            assert!(error.contains("nobody listens on port 1025"), "{error}");
            assert_eq!(nobody.status.code(), Some(1), "{error}");
        }
    });
}

/// A guest that does not end the connection is not waited for without end, and is if it must be.
#[test]
fn a_guest_that_is_silent_after_the_end_of_the_input_is_left() {
    in_namespace(|| {
        let daemon = daemon();
        let config = json!({
            "hypervisor": "firecracker",
            "initramfs": { "url": "/etc/hostname" },
            "network": { "mode": "vsock" },
        });
        create(&daemon, "web", config);
        for (wait, answer) in [("3", "UNAME\n"), ("0", "")] {
            let answered = vsock_with(&daemon, &["web", "1024", "--wait", wait], "uname\n");
            assert!(answered.status.success(), "{answered:?}");
            assert_eq!(String::from_utf8_lossy(&answered.stdout), answer);
        }
        let wrong = vsock_with(&daemon, &["web", "1024", "--wait", "soon"], "");
        let error = String::from_utf8_lossy(&wrong.stderr);
        assert!(error.contains("\"soon\" is not a number of seconds"), "{error}");
    });
}

#[test]
fn a_guest_without_vsock_is_told_of() {
    in_namespace(|| {
        let daemon = daemon();
        let config = json!({
            "hypervisor": "cloud-hypervisor",
            "initramfs": { "url": "/etc/hostname" },
        });
        let vm = create(&daemon, "web", config);
        assert_eq!(vm["vsock"], false, "{vm}");
        let line = fs::read_to_string(format!("/proc/{}/cmdline", vm["pid"])).expect("it runs");
        assert!(!line.contains("--vsock"), "{line}");
        let refused = vsock(&daemon, "web", "1024", "");
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(error.contains("VM web has no vsock"), "{error}");
    });
}
