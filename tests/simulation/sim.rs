//! The daemon in its world: what the event loop does, on a clock that is only ever told to go on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use volnet::config::{self, Flags, Settings};
use volnet::daemon::launch::Launcher;
use volnet::daemon::shell::{Output, Shell};
use volnet::daemon::sources::{Key, Sources};
use volnet::engine::decide::Engine;
use volnet::engine::patience::REPAIRS_MAX;
use volnet::engine::supervise::Life;
use volnet::hypervisor::cgroup::Root;
use volnet::hypervisor::fake::Manners;
use volnet::hypervisor::process::Processes;
use volnet::model::budget::Controller;
use volnet::model::clock::Now;
use volnet::model::error::Error;
use volnet::model::mode::Mode;
use volnet::model::name::VmName;
use volnet::model::record::{Exit, GuestEnd, Motion};
use volnet::model::request::Request;
use volnet::model::request::Ticket;
use volnet::model::view::NicView;
use volnet::network::features::Features;
use volnet::plan::news::News;
use volnet::plan::reconcile::Observed;
use volnet::store::memory::{Restart, Unsynced};
use volnet::store::{Paths, Store};

use crate::check::loaded;
use crate::lease::{self, DhcpAnswer, Leases, Whose, Word};
use crate::meddling::{self, Meddling, put_right};
use crate::promise::Promises;
use crate::saving::Thread;
use crate::talk::Talk;
use crate::world::{Choice, Crash, Handle, RUNTIME, STATE, World};

/// Milliseconds since the epoch at which the virtual clock begins.
const EPOCH: u64 = 1_700_000_000_000;
/// Turns after which a daemon that is left alone must have come to rest.
const TURNS_MAX: usize = 10_000;
/// Times that somebody who insists does the same thing, and the milliseconds between: time enough
/// to have it repaired each time, and all within the window in which repairs are counted together.
const INSISTS: u32 = REPAIRS_MAX + 4;
const INSIST_EVERY_MS: u64 = 200;
/// How long [`Sim::settle`] lets the clock go on, in milliseconds: longer than any stop or
/// back-off.
const SETTLE_MS: u64 = 600_000;

/// Two small networks, one of which keeps its guests apart, one with IPv6 alone, and a hypervisor
/// that can be asked.
const SETTINGS: &str = r#"{
    "networks": [
        {"name": "default", "bridge": "vbr0", "subnet": "10.1.0.0/29", "ipv6": true,
         "services": true},
        {"name": "lab", "bridge": "vbr1", "subnet": "10.2.0.0/28", "isolated": true, "nat": false},
        {"name": "six", "bridge": "vbr2", "subnet": null, "ipv6": true}
    ],
    "hypervisor": "qemu",
    "hypervisors": {"qemu": {"program": "/bin/sh"}},
    "kernel_vmlinux": "/bin/sh",
    "kvm": false
}"#;

/// The same with the first network alone, and that with another subnet and without IPv6.
const CHANGED: &str = r#"{
    "networks": [{"name": "default", "bridge": "vbr0", "subnet": "10.3.0.0/29"}],
    "hypervisor": "qemu",
    "hypervisors": {"qemu": {"program": "/bin/sh"}},
    "kernel_vmlinux": "/bin/sh",
    "kvm": false
}"#;

/// Which settings the daemon has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Configured {
    /// Those that VMs are made with.
    #[default]
    Right,
    /// Others, which these VMs do not fit.
    Changed,
}

