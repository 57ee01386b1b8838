//! The sources of the loop. The kernel knows each by a key.
//!
//! Events come in batches. Before an event has its turn, an earlier turn of the same batch may have
//! closed its source and made new ones. So a key is never reused. The event of a closed source
//! finds no source, and cannot wake another one.

use std::collections::BTreeMap;

/// The key of a source: the number of its mio token. It is never 0.
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
    /// A key for a new source. A key that is not used is lost.
    pub fn key(&mut self) -> Key {
        // Keys of 32 bits may wrap around one day.
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.sources.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// Inserts a source under its key.
    pub fn insert(&mut self, key: Key, source: S) {
        let former = self.sources.insert(key, source);
        debug_assert!(former.is_none(), "key {key} has a source");
    }

    /// Removes a source; `None` if it is gone already.
    pub fn remove(&mut self, key: Key) -> Option<S> {
        self.sources.remove(&key)
    }

    /// The source with this key; `None` if it is gone.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut S> {
        self.sources.get_mut(&key)
    }

    /// All sources, in the order of their insertion.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &S)> {
        self.sources.iter().map(|(key, source)| (*key, source))
    }

    /// The same, mutable.
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
