//! Ports of the host that lead to guests.

use super::*;
use crate::model::expose::{Expose, HostPort, Listener, Protocol};
use crate::model::lease::LeaseChange;
use crate::model::nic::Lease;
use crate::plan::ruleset::Value;

fn port(host_port: u16, host_ip: Option<[u8; 4]>) -> Expose {
    let host_ip = host_ip.map(Into::into);
    Expose { protocol: Protocol::Tcp, port: 80, host_port, count: 1, host_ip, name: None }
}

fn with_ports(mode: Mode, ports: &[Expose]) -> VmSpec {
    let network = NetworkSpec { mode, expose: ports.into(), ..NetworkSpec::default() };
    VmSpec { networks: vec![network], ..VmSpec::default() }
}

fn expose(vm: &str, port: Expose) -> Change {
    Change::Expose { name: name(vm), nic: None, port, force: false }
}

fn unexpose(vm: &str, at: HostPort) -> Change {
    Change::Unexpose { name: name(vm), at }
}

fn plan(engine: &mut Engine, request: &Change) -> Vec<Op> {
    match engine.request(1, request, at(0)) {
        Ok(Step::Do(decision)) => {
            let plan = decision.plan.clone();
            done(engine, *decision, at(0));
            plan
        }
        other => panic!("{other:?}"),
    }
}

