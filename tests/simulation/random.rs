//! Random scripts, from seeds.
//!
//! A seed makes a script of [`SCRIPT_STEPS`] steps; faults lie between its steps and within them.
//! At times everything is left to come to rest and all that must hold is checked. A script that
//! fails is made as short as it can be while it still fails, and printed with its seed.
//!
//! `VOLNET_SIM_STEPS` says how many steps there are to be (more than the default take long),
//! `VOLNET_SIM_SEED` with which seed to begin.

use std::env;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use volnet::hypervisor::fake::Manners;
use volnet::model::limits::Limits;
use volnet::model::mac::Mac;
use volnet::model::mode::Mode;
use volnet::model::record::{Exit, GuestEnd, Motion};
use volnet::model::request::{Change, Query};
use volnet::model::run_as::RunAs;
use volnet::model::spec::{NetworkSpec, RestartPolicy, VmSpec};
use volnet::network::features::Features;
use volnet::store::memory::Unsynced;

use crate::check::{Litter, check};
use crate::lease::Word;
use crate::meddling::Meddling;
use crate::script::*;
use crate::sim::{Ready, Sim, Step};
use crate::world::Choice;

/// Steps of one script.
const SCRIPT_STEPS: u64 = 200;
/// Steps of all scripts, where nothing else is asked for.
const STEPS: u64 = 100_000;
const HOUR: u64 = 3_600_000;
/// Effects within which the faults of a step lie.
const EFFECTS_MAX: u64 = 24;

/// A step, and what goes wrong with it: after so many effects.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) step: Step,
    pub(crate) faults: Vec<(usize, Choice)>,
}

#[test]
fn whatever_happens_is_recovered_from() {
    let first = number("VOLNET_SIM_SEED", 0);
    search(number("VOLNET_SIM_STEPS", STEPS), first, Features::ALL);
}

/// The same on kernels each of which lacks something.
#[test]
fn whatever_the_kernel_lacks_the_rest_is_recovered_from() {
    let all = Features::ALL;
    for features in [
        Features { owned_tables: false, ..all },
        Features { bridge_rules: false, ..all },
        Features { token_buckets: false, ..all },
        Features { connection_filter: false, ..all },
    ] {
        println!("{}:", features.missing().join("; "));
        search(number("VOLNET_SIM_STEPS", STEPS) / 10, number("VOLNET_SIM_SEED", 0), features);
    }
}

fn number(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text:?}")),
        Err(_) => default,
    }
}

/// Runs so many steps, from this seed on, and panics with the shortest script that fails.
fn search(steps: u64, first: u64, features: Features) {
    let seeds = steps.div_ceil(SCRIPT_STEPS);
    let next = AtomicU64::new(first);
    let search = || {
        let mine =
            || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < first + seeds);
        std::iter::from_fn(mine)
            .find_map(|seed| Some((seed, run_on(features, &script(seed)).err()?)))
    };
    let failed = std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        running.into_iter().filter_map(|thread| thread.join().expect("caught")).min()
    });
    println!("{} steps of {seeds} seeds", seeds * SCRIPT_STEPS);
    if let Some((seed, why)) = failed {
        panic!("seed {seed}: {why}\n\nshrunk:\n{}", shown(&shrunk(features, script(seed))));
    }
}

/// Runs a script, and comes to rest at its end.
pub(crate) fn run(script: &[Event]) -> Result<(), String> {
    run_on(Features::ALL, script)
}

fn run_on(features: Features, script: &[Event]) -> Result<(), String> {
    let run = || {
        let mut sim = Sim::on(features);
        sim.promises.undoing_fails = true;
        for (number, event) in script.iter().enumerate() {
            let result = play(&mut sim, event);
            result.map_err(|wrong| format!("step {number}, {event:?}:\n{wrong}"))?;
        }
        rest(&mut sim)?;
        sim.step(&Step::Kill);
        rest(&mut sim)?;
        expect(&mut sim, Litter::None)
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panic: {}", words.or(panic.downcast_ref::<&str>().copied()).unwrap_or("")))
    })
}

