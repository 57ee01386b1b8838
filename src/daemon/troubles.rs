//! Tells of what goes wrong with guests, while somebody wants to know.
//!
//! The engine decides what is told ([`crate::engine::trouble`]). What it needs for that are
//! counters of the kernel. They are read once in [`INTERVAL_MS`] while somebody subscribes to
//! events and there are VMs, and whenever a scraper or `top` has them read anyway. So a daemon that
//! nobody asks is not woken and reads nothing. `docs/METRICS.md` says what it costs to
//! read those of 1000 VMs.

use super::shell::Shell;
use crate::engine::trouble::Counts;
use crate::hypervisor::process::Processes;
use crate::metrics::numbers::VmNumbers;
use crate::model::clock::Now;
use crate::model::name::VmName;
use crate::network::Network;
use crate::store::storage::Storage;

/// Milliseconds between two looks at the counters for subscribers.
const INTERVAL_MS: u64 = 30_000;

/// Who wants to know, and since when nobody has looked.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// Whether somebody subscribes to events.
    by_somebody: bool,
    /// When the counters were last read for that.
    looked_at: u64,
}

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Whether somebody subscribes to events from now on.
    pub fn watched(&mut self, by_somebody: bool, now: Now) {
        if by_somebody && !self.watched.by_somebody {
            self.watched.looked_at = now.mono;
        }
        self.watched.by_somebody = by_somebody;
    }

    /// When the counters are to be read for subscribers.
    pub(super) fn counters_due(&self) -> Option<u64> {
        let is_due = self.watched.by_somebody && self.engine.vms().next().is_some();
        is_due.then_some(self.watched.looked_at + INTERVAL_MS)
    }

    /// Has the counters read, if that is due. They are judged when they are.
    pub(super) fn look_at_counters(&mut self, now: Now) {
        if self.counters_due().is_none_or(|at| now.mono < at) {
            return;
        }
        self.watched.looked_at = now.mono;
        self.begin_reading();
    }

    /// Tells of what these counters show.
    pub(super) fn judge_counters(&mut self, vms: &[VmNumbers], now: Now) {
        for notice in self.engine.counted(vms.iter().map(counts), now) {
            self.event(notice, now);
        }
    }
}

fn counts(vm: &VmNumbers) -> (&VmName, Counts) {
    let mut counts = Counts::default();
    for nic in &vm.nics {
        counts.denied += nic.denied.map_or(0, |(packets, _)| packets);
        counts.forged += nic.forged.unwrap_or_default();
        counts.limited += nic.overrun.unwrap_or_default();
        counts.limited += nic.passed.map_or(0, |passed| passed.shaped);
    }
    (&vm.name, counts)
}
