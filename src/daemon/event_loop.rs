//! The loop: wait, let each source that is ready have its turn, tell what there is to tell.
//!
//! mio is edge-triggered: a source is drained until it would block, except for clients, which get
//! a bounded turn each; those with more to do are remembered and the next wait does not block.
//! The only timer is the timeout of the wait, so an idle daemon is not woken.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use mio::net::UnixListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::client::{Client, State};
use super::compare::{Compared, Comparisons};
use super::ear::Ear;
use super::gather::GROUP_MAX;
use super::peer::{GROUP, Peer};
use super::refusals::Refusals;
use super::shell::{Output, Shell};
use super::source::{Slab, Source};
use crate::engine::name::VmName;
use crate::engine::request::{Reply, Request};
use crate::engine::state::{Dhcp, NetworkConfig};
use crate::engine::supervise::{Now, Ticket};
use crate::engine::view::Event;
use crate::error::{Error, Failure, Refusal};
use crate::hypervisor::process::Processes;
use crate::hypervisor::user;
use crate::network::Network;
use crate::network::linux::monitor::Monitor;
use crate::protocol::request::{Body, Fault, Rejected};
use crate::protocol::{reply, request, service};
use crate::store::disk::Disk;

/// Connections at a time; more are closed as they come.
const CLIENTS_MAX: usize = 512;
/// Connections at a time of all users other than root: the rest is for whoever has to put an end to
/// what they do.
const CLIENTS_OF_USERS_MAX: usize = 480;
/// Connections at a time of one user other than root.
const CLIENTS_PER_USER_MAX: usize = 64;
/// Connections that are taken in one turn.
const ACCEPTS_PER_TURN: usize = 64;
/// Bytes of output that one user other than root may leave unread on all connections together.
/// The connection whose reply does not fit is closed; one reply may be some megabytes long.
const QUEUE_PER_USER_MAX: usize = 32 << 20;
/// Milliseconds for which news of the kernel wait: most are of our own doing, and many at a time
/// cost little more than one.
const NEWS_DELAY_MS: u64 = 1;
/// Milliseconds without a request after which there is time for what nobody waits for.
pub(super) const QUIET_MS: u64 = 10;
/// Events taken from the kernel in one turn.
const EVENTS_PER_TURN: usize = 256;
/// Bits of a ticket that say in which slot the connection is; the rest is its serial number.
const SLOT_BITS: u32 = 16;

/// The ticket of our own request; serial numbers of connections begin with 1.
const OWN_TICKET: Ticket = 0;

/// The daemon's loop and all that it waits for.
pub(super) struct EventLoop<N, D: Disk, P> {
    poll: Poll,
    comparisons: Comparisons,
    pub(super) sources: Slab,
    pub(super) shell: Shell<N, D, P>,
    /// `None` where one request is handled without serving others.
    listener: Option<UnixListener>,
    /// News of the kernel; `None` where nobody watches it.
    monitor: Option<Monitor>,
    /// Until when it is not quiet.
    pub(super) busy_until: u64,
    /// Memory may have been freed since it was last given back.
    pub(super) untidy: bool,
    /// When news of the kernel are to be read, if there are any.
    news_at: Option<u64>,
    /// Kept because the poll only borrows it.
    _signals: mio::net::UnixStream,
    /// The answer to the request of [`EventLoop::run_one`].
    own_answer: Option<Result<Reply, Error>>,
    /// Slots of the processes that are watched.
    watched: HashMap<VmName, usize>,
    /// Sources that have more to do than their last turn allowed.
    again: Vec<usize>,
    /// Requests of this turn that are to be carried out together.
    pub(super) gathered: Vec<(Ticket, Request)>,
    /// How many more of them a client may add to its first in this turn.
    room: usize,
    refusals: Refusals,
    serial: u64,
    started: Instant,
    ending: bool,
}

