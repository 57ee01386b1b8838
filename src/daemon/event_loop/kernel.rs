//! The kernel's news: the sockets of the monitor, which are read together.

use std::os::fd::RawFd;

use super::EventLoop;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::network::Network;
use crate::network::linux::monitor::Monitor;
use crate::store::storage::Storage;

/// Milliseconds for which news wait: most are of our own doing, and many at a time cost little more
/// than one.
const DELAY_MS: u64 = 1;

/// The monitor, and when it is read.
#[derive(Debug)]
pub(super) struct Kernel {
    /// `None` where nobody watches the kernel.
    monitor: Option<Monitor>,
    /// When news are to be read, if there are any.
    due: Option<u64>,
}

impl Kernel {
    /// With news that are due at once: some may have come before.
    pub(super) fn new(monitor: Option<Monitor>) -> Kernel {
        let due = monitor.as_ref().map(|_| 0);
        Kernel { monitor, due }
    }

    /// What is to be waited for.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        self.monitor.iter().flat_map(Monitor::descriptors).collect()
    }

    /// Whether somebody watches the kernel.
    pub(super) fn is_watched(&self) -> bool {
        self.monitor.is_some()
    }

    /// Its turn: there are news, which are read soon.
    pub(super) fn has_news(&mut self, now: Now) {
        self.due.get_or_insert(now.mono + DELAY_MS);
    }

    /// When news are to be read.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.due
    }
}

impl<N: Network, D: Storage, P: Processes> EventLoop<N, D, P> {
    /// Passes on the news, when it is time. After the requests of a round, so that what these did
    /// is told to its end.
    pub(super) fn hear_kernel(&mut self, now: Now) {
        let Kernel { monitor: Some(monitor), due } = &mut self.kernel else { return };
        if due.is_some_and(|at| at <= now.mono) {
            *due = None;
            self.shell.news(monitor.drain(), now);
        }
    }
}
