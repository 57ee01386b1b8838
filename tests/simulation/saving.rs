//! The thread that takes a snapshot, step by step on the virtual clock, as
//! `hypervisor::linux::snapshot` takes them.
//!
//! It lives in the daemon, and ends with it. Whatever it does to the world is an effect.

use std::sync::atomic::Ordering;

use volnet::daemon::saving::Save;
use volnet::hypervisor::process::Processes;
use volnet::hypervisor::snapshot::part_of;
use volnet::model::error::Failure;
use volnet::model::record::ProcessId;

use crate::world::Handle;

/// Milliseconds that a step takes.
const STEP_MS: u64 = 100;

/// A snapshot that is being taken.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) save: Save,
    /// When it does its next step.
    pub(crate) at: u64,
    next: Next,
    /// The process that it speaks to.
    process: Option<ProcessId>,
    failed: bool,
}

/// What a thread does next.
#[derive(Clone, Copy, Debug)]
enum Next {
    MakeFolder,
    StopGuest,
    Write,
    GoOn,
    Finish,
}

impl Thread {
    pub(crate) fn new(save: Save, now: u64, world: &Handle) -> Thread {
        let process = world.process(&save.taking.name);
        Thread { save, at: now + STEP_MS, next: Next::MakeFolder, process, failed: false }
    }

    /// Does a step. Gives what came of it all, after the last one.
    pub(crate) fn step(&mut self, world: &mut Handle) -> Option<Result<(), Failure>> {
        self.at += STEP_MS;
        let part = part_of(&self.save.taking.folder);
        let is_over = self.save.over.load(Ordering::Relaxed);
        let process = self.process.as_ref();
        match self.next {
            Next::MakeFolder => {
                if process.is_none() || !world.save(|processes| processes.make_part(&part)) {
                    return Some(Err(failure()));
                }
                self.next = Next::StopGuest;
            }
            Next::StopGuest => {
                let still = |id| world.save(|processes| processes.still(id));
                let is_still = process.is_some_and(still);
                self.fails_unless(is_still);
                self.next = Next::Write;
            }
            Next::Write => {
                let is_written = !self.failed && !is_over && world.save(|_| true);
                self.fails_unless(is_written);
                self.next = Next::GoOn;
            }
            Next::GoOn => {
                let goes_on = |id| self.save.taking.stays_paused || world.go_on(id);
                let goes_on = process.is_some_and(goes_on);
                self.fails_unless(goes_on);
                self.next = Next::Finish;
            }
            Next::Finish => {
                let is_whole = !self.failed
                    && !is_over
                    && world.save(|processes| processes.finish_part(&part));
                if is_whole {
                    return Some(Ok(()));
                }
                world.remove_part(&part);
                return Some(Err(failure()));
            }
        }
        None
    }

    fn fails_unless(&mut self, done: bool) {
        self.failed |= !done;
    }
}

fn failure() -> Failure {
    Failure::State { path: "the snapshot".into(), reason: "told to fail".into() }
}
