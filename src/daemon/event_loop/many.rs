//! Many VMs by one call: each is made and started as by a call of its own, and answered when it is
//! up.
//!
//! What is read for them (the snapshot that they wake from) is read once. Then each has a number of
//! its own among the requests, gets its disks, and waits for its turn with all slow work.

use std::collections::HashMap;

use super::EventLoop;
use super::slow::Slow;
use crate::daemon::client::State;
use crate::hypervisor::process::Processes;
use crate::model::error::Refusal;
use crate::model::name::VmName;
use crate::model::request::{Change, Request, Ticket};
use crate::network::Network;
use crate::store::storage::Storage;

/// The calls for many VMs.
#[derive(Debug, Default)]
pub(super) struct Many {
    /// Those that are not handled yet, with the number of VMs.
    counts: HashMap<Ticket, u16>,
    /// The VMs that are not answered yet.
    open: HashMap<Ticket, VmName>,
}

impl Many {
    /// This call is for so many VMs.
    pub(super) fn count(&mut self, ticket: Ticket, count: u16) {
        self.counts.insert(ticket, count);
    }

    /// Whether a call is for many VMs and is not handled yet.
    pub(super) fn is_counted(&self, ticket: Ticket) -> bool {
        self.counts.contains_key(&ticket)
    }

    /// For how many VMs a call is that is handled now; `None`: it is another call.
    pub(super) fn counted(&mut self, ticket: Ticket) -> Option<u16> {
        self.counts.remove(&ticket)
    }

    /// One request is answered, or nobody waits for it: the VM, if it is one of many.
    pub(super) fn answered(&mut self, ticket: Ticket) -> Option<VmName> {
        self.counts.remove(&ticket);
        self.open.remove(&ticket)
    }
}

impl<N: Network, D: Storage, P: Processes> EventLoop<N, D, P> {
    /// Makes so many VMs of one request: `web-1`, `web-2` and so on.
    pub(super) fn make_many(&mut self, ticket: Ticket, request: Request, count: u16) {
        let Request::Change(Change::Create { name, spec, notes, .. }) = request else { return };
        let named = |index| VmName::new(&format!("{name}-{index}"));
        let names: Result<Vec<VmName>, Refusal> = (1..=count).map(named).collect();
        let names = match names {
            Ok(names) => names,
            Err(refusal) => return self.tell_one(ticket, &Err(refusal.into())),
        };
        let Some(key) = self.tickets.holder(ticket) else { return };
        let Some(client) = self.sources.client(key) else { return };
        client.state = State::Many { open: count };
        self.tickets.answered(ticket);
        let mut prepared = Vec::new();
        for name in names {
            let ticket = self.tickets.issue(key);
            self.many.open.insert(ticket, name.clone());
            let (spec, notes) = (Box::new(spec.one_of_many(&name)), notes.clone());
            let mut create =
                Change::Create { name, spec, start: true, dry_run: false, notes }.into();
            match self.shell.copies(&mut create) {
                Some(copies) => prepared.push((ticket, create, copies)),
                None => self.slow.push_back(Slow::Start(ticket, create)),
            }
        }
        if !prepared.is_empty() {
            self.begin_preparations(prepared);
        }
    }
}
