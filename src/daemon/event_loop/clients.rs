//! Client connections: accepted, served in turns, answered, closed.
//!
//! No client waits for another's queue, and the memory for a user is bounded, see [`Client`].

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use mio::Interest;

use super::slow::Slow;
use super::{EventLoop, Readiness};
use crate::daemon::client::{Client, State};
use crate::daemon::peer::{GROUP, Peer};
use crate::daemon::shell::Shell;
use crate::daemon::source::Source;
use crate::daemon::sources::Key;
use crate::hypervisor::process::Processes;
use crate::hypervisor::user;
use crate::metrics::tally::Outcome;
use crate::model::error::{Error, Refusal};
use crate::model::request::Ticket;
use crate::model::request::{OpenFile, Query, Reply, Request};
use crate::model::view::Event;
use crate::network::Network;
use crate::protocol::request::{Body, Call, CallFault, Rejected};
use crate::protocol::{reply, request, service};
use crate::store::storage::Storage;

/// The most connections at a time. More are closed at once.
const CLIENTS_MAX: usize = 512;
/// The most connections of all users except root. The rest is for an administrator who must stop
/// them.
const CLIENTS_OF_USERS_MAX: usize = 480;
/// The most connections of one user except root.
const CLIENTS_PER_USER_MAX: usize = 64;
/// The most connections that are accepted in one turn.
const ACCEPTS_PER_TURN: usize = 64;
/// The most bytes of output that a user except root may leave unread on all connections together.
/// If a reply does not fit, its connection is closed. A reply may have some megabytes.
const QUEUE_PER_USER_MAX: usize = 32 << 20;
/// In metrics, the method of what is no request.
const UNKNOWN: &str = "unknown";

