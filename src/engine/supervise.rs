//! The life of a VM's hypervisor process.
//!
//! ```text
//!            start                    stop, restart, delete
//!   Idle ──────────▶ Running ─────────────────────────────▶ Stopping
//!    ▲ ▲               │ ended by itself                        │ ended
//!    │ └───────────────┤                                        │
//!    │      policy: no │ policy: restart                        │
//!    │                 ▼                                        │
//!    │  stop        Waiting ──── back-off is over ──▶ Running   │
//!    └──────────────────┴──────────────────────────────◀────────┘
//! ```
//!
//! A stop goes from mild to hard: the guest is asked to power off, then the process gets SIGTERM,
//! at the caller's deadline SIGKILL. Everything here is arithmetic on times that are given.

use crate::engine::decide::Answer;
use crate::model::record::Exit;
use crate::model::request::Ticket;
use crate::model::spec::RestartPolicy;

/// Milliseconds from SIGTERM to SIGKILL, unless the whole time is shorter than twice that.
pub const TERMINATE_GRACE_MS: u64 = 5_000;
/// Milliseconds after which a signal that could not be sent is tried again.
pub const SIGNAL_RETRY_MS: u64 = 1_000;
/// Milliseconds of back-off before the first restart; doubled each time.
pub const BACKOFF_FIRST_MS: u64 = 1_000;
/// The longest back-off in milliseconds.
pub const BACKOFF_MAX_MS: u64 = 60_000;
/// Milliseconds between two looks at a process that hatches.
pub const HATCH_CHECK_MS: u64 = 10;
/// Milliseconds after which a process that has not ended counts as hatched.
pub const HATCH_MAX_MS: u64 = 1_000;
/// A hypervisor that ran this many milliseconds has earned a fresh start of the back-off.
pub const STEADY_MS: u64 = 60_000;
/// Restarts without a steady run after which `on-failure` gives up.
pub const RESTARTS_MAX: u32 = 8;

/// Where the process of a VM is in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// There is no process and none is due.
    #[default]
    Idle,
    /// It runs since this moment of the monotonic clock. While it hatches, whoever started it has
    /// not been answered yet.
    Running { pid: u32, since: u64, hatching: Option<Hatching> },
    /// It was asked to end.
    Stopping { pid: u32, stop: Stop },
    /// It ended by itself and is started again at this moment.
    Waiting { until: u64 },
}

/// A process that was started and has not shown yet that it works. A hypervisor finds most of what
/// is wrong with its arguments in its first milliseconds; its callers are told of that, not that
/// it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hatching {
    /// Who is answered once it has hatched, and how.
    pub answers: Vec<(Ticket, Answer)>,
    /// Whether the VM was made by the same request, and so ends with it.
    pub made: bool,
    /// When it is looked at next.
    pub check_at: u64,
    /// When it counts as hatched without having shown anything.
    pub until: u64,
}

/// A stop under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// When SIGTERM is due; `None` once it was sent.
    pub terminate_at: Option<u64>,
    /// When SIGKILL is due; `None` once it was sent.
    pub kill_at: Option<u64>,
    /// Who waits for the end, and for what.
    pub waiters: Vec<(Option<Ticket>, Want)>,
}

/// What a caller wants of the end of a process. The order is that of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// That it has ended.
    Stopped,
    /// That it runs again.
    Restarted,
    /// That the VM is gone.
    Deleted,
}

/// The next signal of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escalation {
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

impl Life {
    /// The process, where there is one.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Life::Running { pid, .. } | Life::Stopping { pid, .. } => Some(*pid),
            Life::Idle | Life::Waiting { .. } => None,
        }
    }

    /// The next moment at which something is due.
    pub fn deadline(&self) -> Option<u64> {
        match self {
            Life::Stopping { stop, .. } => stop.terminate_at.into_iter().chain(stop.kill_at).min(),
            Life::Waiting { until } => Some(*until),
            Life::Running { hatching, .. } => hatching.as_ref().map(|hatching| hatching.check_at),
            Life::Idle => None,
        }
    }

    /// The callers that wait for what becomes of the process.
    pub(super) fn tickets(&self) -> Vec<Ticket> {
        match self {
            Life::Running { hatching, .. } => {
                let answers = hatching.iter().flat_map(|hatching| &hatching.answers);
                answers.map(|(ticket, _)| *ticket).collect()
            }
            Life::Stopping { stop, .. } => stop.waiters.iter().filter_map(|(it, _)| *it).collect(),
            Life::Idle | Life::Waiting { .. } => Vec::new(),
        }
    }
}

