//! A guest that is paused, and goes on.

use super::*;
use crate::engine::supervise::{self, PAUSE_MAX_MS, Waking};
use crate::model::record::{Halt, Heard, Motion, Order};

#[test]
fn who_pauses_a_guest_is_answered_by_what_the_guest_does() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    let pause = pause_of("a");
    let resume = Change::Resume { name: name("a") };
    assert!(ask(&mut engine, 1, &pause, at(10)).is_empty());
    assert!(ask(&mut engine, 2, &pause, at(11)).is_empty(), "it joins");
    let other = ask(&mut engine, 3, &resume, at(12));
    assert!(matches!(other[0], (3, Err(Error::Refused(Refusal::WrongState { .. })))), "{other:?}");
    assert_eq!(engine.start_check(at(20)), Some(name("a")));
    assert!(looked_at(&mut engine, "a", Progress::Running, at(20)).is_empty());
    assert_eq!(status(&engine, "a"), Status::Running);
    let replies = looked_at(&mut engine, "a", Progress::Paused, at(30));
    let told = replies.iter().map(|(ticket, reply)| (*ticket, reply.is_ok())).collect::<Vec<_>>();
    assert_eq!((told, engine.deadline()), (vec![(1, true), (2, true)], None));
    assert_eq!(status(&engine, "a"), Status::Paused);

    // It does not go on.
    assert!(ask(&mut engine, 4, &resume, at(100)).is_empty());
    assert!(looked_at(&mut engine, "a", Progress::Paused, at(PAUSE_MAX_MS + 99)).is_empty());
    let late = looked_at(&mut engine, "a", Progress::Paused, at(PAUSE_MAX_MS + 100));
    assert!(matches!(late[0], (4, Err(Error::Failed(_)))), "{late:?}");

    // Who waits is told of a stop, for which it has to go on, and of its end.
    assert!(ask(&mut engine, 5, &resume, at(20_000)).is_empty());
    let stop = Change::Stop { name: name("a"), timeout_ms: 1_000 };
    let Ok(Step::Do(decision)) = engine.request(6, &stop, at(20_001)) else { panic!() };
    assert_eq!(decision.act, Some(Act::Ask(Order::WakeAndPowerOff)));
    assert!(matches!(done(&mut engine, *decision, at(20_001))[..], [(5, Err(_))]));
    exit(&mut engine, "a", Exit::Code(0), at(20_002));
    running(&mut engine, "b", RestartPolicy::No);
    assert!(ask(&mut engine, 7, &pause_of("b"), at(10)).is_empty());
    assert!(matches!(exit(&mut engine, "b", Exit::Code(0), at(20))[..], [(7, Err(_))]));
    let refused = ask(&mut engine, 8, &pause_of("b"), at(30));
    assert!(matches!(refused[0].1, Err(Error::Refused(Refusal::WrongState { .. }))));
}

/// What a hypervisor says by itself, after so many stops. Gives the replies and the events.
fn moved(engine: &mut Engine, motion: Motion, stops: u32, mono: u64) -> (Replies, Vec<EventKind>) {
    let heard = Heard { motion: Some(motion), stops, ..Heard::default() };
    let Some(decision) = engine.moved(&name("a"), heard, at(mono)) else {
        return Default::default();
    };
    let events = decision.events.iter().map(|(kind, _)| *kind).collect();
    (done(engine, decision, at(mono)), events)
}

const FULL: Motion = Motion::Halted(Halt::Disk { index: None, full: true });

