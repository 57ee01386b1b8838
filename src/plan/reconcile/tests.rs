use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::model::error::Reason;
use crate::model::limits::Limits;
use crate::model::mac::Mac;
use crate::model::name::{TapName, VmName};
use crate::model::net::Ipv6Network;
use crate::model::nic::{Nic, NicName};
use crate::model::request::NOBODY;
use crate::model::spec::NetworkSpec;
use crate::model::traffic::{InForce, Traffic};
use crate::network::Network;
use crate::network::execute::{execute, execute_all};
use crate::network::fake::{Fake, KernelFault};
use crate::plan::op::{Filtered, LinkSettings};
use crate::plan::ruleset::{
    self, Chain, ChainKind, Direction, Element, Field, GuestPort, Hook, Rule, Set, SetKind, Value,
    Verdict,
};

/// A host to be: networks, and the VMs on them.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) networks: Vec<NetworkConfig>,
    pub(crate) vms: Vec<(VmName, Nic, NetworkSpec)>,
}

impl Host {
    /// Two networks and no VM.
    pub(crate) fn new() -> Host {
        let mut networks = vec![network("default", 0), network("lab", 1)];
        networks[1].services = true;
        Host { networks, vms: Vec::new() }
    }

    /// The same with some VMs, on one network and the other by turns.
    pub(crate) fn with_vms(count: u8) -> Host {
        let mut host = Host::new();
        for n in 0..count {
            let spec = NetworkSpec {
                queues: Some(1 + u16::from(n % 3)),
                mtu: (n % 4 == 1).then_some(1400),
                traffic: Traffic { isolated: (n % 2 == 1).then_some(true), ..Traffic::default() },
                ..NetworkSpec::default()
            };
            host.add(&format!("vm{n}"), n, spec);
        }
        host
    }

    fn add(&mut self, name: &str, n: u8, spec: NetworkSpec) {
        let vm = VmName::new(name).unwrap();
        let network = &self.networks[usize::from(n) % 2];
        let port = Nic {
            network: network.name.clone(),
            tap: TapName::choose(NicName { vm: &vm, index: 0 }, |_| false),
            ifindex: None,
            mac: Mac::of_guest(&network.name, name),
            ip: network
                .ipv4
                .map(|ipv4| Ipv4Addr::from_bits(ipv4.host.to_bits() + 1 + u32::from(n))),
            ip6: None,
            inner: None,
            claimed: Vec::new(),
            lease: None,
            exposed: Vec::new(),
            traffic: Traffic::default(),
        };
        self.vms.push((vm, port, spec));
    }

    pub(crate) fn port(&self, at: usize) -> DesiredPort<'_> {
        let (vm, port, spec) = &self.vms[at];
        let network = self.networks.iter().find(|network| network.name == port.network).unwrap();
        let traffic = InForce::of([&spec.traffic, &network.traffic]);
        DesiredPort::new(NicName { vm, index: 0 }, port, spec, network, traffic)
    }

    pub(crate) fn elements(&self, at: usize) -> Vec<Element> {
        let key = vec![Value::Address(self.vms[at].1.ip.unwrap().into())];
        vec![Element { family: Family::Ip, table: "volnet", set: "guests".into(), key }]
    }

    pub(crate) fn desired(&self) -> Desired<'_> {
        Desired {
            networks: self.networks.iter().collect(),
            ports: (0..self.vms.len()).map(|at| self.port(at)).collect(),
            tables: vec![self.table()],
            forwarding: Some(true),
            forwarding6: self.networks.iter().any(|it| it.ipv6.is_some()).then_some(true),
            ..Desired::default()
        }
    }

    fn table(&self) -> Table {
        let guests = (0..self.vms.len()).flat_map(|at| self.elements(at));
        let guests = guests.map(|element| element.key).collect();
        let rule = Rule { matches: vec![], verdict: Verdict::Masquerade };
        Table {
            family: Family::Ip,
            name: "volnet",
            owned: true,
            sets: vec![Set {
                name: "guests".into(),
                key: &[Field::Ipv4],
                kind: SetKind::Values,
                kept: false,
                elements: guests,
            }],
            chains: vec![Chain {
                name: "postrouting",
                kind: ChainKind::Nat,
                hook: Hook::Postrouting,
                priority: 100,
                rules: vec![rule],
            }],
        }
    }

    /// A kernel on which this host was set up.
    pub(crate) fn kernel(&self) -> Fake {
        let mut fake = bare_kernel();
        assert_eq!(self.settle(&mut fake), []);
        fake
    }

    /// Makes a kernel as this host should be; gives the problems that stay.
    pub(crate) fn settle(&self, fake: &mut Fake) -> Vec<Problem> {
        let reconciled = reconcile(&self.desired(), &fake.observe().unwrap());
        for result in execute_all(fake, &reconciled.plan, NOBODY) {
            result.unwrap();
        }
        reconciled.problems
    }

    fn drift(&self, fake: &mut Fake) -> Reconciled {
        reconcile(&self.desired(), &fake.observe().unwrap())
    }
}

