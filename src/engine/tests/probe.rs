//! Addresses that machines of a LAN have.

use super::*;
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
        port: PortSettings::default(),
        state: None,
        shaping: None,
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
    assert_eq!(engine.somebody_has(other, MAC, at(1)), None, "nobody asked");
    let first = "192.168.127.2".parse().unwrap();
    let notice = engine.somebody_has(first, MAC, at(1)).unwrap();
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
