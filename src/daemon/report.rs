//! What happened is told: to subscribers as an event, and once in the log.
//!
//! - *error*: something is not done, and a VM or the host lacks it. volnet tries again, or somebody
//!   must act;
//! - *warning*: something was not as it should be: what others changed, repaired or not; a VM that
//!   ended with an error, did not start, is slow, or was stopped by its hypervisor; what guests do
//!   again and again; callers who are refused the right;
//! - *info*: the lives of VMs: starts, ends, leases; what became of a VM though nobody asked;
//! - *debug*: requests with their answers, and what is done for them, down to each change of the
//!   kernel.
//!
//! Who asks for something is answered. So what is done on request, such as a create, is told at
//! debug: a host may have a thousand creates a minute, among which the rest would be lost.
//!
//! Fields follow the message: `vm` and `event` (the kind), `by` (the process that is behind a
//! change of rules), and at debug `id`, the number of the request.

use log::Level;

use super::shell::{Output, Shell};
use crate::engine::watch::Notice;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::request::Serving;
use crate::model::view::{Event, EventKind};
use crate::network::Network;
use crate::plan::news::Culprit;
use crate::store::storage::Storage;

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Reports an event.
    pub(super) fn event(&mut self, notice: Notice, now: Now) {
        self.event_at(level(notice.kind, self.serving), notice, now);
    }

    /// Reports an event that is more or less grave than others of its kind.
    pub(super) fn event_at(&mut self, level: Level, notice: Notice, now: Now) {
        write(level, &notice, self.serving);
        self.tell(notice, now);
    }

    /// Tells subscribers of an event.
    pub(super) fn tell(&mut self, notice: Notice, now: Now) {
        let event = self.next_event(notice, now);
        self.outputs.push(Output::Event(event));
    }

    /// The event that tells a subscriber that it missed some.
    pub fn resync_event(&mut self, now: Now) -> Event {
        let message = "events were lost; the state follows".into();
        self.next_event(Notice { kind: EventKind::Resync, vm: None, message, by: None }, now)
    }

    fn next_event(&mut self, notice: Notice, now: Now) -> Event {
        self.sequence += 1;
        self.tally.told(notice.kind, notice.vm.as_ref());
        let (sequence, at) = (self.sequence, now.wall);
        let Notice { kind, vm, message, by } = notice;
        let (by_pid, by_name) = by.map(|Culprit { pid, name }| (pid, name)).unzip();
        Event { sequence, at, kind, vm, message, by_pid, by_name }
    }
}

/// The level of an event.
fn level(kind: EventKind, serving: Serving) -> Level {
    let asked = serving.0.is_some();
    match kind {
        EventKind::Drift
        | EventKind::Repaired
        | EventKind::VmSlow
        | EventKind::AddressConflict
        | EventKind::DhcpRepeated
        | EventKind::DeniedFlood
        | EventKind::LimitDrops => Level::Warn,
        // A hypervisor that nobody stopped is ended because its guest or its tap is gone.
        EventKind::VmStopping if !asked => Level::Warn,
        EventKind::VmStarted
        | EventKind::VmExited
        | EventKind::VmAdopted
        | EventKind::LeaseGiven
        | EventKind::LeaseEnded => Level::Info,
        EventKind::VmCreated
        | EventKind::VmStopping
        | EventKind::VmPaused
        | EventKind::VmResumed
        | EventKind::VmSaved
        | EventKind::VmDeleted
        | EventKind::NetworkAdded
        | EventKind::NetworkRemoved
        | EventKind::VmChanged => match asked {
            true => Level::Debug,
            false => Level::Info,
        },
        EventKind::Resync => Level::Debug,
    }
}

/// Logs what was found and what of it was repaired, each thing once.
pub(super) fn log_repair(drifts: &[Notice], repaired: &[Notice]) {
    for notice in left(drifts, repaired).chain(repaired) {
        write(level(notice.kind, Serving::default()), notice, Serving::default());
    }
}

/// What was not repaired.
fn left<'a>(drifts: &'a [Notice], repaired: &'a [Notice]) -> impl Iterator<Item = &'a Notice> + 'a {
    drifts.iter().filter(|drift| !repaired.iter().any(|repair| repair.mends(drift)))
}

/// Writes a line.
fn write(level: Level, notice: &Notice, serving: Serving) {
    let vm = notice.vm.as_ref().map(ToString::to_string).unwrap_or_default();
    let by = notice.by.as_ref().map(|it| format!("{} ({})", it.pid, it.name)).unwrap_or_default();
    let event = notice.kind.as_str();
    log::log!(level, vm, event, by, id:% = serving; "{}", notice.message);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(kind: EventKind, message: &str) -> Notice {
        Notice { kind, vm: None, message: message.into(), by: None }
    }

    #[test]
    fn what_was_repaired_is_told_once() {
        let drifts = ["link a is down", "link b is down"];
        let drifts = drifts.map(|message| notice(EventKind::Drift, message));
        let repaired = [notice(EventKind::Repaired, "link b is down: repaired")];
        let told: Vec<&str> = left(&drifts, &repaired).map(|it| &*it.message).collect();
        assert_eq!(told, ["link a is down"]);
    }

    #[test]
    fn what_somebody_asked_for_is_for_debugging() {
        let (somebody, nobody) = (Serving(Some(1)), Serving(None));
        let levels = |kind| [level(kind, somebody), level(kind, nobody)];
        assert_eq!(levels(EventKind::VmCreated), [Level::Debug, Level::Info]);
        assert_eq!(levels(EventKind::VmDeleted), [Level::Debug, Level::Info]);
        assert_eq!(levels(EventKind::VmStopping), [Level::Debug, Level::Warn]);
        assert_eq!(levels(EventKind::Repaired), [Level::Warn; 2]);
    }
}
