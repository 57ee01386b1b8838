//! Counts what the kernel was asked for, and what it refused.

use std::collections::BTreeMap;

use crate::model::error::Failure;

/// The most kinds of errors that are counted apart. The operations are volnet's own, and of each
/// the kernel has a few dozen errors at most.
const ERRORS_MAX: usize = 1024;

/// The counts, since the backend was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Changes, by operation, whether they succeeded or not.
    pub changes: BTreeMap<&'static str, u64>,
    /// What failed, by operation and errno(3); 0 where the kernel gave no number.
    pub errors: BTreeMap<(&'static str, i32), u64>,
    /// How often everything was read.
    pub observations: u64,
    /// How long that took together, in microseconds.
    pub observing_us: u64,
}

impl Tally {
    /// Counts a change of the kernel, and its failure.
    pub fn changed<T>(&mut self, operation: &'static str, result: &Result<T, Failure>) {
        *self.changes.entry(operation).or_default() += 1;
        self.asked(result);
    }

    /// Counts what failed.
    pub fn asked<T>(&mut self, result: &Result<T, Failure>) {
        let Err(Failure::Kernel { operation, errno, .. }) = result else { return };
        let kind = (*operation, *errno);
        if self.errors.len() < ERRORS_MAX || self.errors.contains_key(&kind) {
            *self.errors.entry(kind).or_default() += 1;
        }
    }

    /// Counts a time when everything was read.
    pub fn observed<T>(&mut self, us: u64, result: &Result<T, Failure>) {
        self.observations += 1;
        self.observing_us += us;
        self.asked(result);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_fails_is_counted_by_operation_and_number() {
        let mut tally = Tally::default();
        let failed = |errno| -> Result<(), Failure> {
            Err(Failure::kernel("create tap", "t", &io::Error::from_raw_os_error(errno)))
        };
        tally.changed("create tap", &Ok(()));
        tally.changed("create tap", &failed(libc::EBUSY));
        tally.observed(5, &failed(libc::EBUSY));
        assert_eq!(tally.changes["create tap"], 2);
        assert_eq!(tally.errors, BTreeMap::from([(("create tap", libc::EBUSY), 2)]));
        assert_eq!((tally.observations, tally.observing_us), (1, 5));
        for errno in 0..2 * ERRORS_MAX as i32 {
            tally.asked(&failed(errno));
        }
        assert_eq!(tally.errors.len(), ERRORS_MAX);
    }
}