/// Chains of this name for accept rules, in each family.
fn chains(name: &str) -> BTreeMap<Family, String> {
    [Family::Ip, Family::Ip6].map(|family| (family, name.to_string())).into()
}

/// A kernel with an uplink and chains for accept rules, and nothing of ours.
pub(crate) fn bare_kernel() -> Fake {
    let mut fake = Fake::new();
    fake.add_link("eth0", LinkKind::Other);
    fake.kernel.observed.accept_chains = chains("DOCKER-USER");
    fake
}

fn network(name: &str, n: u8) -> NetworkConfig {
    let bridge = format!("vbr{n}");
    NetworkConfig {
        ipv6: (n == 1).then(|| Ipv6Network::new("fd00:1::/64".parse().unwrap(), true)),
        ..NetworkConfig::sample(name, &bridge, &format!("10.{n}.0.0/16"), &format!("10.{n}.0.1"))
    }
}

/// The one Op of a plan.
fn only(mut reconciled: Reconciled) -> Op {
    assert_eq!((reconciled.plan.len(), &*reconciled.problems), (1, &[][..]), "{reconciled:?}");
    reconciled.plan.remove(0)
}

#[test]
fn an_empty_kernel_is_set_up_in_order() {
    let host = Host { networks: vec![network("default", 0)], vms: vec![] };
    let plan = host.drift(&mut bare_kernel()).plan;
    let steps: Vec<_> = plan.iter().map(|op| op.describe().0).collect();
    assert_eq!(
        steps,
        [
            "create bridge",
            "set link",
            "add address",
            "create table",
            "set",
            "add accept rule",
            "add accept rule"
        ]
    );
}

#[test]
fn nothing_desired_takes_all_of_ours_and_nothing_else() {
    let mut fake = Host::with_vms(5).kernel();
    let desired = Desired {
        forwarding: Some(false),
        forwarding6: Some(false),
        accepted: BTreeSet::from(["eth0".into()]),
        ..Desired::default()
    };
    let reconciled = reconcile(&desired, &fake.observe().unwrap());
    assert!(matches!(reconciled.plan.last(), Some(Op::DeleteLink { name, .. }) if name == "vbr1"));
    execute(&mut fake, &reconciled.plan, NOBODY).unwrap();
    assert_eq!(fake.kernel, bare_kernel().kernel);
}

#[test]
fn one_vm_alone_takes_the_same_steps_as_among_all() {
    let mut host = Host::with_vms(2);
    let mut fake = host.kernel();
    host.add("vm2", 2, NetworkSpec::default());
    let general = host.drift(&mut fake).plan;
    assert_eq!(general, attach_plan(&[host.port(2)], vec![], host.elements(2)));

    host.settle(&mut fake);
    let elements = host.elements(2);
    let (vm, mut port, spec) = host.vms.pop().unwrap();
    port.ifindex = fake.link("vttap-vm2").map(|link| link.index);
    let (name, network) = (NicName { vm: &vm, index: 0 }, &host.networks[0]);
    let desired = DesiredPort::new(name, &port, &spec, network, network.traffic());
    assert_eq!(host.drift(&mut fake).plan, release_plan(&[desired], elements, vec![]));
}

#[test]
fn a_link_that_others_changed_is_set_right_in_one_op() {
    let host = Host::with_vms(2);
    let mut fake = host.kernel();
    let other = fake.add_link("br-other", LinkKind::Bridge);
    let link = fake.link_mut("vttap-vm0").unwrap();
    (link.master, link.up, link.mtu) = (Some(other), false, 9000);
    link.alias = Some("volnet:who".into());
    let op = only(host.drift(&mut fake));
    let Op::SetLink { name, set, former } = &op else { panic!("{op:?}") };
    assert_eq!(name, "vttap-vm0");
    let expected = LinkSettings {
        master: Some(Some("vbr0".into())),
        up: Some(true),
        mtu: Some(1500),
        alias: Some("volnet:vm0".into()),
        port: Some(PortSettings { isolated: false, hairpin: false, group_forward: GROUP_FORWARD }),
        ..LinkSettings::default()
    };
    assert_eq!(*set, expected);
    assert_eq!(former.master, Some(Some("br-other".into())));
    let before = fake.kernel.clone();
    fake.apply(&op).unwrap();
    fake.apply(&op.undo(None).unwrap()).unwrap();
    assert_eq!(fake.kernel, before);
}

