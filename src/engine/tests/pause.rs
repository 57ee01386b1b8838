//! A guest that is paused, and goes on.

use super::*;
use crate::engine::supervise::PAUSE_MAX_MS;
use crate::model::record::Order;

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

fn pause_of(text: &str) -> Change {
    Change::Pause { name: name(text) }
}
