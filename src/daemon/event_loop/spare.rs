//! What nobody waits for, done when it is quiet: taps made ahead, memory given back.

use super::EventLoop;
use crate::hypervisor::process::Processes;
use crate::network::Network;
use crate::store::storage::Storage;

/// Milliseconds without a request after which it is quiet.
const QUIET_MS: u64 = 10;

/// When it is quiet, and what there is to do then.
#[derive(Debug)]
pub(super) struct Spare {
    /// Whether there is time for it at all: not where one request is handled.
    serves: bool,
    /// The time after which the daemon is idle.
    busy_until: u64,
    /// Whether memory may have been freed since it was last returned to the system.
    untidy: bool,
}

impl Spare {
    /// Nothing has been asked yet; the start of the daemon has left memory to be given back.
    pub(super) fn new(serves: bool) -> Spare {
        Spare { serves, busy_until: 0, untidy: true }
    }

    /// Somebody asks for something at `now`.
    pub(super) fn disturb(&mut self, now: u64) {
        (self.busy_until, self.untidy) = (now + QUIET_MS, true);
    }
}

impl<N: Network, D: Storage, P: Processes> EventLoop<N, D, P> {
    /// When there is time for what nobody waits for; `None` if there is nothing of the kind.
    pub(super) fn spare_work_at(&mut self) -> Option<u64> {
        let some =
            self.spare.serves && (self.spare.untidy || self.shell.network().has_spare_work());
        some.then_some(self.spare.busy_until)
    }

    /// Does one piece of it, if it is quiet.
    pub(super) fn do_spare_work(&mut self) {
        let now = self.now().mono;
        if self.spare_work_at().is_none_or(|at| now < at) {
            return;
        }
        if self.shell.network().has_spare_work() {
            self.shell.network().do_spare_work();
        } else {
            volnet_ffi::heap::trim();
            self.spare.untidy = false;
        }
    }
}
