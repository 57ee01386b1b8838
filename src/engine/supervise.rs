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
//! and at the caller's deadline SIGKILL. Everything here computes with given times.

use crate::engine::decide::Answer;
use crate::engine::lease::Pace;
use crate::model::record::{Exit, Halt};
use crate::model::request::Ticket;
use crate::model::spec::RestartPolicy;

/// Milliseconds from SIGTERM to SIGKILL, unless the whole time is shorter than twice that.
pub const TERMINATE_GRACE_MS: u64 = 5_000;
/// Milliseconds in which a hypervisor ends by itself after the power-off of its guest.
pub const POWER_OFF_MS: u64 = 1_000;
/// Milliseconds until a signal that could not be sent is tried again.
pub const SIGNAL_RETRY_MS: u64 = 1_000;
/// Milliseconds of back-off before the first restart; doubled each time.
pub const BACKOFF_FIRST_MS: u64 = 1_000;
/// The longest back-off in milliseconds.
pub const BACKOFF_MAX_MS: u64 = 60_000;
/// Milliseconds between the first looks at a process in its start-up check. Later ones are an
/// eighth of its age apart.
pub const CHECK_FIRST_MS: u64 = 10;
/// The longest time between two looks, in milliseconds.
pub const CHECK_MAX_MS: u64 = 250;
/// Milliseconds in which a hypervisor must say that its guest runs. A guest boots in tenths of a
/// second. A host that starts a hundred at once, or that allocates much memory, takes seconds.
pub const START_MAX_MS: u64 = 30_000;
/// The same for one whose guest wakes from a snapshot: all of its memory may have to be read from a
/// slow disk first.
pub const WAKE_MAX_MS: u64 = 600_000;
/// Milliseconds after which a hypervisor passes the start-up check if it has no way to say so.
pub const UNTOLD_MS: u64 = 1_000;
/// Milliseconds in which a guest must be paused, or go on. It takes a few, and on a host that is
/// busy tenths of a second.
pub const PAUSE_MAX_MS: u64 = 10_000;
/// If a hypervisor ran this many milliseconds, the back-off begins anew.
pub const STEADY_MS: u64 = 60_000;
/// Restarts without a steady run after which `on-failure` gives up.
pub const RESTARTS_MAX: u32 = 8;

/// The state of a VM's process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// There is no process, and none is due to start.
    #[default]
    Idle,
    /// It exists since this moment of the monotonic clock. During the start-up check its guest does
    /// not run yet, and its callers have no answer.
    Running { pid: u32, since: u64, check: Option<StartCheck>, pause: Pause },
    /// It was asked to end.
    Stopping { pid: u32, stop: Stop },
    /// It ended by itself, and is started again at this moment.
    Waiting { until: u64 },
}

/// Whether the guest of a process that runs is paused. What is asked of it is done when its
/// hypervisor says so. Until then it is looked at again and again, as in the start-up check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// Whether it was when its hypervisor last said.
    pub is_paused: bool,
    /// Why its hypervisor has stopped it by itself, if it has.
    pub halt: Option<Halt>,
    /// [`crate::model::record::Heard::stops`] of its hypervisor.
    pub(super) stops: u32,
    /// What its hypervisor has said by itself, for its limit.
    pub(super) told: Pace,
    /// What was asked of it, and is not done.
    pub wish: Option<Wish>,
    /// The snapshot that is being taken of it. Meanwhile it counts as paused.
    pub saving: Option<Saving>,
}

/// A snapshot that is being taken of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saving {
    /// Who asked for it.
    pub ticket: Ticket,
    /// Whether the guest was paused before, and stays so.
    pub was_paused: bool,
}

/// A pause or a resumption that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Whether it is to be paused.
    pub paused: bool,
    /// Whether it was, when it was asked.
    pub was_paused: bool,
    /// Who asked.
    pub tickets: Vec<Ticket>,
    /// When it was asked.
    pub since: u64,
    /// When to look at it next.
    pub check_at: u64,
}

