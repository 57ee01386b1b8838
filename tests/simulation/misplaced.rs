//! A daemon beside another one, and one whose files are not where it looks for them.

use std::path::Path;

use volnet::model::error::{Error, Refusal};
use volnet::model::mode::Mode;
use volnet::model::name::VmName;
use volnet::model::record::{Exit, ProcessId};
use volnet::model::request::Change;
use volnet::plan::reconcile::Observed;
use volnet::store::memory::Memory;

use crate::check::{Litter, check};
use crate::fault::{Fault, When};
use crate::script::*;
use crate::sim::{Sim, Step};
use crate::world::{Choice, RUNTIME, STATE};

/// A daemon with a VM that runs, one that does not, and an ephemeral one.
fn busy() -> Sim {
    let mut sim = Sim::new();
    for step in
        [create_and_start("a", always()), create("web1", thrice()), create("D", ephemeral())]
    {
        sim.step(&step);
    }
    sim.settle();
    all_is_well(&mut sim);
    sim
}

fn all_is_well(sim: &mut Sim) {
    assert_eq!(check(sim, Litter::None), Vec::<String>::new());
}

fn teardown_if_empty() -> Step {
    ask(Change::Teardown { dry_run: false, force: false })
}

fn kernel(sim: &Sim) -> Observed {
    sim.world.borrow().network.kernel.observed.clone()
}

/// Somebody opens a tap, or closes it.
fn hold(sim: &Sim, tap: &str, held: bool) {
    sim.world.borrow_mut().network.link_mut(tap).expect("a tap").carrier = held;
}

/// The state directory goes, and what was in it.
fn unmount(sim: &Sim) -> Memory {
    let mut world = sim.world.borrow_mut();
    let mounted = world.disk.clone();
    world.disk.wipe(Path::new(STATE));
    mounted
}

/// While the state directory is in doubt, the kernel stays as it is and requests are refused.
fn is_in_doubt(sim: &mut Sim) {
    let before = kernel(sim);
    sim.start();
    for request in [create("c.3", spec()), create("c.3", on("", Mode::Vsock)), teardown_if_empty()]
    {
        sim.step(&request);
    }
    sim.settle();
    assert_eq!(kernel(sim), before);
    let now = sim.now();
    let shell = sim.shell.as_mut().expect("it runs");
    shell.request(1_000, &Change::Setup { dry_run: false, force: false }.into(), now);
    let refused = shell.take_outputs().into_iter().any(|output| {
        let volnet::daemon::shell::Output::Reply { result, .. } = output else { return false };
        matches!(result, Err(Error::Refused(Refusal::InvalidConfig { field, .. }))
            if field == "state_dir")
    });
    assert!(refused && kernel(sim) == before);
}

#[test]
fn a_second_daemon_changes_nothing_of_the_first() {
    let mut sim = busy();
    let before = kernel(&sim);
    drop(sim.beside());
    assert_eq!(kernel(&sim), before);
    sim.settle();
    all_is_well(&mut sim);
}

#[test]
fn a_state_directory_that_is_not_mounted_changes_nothing() {
    // The place where it is mounted may have been used once, before it was.
    for used in [false, true] {
        let mut sim = busy();
        let (before, running) = (kernel(&sim), processes(&sim));
        sim.crash();
        let mounted = unmount(&sim);
        if used {
            sim.world.borrow_mut().disk.plant(format!("{STATE}/vms/readme.txt"), b"");
        }
        is_in_doubt(&mut sim);
        sim.crash();
        sim.world.borrow_mut().disk = mounted;
        sim.start();
        sim.settle();
        assert_eq!(kernel(&sim), before);
        assert_eq!(processes(&sim), running);
        all_is_well(&mut sim);
    }
}

#[test]
fn records_that_are_gone_while_a_tap_is_held_change_nothing() {
    let mut sim = Sim::new();
    sim.step(&create("a", spec()));
    sim.step(&create("web1", spec()));
    hold(&sim, "vttap-a", true);
    sim.crash();
    let whole = sim.world.borrow().disk.clone();
    for vm in ["a", "web1"] {
        let path = format!("{STATE}/vms/{vm}.json");
        sim.world.borrow_mut().disk.take_away(Path::new(&path));
    }
    is_in_doubt(&mut sim);
    sim.crash();
    sim.world.borrow_mut().disk = whole;
    sim.start();
    hold(&sim, "vttap-a", false);
    sim.settle();
    all_is_well(&mut sim);
}

