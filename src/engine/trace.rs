//! The taps of whose packets the kernel tells, because somebody looks ([`crate::trace`]).
//!
//! As long as somebody looks, there are tables that trace, and each such guest is elements of their
//! sets. Nothing of it is written: the next daemon does not want it, and removes what an earlier
//! one left.

use std::net::IpAddr;

use crate::engine::decide::Engine;
use crate::engine::desire::apart;
use crate::model::name::TapName;
use crate::model::nic::{Nic, is_routed};
use crate::model::spec::NetworkSpec;
use crate::plan::op::{Op, Plan};
use crate::plan::ruleset::{self, Element, Table, TracedPort};

impl Engine {
    /// Somebody wants to know of these taps. Gives what is to be done.
    pub fn trace(&mut self, taps: &[TapName]) -> Plan {
        let before = self.all_tracing_elements();
        let is_first = self.known.traced.is_empty();
        for tap in taps {
            *self.known.traced.entry(tap.clone()).or_default() += 1;
        }
        if is_first {
            let tables = self.tracing_tables().into_iter();
            return tables.map(|table| Op::CreateTable(Box::new(table))).collect();
        }
        self.from(&before)
    }

    /// Somebody wants to know of these taps no more.
    pub fn end_trace(&mut self, taps: &[TapName]) -> Plan {
        let before = self.all_tracing_elements();
        let tables = self.tracing_tables();
        for tap in taps {
            match self.known.traced.get_mut(tap) {
                Some(count) if *count > 1 => *count -= 1,
                Some(_) => drop(self.known.traced.remove(tap)),
                None => {}
            }
        }
        if self.known.traced.is_empty() {
            let remove = |it: Table| Op::RemoveTable { family: it.family, name: it.name };
            return tables.into_iter().map(remove).collect();
        }
        self.from(&before)
    }

    /// What makes of these elements those that there should be now.
    fn from(&self, before: &[Element]) -> Plan {
        let (gone, new) = apart(before, &self.all_tracing_elements());
        Op::exchange(gone, new).into_iter().collect()
    }

    /// The tables that there should be.
    pub(super) fn tracing_tables(&self) -> Vec<Table> {
        if self.known.traced.is_empty() {
            return Vec::new();
        }
        ruleset::tracing(self.has_ipv6(), self.all_tracing_elements(), self.host.nft_owner)
    }

    fn all_tracing_elements(&self) -> Vec<Element> {
        let interfaces = self.placed().flat_map(|vm| vm.record.interfaces());
        let mut all: Vec<Element> = Vec::new();
        for element in interfaces.flat_map(|(nic, spec)| self.tracing_elements(nic, spec)) {
            // Several guests may have one movable address.
            if !all.contains(&element) {
                all.push(element);
            }
        }
        all
    }

    /// What an interface is in the sets of these tables.
    pub(super) fn tracing_elements(&self, nic: &Nic, spec: &NetworkSpec) -> Vec<Element> {
        if !self.known.traced.contains_key(&nic.tap) {
            return Vec::new();
        }
        let movable = spec.addresses.iter().copied().map(IpAddr::V4);
        let addresses = nic.all_addresses().chain(movable);
        let addresses = addresses.filter(|address| is_routed(*address)).collect();
        let port = TracedPort { tap: &nic.tap, addresses, exposed: &nic.exposed };
        ruleset::traced(&port, self.has_ipv6())
    }
}