#[test]
fn a_guest_that_its_hypervisor_stops_is_paused_and_says_why() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    let of = |engine: &Engine| {
        let view = engine.show(engine.vm(&name("a")).unwrap());
        (view.status, view.last_error.map(String::from))
    };
    let none = (vec![], vec![]);
    assert_eq!(moved(&mut engine, Motion::Goes, 0, 10), none);
    for (motion, stops, kind, status) in [
        (FULL, 1, EventKind::VmPaused, Status::Paused),
        (FULL, 2, EventKind::VmPaused, Status::Paused),
        (Motion::Goes, 2, EventKind::VmResumed, Status::Running),
        (Motion::Paused, 3, EventKind::VmPaused, Status::Paused),
        (FULL, 4, EventKind::VmPaused, Status::Paused),
    ] {
        assert_eq!(moved(&mut engine, motion, stops, 10), (vec![], vec![kind]));
        assert_eq!(moved(&mut engine, motion, stops, 10), none, "it is known");
        let full = "the host has no room for a disk: make room, and resume it";
        assert_eq!(of(&engine), (status, (motion == FULL).then(|| full.to_string())));
    }
    // There is still no room. That is told when it has tried, not before.
    let resume = Change::Resume { name: name("a") };
    assert!(ask(&mut engine, 1, &resume, at(20)).is_empty());
    assert_eq!(moved(&mut engine, FULL, 4, 21), none);
    assert_eq!(moved(&mut engine, Motion::Goes, 4, 22), none, "who asked tells it");
    let (replies, events) = moved(&mut engine, FULL, 5, 23);
    assert!(matches!(replies[..], [(1, Err(Error::Failed(_)))]), "{replies:?}");
    assert_eq!((events, engine.deadline()), (vec![EventKind::VmPaused], None));
    // It may have tried and say so before it is asked.
    assert!(ask(&mut engine, 2, &resume, at(30)).is_empty());
    assert!(matches!(moved(&mut engine, FULL, 6, 31).0[..], [(2, Err(_))]));
    assert!(ask(&mut engine, 3, &resume, at(40)).is_empty());
    assert!(matches!(looked_at(&mut engine, "a", Progress::Running, at(50))[..], [(3, Ok(_))]));
    assert_eq!(of(&engine), (Status::Running, None));
}

#[test]
fn what_hypervisors_say_by_themselves_is_not_told_without_end() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    let told = (0..1000).map(|n| {
        let motion = if n % 2 == 0 { FULL } else { Motion::Goes };
        moved(&mut engine, motion, n, 10 + u64::from(n)).1.len()
    });
    assert_eq!(told.sum::<usize>(), 12);
    assert_eq!(moved(&mut engine, FULL, 1000, 1_010).1.len(), 0);
    assert_eq!(status(&engine, "a"), Status::Paused, "it is known all the same");
    assert_eq!(moved(&mut engine, Motion::Goes, 1000, 60_000).1.len(), 1);
}

#[test]
fn a_snapshot_has_the_guest_stand_still_until_it_is_taken_or_the_vm_ends() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    assert!(ask(&mut engine, 1, &save("a"), at(10)).is_empty());
    assert_eq!((status(&engine, "a"), engine.deadline()), (Status::Paused, None));
    refused(ask(&mut engine, 2, &save("a"), at(11)));
    refused(ask(&mut engine, 2, &pause_of("a"), at(11)));
    refused(ask(&mut engine, 2, &Change::Resume { name: name("a") }, at(11)));
    assert!(engine.snapshot_ended(&name("a"), 9, Ok(()), at(12)).is_none(), "another one");
    let decision = engine.snapshot_ended(&name("a"), 1, Ok(()), at(12)).expect("it was taken");
    assert_eq!(decision.events[0].0, EventKind::VmSaved);
    assert!(matches!(done(&mut engine, decision, at(12))[..], [(1, Ok(_))]));
    assert_eq!(status(&engine, "a"), Status::Running);
    // Its hypervisor has the last word on whether it goes on.
    assert_eq!(engine.start_check(at(30)), Some(name("a")));
    assert!(looked_at(&mut engine, "a", Progress::Paused, at(30)).is_empty());
    assert_eq!(status(&engine, "a"), Status::Paused);

    // One that was paused stays so, and who waits is told of a stop.
    assert!(ask(&mut engine, 3, &save("a"), at(40)).is_empty());
    let stop = Change::Stop { name: name("a"), timeout_ms: 1_000 };
    let Ok(Step::Do(decision)) = engine.request(4, &stop, at(41)) else { panic!() };
    assert!(matches!(done(&mut engine, *decision, at(41))[..], [(3, Err(_))]));
    assert!(!engine.is_saving(&name("a"), 3));
    assert!(engine.snapshot_ended(&name("a"), 3, Ok(()), at(42)).is_none());
    exit(&mut engine, "a", Exit::Code(0), at(43));
    refused(ask(&mut engine, 5, &save("a"), at(44)));
}