fn play(sim: &mut Sim, event: &Event) -> Result<(), String> {
    for (after, choice) in &event.faults {
        sim.arm(*after, *choice);
    }
    if sim.shell.is_none()
        && matches!(event.step, Step::Ask(_) | Step::Together(_) | Step::Batch(..))
    {
        sim.start();
    }
    sim.step(&event.step);
    sim.world.borrow_mut().disarm();
    if sim.shell.is_none() {
        sim.crash();
    }
    if event.step == Step::Settle { rest(sim) } else { Ok(()) }
}

/// Comes to rest, with a daemon that runs and nothing that goes wrong.
fn rest(sim: &mut Sim) -> Result<(), String> {
    sim.world.borrow_mut().disarm();
    sim.start();
    sim.settle();
    expect(sim, Litter::Allowed)
}

fn expect(sim: &mut Sim, litter: Litter) -> Result<(), String> {
    let wrong = check(sim, litter);
    let struck = std::mem::take(&mut sim.world.borrow_mut().struck);
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{}\nsince the last rest: {}", wrong.join("\n"), struck.join("\n")))
}

/// Leaves out what the failure does not need.
fn shrunk(features: Features, mut script: Vec<Event>) -> Vec<Event> {
    let mut piece = script.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < script.len() {
            let mut shorter = script.clone();
            shorter.drain(at..(at + piece).min(script.len()));
            if run_on(features, &shorter).is_err() {
                script = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    for at in 0..script.len() {
        for fault in (0..script[at].faults.len()).rev() {
            let mut simpler = script.clone();
            simpler[at].faults.remove(fault);
            if run_on(features, &simpler).is_err() {
                script = simpler;
            }
        }
    }
    script
}

fn shown(script: &[Event]) -> String {
    let mut text = String::new();
    for Event { step, faults } in script {
        let _ = writeln!(text, "{step:?} {faults:?}");
    }
    let why = run(script).err().unwrap_or_default();
    text + &why
}

/// The script of a seed.
fn script(seed: u64) -> Vec<Event> {
    let mut dice = Dice(seed);
    (0..SCRIPT_STEPS).map(|_| event(&mut dice)).collect()
}

fn event(dice: &mut Dice) -> Event {
    let step = step(dice);
    let faults = match dice.roll(16) {
        0..4 => vec![(dice.below(EFFECTS_MAX), Choice::Any(dice.below(64)))],
        4 => (0..3).map(|_| (dice.below(EFFECTS_MAX), Choice::OffDisk(dice.below(64)))).collect(),
        _ => Vec::new(),
    };
    Event { step, faults }
}

/// What guests do about their addresses.
const ENDS: [GuestEnd; 3] = [GuestEnd::RESET, GuestEnd::PANIC, GuestEnd::OFF];
const WORDS: [Word; 6] =
    [Word::Get, Word::Get, Word::Renew, Word::Release, Word::Router, Word::Ipv6];
/// How many addresses they want that they make themselves.
const CLAIMS: u64 = 24;

fn step(dice: &mut Dice) -> Step {
    let vm = NAMES[dice.below(NAMES.len() as u64)];
    let timeout = [0, 1, 2_000, 30_000][dice.below(4)];
    match dice.roll(100) {
        0..18 => ask(random_create(dice, vm)),
        18..21 => random_group(dice),
        21 => random_batch(dice),
        22..30 => start(vm),
        30 if dice.roll(2) == 0 => save(vm),
        30 => pause(vm),
        31 => resume(vm),
        32..38 => stop(vm, timeout),
        38..42 => restart(vm),
        42..50 => delete(vm, timeout),
        50 | 51 => random_batch(dice),
        52 => Step::Talk(name(vm)),
        53 => random_attachment(dice),
        54..56 => setup(),
        56 => teardown(),
        57 => ask(Change::Teardown { dry_run: true, force: true }),
        58 => match dice.roll(4) {
            0 => ask(Query::Get { name: name(vm) }),
            1 => ask(Query::List),
            2 => ask(Query::Doctor { name: Some(name(vm)) }),
            _ => trace(vm, 1 + dice.roll(3) as u32),
        },
        59 => match dice.roll(3) {
            0 => random_attachment(dice),
            1 => remove_network(),
            _ => add_network(["10.7.0.0/29", "10.8.0.0/29"][dice.below(2)], dice.roll(2) == 0),
        },
        60..63 => lease(vm, WORDS[dice.below(WORDS.len() as u64)]),
        63 => lease(vm, Word::Claim(dice.below(CLAIMS) as u8)),
        64 | 65 => expose(vm, nic(dice), 8080 + dice.below(3) as u16),
        66 => unexpose(vm, 8080 + dice.below(3) as u16),
        67 => set_policy(vm, nic(dice), ["open", "internet", "none"][dice.below(3)]),
        68 => set_limits(vm, nic(dice), [0, 10, 100][dice.below(3)], [0, 10, 100][dice.below(3)]),
        69 => match dice.roll(4) {
            0 => Step::Suspend(dice.roll(2 * HOUR)),
            1 => Step::SetClock(dice.roll(100_000 * HOUR) as i64 - 50_000 * HOUR as i64),
            _ => Step::Wait(dice.roll(3_000)),
        },
        70..78 => Step::Settle,
        78 => match dice.roll(3) {
            0 => Step::EndGuest(name(vm), ENDS[dice.roll(3) as usize]),
            1 => Step::Move(name(vm), [Motion::Goes, Motion::Paused][dice.below(2)]),
            _ => Step::Move(name(vm), FULL),
        },
        79..84 => {
            Step::End(name(vm), [Exit::Code(0), Exit::Code(1), Exit::Signal(9)][dice.below(3)])
        }
        84..87 => Step::Manners([Manners::Polite, Manners::Deaf, Manners::Stubborn][dice.below(3)]),
        87..90 => Step::Kill,
        90 => {
            let kept = |dice: &mut Dice| [Unsynced::Kept, Unsynced::Lost][dice.below(2)];
            Step::Reboot(kept(dice), kept(dice))
        }
        91..93 => Step::Start,
        93 => Step::Overrun(meddling(dice)),
        94 => Step::Insist(meddling(dice)),
        95 => Step::PutRight,
        _ => Step::Meddle(meddling(dice)),
    }
}

fn random_create(dice: &mut Dice, vm: &str) -> Change {
    let restart = [RestartPolicy::No, RestartPolicy::OnFailure, RestartPolicy::Always];
    let count = if dice.roll(3) == 0 { 2 + dice.below(2) } else { 1 };
    let networks = (0..count).map(|_| random_network(dice, count > 1)).collect();
    let spec = VmSpec {
        ephemeral: dice.roll(3) == 0,
        autostart: dice.roll(6) == 0,
        restart: restart[dice.below(3)],
        machine: spec().machine.filter(|_| dice.roll(2) == 0),
        run_as: [None, None, Some(RunAs::Shared), Some(RunAs::Own)][dice.below(4)].clone(),
        vsock: dice.roll(4) == 0,
        networks,
        ..VmSpec::default()
    };
    let (start, dry_run) = (dice.roll(2) == 0, dice.roll(12) == 0);
    let spec = if dice.roll(8) == 0 { waking() } else { spec };
    Change::Create { name: name(vm), spec: Box::new(spec), start, dry_run, notes: Vec::new() }
}

/// What is asked for of one network, or of one of `several`.
fn random_network(dice: &mut Dice, several: bool) -> NetworkSpec {
    let modes = [Mode::Bridged, Mode::Bridged, Mode::Dhcp, Mode::Vsock];
    let mode = modes[dice.below(if several { 3 } else { 4 })];
    let network = network_spec(NETWORKS[dice.below(NETWORKS.len() as u64)], mode);
    let limits = Limits { rx_mbit: (dice.roll(4) == 0).then_some(10), ..Limits::default() };
    let limits = if mode == Mode::Vsock { Limits::default() } else { limits };
    let movable = mode != Mode::Vsock && dice.roll(4) == 0;
    let name = network.name.as_deref().unwrap_or_default();
    let addresses = if movable { vec![movable_address(name)] } else { Vec::new() };
    let mtu = (mode != Mode::Vsock && dice.roll(4) == 0).then_some(1400);
    let believes = mode == Mode::Bridged && dice.roll(4) == 0;
    let gateway_mac = (dice.roll(2) == 0).then_some(Mac([2, 0, 0, 0, 1, 1]));
    let inner = believing(gateway_mac).networks[0].inner.clone().filter(|_| believes);
    NetworkSpec { traffic: limits.into(), addresses, mtu, inner, ..network }
}

/// A namespace is attached or detached.
fn random_attachment(dice: &mut Dice) -> Step {
    let container = CONTAINERS[dice.below(CONTAINERS.len() as u64)];
    match dice.roll(4) {
        0 => detach(container),
        1 => attach(container, ADDED),
        _ => attach(container, NETWORKS[dice.below(NETWORKS.len() as u64)]),
    }
}

/// A NIC, or none that is named.
fn nic(dice: &mut Dice) -> Option<usize> {
    [None, None, Some(0), Some(1)][dice.below(4)]
}

/// Creates, most of them such as are carried out together.
fn random_group(dice: &mut Dice) -> Step {
    let one = |dice: &mut Dice| {
        let vm = NAMES[dice.below(NAMES.len() as u64)];
        match dice.roll(5) {
            0 => random_create(dice, vm),
            _ => Change::Create {
                name: name(vm),
                spec: Box::new(on(NETWORKS[dice.below(NETWORKS.len() as u64)], Mode::Bridged)),
                start: false,
                dry_run: false,
                notes: Vec::new(),
            },
        }
    };
    Step::Together((0..2 + dice.roll(4)).map(|_| one(dice).into()).collect())
}

/// What starts and ends VMs, beside clients that hang up and hypervisors that end.
fn random_batch(dice: &mut Dice) -> Step {
    let one = |dice: &mut Dice| {
        let name = name(NAMES[dice.below(NAMES.len() as u64)]);
        match dice.roll(8) {
            6 => Ready::Asked(Change::Pause { name }.into()),
            7 => Ready::Asked(Change::Resume { name }.into()),
            0 => Ready::HungUp,
            1 => Ready::Ended(name, Exit::Code(1)),
            2 => {
                Ready::Asked(Change::Delete { name, timeout_ms: [0, 2_000][dice.below(2)] }.into())
            }
            3 => {
                Ready::Asked(Change::Restart { name, timeout_ms: [0, 2_000][dice.below(2)] }.into())
            }
            _ => Ready::Asked(Change::Start { name }.into()),
        }
    };
    let things = (0..2 + dice.roll(4)).map(|_| one(dice)).collect();
    Step::Batch(things, dice.roll(u64::MAX))
}

fn meddling(dice: &mut Dice) -> Meddling {
    let link = dice.below(64);
    match dice.roll(24) {
        0..3 => Meddling::Delete(link),
        3 => Meddling::Down(link),
        4 => Meddling::Mtu(link),
        5 => Meddling::Mac(link),
        6 => Meddling::Alias(link),
        7 => Meddling::Detach(link),
        8 => Meddling::Isolate(link),
        9 => Meddling::Address(link, dice.roll(8) as u8),
        10 => Meddling::NoAddresses,
        11 => Meddling::NoForwarding,
        12 => Meddling::NoTable(link),
        13 => Meddling::ChangedTable(link),
        14 => Meddling::OpenTable(link),
        15 => Meddling::NoElements,
        16 => Meddling::Element,
        17 => Meddling::NoAccepts,
        18 => Meddling::Accepts,
        19 => Meddling::NoChain,
        20 => Meddling::Shape(link),
        21 => Meddling::Frames(link),
        _ => Meddling::Chain,
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): enough for dice, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn below(&mut self, bound: u64) -> usize {
        self.roll(bound) as usize
    }
}
