//! Asks on bridges with ports of others who has an address, and has creates wait for that.
//!
//! The engine decides ([`crate::engine::probe`]). A create that waits is kept here with its caller,
//! and is decided anew when its addresses are known to be nobody's. The answers are read when the
//! next question is due, so they need no source in the loop.

use super::shell::Shell;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::name::VmName;
use crate::model::request::{Change, Request, Ticket};
use crate::network::Network;
use crate::store::storage::Storage;

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Asks and hears what is due, and decides on the creates that wait no longer.
    pub(super) fn probe(&mut self, now: Now) {
        for network in self.engine.probed() {
            for said in self.network.hear_arp(&network.bridge) {
                if let Some(notice) = self.engine.somebody_has(&network.name, said, now) {
                    self.event(notice, now);
                }
            }
        }
        for (network, ip) in self.engine.probes_due(now) {
            if let Err(error) = self.network.ask_arp(&network.bridge, ip) {
                log::warn!("network {}: cannot ask who has {ip}: {error}", network.name);
            }
        }
        if self.engine.probed().is_empty() {
            self.network.end_arp();
        }
        for (ticket, change) in std::mem::take(&mut self.waiting) {
            match change.makes() {
                Some(name) if self.engine.is_probed(name) => self.waiting.push((ticket, change)),
                Some(_) | None => self.decide_anew(ticket, change, now),
            }
        }
    }

    fn decide_anew(&mut self, ticket: Ticket, change: Change, now: Now) {
        let name = change.makes().cloned();
        self.request(ticket, &Request::Change(change), now);
        let still = |name: &VmName| self.waiting.iter().any(|(_, it)| it.makes() == Some(name));
        if let Some(name) = name.filter(|name| !still(name)) {
            self.engine.end_promises(&name);
        }
    }

    /// A caller has hung up: if its create still waits, nothing is made. Others who want a VM of
    /// that name are promised addresses of their own.
    #[cfg(target_os = "linux")]
    pub(super) fn end_waiting_for_address(&mut self, ticket: Ticket) {
        let (theirs, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(of, _)| *of == ticket);
        self.waiting = others;
        for name in theirs.iter().filter_map(|(_, change)| change.makes()) {
            self.engine.end_promises(name);
        }
    }
}