#[test]
fn a_guest_that_wakes_is_told_to_go_on_at_its_first_start_only() {
    let mut engine = engine();
    assert!(ask(&mut engine, 1, &create("a", waking(), true), at(0)).is_empty());
    assert!(looked_at(&mut engine, "a", Progress::Starting, at(40_000)).is_empty(), "it may last");
    let decision = engine.looked_at(&name("a"), Progress::Paused, at(50_000)).expect("it is read");
    assert_eq!(decision.act, Some(Act::Ask(Order::Resume)));
    // The order was not heard, and is given again.
    let error = Error::Failed(Failure::State { path: "x".into(), reason: "x".into() });
    assert!(engine.abort(decision, &error).is_empty());
    let decision = engine.looked_at(&name("a"), Progress::Paused, at(60_000)).expect("it is read");
    assert!(done(&mut engine, decision, at(60_000)).is_empty());
    assert!(looked_at(&mut engine, "a", Progress::Paused, at(60_010)).is_empty());
    assert!(matches!(looked_at(&mut engine, "a", Progress::Running, at(60_020))[..], [(1, Ok(_))]));
    assert_eq!(status(&engine, "a"), Status::Running);

    exit(&mut engine, "a", Exit::Code(0), at(60_030));
    assert!(ask(&mut engine, 2, &Change::Start { name: name("a") }, at(60_040)).is_empty());
    let paused = looked_at(&mut engine, "a", Progress::Paused, at(60_050));
    assert!(matches!(paused[..], [(2, Ok(_))]), "it boots: {paused:?}");
}

#[test]
fn a_guest_that_was_never_told_to_go_on_wakes_at_the_next_start() {
    let mut engine = engine();
    assert_eq!(ask(&mut engine, 1, &create("a", waking(), false), at(0)).len(), 1);
    let wakes = |engine: &Engine| engine.vm(&name("a")).unwrap().record.wakes_from().is_some();
    let start = Change::Start { name: name("a") };
    let resume = |engine: &mut Engine, now| {
        let decision = engine.looked_at(&name("a"), Progress::Paused, at(now)).expect("it is read");
        assert_eq!(decision.act, Some(Act::Ask(Order::Resume)));
        assert!(done(engine, decision, at(now)).is_empty());
    };
    // Its hypervisor ends while it reads the memory.
    assert!(ask(&mut engine, 2, &start, at(10)).is_empty());
    assert!(!wakes(&engine));
    assert!(matches!(exit(&mut engine, "a", Exit::Code(1), at(20))[..], [(2, Err(_))]));
    assert!(wakes(&engine));
    // It is stopped meanwhile.
    assert!(ask(&mut engine, 4, &start, at(21)).is_empty());
    let stop = Change::Stop { name: name("a"), timeout_ms: 1_000 };
    assert!(matches!(ask(&mut engine, 5, &stop, at(22))[..], [(4, Err(_))]));
    assert!(matches!(exit(&mut engine, "a", Exit::Signal(15), at(29))[..], [(5, Ok(_))]));
    assert!(wakes(&engine));
    // Told to go on, it may have written to its disks.
    assert!(ask(&mut engine, 3, &start, at(30)).is_empty());
    resume(&mut engine, 40);
    assert!(matches!(exit(&mut engine, "a", Exit::Code(1), at(50))[..], [(3, Err(_))]));
    assert!(!wakes(&engine));
}

