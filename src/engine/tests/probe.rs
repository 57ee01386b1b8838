//! Addresses that machines of a LAN have.

use super::added::{on_pods, pods};
use super::*;
use crate::engine::added::Adding;
use crate::plan::op::PortSettings;
use crate::plan::reconcile::{Link, LinkKind};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

pub(super) fn link(
    index: u32,
    name: &str,
    kind: LinkKind,
    alias: Option<&str>,
    master: Option<u32>,
) -> Link {
    Link {
        index,
        name: name.into(),
        alias: alias.map(String::from),
        kind,
        master,
        up: true,
        carrier: true,
        mtu: 1500,
        mac: MAC,
        filtered: None,
        port: PortSettings::default(),
        state: None,
        shaping: None,
        snooping: false,
        unfinished: false,
    }
}

/// An engine whose first bridge has an uplink.
fn with_uplink() -> Engine {
    let mut engine = engine();
    engine.observed(&[
        link(1, "vbr0", LinkKind::Bridge, Some("volnet:"), None),
        link(2, "eth1", LinkKind::Other, None, Some(1)),
    ]);
    engine
}

/// Whether a create has to wait.
fn waits(engine: &mut Engine, text: &str, spec: &VmSpec, now: Now) -> bool {
    engine.probe_for(&name(text), spec, now).unwrap()
}

fn asked(engine: &mut Engine, now: Now) -> Vec<String> {
    engine.probes_due(now).into_iter().map(|(_, ip)| ip.to_string()).collect()
}

#[test]
fn an_address_is_asked_for_three_times_and_is_then_that_of_the_vm() {
    let mut engine = with_uplink();
    let any = VmSpec::default();
    assert!(waits(&mut engine, "a", &any, at(0)) && waits(&mut engine, "b", &any, at(0)));
    for ms in [0, 150, 300] {
        assert_eq!(asked(&mut engine, at(ms)), ["192.168.127.2", "192.168.127.3"], "{ms}");
        assert!(asked(&mut engine, at(ms + 149)).is_empty());
        assert!(engine.is_probed(&name("b")) && engine.deadline() == Some(ms + 150));
    }
    assert!(asked(&mut engine, at(450)).is_empty());
    assert_eq!((engine.is_probed(&name("b")), engine.deadline()), (false, None));
    for (text, ip) in [("b", "192.168.127.3"), ("a", "192.168.127.2")] {
        assert!(!waits(&mut engine, text, &any, at(451)));
        let replies = ask(&mut engine, 1, &create(text, any.clone(), false), at(451));
        assert_eq!(vm(&replies).ip, Some(ip.parse().unwrap()));
        engine.end_promises(&name(text));
    }
    assert_eq!(engine.networks()[0].leased, 2);
}

#[test]
fn what_somebody_has_is_leased_to_nobody_for_a_while() {
    let mut engine = with_uplink();
    let any = VmSpec::default();
    assert!(waits(&mut engine, "a", &any, at(0)));
    asked(&mut engine, at(0));
    let other = "192.168.127.9".parse().unwrap();
    let said =
        |engine: &mut Engine, network: &str, ip| engine.somebody_has(network, (ip, MAC), at(1));
    assert_eq!(said(&mut engine, "default", other), None, "nobody asked");
    let first = "192.168.127.2".parse().unwrap();
    assert_eq!(said(&mut engine, "tiny", first), None, "on another bridge nobody asked");
    let notice = said(&mut engine, "default", first).unwrap();
    assert!(notice.message.contains(&MAC.to_string()), "{}", notice.message);
    assert!(!engine.is_probed(&name("a")));
    assert!(waits(&mut engine, "a", &any, at(1)), "for the next");
    assert_eq!(asked(&mut engine, at(1)), ["192.168.127.3"]);
    let named = with_ip("192.168.127.2");
    let refused = engine.probe_for(&name("b"), &named, at(2)).unwrap_err();
    let owner = format!("the machine with the Ethernet address {MAC}");
    assert_eq!(refused, Refusal::AddressInUse { ip: first.into(), owner });
    assert!(waits(&mut engine, "b", &named, at(600_001)), "it may have gone");
    for text in ["a", "b"] {
        engine.end_promises(&name(text));
    }
    assert_eq!(engine.networks()[0].leased, 0);
}

