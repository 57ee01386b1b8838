//! Starts that wait for a place.

use super::*;
use crate::engine::crowd::PLACE_MS;
use crate::engine::supervise::BACKOFF_FIRST_MS;

/// The VMs that have a process.
fn started(engine: &Engine) -> Vec<&str> {
    let vms = engine.vms().filter(|vm| vm.life.pid().is_some());
    vms.map(|vm| vm.record.name.as_str()).collect()
}

/// Two start and may not run yet; `others` have run and were stopped.
fn crowded(others: &[&str]) -> Engine {
    let mut engine = engine().with_starts_at_once(2);
    for other in others {
        running(&mut engine, other, RestartPolicy::OnFailure);
        exit(&mut engine, other, Exit::Code(0), at(6));
    }
    for (ticket, starting) in [(10, "s1"), (11, "s2")] {
        assert!(engine.may_start());
        let spec = with_machine(RestartPolicy::No);
        assert!(ask(&mut engine, ticket, &create(starting, spec, true), at(10)).is_empty());
    }
    assert!(!engine.may_start());
    engine
}

fn restart(text: &str) -> Change {
    Change::Restart { name: name(text), timeout_ms: 0 }
}

#[test]
fn starts_beyond_the_bound_wait_in_their_order() {
    let mut engine = crowded(&["a", "b", "c"]);
    // Not in the order of their names.
    for (ticket, vm) in [(1, "c"), (2, "a"), (3, "b")] {
        assert!(ask(&mut engine, ticket, &restart(vm), at(11)).is_empty());
    }
    assert_eq!(started(&engine), ["s1", "s2"]);
    assert_eq!(status(&engine, "c"), Status::Stopped);
    // A place is free when a guest runs, and when a process has ended.
    assert!(matches!(looked_at(&mut engine, "s1", Progress::Running, at(20))[..], [(10, Ok(_))]));
    assert_eq!(started(&engine), ["c", "s1", "s2"]);
    assert!(looked_at(&mut engine, "s2", Progress::Starting, at(20)).is_empty());
    assert_eq!(started(&engine), ["c", "s1", "s2"]);
    assert!(matches!(exit(&mut engine, "s2", Exit::Code(1), at(21))[..], [(11, Err(_))]));
    assert_eq!(started(&engine), ["a", "c", "s1"]);
    // The time of a guest to run begins with its process.
    let late = START_MAX_MS - 1;
    assert!(matches!(looked_at(&mut engine, "a", Progress::Running, at(late))[..], [(2, Ok(_))]));
    assert_eq!(started(&engine), ["a", "b", "c", "s1"]);
    assert!(looked_at(&mut engine, "b", Progress::Starting, at(late + 1_000)).is_empty());
    assert!(matches!(
        looked_at(&mut engine, "b", Progress::Running, at(late + 2_000))[..],
        [(3, Ok(_))]
    ));
}

#[test]
fn a_start_that_takes_long_gives_its_place_to_others() {
    let mut engine = crowded(&["a", "b"]);
    for (ticket, vm) in [(1, "a"), (2, "b")] {
        ask(&mut engine, ticket, &restart(vm), at(11));
    }
    looked_at(&mut engine, "s1", Progress::Starting, at(10 + PLACE_MS - 1));
    assert_eq!(started(&engine), ["s1", "s2"]);
    looked_at(&mut engine, "s1", Progress::Starting, at(10 + PLACE_MS));
    assert_eq!(started(&engine), ["a", "s1", "s2"]);
    let told = looked_at(&mut engine, "s1", Progress::Running, at(20 + PLACE_MS));
    assert!(matches!(told[..], [(10, Ok(_))]));
    assert_eq!(started(&engine), ["a", "s1", "s2"], "its place is another's");
}

#[test]
fn a_restart_by_policy_waits_for_a_place_too() {
    let mut engine = engine().with_starts_at_once(1);
    running(&mut engine, "a", RestartPolicy::OnFailure);
    exit(&mut engine, "a", Exit::Code(1), at(10));
    let due = 10 + BACKOFF_FIRST_MS;
    assert_eq!(engine.deadline(), Some(due));
    let starting = create("s", with_machine(RestartPolicy::No), true);
    ask(&mut engine, 2, &starting, at(due - 1));
    assert!(engine.due(at(due)).is_none());
    assert!(engine.deadline() > Some(due), "the other is looked at");
    looked_at(&mut engine, "s", Progress::Running, at(due + 10));
    assert_eq!(engine.due(at(due + 10)).and_then(|decision| decision.act), Some(Act::Spawn));
}

#[test]
fn who_is_stopped_or_deleted_while_it_waits_does_not_start() {
    let mut engine = crowded(&["a", "b", "c"]);
    for (ticket, vm) in [(1, "a"), (2, "b"), (3, "c"), (4, "c")] {
        assert!(ask(&mut engine, ticket, &restart(vm), at(11)).is_empty());
    }
    let stop = Change::Stop { name: name("a"), timeout_ms: 0 };
    let told = ask(&mut engine, 5, &stop, at(12));
    assert!(matches!(told[..], [(1, Err(Error::Failed(_))), (5, Ok(_))]), "{told:?}");
    let delete = Change::Delete { name: name("b"), timeout_ms: 0 };
    let told = ask(&mut engine, 6, &delete, at(12));
    let gone = matches!(told[1], (2, Err(Error::Refused(Refusal::VmNotFound { .. }))));
    assert!(gone && matches!(told[0], (6, Ok(_))), "{told:?}");
    // Who wants the same waits for the same process.
    looked_at(&mut engine, "s1", Progress::Running, at(20));
    assert_eq!(started(&engine), ["c", "s1", "s2"]);
    let told = looked_at(&mut engine, "c", Progress::Running, at(30));
    assert!(matches!(told[..], [(3, Ok(_)), (4, Ok(_))]), "{told:?}");
    looked_at(&mut engine, "s2", Progress::Running, at(30));
    assert_eq!(started(&engine), ["c", "s1", "s2"]);
}