impl<N: Network, D: Disk, P: Processes> EventLoop<N, D, P> {
    /// A loop over these. What `monitor` has to tell already is read in the first turn. `signals` becomes readable when the daemon is to end.
    pub(super) fn new(
        shell: Shell<N, D, P>,
        mut listener: Option<UnixListener>,
        monitor: Option<Monitor>,
        mut signals: mio::net::UnixStream,
        started: Instant,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut sources = Slab::default();
        if let Some(listener) = &mut listener {
            let token = Token(sources.insert(Source::Listener));
            poll.registry().register(listener, token, Interest::READABLE)?;
        }
        for fd in monitor.iter().flat_map(Monitor::descriptors) {
            let token = Token(sources.insert(Source::Monitor));
            poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        }
        let token = Token(sources.insert(Source::Signals));
        poll.registry().register(&mut signals, token, Interest::READABLE)?;
        let token = Token(sources.insert(Source::Comparisons));
        let user = shell.hypervisor_user().cloned();
        let comparisons = Comparisons::new(poll.registry(), token, user)?;
        Ok(EventLoop {
            poll,
            comparisons,
            sources,
            shell,
            listener,
            monitor,
            busy_until: 0,
            untidy: true,
            news_at: Some(0),
            _signals: signals,
            own_answer: None,
            watched: HashMap::new(),
            again: Vec::new(),
            gathered: Vec::new(),
            room: 0,
            refusals: Refusals::default(),
            serial: 0,
            started,
            ending: false,
        })
    }

