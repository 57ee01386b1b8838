//! Network namespaces of others, as containers have them.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use super::{eventually, json, run, try_run};

/// A network namespace that ends with its only process, as that of a container does.
pub(crate) struct Room(Child);

impl Room {
    pub(crate) fn new() -> Room {
        let child = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare runs");
        let room = Room(child);
        let own = std::fs::read_link("/proc/thread-self/ns/net").expect("our namespace");
        eventually("the namespace", || {
            std::fs::read_link(room.netns()).is_ok_and(|theirs| theirs != own)
        });
        room
    }

    pub(crate) fn netns(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Runs a command line within, which must succeed.
    pub(crate) fn run(&self, line: &str) -> String {
        run(&format!("nsenter --net={} {line}", self.netns()))
    }

    pub(crate) fn can(&self, line: &str) -> bool {
        try_run(&format!("nsenter --net={} {line}", self.netns())).0
    }

    pub(crate) fn json(&self, line: &str) -> Value {
        json(&format!("nsenter --net={} {line}", self.netns()))
    }

    /// What `open` opens within.
    pub(crate) fn opened<T: Send>(&self, open: impl FnOnce() -> T + Send) -> T {
        let netns = File::open(self.netns()).expect("the namespace");
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(netns, CloneFlags::CLONE_NEWNET).expect("we are root");
                open()
            });
            inside.join().expect("it opens")
        })
    }

    pub(crate) fn end(mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it is ours");
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
