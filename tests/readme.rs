//! The commands of README.md and docs/ work as printed, one after the other.
//!
//! One shell runs the blocks marked `sh` as root, in its own namespaces: network, mounts (with
//! /run, /var/lib and /var/log empty) and processes, so that everything ends with the shell. Blocks
//! marked `console` are not run: they would change the machine.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Stdio};

const README: &str = include_str!("../README.md");
const CLONES: &str = include_str!("../docs/CLONES.md");
const CLOUD_INIT: &str = include_str!("../docs/CLOUD_INIT.md");
const HYPERVISORS: &str = include_str!("../docs/HYPERVISORS.md");
const MANIFESTS: &str = include_str!("../docs/MANIFESTS.md");
const MODES: &str = include_str!("../docs/MODES.md");
const SCRIPTS: &str = include_str!("../docs/SCRIPTS.md");
const TRAFFIC: &str = include_str!("../docs/TRAFFIC.md");

/// The commands' machine: it is empty, except for volnet.
const BEFORE: &str = r#"
set -eu -o pipefail
ip link set lo up
for folder in /run /var/lib /var/log; do mount -t tmpfs tmpfs "$folder"; done
mount -t sysfs sysfs /sys
# A person types on when the daemon is there.
ready() { timeout 20 sh -c 'until volnet list; do sleep 0.05; done' >/dev/null 2>&1; }
"#;

#[test]
fn the_commands_of_the_readme_work() {
    let script =
        blocks(README, "sh").into_iter().map(|block| match block.contains("volnet serve") {
            true => format!("{block}\nready\n"),
            false => format!("{block}\n"),
        });
    run(&script.collect::<String>());
}

#[test]
fn the_commands_about_cloud_init_work() {
    with_a_daemon(CLOUD_INIT);
}

#[test]
fn the_commands_about_clones_work() {
    with_a_daemon(CLONES);
}

#[test]
fn the_commands_about_hypervisors_work() {
    with_a_daemon(HYPERVISORS);
}

#[test]
fn the_commands_about_manifests_work() {
    with_a_daemon(MANIFESTS);
}

#[test]
fn the_commands_about_modes_work() {
    with_a_daemon(MODES);
}

#[test]
fn the_commands_about_scripts_work() {
    with_a_daemon(SCRIPTS);
}

#[test]
fn the_commands_about_traffic_work() {
    with_a_daemon(TRAFFIC);
}

/// Runs the commands of a page that takes a daemon for granted.
fn with_a_daemon(page: &'static str) {
    run(&format!("volnet serve &\nready\n{}\n", blocks(page, "sh").join("\n")));
}

/// Runs commands, all of which must succeed.
fn run(commands: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(root.join("build/guest/vmlinux").exists(), "run make guest first");
    let volnet = Path::new(env!("CARGO_BIN_EXE_volnet")).parent().expect("a folder");
    let helper = root.join("build/bin");
    // Hypervisors that a page starts itself, where they are not installed.
    let stand_ins = root.join("tests/vmm");
    let path = std::env::var("PATH").expect("PATH");
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        // Only commands that hang take so long.
        .args(["timeout", "900", "bash", "-xc", &format!("{BEFORE}{commands}")])
        .env(
            "PATH",
            format!("{}:{}:{path}:{}", volnet.display(), helper.display(), stand_ins.display()),
        )
        // KVM does not work on every test machine.
        .env("VOLNET_KVM", "no")
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The blocks of a kind, in their order.
fn blocks(text: &'static str, kind: &str) -> Vec<&'static str> {
    let opening = format!("\n```{kind}\n");
    let parts: Vec<&str> = text.split(opening.as_str()).skip(1).collect();
    assert!(!parts.is_empty(), "there is no {kind} block");
    parts.iter().map(|part| part.split("\n```").next().expect("a first part")).collect()
}