#[test]
fn a_guest_that_another_daemon_may_have_told_to_go_on_boots_at_the_next_start() {
    let mut engine = engine();
    assert!(ask(&mut engine, 1, &create("a", waking(), true), at(0)).is_empty());
    assert!(engine.adopted(&name("a"), 4711, at(10)).is_none());
    assert!(engine.await_waking(&name("a"), Waking::Asleep));
    exit(&mut engine, "a", Exit::Code(1), at(20));
    assert!(engine.vm(&name("a")).unwrap().record.wakes_from().is_none());
}

#[test]
fn a_guest_whose_snapshot_was_cut_short_is_told_to_go_on_until_it_does() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    assert!(!engine.was_cut_short(&name("a")), "nobody looks at it");
    assert!(engine.adopted(&name("a"), 4711, at(100)).is_none());
    assert!(engine.was_cut_short(&name("a")));
    assert_eq!(status(&engine, "a"), Status::Paused);
    for now in [110, 120, 130] {
        assert!(engine.is_waking(&name("a")));
        let decision = engine.looked_at(&name("a"), Progress::Paused, at(now)).expect("again");
        assert_eq!(decision.act, Some(Act::Ask(Order::GiveUpSnapshot)));
        assert!(done(&mut engine, decision, at(now)).is_empty());
    }
    refused(ask(&mut engine, 2, &save("a"), at(135)));
    refused(ask(&mut engine, 2, &pause_of("a"), at(135)));
    assert!(looked_at(&mut engine, "a", Progress::Running, at(140)).is_empty());
    assert!(!engine.is_waking(&name("a")));
    assert_eq!(status(&engine, "a"), Status::Running);
    // As long as it is being ended, the daemon may end and forget that.
    assert!(engine.adopted(&name("a"), 4711, at(200)).is_none());
    assert!(engine.await_waking(&name("a"), Waking::Asleep));
    let stop = Change::Stop { name: name("a"), timeout_ms: 1_000 };
    assert!(ask(&mut engine, 3, &stop, at(210)).is_empty());
    assert!(engine.is_waking(&name("a")));
    exit(&mut engine, "a", Exit::Code(0), at(220));
    assert!(!engine.is_waking(&name("a")));
}

#[test]
fn a_guest_that_was_not_seen_to_go_on_after_its_snapshot_is_told_to() {
    // However long it has run before.
    for begin in [10, 2 * supervise::WAKE_MAX_MS] {
        let mut engine = engine();
        running(&mut engine, "a", RestartPolicy::No);
        assert!(ask(&mut engine, 1, &save("a"), at(begin)).is_empty());
        let failed = Failure::State { path: "/s".into(), reason: "no room".into() };
        let decision = engine.snapshot_ended(&name("a"), 1, Err(failed), at(begin + 10));
        let decision = decision.expect("it failed");
        assert!(matches!(done(&mut engine, decision, at(begin + 10))[..], [(1, Err(_))]));
        assert!(engine.is_waking(&name("a")));
        assert_eq!(status(&engine, "a"), Status::Running, "nobody has seen it stand still");
        let decision = engine.looked_at(&name("a"), Progress::Paused, at(begin + 20));
        let decision = decision.expect("it stands still");
        assert_eq!(decision.act, Some(Act::Ask(Order::GiveUpSnapshot)));
        assert!(done(&mut engine, decision, at(begin + 20)).is_empty());
        assert!(looked_at(&mut engine, "a", Progress::Running, at(begin + 30)).is_empty());
        assert!(!engine.is_waking(&name("a")));
    }
}

/// A VM whose guest wakes from a snapshot.
fn waking() -> VmSpec {
    let mut spec = with_machine(RestartPolicy::No);
    spec.machine.as_mut().expect("one").from = Some("/s".into());
    spec
}

fn save(text: &str) -> Change {
    Change::Snapshot { name: name(text), folder: "/s".into() }
}

fn refused(replies: Replies) {
    let is = matches!(replies[0].1, Err(Error::Refused(Refusal::WrongState { .. })));
    assert!(is, "{replies:?}");
}

fn pause_of(text: &str) -> Change {
    Change::Pause { name: name(text) }
}
