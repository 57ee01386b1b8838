//! What the daemon has done since it started, counted for its metrics. All of it is bounded: the
//! labels are words of volnet's own, or VMs that exist.

use std::collections::BTreeMap;

use crate::model::error::Error;
use crate::model::name::VmName;
use crate::model::view::EventKind;

/// The bounds of times in microseconds, and as they are written, in seconds.
pub const TIME_BOUNDS: [(u64, &str); 5] =
    [(1_000, "0.001"), (10_000, "0.01"), (100_000, "0.1"), (1_000_000, "1"), (10_000_000, "10")];
/// The bounds of the lengths of plans.
pub const LENGTH_BOUNDS: [(u64, &str); 4] = [(1, "1"), (4, "4"), (16, "16"), (64, "64")];

/// The counts.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answered requests, by method.
    pub requests: BTreeMap<(&'static str, Outcome), u64>,
    /// How long they took until they were answered.
    pub times: BTreeMap<&'static str, Histogram<{ TIME_BOUNDS.len() }>>,
    /// Changes of the kernel in each plan that was run.
    pub plans: Histogram<{ LENGTH_BOUNDS.len() }>,
    /// Repairs of what others had changed, by operation.
    pub repairs: BTreeMap<&'static str, u64>,
    /// Leases that guests were given, by VM.
    pub leases: BTreeMap<VmName, u64>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Done,
    Refused,
    Failed,
}

impl Outcome {
    /// The outcome of a result.
    pub fn of<T>(result: &Result<T, Error>) -> Outcome {
        match result {
            Ok(_) => Outcome::Done,
            Err(Error::Refused(_)) => Outcome::Refused,
            Err(Error::Failed(_)) => Outcome::Failed,
        }
    }

    /// The outcome as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        }
    }
}

/// How many values were at most as large as each of some bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram<const N: usize> {
    /// Those that were above the bound before.
    pub within: [u64; N],
    /// Those above all bounds.
    pub above: u64,
    pub sum: u64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Histogram { within: [0; N], above: 0, sum: 0 }
    }
}

impl<const N: usize> Histogram<N> {
    fn add(&mut self, bounds: &[(u64, &str); N], value: u64) {
        match bounds.iter().position(|(bound, _)| value <= *bound) {
            Some(at) => self.within[at] += 1,
            None => self.above += 1,
        }
        self.sum += value;
    }
}

impl Tally {
    /// A request was answered, this long after it was read.
    pub fn answered(&mut self, method: &'static str, outcome: Outcome, us: u64) {
        *self.requests.entry((method, outcome)).or_default() += 1;
        self.times.entry(method).or_default().add(&TIME_BOUNDS, us);
    }

    /// A message was refused before it became a request.
    pub fn refused(&mut self, method: &'static str) {
        *self.requests.entry((method, Outcome::Refused)).or_default() += 1;
    }

    /// A plan of this length is run. One without a step is none.
    pub fn planned(&mut self, length: usize) {
        if length > 0 {
            self.plans.add(&LENGTH_BOUNDS, length as u64);
        }
    }

    /// An event happened. The counts of a VM end with it.
    pub fn told(&mut self, kind: EventKind, vm: Option<&VmName>) {
        match (kind, vm) {
            (EventKind::LeaseGiven, Some(vm)) => {
                *self.leases.entry(vm.clone()).or_default() += 1;
            }
            (EventKind::VmDeleted, Some(vm)) => drop(self.leases.remove(vm)),
            (_, _) => {}
        }
    }

    /// What others had changed was repaired.
    pub fn repaired(&mut self, operation: &'static str) {
        *self.repairs.entry(operation).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_for_the_first_bound_that_it_is_within() {
        let mut tally = Tally::default();
        for us in [0, 1_000, 1_001, 10_000_001] {
            tally.answered("Get", Outcome::Done, us);
        }
        let times = tally.times["Get"];
        assert_eq!((times.within, times.above, times.sum), ([2, 1, 0, 0, 0], 1, 10_002_002));
        assert_eq!(tally.requests[&("Get", Outcome::Done)], 4);
    }

    #[test]
    fn the_leases_of_a_vm_are_counted_until_it_is_deleted() {
        let (mut tally, vm) = (Tally::default(), VmName::new("web").unwrap());
        tally.told(EventKind::LeaseGiven, Some(&vm));
        tally.told(EventKind::LeaseEnded, Some(&vm));
        assert_eq!(tally.leases[&vm], 1);
        tally.told(EventKind::VmDeleted, Some(&vm));
        assert!(tally.leases.is_empty());
    }
}