#[test]
fn a_bridge_has_the_configured_settings_and_no_other_address() {
    let host = Host::new();
    let mut fake = host.kernel();
    let link = fake.link_mut("vbr0").unwrap();
    (link.up, link.mtu, link.mac) = (false, 9000, Mac([2; 6]));
    let index = link.index;
    // The host's address was taken away and came back behind another one of its prefix.
    let addresses = &mut fake.kernel.observed.addresses;
    addresses.retain(|(link, ..)| *link != index);
    addresses.push((index, [10, 0, 7, 7].into(), 16));
    addresses.push((index, [10, 0, 0, 1].into(), 16));
    addresses.push((index, [192, 0, 2, 1].into(), 24));
    let plan = host.drift(&mut fake).plan;
    let steps: Vec<_> = plan.iter().map(Op::describe).collect();
    let expected = [
        ("set link", "vbr0"),
        ("remove address", "192.0.2.1/24 from vbr0"),
        ("remove address", "10.0.0.1/16 from vbr0"),
        ("remove address", "10.0.7.7/16 from vbr0"),
        ("add address", "10.0.0.1/16 to vbr0"),
    ];
    assert_eq!(steps, expected.map(|(operation, object)| (operation, object.to_string())));
    host.settle(&mut fake);
    assert_eq!(host.drift(&mut fake), Reconciled::default());
    let addresses = &fake.kernel.observed.addresses;
    assert_eq!(addresses.iter().filter(|(link, ..)| *link == index).count(), 1);
}

#[test]
fn a_link_sends_as_fast_as_it_should() {
    let limits = |rx_mbit| Limits { rx_mbit, ..Limits::default() };
    let with = |rx_mbit| {
        let mut host = Host::with_vms(2);
        host.vms[1].2.traffic.limits = limits(rx_mbit);
        host
    };
    let right = limits(Some(100)).shaping();
    let mut fake = with(None).kernel();
    let shaping = |fake: &Fake| fake.link("vttap-vm1").unwrap().shaping;
    for (rx_mbit, expected) in [(Some(100), right), (Some(0), None)] {
        let before = fake.kernel.clone();
        let op = only(with(rx_mbit).drift(&mut fake));
        fake.apply(&op).unwrap();
        assert_eq!(shaping(&fake), expected);
        fake.apply(&op.undo(None).unwrap()).unwrap();
        assert_eq!(fake.kernel, before);
        fake.apply(&op).unwrap();
    }
    // A tap that is made anew is held back as the former was, and one that is held back otherwise
    // is put right.
    let host = with(Some(100));
    host.settle(&mut fake);
    fake.delete_link("vttap-vm1");
    host.settle(&mut fake);
    assert_eq!(shaping(&fake), right);
    fake.link_mut("vttap-vm1").unwrap().shaping = limits(Some(1)).shaping();
    let Op::ShapeLink { to, former, .. } = only(host.drift(&mut fake)) else { panic!() };
    assert_eq!((to, former), (right, limits(Some(1)).shaping()));
}

#[test]
fn foreign_links_are_named_and_left_alone() {
    let host = Host::with_vms(2);
    let mut fake = bare_kernel();
    fake.add_link("vbr0", LinkKind::Bridge);
    fake.add_link("vttap-vm1", LinkKind::Other);
    let before = fake.kernel.observed.links.clone();
    let problems = host.settle(&mut fake);
    let words: Vec<_> = problems.iter().map(Problem::to_string).collect();
    assert!(
        words[0].starts_with("bridge vbr0 is not volnet's: link 2 is a bridge without an alias")
    );
    assert_eq!(
        words[1],
        "tap vttap-vm1 of VM vm1 is not volnet's: link 3 is neither bridge nor tap without an alias"
    );
    assert_eq!(fake.kernel.observed.links[..3], before, "nothing was changed");
    assert!(fake.link("vttap-vm0").is_none(), "nothing is attached to a foreign bridge");
    fake.link_mut("vbr0").unwrap().alias = Some(ALIAS.into());
    assert_eq!(host.settle(&mut fake).len(), 1, "a bridge can be handed over");
    assert!(fake.link("vttap-vm0").is_some());
}

#[test]
fn a_tap_made_otherwise_is_made_anew_unless_it_is_in_use() {
    let host = Host::with_vms(1);
    let mut fake = host.kernel();
    let link = fake.link_mut("vttap-vm0").unwrap();
    let LinkKind::Tap { multi_queue, .. } = &mut link.kind else { panic!() };
    *multi_queue = true;
    link.carrier = true;
    let busy = host.drift(&mut fake);
    assert!(busy.plan.is_empty() && matches!(busy.problems[..], [Problem::TapInUse { .. }]));
    fake.link_mut("vttap-vm0").unwrap().carrier = false;
    let steps: Vec<_> = host.drift(&mut fake).plan.iter().map(|op| op.describe().0).collect();
    assert_eq!(steps, ["delete neighbour", "delete link", "create tap", "attach link"]);
}

