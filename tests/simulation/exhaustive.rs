//! Every scenario with every fault at every effect.
//!
//! A scenario runs once to count its effects. Then it runs again for each fault that each of them
//! can show. What was answered in the first run outlives the host. After an error the scenario goes
//! on, and all that must hold is checked, before and after one more restart. After a crash there
//! are: the restart of the daemon, that of the host with all that the disk may have kept or lost,
//! and for the daemon's restart the same again: each kind of fault at every effect of the recovery
//! itself.
//!
//! The same daemon does the same in the same world. So worlds are compared, with all that was
//! promised in them: what was tried in one is counted and not tried again in another that is like
//! it. To end after one effect is mostly to end before the next one, for example.
//!
//! `VOLNET_SIM_ONLY` says which scenarios are run: those whose names have these words.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use volnet::engine::added::UNUSED_MS;
use volnet::engine::supervise::START_MAX_MS;
use volnet::hypervisor::fake::Manners;
use volnet::model::mac::Mac;
use volnet::model::mode::Mode;
use volnet::model::record::{Exit, GuestEnd};
use volnet::model::request::Change;
use volnet::model::spec::{RestartPolicy, VmSpec};
use volnet::store::memory::Unsynced::{self, Kept, Lost};

use crate::check::{Litter, check};
use crate::fault::Fault;
use crate::lease::Word;
use crate::meddling::Meddling;
use crate::script::*;
use crate::sim::{Configured, Ready, Sim, Step};
use crate::world::Choice;

/// What a restart of the host may make of what was not synced: entries, contents.
const REBOOTS: [(Unsynced, Unsynced); 4] = [(Kept, Kept), (Kept, Lost), (Lost, Kept), (Lost, Lost)];

/// Milliseconds after which a guest renews its lease.
const HALF_AN_HOUR: u64 = 1_800_000;

