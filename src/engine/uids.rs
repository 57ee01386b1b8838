//! The users that VMs have for themselves.
//!
//! They come from a range of the settings, in which the host has no users. The one that was given
//! back last comes last: a file that a VM has left behind somewhere belongs to nobody for long.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// The users, by number.
#[derive(Clone, Debug)]
pub struct Uids {
    range: RangeInclusive<u32>,
    taken: BTreeSet<u32>,
    /// Where the search for a free one begins.
    next: u32,
}

impl Uids {
    /// Nobody has one of these yet.
    pub fn new(range: RangeInclusive<u32>) -> Uids {
        Uids { next: *range.start(), taken: BTreeSet::new(), range }
    }

    /// The one that is taken next; `None` if all are taken.
    pub fn peek(&self) -> Option<u32> {
        let from_next = self.next..=*self.range.end();
        let before = *self.range.start()..self.next;
        from_next.chain(before).find(|uid| !self.taken.contains(uid))
    }

    /// Takes a free one.
    pub fn take(&mut self) -> Option<u32> {
        let uid = self.peek()?;
        self.take_exactly(uid);
        Some(uid)
    }

    /// Takes this one for a record, which may be of an earlier range. False if it is taken.
    pub fn take_exactly(&mut self, uid: u32) -> bool {
        if self.range.contains(&uid) {
            self.next = if uid == *self.range.end() { *self.range.start() } else { uid + 1 };
        }
        self.taken.insert(uid)
    }

    /// Gives it back.
    pub fn release(&mut self, uid: u32) {
        self.taken.remove(&uid);
    }

    /// Whether it is kept for VMs.
    pub fn is_kept(&self, uid: u32) -> bool {
        self.range.contains(&uid) || self.taken.contains(&uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_was_given_back_comes_last() {
        let mut uids = Uids::new(10..=12);
        assert_eq!([uids.take(), uids.take()], [Some(10), Some(11)]);
        uids.release(10);
        assert_eq!((uids.peek(), uids.take(), uids.take()), (Some(12), Some(12), Some(10)));
        assert_eq!((uids.take(), uids.peek()), (None, None));
        uids.release(11);
        assert_eq!(uids.take(), Some(11));
        assert!(uids.take_exactly(99) && !uids.take_exactly(99) && uids.is_kept(99));
        assert!(uids.is_kept(11) && !uids.is_kept(13));
    }
}