#[test]
fn where_a_bridge_has_no_ports_of_others_nobody_waits() {
    let mut engine = with_uplink();
    let elsewhere = VmSpec {
        networks: vec![NetworkSpec { name: Some("tiny".into()), ..NetworkSpec::default() }],
        ..VmSpec::default()
    };
    assert!(!waits(&mut engine, "a", &elsewhere, at(0)));
    let asks = NetworkSpec { mode: Mode::Dhcp, ..NetworkSpec::default() };
    let asks = VmSpec { networks: vec![asks], ..VmSpec::default() };
    assert!(!waits(&mut engine, "a", &asks, at(0)), "its guest is not here yet");
    engine.observed(&[link(1, "vbr0", LinkKind::Bridge, Some("volnet:"), None)]);
    assert!(!waits(&mut engine, "a", &VmSpec::default(), at(0)));
}

/// An engine with a network that was added, whose bridge has an uplink.
fn with_added() -> Engine {
    let mut engine = engine();
    engine.exchange_network("pods", Some(pods("10.7.0.0/29")), at(0)).unwrap();
    engine.observed(&[
        link(1, "vn-pods", LinkKind::Bridge, Some("volnet:"), None),
        link(2, "eth1", LinkKind::Other, None, Some(1)),
    ]);
    engine
}

#[test]
fn a_create_that_waits_gets_an_address_of_its_network_as_that_is_then() {
    let mut engine = with_added();
    let any = on_pods(true);
    assert!(waits(&mut engine, "a", &any, at(0)));
    assert_eq!(asked(&mut engine, at(0)), ["10.7.0.2"]);
    assert_eq!(engine.adding(&pods("10.8.0.0/29").1, true), Ok(Adding::New));
    engine.exchange_network("pods", Some(pods("10.8.0.0/29")), at(1)).unwrap();
    assert!(!engine.is_probed(&name("a")), "it is decided on anew");
    assert!(waits(&mut engine, "a", &any, at(1)), "for an address of the new one");
    for ms in [1, 151, 301] {
        assert_eq!(asked(&mut engine, at(ms)), ["10.8.0.2"]);
    }
    assert!(asked(&mut engine, at(451)).is_empty());
    let made = ask(&mut engine, 1, &create("a", any, false), at(451));
    assert_eq!(vm(&made).ip, Some("10.8.0.2".parse().unwrap()));
}

#[test]
fn an_address_has_one_owner_though_its_network_was_replaced() {
    let mut engine = with_added();
    let named = |ip: &str| {
        let mut spec = on_pods(true);
        spec.networks[0].ip = Some(ip.parse().unwrap());
        spec
    };
    assert!(waits(&mut engine, "a", &on_pods(true), at(0)));
    assert!(waits(&mut engine, "b", &named("10.7.0.3"), at(0)));
    let taken = "10.7.0.3".parse().unwrap();
    assert!(engine.somebody_has("pods", (taken, MAC), at(1)).is_some());
    // The next one has the same subnet, and its bridge no uplink.
    engine.exchange_network("pods", Some(pods("10.7.0.0/29")), at(2)).unwrap();
    engine.observed(&[link(1, "vn-pods", LinkKind::Bridge, Some("volnet:"), None)]);
    for (text, ip) in [("c", "10.7.0.2"), ("d", "10.7.0.3")] {
        assert!(!waits(&mut engine, text, &named(ip), at(2)));
        let made = ask(&mut engine, 1, &create(text, named(ip), false), at(2));
        assert_eq!(vm(&made).ip, Some(ip.parse().unwrap()));
    }
    // Neither has what the others had before.
    let made = ask(&mut engine, 1, &create("a", on_pods(true), false), at(3));
    assert_eq!(vm(&made).ip, Some("10.7.0.4".parse().unwrap()));
    engine.end_promises(&name("a"));
    assert!(!waits(&mut engine, "e", &on_pods(true), at(700_000)));
    for ip in ["10.7.0.2", "10.7.0.3"] {
        let refused = ask(&mut engine, 1, &create("e", named(ip), false), at(700_000));
        assert!(matches!(refused[0].1, Err(Error::Refused(Refusal::AddressInUse { .. }))), "{ip}");
    }
}
