//! The IPv6 addresses of VMs.

use super::*;
use crate::model::net::Ipv6Network;

const PREFIX: &str = "2001:db8:1:2::/64";

/// A host whose first network has this prefix of IPv6.
fn engine_with(prefix: Option<&str>) -> Engine {
    let mut first = network("default", "vbr0", "192.168.127.0/24", "192.168.127.1");
    first.ipv6 = prefix.map(|prefix| Ipv6Network::new(prefix.parse().unwrap(), false));
    let second = network("old", "vbr1", "10.9.9.0/24", "10.9.9.1");
    Engine::new(vec![first, second], "qemu".into(), true).unwrap()
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
