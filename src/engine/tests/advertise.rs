//! When guests are told of their router.

use super::probe::link;
use super::*;
use crate::engine::advertise::AGAIN_MS;
use crate::model::net::Ipv6Network;
use crate::plan::reconcile::LinkKind;

const OWN: &str = "fd00:1:2:3::/64";

/// An engine whose network has this prefix, and what a record of a VM is there.
fn speaking(prefix: Option<&str>) -> Engine {
    let network = NetworkConfig {
        ipv6: prefix.map(|it| Ipv6Network::new(it.parse().unwrap(), true)),
        ..network("default", "vbr0", "192.168.127.0/24", "192.168.127.1")
    };
    Engine::new(vec![network], "qemu".into(), true).unwrap()
}

/// The record of a VM of this prefix.
fn record() -> Record {
    let mut engine = speaking(Some(OWN));
    running(&mut engine, "a", RestartPolicy::No);
    (*engine.vm(&name("a")).unwrap().record).clone()
}

/// The next daemon, with this prefix. The process of the VM runs, or it does not.
fn next(prefix: Option<&str>, runs: bool) -> Engine {
    let mut engine = speaking(prefix);
    engine.restore(record()).unwrap();
    match runs {
        true => drop(engine.adopted(&name("a"), 7, at(40_000_000))),
        false => drop(engine.lost(&name("a"), at(40_000_000))),
    }
    engine.observed(&[]);
    engine
}

/// Which prefixes are said to be over; `None`: what the guest has.
fn told(engine: &mut Engine, ms: u64) -> Vec<Option<String>> {
    let told = engine.advertisements_due(at(ms)).into_iter();
    told.map(|told| told.lost.map(|prefix| prefix.to_string())).collect()
}

#[test]
fn a_guest_that_asked_is_told_again_before_that_ends() {
    let mut engine = speaking(Some(OWN));
    running(&mut engine, "a", RestartPolicy::No);
    let idle = engine.deadline();
    assert!(idle.is_none_or(|at| at < AGAIN_MS), "nobody was told");
    engine.advertised(at(1_000));
    engine.advertised(at(2_000));
    assert!(told(&mut engine, AGAIN_MS).is_empty());
    assert_eq!(told(&mut engine, 1_000 + AGAIN_MS), [None]);
    assert!(told(&mut engine, 2_000 + AGAIN_MS).is_empty(), "one timer for all");
    assert_eq!(told(&mut engine, 1_000 + 2 * AGAIN_MS), [None]);
    const { assert!(3 * AGAIN_MS < crate::ndp::advertisement::ROUTER_S as u64 * 1000) };
    exit(&mut engine, "a", Exit::Code(0), at(1_000 + 2 * AGAIN_MS));
    assert!(told(&mut engine, 1_000 + 3 * AGAIN_MS).is_empty());
    assert_eq!(engine.deadline(), None, "a host without guests is not woken");
}

#[test]
fn all_guests_that_run_are_told_at_a_start() {
    let mut engine = next(Some(OWN), true);
    assert_eq!(engine.deadline(), Some(0));
    assert_eq!(told(&mut engine, 5), [None]);
    assert_eq!(engine.deadline(), Some(5 + AGAIN_MS));
    let mut engine = next(Some(OWN), false);
    assert!(told(&mut engine, 5).is_empty());
    assert_eq!(engine.deadline(), None);
}

#[test]
fn a_guest_is_told_which_prefix_it_has_lost_and_that_is_written() {
    let lost = Some(OWN.to_string());
    let mut engine = next(Some("2001:db8::/64"), true);
    assert_eq!(told(&mut engine, 5), [lost.clone(), None]);
    let decision = engine.told_of_lost(&name("a")).unwrap();
    let written = decision.record.nics[0].ip6.unwrap();
    assert!(written.to_string().starts_with("2001:db8::"), "{written}");
    let mut engine = next(None, true);
    assert_eq!(told(&mut engine, 5), [lost]);
    assert!(told(&mut engine, 5 + AGAIN_MS).is_empty());
    assert_eq!(engine.told_of_lost(&name("a")).unwrap().record.nics[0].ip6, None);
    assert!(told(&mut next(None, false), 5).is_empty(), "it starts anew");
}

#[test]
fn a_guest_that_its_carrier_alone_shows_is_told_when_the_links_are_seen() {
    let mut engine = speaking(Some("2001:db8::/64"));
    engine.restore(record()).unwrap();
    drop(engine.lost(&name("a"), at(40_000_000)));
    engine.autostart();
    assert!(told(&mut engine, 5).is_empty(), "the kernel has not told the links yet");
    let kind = LinkKind::Tap { vnet_hdr: true, multi_queue: false, persistent: true, owner: None };
    let tap = link(9, "vttap-a", kind, Some("volnet:a"), None);
    engine.observed(std::slice::from_ref(&tap));
    assert_eq!(told(&mut engine, 6), [Some(OWN.to_string()), None]);
    engine.observed(&[tap]);
    assert!(told(&mut engine, 7).is_empty(), "a later look tells nobody");
}
