use super::*;
use crate::model::error::Reason;
use crate::plan::op::{Handover, LinkSettings, PortSettings};

const ISOLATED: PortSettings = PortSettings { isolated: true, hairpin: false, group_forward: 8 };

fn create_tap(name: &str) -> Op {
    Op::CreateTap {
        name: name.into(),
        owner: Some(0),
        multi_queue: false,
        alias: "volnet:x".into(),
    }
}

fn create_bridge(name: &str) -> Op {
    let mac = "02:00:00:00:00:01".parse().unwrap();
    Op::CreateBridge { name: name.into(), mac, mtu: 1500, alias: "volnet:".into() }
}

fn set(name: &str, set: LinkSettings) -> Op {
    Op::SetLink { name: name.into(), set, former: LinkSettings::default() }
}

fn attach(name: &str, bridge: &str) -> Op {
    let master = Some(Some(bridge.to_string()));
    set(name, LinkSettings { master, port: Some(ISOLATED), ..LinkSettings::default() })
}

fn address(link: &str, last: u8) -> Op {
    Op::AddAddress { link: link.into(), address: [10, 0, 0, last].into(), length: 24 }
}

fn reason(fake: &mut Fake, op: &Op) -> Option<Reason> {
    fake.apply(op).err().and_then(|failure| failure.reason())
}

#[test]
fn refuses_as_linux_does() {
    let mut fake = Fake::new();
    fake.add_link("eth0", LinkKind::Other);
    fake.apply(&create_bridge("vbr0")).unwrap();
    fake.apply(&create_tap("vttap-x")).unwrap();
    fake.apply(&address("vbr0", 1)).unwrap();
    fake.own_table(Family::Ip, "volnet");
    let mtu = LinkSettings { mtu: Some(67), ..LinkSettings::default() };
    let isolated = LinkSettings { port: Some(ISOLATED), ..LinkSettings::default() };
    for (op, expected) in [
        (create_bridge("eth0"), Reason::Exists),
        (create_tap("vbr0"), Reason::Busy),
        (create_tap("vttap-0123456789"), Reason::OutOfRange),
        (attach("vttap-x", "vbr1"), Reason::NoLink),
        (attach("vttap-y", "vbr0"), Reason::NoLink),
        (attach("vttap-x", "eth0"), Reason::Unsupported),
        (set("vttap-x", mtu), Reason::Invalid),
        (set("vttap-x", isolated), Reason::Unsupported),
        (address("vbr1", 1), Reason::NoLink),
        (Op::RemoveTable { family: Family::Ip, name: "volnet" }, Reason::Denied),
    ] {
        assert_eq!(reason(&mut fake, &op), Some(expected), "{op:?}");
    }
    let absent = Op::RemoveAddress { link: "vbr0".into(), address: [10; 4].into(), length: 8 };
    assert_eq!((reason(&mut fake, &address("vbr0", 1)), reason(&mut fake, &absent)), (None, None));
    let gone = Op::DeleteLink { name: "vttap-y".into(), index: None };
    let reused = Op::DeleteLink { name: "vttap-x".into(), index: Some(99) };
    assert_eq!((reason(&mut fake, &gone), reason(&mut fake, &reused)), (None, None));
    assert!(fake.link("vttap-x").is_some(), "another one has that name now");
}

#[test]
fn a_bridge_takes_1023_ports_and_lets_them_go_when_it_ends() {
    let mut fake = Fake::new();
    let bridge = fake.apply(&create_bridge("vbr0")).unwrap().ifindex;
    for n in 0..=BRIDGE_PORTS_MAX {
        let name = format!("vttap-{n}");
        fake.apply(&create_tap(&name)).unwrap();
        let expected = (n == BRIDGE_PORTS_MAX).then_some(Reason::Full);
        assert_eq!(reason(&mut fake, &attach(&name, "vbr0")), expected);
    }
    let first = fake.link("vttap-0").unwrap();
    assert!(first.port == ISOLATED && first.master == bridge && bridge == Some(1));
    fake.delete_link("vbr0");
    assert!(
        fake.kernel
            .observed
            .links
            .iter()
            .all(|link| link.master.is_none() && link.port == PortSettings::default())
    );
    assert_eq!(fake.apply(&create_bridge("vbr0")).unwrap().ifindex, Some(1026), "never reused");
}

#[test]
fn the_first_address_of_a_prefix_takes_the_others_along() {
    let mut fake = Fake::new();
    fake.apply(&create_bridge("vbr0")).unwrap();
    for last in 1..=3 {
        fake.apply(&address("vbr0", last)).unwrap();
    }
    fake.apply(&address("vbr0", 3).undo(None).unwrap()).unwrap();
    assert_eq!(fake.kernel.observed.addresses.len(), 2);
    fake.apply(&address("vbr0", 1).undo(None).unwrap()).unwrap();
    assert_eq!(fake.kernel.observed.addresses, []);
}

#[test]
fn what_it_keeps_of_an_address_goes_when_it_is_told_so_or_with_the_link() {
    let mut fake = Fake::new();
    let bridge = fake.apply(&create_bridge("vbr0")).unwrap().ifindex.unwrap();
    let [one, two, three] = [1, 2, 3].map(|last| IpAddr::from([10, 0, 0, last]));
    fake.kernel.neighbours = [(bridge, one), (bridge, two), (bridge + 1, one)].into();
    fake.kernel.flows = [(one, two), (two, three), (three, one)].into();
    let at = Handover::Assigned;
    fake.apply(&Op::ForgetAddress { link: "vbr0".into(), address: one, at }).unwrap();
    assert_eq!(fake.kernel.neighbours, [(bridge, two), (bridge + 1, one)].into());
    assert_eq!(fake.kernel.flows, [(two, three)].into());
    fake.delete_link("vbr0");
    assert_eq!(fake.kernel.neighbours, [(bridge + 1, one)].into());
    let gone = Op::ForgetAddress { link: "vbr0".into(), address: two, at };
    assert_eq!((reason(&mut fake, &gone), fake.kernel.flows.len()), (None, 0));
}

#[test]
fn fails_once_where_it_was_told_to() {
    let mut fake = Fake::new();
    fake.fail(1, KernelFault::Refused(Reason::Denied));
    fake.apply(&create_tap("vttap-x")).unwrap();
    let failure = fake.apply(&attach("vttap-x", "vbr0")).unwrap_err();
    assert_eq!(failure.reason(), Some(Reason::NoLink), "what Linux refuses by itself comes first");
    fake.fail(1, KernelFault::Refused(Reason::Denied));
    fake.apply(&create_bridge("vbr0")).unwrap();
    let failure = fake.apply(&attach("vttap-x", "vbr0")).unwrap_err();
    assert_eq!(failure.to_string(), "attach link vttap-x to vbr0: refused: Denied");
    assert!(fake.link("vttap-x").unwrap().port == ISOLATED, "half done at its worst");
}
