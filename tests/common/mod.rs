//! Helpers for tests with the real kernel: a namespace per test, other tools to read back with, and
//! waiting for a condition, not for a time.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod agreement;
pub(crate) mod daemon;
pub(crate) mod guest;
pub(crate) mod shown;
pub(crate) mod space;

use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
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

/// Waits until the condition holds. Fails the test if it never does.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "did not come: {what}");
        std::thread::park_timeout(LOOK_AGAIN);
    }
}
