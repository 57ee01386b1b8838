//! Creates that come together share what is dear of each: the round of syncs that puts its record on
//! the disk.
//!
//! ```text
//! decided, plan ▶ decided, plan ▶ … ▶ records, one round of syncs ▶ commit, replies ▶ commit, replies …
//!                                              ╰── one not written: that one is undone ▶ abort, error
//! ```
//!
//! Each keeps its own outcome, and nobody is answered before its own record is on the disk. A crash
//! leaves what it leaves of one create, several times: taps without a record, or records without a
//! reply.
//!
//! In meaning they are one after the other. A create is decided in sight of those before it that may
//! still fail, so only what does not depend on that is decided there: a VM of a new name that gets what
//! it wants. Whatever else comes (another request, a name that is there, a refusal) is decided when
//! those before it have their outcome.

use super::shell::Shell;
use crate::engine::decide::{Decision, Step};
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::error::Error;
use crate::model::record::Record;
use crate::model::request::Request;
use crate::model::request::Ticket;
use crate::network::{Applied, Network, execute};
use crate::store::disk::Disk;

/// A decision whose plan was executed, and what came of that.
type Begun = (Decision, Result<Vec<Applied>, Error>);

impl<N: Network, D: Disk, P: Processes> Shell<N, D, P> {
    /// Handles requests in their order, as [`Shell::request`] does each.
    pub fn requests(&mut self, requests: &[(Ticket, Request)], now: Now) {
        let mut group = Vec::new();
        for (ticket, request) in requests {
            match self.join(*ticket, request, now) {
                Some(decision) => {
                    let applied = self.apply(&decision);
                    group.push((decision, applied));
                }
                None => {
                    self.finish(std::mem::take(&mut group), now);
                    self.request(*ticket, request, now);
                }
            }
        }
        self.finish(group, now);
    }

    /// The decision on a request that needs not know what becomes of those before it.
    fn join(&mut self, ticket: Ticket, request: &Request, now: Now) -> Option<Decision> {
        let Request::Create { name, spec, .. } = request else { return None };
        let is_set_up = self.host.is_some() || !spec.network.mode.needs_tap_device();
        if !request.goes_together() || !is_set_up || self.engine.vm(name).is_ok() {
            return None;
        }
        match self.engine.request(ticket, request, now) {
            Ok(Step::Do(decision)) => Some(*decision),
            // A refusal changes nothing: it is asked again.
            Ok(Step::Reply(_) | Step::Setup { .. } | Step::Teardown { .. } | Step::Later)
            | Err(_) => None,
        }
    }

    /// Writes the records of those that were executed, and concludes all in their order.
    fn finish(&mut self, group: Vec<Begun>, now: Now) {
        if group.is_empty() {
            return;
        }
        let executed = group.iter().filter(|(_, applied)| applied.is_ok());
        let vms = executed.filter_map(|(decision, _)| self.engine.vm(&decision.subject).ok());
        let records: Vec<&Record> = vms.map(|vm| &*vm.record).collect();
        let mut written = self.store.put_durable(&records).into_iter();
        for (decision, applied) in group {
            let result = applied.and_then(|applied| {
                let written = written.next().expect("one for each that was executed");
                written.map_err(|failure| {
                    self.write_back(&decision);
                    execute::undo(&mut self.network, &decision.plan, &applied);
                    failure.into()
                })
            });
            self.conclude(decision, result, now);
        }
        self.settle(now);
    }
}
