//! The IPv6 addresses of VMs.

use super::*;
use crate::model::inner::InnerSpec;
use crate::model::lease::Claim;
use crate::model::net::Ipv6Network;

const PREFIX: &str = "2001:db8:1:2::/64";

/// A host whose first network has this prefix of IPv6.
fn engine_with(prefix: Option<&str>) -> Engine {
    let mut first = network("default", "vbr0", "192.168.127.0/24", "192.168.127.1");
    first.ipv6 = prefix.map(|prefix| Ipv6Network::new(prefix.parse().unwrap(), false));
    let second = network("old", "vbr1", "10.9.9.0/24", "10.9.9.1");
    Engine::new(vec![first, second], "qemu".into(), true).unwrap()
}

/// A host whose first network has IPv6 alone, or that and IPv4.
fn engine_alone(is_alone: bool) -> Engine {
    let mut first = network("default", "vbr0", "192.168.127.0/24", "192.168.127.1");
    first.ipv6 = Some(Ipv6Network::new(PREFIX.parse().unwrap(), true));
    if is_alone {
        (first.ipv4, first.dhcp) = (None, Dhcp::Off);
    }
    Engine::new(vec![first], "qemu".into(), true).unwrap()
}

fn with_ip6(mode: Mode, name: &str, ip6: &str) -> VmSpec {
    let (name, ip6) = (Some(name.into()), Some(ip6.parse().unwrap()));
    let network = NetworkSpec { mode, name, ip6, ..NetworkSpec::default() };
    VmSpec { networks: vec![network], ..VmSpec::default() }
}

fn in_use(ip: &str, owner: &str) -> Refusal {
    Refusal::AddressInUse { ip: ip.parse().unwrap(), owner: owner.into() }
}