/// Where the elements of an Op lead.
fn targets(op: &Op) -> Vec<&Value> {
    match op {
        Op::AddElements(elements) | Op::RemoveElements(elements) => {
            let last = elements.iter().filter_map(|element| element.key.last());
            last.filter(|value| matches!(value, Value::Target(..))).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn a_port_that_leads_to_another_vm_is_refused_with_its_name() {
    let mut engine = engine();
    let ports = [port(8080, None), port(9090, Some([203, 0, 113, 1]))];
    ask(&mut engine, 1, &create("web", with_ports(Mode::Bridged, &ports), false), at(0));
    ask(&mut engine, 1, &create("db", VmSpec::default(), false), at(0));
    let udp = Expose { protocol: Protocol::Udp, ..port(8080, None) };
    for (wanted, refused) in [
        (port(8080, None), true),
        (port(8080, Some([203, 0, 113, 1])), true),
        (port(9090, None), true),
        (port(9090, Some([203, 0, 113, 2])), false),
        (udp, false),
    ] {
        let asked = [
            (create("new", with_ports(Mode::Bridged, std::slice::from_ref(&wanted)), false), "new"),
            (expose("db", wanted.clone()), "db"),
        ];
        for (request, vm) in asked {
            let replies = ask(&mut engine, 1, &request, at(0));
            let (protocol, port) = (wanted.protocol, wanted.host_port);
            let refusal = Refusal::PortInUse { protocol, port, owner: "web".into() };
            let in_use = replies == [(1, Err(Error::Refused(refusal)))];
            assert_eq!(in_use, refused, "{wanted:?}: {replies:?}");
            if !refused && vm == "new" {
                ask(&mut engine, 1, &Change::Delete { name: name(vm), timeout_ms: 0 }, at(0));
            }
        }
    }
    // What was refused has taken nothing.
    let leased = engine.networks()[0].leased;
    assert_eq!((leased, engine.vms().count()), (2, 2));
}

#[test]
fn a_vm_whose_address_volnet_does_not_give_has_no_ports() {
    let mut engine = engine();
    let spec = with_ports(Mode::Vsock, &[port(8080, None)]);
    let replies = ask(&mut engine, 1, &create("vault", spec, false), at(0));
    assert!(
        matches!(&replies[0].1, Err(Error::Refused(Refusal::InvalidConfig { field, .. }))
            if field == "expose"),
        "{replies:?}"
    );
}

#[test]
fn the_ports_of_a_guest_that_asks_follow_its_lease() {
    let mut engine = engine();
    let request = create("asks", with_ports(Mode::Dhcp, &[port(8080, None)]), false);
    assert!(plan(&mut engine, &request).iter().all(|op| targets(op).is_empty()));
    let lease =
        |ip: [u8; 4]| LeaseChange::Lease(Lease { ip: ip.into(), until: 9_000_000, given: true });
    for (change, gone, new) in [
        (lease([192, 168, 127, 9]), vec![], vec![[192, 168, 127, 9]]),
        (lease([192, 168, 127, 8]), vec![[192, 168, 127, 9]], vec![[192, 168, 127, 8]]),
        (LeaseChange::Release, vec![[192, 168, 127, 8]], vec![]),
    ] {
        let decision = engine.change_lease(&name("asks"), 0, change, at(0)).unwrap();
        let (mut removed, mut added) = (vec![], vec![]);
        for op in &decision.plan {
            let list = if matches!(op, Op::AddElements(_)) { &mut added } else { &mut removed };
            list.extend(targets(op).into_iter().cloned());
        }
        let to = |ips: Vec<[u8; 4]>| -> Vec<Value> {
            ips.into_iter().map(|ip| Value::Target(ip.into(), 80)).collect()
        };
        assert_eq!((removed, added), (to(gone), to(new)));
        done(&mut engine, decision, at(0));
    }
}

#[test]
fn a_port_that_is_taken_back_takes_its_connections_along() {
    let mut engine = engine();
    ask(&mut engine, 1, &create("web", with_ip("192.168.127.9"), false), at(0));
    let added = plan(&mut engine, &expose("web", port(8080, None)));
    assert!(matches!(&added[..], [Op::AddElements(_)]), "{added:?}");
    let again = engine.request(1, &expose("web", port(8080, None)), at(0));
    assert!(matches!(again, Ok(Step::Reply(_))), "{again:?}");
    let removed = plan(&mut engine, &unexpose("web", port(8080, None).at()));
    let address = [192, 168, 127, 9].into();
    let forget = Op::ForgetFlows { protocol: 6, host_port: 8080, address, port: 80 };
    assert!(
        matches!(&removed[..], [Op::RemoveElements(_), last] if *last == forget),
        "{removed:?}"
    );
    let again = engine.request(1, &unexpose("web", port(8080, None).at()), at(0));
    assert!(matches!(again, Ok(Step::Reply(_))), "{again:?}");
}

#[test]
fn a_port_on_which_the_host_listens_is_refused_unless_forced() {
    let mut engine = engine();
    ask(&mut engine, 1, &create("web", VmSpec::default(), false), at(0));
    let sshd = |ip: Option<[u8; 4]>| Listener {
        at: port(22, ip).at(),
        who: "process 812 (sshd) of this host".into(),
    };
    let forced =
        |wanted| Change::Expose { name: name("web"), nic: None, port: wanted, force: true };
    engine.listened(vec![sshd(Some([192, 0, 2, 1]))]);
    for wanted in [port(22, None), Expose { count: 3, ..port(20, None) }] {
        let refusal = engine.request(1, &expose("web", wanted.clone()), at(0)).unwrap_err();
        let Error::Refused(Refusal::PortInUse { port: 22, owner, .. }) = refusal else {
            panic!("{refusal:?}")
        };
        assert_eq!(owner, "process 812 (sshd) of this host");
        let spec = with_ports(Mode::Bridged, &[wanted]);
        assert!(engine.request(1, &create("db", spec, false), at(0)).is_err());
    }
    for free in [port(23, None), port(22, Some([192, 0, 2, 2]))] {
        assert!(engine.request(1, &expose("web", free.clone()), at(0)).is_ok(), "{free:?}");
    }
    ask(&mut engine, 1, &forced(port(22, None)), at(0));
    // Those who have it keep it.
    let vm = engine.vm(&name("web")).unwrap().record.clone();
    assert!(vm.exposed().any(|there| there.host_port == 22));
}

#[test]
fn who_asks_for_any_port_gets_one_that_nobody_has() {
    let ports = "30000-30003".parse().unwrap();
    let mut engine = engine().with_expose_ports(ports);
    engine.listened(vec![Listener { at: port(30_001, None).at(), who: "a program".into() }]);
    let any = port(0, None);
    let spec = with_ports(Mode::Bridged, &[port(30_000, None), any.clone()]);
    let asked = create("web", spec, false);
    ask(&mut engine, 1, &asked, at(0));
    // To ask for the same again is no other port.
    ask(&mut engine, 1, &asked, at(0));
    ask(&mut engine, 1, &expose("web", any.clone()), at(0));
    let record = engine.vm(&name("web")).unwrap().record.clone();
    let got: Vec<u16> = record.exposed().map(|there| there.host_port).collect();
    assert_eq!(got, [30_000, 30_002, 30_003]);
    assert!(engine.request(1, &expose("web", any), at(0)).is_err(), "none is left");
    let udp = Expose { protocol: Protocol::Udp, count: 4, ..port(0, None) };
    ask(&mut engine, 1, &expose("web", udp), at(0));
}

#[test]
fn a_range_is_an_element_for_each_port() {
    let mut engine = engine();
    ask(&mut engine, 1, &create("web", VmSpec::default(), false), at(0));
    let range = Expose { protocol: Protocol::Sctp, count: 3, ..port(8000, None) };
    let plan_of = plan(&mut engine, &expose("web", range.clone()));
    let to: Vec<&Value> = plan_of.iter().flat_map(targets).collect();
    let wanted = [80, 81, 82].map(|port| Value::Target([192, 168, 127, 2].into(), port));
    assert_eq!(to, wanted.iter().collect::<Vec<_>>());
    let too_many = Expose { count: 1022, ..port(9000, None) };
    assert!(engine.request(1, &expose("web", too_many), at(0)).is_err());
    // It is taken back by its first port.
    let gone = plan(&mut engine, &unexpose("web", HostPort { count: 1, ..range.at() }));
    assert_eq!(gone.iter().flat_map(targets).count(), 3);
}
