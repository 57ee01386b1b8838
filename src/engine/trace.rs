//! Which taps the kernel tells of, because somebody looks at what their guests send
//! ([`crate::trace`]).
//!
//! It is an element of a set as long as somebody looks. Nothing of it is written: the next daemon
//! does not want it, and removes what an earlier one left.

use crate::engine::decide::Engine;
use crate::model::name::TapName;
use crate::plan::op::{Op, Plan};
use crate::plan::ruleset::{self, Element};

impl Engine {
    /// The elements of the taps that are traced.
    pub(super) fn elements_of_traced(&self) -> impl Iterator<Item = Element> {
        self.known.traced.keys().map(|tap| ruleset::traced(tap.as_str()))
    }

    /// Somebody wants to know of these taps. Gives what is to be done.
    pub fn trace(&mut self, taps: &[TapName]) -> Plan {
        let new = |tap: &&TapName| !self.known.traced.contains_key(*tap);
        let elements: Vec<Element> =
            taps.iter().filter(new).map(|tap| ruleset::traced(tap.as_str())).collect();
        for tap in taps {
            *self.known.traced.entry(tap.clone()).or_default() += 1;
        }
        if elements.is_empty() { Plan::new() } else { vec![Op::AddElements(elements)] }
    }

    /// Somebody wants to know of these taps no more.
    pub fn end_trace(&mut self, taps: &[TapName]) -> Plan {
        let mut elements = Vec::new();
        for tap in taps {
            match self.known.traced.get_mut(tap) {
                Some(count) if *count > 1 => *count -= 1,
                Some(_) => {
                    self.known.traced.remove(tap);
                    elements.push(ruleset::traced(tap.as_str()));
                }
                None => {}
            }
        }
        if elements.is_empty() { Plan::new() } else { vec![Op::RemoveElements(elements)] }
    }
}
