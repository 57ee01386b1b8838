//! The loop: wait, let each source that is ready have its turn, tell what there is to tell.
//!
//! mio is edge-triggered: a source is drained until it would block, except for clients, which get
//! a bounded turn each; those with more to do are remembered and the next wait does not block.
//! The only timer is the timeout of the wait, so an idle daemon is not woken.
//!
//! What comes on connections is handled in [`clients`]; what of it is carried out together waits in
//! [`gather`] for the end of the turn.

mod clients;
mod gather;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use mio::net::UnixListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::compare::Comparisons;
use super::ear::Ear;
use super::refusals::Refusals;
use super::shell::{Output, Shell};
use super::source::Source;
use super::sources::{Key, Sources};
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::error::Error;
use crate::model::name::VmName;
use crate::model::net::{Dhcp, NetworkConfig};
use crate::model::request::Ticket;
use crate::model::request::{Reply, Request};
use crate::model::view::Event;
use crate::network::Network;
use crate::network::linux::monitor::Monitor;
use crate::store::disk::Disk;

/// Milliseconds for which news of the kernel wait: most are of our own doing, and many at a time
/// cost little more than one.
const NEWS_DELAY_MS: u64 = 1;
/// Milliseconds without a request after which there is time for what nobody waits for.
const QUIET_MS: u64 = 10;
/// Events taken from the kernel in one turn.
const EVENTS_PER_TURN: usize = 256;

/// The ticket of our own request: no connection has this key.
const OWN_TICKET: Ticket = 0;

