//! vsock context ids, which identify guests on the host's vsock (vsock(7)).
//!
//! 0 to 2 are the hypervisor, the loopback and the host, and the highest id means any. Every VM
//! gets the lowest free id of the others. Used ids are kept as ranges: thousands of VMs need one
//! entry as long as there are no holes, and a record with a high id needs one more.

use std::collections::BTreeMap;

/// The lowest id that a guest can have.
pub const CID_MIN: u32 = 3;
/// The highest: `VMADDR_CID_ANY` less one (linux/vm_sockets.h).
pub const CID_MAX: u32 = u32::MAX - 1;

/// The used ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cids {
    /// First and last of every range. No two ranges touch.
    ranges: BTreeMap<u32, u32>,
}

impl Cids {
    /// Takes the lowest free id. `None` if no id is free.
    pub fn take(&mut self) -> Option<u32> {
        let cid = match self.ranges.get(&CID_MIN) {
            None => CID_MIN,
            Some(&CID_MAX) => return None,
            Some(&last) => last + 1,
        };
        self.insert(cid);
        Some(cid)
    }

    /// Takes this id for a record. False if it is used, or if a guest cannot have it.
    pub fn take_exactly(&mut self, cid: u32) -> bool {
        let free = (CID_MIN..=CID_MAX).contains(&cid) && !self.is_taken(cid);
        if free {
            self.insert(cid);
        }
        free
    }

    /// Releases an id. False if it was not used.
    pub fn release(&mut self, cid: u32) -> bool {
        let Some((first, last)) = self.range_of(cid) else {
            return false;
        };
        self.ranges.remove(&first);
        if first < cid {
            self.ranges.insert(first, cid - 1);
        }
        if cid < last {
            self.ranges.insert(cid + 1, last);
        }
        true
    }

    /// Whether this id is used.
    pub fn is_taken(&self, cid: u32) -> bool {
        self.range_of(cid).is_some()
    }

    fn range_of(&self, cid: u32) -> Option<(u32, u32)> {
        let (&first, &last) = self.ranges.range(..=cid).next_back()?;
        (cid <= last).then_some((first, last))
    }

    /// Adds a free id, and joins it to the ranges on both sides.
    fn insert(&mut self, cid: u32) {
        let first = self.range_of(cid - 1).map_or(cid, |(first, _)| first);
        let last = self.ranges.remove(&(cid + 1)).unwrap_or(cid);
        self.ranges.insert(first, last);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn begins_at_three_and_fills_holes() {
        let mut cids = Cids::default();
        assert_eq!([cids.take(), cids.take(), cids.take()], [Some(3), Some(4), Some(5)]);
        assert!(cids.release(4) && !cids.release(4));
        assert_eq!([cids.take(), cids.take()], [Some(4), Some(6)]);
    }

    #[test]
    fn refuses_what_no_guest_can_have() {
        let mut cids = Cids::default();
        for cid in [0, 1, 2, u32::MAX] {
            assert!(!cids.take_exactly(cid) && !cids.release(cid) && !cids.is_taken(cid));
        }
        assert!(cids.take_exactly(CID_MAX) && !cids.take_exactly(CID_MAX));
        assert!(cids.take_exactly(CID_MIN) && cids.is_taken(CID_MAX));
        assert_eq!(cids.take(), Some(4));
    }

    #[test]
    fn ends_when_all_are_taken() {
        let mut cids = Cids { ranges: BTreeMap::from([(CID_MIN, CID_MAX - 1)]) };
        assert_eq!((cids.take(), cids.take()), (Some(CID_MAX), None));
        assert!(cids.release(100));
        assert_eq!((cids.take(), cids.take()), (Some(100), None));
        assert_eq!(cids.ranges.len(), 1);
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(acts in prop::collection::vec((0_u8..3, 0_u32..40), 0..300)) {
            let (mut cids, mut plain) = (Cids::default(), BTreeSet::new());
            for (act, cid) in acts {
                match act {
                    0 => {
                        let lowest = (CID_MIN..).find(|cid| !plain.contains(cid)).unwrap();
                        prop_assert_eq!(cids.take(), Some(lowest));
                        plain.insert(lowest);
                    }
                    1 => {
                        let possible = cid >= CID_MIN && plain.insert(cid);
                        prop_assert_eq!(cids.take_exactly(cid), possible);
                    }
                    _ => prop_assert_eq!(cids.release(cid), plain.remove(&cid)),
                }
                let holes = plain.iter().filter(|&&cid| !plain.contains(&(cid + 1))).count();
                prop_assert_eq!(cids.ranges.len(), holes, "ranges are joined");
                prop_assert!((0..42).all(|cid| cids.is_taken(cid) == plain.contains(&cid)));
            }
        }
    }
}
