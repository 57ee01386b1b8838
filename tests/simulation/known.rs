//! Scripts that failed once, as they were shrunk.

use volnet::engine::supervise::POWER_OFF_MS;
use volnet::hypervisor::fake::Manners;
use volnet::model::record::{Exit, GuestEnd};
use volnet::model::spec::VmSpec;
use volnet::model::view::Status;
use volnet::store::memory::Unsynced;

use crate::fault::{Fault, When};
use crate::meddling::Meddling;
use crate::random::{Event, run};
use crate::script::*;
use crate::sim::{Sim, Step};
use crate::world::Choice;

fn well(step: Step) -> Event {
    Event { step, faults: Vec::new() }
}

/// A step of which the effect after so many goes wrong.
fn struck(step: Step, after: usize, fault: Fault) -> Event {
    Event { step, faults: vec![(after, Choice::This(fault))] }
}

/// A step of which the effect after so many is refused.
fn refused(step: Step, after: usize) -> Event {
    Event { step, faults: vec![(after, Choice::Refusal)] }
}

fn holds(script: &[Event]) {
    if let Err(why) = run(script) {
        panic!("{why}");
    }
}

#[test]
fn who_stops_a_vm_that_is_being_restarted_for_its_tap_has_it_stopped() {
    holds(&[
        well(Step::Manners(Manners::Stubborn)),
        well(create_and_start("a", always())),
        well(Step::Settle),
        well(Step::Meddle(Meddling::Delete(TAP))),
        well(stop("a", 0)),
        well(Step::Settle),
    ]);
}

/// A VM that is said to run and then loses its tap: repairs keep a distance, so the one of the tap
/// comes when the start has been answered.
fn loses_its_tap(spec: VmSpec) -> Vec<Event> {
    vec![
        well(Step::Meddle(Meddling::Down(0))),
        well(create_and_start("a", spec)),
        well(Step::Meddle(Meddling::Delete(TAP))),
    ]
}

#[test]
fn a_restart_for_a_lost_tap_that_fails_is_tried_again() {
    for after in 0..30 {
        let mut script = loses_its_tap(on_failure());
        let faults = vec![(after, Choice::Any(0))];
        script.extend([Event { step: Step::Settle, faults }, well(Step::Settle)]);
        holds(&script);
    }
}

#[test]
fn a_restart_for_a_lost_tap_that_is_cut_short_is_made_by_the_next_daemon() {
    for after in 0..30 {
        let mut script = loses_its_tap(on_failure());
        let crash = Fault::Crash(When::Before);
        script.extend([struck(Step::Settle, after, crash), well(Step::Settle)]);
        holds(&script);
    }
}

#[test]
fn a_vm_that_was_seen_to_be_gone_does_not_come_back() {
    holds(&[
        well(create("a", spec())),
        struck(delete("a", 0), 2, Fault::Crash(When::Before)),
        well(Step::Settle),
        well(Step::Reboot(Unsynced::Lost, Unsynced::Lost)),
        well(Step::Settle),
    ]);
}

#[test]
fn a_kernel_that_could_not_be_read_at_the_start_is_read_later() {
    for fault in [Choice::Refusal, Choice::Unheard] {
        for after in 0..40 {
            holds(&[
                well(create("a", spec())),
                well(Step::Kill),
                well(Step::Meddle(Meddling::Element)),
                Event { step: Step::Start, faults: vec![(after, fault)] },
                well(Step::Settle),
            ]);
        }
    }
}

#[test]
fn a_process_file_that_could_not_be_removed_does_not_hide_the_next_process() {
    // Killed, collected, and then the file is to be removed.
    let removal = 2;
    for after in 0..6 {
        holds(&[
            well(create_and_start("a", spec())),
            well(Step::Settle),
            refused(delete("a", 0), removal),
            well(create("a", spec())),
            struck(start("a"), after, Fault::Crash(When::After)),
            well(Step::Settle),
        ]);
    }
}

#[test]
fn a_teardown_that_fails_at_its_end_is_as_if_it_had_not_begun() {
    for after in 0..30 {
        holds(&[well(create("a", spec())), refused(teardown(), after), well(Step::Settle)]);
    }
}

#[test]
fn a_stop_that_cannot_be_begun_is_answered_and_the_start_before_it_only_once() {
    for step in [restart("a"), stop("a", 1_000), delete("a", 1_000)] {
        let refused = |after| (after, Choice::This(Fault::Refused));
        holds(&[
            well(create_and_start("a", spec())),
            Event { step, faults: vec![refused(0), refused(1)] },
            well(Step::Settle),
        ]);
    }
}

#[test]
fn a_vm_that_two_have_created_stays_when_it_does_not_start() {
    holds(&[
        well(create_and_start("a", spec())),
        well(create("a", spec())),
        well(Step::End(name("a"), Exit::Code(1))),
        well(Step::Settle),
    ]);
}

/// Two creates come together, and the first fails at the effect after so many: the second is what
/// it would have been without it.
#[test]
fn a_create_is_not_refused_for_one_before_it_that_fails() {
    let both = || together([create("a", fixed()), create("web1", fixed())]);
    let mut failed = 0;
    for after in 0..8 {
        let mut sim = Sim::new();
        sim.arm(after, Choice::Refusal);
        sim.step(&both());
        let there = |vm: &str| sim.shell.as_ref().unwrap().engine().vm(&name(vm)).is_ok();
        assert!(there("a") != there("web1"), "at effect {after}: one has the address");
        failed += usize::from(there("web1"));
    }
    assert!(failed >= 4, "{failed}");
}

