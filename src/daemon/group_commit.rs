//! Chooses the requests that are carried out together: creates that do not depend on each other.
//!
//! The result is the same as that of running them one by one. A create is decided while earlier
//! ones may still fail. So it joins them only if it does not depend on whether they succeed: it
//! must make a VM of a new name, and must not be refused. Any other request is decided when the
//! earlier ones have their outcome.
//!
//! A crash may leave of each create of the group what it may leave of one: a tap without a record,
//! or a record without a reply.

use super::shell::Shell;
use crate::engine::decide::Decision;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::request::Ticket;
use crate::model::request::{Change, Request};
use crate::network::Network;
use crate::store::storage::Storage;

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Handles requests in their order, as [`Shell::request`] does each.
    pub fn requests(&mut self, requests: &[(Ticket, Request)], now: Now) {
        let mut group = Vec::new();
        for (ticket, request) in requests {
            match self.join(*ticket, request, now) {
                Some(decision) => group.push(decision),
                None => {
                    self.conduct(std::mem::take(&mut group), now);
                    self.request(*ticket, request, now);
                }
            }
        }
        self.conduct(group, now);
        self.settle(now);
    }

    /// The decision on a request that does not depend on the outcome of those before it.
    fn join(&mut self, ticket: Ticket, request: &Request, now: Now) -> Option<Decision> {
        let change = request.change()?;
        let Change::Create { name, spec, .. } = change else { return None };
        let is_set_up = self.host.is_some() || !spec.needs_tap_device();
        let is_known = self.engine.vm(name).is_ok() || self.strays.contains_key(name);
        let is_new = !is_known && self.state.doubt().is_none();
        if !change.joins_group() || !is_set_up || !is_new {
            return None;
        }
        self.know(change);
        // A refusal is found again.
        let user = self.engine.user_for(name, spec).ok()?;
        self.launcher.accept(name, spec, user).ok()?;
        if self.engine.probe_for(name, spec, now) != Ok(false) {
            return None;
        }
        self.resolve(now);
        // A refusal changes nothing: it is asked again.
        self.engine.request(ticket, change, now).ok()?.decision()
    }
}
