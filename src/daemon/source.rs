//! What the loop waits for, and where it is kept.
//!
//! Every source has a slot; the slot's number is its mio token. A slot is used again only after
//! its source is gone, so an event that arrives late for a closed source finds an empty slot or,
//! at worst, wakes another for nothing: every source is drained until it would block anyway.

use super::client::Client;
use super::ear::Ear;
use crate::model::name::VmName;

/// Something that can become ready.
#[derive(Debug)]
pub(super) enum Source {
    /// The socket that clients connect to.
    Listener,
    /// The pipe that signal handlers write to.
    Signals,
    /// One of the sockets with news of the kernel.
    Monitor,
    /// A connection.
    Client(Box<Client>),
    /// What the guests of a network ask.
    Guests(Box<Ear>),
    /// Requests whose files were compared.
    Comparisons,
    /// The pidfd of a VM's process.
    Process(VmName),
}

/// Sources by slot.
#[derive(Debug, Default)]
pub(super) struct Slab {
    slots: Vec<Option<Source>>,
    free: Vec<usize>,
}

impl Slab {
    /// Puts a source into a free slot and says which.
    pub(super) fn insert(&mut self, source: Source) -> usize {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(source);
                slot
            }
            None => {
                self.slots.push(Some(source));
                self.slots.len() - 1
            }
        }
    }

    /// The slot that the next [`Slab::insert`] will use.
    pub(super) fn next_slot(&self) -> usize {
        self.free.last().copied().unwrap_or(self.slots.len())
    }

    /// Takes a source out and frees its slot.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Source> {
        let source = self.slots.get_mut(slot)?.take();
        if source.is_some() {
            self.free.push(slot);
        }
        source
    }

    /// The source in a slot.
    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Source> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// All clients with their slots.
    pub(super) fn clients(&mut self) -> impl Iterator<Item = (usize, &mut Client)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, source)| match source {
            Some(Source::Client(client)) => Some((slot, client.as_mut())),
            Some(
                Source::Listener
                | Source::Signals
                | Source::Monitor
                | Source::Comparisons
                | Source::Guests(_)
                | Source::Process(_),
            )
            | None => None,
        })
    }

    /// The slot in which the guests of a network are heard.
    pub(super) fn guests_of(&self, network: &str) -> Option<usize> {
        self.slots.iter().position(
            |source| matches!(source, Some(Source::Guests(ear)) if ear.network == network),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_after_their_source_is_gone() {
        let mut slab = Slab::default();
        let (first, second) = (slab.insert(Source::Listener), slab.insert(Source::Signals));
        assert!(slab.remove(first).is_some());
        assert!(slab.remove(first).is_none());
        assert_eq!(slab.next_slot(), first);
        assert_eq!(slab.insert(Source::Listener), first);
        assert!(matches!(slab.get_mut(second), Some(Source::Signals)));
        assert!(slab.get_mut(99).is_none());
    }
}
