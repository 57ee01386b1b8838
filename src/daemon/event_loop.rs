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
use super::source::{Slab, Source};
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

/// The ticket of our own request; serial numbers of connections begin with 1.
const OWN_TICKET: Ticket = 0;

/// The daemon's loop and all that it waits for.
pub(super) struct EventLoop<N, D: Disk, P> {
    poll: Poll,
    comparisons: Comparisons,
    sources: Slab,
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
    /// Slots of the processes that are watched.
    watched: HashMap<VmName, usize>,
    /// Sources that have more to do than their last turn allowed.
    again: Vec<usize>,
    /// Requests of this turn that are to be carried out together.
    gathered: Vec<(Ticket, Request)>,
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
            self.room = gather::GROUP_MAX;
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
                    log::error!(
                        "network {}: cannot receive DHCP from its guests: {error}",
                        network.name
                    );
                    continue;
                }
            };
            let (fd, slot) = (ear.descriptor(), self.sources.insert(Source::Guests(Box::new(ear))));
            self.poll.registry().register(&mut SourceFd(&fd), Token(slot), Interest::READABLE)?;
        }
        Ok(())
    }

    /// Lets a source have another turn without waiting for the kernel.
    fn come_back(&mut self, slot: usize) {
        if !self.again.contains(&slot) {
            self.again.push(slot);
        }
    }

    /// Passes on what the shell has to tell, and watches what it started or made. Those who
    /// wait come before those who watch.
    fn tell(&mut self) -> io::Result<()> {
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
}

/// Events are the daemon's log, too.
fn write_to_log(event: &Event) {
    match (&event.by_pid, &event.by_name) {
        (Some(pid), Some(name)) => log::warn!("{}, by process {pid} ({name})", event.message),
        (_, _) => log::info!("{}", event.message),
    }
}
