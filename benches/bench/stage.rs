//! Where it all happens: namespaces of the benchmark's own.
//!
//! The process leaves the machine's network and mounts before it does anything else, and covers
//! /run with a file system in memory, so that named namespaces, locks and runtime directories are
//! its own too. All of that ends with it. Each contender gets a network namespace by name; the one
//! thread moves between them, and what it opens or starts belongs to the one where it is.

use std::fs::File;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::geteuid;

/// Leaves the machine's namespaces.
pub(crate) fn leave() {
    assert!(geteuid().is_root(), "the benchmark needs root (it makes network namespaces)");
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("new namespaces");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("own /run");
}

/// A network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Stage(String);

impl Stage {
    /// Makes one.
    pub(crate) fn new(name: &str) -> Stage {
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        Stage(name.into())
    }

    /// One that somebody else has made.
    pub(crate) fn at(name: &str) -> Stage {
        Stage(name.into())
    }

    /// Moves this thread into it.
    pub(crate) fn enter(&self) {
        let file = File::open(self.path()).expect("a namespace that was made");
        setns(file, CloneFlags::CLONE_NEWNET).expect("to enter a namespace");
    }

    /// Its name for `ip netns`.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// The file that stands for it.
    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }
}

/// Runs a command line of words without spaces in them, which must succeed; returns its output.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    output_of(command.args(words))
}

/// Runs a command, which must succeed, and returns its output.
pub(crate) fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {errors}{text}");
    text
}
