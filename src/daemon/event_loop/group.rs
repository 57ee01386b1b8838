//! Collects requests of one turn of the loop that are carried out together, see
//! [`crate::daemon::group_commit`].
//!
//! Each client adds one request in its turn, and more if it has sent more and there is room. The
//! requests are carried out when there are [`GROUP_MAX`], before any other request is handled, and
//! at the end of the turn. So a connection gets its answers in order, and all requests are handled
//! in the order in which they were read.

use super::EventLoop;
use super::clients::refusal;
use crate::daemon::client::State;
use crate::daemon::sources::Key;
use crate::hypervisor::process::Processes;
use crate::model::request::{Request, Ticket};
use crate::network::Network;
use crate::protocol::request::{Body, Call};
use crate::store::storage::Storage;

/// The most requests that are carried out together. The next client waits for so many creates,
/// about a millisecond each.
pub(super) const GROUP_MAX: usize = 32;

/// Requests of this round that are to be carried out together.
#[derive(Debug, Default)]
pub(super) struct Group {
    requests: Vec<(Ticket, Request)>,
    /// How many more of them clients may add to their first ones in this round.
    room: usize,
}

impl Group {
    /// A round begins.
    pub(super) fn make_room(&mut self) {
        self.room = GROUP_MAX;
    }

    /// Whether a client may have another request handled in its turn, which takes that much room.
    pub(super) fn takes_more(&mut self) -> bool {
        let some = self.room > 0;
        self.room = self.room.saturating_sub(1);
        some
    }
}

impl<N: Network, D: Storage, P: Processes> EventLoop<N, D, P> {
    /// Whether a client's call is carried out with others. It is not if the client may not make it,
    /// or wants no answer.
    pub(super) fn joins_group(&mut self, key: Key, call: &Call) -> bool {
        let Some(client) = self.sources.client(key) else { return false };
        let Body::Volnet(Request::Change(change)) = &call.body else { return false };
        !call.oneway && change.joins_group() && refusal(&self.shell, &client.peer, call).is_none()
    }

    /// Adds such a call.
    pub(super) fn add_to_group(&mut self, key: Key, call: Call) {
        let Some(client) = self.sources.client(key) else { return };
        let Body::Volnet(request) = call.body else { return };
        let open = match client.state {
            State::Together { open } => open + 1,
            State::Idle
            | State::Asked { .. }
            | State::Many { .. }
            | State::Subscribed { .. }
            | State::Closing => 1,
        };
        client.state = State::Together { open };
        let ticket = self.asks(key, &request);
        self.group.requests.push((ticket, request));
        if self.group.requests.len() == GROUP_MAX {
            self.carry_out_group();
        }
    }

    /// Carries out the requests of the group.
    pub(super) fn carry_out_group(&mut self) {
        if self.group.requests.is_empty() {
            return;
        }
        let (now, requests) = (self.now(), std::mem::take(&mut self.group.requests));
        self.spare.disturb(now.mono);
        self.shell.requests(&requests, now);
        self.tell();
    }
}
