//! Disks: an image is of the format that it is said to be of, and no two VMs that run write to the
//! same disk.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::in_namespace;

fn daemon() -> Daemon {
    Daemon::configured(&json!({ "hypervisors": {
        "plain": { "program": "sleep", "args": [["100000"]] }
    } }))
}

/// A VM with this disk.
fn create(daemon: &Daemon, name: &str, disk: Value, start: bool) -> Value {
    let config = json!({ "hypervisor": "plain", "kernel_override": "/etc/hostname" });
    let manifest = json!({ "disks": [disk] });
    let parameters =
        json!({ "name": name, "start": start, "config": config, "manifest": manifest });
    daemon.call("Create", parameters)
}

fn raw(daemon: &Daemon, name: &str) -> PathBuf {
    let path = daemon.folder.join(name);
    fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    path
}

fn disk(path: &Path, format: &str, readonly: bool) -> Value {
    json!({ "source": path, "format": format, "readonly": readonly })
}

#[test]
fn an_image_of_another_format_is_refused_with_what_to_write() {
    in_namespace(|| {
        let daemon = daemon();
        let image = daemon.folder.join("noble-server-cloudimg-amd64.img");
        // The header of an image of 64 MiB (docs/interop/qcow2.rst of QEMU, version 2).
        let mut header = b"QFI\xfb\0\0\0\x02".to_vec();
        header.resize(24, 0);
        header.extend([16_u32.to_be_bytes(), [0; 4], (64_u32 << 20).to_be_bytes()].concat());
        header.resize(1 << 16, 0);
        fs::write(&image, header).unwrap();
        for start in [false, true] {
            let answer = create(&daemon, "vm", disk(&image, "raw", false), start);
            assert_eq!(answer["parameters"]["field"], "disks", "{answer}");
            let reason = answer["parameters"]["reason"].as_str().unwrap();
            assert!(reason.contains(image.to_str().unwrap()), "{reason}");
            assert!(reason.contains("say format: qcow2"), "{reason}");
        }
        let answer = create(&daemon, "right", disk(&image, "qcow2", false), true);
        assert!(answer["error"].is_null(), "{answer}");

        let words = |flag: &str| {
            let flag = flag.replace("IMAGE", image.to_str().unwrap());
            let mut args = vec!["create", "cli", "--hypervisor", "plain", "--kernel"];
            args.extend(["/etc/hostname", "--dry-run"].into_iter().chain(flag.split(' ')));
            let mut command = Command::new(&daemon.program);
            let done = command.args(&args).arg("--socket").arg(daemon.socket()).output().unwrap();
            (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
        };
        for flag in ["--rootfs IMAGE", "--disk IMAGE", "--disk IMAGE,readonly"] {
            let (status, said) = words(flag);
            assert!(status == Some(1) && said.contains("format=qcow2"), "{flag}: {said}");
        }
        for flag in [
            "--rootfs IMAGE,format=qcow2",
            "--disk IMAGE,format=qcow2",
            "--disk IMAGE,readonly,format=qcow2",
            "--disk IMAGE,format=qcow2,readonly",
        ] {
            let (status, said) = words(flag);
            assert_eq!(status, Some(0), "{flag}: {said}");
        }
        let other = raw(&daemon, "raw.img");
        let answer = create(&daemon, "vm", disk(&other, "qcow2", false), true);
        assert!(answer.to_string().contains("it is no qcow2 image"), "{answer}");
    });
}

#[test]
fn a_disk_that_a_running_vm_writes_to_is_given_to_no_other() {
    in_namespace(|| {
        let daemon = daemon();
        let path = raw(&daemon, "disk.img");
        let link = daemon.folder.join("link.img");
        symlink(&path, &link).unwrap();
        let other = raw(&daemon, "other.img");
        let other_link = daemon.folder.join("other-link.img");
        symlink(&other, &other_link).unwrap();
        let answer = create(&daemon, "db", disk(&path, "raw", false), true);
        assert!(answer["error"].is_null(), "{answer}");
        for (path, readonly) in [(&path, false), (&link, true)] {
            let answer = create(&daemon, "second", disk(path, "raw", readonly), true);
            assert_eq!(answer["parameters"]["field"], "disks", "{answer}");
            let named = format!("{}: VM db runs with this disk", path.display());
            assert!(answer.to_string().contains(&named), "{answer}");
            let gone = daemon.call("Get", json!({ "name": "second" }));
            assert_eq!(gone["error"], "io.volnet.VmNotFound", "{gone}");
        }
        // Not running, it may have it.
        let answer = create(&daemon, "second", disk(&path, "raw", false), false);
        assert!(answer["error"].is_null(), "{answer}");
        let start = || daemon.call("Start", json!({ "name": "second" }));
        assert_eq!(start()["parameters"]["field"], "disks");
        daemon.call("Stop", json!({ "name": "db", "timeout_ms": 0 }));
        assert!(start()["error"].is_null());

        // One that has it twice destroys it, too.
        let twice = |readonly| {
            let config = json!({ "hypervisor": "plain", "kernel_override": "/etc/hostname" });
            let disks = json!([disk(&other, "raw", readonly), disk(&other_link, "raw", true)]);
            let manifest = json!({ "disks": disks });
            daemon.call(
                "Create",
                json!({ "name": "twice", "start": true, "config": config, "manifest": manifest }),
            )
        };
        let answer = twice(false);
        assert_eq!(answer["parameters"]["field"], "disks", "{answer}");
        let named = format!("{}: the VM has this disk twice", other_link.display());
        assert!(answer.to_string().contains(&named), "{answer}");
        assert!(twice(true)["error"].is_null());

        // Those who only read share it.
        let shared = raw(&daemon, "shared.img");
        for name in ["one", "two"] {
            let answer = create(&daemon, name, disk(&shared, "raw", true), true);
            assert!(answer["error"].is_null(), "{answer}");
        }
    });
}