#[test]
fn a_parked_tap_stays_off_its_bridge_and_loses_it_before_its_elements() {
    let mut fake = Host::with_vms(2).kernel();
    let host = Host::with_vms(1);
    fake.link_mut("vttap-vm1").unwrap().carrier = true;
    let desired = Desired { parked: ["vttap-vm1", "vttap-none"].into(), ..host.desired() };
    let Reconciled { plan, problems } = reconcile(&desired, &fake.kernel.observed);
    let steps: Vec<_> = plan.iter().map(Op::describe).collect();
    assert_eq!((steps[0].0, &*steps[0].1), ("set link", "vttap-vm1"), "{steps:?}");
    assert!(problems.is_empty() && steps.iter().all(|step| step.0 != "delete link"));
    execute_all(&mut fake, &plan, NOBODY);
    let link = fake.link("vttap-vm1").unwrap();
    assert_eq!((link.master, link.up, link.carrier), (None, false, true));
    assert_eq!(reconcile(&desired, &fake.kernel.observed), Reconciled::default());
    // Its VM has its place again.
    let host = Host::with_vms(2);
    host.settle(&mut fake);
    assert!(fake.link("vttap-vm1").unwrap().master.is_some());
    // A link of somebody else is left as it is.
    fake.link_mut("vttap-vm1").unwrap().alias = None;
    let host = Host::with_vms(1);
    let desired = Desired { parked: ["vttap-vm1"].into(), ..host.desired() };
    let plan = reconcile(&desired, &fake.kernel.observed).plan;
    assert!(plan.iter().all(|op| op.link() != Some("vttap-vm1")), "{plan:?}");
}

