//! What threads do for requests: they read and copy files before, and take snapshots after.

use super::EventLoop;
use crate::daemon::saving::{Preparation, Prepared};
use crate::daemon::workers::Done;
use crate::hypervisor::process::Processes;
use crate::model::error::Failure;
use crate::model::request::{Request, Ticket};
use crate::network::Network;
use crate::store::storage::Storage;

impl<N: Network, D: Storage, P: Processes> EventLoop<N, D, P> {
    /// Handles a request, after its files were read if it has some.
    pub(super) fn prepare(&mut self, ticket: Ticket, mut request: Request) {
        // Of many VMs, each gets disks by itself.
        let copies = match self.many.is_counted(ticket) {
            true => None,
            false => self.shell.copies(&mut request),
        };
        match copies.or_else(|| self.shell.preparation(&request)) {
            Some(preparation) => self.begin_preparations(vec![(ticket, request, preparation)]),
            None => self.do_request(ticket, request),
        }
    }

    /// Has a thread prepare these, one after the other.
    pub(super) fn begin_preparations(&mut self, requests: Vec<(Ticket, Request, Preparation)>) {
        let tickets: Vec<Ticket> = requests.iter().map(|(ticket, ..)| *ticket).collect();
        if let Err(error) = self.workers.prepare(requests) {
            let failure = Failure::kernel("start", "a thread that reads files", &error);
            for ticket in tickets {
                self.tell_one(ticket, &Err(failure.clone().into()));
            }
        }
    }

    /// Disks that were made for requests stay if a VM has them now, and go if the request has ended
    /// without one. `all`: the daemon ends.
    pub(super) fn settle_disks(&mut self, all: bool) {
        for (ticket, disks) in std::mem::take(&mut self.made) {
            if self.shell.has_disks(disks.folder()) {
                disks.keep();
            } else if !all && self.tickets.holder(ticket).is_some() {
                self.made.push((ticket, disks));
            }
        }
    }

    /// Starts the threads that take snapshots.
    pub(super) fn begin_snapshots(&mut self) {
        for save in self.shell.take_saves() {
            let (name, ticket) = (save.taking.name.clone(), save.ticket);
            if let Err(error) = self.workers.save(save) {
                let failure = Failure::kernel("start", "a thread that takes a snapshot", &error);
                self.shell.snapshot_taken(&name, ticket, Err(failure), self.now());
            }
        }
    }

    /// Goes on with what threads have done.
    pub(super) fn hear_workers(&mut self) {
        while let Some(done) = self.workers.take() {
            match done {
                Done::Prepared { ticket, result: Ok(Prepared { request, disks }), changed } => {
                    self.made.extend(disks.map(|disks| (ticket, disks)));
                    match changed {
                        true => self.prepare(ticket, request),
                        false => self.do_request(ticket, request),
                    }
                }
                Done::Prepared { ticket, result: Err(error), .. } => {
                    self.tell_one(ticket, &Err(error));
                }
                Done::Saved { name, ticket, result } => {
                    self.shell.snapshot_taken(&name, ticket, result, self.now());
                    self.tell();
                }
            }
        }
    }
}