impl<N: Network, D: Storage, P: Processes> EventLoop<N, D, P> {
    /// Accepts waiting connections. A connection over a bound is closed at once.
    pub(super) fn accept(&mut self, key: Key) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(Source::Listener(listener)) = self.sources.get_mut(key) else { return };
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // For example, no file descriptor is free. The connection waits in the kernel,
                    // and the next connection wakes us again.
                    self.refusals.log(self.now().mono, format_args!("a connection: {error}"));
                    return;
                }
            };
            match self.admit(stream) {
                Ok(key) => self.serve(key),
                Err(error) => {
                    self.refusals.log(self.now().mono, format_args!("a connection: {error}"));
                }
            }
        }
        self.come_back(key);
    }

    pub(super) fn admit(&mut self, stream: mio::net::UnixStream) -> io::Result<Key> {
        let peer = Peer::of(&stream)?;
        let theirs =
            self.sources.clients().filter(|(_, client)| client.peer.uid == peer.uid).count();
        let all = self.sources.clients().count();
        let is_full = match peer.uid {
            0 => all >= CLIENTS_MAX,
            _ => all >= CLIENTS_OF_USERS_MAX || theirs >= CLIENTS_PER_USER_MAX,
        };
        if is_full {
            let Peer { uid, pid, .. } = peer;
            return Err(io::Error::other(format!(
                "process {pid} of user {uid}: the user has {theirs} of all {all} connections"
            )));
        }
        if peer.is_root {
            if let Err(error) = volnet_ffi::socket::accept_descriptors(stream.as_fd()) {
                log::debug!("root cannot be kept from being refused descriptors: {error}");
            }
        }
        let both = Interest::READABLE | Interest::WRITABLE;
        self.add(stream.as_raw_fd(), both, Source::Client(Box::new(Client::new(stream, peer))))
    }

    /// A client's turn, by what the kernel says of it.
    pub(super) fn wake(&mut self, key: Key, event: Option<&Readiness>) {
        let Some(client) = self.sources.client(key) else { return };
        if event.is_some_and(Readiness::is_readable) {
            client.readable(event.is_some_and(Readiness::is_read_closed));
        }
        if event.is_some_and(|event| event.is_read_closed() && event.is_write_closed()) {
            self.close(key);
        } else {
            self.serve(key);
        }
    }

    /// A client's turn: one request, however many it has sent, so that no client waits for
    /// another's queue. It may be several creates that are carried out together, as long as there
    /// is room.
    pub(super) fn serve(&mut self, key: Key) {
        if self.converse(key).is_err() {
            return self.close(key);
        }
        let Some(client) = self.sources.client(key) else { return };
        if client.is_over() {
            self.close(key);
        } else if client.has_work() {
            self.come_back(key);
        }
    }

    /// An error ends the connection.
    fn converse(&mut self, key: Key) -> io::Result<()> {
        let Some(client) = self.sources.client(key) else { return Ok(()) };
        client.flush()?;
        client.list(|last| self.shell.engine().list(last))?;
        client.read()?;
        self.resync(key)?;
        while self.next(key)? && self.group.takes_more() {}
        Ok(())
    }

    /// Handles the next message of a client, and returns whether it may have another one.
    fn next(&mut self, key: Key) -> io::Result<bool> {
        let Some(client) = self.sources.client(key) else { return Ok(false) };
        match client.next_message() {
            None => Ok(false),
            Some(Ok((message, files))) => {
                self.handle(key, &message, files)?;
                self.tell();
                Ok(self.sources.client(key).is_some_and(|client| client.is_gathering()))
            }
            Some(Err(error)) => {
                self.carry_out_group();
                let Some(client) = self.sources.client(key) else {
                    return Ok(false);
                };
                // The bytes after it may belong to the wrong message, so the connection ends.
                client.state = State::Closing;
                let fault = CallFault::Message { reason: error.to_string() };
                client.send(|out, end| reply::fault(out, &fault, end))?;
                Ok(false)
            }
        }
    }

    /// Handles one message of a client, and the descriptors that came with it.
    fn handle(&mut self, key: Key, message: &[u8], files: Vec<OpenFile>) -> io::Result<()> {
        let call = match request::decode_with(message, files) {
            Ok(call) if self.joins_group(key, &call) => {
                self.add_to_group(key, call);
                return Ok(());
            }
            call => call,
        };
        // Any other request is handled and answered after the gathered ones.
        self.carry_out_group();
        let now = self.now();
        let Some(client) = self.sources.client(key) else { return Ok(()) };
        let call = match call {
            Ok(call) => call,
            Err(Rejected { oneway: true, .. }) => return Ok(()),
            Err(Rejected { fault, oneway: false }) => {
                self.shell.tally.refused(UNKNOWN);
                if fault.ends_connection() {
                    client.state = State::Closing;
                }
                return client.send(|out, end| reply::fault(out, &fault, end));
            }
        };
        if let Some(refusal) = refusal(&self.shell, &client.peer, &call) {
            if let Refusal::PermissionDenied { reason } = &refusal {
                let pid = client.peer.pid;
                self.refusals.log(now.mono, format_args!("a call of process {pid}: {reason}"));
            }
            if let Body::Volnet(request) = &call.body {
                self.shell.tally.refused(request.method());
            }
            if call.oneway {
                return Ok(());
            }
            return client.send(|out, end| reply::error(out, &refusal.into(), end));
        }
        let asked = match call.body {
            Body::Service(_) if call.oneway => return Ok(()),
            Body::Service(service) => {
                return client.send(|out, end| service::answer(out, &service, end));
            }
            Body::Volnet(asked) => asked,
        };
        client.state = match asked {
            Request::Query(Query::Monitor) if call.more => State::Subscribed { lost: false },
            _ => State::Asked { silent: call.oneway },
        };
        if matches!(client.state, State::Subscribed { .. }) {
            self.shell.watched(true, now);
        }
        self.spare.disturb(now.mono);
        let ticket = self.asks(key, &asked);
        if let Some(count) = call.count {
            self.many.count(ticket, count);
        }
        self.prepare(ticket, asked);
        Ok(())
    }

    /// A request of a client has begun. It has a number from now on.
    pub(super) fn asks(&mut self, key: Key, request: &Request) -> Ticket {
        let ticket = self.tickets.issue(key);
        let method = request.method();
        if let Some(client) = self.sources.client(key) {
            let Peer { pid, uid, .. } = client.peer;
            let vm = request.vm().map(ToString::to_string).unwrap_or_default();
            log::debug!(method, vm, id = ticket, pid, uid; "asked");
            client.asks(method);
        }
        ticket
    }

    /// Handles a request now, or when its turn has come.
    pub(super) fn do_request(&mut self, ticket: Ticket, request: Request) {
        if let Some(count) = self.many.counted(ticket) {
            return self.make_many(ticket, request, count);
        }
        match &request {
            Request::Change(change) if change.starts_process() => {
                self.slow.push_back(Slow::Start(ticket, request));
            }
            _ => self.shell.request(ticket, &request, self.now()),
        }
    }

    pub(super) fn tell_one(&mut self, ticket: Ticket, result: &Result<Reply, Error>) {
        let one_of_many = self.many.answered(ticket);
        let Some(key) = self.tickets.holder(ticket) else { return };
        let Some(client) = self.sources.client(key) else { return };
        self.tickets.answered(ticket);
        if let Some((method, us)) = client.answered() {
            let outcome = Outcome::of(result);
            self.shell.tally.answered(method, outcome, us);
            let error = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
            log::debug!(method, us, id = ticket, error; "{}", outcome.as_str());
        }
        let Some((continues, silent)) = client.state.answer() else { return };
        let sent = match result {
            _ if silent => Ok(()),
            result if one_of_many.is_some() => client.send(|out, end| {
                let name = one_of_many.as_ref().expect("it was looked at");
                reply::one_of_many(out, name, result, continues, end);
            }),
            Ok(Reply::Vms) => {
                client.begin_listing(continues);
                client.list(|last| self.shell.engine().list(last))
            }
            Ok(reply @ (Reply::Usage { .. } | Reply::Metrics)) => {
                match self.shell.last_numbers() {
                    Ok(numbers) => {
                        match reply {
                            Reply::Usage { at_ms } => client.begin_usage(*at_ms, numbers),
                            _ => client.begin_metrics(numbers),
                        }
                        client.list(|last| self.shell.engine().list(last))
                    }
                    // They were read anew since they were promised.
                    Err(error) => client.send(|out, end| reply::error(out, &error, end)),
                }
            }
            Ok(reply) => {
                client.send_with(reply.file(), |out, end| reply::reply(out, reply, continues, end))
            }
            Err(error) => client.send(|out, end| reply::error(out, error, end)),
        };
        match sent {
            Err(_) => self.close(key),
            Ok(()) if client.is_over() => self.close(key),
            Ok(()) if client.has_work() => self.come_back(key),
            Ok(()) => self.bound_queues(key),
        }
    }

    /// Sends a reply to a request that gets more of them.
    pub(super) fn tell_more(&mut self, ticket: Ticket, reply: &Reply) {
        let Some(key) = self.tickets.holder(ticket) else { return };
        let Some(client) = self.sources.client(key) else { return };
        if client.state != (State::Asked { silent: false }) {
            return;
        }
        match client.send(|out, end| reply::reply(out, reply, true, end)) {
            Ok(()) => self.bound_queues(key),
            Err(_) => self.close(key),
        }
    }

    /// Closes a connection if its user has left too much output unread.
    fn bound_queues(&mut self, key: Key) {
        let Some(client) = self.sources.client(key) else { return };
        let Peer { uid, pid, .. } = client.peer;
        if client.queued() == 0 || uid == 0 {
            return;
        }
        let theirs = self.sources.clients().filter(|(_, client)| client.peer.uid == uid);
        let unread: usize = theirs.map(|(_, client)| client.queued()).sum();
        if unread > QUEUE_PER_USER_MAX {
            let now = self.now().mono;
            self.refusals.log(
                now,
                format_args!(
                    "process {pid} of user {uid}: the user has not read {unread} bytes of replies"
                ),
            );
            self.close(key);
        }
    }

    /// Subscribers that are too far behind lose events. After they have caught up, they get a
    /// notice and the state instead.
    pub(super) fn tell_all(&mut self, event: &Event) {
        let mut gone = Vec::new();
        for (key, client) in self.sources.clients() {
            let State::Subscribed { lost } = &mut client.state else { continue };
            if *lost || client.is_full() {
                client.state = State::Subscribed { lost: true };
                continue;
            }
            let reply = Reply::Event { event: event.clone() };
            if client.send(|out, end| reply::reply(out, &reply, true, end)).is_err() {
                gone.push(key);
            }
        }
        for key in gone {
            self.close(key);
        }
    }

    /// Sends the notice and the state to a subscriber that has caught up.
    fn resync(&mut self, key: Key) -> io::Result<()> {
        let now = self.now();
        let Some(client) = self.sources.client(key) else { return Ok(()) };
        let is_behind = client.is_full() || client.is_listing();
        if client.state != (State::Subscribed { lost: true }) || is_behind {
            return Ok(());
        }
        client.state = State::Subscribed { lost: false };
        let event = self.shell.resync_event(now);
        client.send(|out, end| reply::reply(out, &Reply::Event { event }, true, end))?;
        client.begin_listing(true);
        client.list(|last| self.shell.engine().list(last))
    }

    pub(super) fn close(&mut self, key: Key) {
        if let Some(Source::Client(closed)) = self.sources.remove(key) {
            // Closing it also removes it from the poll.
            let now = self.now();
            if matches!(closed.state, State::Subscribed { .. }) {
                let subscribes =
                    |client: &mut Client| matches!(client.state, State::Subscribed { .. });
                let others = self.sources.clients().any(|(_, client)| subscribes(client));
                self.shell.watched(others, now);
            }
            for ticket in self.tickets.withdraw(key) {
                self.workers.call_off(ticket);
                self.many.answered(ticket);
                self.shell.hung_up(ticket, now);
            }
        }
    }
}

/// Why a caller may not make a call, if it may not.
pub(super) fn refusal<N: Network, D: Storage, P: Processes>(
    shell: &Shell<N, D, P>,
    peer: &Peer,
    call: &Call,
) -> Option<Refusal> {
    if call.needs_right() && !peer.may_change {
        let reason = format!("user {} is not a member of the group {GROUP}", peer.uid);
        return Some(Refusal::PermissionDenied { reason });
    }
    let Body::Volnet(Request::Change(change)) = &call.body else { return None };
    if change.is_for_root() && !peer.is_root {
        let reason = format!("user {} is not root, who alone may do that", peer.uid);
        return Some(Refusal::PermissionDenied { reason });
    }
    if let Some((field, reason)) = change.for_root().filter(|_| !peer.is_root) {
        return Some(Refusal::InvalidConfig { field: field.into(), reason: reason.into() });
    }
    if change.names_files() && !peer.is_root && shell.hypervisor_user().is_none() {
        let reason = "hypervisors run as root on this host, so only root may name their files";
        return Some(Refusal::InvalidConfig { field: user::FIELD.into(), reason: reason.into() });
    }
    None
}
