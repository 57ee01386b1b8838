//! A guest that ends while its hypervisor goes on.

use super::*;
use crate::engine::supervise::{BACKOFF_FIRST_MS, POWER_OFF_MS, STEADY_MS, TERMINATE_GRACE_MS};
use crate::model::record::GuestEnd;

/// What is done about the end of a guest. Gives the act and the events.
fn guest_ends(engine: &mut Engine, end: GuestEnd, now: Now) -> (Option<Act>, Vec<EventKind>) {
    let decision = engine.guest_ended(&name("a"), end, now).expect("it is noticed");
    let events = decision.events.iter().map(|(kind, _)| *kind).collect();
    let act = decision.act;
    assert!(done(engine, decision, now).is_empty());
    (act, events)
}

#[test]
fn a_guest_that_panics_after_a_steady_run_is_started_again_however_often() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::OnFailure);
    let mut mono = 5;
    for _ in 0..2 * RESTARTS_MAX {
        mono += STEADY_MS;
        let ended = guest_ends(&mut engine, GuestEnd::PANIC, at(mono));
        assert_eq!(ended, (Some(Act::Terminate), vec![EventKind::VmStopping]));
        exit(&mut engine, "a", Exit::Panicked, at(mono));
        assert_eq!(status(&engine, "a"), Status::Crashed);
        let again = engine.deadline().expect("it is started again");
        assert_eq!(again, mono + BACKOFF_FIRST_MS);
        mono = again;
        let start = engine.due(at(mono)).expect("the start");
        assert!(done(&mut engine, start, at(mono)).is_empty());
        looked_at(&mut engine, "a", Progress::Running, at(mono));
        assert_eq!(status(&engine, "a"), Status::Running);
    }
}

#[test]
fn a_hypervisor_ends_by_itself_when_its_guest_is_off_or_is_ended() {
    for ends_by_itself in [true, false] {
        let mut engine = engine();
        running(&mut engine, "a", RestartPolicy::OnFailure);
        assert_eq!(guest_ends(&mut engine, GuestEnd::OFF, at(10)), (None, vec![]));
        assert!(engine.guest_ended(&name("a"), GuestEnd::OFF, at(11)).is_none(), "it is known");
        assert_eq!(engine.deadline(), Some(10 + POWER_OFF_MS));
        if !ends_by_itself {
            for (act, wait) in [(Act::Terminate, POWER_OFF_MS), (Act::Kill, TERMINATE_GRACE_MS)] {
                let now = at(engine.deadline().expect("a signal"));
                let decision = engine.due(now).expect("a signal");
                assert_eq!(decision.act, Some(act), "after {wait} ms");
                done(&mut engine, decision, now);
            }
        }
        exit(&mut engine, "a", Exit::Signal(9), at(POWER_OFF_MS + TERMINATE_GRACE_MS + 20));
        let exit = engine.vm(&name("a")).unwrap().record.exit;
        assert_eq!((status(&engine, "a"), exit), (Status::Stopped, Some(Exit::Code(0))));
        assert_eq!(engine.deadline(), None, "its policy is for failures");
    }
}