impl Stop {
    /// A stop that is over at the latest `timeout_ms` from now. With 0 it is SIGKILL at once.
    pub fn new(now: u64, timeout_ms: u64) -> Stop {
        let grace = TERMINATE_GRACE_MS.min(timeout_ms / 2);
        let kill_at = now.saturating_add(timeout_ms);
        Stop { terminate_at: Some(kill_at - grace), kill_at: Some(kill_at), waiters: Vec::new() }
    }

    /// Whether somebody wants this of the end.
    pub fn wants(&self, want: Want) -> bool {
        self.waiters.iter().any(|(_, wanted)| *wanted == want)
    }

    /// Whether nobody asked for it: the VM is restarted for its own sake.
    pub fn is_nobodys(&self) -> bool {
        self.waiters.iter().all(|waiter| *waiter == (None, Want::Restarted))
    }

    /// A second wish for the same end: the earlier deadline holds.
    pub fn hasten(&mut self, other: Stop) {
        let earlier =
            |mine: Option<u64>, other: Option<u64>| mine.map(|at| other.map_or(at, |o| at.min(o)));
        self.terminate_at = earlier(self.terminate_at, other.terminate_at);
        self.kill_at = earlier(self.kill_at, other.kill_at);
    }

    /// What is due at `now` could not be done: it is due again in a while.
    pub fn put_off(&mut self, now: u64) {
        let later =
            |at: Option<u64>| at.map(|at| if at <= now { now + SIGNAL_RETRY_MS } else { at });
        (self.terminate_at, self.kill_at) = (later(self.terminate_at), later(self.kill_at));
    }

    /// The signal that is due at `now`; asking again before the next is due gives `None`.
    pub fn escalate(&mut self, now: u64) -> Option<Escalation> {
        if self.kill_at.is_some_and(|at| at <= now) {
            (self.terminate_at, self.kill_at) = (None, None);
            return Some(Escalation::Kill);
        }
        if self.terminate_at.is_some_and(|at| at <= now) {
            self.terminate_at = None;
            return Some(Escalation::Terminate);
        }
        None
    }
}

/// What a policy makes of an end that nobody asked for: milliseconds to wait before a restart, or
/// `None` to leave it. `in_a_row` counts the restarts since the last steady run.
pub fn restart_after(policy: RestartPolicy, exit: Exit, in_a_row: u32) -> Option<u64> {
    let due = match policy {
        RestartPolicy::No => false,
        RestartPolicy::OnFailure => exit != Exit::Code(0) && in_a_row < RESTARTS_MAX,
        RestartPolicy::Always => true,
    };
    due.then(|| (BACKOFF_FIRST_MS << in_a_row.min(16)).min(BACKOFF_MAX_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_goes_from_mild_to_hard_once_each() {
        let mut stop = Stop::new(1_000, 30_000);
        assert_eq!(stop.escalate(25_999), None);
        assert_eq!(stop.escalate(26_000), Some(Escalation::Terminate));
        assert_eq!(stop.escalate(26_001), None);
        assert_eq!(stop.escalate(31_000), Some(Escalation::Kill));
        assert_eq!(stop.escalate(99_000), None);
    }

    #[test]
    fn no_time_means_kill_at_once() {
        assert_eq!(Stop::new(7, 0).escalate(7), Some(Escalation::Kill));
        assert_eq!(Stop::new(7, u64::MAX).kill_at, Some(u64::MAX));
    }

    #[test]
    fn the_earlier_deadline_holds() {
        let mut stop = Stop::new(0, 30_000);
        stop.hasten(Stop::new(100, 400));
        assert_eq!((stop.terminate_at, stop.kill_at), (Some(300), Some(500)));
        stop.hasten(Stop::new(200, 90_000));
        assert_eq!(stop.kill_at, Some(500));
        stop.escalate(300);
        stop.hasten(Stop::new(300, 150));
        assert_eq!((stop.terminate_at, stop.kill_at), (None, Some(450)));
    }

    #[test]
    fn policies() {
        use RestartPolicy::{Always, No, OnFailure};
        assert_eq!(restart_after(No, Exit::Code(1), 0), None);
        assert_eq!(restart_after(OnFailure, Exit::Code(0), 0), None);
        assert_eq!(restart_after(OnFailure, Exit::Code(1), 0), Some(1_000));
        assert_eq!(restart_after(OnFailure, Exit::Signal(9), 3), Some(8_000));
        assert_eq!(restart_after(OnFailure, Exit::Lost, RESTARTS_MAX), None);
        assert_eq!(restart_after(Always, Exit::Code(0), 400), Some(BACKOFF_MAX_MS));
    }
}