    /// Runs until a signal says that it is enough.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        self.listen_to_kernel();
        self.tell()?;
        while !self.ending {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            self.room = GROUP_MAX;
            for slot in std::mem::take(&mut self.again) {
                match self.sources.get_mut(slot) {
                    Some(Source::Listener) => self.accept(slot),
                    Some(Source::Guests(_)) => self.hear(slot),
                    Some(Source::Client(_)) => self.serve(slot),
                    Some(
                        Source::Signals
                        | Source::Monitor
                        | Source::Comparisons
                        | Source::Process(_),
                    )
                    | None => {}
                }
            }
            for event in &events {
                self.ready(event);
            }
            self.carry_out_gathered()?;
            self.listen_to_kernel();
            self.shell.tick(self.now());
            self.tell()?;
            if self.has_spare_work() && self.busy_until <= self.now().mono {
                self.do_spare_work();
            }
        }
        Ok(())
    }

    /// Whether there is something to do that nobody waits for.
    fn has_spare_work(&mut self) -> bool {
        self.listener.is_some() && (self.untidy || self.shell.network().has_spare_work())
    }

    fn do_spare_work(&mut self) {
        if self.shell.network().has_spare_work() {
            self.shell.network().do_spare_work();
        } else {
            volnet_ffi::heap::trim();
            self.untidy = false;
        }
    }

    /// Passes on the news of the kernel, when it is time. After the requests of a turn, so that what
    /// these did is told to its end.
    fn listen_to_kernel(&mut self) {
        let now = self.now();
        if let Some(monitor) = &mut self.monitor
            && self.news_at.is_some_and(|at| at <= now.mono)
        {
            self.news_at = None;
            self.shell.news(monitor.drain(), now);
        }
    }

    /// Handles one request of our own and runs until it is answered; `None` if a signal came first.
    pub(super) fn run_one(
        &mut self,
        request: &Request,
    ) -> io::Result<Option<Result<Reply, Error>>> {
        self.shell.request(OWN_TICKET, request, self.now());
        self.run()?;
        Ok(self.own_answer.take())
    }

    pub(super) fn now(&self) -> Now {
        super::now(self.started)
    }

    /// How long the wait may last: not at all while a client has more to do, else until the next
    /// deadline. A millisecond is added because the wait is cut to whole milliseconds.
    fn timeout(&mut self) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let spare = self.has_spare_work().then_some(self.busy_until);
        let next = self.shell.deadline().into_iter().chain(self.news_at).chain(spare).min()?;
        let left = next.saturating_sub(self.now().mono);
        Some(Duration::from_millis(if left == 0 { 0 } else { left + 1 }))
    }

    fn ready(&mut self, event: &mio::event::Event) {
        let (slot, now) = (event.token().0, self.now().mono);
        match self.sources.get_mut(slot) {
            None => {}
            Some(Source::Listener) => self.accept(slot),
            Some(Source::Signals) => self.ending = true,
            Some(Source::Comparisons) => self.compared(),
            Some(Source::Monitor) => {
                self.news_at.get_or_insert(now + NEWS_DELAY_MS);
            }
            Some(Source::Guests(_)) => self.hear(slot),
            Some(Source::Process(name)) => {
                let name = name.clone();
                self.unwatch(&name);
                self.shell.exited(&name, self.now());
            }
            Some(Source::Client(client)) => {
                if event.is_readable() {
                    client.readable(event.is_read_closed());
                }
                if event.is_read_closed() && event.is_write_closed() {
                    self.close(slot);
                } else {
                    self.serve(slot);
                }
            }
        }
    }

    /// A turn of the guests of a network: they are answered as far as one turn goes.
    fn hear(&mut self, slot: usize) {
        let now = self.now();
        let Some(Source::Guests(ear)) = self.sources.get_mut(slot) else { return };
        let shell = &mut self.shell;
        let more = ear.turn(|network, frame| shell.guest_asks(network, frame, now));
        if more {
            self.come_back(slot);
        }
    }

    /// Listens on bridges that are new. Only where the kernel is watched: a single request serves
    /// no guests, and a backend without a kernel has none.
    fn listen_to_guests(&mut self) -> io::Result<()> {
        for bridge in self.shell.take_bridges() {
            let here = |network: &&NetworkConfig| {
                network.bridge == bridge && network.dhcp == Dhcp::Builtin
            };
            let network = self.shell.engine().configured().find(here);
            let Some(network) = network.filter(|_| self.monitor.is_some()) else { continue };
            if let Some(slot) = self.sources.guests_of(&network.name) {
                // Its end takes it out of the poll, too.
                self.sources.remove(slot);
                self.again.retain(|&other| other != slot);
            }
            let ear = match Ear::open(network) {
                Ok(ear) => ear,
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                Err(error) => {
                    log::error!("network {}: its guests cannot be heard: {error}", network.name);
                    continue;
                }
            };
            let (fd, slot) = (ear.descriptor(), self.sources.insert(Source::Guests(Box::new(ear))));
            self.poll.registry().register(&mut SourceFd(&fd), Token(slot), Interest::READABLE)?;
        }
        Ok(())
    }

    /// Takes connections that wait. One that is over a bound is closed at once.
    fn accept(&mut self, slot: usize) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &self.listener else { return };
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of file descriptors, say. The connection waits in the kernel; the next
                    // one to come wakes us again.
                    log::warn!("cannot accept a connection: {error}");
                    return;
                }
            };
            match self.admit(stream) {
                Ok(slot) => self.serve(slot),
                Err(error) => {
                    self.refusals.log(self.now().mono, format_args!("a connection: {error}"));
                }
            }
        }
        self.come_back(slot);
    }

    /// Lets a source have another turn without waiting for the kernel.
    fn come_back(&mut self, slot: usize) {
        if !self.again.contains(&slot) {
            self.again.push(slot);
        }
    }

    fn admit(&mut self, mut stream: mio::net::UnixStream) -> io::Result<usize> {
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
                "process {pid} of user {uid}, who has {theirs} of all {all}"
            )));
        }
        self.serial += 1;
        let (registry, serial) = (self.poll.registry(), self.serial);
        let slot = self.sources.next_slot();
        registry.register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
        Ok(self.sources.insert(Source::Client(Box::new(Client::new(stream, peer, serial)))))
    }

    /// A client's turn: one request, however many it has sent, so that nobody waits for another's
    /// queue; or several that cost little more than one, as long as there is room for them.
    fn serve(&mut self, slot: usize) {
        if self.turn(slot).is_err() {
            return self.close(slot);
        }
        let Some(Source::Client(client)) = self.sources.get_mut(slot) else { return };
        if client.is_over() {
            self.close(slot);
        } else if client.has_work() {
            self.come_back(slot);
        }
    }

    /// An error ends the connection.
    fn turn(&mut self, slot: usize) -> io::Result<()> {
        let Some(Source::Client(client)) = self.sources.get_mut(slot) else { return Ok(()) };
        client.flush()?;
        client.read()?;
        self.resync(slot)?;
        while self.next(slot)? && self.room > 0 {
            self.room -= 1;
        }
        Ok(())
    }

    /// Handles the next message of a client, and says whether it may have another one handled.
    fn next(&mut self, slot: usize) -> io::Result<bool> {
        let Some(Source::Client(client)) = self.sources.get_mut(slot) else { return Ok(false) };
        match client.next_message() {
            None => Ok(false),
            Some(Ok(message)) => {
                self.handle(slot, &message)?;
                self.tell()?;
                let client = self.sources.get_mut(slot);
                Ok(matches!(client, Some(Source::Client(client)) if client.is_gathering()))
            }
            Some(Err(error)) => {
                self.carry_out_gathered()?;
                let Some(Source::Client(client)) = self.sources.get_mut(slot) else {
                    return Ok(false);
                };
                // What follows cannot be told from what was wrong, so this is the end of it.
                client.state = State::Closing;
                let fault = Fault::Message { reason: error.to_string() };
                client.send(|out, end| reply::fault(out, &fault, end))?;
                Ok(false)
            }
        }
    }

    /// One message of a client.
    fn handle(&mut self, slot: usize, message: &[u8]) -> io::Result<()> {
        let call = match request::decode(message) {
            Ok(call) if self.goes_together(slot, &call) => return self.gather(slot, call),
            call => call,
        };
        // Whatever else comes is handled, and answered, behind what was gathered.
        self.carry_out_gathered()?;
        let now = self.now();
        let Some(Source::Client(client)) = self.sources.get_mut(slot) else { return Ok(()) };
        let call = match call {
            Ok(call) => call,
            Err(Rejected { oneway: true, .. }) => return Ok(()),
            Err(Rejected { fault, oneway: false }) => {
                if fault.ends_connection() {
                    client.state = State::Closing;
                }
                return client.send(|out, end| reply::fault(out, &fault, end));
            }
        };
        let denied = call.needs_right() && !client.peer.may_change;
        let asked = match call.body {
            Body::Service(_) if call.oneway => return Ok(()),
            Body::Service(service) => {
                return client.send(|out, end| service::answer(out, &service, end));
            }
            Body::Volnet(asked) => asked,
        };
        if denied {
            let Peer { uid, pid, .. } = client.peer;
            let reason = format!("user {uid} is not a member of the group {GROUP}");
            self.refusals.log(now.mono, format_args!("a call of process {pid}: {reason}"));
            if call.oneway {
                return Ok(());
            }
            let refusal = Error::from(Refusal::PermissionDenied { reason });
            return client.send(|out, end| reply::error(out, &refusal, end));
        }
        if asked.names_files() && !client.peer.is_root && self.shell.hypervisor_user().is_none() {
            let reason = "hypervisors run as root on this host, so only root may name their files";
            let refusal =
                Refusal::InvalidConfig { field: user::FIELD.into(), reason: reason.into() };
            if call.oneway {
                return Ok(());
            }
            return client.send(|out, end| reply::error(out, &refusal.into(), end));
        }
        let ticket = ticket(client, slot);
        (self.busy_until, self.untidy) = (now.mono + QUIET_MS, true);
        client.state = match asked {
            Request::Monitor if call.more => State::Subscribed { lost: false },
            _ => State::Asked { silent: call.oneway },
        };
        let files = self.shell.checksums(&asked);
        if files.is_empty() {
            self.shell.request(ticket, &asked, now);
        } else if let Err(error) = self.comparisons.begin(ticket, &asked, files) {
            let failure = Failure::kernel("start", "a thread that compares checksums", &error);
            self.tell_one(ticket, &Err(failure.into()));
        }
        Ok(())
    }

    /// Handles the requests whose files were compared.
    fn compared(&mut self) {
        while let Some(Compared { ticket, request, result }) = self.comparisons.take() {
            match result {
                Ok(()) => self.shell.request(ticket, &request, self.now()),
                Err(refusal) => self.tell_one(ticket, &Err(refusal.into())),
            }
        }
    }

    /// Passes on what the shell has to tell, and watches what it started or made. Those who
    /// wait come before those who watch.
    pub(super) fn tell(&mut self) -> io::Result<()> {
        let mut events = Vec::new();
        for output in self.shell.take_outputs() {
            match output {
                Output::Reply { ticket: OWN_TICKET, result } => {
                    self.own_answer = Some(result);
                    self.ending = true;
                }
                Output::Reply { ticket, result } => self.tell_one(ticket, &result),
                Output::Event(event) => events.push(event),
            }
        }
        for event in events {
            write_to_log(&event);
            self.tell_all(&event);
        }
        self.watch()?;
        self.listen_to_guests()
    }

    fn tell_one(&mut self, ticket: Ticket, result: &Result<Reply, Error>) {
        let slot = (ticket & ((1 << SLOT_BITS) - 1)) as usize;
        let Some(Source::Client(client)) = self.sources.get_mut(slot) else { return };
        if client.serial != ticket >> SLOT_BITS {
            return;
        }
        let (continues, silent) = match client.state {
            State::Asked { silent } => {
                client.state = State::Idle;
                (false, silent)
            }
            State::Together { open } => {
                client.state = match open {
                    0 | 1 => State::Idle,
                    _ => State::Together { open: open - 1 },
                };
                (false, false)
            }
            State::Subscribed { .. } => (true, false),
            State::Idle | State::Closing => return,
        };
        let sent = match result {
            _ if silent => Ok(()),
            Ok(reply) => {
                client.send_with(reply.file(), |out, end| reply::reply(out, reply, continues, end))
            }
            Err(error) => client.send(|out, end| reply::error(out, error, end)),
        };
        match sent {
            Err(_) => self.close(slot),
            Ok(()) if client.is_over() => self.close(slot),
            Ok(()) if client.has_work() => self.come_back(slot),
            Ok(()) => self.bound_queues(slot),
        }
    }

    /// Closes a connection that waits to be read, when its user has left too much unread.
    fn bound_queues(&mut self, slot: usize) {
        let Some(Source::Client(client)) = self.sources.get_mut(slot) else { return };
        let Peer { uid, pid, .. } = client.peer;
        if client.queued() == 0 || uid == 0 {
            return;
        }
        let theirs = self.sources.clients().filter(|(_, client)| client.peer.uid == uid);
        let unread: usize = theirs.map(|(_, client)| client.queued()).sum();
        if unread > QUEUE_PER_USER_MAX {
            let words = format_args!("process {pid} of user {uid}, who has {unread} bytes unread");
            self.refusals.log(super::now(self.started).mono, words);
            self.close(slot);
        }
    }

    /// Subscribers that are too far behind lose events; once they have caught up they are told so
    /// and get the state instead.
    fn tell_all(&mut self, event: &Event) {
        let mut gone = Vec::new();
        for (slot, client) in self.sources.clients() {
            let State::Subscribed { lost } = &mut client.state else { continue };
            if *lost || client.is_full() {
                client.state = State::Subscribed { lost: true };
                continue;
            }
            let reply = Reply::Event { event: event.clone() };
            if client.send(|out, end| reply::reply(out, &reply, true, end)).is_err() {
                gone.push(slot);
            }
        }
        for slot in gone {
            self.close(slot);
        }
    }

    /// Tells a subscriber that has caught up what it missed.
    fn resync(&mut self, slot: usize) -> io::Result<()> {
        let now = self.now();
        let Some(Source::Client(client)) = self.sources.get_mut(slot) else { return Ok(()) };
        if client.state != (State::Subscribed { lost: true }) || client.is_full() {
            return Ok(());
        }
        client.state = State::Subscribed { lost: false };
        let event = self.shell.resync_event(now);
        let state = Reply::State { vms: self.shell.engine().list() };
        client.send(|out, end| {
            reply::reply(out, &Reply::Event { event }, true, end);
            reply::reply(out, &state, true, end);
        })
    }

    /// Registers the pidfds of processes that are new.
    fn watch(&mut self) -> io::Result<()> {
        for name in self.shell.take_started() {
            self.unwatch(&name);
            let Some(pidfd) = self.shell.processes().pidfd(&name) else { continue };
            let slot = self.sources.insert(Source::Process(name.clone()));
            let registry = self.poll.registry();
            registry.register(&mut SourceFd(&pidfd), Token(slot), Interest::READABLE)?;
            self.watched.insert(name, slot);
        }
        Ok(())
    }

    fn unwatch(&mut self, name: &VmName) {
        if let Some(slot) = self.watched.remove(name) {
            self.sources.remove(slot);
            if let Some(pidfd) = self.shell.processes().pidfd(name) {
                // Closing the pidfd takes it out of the poll too; this is for one that stays open.
                let _ = self.poll.registry().deregister(&mut SourceFd(&pidfd));
            }
        }
    }

    fn close(&mut self, slot: usize) {
        if let Some(Source::Client(mut client)) = self.sources.remove(slot) {
            self.comparisons.call_off(ticket(&client, slot));
            let _ = self.poll.registry().deregister(&mut client.stream);
        }
        self.again.retain(|&other| other != slot);
    }
}

/// Who asks, for as long as this connection is there.
pub(super) fn ticket(client: &Client, slot: usize) -> Ticket {
    client.serial << SLOT_BITS | slot as u64
}

/// Events are the daemon's log, too.
fn write_to_log(event: &Event) {
    match (&event.by_pid, &event.by_name) {
        (Some(pid), Some(name)) => log::warn!("{}, by process {pid} ({name})", event.message),
        (_, _) => log::info!("{}", event.message),
    }
}
