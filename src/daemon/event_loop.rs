//! The event loop: wait, give each ready source its turn, send the outputs.
//!
//! mio is edge-triggered: a source is drained until it would block, except for clients and guests,
//! which get a bounded turn each; those with more to do are remembered and the next wait does not
//! block. The only timer is the timeout of the wait, so an idle daemon is not woken.
//!
//! Each kind of source has a file, in which it is registered and has its turn: connections and
//! their listener ([`clients`]), the kernel's news ([`kernel`]), what guests ask ([`guests`],
//! [`names`]), scrapers of metrics ([`scrapers`]), processes ([`processes`]). A new kind is a
//! variant of [`Source`], an arm of [`EventLoop::turn`] and a file. Creates that come together wait
//! in [`group`] for the end of the round, starts and ends of processes in [`slow`]. One call may
//! make [`many`] VMs, other threads do [`work`], and [`spare`] has what nobody waits for.

mod clients;
mod group;
mod guests;
mod kernel;
mod many;
mod names;
mod processes;
mod scrapers;
mod slow;
mod spare;
#[cfg(test)]
mod tests;
mod work;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use mio::event::Event as Readiness;
use mio::net::UnixListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::Socket;

use super::refusals::Refusals;
use super::shell::{Output, Shell};
use super::source::Source;
use super::sources::{Key, Sources};
use super::tickets::{OWN_TICKET, Tickets};
use super::workers::Workers;
use crate::hypervisor::own_disks::OwnDisks;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::error::{Error, Failure};
use crate::model::name::VmName;
use crate::model::request::{Reply, Request, Ticket};
use crate::network::Network;
use crate::network::linux::monitor::Monitor;
use crate::resolver::Names;
use crate::store::storage::Storage;
use group::Group;
use kernel::Kernel;
use many::Many;
use slow::{Slow, SlowWork};
use spare::Spare;

/// Readiness taken from the kernel in one round.
const EVENTS_PER_ROUND: usize = 256;

/// The daemon's loop and its sources.
pub(super) struct EventLoop<N, D: Storage, P> {
    poll: Poll,
    sources: Sources<Source>,
    tickets: Tickets,
    /// Sources with more work than their last turn allowed.
    again: Vec<Key>,
    shell: Shell<N, D, P>,
    workers: Workers,
    kernel: Kernel,
    names: Names,
    group: Group,
    slow: SlowWork,
    many: Many,
    /// Disks that were made for requests which are not answered yet.
    made: Vec<(Ticket, OwnDisks)>,
    spare: Spare,
    refusals: Refusals,
    /// Keys of the processes that are watched.
    watched: HashMap<VmName, Key>,
    /// Keys of the hypervisors that write about their guests.
    heard: HashMap<VmName, Key>,
    /// The answer to the request of [`EventLoop::run_one`].
    own_answer: Option<Result<Reply, Error>>,
    started: Instant,
    ending: bool,
}

impl<N: Network, D: Storage, P: Processes> EventLoop<N, D, P> {
    /// A loop over these, which serves whoever connects to `listener`; without one, it is there for
    /// one request. What `monitor` has to tell already is read in the first round. `signals`
    /// becomes readable when the daemon is to end.
    pub(super) fn new(
        shell: Shell<N, D, P>,
        listener: Option<UnixListener>,
        monitor: Option<Monitor>,
        signals: mio::net::UnixStream,
        started: Instant,
    ) -> io::Result<Self> {
        let (poll, mut sources) = (Poll::new()?, Sources::default());
        let key = sources.key();
        let workers = Workers::new(poll.registry(), Token(key))?;
        sources.insert(key, Source::Workers);
        let mut this = EventLoop {
            poll,
            sources,
            tickets: Tickets::default(),
            again: Vec::new(),
            shell,
            workers,
            kernel: Kernel::new(monitor),
            names: Names::new()?,
            group: Group::default(),
            slow: SlowWork::new(),
            many: Many::default(),
            made: Vec::new(),
            spare: Spare::new(listener.is_some()),
            refusals: Refusals::default(),
            watched: HashMap::new(),
            heard: HashMap::new(),
            own_answer: None,
            started,
            ending: false,
        };
        for fd in this.kernel.descriptors() {
            this.add(fd, Interest::READABLE, Source::Monitor)?;
        }
        this.add(this.names.descriptor(), Interest::READABLE, Source::Names)?;
        this.add(signals.as_raw_fd(), Interest::READABLE, Source::Signals(signals))?;
        if let Some(listener) = listener {
            this.add(listener.as_raw_fd(), Interest::READABLE, Source::Listener(listener))?;
        }
        Ok(this)
    }

    /// Serves metrics to those who connect to this, too.
    pub(super) fn serve_metrics(&mut self, listener: Socket) -> io::Result<()> {
        self.add(listener.as_raw_fd(), Interest::READABLE, Source::Metrics(listener))?;
        Ok(())
    }