fn refused(engine: &mut Engine, vm: &str, spec: VmSpec) -> Refusal {
    match ask(engine, 1, &create(vm, spec, false), at(0)).swap_remove(0).1 {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

/// What a guest may take for its own in the first network.
fn inner() -> InnerSpec {
    InnerSpec {
        mac: "02:00:00:00:00:aa".parse().unwrap(),
        ip: "192.168.127.9".parse().unwrap(),
        prefix: None,
        gateway: None,
        gateway_mac: None,
    }
}

#[test]
fn a_chosen_address_is_given_or_refused_with_its_owner() {
    let mut engine = engine_with(Some(PREFIX));
    let chosen = with_ip6(Mode::Dhcp, "default", "2001:db8:1:2::10");
    let made = ask(&mut engine, 1, &create("web", chosen.clone(), false), at(0));
    assert_eq!(vm(&made).ip6, Some("2001:db8:1:2::10".parse().unwrap()));
    ask(&mut engine, 1, &create("own", VmSpec::default(), false), at(0));
    let own = engine.vm(&name("own")).unwrap().record.nics[0].ip6.unwrap().to_string();
    let of_network = crate::engine::ledger::HOST_OWNER;
    for (ip, owner) in [
        ("2001:db8:1:2::10", "web"),
        (&own, "own"),
        ("2001:db8:1:2::1", of_network),
        ("2001:db8:1:2::", of_network),
        ("2001:db8:1:2:fdff:ffff:ffff:ff80", of_network),
        ("2001:db8:1:2:200:5eff:fe00:5213", of_network),
    ] {
        let refusal = refused(&mut engine, "new", with_ip6(Mode::Bridged, "default", ip));
        assert_eq!(refusal, in_use(ip, owner));
    }
    for (network, ip) in
        [("default", "2001:db8:1:3::10"), ("default", "fe80::10"), ("old", "2001:db8:1:2::11")]
    {
        let refusal = refused(&mut engine, "new", with_ip6(Mode::Bridged, network, ip));
        assert!(
            matches!(&refusal, Refusal::InvalidConfig { field, .. } if field == "network.ip6"),
            "{refusal:?}"
        );
    }
    // The Ethernet address of a VM leads to an address that another has chosen.
    let mac: Mac = "02:00:00:00:00:09".parse().unwrap();
    let taken = "2001:db8:1:2:0:ff:fe00:9";
    let spec = with_ip6(Mode::Bridged, "default", taken);
    ask(&mut engine, 1, &create("early", spec, false), at(0));
    let late = NetworkSpec { mac: Some(mac), ..NetworkSpec::default() };
    let late = VmSpec { networks: vec![late], ..VmSpec::default() };
    assert_eq!(refused(&mut engine, "late", late), in_use(taken, "early"));
    // What was refused has taken nothing, and what is released is free.
    delete(&mut engine, "web");
    ask(&mut engine, 1, &create("next", chosen, false), at(0));
    assert!(engine.vm(&name("next")).is_ok());
    assert_eq!(engine.vms().count(), 3);
}

#[test]
fn a_chosen_address_is_taken_over_as_long_as_its_network_has_it() {
    let mut engine = engine_with(Some(PREFIX));
    let chosen = with_ip6(Mode::Bridged, "default", "2001:db8:1:2::10");
    ask(&mut engine, 1, &create("web", chosen, false), at(0));
    ask(&mut engine, 1, &create("own", VmSpec::default(), false), at(0));
    let records: Vec<Record> = engine.vms().map(|vm| Record::clone(&vm.record)).collect();
    for (prefix, stranded) in [(Some(PREFIX), 0), (Some("2001:db8:7::/64"), 1), (None, 1)] {
        let mut next = engine_with(prefix);
        for record in &records {
            let _ = next.restore(record.clone());
        }
        assert_eq!(next.stranded().count(), stranded, "{prefix:?}");
        let own = next.vm(&name("own")).unwrap().record.nics[0].ip6;
        let expected = prefix.map(|prefix| {
            Ipv6Network::new(prefix.parse().unwrap(), false).address_of(records[0].nics[0].mac)
        });
        assert_eq!(own, expected, "it follows from the settings");
        if stranded == 0 {
            let refusal =
                refused(&mut next, "new", with_ip6(Mode::Bridged, "default", "2001:db8:1:2::10"));
            assert_eq!(refusal, in_use("2001:db8:1:2::10", "web"));
        }
    }
}

#[test]
fn a_vm_has_ipv6_alone_where_its_network_has() {
    let mut engine = engine_alone(true);
    let made = ask(&mut engine, 1, &create("web", VmSpec::default(), false), at(0));
    let view = vm(&made);
    assert_eq!((view.ip, view.netmask, view.gateway, &*view.kernel_args), (None, None, None, ""));
    assert!(view.ip6.is_some());
    let network = &engine.networks()[0];
    assert_eq!((network.subnet, network.host_ip, network.leased, network.free), Default::default());
    assert!(network.nat && network.host_ip6.is_some());
    // There are as many as the bridge has ports for.
    for number in 0..300 {
        let name = format!("many-{number}");
        ask(&mut engine, 1, &create(&name, VmSpec::default(), false), at(0));
    }
    assert_eq!(engine.vms().count(), 301);

    let refused_at = |engine: &mut Engine, spec: NetworkSpec| {
        let spec = VmSpec { networks: vec![spec], ..VmSpec::default() };
        match refused(engine, "new", spec) {
            Refusal::InvalidConfig { field, reason } => (field, reason),
            other => panic!("{other:?}"),
        }
    };
    let four: std::net::Ipv4Addr = "192.168.127.9".parse().unwrap();
    let spec = NetworkSpec::default;
    for (spec, field, reason) in [
        (NetworkSpec { ip: Some(four), ..spec() }, "ip", "has no IPv4"),
        (NetworkSpec { addresses: vec![four], ..spec() }, "addresses", "has no IPv4"),
        (NetworkSpec { gateway: Some(four), ..spec() }, "gateway", "no matching network"),
        (NetworkSpec { subnet: "192.168.127.0/24".parse().ok(), ..spec() }, "subnet", "no match"),
        (NetworkSpec { mode: Mode::Dhcp, ..spec() }, "mode", "dhcp is off"),
        (NetworkSpec { inner: Some(Box::new(inner())), ..spec() }, "inner", "IPv4 only"),
    ] {
        let (at, words) = refused_at(&mut engine, spec);
        assert_eq!(at, format!("network.{field}"));
        assert!(words.contains(reason), "{words}");
    }
    // A guest that asks by DHCP all the same gets nothing.
    let mac = engine.vm(&name("web")).unwrap().record.nics[0].mac;
    assert_eq!(engine.guest("default", mac, None).unwrap().claim, Claim::Nothing);
}

/// The rules translate IPv4 alone, and its guest would be known by what it has inside.
#[test]
fn a_guest_with_an_inner_identity_has_no_place_where_ipv6_came_afterwards() {
    let network = NetworkSpec { inner: Some(Box::new(inner())), ..NetworkSpec::default() };
    let spec = VmSpec { networks: vec![network], ..VmSpec::default() };
    let mut engine = engine_with(None);
    ask(&mut engine, 1, &create("clone", spec, false), at(0));
    let record = Record::clone(&engine.vm(&name("clone")).unwrap().record);
    for (prefix, expected) in [
        (None, None),
        (Some(PREFIX), Some("its guest has an inner identity, and default has IPv6")),
    ] {
        let mut next = engine_with(prefix);
        let _ = next.restore(record.clone());
        assert_eq!(next.stranded().next().map(|(_, reason)| reason), expected);
    }
}

#[test]
fn a_network_gets_ipv4_and_loses_it() {
    let records = |engine: &mut Engine| {
        ask(engine, 1, &create("web", VmSpec::default(), false), at(0));
        engine.vms().map(|vm| Record::clone(&vm.record)).collect::<Vec<_>>()
    };
    let restored = |records: &[Record], is_alone: bool| {
        let mut next = engine_alone(is_alone);
        for record in records {
            let _ = next.restore(record.clone());
        }
        next
    };
    // What was made with IPv6 alone keeps that, and new VMs have both.
    let alone = records(&mut engine_alone(true));
    let mut next = restored(&alone, false);
    assert_eq!(next.stranded().count(), 0);
    let nic = next.vm(&name("web")).unwrap().record.nics[0].clone();
    assert_eq!((nic.ip, nic.ip6), (None, alone[0].nics[0].ip6));
    assert_eq!(next.guest("default", nic.mac, None).unwrap().claim, Claim::Nothing);
    let both = ask(&mut next, 1, &create("new", VmSpec::default(), false), at(0));
    assert!(vm(&both).ip.is_some() && vm(&both).ip6.is_some());
    let mut next = engine_with(None);
    let _ = next.restore(alone[0].clone());
    let (_, reason) = next.stranded().next().expect("it has no place");
    assert_eq!(reason, "its addresses are of IPv6, and default has none");
    // An address that is no more is not taken over, and not lost.
    let both = records(&mut engine_alone(false));
    let next = restored(&both, true);
    let (_, reason) = next.stranded().next().expect("it has no place");
    assert!(reason.contains("network default has no IPv4"), "{reason}");
    assert_eq!(restored(&both, false).stranded().count(), 0);
}
