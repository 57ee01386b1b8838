//! Leases of guests that ask.

use std::net::Ipv4Addr;

use super::*;
use crate::model::lease::{Claim, LeaseChange};
use crate::model::nic::Lease;
use crate::model::record::{BootId, Record};
use crate::plan::news::News;
use crate::plan::op::PortSettings;
use crate::plan::reconcile::{Link, LinkKind};
use crate::plan::ruleset::{self, Element, Value};

const HOUR: u64 = 3_600_000;

fn asks() -> VmSpec {
    VmSpec {
        networks: vec![NetworkSpec { mode: Mode::Dhcp, ..NetworkSpec::default() }],
        ..VmSpec::default()
    }
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn mac(engine: &Engine, text: &str) -> Mac {
    record(engine, text).nics[0].mac
}

fn record(engine: &Engine, text: &str) -> Record {
    Record::clone(&engine.vm(&name(text)).unwrap().record)
}

fn claim(engine: &Engine, text: &str) -> Claim {
    engine.guest("default", mac(engine, text), None).unwrap().claim
}

fn given(address: &str, until: u64) -> LeaseChange {
    LeaseChange::Lease(Lease { ip: ip(address), until, given: true })
}

fn change(engine: &mut Engine, text: &str, change: LeaseChange, now: Now) -> Decision {
    engine.change_lease(&name(text), 0, change, now).unwrap()
}

/// An engine with a VM that has a lease until 2000 seconds after the boot.
fn with_lease() -> Engine {
    let mut engine = engine();
    ask(&mut engine, 1, &create("asks", asks(), false), at(0));
    let decision = change(&mut engine, "asks", given("192.168.127.9", 2_000_000), at(0));
    assert_eq!(decision.write, Write::Put, "it is written before the guest is told");
    assert_eq!(decision.events.len(), 1);
    done(&mut engine, decision, at(0));
    engine
}

#[test]
fn a_lease_is_shown_and_is_nobody_elses() {
    let mut engine = with_lease();
    let view = engine.show(engine.vm(&name("asks")).unwrap());
    assert_eq!(view.ip, Some(ip("192.168.127.9")));
    assert_eq!((view.gateway, &*view.kernel_args), (Some(ip("192.168.127.1")), ""));
    let replies = ask(&mut engine, 1, &create("web", with_ip("192.168.127.9"), false), at(0));
    let refusal = Refusal::AddressInUse { ip: ip("192.168.127.9").into(), owner: "asks".into() };
    assert_eq!(replies, [(1, Err(Error::Refused(refusal)))]);
    // Another one cannot be given it either, whatever it was promised before.
    ask(&mut engine, 1, &create("other", asks(), false), at(0));
    let change = given("192.168.127.9", 2_000_000);
    assert!(engine.change_lease(&name("other"), 0, change, at(0)).is_none());
}

#[test]
fn a_renewal_is_no_event_and_a_change_that_fails_has_not_been() {
    let mut engine = with_lease();
    let decision = change(&mut engine, "asks", given("192.168.127.9", 3_000_000), at(1));
    assert!(decision.events.is_empty() && decision.plan.is_empty());
    done(&mut engine, decision, at(1));
    let failure = Failure::State { path: "/state".into(), reason: "full".into() };
    for wish in [given("192.168.127.10", 4_000_000), LeaseChange::Release, LeaseChange::Decline] {
        let decision = change(&mut engine, "asks", wish, at(2));
        assert!(engine.abort(decision, &Error::Failed(failure.clone())).is_empty());
        let lease = Lease { ip: ip("192.168.127.9"), until: 3_000_000, given: true };
        assert_eq!(claim(&engine, "asks"), Claim::Leased(lease));
        assert_eq!(engine.networks()[0].leased, 1);
    }
    assert!(matches!(claim(&engine, "asks"), Claim::Leased(_)));
}

#[test]
fn an_address_is_forgotten_when_it_is_given_and_when_it_is_given_back() {
    let mut engine = engine();
    ask(&mut engine, 1, &create("asks", asks(), false), at(0));
    let forget = |address: &str, at| Op::ForgetAddress {
        link: "vbr0".into(),
        address: ip(address).into(),
        at,
    };
    // What lets the guest use the address.
    let own = |last| {
        let (link, mac) = (Value::Link("vttap-asks".into()), Mac::of_guest("default", "asks"));
        let key = vec![link, Value::Ether(mac), Value::Address([192, 168, 127, last].into())];
        let guest = Element { family: Family::Bridge, table: "volnet", set: "guests".into(), key };
        [ruleset::policy([192, 168, 127, last].into(), "open"), vec![guest]].concat()
    };
    let lease = Lease { ip: ip("192.168.127.9"), until: 2_000_000, given: false };
    let plan = |engine: &mut Engine, wish| {
        let decision = change(engine, "asks", wish, at(0));
        let plan = decision.plan.clone();
        done(engine, decision, at(0));
        plan
    };
    assert_eq!(plan(&mut engine, LeaseChange::Lease(lease)), [], "an offer is nobody's yet");
    let taken = plan(&mut engine, given("192.168.127.9", 2_000_000));
    assert_eq!(taken, [forget("192.168.127.9", Handover::Assigned), Op::AddElements(own(9))]);
    assert_eq!(plan(&mut engine, given("192.168.127.9", 3_000_000)), [], "renewed");
    let exchanged = plan(&mut engine, given("192.168.127.10", 3_000_000));
    let (gone, new) =
        (forget("192.168.127.9", Handover::Released), forget("192.168.127.10", Handover::Assigned));
    let (out, into) = (Op::RemoveElements(own(9)), Op::AddElements(own(10)));
    assert_eq!(exchanged, [out, gone, new, into]);
    let back = plan(&mut engine, LeaseChange::Release);
    let out = Op::RemoveElements(own(10));
    assert_eq!(back, [out, forget("192.168.127.10", Handover::Released)]);
}

#[test]
fn a_vm_that_goes_gives_its_lease_back() {
    let mut engine = with_lease();
    let delete = Change::Delete { name: name("asks"), timeout_ms: 0 };
    assert_eq!(ask(&mut engine, 2, &delete, at(0)), [(2, Ok(Reply::Deleted))]);
    assert_eq!(engine.networks()[0].leased, 0);
    assert!(engine.guest("default", Mac::of_guest("default", "asks"), None).is_none());
}

#[test]
fn a_lease_that_has_ended_goes_only_when_it_is_needed() {
    let mut engine = engine();
    let on_tiny = |mode| NetworkSpec { name: Some("tiny".into()), mode, ..NetworkSpec::default() };
    for text in ["one", "two"] {
        let spec = VmSpec { networks: vec![on_tiny(Mode::Dhcp)], ..VmSpec::default() };
        ask(&mut engine, 1, &create(text, spec, false), at(0));
    }
    let lease = given("10.9.9.2", at(HOUR).boot);
    let decision = change(&mut engine, "one", lease, at(0));
    done(&mut engine, decision, at(0));
    let two = Mac::of_guest("tiny", "two");
    assert_eq!(engine.guest("tiny", two, None).unwrap().claim, Claim::Nothing);
    assert!(engine.reclaim("tiny", at(HOUR - 1)).is_none());
    assert!(engine.reclaim("default", at(HOUR)).is_none());
    let decision = engine.reclaim("tiny", at(HOUR)).unwrap();
    assert_eq!((decision.subject.as_str(), decision.events.len()), ("one", 1));
    done(&mut engine, decision, at(HOUR));
    assert_eq!(engine.guest("tiny", two, None).unwrap().claim, Claim::Free(ip("10.9.9.2")));
}

/// A VM that is alone on its network, and so has the only address, with a lease for an hour.
fn with_the_only_address(spec: VmSpec, start: bool) -> Engine {
    let mut engine = engine();
    let network =
        NetworkSpec { name: Some("tiny".into()), mode: Mode::Dhcp, ..NetworkSpec::default() };
    let spec = VmSpec { networks: vec![network], ..spec };
    ask(&mut engine, 1, &create("one", spec, start), at(0));
    let decision = change(&mut engine, "one", given("10.9.9.2", at(HOUR).boot), at(0));
    done(&mut engine, decision, at(0));
    engine
}

#[test]
fn a_guest_whose_hypervisor_runs_keeps_its_lease() {
    let mut engine = with_the_only_address(with_machine(RestartPolicy::No), true);
    looked_at(&mut engine, "one", Progress::Running, at(5));
    assert!(engine.reclaim("tiny", at(9 * HOUR)).is_none());
    exit(&mut engine, "one", Exit::Code(0), at(9 * HOUR));
    assert!(engine.reclaim("tiny", at(9 * HOUR)).is_some());
}

#[test]
fn a_guest_that_has_its_link_open_keeps_its_lease_and_no_offer() {
    let mut engine = with_the_only_address(VmSpec::default(), false);
    let index = record(&engine, "one").nics[0].ifindex.unwrap();
    let link = |carrier| Link {
        index,
        name: "vttap-one".into(),
        alias: Some("volnet:one".into()),
        kind: LinkKind::Tap {
            vnet_hdr: true,
            multi_queue: false,
            persistent: true,
            owner: Some(0),
        },
        master: None,
        up: true,
        carrier,
        mtu: 1500,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        filtered: None,
        port: PortSettings::default(),
        state: None,
        shaping: None,
        snooping: false,
        unfinished: false,
    };
    let tell = |engine: &mut Engine, carrier, present| {
        let links = [(index, (link(carrier), present))].into();
        engine.heard(News { links, ..News::default() }, at(HOUR));
    };
    tell(&mut engine, true, true);
    assert!(engine.reclaim("tiny", at(HOUR)).is_none());
    let offer = Lease { ip: ip("10.9.9.2"), until: at(HOUR).boot, given: false };
    for (carrier, present) in [(false, true), (true, false)] {
        let mut engine = with_the_only_address(VmSpec::default(), false);
        tell(&mut engine, true, true);
        tell(&mut engine, carrier, present);
        assert!(engine.reclaim("tiny", at(HOUR)).is_some(), "nobody has it open");
    }
    engine.observed(&[link(true)]);
    assert!(engine.reclaim("tiny", at(HOUR)).is_none());
    let decision = change(&mut engine, "one", LeaseChange::Lease(offer), at(HOUR));
    done(&mut engine, decision, at(HOUR));
    assert!(engine.reclaim("tiny", at(HOUR)).is_some());
}

#[test]
fn what_was_promised_before_a_boot_counts_from_the_boot() {
    let boot = |text: &str| text.parse::<BootId>().unwrap();
    let (first, second) = (
        boot("00000000-0000-4000-8000-000000000001"),
        boot("00000000-0000-4000-8000-000000000002\n"),
    );
    let mut engine = engine().with_boot(first);
    ask(&mut engine, 1, &create("asks", asks(), false), at(0));
    for (taken, length) in [(true, HOUR), (false, 60_000)] {
        let lease = Lease { ip: ip("192.168.127.9"), until: 77 * HOUR, given: taken };
        let decision = change(&mut engine, "asks", LeaseChange::Lease(lease), at(0));
        done(&mut engine, decision, at(0));
        for (now, until) in [(first, 77 * HOUR), (second, length)] {
            let mut next = super::engine().with_boot(now);
            next.restore(record(&engine, "asks")).unwrap();
            assert_eq!(claim(&next, "asks"), Claim::Leased(Lease { until, ..lease }));
            next.change_lease(&name("asks"), 0, given("192.168.127.9", 5), at(0)).unwrap();
            assert_eq!(record(&next, "asks").boot, now);
        }
    }
    let written = serde_json::to_value(record(&engine, "asks")).unwrap();
    assert_eq!(written["boot"], "00000000-0000-4000-8000-000000000001");
}

#[test]
fn leases_are_taken_over_and_what_cannot_be_had_any_more_is_dropped() {
    let old = with_lease();
    let mut kept = record(&old, "asks");
    kept.nics.iter_mut().for_each(|nic| nic.ifindex = None);
    let mut next = engine();
    next.restore(kept.clone()).unwrap();
    assert_eq!(record(&next, "asks"), kept);
    assert_eq!(next.networks()[0].leased, 1);

    // A record that was written before there were leases has none.
    let mut json = serde_json::to_value(&kept).unwrap();
    assert!(json["nics"][0].as_object_mut().unwrap().remove("lease").is_some());
    let older: Record = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(older.nics[0].lease, None);
    assert_eq!(serde_json::to_value(&older).unwrap(), json);

    // Others answer there now; the subnet is another one; the address is somebody else's.
    let config = network("default", "vbr0", "192.168.127.0/24", "192.168.127.1");
    let networks = vec![NetworkConfig { dhcp: Dhcp::External, ..config }];
    let mut left = Engine::new(networks, "qemu".into(), true).unwrap();
    left.restore(kept.clone()).unwrap();
    assert_eq!((record(&left, "asks").nics[0].lease, left.networks()[0].leased), (None, 0));
    let networks = vec![network("default", "vbr0", "10.1.0.0/24", "10.1.0.1")];
    let mut moved = Engine::new(networks, "qemu".into(), true).unwrap();
    moved.restore(kept.clone()).unwrap();
    assert!(matches!(claim(&moved, "asks"), Claim::Free(_)));
    let mut taken = engine();
    ask(&mut taken, 1, &create("web", with_ip("192.168.127.9"), false), at(0));
    taken.restore(Record { cid: 99, ..kept }).unwrap();
    assert!(matches!(claim(&taken, "asks"), Claim::Free(_)));
    assert_eq!(taken.networks()[0].leased, 1);
}

#[test]
fn guests_that_will_ask_are_spread_over_the_parts_of_a_network_as_the_addresses_are() {
    let part = |name: &str, n: u8| NetworkConfig {
        whole: "wide".into(),
        ..network(name, name, &format!("10.1.{n}.0/30"), &format!("10.1.{n}.1"))
    };
    let networks = vec![part("wide", 0), part("wide-2", 1)];
    let mut engine = Engine::new(networks, "qemu".into(), true).unwrap();
    for (text, placed) in [("a", "wide"), ("b", "wide-2"), ("c", "wide")] {
        ask(&mut engine, 1, &create(text, asks(), false), at(0));
        assert_eq!(record(&engine, text).nics[0].network, placed, "{text}");
    }
}

#[test]
fn where_dhcp_is_off_nobody_may_ask() {
    let config = network("default", "vbr0", "192.168.127.0/24", "192.168.127.1");
    let networks = vec![NetworkConfig { dhcp: Dhcp::Off, ..config }];
    let mut engine = Engine::new(networks, "qemu".into(), true).unwrap();
    let replies = ask(&mut engine, 1, &create("asks", asks(), false), at(0));
    let [(1, Err(Error::Refused(Refusal::InvalidConfig { field, .. })))] = &replies[..] else {
        panic!("{replies:?}")
    };
    assert_eq!(field, "network.mode");
    assert_eq!(engine.networks()[0].ports, 0);
    assert!(ask(&mut engine, 1, &create("web", VmSpec::default(), false), at(0))[0].1.is_ok());
}