#[test]
fn a_tap_that_is_held_open_and_belongs_to_no_vm_stays_until_it_is_evicted() {
    let mut fake = Host::with_vms(2).kernel();
    let host = Host::with_vms(1);
    fake.link_mut("vttap-vm1").unwrap().carrier = true;
    let held = host.drift(&mut fake);
    assert!(held.plan.iter().all(|op| op.describe().0 != "delete link"), "{:?}", held.plan);
    let [problem] = &held.problems[..] else { panic!("{:?}", held.problems) };
    assert!(problem.is_left_over());
    let words = problem.to_string();
    assert!(words.starts_with("tap vttap-vm1 belongs to no VM and a process holds it open"));
    assert!(words.contains(r#"the alias "volnet:vm1""#), "{words}");
    // It is off its bridge before its elements are gone.
    let steps: Vec<_> = held.plan.iter().map(Op::describe).collect();
    assert_eq!((steps[0].0, &*steps[0].1), ("set link", "vttap-vm1"), "{steps:?}");
    assert!(steps[1..].iter().any(|step| step.0 == "remove elements"), "{steps:?}");
    execute_all(&mut fake, &held.plan, NOBODY);
    let link = fake.link("vttap-vm1").unwrap();
    assert_eq!((link.master, link.up, link.carrier), (None, false, true));
    assert!(host.drift(&mut fake).plan.is_empty());

    let evicted = Desired { evict: true, ..host.desired() };
    let evicted = reconcile(&evicted, &fake.kernel.observed);
    let steps: Vec<_> = evicted.plan.iter().map(|op| op.describe().0).collect();
    assert!(steps.contains(&"delete link") && evicted.problems.is_empty(), "{steps:?}");
    fake.link_mut("vttap-vm1").unwrap().carrier = false;
    assert!(host.settle(&mut fake).is_empty() && fake.link("vttap-vm1").is_none());
}

#[test]
fn a_bridge_stays_as_long_as_something_is_attached_to_it() {
    let mut fake = Host::with_vms(1).kernel();
    let bridge = fake.link("vbr0").unwrap().index;
    fake.add_link("eth1", LinkKind::Other);
    fake.link_mut("eth1").unwrap().master = Some(bridge);
    let nothing = |evict| Desired { evict, ..Desired::default() };
    let removed = |fake: &Fake, evict| {
        let Reconciled { plan, problems } = reconcile(&nothing(evict), &fake.kernel.observed);
        let of_links = plan.iter().map(Op::describe).filter(|step| step.0 == "delete link");
        let names: Vec<_> = of_links.map(|step| step.1).collect();
        (names, problems.iter().map(Problem::to_string).collect::<Vec<_>>())
    };
    let (names, problems) = removed(&fake, true);
    assert_eq!(names, ["vttap-vm0", "vbr1"]);
    assert_eq!(problems, ["bridge vbr0 belongs to no network and has ports: eth1; it stays"]);
    fake.link_mut("eth1").unwrap().master = None;
    fake.link_mut("vttap-vm0").unwrap().carrier = true;
    let (names, problems) = removed(&fake, false);
    let bridges = vec!["vbr0".into(), "vbr1".into()];
    assert_eq!((names, problems.len()), (bridges, 1), "{problems:?}");
    assert_eq!(removed(&fake, true).0, ["vttap-vm0", "vbr0", "vbr1"]);
}

#[test]
fn a_known_index_proves_a_tap_that_lost_its_alias() {
    let mut host = Host::with_vms(1);
    let mut fake = host.kernel();
    fake.link_mut("vttap-vm0").unwrap().alias = None;
    assert!(matches!(host.drift(&mut fake).problems[..], [Problem::TapTaken { .. }]));
    host.vms[0].1.ifindex = fake.link("vttap-vm0").map(|link| link.index);
    let op = only(host.drift(&mut fake));
    assert!(matches!(op, Op::SetLink { set, .. } if set.alias == Some("volnet:vm0".into())));
}

#[test]
fn only_elements_that_differ_are_touched() {
    let host = Host::with_vms(3);
    let mut fake = host.kernel();
    let stray = vec![Value::Address(IpAddr::from([192, 0, 2, 9]))];
    let lost = host.elements(1);
    let keys = &mut fake.table_mut(Family::Ip, "volnet").unwrap().sets[0].1;
    keys.retain(|key| *key != lost[0].key);
    keys.push(stray.clone());
    let stray = vec![Element { key: stray, ..lost[0].clone() }];
    assert_eq!(host.drift(&mut fake).plan, [Op::RemoveElements(stray), Op::AddElements(lost)]);
    fake.table_mut(Family::Ip, "volnet").unwrap().fingerprint = None;
    assert!(matches!(only(host.drift(&mut fake)), Op::ReplaceTable(_)));
    let mut fake = host.kernel();
    fake.table_mut(Family::Ip, "volnet").unwrap().owned = Some(false);
    assert!(matches!(only(host.drift(&mut fake)), Op::ReplaceTable(_)));
}

#[test]
fn what_packets_taught_is_left_alone_and_taken_along() {
    let host = Host::with_vms(1);
    let networks: Vec<&NetworkConfig> = host.networks.iter().collect();
    let desired =
        Desired { tables: ruleset::tables(&networks, &[], vec![], true), ..host.desired() };
    let mut fake = bare_kernel();
    let plan = reconcile(&desired, &fake.kernel.observed).plan;
    execute(&mut fake, &plan, NOBODY).unwrap();
    let lease = vec![
        Value::Link("vttap-vm0".into()),
        Value::Bytes(vec![2; 6]),
        Value::Bytes(vec![10, 0, 0, 9]),
    ];
    let table = fake.table_mut(Family::Bridge, "volnet").unwrap();
    for (name, keys) in &mut table.sets {
        match name.as_str() {
            "leases" => keys.push(lease.clone()),
            "storms" => keys.push(lease[..1].to_vec()),
            _ => {}
        }
    }
    assert_eq!(reconcile(&desired, &fake.kernel.observed).plan, []);
    fake.table_mut(Family::Bridge, "volnet").unwrap().fingerprint = None;
    let op = only(reconcile(&desired, &fake.kernel.observed));
    let Op::ReplaceTable(table) = op else { panic!("{op:?}") };
    let learned: Vec<&Set> =
        table.sets.iter().filter(|set| matches!(set.kind, SetKind::Learned { .. })).collect();
    assert_eq!(
        learned.iter().map(|set| set.name.as_ref()).collect::<Vec<_>>(),
        ["leases", "storms", "claims"]
    );
    assert_eq!((&learned[0].elements, &learned[1].elements), (&vec![lease], &vec![]));
}

#[test]
fn a_kernel_without_rules_for_bridges_takes_no_guest_that_is_to_be_held() {
    let host = Host::with_vms(1);
    let networks: Vec<&NetworkConfig> = host.networks.iter().collect();
    let tables = ruleset::tables(&networks, &[], vec![], true);
    let desired = Desired { tables, ports: vec![], ..host.desired() };
    let mut fake = bare_kernel();
    let plan = reconcile(&desired, &fake.kernel.observed).plan;
    let of_bridges =
        |op: &Op| matches!(op, Op::CreateTable(table) if table.family == Family::Bridge);
    fake.fail(plan.iter().position(of_bridges).unwrap(), KernelFault::Refused(Reason::Unsupported));
    let failed = execute_all(&mut fake, &plan, NOBODY).into_iter().filter(Result::is_err).count();
    assert_eq!(failed, 1);
    let before = fake.kernel.clone();
    let (_, port, _) = &host.vms[0];
    let elements = ruleset::elements(&GuestPort {
        tap: &port.tap,
        mac: port.mac,
        ip: port.ip,
        addresses: &[],
        asks_others: false,
        antispoof: true,
        ip6: None,
        claimed: &[],
        isolated: false,
        limits: Limits::default(),
        inner: None,
    });
    let plan = attach_plan(&[host.port(0)], vec![], elements);
    let failure = execute(&mut fake, &plan, NOBODY).unwrap_err().to_string();
    assert!(failure.contains("table bridge volnet"), "{failure}");
    assert_eq!(fake.kernel, before);
}

#[test]
fn a_kernel_without_ipv6_needs_no_rules_for_it() {
    let host = Host::new();
    let networks: Vec<&NetworkConfig> = host.networks.iter().collect();
    let desired =
        Desired { tables: ruleset::tables(&networks, &[], vec![], true), ..host.desired() };
    let mut fake = bare_kernel();
    let made = |fake: &Fake| {
        let plan = reconcile(&desired, &fake.kernel.observed).plan;
        let of_table = |op: &Op| match op {
            Op::CreateTable(table) => Some(table.family),
            _ => None,
        };
        plan.iter().filter_map(of_table).collect::<Vec<_>>()
    };
    assert_eq!(made(&fake), [Family::Ip, Family::Ip6, Family::Bridge]);
    fake.kernel.observed.without_ipv6 = true;
    assert_eq!(made(&fake), [Family::Ip, Family::Bridge]);
}

#[test]
fn services_need_a_kernel_with_rules_for_bridged_frames() {
    let host = Host::with_vms(2);
    let mut fake = host.kernel();
    let lab = fake.link("vbr1").unwrap();
    assert_eq!(lab.filtered, Some(Filtered { ipv4: true, ipv6: true }));
    assert_eq!(fake.link("vbr0").unwrap().filtered, Some(Filtered::default()));
    // A kernel that could, and has not loaded the module.
    fake.kernel.observed.without_bridge_filter = true;
    let Reconciled { plan, problems } = reconcile(&host.desired(), &fake.kernel.observed);
    assert_eq!((plan, problems.len()), (vec![], 1));
    assert!(problems[0].to_string().contains("modprobe br_netfilter"), "{}", problems[0]);
    // One that has no such rules at all: nothing is tried in vain.
    fake.link_mut("vbr1").unwrap().filtered = None;
    assert_eq!(reconcile(&host.desired(), &fake.kernel.observed).plan, []);
}

#[test]
fn an_address_that_a_vm_had_is_forgotten_unless_another_has_it() {
    let mut fake = Host::with_vms(3).kernel();
    let host = Host::with_vms(2);
    let (lost, kept) = (IpAddr::from([10, 0, 0, 4]), IpAddr::from([10, 0, 0, 2]));
    let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
    let bridge = fake.link("vbr0").unwrap().index;
    fake.kernel.neighbours = [(bridge, lost), (bridge, kept)].into();
    fake.kernel.flows = [(lost, kept), (kept, localhost)].into();
    // An element too many for an address that a VM has, and one of an address that is not ours.
    let keys = &mut fake.table_mut(Family::Ip, "volnet").unwrap().sets[0].1;
    keys.push(vec![Value::Link("vttap-x".into()), Value::Address([10, 0, 0, 2].into())]);
    keys.push(vec![Value::Address(IpAddr::from([192, 0, 2, 9]))]);
    let plan = host.drift(&mut fake).plan;
    let steps: Vec<_> = plan.iter().map(|op| op.describe().0).collect();
    assert_eq!(steps, ["delete link", "remove elements", "delete neighbour"]);
    host.settle(&mut fake);
    assert_eq!(fake.kernel.neighbours, [(bridge, kept)].into());
    assert_eq!(fake.kernel.flows, [(kept, localhost)].into());
}

#[test]
fn accept_rules_are_there_once_where_a_chain_is() {
    let host = Host { networks: vec![network("default", 0)], vms: vec![] };
    let mut fake = host.kernel();
    let (one, two) = {
        let accepts = &mut fake.kernel.observed.accepts;
        accepts.push(accepts[0].clone());
        let stray = Accept { bridge: "vbr9".into(), ..accepts[1].clone() };
        accepts[1] = stray.clone();
        (accepts[0].clone(), stray)
    };
    let out = Accept { direction: Direction::Out, ..one.clone() };
    assert_eq!(
        host.drift(&mut fake).plan,
        [
            Op::RemoveAccept(one.clone()),
            Op::RemoveAccept(two),
            Op::AddAccept(one),
            Op::AddAccept(out)
        ]
    );
    fake.kernel.observed.accept_chains.clear();
    assert!(!host.drift(&mut fake).plan.iter().any(|op| matches!(op, Op::AddAccept(_))));
}

/// One change that others make.
#[derive(Clone, Debug)]
enum Meddle {
    Delete(usize),
    Down(usize),
    Mtu(usize),
    Mac(usize),
    Alias(usize, Option<&'static str>),
    Master(usize, usize),
    Isolate(usize),
    Snoop(usize),
    Groups(usize),
    Reflag(usize),
    Carrier(usize),
    Rename(usize, &'static str),
    Link(&'static str, LinkKind),
    Address(usize, u8, u8),
    Forwarding(bool),
    Switch(u8),
    Address6(usize, u8),
    NoAddresses6,
    NoTable,
    Fingerprint,
    Owned,
    Element(u8),
    LoseElements,
    Accepts(usize),
    Chain(Option<&'static str>),
}

const NAMES: [&str; 6] = ["vbr0", "vbr1", "vttap-vm0", "vttap-vm1", "vttap-vm2", "foreign"];
const ALIASES: [Option<&str>; 5] =
    [None, Some("volnet:"), Some("volnet:vm0"), Some("volnet:gone"), Some("mine")];

fn meddle() -> impl Strategy<Value = Meddle> {
    let tap = any::<(bool, bool, bool)>().prop_map(|(vnet_hdr, multi_queue, persistent)| {
        LinkKind::Tap { vnet_hdr, multi_queue, persistent, owner: None }
    });
    let kind = prop_oneof![Just(LinkKind::Bridge), Just(LinkKind::Other), tap];
    let at = 0_usize..12;
    prop_oneof![
        at.clone().prop_map(Meddle::Delete),
        at.clone().prop_map(Meddle::Down),
        at.clone().prop_map(Meddle::Mtu),
        at.clone().prop_map(Meddle::Mac),
        (at.clone(), prop::sample::select(&ALIASES[..])).prop_map(|(at, to)| Meddle::Alias(at, to)),
        (at.clone(), at.clone()).prop_map(|(at, to)| Meddle::Master(at, to)),
        at.clone().prop_map(Meddle::Isolate),
        at.clone().prop_map(Meddle::Snoop),
        at.clone().prop_map(Meddle::Groups),
        at.clone().prop_map(Meddle::Reflag),
        at.clone().prop_map(Meddle::Carrier),
        (at.clone(), prop::sample::select(&NAMES[..])).prop_map(|(at, to)| Meddle::Rename(at, to)),
        (prop::sample::select(&NAMES[..]), kind).prop_map(|(name, kind)| Meddle::Link(name, kind)),
        (at.clone(), 0_u8..3, 0_u8..3).prop_map(|(at, n, host)| Meddle::Address(at, n, host)),
        any::<bool>().prop_map(Meddle::Forwarding),
        (0_u8..2).prop_map(Meddle::Switch),
        (at.clone(), 0_u8..3).prop_map(|(at, host)| Meddle::Address6(at, host)),
        Just(Meddle::NoAddresses6),
        Just(Meddle::NoTable),
        Just(Meddle::Fingerprint),
        Just(Meddle::Owned),
        (0_u8..5).prop_map(Meddle::Element),
        Just(Meddle::LoseElements),
        (0_usize..4).prop_map(Meddle::Accepts),
        prop::sample::select(&[None, Some("FORWARD"), Some("DOCKER-USER")][..])
            .prop_map(Meddle::Chain),
    ]
}

impl Meddle {
    fn apply(self, fake: &mut Fake) {
        let names: Vec<String> =
            fake.kernel.observed.links.iter().map(|link| link.name.clone()).collect();
        let name = |at: usize| names[at % names.len()].clone();
        let observed = &mut fake.kernel.observed;
        let indices: Vec<u32> = observed.links.iter().map(|link| link.index).collect();
        let count = observed.links.len();
        match self {
            Meddle::Delete(at) if count > 1 => fake.delete_link(&name(at)),
            Meddle::Delete(_) => {}
            Meddle::Down(at) => observed.links[at % count].up = false,
            Meddle::Mtu(at) => observed.links[at % count].mtu = 1280,
            Meddle::Mac(at) => observed.links[at % count].mac = Mac([6; 6]),
            Meddle::Alias(at, to) => observed.links[at % count].alias = to.map(String::from),
            Meddle::Master(at, to) => {
                let bridge = &observed.links[to % count];
                let index = (bridge.kind == LinkKind::Bridge).then_some(bridge.index);
                let link = &mut observed.links[at % count];
                if link.kind != LinkKind::Bridge {
                    link.leave();
                    link.master = index;
                }
            }
            Meddle::Isolate(at) => {
                let link = &mut observed.links[at % count];
                link.port.isolated = link.master.is_some();
                link.port.hairpin = link.master.is_some();
                let filtered = link.filtered.iter_mut();
                filtered.for_each(|filtered| filtered.ipv6 = !filtered.ipv6);
            }
            Meddle::Snoop(at) => {
                let link = &mut observed.links[at % count];
                link.snooping = link.kind == LinkKind::Bridge;
            }
            Meddle::Groups(at) => {
                let link = &mut observed.links[at % count];
                link.port.group_forward = u16::from(link.master.is_some());
            }
            Meddle::Reflag(at) => {
                if let LinkKind::Tap { vnet_hdr, .. } = &mut observed.links[at % count].kind {
                    *vnet_hdr = !*vnet_hdr;
                }
            }
            Meddle::Carrier(at) => observed.links[at % count].carrier = true,
            Meddle::Rename(at, to) if !names.iter().any(|name| name == to) => {
                observed.links[at % count].name = to.to_string();
            }
            Meddle::Link(to, kind) if !names.iter().any(|name| name == to) => {
                fake.add_link(to, kind);
            }
            Meddle::Rename(..) | Meddle::Link(..) => {}
            Meddle::Address(at, n, host) => {
                let entry = (indices[at % count], [10, n, 0, host].into(), 16);
                if !observed.addresses.contains(&entry) {
                    observed.addresses.push(entry);
                }
            }
            Meddle::Forwarding(on) => observed.forwarding = on,
            Meddle::Switch(to) => {
                observed.switches.values_mut().for_each(|value| *value = to);
            }
            Meddle::Address6(at, host) => {
                let address = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, host.into());
                let entry = (indices[at % count], address.into(), 64);
                if !observed.addresses.contains(&entry) {
                    observed.addresses.push(entry);
                }
            }
            Meddle::NoAddresses6 => observed.addresses.retain(|(_, address, _)| address.is_ipv4()),
            Meddle::NoTable => observed.tables.clear(),
            Meddle::Fingerprint => {
                observed.tables.iter_mut().for_each(|table| table.fingerprint = None);
            }
            Meddle::Owned => observed.tables.iter_mut().for_each(|table| table.owned = Some(false)),
            Meddle::Element(n) => {
                let key = vec![Value::Address(IpAddr::from([10, 0, 0, n]))];
                for (_, keys) in observed.tables.iter_mut().flat_map(|table| &mut table.sets) {
                    if !keys.contains(&key) {
                        keys.push(key.clone());
                    }
                }
            }
            Meddle::LoseElements => {
                let sets = observed.tables.iter_mut().flat_map(|table| &mut table.sets);
                sets.for_each(|(_, keys)| keys.clear());
            }
            Meddle::Accepts(n) => {
                let accepts = &mut observed.accepts;
                accepts.truncate(n);
                accepts.extend_from_within(..);
            }
            Meddle::Chain(to) => {
                observed.accept_chains = to.map(chains).unwrap_or_default();
                if to.is_none() {
                    observed.accepts.clear();
                }
            }
        }
    }
}

/// The links that are not ours, as they were but for what the end of our bridges does to them.
fn foreign(fake: &Fake) -> Vec<Link> {
    let ours = |link: &&Link| !link.is_our_bridge() && !link.is_of_nic() && !link.is_retired();
    let loose = |link: &Link| {
        let mut link = link.clone();
        link.leave();
        link
    };
    fake.kernel.observed.links.iter().filter(ours).map(loose).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever others did, one plan that never fails mends all that is ours, and what is not ours
    /// stays as it is.
    #[test]
    fn one_plan_is_enough(
        made in 0_u8..4, wanted in 0_u8..4, meddled in prop::collection::vec(meddle(), 0..12)
    ) {
        let mut fake = Host::with_vms(made).kernel();
        for change in meddled {
            change.apply(&mut fake);
        }
        let host = Host::with_vms(wanted);
        let before = foreign(&fake);
        let problems = host.settle(&mut fake);
        prop_assert_eq!(host.drift(&mut fake), Reconciled { plan: vec![], problems });
        prop_assert_eq!(foreign(&fake), before);
    }

    /// A daemon that died after any Op finds a state from which the rest of the way is planned.
    #[test]
    fn a_crash_after_any_op_is_recovered_from(vms in 0_u8..4, cut in any::<prop::sample::Index>()) {
        let host = Host::with_vms(vms);
        let mut fake = bare_kernel();
        let plan = host.drift(&mut fake).plan;
        for op in &plan[..cut.index(plan.len() + 1)] {
            fake.apply(op).unwrap();
        }
        prop_assert_eq!(host.settle(&mut fake), vec![]);
        prop_assert_eq!(host.drift(&mut fake), Reconciled::default());
        let accepted = BTreeSet::from(["eth0".to_string()]);
        let gone = Desired {
            forwarding: Some(false),
            forwarding6: Some(false),
            accepted,
            ..Desired::default()
        };
        let plan = reconcile(&gone, &fake.observe().unwrap()).plan;
        execute(&mut fake, &plan, NOBODY).unwrap();
        prop_assert_eq!(&fake.kernel, &bare_kernel().kernel);
    }
}

/// Where tables cannot be owned, none is replaced for that, whatever the settings say.
#[test]
fn a_kernel_without_owned_tables_has_right_ones() {
    let host = Host::with_vms(1);
    let mut observed = host.kernel().kernel.observed;
    assert_eq!(reconcile(&host.desired(), &observed).plan, []);
    for owned in [None, Some(false)] {
        observed.tables.iter_mut().for_each(|table| table.owned = owned);
        let replaced = !reconcile(&host.desired(), &observed).plan.is_empty();
        assert_eq!(replaced, owned.is_some());
    }
}

/// What must hold after each step: a tap on a bridge has its elements.
#[test]
fn no_tap_is_on_a_bridge_without_its_elements() {
    let known = |host: &Host, fake: &Fake| {
        let keys = &fake.kernel.observed.tables.iter().find(|it| it.family == Family::Ip);
        let keys: Vec<_> = keys.iter().flat_map(|table| &table.sets).flat_map(|it| &it.1).collect();
        for (number, (name, ..)) in host.vms.iter().enumerate() {
            let link = fake.link(&format!("vttap-{name}"));
            if link.is_some_and(|link| link.master.is_some() && link.up) {
                let elements = host.elements(number);
                let missing = elements.iter().find(|element| !keys.contains(&&element.key));
                assert_eq!(missing, None, "of {name}");
            }
        }
    };
    let (all, few) = (Host::with_vms(3), Host::with_vms(1));
    for held in [false, true] {
        let mut fake = all.kernel();
        fake.link_mut("vttap-vm2").unwrap().carrier = held;
        // VMs go, all goes, all comes, and one is moved to another bridge.
        let mut desired = vec![few.desired(), Desired::default(), all.desired(), all.desired()];
        desired.insert(1, Desired { evict: true, ..few.desired() });
        for (turn, desired) in desired.iter().enumerate() {
            if turn == 4 {
                let moved = fake.link("vbr1").map(|link| link.index);
                fake.link_mut("vttap-vm0").unwrap().master = moved;
            }
            for op in reconcile(desired, &fake.kernel.observed).plan {
                execute_all(&mut fake, &[op], NOBODY);
                known(&all, &fake);
            }
        }
    }
}