/// All of the runtime directory is gone: the ids of processes, and the ephemeral VMs.
fn wipe_runtime(sim: &Sim) {
    sim.world.borrow_mut().disk.wipe(Path::new(RUNTIME));
}

fn processes(sim: &Sim) -> Vec<(VmName, ProcessId)> {
    let world = sim.world.borrow();
    world.processes.living().map(|(name, id)| (name.clone(), id.clone())).collect()
}

#[test]
fn a_process_is_found_whatever_became_of_the_runtime_directory() {
    // At each effect the daemon may end once more.
    for after in 0..60 {
        let mut sim = Sim::new();
        for step in [create_and_start("a", always()), create("web1", thrice()), Step::Settle] {
            sim.step(&step);
        }
        let before = processes(&sim);
        sim.crash();
        wipe_runtime(&sim);
        sim.arm(after, Choice::This(Fault::Crash(When::Before)));
        sim.start();
        sim.crash();
        sim.start();
        sim.settle();
        assert_eq!((before.len(), processes(&sim)), (1, before));
        // How forwarding was is not known any more.
        let wrong = check(&mut sim, Litter::None);
        assert_eq!(wrong, Vec::<String>::new());
        sim.step(&delete("a", 0));
        sim.settle();
        assert_eq!(processes(&sim), []);
    }
}

#[test]
fn a_runtime_directory_that_is_wiped_under_the_daemon_comes_back() {
    let mut sim = busy();
    wipe_runtime(&sim);
    for step in [create_and_start("c.3", spec()), create("longer-than-a-tap", ephemeral())] {
        sim.step(&step);
    }
    sim.settle();
    let there = |sim: &Sim, vm: &str| sim.shell.as_ref().unwrap().engine().vm(&name(vm)).is_ok();
    assert!(there(&sim, "c.3") && there(&sim, "longer-than-a-tap"));
    sim.crash();
    sim.start();
    sim.settle();
    assert!(there(&sim, "c.3") && there(&sim, "longer-than-a-tap"));
    assert_eq!(processes(&sim).len(), 2);
}

#[test]
fn a_process_without_a_record_runs_on_and_no_vm_of_its_name_is_made() {
    let mut sim = Sim::new();
    sim.step(&create_and_start("a", ephemeral()));
    sim.settle();
    sim.promises = Default::default();
    sim.step(&create("web1", spec()));
    let before = processes(&sim);
    sim.crash();
    wipe_runtime(&sim);
    sim.start();
    let there = |sim: &Sim| sim.shell.as_ref().unwrap().engine().vm(&name("a")).is_ok();
    for step in [create("a", spec()), together([create("a", spec()), create("c.3", spec())])] {
        sim.step(&step);
        sim.settle();
        assert_eq!((processes(&sim), there(&sim)), (before.clone(), false));
    }
    sim.step(&Step::End(name("a"), Exit::Code(0)));
    sim.step(&create_and_start("a", spec()));
    sim.settle();
    assert!(there(&sim) && processes(&sim).len() == 1 && processes(&sim) != before);
    all_is_well(&mut sim);
}

#[test]
fn whoever_insists_begins_anew() {
    for request in [
        ask(Change::Setup { dry_run: false, force: true }),
        ask(Change::Teardown { dry_run: false, force: true }),
    ] {
        let mut sim = Sim::new();
        sim.step(&create("a", spec()));
        hold(&sim, "vttap-a", true);
        sim.crash();
        unmount(&sim);
        sim.start();
        sim.promises = Default::default();
        sim.step(&request);
        sim.settle();
        all_is_well(&mut sim);
        sim.step(&create("a", spec()));
        all_is_well(&mut sim);
    }
}

#[test]
fn a_tap_that_is_held_and_belongs_to_no_vm_stays_until_it_is_let_go() {
    let mut sim = Sim::new();
    sim.step(&create("a", spec()));
    hold(&sim, "vttap-a", true);
    sim.promises = Default::default();
    sim.step(&create("web1", spec()));
    sim.crash();
    let path = format!("{STATE}/vms/a.json");
    sim.world.borrow_mut().disk.take_away(Path::new(&path));
    sim.start();
    sim.step(&create("c.3", spec()));
    sim.settle();
    let there = |sim: &Sim| sim.world.borrow().network.link("vttap-a").is_some();
    assert!(there(&sim) && sim.shell.as_ref().unwrap().engine().vm(&name("c.3")).is_ok());
    hold(&sim, "vttap-a", false);
    sim.settle();
    assert!(!there(&sim));
    all_is_well(&mut sim);
}