/// What there is before, and what happens.
type Scenario = (&'static str, Vec<Step>, Vec<Step>);

fn scenarios() -> Vec<Scenario> {
    let dhcp = || on("lab", Mode::Dhcp);
    let asks = || on("default", Mode::Dhcp);
    let vsock = || on("", Mode::Vsock);
    let stubborn =
        |manners| vec![Step::Manners(manners), create_and_start("a", spec()), Step::Settle];
    vec![
        ("create", vec![], vec![create("a", spec())]),
        ("create ephemeral", vec![], vec![create("a", ephemeral())]),
        ("create vsock", vec![], vec![create("a", vsock())]),
        (
            "users of their own",
            vec![create("web1", own())],
            vec![create_and_start("a", own()), Step::Settle, delete("web1", 0)],
        ),
        ("create dhcp", vec![], vec![create("a", dhcp())]),
        ("create and start", vec![], vec![create_and_start("a", spec()), Step::Settle]),
        (
            "create and start ephemeral",
            vec![create("web1", spec())],
            vec![create_and_start("web-1", ephemeral()), Step::Settle],
        ),
        ("start", vec![create("a", spec())], vec![start("a"), Step::Settle]),
        (
            "a route to a guest comes, is lost, and goes",
            vec![],
            vec![
                create("a", narrow()),
                Step::Meddle(Meddling::Down(0)),
                Step::Settle,
                delete("a", 500),
                Step::Settle,
            ],
        ),
        (
            "restart always",
            vec![create_and_start("a", always()), Step::Settle],
            vec![Step::End(name("a"), Exit::Code(1)), Step::Settle],
        ),
        (
            "a start that hangs",
            vec![create("a", spec()), create_and_start("web1", always()), Step::Settle],
            vec![
                Step::Hang(true),
                start("a"),
                Step::End(name("web1"), Exit::Code(1)),
                Step::Wait(START_MAX_MS),
                Step::Hang(false),
                Step::Settle,
            ],
        ),
        ("a start that is deleted", vec![], {
            vec![Step::Hang(true), create_and_start("a", spec()), delete("a", 500), Step::Settle]
        }),
        (
            "a guest resets itself",
            vec![create_and_start("a", always()), Step::Settle],
            vec![Step::EndGuest(name("a"), GuestEnd::RESET), Step::Settle],
        ),
        (
            "a guest panics",
            vec![
                Step::Manners(Manners::Stubborn),
                create_and_start("a", on_failure()),
                Step::Settle,
            ],
            vec![Step::EndGuest(name("a"), GuestEnd::PANIC), Step::Settle],
        ),
        (
            "a guest is ended at the API of its hypervisor",
            vec![create_and_start("a", always()), Step::Settle],
            vec![Step::EndGuest(name("a"), GuestEnd::OFF), Step::Settle],
        ),
        ("stop", stubborn(Manners::Polite), vec![stop("a", 1_000), Step::Settle]),
        ("stop the deaf", stubborn(Manners::Deaf), vec![stop("a", 1_000), Step::Settle]),
        ("kill", stubborn(Manners::Stubborn), vec![stop("a", 1_000), Step::Settle]),
        ("restart", stubborn(Manners::Polite), vec![restart("a"), Step::Settle]),
        (
            "pause, and go on",
            stubborn(Manners::Polite),
            vec![pause("a"), Step::Settle, resume("a"), Step::Settle],
        ),
        (
            "a snapshot",
            vec![create_and_start("a", in_lab()), Step::Settle],
            vec![save("a"), Step::Settle],
        ),
        (
            "a snapshot of a guest that is paused",
            vec![create_and_start("a", in_lab()), Step::Settle, pause("a"), Step::Settle],
            vec![save("a"), Step::Settle, resume("a"), Step::Settle],
        ),
        (
            "a snapshot of a VM that is deleted",
            vec![create_and_start("a", in_lab()), Step::Settle],
            vec![save("a"), Step::Wait(250), delete("a", 500), Step::Settle],
        ),
        ("a guest wakes", vec![], vec![create_and_start("a", waking()), Step::Settle]),
        (
            "stop while it is paused",
            vec![create_and_start("a", spec()), Step::Settle, pause("a"), Step::Settle],
            vec![stop("a", 1_000), Step::Settle],
        ),
        (
            "a guest that its hypervisor stops, and goes on",
            vec![create_and_start("a", spec()), Step::Settle],
            vec![Step::Move(name("a"), FULL), resume("a"), Step::Settle],
        ),
        ("delete", vec![create("a", spec())], vec![delete("a", 0)]),
        ("delete ephemeral", vec![create("a", ephemeral())], vec![delete("a", 0)]),
        ("delete while it runs", stubborn(Manners::Stubborn), vec![delete("a", 500), Step::Settle]),
        (
            "several",
            vec![create("a", spec()), create("web-1", dhcp())],
            vec![
                create("web1", ephemeral()),
                delete("a", 0),
                create_and_start("c.3", spec()),
                Step::Settle,
                create("D", vsock()),
                delete("c.3", 0),
                Step::Settle,
            ],
        ),
        (
            "the address of one that talked",
            vec![create_and_start("a", fixed()), Step::Settle, Step::Talk(name("a"))],
            vec![delete("a", 0), Step::Settle, create("web1", fixed())],
        ),
        (
            "a tap is deleted under its hypervisor",
            vec![create_and_start("a", always()), create("web1", dhcp()), Step::Settle],
            vec![Step::Meddle(Meddling::Delete(TAP)), Step::Settle],
        ),
        (
            "a bridge is deleted",
            vec![create("a", spec()), create("web1", dhcp())],
            vec![Step::Meddle(Meddling::Delete(1)), Step::Settle],
        ),
        (
            "news of much are lost",
            vec![create("a", spec())],
            vec![
                Step::Overrun(Meddling::NoTable(1)),
                Step::Overrun(Meddling::Down(0)),
                Step::Overrun(Meddling::NoForwarding),
                Step::Settle,
            ],
        ),
        (
            "somebody insists, and somebody else puts it right",
            vec![create("a", spec())],
            vec![
                Step::Insist(Meddling::Down(TAP)),
                Step::PutRight,
                Step::Settle,
                Step::Insist(Meddling::NoTable(0)),
                delete("a", 0),
                Step::Settle,
            ],
        ),
        (
            "a start beside one who hangs up, and an end",
            vec![create("a", spec()), create_and_start("web1", always()), Step::Settle],
            vec![
                Step::Batch(
                    vec![
                        Ready::Asked(Change::Start { name: name("a") }.into()),
                        Ready::HungUp,
                        Ready::Ended(name("web1"), Exit::Code(1)),
                        Ready::HungUp,
                    ],
                    0,
                ),
                Step::Settle,
                delete("a", 500),
                Step::Settle,
            ],
        ),
        (
            "creates that come together",
            vec![create("D", spec())],
            vec![together([
                create("a", spec()),
                create("web-1", exposed(&[8080])),
                create("web1", vsock()),
            ])],
        ),
        (
            "creates that depend on each other",
            vec![create("D", spec())],
            vec![together([
                create("a", fixed()),
                create("web1", fixed()),
                create("a", fixed()),
                create("web-1", exposed(&[8080])),
                create("c.3", exposed(&[8080])),
            ])],
        ),
        (
            "creates between other requests",
            vec![create("D", spec())],
            vec![
                together([
                    create("a", spec()),
                    create("web-1", spec()),
                    delete("a", 0),
                    create("web1", ephemeral()),
                    create("c.3", spec()),
                    create_and_start("longer-than-a-tap", spec()),
                ]),
                Step::Settle,
            ],
        ),
        (
            "setup by the first of several creates",
            vec![teardown()],
            vec![together([create("a", spec()), create("web1", vsock()), create("D", spec())])],
        ),
        ("create exposed", vec![], vec![create("a", exposed(&[8080, 8443]))]),
        ("expose", vec![create("a", exposed(&[8080]))], vec![expose("a", None, 8443)]),
        ("policy", vec![create("a", spec())], vec![set_policy("a", None, "internet")]),
        ("create limited", vec![], vec![create("a", limited(100))]),
        (
            "limits",
            vec![create("a", spec()), create("web1", limited(100))],
            vec![
                set_limits("a", None, 100, 50),
                set_limits("web1", None, 200, 0),
                set_limits("web1", None, 0, 10),
            ],
        ),
        (
            "limits are taken away by others",
            vec![create("a", limited(100))],
            vec![
                Step::Meddle(Meddling::Shape(TAP)),
                Step::Settle,
                Step::Meddle(Meddling::NoElements),
                Step::Settle,
                delete("a", 0),
            ],
        ),
        ("attach", vec![], vec![attach("a", "default")]),
        ("attach with a tap", vec![], vec![attach(CONTAINERS[1], "default")]),
        ("detach", vec![attach("a", "default")], vec![detach("a"), detach("a")]),
        (
            "a VM in the namespace of the host is attached, loses its tap, and comes back",
            vec![],
            vec![
                attach(CONTAINERS[2], "default"),
                Step::Meddle(Meddling::Detach(TAP)),
                Step::Settle,
                Step::Meddle(Meddling::Delete(TAP)),
                Step::Settle,
                attach(CONTAINERS[2], "lab"),
                detach(CONTAINERS[2]),
            ],
        ),
        (
            "a namespace ends, and its container is attached again",
            vec![attach("a", "lab"), attach(CONTAINERS[1], "default")],
            vec![
                Step::Meddle(Meddling::Delete(TAP + 1)),
                Step::Settle,
                attach("a", "default"),
                Step::Meddle(Meddling::Detach(TAP + 1)),
                Step::Settle,
                detach("a"),
            ],
        ),
        ("add a network", vec![], vec![add_network("10.7.0.0/29", false)]),
        ("add a network first of all", vec![teardown()], vec![add_network("10.7.0.0/29", false)]),
        (
            "a network is added, used, replaced and removed",
            vec![add_network("10.7.0.0/29", false), attach("a", ADDED)],
            vec![
                add_network("10.8.0.0/29", true),
                detach("a"),
                add_network("10.8.0.0/29", true),
                attach("a", ADDED),
                remove_network(),
                detach("a"),
                remove_network(),
            ],
        ),
        (
            "a network that nobody uses any more",
            vec![add_network("10.7.0.0/29", false), create("a", spec())],
            vec![Step::Wait(UNUSED_MS), Step::Settle],
        ),
        (
            "teardown of a network that was added",
            vec![add_network("10.7.0.0/29", false), attach("a", ADDED)],
            vec![teardown(), Step::Settle, setup()],
        ),
        ("teardown of an attachment", vec![attach("a", "default")], vec![teardown()]),
        (
            "a VM with IPv6 alone",
            vec![],
            vec![
                create_and_start("a", on("six", Mode::Bridged)),
                lease("a", Word::Router),
                lease("a", Word::Claim(1)),
                expose("a", None, 8080),
                delete("a", 500),
                Step::Settle,
            ],
        ),
        ("attach where IPv6 is alone", vec![attach("a", "six")], vec![detach("a")]),
        ("create on several networks", vec![], vec![create("a", thrice())]),
        (
            "create and start on several networks",
            vec![create("web1", fixed())],
            vec![create_and_start("a", thrice()), Step::Settle, delete("a", 500), Step::Settle],
        ),
        (
            "the addresses of one on several networks",
            vec![
                create("a", thrice()),
                lease("a", Word::Get),
                Step::Talk(name("a")),
                create("web1", thrice()),
            ],
            vec![delete("a", 0), create("c.3", thrice()), lease("c.3", Word::Get)],
        ),
        (
            "the traffic of several NICs",
            vec![create("a", thrice()), lease("a", Word::Get)],
            vec![
                set_policy("a", Some(1), "internet"),
                set_policy("a", None, "none"),
                set_limits("a", Some(2), 100, 50),
                set_limits("a", None, 200, 0),
                expose("a", Some(2), 8443),
                lease("a", Word::Release),
                unexpose("a", 8443),
            ],
        ),
        (
            "taps of one on several networks are deleted and broken",
            vec![
                create_and_start("a", VmSpec { restart: RestartPolicy::Always, ..thrice() }),
                Step::Settle,
            ],
            vec![
                Step::Meddle(Meddling::Delete(TAP + 1)),
                Step::Meddle(Meddling::Down(TAP)),
                Step::Settle,
            ],
        ),
        (
            "creates that come together on several networks",
            vec![create("D", spec())],
            vec![together([create("a", thrice()), create("web1", thrice())])],
        ),
        ("a create on a LAN", vec![machine(6, 0)], vec![create("a", spec()), Step::Settle]),
        (
            "an address that a machine of the LAN has",
            vec![machine(2, 0), machine(3, 0)],
            vec![create_and_start("a", spec()), create("web1", fixed()), Step::Settle],
        ),
        (
            "a machine of the LAN that answers late",
            vec![machine(2, 1), machine(3, 7)],
            vec![create("a", spec()), Step::Settle, create("web1", spec()), Step::Settle],
        ),
        (
            "a delete while an address is asked for",
            vec![create("web1", spec()), machine(6, 0)],
            vec![
                create("a", spec()),
                Step::Wait(200),
                delete("a", 0),
                delete("web1", 0),
                Step::Settle,
            ],
        ),
        (
            "creates while addresses are asked for",
            vec![machine(3, 0)],
            vec![
                together([create("a", spec()), create("web1", spec()), create("c.3", fixed())]),
                Step::Wait(200),
                create("a", spec()),
                create("D", on("lab", Mode::Bridged)),
                Step::Settle,
            ],
        ),
        (
            "a network is replaced while an address of it is asked for",
            vec![add_network("10.7.0.0/29", false), machine_of_added(2)],
            vec![
                attach("a", ADDED),
                Step::Wait(200),
                add_network("10.8.0.0/29", true),
                Step::Settle,
                attach(CONTAINERS[1], ADDED),
                Step::Settle,
            ],
        ),
        (
            "a guest of a LAN asks for its address",
            vec![machine(2, 0), create_and_start("a", asks()), Step::Settle],
            vec![
                Step::Lease(name("a"), Word::Get),
                Step::Settle,
                Step::Lease(name("a"), Word::Get),
                Step::Wait(1_000),
                Step::Lease(name("a"), Word::Get),
                Step::Settle,
            ],
        ),
        (
            "guests that believe the same",
            vec![create("a", believing(None))],
            vec![
                create_and_start("web1", believing(None)),
                create("c.3", believing(Some(Mac([2, 0, 0, 0, 1, 1])))),
                delete("a", 0),
                Step::Settle,
            ],
        ),
        ("create with an address that moves", vec![], vec![create("a", sharing("open"))]),
        (
            "create with an address of another policy",
            vec![create("a", sharing("open"))],
            vec![create("web1", sharing("internet"))],
        ),
        (
            "the policies of an address",
            vec![create("a", sharing("open")), create("web1", sharing("internet"))],
            vec![set_policy("a", None, "internet"), set_policy("web1", None, "none")],
        ),
        (
            "delete those with an address that moves",
            vec![create("a", sharing("open")), create("web1", sharing("internet"))],
            vec![delete("a", 0), delete("web1", 0), create("c.3", fixed())],
        ),
        (
            "creates with an address that moves, at once",
            vec![create("D", on("lab", Mode::Dhcp))],
            vec![together([
                create("c.3", spec()),
                create("a", sharing("open")),
                create("web1", sharing("internet")),
                create("web-1", spec()),
            ])],
        ),
        ("unexpose", vec![create("a", exposed(&[8080]))], vec![unexpose("a", 8080)]),
        (
            "a port changes hands",
            vec![create("a", exposed(&[8080])), create("web1", spec())],
            vec![
                expose("web1", None, 8080),
                unexpose("a", 8080),
                expose("web1", None, 8080),
                delete("web1", 0),
            ],
        ),
        (
            "a guest asks for its address",
            vec![create("a", asks())],
            vec![
                lease("a", Word::Get),
                Step::Wait(HALF_AN_HOUR),
                lease("a", Word::Renew),
                lease("a", Word::Release),
                lease("a", Word::Get),
                delete("a", 0),
            ],
        ),
        (
            "a guest asks for its router, and is told again",
            vec![create_and_start("a", spec()), Step::Settle],
            vec![
                lease("a", Word::Router),
                lease("a", Word::Ipv6),
                Step::Wait(12 * HALF_AN_HOUR),
                Step::Kill,
                Step::Start,
            ],
        ),
        (
            "guests make themselves addresses, two the same",
            vec![create_and_start("a", narrow()), create("web1", spec()), Step::Settle],
            vec![
                lease("a", Word::Claim(1)),
                lease("web1", Word::Claim(1)),
                lease("web1", Word::Claim(2)),
                Step::Kill,
                Step::Start,
                delete("web1", 0),
                lease("a", Word::Claim(2)),
            ],
        ),
        (
            "the guest of an ephemeral VM asks",
            vec![create("a", VmSpec { ephemeral: true, ..asks() })],
            vec![lease("a", Word::Get), lease("a", Word::Renew)],
        ),
        (
            "a guest asks when no address is free",
            ["a", "web-1", "web1", "c.3", "D"]
                .into_iter()
                .flat_map(|vm| [create(vm, asks()), lease(vm, Word::Get)])
                .chain([create("longer-than-a-tap", asks())])
                .collect(),
            vec![
                lease("longer-than-a-tap", Word::Get),
                Step::Wait(2 * HALF_AN_HOUR),
                lease("longer-than-a-tap", Word::Get),
                lease("a", Word::Renew),
            ],
        ),
        (
            "a clock that jumps, and a host that sleeps, while no address is free",
            ["a", "web-1", "web1", "c.3", "D"]
                .into_iter()
                .flat_map(|vm| [create_and_start(vm, asks()), Step::Settle, lease(vm, Word::Get)])
                .chain([create("longer-than-a-tap", asks())])
                .collect(),
            vec![
                Step::SetClock(1_000_000 * 2 * HALF_AN_HOUR as i64),
                lease("longer-than-a-tap", Word::Get),
                Step::Suspend(4 * HALF_AN_HOUR),
                lease("longer-than-a-tap", Word::Get),
                stop("a", 500),
                Step::Settle,
                lease("longer-than-a-tap", Word::Get),
            ],
        ),
        (
            "settings that VMs do not fit, and the former ones again",
            vec![create_and_start("a", always()), create("web1", dhcp()), Step::Settle],
            vec![
                Step::Configure(Configured::Changed),
                Step::Settle,
                Step::Configure(Configured::Right),
                Step::Settle,
            ],
        ),
        (
            "a VM that fits no settings is deleted",
            vec![create("a", spec())],
            vec![
                Step::Configure(Configured::Changed),
                delete("a", 0),
                Step::Configure(Configured::Right),
                Step::Settle,
            ],
        ),
        ("setup", vec![teardown()], vec![setup()]),
        ("setup by the first create", vec![teardown()], vec![create("a", spec())]),
        (
            "teardown",
            vec![create("a", spec()), create_and_start("web1", dhcp()), Step::Settle],
            vec![teardown(), Step::Settle, teardown()],
        ),
    ]
}

/// How many of the failures are shown.
const SHOWN: usize = 20;

#[test]
fn every_fault_at_every_effect_is_recovered_from() {
    let only = std::env::var("VOLNET_SIM_ONLY").unwrap_or_default();
    let mut scenarios = scenarios();
    scenarios.retain(|(name, ..)| name.contains(&only));
    assert!(!scenarios.is_empty(), "no scenario is named {only:?}");
    let next = AtomicUsize::new(0);
    let explore = || {
        let mine = || scenarios.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(mine).map(Scene::explored).collect::<Vec<_>>()
    };
    let outcomes: Vec<Outcome<'_>> = std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(explore)).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let mut total = Count::default();
    for outcome in &outcomes {
        println!("{}: {}", outcome.name, outcome.count);
        total.add(&outcome.count);
    }
    println!("{} scenarios: {total}", scenarios.len());
    let wrong: Vec<&str> = outcomes.iter().flat_map(|it| &it.wrong).map(|w| &**w).collect();
    let shown = &wrong[..wrong.len().min(SHOWN)];
    assert!(wrong.is_empty(), "{} failures:\n\n{}", wrong.len(), shown.join("\n\n"));
}

/// How much was tried.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Effects of the scenarios.
    effects: usize,
    /// Runs of them, each with one fault.
    faults: usize,
    /// Restarts after a crash.
    restarts: usize,
    /// Recoveries that were struck by a fault themselves.
    recoveries: usize,
}