/// The network whose guests the daemon answers: the one with NAT.
const SERVED: &str = "default";

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Somebody asks.
    Ask(Request),
    /// Requests come together.
    Together(Vec<Request>),
    /// All this becomes ready in the same moment, and has its turn in the order of this number.
    Batch(Vec<Ready>, u64),
    /// The clock goes on by so many milliseconds.
    Wait(u64),
    /// The host is suspended for so many milliseconds.
    Suspend(u64),
    /// Somebody sets the clock of people so many milliseconds on, or back.
    SetClock(i64),
    /// The clock goes on until nothing is due any more.
    Settle,
    /// A hypervisor ends by itself.
    End(VmName, Exit),
    /// A guest ends like this, and its hypervisor goes on.
    EndGuest(VmName, GuestEnd),
    /// A hypervisor stops its guest by itself, or somebody else pauses it or lets it go on.
    Move(VmName, Motion),
    /// What it takes to end processes that are started from now on.
    Manners(Manners),
    /// Guests hang in their start from now on, or do not.
    Hang(bool),
    /// A guest talks.
    Talk(VmName),
    /// A guest does something about its address.
    Lease(VmName, Word),
    /// A machine with this address joins the LAN of its bridge. Its answers come after so many
    /// looks for them.
    Machine(Ipv4Addr, usize),
    /// Others change something.
    Meddle(Meddling),
    /// They change so much that the kernel's news of it are lost.
    Overrun(Meddling),
    /// They do the same again each time it was put right, more often than the daemon has patience.
    Insist(Meddling),
    /// Somebody puts everything right by hand.
    PutRight,
    /// The daemon is killed.
    Kill,
    /// It is started.
    Start,
    /// The daemon ends, and somebody changes its settings, or puts them back.
    Configure(Configured),
    /// The host starts anew, with or without what was not synced: entries, contents.
    Reboot(Unsynced, Unsynced),
}

/// Something that becomes ready beside others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ready {
    /// A client has asked.
    Asked(Request),
    /// A client that watches has hung up.
    HungUp,
    /// A hypervisor has ended by itself.
    Ended(VmName, Exit),
}

/// What the model of the event loop waits for.
#[derive(Clone, Debug, PartialEq)]
enum Source {
    /// A client that has asked.
    Client(Request),
    /// A client that watches, and has hung up: to tell it something fails.
    Watcher,
    /// The process of a VM, by its descriptor.
    Process(VmName, RawFd),
}

/// A daemon and its world.
pub(crate) struct Sim {
    pub(crate) world: Rc<RefCell<World>>,
    /// `None` while no daemon runs.
    pub(crate) shell: Option<Shell<Handle, Handle, Handle>>,
    pub(crate) promises: Promises,
    pub(crate) talk: Talk,
    pub(crate) leases: Leases,
    ground: Rc<Ground>,
    /// Whoever finds the daemon dead puts its settings right.
    configured: Configured,
    /// What the event loop waits for.
    sources: Sources<Source>,
    /// Keys of the processes that are watched.
    watched: BTreeMap<VmName, Key>,
    /// The snapshots that threads take.
    saving: Vec<Thread>,
    /// The kernel as its news have told it so far.
    told: Observed,
    /// Others changed rules since.
    rules_changed: bool,
    /// News were lost since.
    news_lost: bool,
    /// The monotonic clock in milliseconds.
    clock: u64,
    /// Milliseconds that it stood still.
    suspended: u64,
    /// When the host was booted last, by [`Sim::time`], and how often it was.
    booted: u64,
    boots: u64,
    /// What the clock of people shows when the monotonic clock begins, in milliseconds.
    wall: u64,
    tickets: Ticket,
}

/// What is the same for every daemon.
struct Ground {
    settings: Settings,
    changed: Settings,
    launcher: Launcher,
}

/// Each VM has a control group.
fn launcher(settings: &Settings) -> Launcher {
    let root = Root::told("/sys/fs/cgroup/volnet", &Controller::ALL);
    Launcher::new(settings, None).with_cgroup(Some(root))
}

impl Sim {
    /// A daemon that was just started on a host that never had one.
    pub(crate) fn new() -> Sim {
        Sim::on(Features::ALL)
    }

    /// The same, on a kernel that can do this.
    pub(crate) fn on(features: Features) -> Sim {
        let [settings, changed] = [SETTINGS, CHANGED].map(|settings| {
            config::resolve(&Flags::default(), &BTreeMap::new(), Some(settings), "simulation")
                .expect("the settings are right")
        });
        let launcher = launcher(&settings);
        let mut sim = Sim {
            world: Rc::new(RefCell::new(World::new(features))),
            shell: None,
            promises: Promises::default(),
            talk: Talk::default(),
            leases: Leases::default(),
            ground: Rc::new(Ground { settings, changed, launcher }),
            configured: Configured::Right,
            sources: Sources::default(),
            watched: BTreeMap::new(),
            saving: Vec::new(),
            told: Observed::default(),
            rules_changed: false,
            news_lost: false,
            clock: 0,
            suspended: 0,
            booted: 0,
            boots: 0,
            wall: EPOCH,
            tickets: 0,
        };
        sim.start();
        sim
    }

