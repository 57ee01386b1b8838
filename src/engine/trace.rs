//! Which taps the kernel tells of, because somebody looks at what their guests send
//! ([`crate::trace`]).
//!
//! A guest that is traced is other elements of our sets, as long as somebody looks. Nothing of it
//! is written: the next daemon does not want it, and mends what an earlier one left.

use crate::engine::decide::Engine;
use crate::engine::desire::apart;
use crate::model::name::TapName;
use crate::plan::op::{Op, Plan};
use crate::plan::ruleset::Element;

impl Engine {
    /// Somebody wants to know of these taps. Gives what is to be done.
    pub fn trace(&mut self, taps: &[TapName]) -> Plan {
        let before = self.elements_with(taps);
        for tap in taps {
            *self.known.traced.entry(tap.clone()).or_default() += 1;
        }
        self.from(&before, taps)
    }

    /// Somebody wants to know of these taps no more.
    pub fn end_trace(&mut self, taps: &[TapName]) -> Plan {
        let before = self.elements_with(taps);
        for tap in taps {
            match self.known.traced.get_mut(tap) {
                Some(count) if *count > 1 => *count -= 1,
                Some(_) => drop(self.known.traced.remove(tap)),
                None => {}
            }
        }
        self.from(&before, taps)
    }

    /// What the guests with these taps are in the sets of our tables.
    fn elements_with(&self, taps: &[TapName]) -> Vec<Element> {
        let interfaces = self.placed().flat_map(|vm| vm.record.interfaces());
        let these = interfaces.filter(|(nic, _)| taps.contains(&nic.tap));
        these.flat_map(|(nic, spec)| self.elements_of(nic, spec)).collect()
    }

    /// What makes of these elements those that guests with these taps have now.
    fn from(&self, before: &[Element], taps: &[TapName]) -> Plan {
        let (gone, new) = apart(before, &self.elements_with(taps));
        Op::exchange(gone, new).into_iter().collect()
    }
}
