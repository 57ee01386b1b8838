//! Logs refusals, with a limit for the lines a second: a refused client can ask again a thousand
//! times a second.

use std::fmt;

/// The most lines of refusals in one second. More are only counted.
const LINES_PER_SECOND: u32 = 10;

/// The refusals of the present second.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// When it began, in milliseconds of the monotonic clock.
    since: u64,
    count: u32,
}

impl Refusals {
    /// Logs a refusal.
    pub(super) fn log(&mut self, now: u64, what: fmt::Arguments<'_>) {
        let (loud, missed) = self.count(now);
        if missed > 0 {
            log::warn!("refused {missed} times more");
        }
        if loud {
            log::warn!("refused {what}");
        }
    }

    /// Whether to log this refusal, and how many of the last second were not logged.
    fn count(&mut self, now: u64) -> (bool, u32) {
        let mut missed = 0;
        if now.saturating_sub(self.since) >= 1000 {
            missed = self.count.saturating_sub(LINES_PER_SECOND);
            *self = Refusals { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        (self.count <= LINES_PER_SECOND, missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_for_a_second_is_counted_in_the_next() {
        let mut refusals = Refusals::default();
        let logged = (0..1000).filter(|_| refusals.count(5000).0).count();
        assert_eq!(logged, LINES_PER_SECOND as usize);
        assert_eq!(refusals.count(5999), (false, 0));
        assert_eq!(refusals.count(6000), (true, 1001 - LINES_PER_SECOND));
        assert_eq!(refusals.count(7000), (true, 0));
    }
}