/// The start-up check of a new process. It ends when the hypervisor says that its guest runs, or
/// with the process. A hypervisor that says neither in [`START_MAX_MS`] is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartCheck {
    /// The callers to answer after the check, and their replies.
    pub answers: Vec<(Ticket, Answer)>,
    /// Who started the process.
    pub origin: Origin,
    /// When it began: with the process, or after a snapshot.
    pub since: u64,
    /// When to look at the process next.
    pub check_at: u64,
    /// Its time is over, and it is being killed.
    pub late: bool,
    /// Whether it is one of those that may start at once ([`super::crowd`]).
    pub has_place: bool,
    /// Whether its guest wakes from a snapshot, or was being saved.
    pub waking: Waking,
}

/// Whether a guest stands still for a snapshot, and is to go on: its hypervisor has it stand still
/// until it is told to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waking {
    /// It boots.
    #[default]
    No,
    /// Its memory is being read.
    Asleep,
    /// It was told to go on.
    Called,
    /// It was being saved when the last daemon ended. It is told to go on until it does.
    CutShort,
}

/// Who started a process, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The request that made the VM. If the start fails, the VM is removed.
    Made,
    /// This daemon, for a VM that existed.
    Started,
    /// An earlier daemon. Somebody may use its control socket already, and then volnet gets no
    /// answer. So it is not ended for that.
    Adopted,
    /// An earlier daemon, which had told that its guest runs. It is only asked whether it is
    /// paused.
    Known,
}

impl Origin {
    /// Whether somebody may have been told that the guest runs.
    pub fn was_told(self) -> bool {
        match self {
            Origin::Adopted | Origin::Known => true,
            Origin::Made | Origin::Started => false,
        }
    }
}

/// A stop in progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// When SIGTERM is due; `None` once it was sent.
    pub terminate_at: Option<u64>,
    /// When SIGKILL is due; `None` once it was sent.
    pub kill_at: Option<u64>,
    /// The callers that wait for the end, and what they want. None if the guest has ended by
    /// itself.
    pub waiters: Vec<(Option<Ticket>, Want)>,
    /// Whether the guest was to wake from a snapshot, and is not told to go on any more.
    pub asleep: bool,
}

/// What a caller wants after the end of a process, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// That the process has ended.
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
    /// A process that runs since this moment.
    pub(super) fn running(pid: u32, since: u64) -> Life {
        Life::Running { pid, since, check: None, pause: Pause::default() }
    }

    /// The process, if there is one.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Life::Running { pid, .. } | Life::Stopping { pid, .. } => Some(*pid),
            Life::Idle | Life::Waiting { .. } => None,
        }
    }

    /// The snapshot that is being taken of its guest.
    pub fn saving(&self) -> Option<&Saving> {
        match self {
            Life::Running { pause, .. } => pause.saving.as_ref(),
            Life::Idle | Life::Stopping { .. } | Life::Waiting { .. } => None,
        }
    }

    /// Forgets what was asked of its guest, and gives who asked.
    pub(super) fn give_up_wish(&mut self) -> Vec<Ticket> {
        match self {
            Life::Running { pause, .. } => {
                let wish = pause.wish.take().map(|it| it.tickets).unwrap_or_default();
                wish.into_iter().chain(pause.saving.take().map(|it| it.ticket)).collect()
            }
            Life::Idle | Life::Stopping { .. } | Life::Waiting { .. } => Vec::new(),
        }
    }

    /// The next deadline.
    pub fn deadline(&self) -> Option<u64> {
        match self {
            Life::Stopping { stop, .. } => stop.terminate_at.into_iter().chain(stop.kill_at).min(),
            Life::Waiting { until } => Some(*until),
            // A wish waits for the end of the check.
            Life::Running { check: Some(check), .. } => Some(check.check_at),
            Life::Running { check: None, pause, .. } => {
                pause.wish.as_ref().map(|wish| wish.check_at)
            }
            Life::Idle => None,
        }
    }

    /// The callers that wait for the process.
    pub(super) fn tickets(&self) -> Vec<Ticket> {
        match self {
            Life::Running { check, pause, .. } => {
                let answers = check.iter().flat_map(|check| &check.answers);
                let wish = pause.wish.iter().flat_map(|wish| &wish.tickets);
                let wish = wish.chain(pause.saving.iter().map(|saving| &saving.ticket));
                answers.map(|(ticket, _)| ticket).chain(wish).copied().collect()
            }
            Life::Stopping { stop, .. } => stop.waiters.iter().filter_map(|(it, _)| *it).collect(),
            Life::Idle | Life::Waiting { .. } => Vec::new(),
        }
    }

    /// Whether the guest of its process was to wake from a snapshot, and certainly has not. Of a
    /// process that another daemon started, this one cannot know.
    pub(super) fn has_never_woken(&self) -> bool {
        match self {
            Life::Running { check: Some(check), .. } => {
                check.waking == Waking::Asleep && !check.origin.was_told()
            }
            Life::Stopping { stop, .. } => stop.asleep,
            Life::Running { .. } | Life::Idle | Life::Waiting { .. } => false,
        }
    }
}