    /// The same world, without the daemon.
    pub(crate) fn abandoned(&self) -> Sim {
        Sim {
            world: Rc::new(RefCell::new(self.world.borrow().clone())),
            shell: None,
            promises: self.promises.clone(),
            talk: self.talk.clone(),
            leases: self.leases.clone(),
            ground: self.ground.clone(),
            configured: Configured::Right,
            sources: Sources::default(),
            watched: BTreeMap::new(),
            saving: Vec::new(),
            told: Observed::default(),
            rules_changed: false,
            news_lost: false,
            clock: self.clock,
            suspended: self.suspended,
            booted: self.booted,
            boots: self.boots,
            wall: self.wall,
            tickets: self.tickets,
        }
    }

    /// Whether these are the same world, without a daemon: the next daemon does the same in both.
    pub(crate) fn is_like(&self, other: &Sim) -> bool {
        let Sim {
            world,
            shell,
            promises,
            talk,
            leases,
            ground: _,
            configured,
            // What a daemon has.
            sources: _,
            watched: _,
            saving: _,
            told: _,
            rules_changed: _,
            news_lost: _,
            clock,
            suspended,
            booted,
            boots,
            wall,
            tickets,
        } = self;
        shell.is_none()
            && other.shell.is_none()
            && (clock, suspended, wall) == (&other.clock, &other.suspended, &other.wall)
            && (booted, boots, tickets) == (&other.booted, &other.boots, &other.tickets)
            && *configured == other.configured
            && (talk, leases) == (&other.talk, &other.leases)
            && *promises == other.promises
            && world.borrow().is_like(&other.world.borrow())
    }

    /// Starts a daemon, if none runs, which takes over what it finds. It may fail to.
    pub(crate) fn start(&mut self) {
        if self.shell.is_some() {
            return;
        }
        let now = self.now();
        self.told = self.world.borrow().network.kernel.observed.clone();
        (self.rules_changed, self.news_lost) = (false, false);
        let started = self.survive(|sim| sim.recovered(now));
        self.shell = started.and_then(Result::ok);
        self.turn();
    }

    fn recovered(&self, now: Now) -> Result<Shell<Handle, Handle, Handle>, Error> {
        let Ground { settings, changed, launcher } = &*self.ground;
        let settings = match self.configured {
            Configured::Right => settings,
            Configured::Changed => changed,
        };
        self.daemon(settings, launcher.clone(), Paths::new(STATE, RUNTIME), now)
    }

    /// A daemon in this world that has taken over what it found.
    fn daemon(
        &self,
        settings: &Settings,
        launcher: Launcher,
        paths: Paths,
        now: Now,
    ) -> Result<Shell<Handle, Handle, Handle>, Error> {
        let handle = || Handle(self.world.clone());
        let hypervisor = settings.machine.hypervisor.clone();
        let boot = format!("{:032x}", self.boots).parse().expect("a UUID");
        let engine = Engine::new(settings.networks.clone(), hypervisor, settings.nft_owner)
            .expect("the networks are right")
            .with_boot(boot);
        let store = Store::open(handle(), paths)?;
        let mut shell = Shell::new(engine, handle(), store, handle(), launcher);
        shell.recover(now)?;
        Ok(shell)
    }