/// The daemon's loop and all that it waits for.
pub(super) struct EventLoop<N, D: Disk, P> {
    poll: Poll,
    comparisons: Comparisons,
    sources: Sources<Source>,
    shell: Shell<N, D, P>,
    /// `None` where one request is handled without serving others.
    listener: Option<UnixListener>,
    /// News of the kernel; `None` where nobody watches it.
    monitor: Option<Monitor>,
    /// Until when it is not quiet.
    busy_until: u64,
    /// Memory may have been freed since it was last given back.
    untidy: bool,
    /// When news of the kernel are to be read, if there are any.
    news_at: Option<u64>,
    /// Kept because the poll only borrows it.
    _signals: mio::net::UnixStream,
    /// The answer to the request of [`EventLoop::run_one`].
    own_answer: Option<Result<Reply, Error>>,
    /// Keys of the processes that are watched.
    watched: HashMap<VmName, Key>,
    /// Sources that have more to do than their last turn allowed.
    again: Vec<Key>,
    /// Requests of this turn that are to be carried out together.
    gathered: Vec<(Ticket, Request)>,
    /// How many more of them a client may add to its first in this turn.
    room: usize,
    refusals: Refusals,
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
        let mut sources = Sources::default();
        let mut token = |source| {
            let key = sources.key();
            sources.insert(key, source);
            Token(key)
        };
        let registry = poll.registry();
        if let Some(listener) = &mut listener {
            registry.register(listener, token(Source::Listener), Interest::READABLE)?;
        }
        for fd in monitor.iter().flat_map(Monitor::descriptors) {
            registry.register(&mut SourceFd(&fd), token(Source::Monitor), Interest::READABLE)?;
        }
        registry.register(&mut signals, token(Source::Signals), Interest::READABLE)?;
        let news_at = monitor.as_ref().map(|_| 0);
        let user = shell.hypervisor_user().cloned();
        let comparisons = Comparisons::new(registry, token(Source::Comparisons), user)?;
        Ok(EventLoop {
            poll,
            comparisons,
            sources,
            shell,
            listener,
            monitor,
            busy_until: 0,
            untidy: true,
            news_at,
            _signals: signals,
            own_answer: None,
            watched: HashMap::new(),
            again: Vec::new(),
            gathered: Vec::new(),
            room: 0,
            refusals: Refusals::default(),
            started,
            ending: false,
        })
    }

    /// Runs until a signal says that it is enough. An error is one of the wait itself: without it
    /// nothing can go on. What is wrong with one source ends that source, or is tried again.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        self.listen_to_kernel(self.now());
        self.tell();
        while !self.ending {
            self.round(&mut events)?;
        }
        Ok(())
    }

    /// Waits, and lets each source that is ready have its turn.
    fn round(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.timeout();
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        self.room = gather::GROUP_MAX;
        for key in std::mem::take(&mut self.again) {
            match self.sources.get_mut(key) {
                Some(Source::Listener) => self.accept(key),
                Some(Source::Guests(_)) => self.hear(key),
                Some(Source::Client(_)) => self.serve(key),
                Some(
                    Source::Signals | Source::Monitor | Source::Comparisons | Source::Process(_),
                )
                | None => {}
            }
        }
        for event in &*events {
            self.ready(event);
        }
        self.carry_out_gathered();
        let now = self.now();
        self.listen_to_kernel(now);
        self.shell.tick(now);
        debug_assert!(self.deadline().is_none_or(|at| now.mono < at), "due after its turn");
        self.tell();
        if self.has_spare_work() && self.busy_until <= self.now().mono {
            self.do_spare_work();
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
    fn listen_to_kernel(&mut self, now: Now) {
        let Some(monitor) = &mut self.monitor else { return };
        if self.news_at.is_some_and(|at| at <= now.mono) {
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

    fn now(&self) -> Now {
        super::now(self.started)
    }

    /// How long the wait may last: not at all while a client has more to do, else until the next
    /// deadline. A millisecond is added because the wait is cut to whole milliseconds.
    fn timeout(&mut self) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let spare = self.has_spare_work().then_some(self.busy_until);
        let next = self.deadline().into_iter().chain(spare).min()?;
        let left = next.saturating_sub(self.now().mono);
        Some(Duration::from_millis(if left == 0 { 0 } else { left + 1 }))
    }

    /// When something is due though no source is ready. After each turn this lies ahead.
    fn deadline(&self) -> Option<u64> {
        self.shell.deadline().into_iter().chain(self.news_at).min()
    }

    fn ready(&mut self, event: &mio::event::Event) {
        let (key, now) = (event.token().0, self.now().mono);
        match self.sources.get_mut(key) {
            None => {}
            Some(Source::Listener) => self.accept(key),
            Some(Source::Signals) => self.ending = true,
            Some(Source::Comparisons) => self.compared(),
            Some(Source::Monitor) => {
                self.news_at.get_or_insert(now + NEWS_DELAY_MS);
            }
            Some(Source::Guests(_)) => self.hear(key),
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
                    self.close(key);
                } else {
                    self.serve(key);
                }
            }
        }
    }

    /// A turn of the guests of a network: they are answered as far as one turn goes.
    fn hear(&mut self, key: Key) {
        let now = self.now();
        let Some(Source::Guests(ear)) = self.sources.get_mut(key) else { return };
        let shell = &mut self.shell;
        let more = ear.turn(|network, frame| shell.guest_asks(network, frame, now));
        if more {
            self.come_back(key);
        }
    }

    /// Listens on bridges that are new. Only where the kernel is watched: a single request serves
    /// no guests, and a backend without a kernel has none.
    fn listen_to_guests(&mut self) {
        for bridge in self.shell.take_bridges() {
            let here = |network: &&NetworkConfig| {
                network.bridge == bridge && network.dhcp == Dhcp::Builtin
            };
            let network = self.shell.engine().configured().find(here);
            let Some(network) = network.filter(|_| self.monitor.is_some()) else { continue };
            if let Some(key) = self.sources.guests_of(&network.name) {
                // Its end takes it out of the poll, too.
                self.sources.remove(key);
            }
            let (name, key) = (&network.name, self.sources.key());
            let ear = Ear::open(network).and_then(|ear| {
                let fd = ear.descriptor();
                let registry = self.poll.registry();
                registry.register(&mut SourceFd(&fd), Token(key), Interest::READABLE)?;
                Ok(ear)
            });
            match ear {
                Ok(ear) => self.sources.insert(key, Source::Guests(Box::new(ear))),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => {
                    log::error!("network {name}: cannot receive DHCP from its guests: {error}");
                }
            }
        }
    }

    /// Lets a source have another turn without waiting for the kernel.
    fn come_back(&mut self, key: Key) {
        if !self.again.contains(&key) {
            self.again.push(key);
        }
    }

    /// Passes on what the shell has to tell, and watches what it started or made. Those who
    /// wait come before those who watch.
    fn tell(&mut self) {
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
        self.watch();
        self.listen_to_guests();
    }

    /// Registers the pidfds of processes that are new. One that cannot be registered is looked at by
    /// the shell, and comes here again.
    fn watch(&mut self) {
        for name in self.shell.take_started() {
            self.unwatch(&name);
            let Some(pidfd) = self.shell.processes().pidfd(&name) else { continue };
            let (registry, key) = (self.poll.registry(), self.sources.key());
            match registry.register(&mut SourceFd(&pidfd), Token(key), Interest::READABLE) {
                Ok(()) => {
                    self.sources.insert(key, Source::Process(name.clone()));
                    self.watched.insert(name, key);
                }
                Err(error) => {
                    log::warn!("VM {name}: the end of its process cannot be waited for: {error}");
                    self.shell.watch_later(&name, self.now());
                }
            }
        }
    }

    fn unwatch(&mut self, name: &VmName) {
        if let Some(key) = self.watched.remove(name) {
            self.sources.remove(key);
            if let Some(pidfd) = self.shell.processes().pidfd(name) {
                // Closing the pidfd takes it out of the poll too; this is for one that stays open.
                let _ = self.poll.registry().deregister(&mut SourceFd(&pidfd));
            }
        }
    }
}

/// Events are the daemon's log, too.
fn write_to_log(event: &Event) {
    match (&event.by_pid, &event.by_name) {
        (Some(pid), Some(name)) => log::warn!("{}, by process {pid} ({name})", event.message),
        (_, _) => log::info!("{}", event.message),
    }
}