impl Count {
    fn since(&self, before: &Count) -> Count {
        Count {
            effects: self.effects - before.effects,
            faults: self.faults - before.faults,
            restarts: self.restarts - before.restarts,
            recoveries: self.recoveries - before.recoveries,
        }
    }

    fn add(&mut self, other: &Count) {
        self.effects += other.effects;
        self.faults += other.faults;
        self.restarts += other.restarts;
        self.recoveries += other.recoveries;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { effects, faults, restarts, recoveries } = self;
        write!(
            f,
            "{effects} effects, {faults} faults at them, {restarts} restarts after a crash, "
        )?;
        write!(f, "{recoveries} faults at the effects of a recovery")
    }
}

/// What came of a scenario.
struct Outcome<'a> {
    name: &'a str,
    count: Count,
    wrong: Vec<String>,
}

/// A scenario, and what came of it so far.
struct Scene<'a> {
    name: &'a str,
    before: &'a [Step],
    steps: &'a [Step],
    count: Count,
    wrong: Vec<String>,
    /// The worlds after crashes in which everything was tried, and how much that was.
    tried: Vec<(Sim, Count)>,
    /// Those after the last crash, and after its recoveries, in which a daemon was started.
    started: Vec<Sim>,
}

impl<'a> Scene<'a> {
    /// Tries everything with one scenario.
    fn explored((name, before, steps): &'a Scenario) -> Outcome<'a> {
        let (count, wrong) = (Count::default(), Vec::new());
        let (tried, started) = (Vec::new(), Vec::new());
        let mut scene = Scene { name, before, steps, count, wrong, tried, started };
        scene.explore();
        Outcome { name, count: scene.count, wrong: scene.wrong }
    }

    fn explore(&mut self) {
        let mut sim = self.ready();
        sim.world.borrow_mut().record(|effect| effect.faults());
        self.steps.iter().for_each(|step| sim.step(step));
        let trace = sim.world.borrow_mut().recorded();
        self.expect(&mut sim, "without a fault", Litter::None);
        self.reboot(&sim);
        self.count.effects = trace.len();
        for (effect, faults) in trace.into_iter().enumerate() {
            for fault in faults {
                self.count.faults += 1;
                self.strike(effect, fault);
            }
        }
    }

    /// The world before the steps.
    fn ready(&mut self) -> Sim {
        let mut sim = Sim::new();
        self.before.iter().for_each(|step| sim.step(step));
        self.expect(&mut sim, "before it begins", Litter::None);
        sim
    }

    fn strike(&mut self, effect: usize, fault: Fault) {
        let mut sim = self.ready();
        sim.arm(effect, Choice::This(fault));
        for step in self.steps {
            sim.step(step);
            if sim.shell.is_none() {
                return self.restart(&sim);
            }
        }
        assert_eq!(sim.world.borrow().struck.len(), 1, "{}: {fault:?} at {effect}", self.name);
        self.expect(&mut sim, "after an error", Litter::Allowed);
        sim.crash();
        sim.start();
        sim.settle();
        self.expect(&mut sim, "after an error and a restart", Litter::None);
    }

    /// Restarts after a crash, in every way.
    fn restart(&mut self, crashed: &Sim) {
        let mut crashed = crashed.abandoned();
        crashed.crash();
        if let Some((_, count)) = self.tried.iter().find(|(world, _)| world.is_like(&crashed)) {
            return self.count.add(count);
        }
        let before = self.count;
        self.reboot(&crashed);
        let mut sim = crashed.abandoned();
        sim.world.borrow_mut().record(|effect| effect.faults_in_brief());
        sim.start();
        let trace = sim.world.borrow_mut().recorded();
        sim.settle();
        self.expect(&mut sim, "after a crash", Litter::None);
        self.count.restarts += 1;
        self.started = vec![crashed.abandoned()];
        for (effect, faults) in trace.into_iter().enumerate() {
            for fault in faults {
                self.recover(&crashed, effect, fault);
                self.count.recoveries += 1;
            }
        }
        self.tried.push((crashed, self.count.since(&before)));
    }

    /// Restarts of the host.
    fn reboot(&mut self, crashed: &Sim) {
        for (entries, contents) in REBOOTS {
            let mut sim = crashed.abandoned();
            sim.reboot(entries, contents);
            sim.start();
            sim.settle();
            self.expect(&mut sim, "after a reboot", Litter::None);
            self.count.restarts += 1;
        }
    }

    /// A recovery that is struck itself, and the one after it.
    fn recover(&mut self, crashed: &Sim, effect: usize, fault: Fault) {
        let mut sim = crashed.abandoned();
        sim.arm(effect, Choice::This(fault));
        sim.start();
        sim.settle();
        if sim.shell.is_some() {
            self.expect(&mut sim, "after a recovery that went on", Litter::Allowed);
        }
        sim.crash();
        if self.started.iter().any(|world| world.is_like(&sim)) {
            return;
        }
        self.started.push(sim.abandoned());
        sim.start();
        sim.settle();
        self.expect(&mut sim, "after a recovery that was struck", Litter::None);
    }

    fn expect(&mut self, sim: &mut Sim, when: &str, litter: Litter) {
        let wrong = check(sim, litter);
        if !wrong.is_empty() {
            let struck = sim.world.borrow().struck.join("\n");
            let name = self.name;
            self.wrong.push(format!("{name}, {when}:\n{struck}\n{}", wrong.join("\n")));
        }
    }
}