    /// Starts a second daemon in this world, with a network and directories of its own.
    pub(crate) fn beside(&self) -> Shell<Handle, Handle, Handle> {
        let networks = r#"{"networks": [
            {"name": "other", "bridge": "vbr9", "subnet": "10.9.0.0/24"}
        ]}"#;
        let settings =
            config::resolve(&Flags::default(), &BTreeMap::new(), Some(networks), "simulation")
                .expect("the settings are right");
        let paths = Paths::new("/other/state", "/other/run");
        let launcher = launcher(&settings);
        self.daemon(&settings, launcher, paths, self.now()).expect("it starts")
    }

    /// The daemon is killed, if it was not yet, and what is left of its world stays.
    pub(crate) fn crash(&mut self) {
        self.fall();
        self.promises.crashed();
        self.world.borrow_mut().crash();
    }

    /// The host ends.
    pub(crate) fn reboot(&mut self, entries: Unsynced, contents: Unsynced) {
        self.fall();
        self.promises.rebooted();
        (self.booted, self.boots) = (self.time(), self.boots + 1);
        self.world.borrow_mut().reboot(Restart::Machine { entries, contents });
    }

    fn fall(&mut self) {
        self.shell = None;
        (self.sources, self.watched) = (Sources::default(), BTreeMap::new());
        self.saving.clear();
    }

    /// Lets the effect after `after` more ones go wrong.
    pub(crate) fn arm(&self, after: usize, choice: Choice) {
        self.world.borrow_mut().arm(after, choice);
    }

    /// Lets something happen.
    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Ask(request) => self.ask(std::slice::from_ref(request)),
            Step::Together(requests) => self.ask(requests),
            Step::Batch(things, order) => self.batch(things, *order),
            Step::Wait(time) => self.wait(*time),
            Step::Suspend(time) => self.suspended += time,
            Step::SetClock(by) => self.wall = self.wall.saturating_add_signed(*by),
            Step::Settle => self.settle(),
            Step::End(name, exit) => {
                self.world.borrow_mut().processes.end(name, *exit);
                self.promises.ended(name);
                self.turn();
            }
            Step::EndGuest(name, end) => self.end_guest(name, *end),
            Step::Move(name, motion) => {
                self.world.borrow_mut().processes.move_to(name, *motion);
                self.turn();
            }
            Step::Manners(manners) => self.world.borrow_mut().processes.set_manners(*manners),
            Step::Hang(hang) => self.world.borrow_mut().processes.hang(*hang),
            Step::Talk(name) => self.talk(name),
            Step::Lease(name, word) => self.lease(name, *word),
            Step::Machine(ip, late) => {
                {
                    let world = &mut *self.world.borrow_mut();
                    world.lan.join(&mut world.network, *ip, *late);
                }
                self.turn();
            }
            Step::Meddle(meddling) => self.meddle(*meddling, false),
            Step::Overrun(meddling) => self.meddle(*meddling, true),
            Step::Insist(meddling) => {
                for _ in 0..INSISTS {
                    self.meddle(*meddling, false);
                    self.wait(INSIST_EVERY_MS);
                }
            }
            Step::PutRight => self.put_right(),
            Step::Kill => self.crash(),
            Step::Start => self.start(),
            Step::Configure(configured) => {
                self.fall();
                self.promises.crashed();
                self.world.borrow_mut().end();
                self.configured = *configured;
                self.start();
            }
            Step::Reboot(entries, contents) => {
                self.reboot(*entries, *contents);
                self.start();
            }
        }
    }

    fn talk(&mut self, name: &VmName) {
        let engine = self.shell.as_ref().map(|shell| shell.engine());
        let views: Vec<_> = engine.into_iter().flat_map(|engine| engine.list(None)).collect();
        if let Some(vm) = views.iter().find(|vm| vm.name == *name && vm.pid.is_some()) {
            self.talk.talk(&mut self.world.borrow_mut(), vm);
        }
    }

    /// A guest on the network that is served does something about its address.
    fn lease(&mut self, name: &VmName, word: Word) {
        let engine = self.shell.as_ref().map(|shell| shell.engine());
        let views: Vec<_> = engine.into_iter().flat_map(|engine| engine.list(None)).collect();
        let served = |nic: &&NicView| nic.mode == Mode::Dhcp && nic.network == SERVED;
        let Some(vm) = views.iter().find(|vm| vm.name == *name) else { return };
        if matches!(word, Word::Router | Word::Ipv6 | Word::Claim(_)) {
            if let Some(nic) = vm.nics.iter().find(|nic| nic.ip6.is_some()) {
                self.ask_by_ipv6(nic, word);
            }
            return self.turn();
        }
        let Some(nic) = vm.nics.iter().find(served) else { return };
        let (mac, whose) = (nic.mac, (name.clone(), vm.created_at, nic.mac));
        match (word, nic.ip) {
            (Word::Get, _) => {
                if let Some(offer) = self.hear(&lease::discover(mac), &whose) {
                    self.hear(&lease::request(mac, offer.ip), &whose);
                }
            }
            (Word::Renew, Some(ip)) => {
                self.hear(&lease::renew(mac, ip), &whose);
            }
            (Word::Release, Some(ip)) => {
                self.leases.given_back(&whose);
                self.hear(&lease::release(mac, ip), &whose);
            }
            (Word::Renew | Word::Release, None)
            | (Word::Router | Word::Ipv6 | Word::Claim(_), _) => {}
        }
        self.turn();
    }

    /// A guest asks something of IPv6, which has an answer unless it asks too often.
    fn ask_by_ipv6(&mut self, nic: &NicView, word: Word) {
        let (now, mut answer) = (self.now(), None);
        let frame = match word {
            Word::Router => lease::solicit_router(nic.mac),
            Word::Claim(number) => match nic.ip6 {
                Some(own) => lease::claim(nic.mac, own, number),
                None => return,
            },
            _ => lease::solicit_address(nic.mac),
        };
        self.with(|shell| answer = shell.guest_asks(&nic.network, &frame, now));
        let Some((link, frame)) = answer else { return };
        assert_eq!(Some(link), nic.ifindex);
        let wrong = match word {
            Word::Router => lease::wrong_router(nic, &frame),
            // A neighbour has it.
            Word::Claim(_) => None,
            _ => lease::wrong_address(nic, &frame),
        };
        assert_eq!(wrong, None);
    }

    /// Looks at what guests were told without asking.
    fn look_at_sent(&mut self) {
        let sent = std::mem::take(&mut self.world.borrow_mut().sent);
        let engine = self.shell.as_ref().map(|shell| shell.engine());
        let views: Vec<_> = engine.into_iter().flat_map(|engine| engine.list(None)).collect();
        for (link, frame) in sent {
            let mut nics = views.iter().flat_map(|vm| &vm.nics);
            // It may be gone since.
            let Some(nic) = nics.find(|nic| nic.ifindex == Some(link)) else { continue };
            assert_eq!(lease::wrong_router(nic, &frame), None);
        }
    }

    /// The daemon hears a frame of a guest. Gives the answer.
    fn hear(&mut self, frame: &[u8], whose: &Whose) -> Option<DhcpAnswer> {
        let now = self.now();
        let mut answer = None;
        self.with(|shell| answer = shell.guest_asks(SERVED, frame, now));
        let (_, frame) = answer?;
        let answer = DhcpAnswer::read(&frame);
        let started = self.shell.as_ref().and_then(|shell| {
            let vm = shell.engine().vm(&whose.0).ok()?;
            vm.life.pid().and(vm.record.started_at)
        });
        self.leases.told(whose, &answer, started, self.time());
        Some(answer)
    }

    /// Others change something; the daemon, if it runs, is told.
    fn meddle(&mut self, meddling: Meddling, lost: bool) {
        self.rules_changed |= meddling.apply(&mut self.world.borrow_mut().network);
        self.news_lost |= lost;
        self.promises.meddled(meddling);
        self.turn();
    }

    /// Somebody makes the kernel what the daemon, if it runs and has set the host up, wants it to
    /// be.
    fn put_right(&mut self) {
        let Some(shell) = &self.shell else { return };
        let mut world = self.world.borrow_mut();
        if loaded(&world).host.is_some() {
            self.rules_changed |= put_right(&shell.engine().desired(), &mut world.network);
        }
        drop(world);
        self.turn();
    }

    fn ask(&mut self, requests: &[Request]) {
        self.requests(requests);
        self.turn();
    }

    fn requests(&mut self, requests: &[Request]) {
        if self.shell.is_none() {
            return;
        }
        // No two VMs of a name are made at the same moment: that is how one is told from its
        // successor.
        self.clock += 1;
        let now = self.now();
        let mut asked = Vec::new();
        for request in requests {
            self.tickets += 1;
            self.promises.asked(self.tickets, request);
            asked.push((self.tickets, request.clone()));
        }
        self.with(|shell| shell.requests(&asked, now));
        self.tell();
    }

    /// One turn of the loop with all of this.
    fn batch(&mut self, things: &[Ready], mut order: u64) {
        if self.shell.is_none() {
            return;
        }
        let mut ready = Vec::new();
        for thing in things {
            match thing {
                Ready::Asked(request) => ready.push(self.add(Source::Client(request.clone()))),
                Ready::HungUp => ready.push(self.add(Source::Watcher)),
                Ready::Ended(name, exit) => {
                    self.world.borrow_mut().processes.end(name, *exit);
                    self.promises.ended(name);
                }
            }
        }
        ready.extend(self.ended());
        for left in (1..=ready.len()).rev() {
            // The digits of the number, to a base that shrinks, choose one order of all.
            let key = ready.remove((order % left as u64) as usize);
            order /= left as u64;
            self.deliver(key);
        }
        self.turn();
    }

    fn add(&mut self, source: Source) -> Key {
        let key = self.sources.key();
        self.sources.insert(key, source);
        key
    }

    /// The processes that are watched and have ended.
    fn ended(&self) -> Vec<Key> {
        let world = self.world.borrow();
        let ended = world.processes.ended();
        let is = |source: &Source| match source {
            Source::Process(name, pidfd) => {
                ended.contains(name) && world.processes.pidfd(name) == Some(*pidfd)
            }
            Source::Client(_) | Source::Watcher => false,
        };
        self.sources.iter().filter(|(_, source)| is(source)).map(|(key, _)| key).collect()
    }

    /// A source that was ready has its turn, if it is there still.
    fn deliver(&mut self, key: Key) {
        let now = self.now();
        match self.sources.remove(key) {
            None | Some(Source::Watcher) => {}
            Some(Source::Client(request)) => self.requests(&[request]),
            Some(Source::Process(name, pidfd)) => {
                // Who was woken for another's sake would lose its own wake-up.
                let ended = self.world.borrow().processes.ended().contains(&name);
                assert!(ended, "{name} has not ended, by descriptor {pidfd}");
                self.watched.remove(&name);
                self.with(|shell| shell.exited(&name, now));
                self.tell();
            }
        }
    }

    /// The processes that are watched, by their descriptors.
    pub(crate) fn watching(&self) -> Vec<(VmName, RawFd)> {
        let of = |source: &Source| match source {
            Source::Process(name, pidfd) => Some((name.clone(), *pidfd)),
            Source::Client(_) | Source::Watcher => None,
        };
        self.sources.iter().filter_map(|(_, source)| of(source)).collect()
    }

    /// Tells what there is to tell, and watches the processes that are new.
    fn tell(&mut self) {
        let Some(shell) = &mut self.shell else { return };
        for output in shell.take_outputs() {
            match output {
                Output::Reply { ticket, result } => self.promises.answered(ticket, &result),
                Output::More { .. } => {}
                Output::Event(_) => {
                    let gone = |(_, source): &(Key, &Source)| **source == Source::Watcher;
                    let gone: Vec<Key> =
                        self.sources.iter().filter(gone).map(|(key, _)| key).collect();
                    gone.into_iter().for_each(|key| drop(self.sources.remove(key)));
                }
            }
        }
        let started = shell.take_started();
        let (now, world) = (self.clock, Handle(self.world.clone()));
        let saves = shell.take_saves().into_iter().map(|save| Thread::new(save, now, &world));
        self.saving.extend(saves);
        for name in started {
            self.watch(&name);
        }
    }

    /// A guest that was said to run ends. (If it ends earlier, it is said to run all the same, and
    /// is ended then.)
    fn end_guest(&mut self, name: &VmName, end: GuestEnd) {
        let told = |life: &Life| matches!(life, Life::Running { check: None, .. });
        let shell = self.shell.as_ref();
        let runs = shell.is_some_and(|it| it.engine().vm(name).is_ok_and(|vm| told(&vm.life)));
        if runs && self.world.borrow_mut().processes.end_guest(name, end) {
            self.promises.ended(name);
            self.hear_hypervisor(name);
            self.turn();
        }
    }

    /// The daemon hears what a hypervisor says of its guest.
    fn hear_hypervisor(&mut self, name: &VmName) {
        let now = self.now();
        self.with(|shell| assert!(!shell.heard_of(name, now), "it was all said"));
    }

    fn watch(&mut self, name: &VmName) {
        if let Some(key) = self.watched.remove(name) {
            self.sources.remove(key);
        }
        let pidfd = self.world.borrow().processes.pidfd(name);
        let Some(pidfd) = pidfd else { return };
        let handle = Handle(self.world.clone());
        let Some(watched) = self.survive(|_| handle.watch()) else { return };
        if watched {
            let key = self.add(Source::Process(name.clone(), pidfd));
            self.watched.insert(name.clone(), key);
            self.hear_hypervisor(name);
        } else {
            let now = self.now();
            self.with(|shell| shell.watch_later(name, now));
        }
    }

    fn wait(&mut self, time: u64) {
        let until = self.clock + time;
        for _ in 0..TURNS_MAX {
            self.turn();
            let step = self.saving.iter().map(|thread| thread.at).min();
            match self.shell.as_ref().and_then(Shell::deadline).into_iter().chain(step).min() {
                Some(due) if due <= until => self.clock = self.clock.max(due),
                Some(_) | None => {
                    self.clock = until;
                    return;
                }
            }
        }
        panic!("the daemon does not come to rest");
    }

    /// Lets the clock go on until nothing is due: every process has started or ended.
    pub(crate) fn settle(&mut self) {
        self.wait(SETTLE_MS);
    }

    /// Turns of the event loop, until nothing is ready.
    fn turn(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.turn_once() {
                return;
            }
        }
        panic!("the daemon is not done with its turn");
    }

    /// Tells what there is to tell, and does one thing that is due. False when there is none.
    fn turn_once(&mut self) -> bool {
        self.tell();
        if self.shell.is_none() {
            return false;
        }
        let now = self.now();
        let due = self.shell.as_ref().and_then(Shell::deadline).is_some_and(|at| at <= now.mono);
        if let Some(key) = self.ended().first() {
            self.deliver(*key);
        } else if let Some(news) = self.news() {
            self.with(|shell| shell.news(news, now));
        } else if let Some(name) = self.heard() {
            self.hear_hypervisor(&name);
        } else if let Some(at) = self.saving.iter().position(|thread| thread.at <= now.mono) {
            self.save(at);
        } else if due {
            self.with(|shell| shell.tick(now));
            self.look_at_sent();
            let deadline = self.shell.as_ref().and_then(Shell::deadline);
            assert!(deadline.is_none_or(|at| now.mono < at), "{deadline:?} is not after {now:?}");
        } else {
            return false;
        }
        true
    }

    /// A thread that takes a snapshot does its next step. A crash ends it, and the daemon.
    fn save(&mut self, at: usize) {
        let (mut thread, mut world) = (self.saving.remove(at), Handle(self.world.clone()));
        let now = self.now();
        match self.survive(|_| thread.step(&mut world)) {
            // It has ended with the daemon.
            None => {}
            Some(None) => self.saving.push(thread),
            Some(Some(result)) => {
                let (name, ticket) = (thread.save.taking.name, thread.save.ticket);
                self.with(|shell| shell.snapshot_taken(&name, ticket, result, now));
            }
        }
    }

    /// A VM of whose guest a hypervisor has told something.
    fn heard(&mut self) -> Option<VmName> {
        self.world.borrow_mut().processes.take_news()
    }

    /// What the kernel has told since the last time.
    fn news(&mut self) -> Option<News> {
        let world = self.world.borrow();
        let observed = &world.network.kernel.observed;
        if self.told == *observed && !self.rules_changed {
            return None;
        }
        let mut news =
            meddling::news(&self.told, observed, std::mem::take(&mut self.rules_changed));
        if std::mem::take(&mut self.news_lost) {
            news = News { lost: true, ..News::default() };
        }
        self.told = observed.clone();
        Some(news)
    }

    pub(crate) fn now(&self) -> Now {
        let (time, mono) = (self.time(), self.clock);
        Now { wall: self.wall.saturating_add(time), mono, boot: time - self.booted }
    }

    /// The time that nobody can set.
    pub(crate) fn time(&self) -> u64 {
        self.clock + self.suspended
    }

    /// Runs the daemon; a crash ends it.
    fn with(&mut self, run: impl FnOnce(&mut Shell<Handle, Handle, Handle>)) {
        let Some(mut shell) = self.shell.take() else { return };
        self.shell = self.survive(|_| {
            run(&mut shell);
            shell
        });
    }

    /// Runs something that a crash may end; `None` when it did.
    fn survive<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| run(self))) {
            Ok(result) => Some(result),
            Err(payload) if payload.is::<Crash>() => {
                self.fall();
                None
            }
            Err(payload) => resume_unwind(payload),
        }
    }
}
