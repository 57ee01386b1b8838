//! Helpers for tests with the real kernel: a namespace per test, other tools to read back with, and
//! waiting for a condition, not for a time.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod agreement;
pub(crate) mod daemon;
pub(crate) mod flow;
pub(crate) mod guest;
pub(crate) mod room;
pub(crate) mod shown;
pub(crate) mod space;
pub(crate) mod vmconf;

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::Value;

/// How long [`eventually`] waits before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two looks at a condition.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Runs `body` in a thread with its own network and mount namespaces. So it does not affect the
/// host, and other tests do not affect it. Its children, its sockets, /sys and /proc/sys/net belong
/// to the new namespace; /proc/net and /proc/self/net do not.
pub(crate) fn in_namespace<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            isolate();
            body()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn isolate() {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .expect("a new network namespace (these tests run as root)");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).expect("own /sys");
}

/// Gives the caller's mount namespace a copy of /dev in this folder, of which devices can be
/// replaced.
pub(crate) fn copy_devices(folder: &Path) {
    let copy = folder.join("dev");
    std::fs::create_dir(&copy).expect("a folder");
    run(&format!("cp -a --one-file-system /dev/. {}", copy.display()));
    // Terminals are made there.
    run(&format!("mount --bind /dev/pts {}/pts", copy.display()));
    run(&format!("mount --rbind {} /dev", copy.display()));
}

/// A device and its numbers.
pub(crate) type Device = (&'static str, (u64, u64));

/// Puts a device in its place with this mode and group, after [`copy_devices`].
pub(crate) fn put_device(path: &str, (major, minor): (u64, u64), mode: u32, group: u32) {
    let _ = std::fs::remove_file(path);
    std::fs::create_dir_all(Path::new(path).parent().expect("a folder")).expect("a folder");
    mknod(path, SFlag::S_IFCHR, Mode::empty(), makedev(major, minor)).expect("a device");
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    chown(path, None, Some(group)).expect("a group");
}

/// The stand-in for a hypervisor that needs KVM.
pub(crate) fn stand_in(vmm: &str) -> String {
    format!("{}/tests/vmm/{vmm}", env!("CARGO_MANIFEST_DIR"))
}

/// Whether the hypervisors in `PATH` are to be used in place of the stand-ins.
pub(crate) fn is_real() -> bool {
    std::env::var_os("VOLNET_REAL_VMM").is_some()
}

/// The program of a hypervisor that needs KVM: its stand-in, or the real one.
pub(crate) fn vmm_program(vmm: &str) -> String {
    if is_real() { vmm.into() } else { stand_in(vmm) }
}

/// A kernel that hypervisors boot. The stand-ins take any ELF file.
pub(crate) fn vmm_kernel() -> String {
    match is_real() {
        true => format!("{}/build/guest/vmlinux", env!("CARGO_MANIFEST_DIR")),
        false => env!("CARGO_BIN_EXE_volnet").into(),
    }
}

/// The device by which taps are opened by name, and its numbers.
pub(crate) const TUN: Device = ("/dev/net/tun", (10, 200));
/// The device of KVM.
pub(crate) const KVM: Device = ("/dev/kvm", (10, 232));

/// Runs a command line of words without spaces in them, which must succeed, and returns its output.
pub(crate) fn run(line: &str) -> String {
    let (ok, output) = try_run(line);
    assert!(ok, "{line}: {output}");
    output
}

/// Runs a command line and returns whether it succeeded, and its output. iproute2 reports if
/// objects changed during a dump; then the command is run again.
pub(crate) fn try_run(line: &str) -> (bool, String) {
    let mut words = line.split_ascii_whitespace();
    let program = words.next().expect("a program");
    let words: Vec<&str> = words.collect();
    loop {
        let output = Command::new(program).args(&words).output();
        let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        if !errors.contains("Dump was interrupted") {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &errors;
            return (output.status.success(), text);
        }
    }
}

/// Runs a command line that writes JSON.
pub(crate) fn json(line: &str) -> Value {
    let text = run(line);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text}"))
}

/// A link as `ip` shows it with all details.
pub(crate) fn ip_link(name: &str) -> Value {
    json(&format!("ip -d -j link show dev {name}"))[0].take()
}

/// Whether there is a link of this name.
pub(crate) fn link_exists(name: &str) -> bool {
    try_run(&format!("ip link show dev {name}")).0
}

/// Fills the table of connections with some that are in use: the kernel drops none of them for a
/// new one (net/netfilter/nf_conntrack_core.c, `early_drop`). `folder` gets a file.
pub(crate) fn fill_connections(folder: &Path) {
    let most = run("sysctl -n net.netfilter.nf_conntrack_max");
    let most: usize = most.trim().parse().expect("a number");
    let mut text = String::new();
    for number in 0..most + 8 {
        let (host, port) = (number / 60_000 + 1, number % 60_000 + 1);
        let ends = format!("-s 198.18.0.1 -d 198.18.{host}.1 --sport 1000 --dport {port}");
        text += &format!("-I -p tcp {ends} --state ESTABLISHED -t 600 -u ASSURED\n");
    }
    let file = folder.join("connections");
    std::fs::write(&file, text).expect("a file");
    // It fails when the table is full.
    let _ = try_run(&format!("conntrack -R {}", file.display()));
}

/// Waits until the condition holds. Fails the test if it never does.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "did not come: {what}");
        std::thread::park_timeout(LOOK_AGAIN);
    }
}
