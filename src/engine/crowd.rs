//! How many hypervisors start at once.
//!
//! A start takes a processor for tens of milliseconds: a program is loaded, memory is mapped, a
//! kernel is read. A hundred that start together end no sooner than one after the other, each takes
//! as long as all of them, and whoever asks for something else waits for a processor meanwhile. So
//! only a few are on their way at a time.
//!
//! A start has a place from the moment its process is made until its guest runs or the process has
//! ended. One that takes longer than [`PLACE_MS`] waits for something else than a processor, such
//! as memory or a disk, and gives its place to others. Starts of guests that an earlier daemon has
//! made have none.
//!
//! Who has no place waits, in its order, and nothing of it is done before: a request in the queue
//! of the event loop, a start that follows from something else in the agenda, one by the restart
//! policy in [`Life::Waiting`]. So the time in which a guest has to run
//! ([`START_MAX_MS`](super::supervise::START_MAX_MS)) begins with its process, however long the
//! queue is. Who is stopped or deleted while it waits does not start.

use crate::engine::decide::{Answer, Engine};
use crate::engine::lifecycle::FollowUp;
use crate::engine::supervise::Life;
use crate::model::name::VmName;
use crate::model::request::Ticket;

/// Milliseconds for which a start keeps its place.
pub const PLACE_MS: u64 = 2_000;
/// Starts at once for each processor: while one waits for the disk, another has something to do.
const PER_PROCESSOR: usize = 2;
/// The fewest starts at once.
const LEAST: usize = 4;

/// How many hypervisors start at once on a host with so many processors.
pub fn starts_at_once(processors: usize) -> usize {
    processors.saturating_mul(PER_PROCESSOR).max(LEAST)
}

impl Engine {
    /// Has at most so many hypervisors start at once, instead of those of one processor.
    pub fn with_starts_at_once(mut self, starts: usize) -> Engine {
        self.host.starts_at_once = starts;
        self
    }

    /// Has a start keep its place for so many milliseconds, instead of [`PLACE_MS`].
    #[cfg(test)]
    pub fn with_place(mut self, place_ms: u64) -> Engine {
        self.host.place_ms = place_ms;
        self
    }

    /// Whether another hypervisor may be started now.
    pub fn may_start(&self) -> bool {
        let lives =
            self.agenda.timed.iter().filter_map(|name| Some(&self.state.vms.get(name)?.life));
        let starting = lives.filter(|life| match life {
            Life::Running { check: Some(check), .. } => check.has_place,
            Life::Running { .. } | Life::Idle | Life::Stopping { .. } | Life::Waiting { .. } => {
                false
            }
        });
        starting.count() < self.host.starts_at_once
    }

    /// What follows next from earlier decisions, and may be done now.
    pub(super) fn next_follow_up(&mut self) -> Option<FollowUp> {
        let may_start = self.may_start();
        let mut all = self.agenda.follow_ups.iter();
        let at = all.position(|it| may_start || !matches!(it, FollowUp::Start { .. }))?;
        self.agenda.follow_ups.remove(at)
    }

    /// Whether a VM waits to be started as a consequence of something else.
    pub(super) fn is_to_start(&self, name: &VmName) -> bool {
        let is_this = |it: &FollowUp| matches!(it, FollowUp::Start { name: of, .. } if of == name);
        self.agenda.follow_ups.iter().any(is_this)
    }

    /// Takes such a start out of the queue. Gives who waits for it.
    pub(super) fn take_start(&mut self, name: &VmName) -> Vec<(Ticket, Answer)> {
        let mut waiting = Vec::new();
        self.agenda.follow_ups.retain_mut(|it| match it {
            FollowUp::Start { name: of, answers } if of == name => {
                waiting.append(answers);
                false
            }
            _ => true,
        });
        waiting
    }
}
