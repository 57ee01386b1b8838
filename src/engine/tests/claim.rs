//! Addresses that guests make for themselves.

use std::net::Ipv6Addr;

use super::*;
use crate::engine::claim::Claimed;
use crate::model::net::Ipv6Network;
use crate::model::nic::CLAIMED_MAX;

const PREFIX: &str = "2001:db8:1:2::/64";
/// Milliseconds between two claims of a guest that are not too fast.
const PACE: u64 = 5_000;

/// A host whose network has this prefix.
fn engine_with(prefix: &str) -> Engine {
    let mut first = network("default", "vbr0", "192.168.127.0/24", "192.168.127.1");
    first.ipv6 = Some(Ipv6Network::new(prefix.parse().unwrap(), false));
    Engine::new(vec![first], "qemu".into(), true).unwrap()
}

/// A host with VMs, whose network has IPv6.
fn with_vms(vms: &[&str]) -> Engine {
    let mut engine = engine_with(PREFIX);
    for text in vms {
        ask(&mut engine, 1, &create(text, VmSpec::default(), false), at(0));
    }
    engine
}

fn own(engine: &Engine, text: &str) -> Nic {
    engine.vm(&name(text)).unwrap().record.nics[0].clone()
}

fn claim(engine: &mut Engine, text: &str, address: &str, now: Now) -> Claimed {
    let mac = own(engine, text).mac;
    engine.claim("default", mac, address.parse().unwrap(), now)
}

/// A claim that is granted, and what that does.
fn claims(engine: &mut Engine, text: &str, address: &str, now: Now) -> Vec<Op> {
    let Claimed::Given(decision) = claim(engine, text, address, now) else { panic!("{address}") };
    assert_eq!(decision.write, Write::Put);
    let plan = decision.plan.clone();
    done(engine, *decision, now);
    plan.into_iter().collect()
}

fn random(number: usize) -> String {
    format!("2001:db8:1:2:aaaa::{number:x}")
}

#[test]
fn the_first_who_claims_an_address_has_it_until_its_vm_is_deleted() {
    let mut engine = with_vms(&["a", "b"]);
    for address in [random(1).as_str(), "fe80::aaaa:0:0:1"] {
        let plan = claims(&mut engine, "a", address, at(0));
        assert!(matches!(plan[0], Op::ForgetAddress { at: Handover::Assigned, .. }), "{plan:?}");
        assert!(matches!(claim(&mut engine, "a", address, at(0)), Claimed::Nothing));
        assert!(matches!(claim(&mut engine, "b", address, at(0)), Claimed::Refused));
        assert!(own(&engine, "a").claimed.contains(&address.parse().unwrap()));
    }
    ask(&mut engine, 1, &Change::Delete { name: name("a"), timeout_ms: 0 }, at(0));
    claims(&mut engine, "b", &random(1), at(0));
    let claimed = own(&engine, "b").claimed;
    assert_eq!(claimed, [random(1).parse::<Ipv6Addr>().unwrap()]);
}

#[test]
fn the_next_daemon_knows_them_as_far_as_they_are_of_the_network() {
    let mut engine = with_vms(&["a"]);
    let link_local = "fe80::aaaa:0:0:1";
    for address in [&random(1), link_local] {
        claims(&mut engine, "a", address, at(0));
    }
    let record = Record::clone(&engine.vm(&name("a")).unwrap().record);
    for (prefix, stay) in [(PREFIX, vec![&*random(1), link_local]), ("fd00::/64", vec![link_local])]
    {
        let mut next = engine_with(prefix);
        next.restore(record.clone()).unwrap();
        let claimed: Vec<String> =
            own(&next, "a").claimed.iter().map(Ipv6Addr::to_string).collect();
        assert_eq!(claimed, stay);
        ask(&mut next, 1, &create("b", VmSpec::default(), false), at(0));
        assert!(matches!(claim(&mut next, "b", link_local, at(0)), Claimed::Refused));
    }
}

#[test]
fn nobody_claims_what_is_anothers_or_is_for_vms_that_come_later() {
    let mut engine = with_vms(&["a", "b"]);
    let other = own(&engine, "b");
    let strange = Mac([0x52, 0x54, 0, 1, 2, 3]);
    let of = |mac: Mac| Ipv6Network::new(PREFIX.parse().unwrap(), false).address_of(mac);
    for address in [
        other.ip6.unwrap(),
        other.mac.link_local(),
        strange.link_local(),
        of(strange),
        "2001:db8:1:2::1".parse().unwrap(),
        "2001:db8:1:2::17".parse().unwrap(),
        "fe80::17".parse().unwrap(),
        "2001:db8:1:2:fdff:ffff:ffff:ff80".parse().unwrap(),
        "2001:db8:1:3:aaaa::1".parse().unwrap(),
        "fe80:0:0:1:aaaa::1".parse().unwrap(),
    ] {
        assert!(matches!(claim(&mut engine, "a", &address.to_string(), at(0)), Claimed::Refused));
    }
    assert!(own(&engine, "a").claimed.is_empty());
    // Its own are no claims.
    let own = own(&engine, "a");
    for address in [own.ip6.unwrap(), own.mac.link_local()] {
        assert!(matches!(claim(&mut engine, "a", &address.to_string(), at(0)), Claimed::Nothing));
    }
}

#[test]
fn a_guest_has_few_addresses_and_keeps_the_first() {
    let mut engine = with_vms(&["a"]);
    for number in 1..=CLAIMED_MAX + 5 {
        claims(&mut engine, "a", &random(number), at(number as u64 * PACE));
    }
    let kept = (1..=3).chain(9..=CLAIMED_MAX + 5).map(random);
    let kept: Vec<Ipv6Addr> = kept.map(|address| address.parse().unwrap()).collect();
    assert_eq!((kept.len(), own(&engine, "a").claimed), (CLAIMED_MAX, kept));
    // What it lost is nobody's.
    ask(&mut engine, 1, &create("b", VmSpec::default(), false), at(0));
    claims(&mut engine, "b", &random(4), at(0));
}

#[test]
fn a_guest_that_claims_without_end_is_slowed_down() {
    let mut engine = with_vms(&["a", "b"]);
    let given = (1..100).filter(|number| match claim(&mut engine, "a", &random(*number), at(0)) {
        Claimed::Given(decision) => {
            done(&mut engine, *decision, at(0));
            true
        }
        _ => false,
    });
    assert_eq!(given.count(), 12);
    claims(&mut engine, "b", &random(100), at(0));
    claims(&mut engine, "a", &random(101), at(PACE));
}

#[test]
fn a_claim_that_cannot_be_written_has_not_been() {
    let mut engine = with_vms(&["a", "b"]);
    let Claimed::Given(decision) = claim(&mut engine, "a", &random(1), at(0)) else { panic!() };
    let failure = Failure::State { path: "/state".into(), reason: "full".into() };
    engine.abort(*decision, &Error::Failed(failure));
    assert!(own(&engine, "a").claimed.is_empty());
    claims(&mut engine, "b", &random(1), at(0));
}
