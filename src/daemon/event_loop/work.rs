//! What threads do for requests: they read files before, and take snapshots after.

use super::EventLoop;
use crate::daemon::workers::Done;
use crate::hypervisor::process::Processes;
use crate::model::error::Failure;
use crate::model::request::{Request, Ticket};
use crate::network::Network;
use crate::store::storage::Storage;

impl<N: Network, D: Storage, P: Processes> EventLoop<N, D, P> {
    /// Handles a request, after its files were read if it has some.
    pub(super) fn prepare(&mut self, ticket: Ticket, request: Request) {
        let Some(preparation) = self.shell.preparation(&request) else {
            return self.do_request(ticket, request);
        };
        if let Err(error) = self.workers.prepare(ticket, &request, preparation) {
            let failure = Failure::kernel("start", "a thread that reads files", &error);
            self.tell_one(ticket, &Err(failure.into()));
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
                Done::Prepared { ticket, result: Ok(request), woken: false } => {
                    self.do_request(ticket, request);
                }
                Done::Prepared { ticket, result: Ok(request), woken: true } => {
                    self.prepare(ticket, request);
                }
                Done::Prepared { ticket, result: Err(refusal), .. } => {
                    self.tell_one(ticket, &Err(refusal.into()));
                }
                Done::Saved { name, ticket, result } => {
                    self.shell.snapshot_taken(&name, ticket, result, self.now());
                    self.tell();
                }
            }
        }
    }
}
