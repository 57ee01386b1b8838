//! The sources of a loop, each with a key by which it is known to the kernel.
//!
//! Readiness comes in batches: by the time that an event has its turn, a turn before it in the same
//! batch may have closed its source, and made others. So a key is given once and not again. The event
//! of a former source finds nothing, and can wake nobody in its place.

use std::collections::BTreeMap;

/// What a source is known by: the number of its mio token. Never 0.
pub type Key = usize;

/// Sources by key.
#[derive(Debug)]
pub struct Sources<S> {
    last: Key,
    sources: BTreeMap<Key, S>,
}

impl<S> Default for Sources<S> {
    fn default() -> Self {
        Sources { last: 0, sources: BTreeMap::new() }
    }
}

impl<S> Sources<S> {
    /// A key for a source that is about to be inserted; one that is not used is lost.
    pub fn key(&mut self) -> Key {
        // Where a key has 32 bits they may begin anew one day.
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.sources.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// Keeps a source, under a key that was given for it.
    pub fn insert(&mut self, key: Key, source: S) {
        let former = self.sources.insert(key, source);
        debug_assert!(former.is_none(), "key {key} has a source");
    }

    /// Takes a source out; `None` if it has gone before.
    pub fn remove(&mut self, key: Key) -> Option<S> {
        self.sources.remove(&key)
    }

    /// The source with this key; `None` if it has gone.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut S> {
        self.sources.get_mut(&key)
    }

    /// All sources, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &S)> {
        self.sources.iter().map(|(key, source)| (*key, source))
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut S)> {
        self.sources.iter_mut().map(|(key, source)| (*key, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_given_twice() {
        let mut sources = Sources::default();
        let (first, second) = (sources.key(), sources.key());
        sources.insert(first, "first");
        sources.insert(second, "second");
        assert_eq!(sources.remove(first), Some("first"));
        assert_eq!(sources.remove(first), None);
        let third = sources.key();
        sources.insert(third, "third");
        assert_eq!(sources.get_mut(first), None);
        assert_eq!(sources.get_mut(third), Some(&mut "third"));
        let all: Vec<_> = sources.iter().collect();
        assert_eq!(all, [(second, &"second"), (third, &"third")]);
    }

    #[test]
    fn keys_that_begin_anew_pass_over_those_in_use() {
        let mut sources = Sources { last: usize::MAX - 1, sources: BTreeMap::from([(1, ())]) };
        assert_eq!([sources.key(), sources.key()], [usize::MAX, 2]);
    }
}