impl StartCheck {
    /// Whether its guest stands still for a snapshot, as far as its hypervisor has said. One that
    /// was being saved may go on before it is looked at.
    pub(super) fn has_guest_wait(&self, is_paused: bool) -> bool {
        match self.waking {
            Waking::No => false,
            Waking::Asleep | Waking::Called => true,
            Waking::CutShort => is_paused,
        }
    }

    /// Milliseconds in which the guest must run.
    pub(super) fn most_ms(&self) -> u64 {
        match self.waking {
            Waking::No => START_MAX_MS,
            Waking::Asleep | Waking::Called | Waking::CutShort => WAKE_MAX_MS,
        }
    }
}

impl Stop {
    /// A stop that ends at the latest in `timeout_ms`. 0 means SIGKILL at once.
    pub fn new(now: u64, timeout_ms: u64) -> Stop {
        let grace = TERMINATE_GRACE_MS.min(timeout_ms / 2);
        let kill_at = now.saturating_add(timeout_ms);
        let (terminate_at, kill_at) = (Some(kill_at - grace), Some(kill_at));
        Stop { terminate_at, kill_at, waiters: Vec::new(), asleep: false }
    }

    /// The end of a hypervisor whose guest has ended by itself. It gets SIGTERM now.
    pub fn after_guest(now: u64) -> Stop {
        let kill_at = Some(now.saturating_add(TERMINATE_GRACE_MS));
        Stop { terminate_at: None, kill_at, waiters: Vec::new(), asleep: false }
    }

    /// The end of a hypervisor whose guest is off, and that should end by itself.
    pub fn after_power_off(now: u64) -> Stop {
        let terminate_at = now.saturating_add(POWER_OFF_MS);
        let kill_at = Some(terminate_at.saturating_add(TERMINATE_GRACE_MS));
        Stop { terminate_at: Some(terminate_at), kill_at, waiters: Vec::new(), asleep: false }
    }

    /// Whether nobody wants it: the guest has ended by itself, and the restart policy decides.
    pub fn is_the_guests(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Whether a caller wants this.
    pub fn wants(&self, want: Want) -> bool {
        self.waiters.iter().any(|(_, wanted)| *wanted == want)
    }

    /// Whether volnet itself wants it, to restart the VM.
    pub fn is_nobodys(&self) -> bool {
        !self.is_the_guests()
            && self.waiters.iter().all(|waiter| *waiter == (None, Want::Restarted))
    }

    /// Adds a second caller to the stop. The earlier deadline holds.
    pub fn hasten(&mut self, other: Stop) {
        let earlier =
            |mine: Option<u64>, other: Option<u64>| mine.map(|at| other.map_or(at, |o| at.min(o)));
        self.terminate_at = earlier(self.terminate_at, other.terminate_at);
        self.kill_at = earlier(self.kill_at, other.kill_at);
    }

    /// The step that was due at `now` failed: it is due again in a while.
    pub fn put_off(&mut self, now: u64) {
        let later =
            |at: Option<u64>| at.map(|at| if at <= now { now + SIGNAL_RETRY_MS } else { at });
        (self.terminate_at, self.kill_at) = (later(self.terminate_at), later(self.kill_at));
    }

    /// The signal that is due at `now`. A second call before the next signal is due returns `None`.
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

/// Whether a process that was started at `since` has run so long that the back-off begins anew.
pub fn is_steady(since: u64, now: u64) -> bool {
    now.saturating_sub(since) >= STEADY_MS
}

/// Milliseconds from one look at a process to the next one, when it is of this age.
pub fn until_next_look(age: u64) -> u64 {
    (age / 8).clamp(CHECK_FIRST_MS, CHECK_MAX_MS)
}

/// Applies the restart policy after an unexpected end: milliseconds to wait before a restart, or
/// `None` for no restart. `in_a_row` counts the restarts since the last steady run.
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
