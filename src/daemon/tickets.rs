//! Which connection waits for the answer to which request.
//!
//! The number of a request also names it in the log, from the socket to the kernel.

use std::collections::BTreeMap;

use super::sources::Key;
use crate::model::request::Ticket;

/// The number of the daemon's own request, which no connection waits for.
pub(super) const OWN_TICKET: Ticket = 0;

/// The requests that are not answered.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    last: Ticket,
    waiting: BTreeMap<Ticket, Key>,
}

impl Tickets {
    /// A number for a request of this connection.
    pub(super) fn issue(&mut self, key: Key) -> Ticket {
        self.last += 1;
        self.waiting.insert(self.last, key);
        self.last
    }

    /// The connection that waits for the answer; `None` if it is closed.
    pub(super) fn holder(&self, ticket: Ticket) -> Option<Key> {
        self.waiting.get(&ticket).copied()
    }

    /// The request is answered.
    pub(super) fn answered(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// The connection is closed: nobody waits for the answers to these requests any more.
    pub(super) fn withdraw(&mut self, key: Key) -> Vec<Ticket> {
        let theirs = self.waiting.iter().filter(|(_, holder)| **holder == key);
        let theirs: Vec<Ticket> = theirs.map(|(ticket, _)| *ticket).collect();
        theirs.iter().for_each(|ticket| self.answered(*ticket));
        theirs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_closed_takes_its_requests_along() {
        let mut tickets = Tickets::default();
        let [one, other, two] = [7, 8, 7].map(|key| tickets.issue(key));
        assert!(OWN_TICKET < one && one < other && other < two);
        assert_eq!([one, other].map(|it| tickets.holder(it)), [Some(7), Some(8)]);
        tickets.answered(one);
        assert_eq!(tickets.withdraw(7), [two]);
        assert_eq!([one, other, two].map(|it| tickets.holder(it)), [None, Some(8), None]);
    }
}
