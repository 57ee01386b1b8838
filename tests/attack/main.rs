//! What a hostile guest tries, on the real kernel: every frame that is forbidden is sent from a tap
//! that the test holds, and reaches nobody; every one that is allowed reaches whom it should.

#![cfg(target_os = "linux")]

mod arena;
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod frame;

use arena::Arena;
use common::in_namespace;

/// With those that the test plays, a thousand guests.
const CROWD: usize = 995;

#[test]
fn forbidden_frames_reach_nobody_and_allowed_ones_whom_they_should() {
    in_namespace(|| {
        let mut arena = Arena::new();
        arena.check(&cases::all());
        arena.daemon.crash();
        arena.check(&cases::all());
    });
}

#[test]
fn the_same_among_a_thousand_guests() {
    in_namespace(|| {
        let mut arena = Arena::new();
        arena.add_crowd(CROWD);
        arena.check(&cases::all());
    });
}