/// A guest resets itself, panics, or is ended at its hypervisor's API, whenever it runs. The next
/// run comes later each time, up to a minute.
#[test]
fn a_guest_that_ends_for_ever_is_backed_off() {
    let vm = name("a");
    for (end, status, ends_in) in [
        (GuestEnd::RESET, Status::Stopped, 0),
        (GuestEnd::PANIC, Status::Crashed, 0),
        // Its hypervisor may end by itself so long.
        (GuestEnd::OFF, Status::Stopped, POWER_OFF_MS),
    ] {
        let mut sim = Sim::new();
        sim.step(&create_and_start("a", always()));
        sim.step(&Step::Wait(1_000));
        for (restarts, seconds) in [1, 2, 4, 8, 16, 32, 60, 60, 60, 60].into_iter().enumerate() {
            let of = |sim: &Sim| {
                let engine = sim.shell.as_ref().expect("a daemon").engine();
                let view = engine.show(engine.vm(&vm).expect("the VM"));
                (view.status, view.restarts as usize)
            };
            assert_eq!(of(&sim), (Status::Running, restarts));
            sim.step(&Step::EndGuest(vm.clone(), end));
            sim.step(&Step::Wait(ends_in));
            sim.step(&Step::Wait(seconds * 1_000 - 1));
            assert_eq!(of(&sim), (status, restarts), "it waits");
            sim.step(&Step::Wait(1_001));
        }
    }
}

#[test]
fn a_paused_guest_is_found_paused_and_is_woken_to_power_off() {
    let mut sim = Sim::new();
    let of = |sim: &Sim| {
        let engine = sim.shell.as_ref().expect("a daemon").engine();
        Some(engine.vm(&name("a")).ok()?.status())
    };
    for step in [create_and_start("a", spec()), Step::Settle, pause("a"), Step::Settle] {
        sim.step(&step);
    }
    assert_eq!(of(&sim), Some(Status::Paused));
    for step in [Step::Kill, Step::Start, Step::Settle] {
        sim.step(&step);
    }
    assert_eq!(of(&sim), Some(Status::Paused), "the next daemon asks again");
    sim.step(&stop("a", 600_000));
    sim.step(&Step::Wait(1_000));
    assert_eq!(of(&sim), Some(Status::Stopped), "it went on, and powered off");
}

/// A hypervisor stops its guest by itself. Whoever asks is told, also by the next daemon.
#[test]
fn a_guest_that_its_hypervisor_stops_is_paused_and_says_why() {
    let mut sim = Sim::new();
    let of = |sim: &Sim| {
        let engine = sim.shell.as_ref().expect("a daemon").engine();
        let view = engine.show(engine.vm(&name("a")).expect("the VM"));
        (view.status, view.last_error.unwrap_or_default())
    };
    sim.step(&create_and_start("a", spec()));
    sim.step(&Step::Settle);
    sim.step(&Step::Move(name("a"), FULL));
    let full = "the host has no room for a disk: make room, and resume it";
    for _ in 0..2 {
        assert_eq!(of(&sim), (Status::Paused, full.into()));
        for step in [Step::Kill, Step::Start, Step::Settle] {
            sim.step(&step);
        }
    }
    sim.step(&resume("a"));
    sim.step(&Step::Settle);
    assert_eq!(of(&sim), (Status::Running, "".into()));
    sim.step(&Step::Move(name("a"), FULL));
    sim.step(&stop("a", 600_000));
    sim.step(&Step::Wait(1_000));
    assert_eq!(of(&sim), (Status::Stopped, "".into()), "it went on, and powered off");
}

/// A guest that ended before it was said to run is not run for ever.
#[test]
fn a_guest_that_ends_while_it_starts_is_ended_when_it_is_said_to_run() {
    let vm = name("a");
    let mut sim = Sim::new();
    sim.step(&Step::Hang(true));
    sim.step(&create_and_start("a", spec()));
    assert!(sim.world.borrow_mut().processes.end_guest(&vm, GuestEnd::RESET));
    sim.step(&Step::Hang(false));
    sim.step(&Step::Settle);
    let engine = sim.shell.as_ref().expect("a daemon").engine();
    assert_eq!(engine.show(engine.vm(&vm).expect("the VM")).status, Status::Stopped);
}

/// The processes in memory see that no guest boots before it has woken, and that none wakes twice.
#[test]
fn a_guest_that_has_not_woken_wakes_later() {
    let script = |faults: Vec<(usize, Choice)>| {
        vec![
            well(create("a", waking())),
            well(start("a")),
            well(Step::End(name("a"), Exit::Code(1))),
            well(start("a")),
            well(stop("a", 0)),
            Event { step: start("a"), faults },
            well(Step::Settle),
            well(stop("a", 1_000)),
            well(start("a")),
            well(Step::Settle),
        ]
    };
    holds(&script(Vec::new()));
    for after in 0..16 {
        holds(&script(vec![(after, Choice::Any(0))]));
        holds(&script(vec![(after, Choice::This(Fault::Crash(When::After)))]));
    }
}