    /// Metrics are not served, for this reason.
    pub(super) fn metrics_unserved(&mut self, failure: Failure) {
        self.shell.unserved = Some(failure);
    }

    /// Waits for a source from now on, by its descriptor, which it keeps open.
    fn add(&mut self, fd: RawFd, interest: Interest, source: Source) -> io::Result<Key> {
        let key = self.sources.key();
        self.poll.registry().register(&mut SourceFd(&fd), Token(key), interest)?;
        self.sources.insert(key, source);
        Ok(key)
    }

    /// Runs until a signal ends it. An error is one of the wait itself, without which the daemon
    /// cannot continue. A fault of a source ends that source, or is tried again.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_ROUND);
        self.hear_kernel(self.now());
        self.tell();
        while !self.ending {
            self.round(&mut events)?;
        }
        let now = self.now();
        self.shell.end_traces(now);
        self.workers.end_snapshots();
        self.hear_workers();
        self.tell();
        self.settle_disks(true);
        Ok(())
    }

    /// Handles one request of our own and runs until it is answered. `None` if a signal came first.
    pub(super) fn run_one(
        &mut self,
        request: &Request,
    ) -> io::Result<Option<Result<Reply, Error>>> {
        self.shell.request(OWN_TICKET, request, self.now());
        self.run()?;
        Ok(self.own_answer.take())
    }

    /// Waits, lets each source that is ready have its turn, does what is due, and tells of all
    /// that.
    fn round(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.timeout();
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        self.group.make_room();
        for key in std::mem::take(&mut self.again) {
            self.turn(key, None);
        }
        for event in &*events {
            self.turn(event.token().0, Some(event));
        }
        self.carry_out_group();
        self.do_slow_work();
        let now = self.now();
        self.shell.read_on(now);
        self.hear_kernel(now);
        self.shell.tick(now);
        self.tick_names(now);
        self.tick_scrapers(now.mono);
        debug_assert!(self.deadline().is_none_or(|at| now.mono < at), "due after its turn");
        self.tell();
        self.settle_disks(false);
        self.shell.network().settle();
        self.do_spare_work();
        Ok(())
    }

    /// The turn of a source: the kernel says that it is ready, or it had more to do before. One
    /// that a turn before it has closed has none.
    fn turn(&mut self, key: Key, event: Option<&Readiness>) {
        match self.sources.get_mut(key) {
            None => {}
            Some(Source::Listener(_)) => self.accept(key),
            Some(Source::Client(_)) => self.wake(key, event),
            Some(Source::Metrics(_)) => self.accept_scrapers(key),
            Some(Source::Scraper(_)) => self.scrape(key),
            Some(Source::Workers) => self.hear_workers(),
            Some(Source::Guests(_)) => self.hear_guests(key),
            Some(Source::Names) => self.hear_names(key),
            Some(Source::Monitor) => self.kernel.has_news(self.now()),
            Some(Source::Process(_)) => self.slow.push_back(Slow::End(key)),
            Some(Source::Hypervisor(_)) => self.hear_hypervisor(key),
            Some(Source::Signals(_)) => self.ending = true,
        }
    }

    /// Gives a source another turn without waiting for the kernel.
    fn come_back(&mut self, key: Key) {
        if !self.again.contains(&key) {
            self.again.push(key);
        }
    }

    /// How long the wait may last: not at all while a source has more to do, else until the next
    /// deadline. A millisecond is added because the wait is cut to whole milliseconds.
    fn timeout(&mut self) -> Option<Duration> {
        let has_more = !self.again.is_empty() || self.shell.is_reading();
        if has_more || self.next_slow().is_some() {
            return Some(Duration::ZERO);
        }
        let next = self.deadline().into_iter().chain(self.spare_work_at()).min()?;
        let left = next.saturating_sub(self.now().mono);
        Some(Duration::from_millis(if left == 0 { 0 } else { left + 1 }))
    }

    /// When something is due though no source is ready. After each round this lies ahead.
    fn deadline(&self) -> Option<u64> {
        let others = self.kernel.deadline().into_iter().chain(self.names.deadline());
        let scrapers = self.sources.scrapers().map(|(_, scraper)| scraper.deadline);
        self.shell.deadline().into_iter().chain(others).chain(scrapers).min()
    }

    fn now(&self) -> Now {
        super::now(self.started)
    }

    /// Sends the outputs of the shell, and watches its new processes and bridges. Callers come
    /// before subscribers.
    fn tell(&mut self) {
        self.begin_snapshots();
        let mut events = Vec::new();
        for output in self.shell.take_outputs() {
            match output {
                Output::Reply { ticket: OWN_TICKET, result } => {
                    self.own_answer = Some(result);
                    self.ending = true;
                }
                Output::Reply { ticket, result } => self.tell_one(ticket, &result),
                Output::More { ticket, reply } => self.tell_more(ticket, &reply),
                Output::Event(event) => events.push(event),
            }
        }
        for event in events {
            self.tell_all(&event);
        }
        self.watch_processes();
        self.listen_to_guests();
    }
}
