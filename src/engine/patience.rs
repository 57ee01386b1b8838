//! Patience with those who break the same thing again and again.
//!
//! Each thing is repaired at once, a few times. Then it is left alone for a while, longer each
//! time, so that volnet does not fight for ever with a program that wants it otherwise.

use std::collections::BTreeMap;

/// Repairs of one thing within [`WINDOW_MS`]; the next is put off.
pub const REPAIRS_MAX: u32 = 8;
/// The milliseconds in which repairs are counted together.
pub const WINDOW_MS: u64 = 10_000;
/// How long an object is held back the first time, in milliseconds. It doubles each time.
pub const HOLD_FIRST_MS: u64 = 10_000;
/// The longest time in milliseconds.
pub const HOLD_MAX_MS: u64 = 320_000;

/// How often objects were repaired, and which are held back.
#[derive(Debug, Default)]
pub struct Patience {
    things: BTreeMap<String, Repairs>,
}

/// The repairs of one object.
#[derive(Debug)]
struct Repairs {
    /// When the first repair of this window was made, or the last hold ended.
    since: u64,
    count: u32,
    holds: u32,
    /// After each [`Patience::release`] this lies ahead.
    held_until: Option<u64>,
}

/// The decision about a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Make it.
    Repair,
    /// Hold it back for this many milliseconds from now on.
    Hold { for_ms: u64 },
    /// It is held back already.
    Held,
}

impl Patience {
    /// Ends the holds whose time is over at `now`, in milliseconds of the monotonic clock, and
    /// forgets objects that were quiet for long. Call this at [`Patience::deadline`], also if
    /// nothing is wrong any more: somebody may have put the object right, or removed it.
    pub fn release(&mut self, now: u64) {
        for repairs in self.things.values_mut() {
            if repairs.held_until.is_some_and(|until| until <= now) {
                (repairs.held_until, repairs.since, repairs.count) = (None, now, 0);
            }
        }
        self.things.retain(|_, repairs| {
            repairs.held_until.is_some() || now < repairs.since.saturating_add(HOLD_MAX_MS)
        });
    }

    /// Decides on one repair at `now`.
    pub fn judge(&mut self, object: &str, now: u64) -> Judgement {
        self.release(now);
        let fresh = Repairs { since: now, count: 0, holds: 0, held_until: None };
        let repairs = self.things.entry(object.to_owned()).or_insert(fresh);
        if repairs.held_until.is_some() {
            return Judgement::Held;
        }
        if now - repairs.since > WINDOW_MS {
            (repairs.since, repairs.count) = (now, 0);
        }
        if repairs.count < REPAIRS_MAX {
            repairs.count += 1;
            return Judgement::Repair;
        }
        let for_ms = (HOLD_FIRST_MS << repairs.holds.min(16)).min(HOLD_MAX_MS);
        repairs.holds += 1;
        repairs.held_until = Some(now + for_ms);
        Judgement::Hold { for_ms }
    }

    /// Whether an object is held back at `now`.
    pub fn holds(&self, object: &str, now: u64) -> bool {
        self.things.get(object).is_some_and(|repairs| repairs.held_until.is_some_and(|at| now < at))
    }

    /// The end of the next hold: then [`Patience::release`] is due.
    pub fn deadline(&self) -> Option<u64> {
        self.things.values().filter_map(|repairs| repairs.held_until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_repaired_a_few_times_and_then_held_back_for_longer_and_longer() {
        let mut patience = Patience::default();
        for at in 0..u64::from(REPAIRS_MAX) {
            assert_eq!(patience.judge("vbr0", at), Judgement::Repair);
        }
        assert_eq!(patience.judge("vbr0", 9), Judgement::Hold { for_ms: HOLD_FIRST_MS });
        assert_eq!(patience.judge("vbr0", 10), Judgement::Held);
        assert!(patience.holds("vbr0", 10) && !patience.holds("vbr1", 10));
        assert_eq!(patience.judge("vbr1", 10), Judgement::Repair, "others are none the worse");
        let mut now = patience.deadline().unwrap();
        for hold in 1..8 {
            for _ in 0..REPAIRS_MAX {
                assert_eq!(patience.judge("vbr0", now), Judgement::Repair);
            }
            let for_ms = (HOLD_FIRST_MS << hold).min(HOLD_MAX_MS);
            assert_eq!(patience.judge("vbr0", now), Judgement::Hold { for_ms });
            now += for_ms;
        }
    }

    #[test]
    fn repairs_that_lie_far_apart_do_not_count_together() {
        let mut patience = Patience::default();
        for at in 0..100 {
            assert_eq!(patience.judge("vbr0", at * (WINDOW_MS + 1)), Judgement::Repair);
        }
        patience.release(u64::MAX);
        assert!(patience.things.is_empty());
    }

    #[test]
    fn a_hold_ends_by_itself_when_the_thing_was_put_right_meanwhile() {
        let mut patience = Patience::default();
        while patience.judge("vbr0", 0) == Judgement::Repair {}
        let end = patience.deadline().unwrap();
        patience.release(end - 1);
        assert_eq!(patience.deadline(), Some(end));
        patience.release(end);
        assert_eq!(patience.deadline(), None, "nothing is due any more");
        while patience.judge("vbr0", end) == Judgement::Repair {}
        assert_eq!(patience.deadline(), Some(end + 2 * HOLD_FIRST_MS), "it is not forgotten");
        patience.release(u64::MAX);
        assert_eq!(patience.deadline(), None);
    }
}
