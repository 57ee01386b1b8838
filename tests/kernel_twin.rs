//! The kernel in memory beside the real one: the same plans on both, then both are compared.
//!
//! The simulation is only as good as its kernel is like Linux. Here random plans, good and bad
//! ones, are executed on both. Each time the errors and the observations must be the same, except
//! for values that only one of them can know: indices, addresses that nobody set, carriers, and the
//! routes of an address.

#![cfg(target_os = "linux")]

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::room::Room;
use common::{in_namespace, run};
use volnet::model::error::{Failure, KernelOutcome};
use volnet::model::limits::Limits;
use volnet::model::limits::Shaping;
use volnet::model::mac::Mac;
use volnet::model::name::{TapName, VmName};
use volnet::model::net::NetworkConfig;
use volnet::model::nic::NicName;
use volnet::model::policy::Policy;
use volnet::model::request::NOBODY;
use volnet::network::execute::execute;
use volnet::network::fake::Fake;
use volnet::network::linux::Linux;
use volnet::network::linux::socket::{self, NetlinkFamily};
use volnet::network::{Applied, Network};
use volnet::plan::op::{
    Filtered, GuestRoute, Handover, InnerLink, InnerTap, LinkSettings, Op, Plan, PortSettings,
    Switch,
};
use volnet::plan::reconcile::{DesiredPort, Link, LinkKind, Observed};
use volnet::plan::ruleset::{
    self, Accept, Direction, Element, Family, GuestPort, InnerPort, Table,
};
use volnet_ffi::tun;

/// Seeds, where `VOLNET_TWIN_SEEDS` does not say how many. (400 were tried once.)
const SEEDS: u64 = 24;
/// How many of them are tried at once.
const SEEDS_AT_ONCE: usize = 4;
/// Plans of one seed.
const PLANS: usize = 60;
/// Where accept rules belong.
const CHAIN: &str = "DOCKER-USER";
const BRIDGES: [&str; 2] = ["vbr0", "vbr1"];
/// Links of every kind, and one that is there seldom.
const LINKS: [&str; 6] = ["vbr0", "vbr1", "vttap-a", "vttap-b", "other", "absent"];
/// How often the real kernel is looked at again, and after which time, if it differs.
const LOOKS: usize = 100;
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What no link can be named.
const UNFIT: [&str; 2] = ["sixteen-bytes-or", ""];

/// Both kernels.
struct Twins {
    real: Real,
    fake: Fake,
}

/// The real one. A bridge that it removes goes a little later, and until then its ports are ports:
/// that is waited for. A tap has no such trace.
struct Real(Linux);

impl Network for Real {
    fn backend(&self) -> &'static str {
        self.0.backend()
    }

    fn observe(&mut self) -> Result<Observed, Failure> {
        self.0.observe()
    }

    fn apply(&mut self, op: &Op) -> Result<Applied, Failure> {
        let applied = self.0.apply(op);
        if let Op::DeleteLink { name, .. } = op {
            if BRIDGES.contains(&name.as_str()) {
                self.0.flush();
            }
        }
        applied
    }

    fn open_tap(&mut self, port: &DesiredPort<'_>) -> Result<OwnedFd, Failure> {
        self.0.open_tap(port)
    }
}

#[test]
fn both_do_the_same() {
    let seeds = std::env::var("VOLNET_TWIN_SEEDS").map(|text| text.parse().expect("a number"));
    let (seeds, next) = (seeds.unwrap_or(SEEDS), AtomicU64::new(0));
    // A kernel mostly waits until it may let go of a link.
    std::thread::scope(|scope| {
        for _ in 0..SEEDS_AT_ONCE {
            scope.spawn(|| {
                let mine = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|it| *it < seeds);
                std::iter::from_fn(mine).for_each(both_do_the_same_with);
            });
        }
    });
}

fn both_do_the_same_with(seed: u64) {
    in_namespace(|| {
        let mut twins = Twins::new();
        let mut dice = Dice(seed);
        for round in 0..PLANS {
            let plan = plan(&mut dice);
            twins.execute(&plan, &format!("seed {seed}, plan {round}: {plan:#?}"));
        }
    });
}

#[test]
fn both_refuse_what_another_program_owns() {
    in_namespace(|| {
        let mut twins = Twins::new();
        let mut other = Linux::new(0).unwrap();
        let [ip, _, bridge] = tables(true, 1).try_into().expect("three tables");
        other.apply(&Op::CreateTable(Box::new(ip.clone()))).unwrap();
        twins.fake.apply(&Op::CreateTable(Box::new(ip.clone()))).unwrap();
        // Where a table cannot be owned, nobody is refused.
        if twins.fake.kernel.features.owned_tables {
            twins.fake.own_table(ip.family, ip.name);
            twins.fake.table_mut(ip.family, ip.name).unwrap().owned = Some(false);
        }
        for op in [
            Op::CreateTable(Box::new(bridge)),
            Op::CreateTable(Box::new(ip.clone())),
            Op::ReplaceTable(Box::new(ip.clone())),
            Op::RemoveTable { family: ip.family, name: ip.name },
        ] {
            let told = format!("{op:?}");
            twins.execute(&[op], &told);
        }
    });
}

#[test]
fn both_lead_a_link_into_a_namespace() {
    in_namespace(|| {
        let mut twins = Twins::new();
        let room = Room::new();
        let door = room.opened(|| socket::open(NetlinkFamily::Route).expect("a socket"));
        let create = |name: &str, ifname: &str| Op::CreateVeth {
            name: name.into(),
            mac: Mac([0xfe, 0, 0, 0, 0, 7]),
            mtu: 1400,
            alias: "volnet:web".into(),
            inner: InnerLink {
                netns: room.netns(),
                name: ifname.into(),
                mac: Mac([2, 0, 0, 0, 0, 7]),
                addresses: vec![([10, 0, 0, 2].into(), 24)],
                gateways: vec![[10, 0, 0, 1].into()],
                tap: None,
            },
        };
        twins.execute(&[create("vttap-a", "eth0")], "without a door");
        twins.real.0.enter(door.as_fd(), None).expect("a door");
        twins.fake.enter(door.as_fd(), None).expect("a door");
        let up = LinkSettings {
            master: Some(Some(BRIDGES[0].into())),
            up: Some(true),
            ..LinkSettings::default()
        };
        let attach = |name: &str| Op::SetLink {
            name: name.into(),
            set: up.clone(),
            former: Default::default(),
        };
        twins.execute(&[create_bridge(0), create("vttap-a", "eth0"), attach("vttap-a")], "one");
        twins.execute(&[create("vttap-b", "eth0")], "a name that is taken inside");
        twins.execute(&[create("vttap-a", "eth1")], "a name that is taken outside");
        twins.execute(&[create("vttap-b", "eth1"), attach("none")], "one that is undone");
        // What was removed keeps its name inside for some milliseconds more.
        let remove = Op::DeleteLink { name: "vttap-a".into(), index: Some(RIGHT) };
        twins.execute(&[remove, create("vttap-b", "eth2")], "another");
        // Both are left through the same door, and nothing is made any more.
        twins.real.0.leave();
        twins.fake.leave();
        twins.execute(&[create("vttap-c", "eth3")], "after the end");
    });
}

#[test]
fn both_make_a_tap_beside_the_link_inside() {
    in_namespace(|| {
        let mut twins = Twins::new();
        let room = Room::new();
        let open = || socket::open(NetlinkFamily::Route).expect("a socket");
        let create = |name: &str, ifname: &str, tap: &str| Op::CreateVeth {
            name: name.into(),
            mac: Mac([0xfe, 0, 0, 0, 0, 7]),
            mtu: 1400,
            alias: format!("volnet:{name}"),
            inner: InnerLink {
                netns: room.netns(),
                name: ifname.into(),
                mac: Mac([2, 0, 0, 0, 0, 7]),
                addresses: Vec::new(),
                gateways: Vec::new(),
                tap: Some(InnerTap { name: tap.into(), owner: 65534 }),
            },
        };
        let none = || Op::SetLink {
            name: "none".into(),
            set: LinkSettings { up: Some(true), ..LinkSettings::default() },
            former: LinkSettings::default(),
        };
        let enter = |twins: &mut Twins, has_device: bool| {
            let door = room.opened(open);
            let device = has_device.then(|| room.opened(|| tun::open().expect("a device")));
            let device = device.as_ref().map(AsFd::as_fd);
            twins.real.0.enter(door.as_fd(), device).expect("a door");
            twins.fake.enter(door.as_fd(), device).expect("a door");
        };
        let taps = || {
            let links = room.json("ip -j link show type tun");
            let links = links.as_array().expect("a list").iter();
            links.filter_map(|link| link["ifname"].as_str().map(String::from)).collect::<Vec<_>>()
        };
        enter(&mut twins, false);
        twins.execute(&[create("vttap-a", "eth0", "tap0")], "without a device");
        enter(&mut twins, true);
        twins.execute(&[create("vttap-a", "eth0", "tap0"), none()], "one that is undone");
        assert_eq!(taps(), [""; 0], "its tap is gone at once");
        enter(&mut twins, true);
        twins.execute(&[create("vttap-a", "eth1", "tap0")], "one");
        assert_eq!(taps(), ["tap0"]);
        twins.execute(&[create("vttap-b", "eth2", "tap1")], "a device that was used");
        enter(&mut twins, true);
        twins.execute(&[create("vttap-b", "eth2", "tap0")], "a tap whose name is taken");
        assert_eq!(taps(), ["tap0"]);
    });
}

#[test]
fn both_fill_a_bridge_to_the_same_port() {
    in_namespace(|| {
        let mut twins = Twins::new();
        twins.execute(&[create_bridge(0)], "the bridge");
        for n in 0..=1023 {
            let name = format!("vttap-{n}");
            let attach =
                LinkSettings { master: Some(Some(BRIDGES[0].into())), ..LinkSettings::default() };
            let set = Op::SetLink { name: name.clone(), set: attach, former: Default::default() };
            let told = format!("port {n}");
            assert_eq!(twins.run(&[create_tap(&name), set]).is_err(), n == 1023, "{told}");
        }
        twins.compare("all ports");
    });
}

impl Twins {
    fn new() -> Twins {
        run("ip link add other type veth peer name peer");
        run(&format!("iptables -N {CHAIN}"));
        run(&format!("ip6tables -N {CHAIN}"));
        run("sysctl -qw net.ipv4.ip_forward=0");
        let mut fake = Fake::new();
        fake.add_link("other", LinkKind::Veth);
        let chains = [Family::Ip, Family::Ip6].map(|family| (family, CHAIN.to_string()));
        fake.kernel.observed.accept_chains = chains.into();
        let mut real = Linux::new(0).unwrap();
        fake.kernel.features = real.features().unwrap();
        let mut twins = Twins { real: Real(real), fake };
        twins.compare("before all");
        twins
    }

    fn execute(&mut self, plan: &[Op], what: &str) {
        self.run_as(plan, what).ok();
        self.compare(what);
    }

    fn run(&mut self, plan: &[Op]) -> Result<Vec<Applied>, KernelOutcome> {
        self.run_as(plan, "")
    }

    /// Executes a plan on both, with the same outcome.
    fn run_as(&mut self, plan: &[Op], what: &str) -> Result<Vec<Applied>, KernelOutcome> {
        let to_real = match has_right(plan) {
            true => resolved(plan, &self.real_observed()),
            false => plan.to_vec(),
        };
        let to_fake = resolved(plan, &self.fake.kernel.observed);
        let real = execute(&mut self.real, &to_real, NOBODY);
        let fake = execute(&mut self.fake, &to_fake, NOBODY);
        let words = format!("{what}\nreal: {real:?}\nfake: {fake:?}");
        let outcome = |failure: Failure| failure.outcome().unwrap();
        let (real, fake) = (real.map_err(outcome), fake.map_err(outcome));
        let made = |applied: &[Applied]| -> Vec<bool> {
            applied.iter().map(|applied| applied.ifindex.is_some()).collect()
        };
        let outcome = real.as_deref().map(made);
        assert_eq!(outcome, fake.as_deref().map(made), "{words}");
        real
    }

    fn real_observed(&mut self) -> Observed {
        self.real.observe().unwrap()
    }

    /// A tap that is closed goes later if another seed has just started a process: that holds what
    /// is open here until it executes its program.
    fn compare(&mut self, what: &str) {
        let fake = seen(&self.fake.kernel.observed);
        let mut real = seen(&self.real_observed());
        for _ in 0..LOOKS {
            if real == fake {
                return;
            }
            std::thread::park_timeout(LOOK_AGAIN);
            real = seen(&self.real_observed());
        }
        assert_eq!(real, fake, "real and fake differ after {what}");
    }
}

/// The index that stands for that of the link, which each kernel gives as it likes.
const RIGHT: u32 = 1_000_000;

/// Whether a plan has the index of a link, for which a kernel has to be observed.
fn has_right(plan: &[Op]) -> bool {
    plan.iter().any(|op| matches!(op, Op::DeleteLink { index: Some(RIGHT), .. }))
}

/// The plan with the indices of one kernel.
fn resolved(plan: &[Op], observed: &Observed) -> Plan {
    let mut plan = plan.to_vec();
    for op in &mut plan {
        let Op::DeleteLink { name, index: Some(index) } = op else { continue };
        let found = observed.links.iter().find(|link| link.name == *name);
        if let Some(link) = found.filter(|_| *index == RIGHT) {
            *index = link.index;
        }
    }
    plan
}

/// What must be the same, as lines in an order of their own.
fn seen(observed: &Observed) -> Vec<String> {
    // A tap that was removed and is not gone yet is not told, but its addresses are.
    let name = |index: u32| {
        let link = observed.links.iter().find(|link| link.index == index);
        link.map(|link| link.name.clone())
    };
    // The other end of the foreign link comes and goes with it.
    let alone = |link: &&Link| link.name != "lo" && link.name != "peer";
    let links = observed.links.iter().filter(alone).map(|link| {
        // A tap has an address of its own, and so has the foreign link.
        let mac = (link.kind == LinkKind::Bridge).then_some(link.mac);
        let Link { alias, kind, up, mtu, filtered, port, shaping, snooping, .. } = link;
        let master = link.master.and_then(name);
        format!(
            "{} {alias:?} {kind:?} {master:?} {up} {mtu} {mac:?} {filtered:?} {port:?} \
             {shaping:?} {snooping}",
            link.name
        )
    });
    // The kernel gives a bridge with a carrier a link-local address, when it comes to that.
    let given = |address: &IpAddr| match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let addresses = observed.addresses.iter().filter(|(_, address, _)| !given(address));
    let addresses = addresses.filter_map(|(link, address, length)| {
        Some(format!("{address}/{length} on {}", name(*link)?))
    });
    let routes = observed
        .guest_routes
        .iter()
        .filter_map(|(link, to, mtu)| Some(format!("{to} by {} with {mtu}", name(*link)?)));
    let tables = observed.tables.iter().map(|table| {
        let mut sets = table.sets.clone();
        sets.iter_mut().for_each(|(_, keys)| keys.sort());
        sets.sort();
        format!("{:?} {:?} {:?} {sets:?}", table.family, table.owned, table.fingerprint)
    });
    let accepts = observed.accepts.iter().map(|accept| format!("{accept:?}"));
    let mut lines: Vec<String> =
        links.chain(addresses).chain(routes).chain(tables).chain(accepts).collect();
    let forwarding6 = observed.switches.get(&Switch::Forwarding);
    lines.push(format!(
        "forwarding {}, {forwarding6:?}, {:?}",
        observed.forwarding, observed.accept_chains
    ));
    lines.sort();
    lines
}

fn plan(dice: &mut Dice) -> Plan {
    (0..1 + dice.below(3)).map(|_| op(dice)).collect()
}

fn op(dice: &mut Dice) -> Op {
    let link = LINKS[dice.below(LINKS.len())].to_string();
    let address = IpAddr::from([10, 0, dice.below(2) as u8, 1 + dice.below(3) as u8]);
    match dice.below(30) {
        0 | 1 => create_bridge(dice.below(2)),
        2..4 => create_tap(&link),
        4 => create_tap(UNFIT[dice.below(2)]),
        5..9 => Op::SetLink { name: link, set: settings(dice), former: settings(dice) },
        9 => Op::DeleteLink { name: link, index: [None, Some(RIGHT), Some(77_777)][dice.below(3)] },
        10 | 11 => Op::AddAddress { link, address, length: 24 },
        12 => Op::RemoveAddress { link, address, length: 24 },
        13 if dice.below(2) == 0 => Op::SetForwarding { on: dice.below(2) == 0 },
        13 => {
            let (switch, to) = (Switch::Forwarding, dice.below(2) as u8);
            Op::SetSwitch { switch, to, former: 1 - to }
        }
        14 => Op::CreateTable(Box::new(a_table(dice))),
        15 => Op::ReplaceTable(Box::new(a_table(dice))),
        16 => {
            let table = a_table(dice);
            Op::RemoveTable { family: table.family, name: table.name }
        }
        17 => match dice.below(2) {
            0 => Op::AddElements(elements(dice.below(4), dice.below(3))),
            _ => Op::RemoveElements(elements(dice.below(4), dice.below(3))),
        },
        18 => {
            let (gone, new) = (dice.below(4), dice.below(4));
            Op::ExchangeElements { gone: elements(gone, 1), new: elements(new, 2) }
        }
        19 => Op::ShapeLink { name: link, to: shaping(dice), former: shaping(dice) },
        20 => {
            let chain = [CHAIN, CHAIN, "FORWARD"][dice.below(3)].to_string();
            let direction = [Direction::In, Direction::Out][dice.below(2)];
            let family = [Family::Ip, Family::Ip6][dice.below(2)];
            let bridge = BRIDGES[dice.below(2)].into();
            let accept = Accept { family, chain, bridge, direction };
            match dice.below(2) {
                0 => Op::AddAccept(accept),
                _ => Op::RemoveAccept(accept),
            }
        }
        21 => Op::ForgetAddress { link, address, at: Handover::Assigned },
        // Most fail, because the link is down.
        22..28 => {
            let link = if dice.below(4) == 0 { link } else { BRIDGES[dice.below(2)].into() };
            Op::AddRoute(GuestRoute { link, to: address, mtu: 1300 + dice.below(2) as u16 })
        }
        28 => {
            let up = LinkSettings { up: Some(true), ..LinkSettings::default() };
            let name = BRIDGES[dice.below(2)].to_string();
            Op::SetLink { name, set: up, former: LinkSettings::default() }
        }
        _ => Op::RemoveRoute(GuestRoute { link, to: address, mtu: 1300 }),
    }
}

fn create_bridge(number: usize) -> Op {
    let name = BRIDGES[number].to_string();
    let mac = Mac([2, 0, 0, 0, 0, 1 + number as u8]);
    Op::CreateBridge { name, mac, mtu: 1400 + number as u16, alias: "volnet:".into() }
}

fn create_tap(name: &str) -> Op {
    Op::CreateTap {
        name: name.into(),
        owner: Some(0),
        multi_queue: name.ends_with('b'),
        alias: format!("volnet:{name}"),
    }
}

fn settings(dice: &mut Dice) -> LinkSettings {
    let mut sometimes = |sides: usize| dice.below(sides) == 0;
    let master = sometimes(2);
    let mut set = LinkSettings {
        up: sometimes(3).then_some(true),
        no_ipv6: sometimes(3),
        ..LinkSettings::default()
    };
    if sometimes(6) {
        set.up = Some(false);
    }
    if sometimes(8) {
        set.snooping = Some(sometimes(2));
    }
    if sometimes(3) {
        set.port = Some(PortSettings {
            isolated: sometimes(2),
            hairpin: sometimes(2),
            ..PortSettings::default()
        });
    }
    if sometimes(8) {
        set.filtered = Some(Filtered { ipv4: sometimes(2), ipv6: sometimes(2) });
    }
    let (alias, mtu, to) = (dice.below(6), dice.below(8), dice.below(8));
    set.alias = ["", "volnet:x"].get(alias).map(|alias| alias.to_string());
    set.mtu = [1280, 1500, 67].get(mtu).copied();
    if master {
        let masters =
            [None, Some("vbr0"), Some("vbr0"), Some("vbr1"), Some("other"), Some("absent")];
        set.master = masters.get(to).map(|master| master.map(str::to_string));
    }
    set
}

fn a_table(dice: &mut Dice) -> Table {
    let (owned, guests) = (dice.below(3) > 0, dice.below(4));
    let mut tables = match dice.below(4) {
        0 => ruleset::tracing(true, Vec::new(), owned),
        _ => tables(owned, guests),
    };
    tables.swap_remove(dice.below(3))
}

/// Those of IPv4, of IPv6 and of the bridges.
fn tables(owned: bool, guests: usize) -> Vec<Table> {
    let network = NetworkConfig::sample("default", "vbr0", "10.0.0.0/24", "10.0.0.1");
    ruleset::tables(&[&network], &Policy::built_in(), elements(guests, 1), owned)
}

/// How fast a link sends.
fn shaping(dice: &mut Dice) -> Option<Shaping> {
    let rx_mbit = [None, Some(1), Some(100), Some(32_000)][dice.below(4)];
    let burst_kb = [None, Some(64), Some(32 * 1024)][dice.below(3)];
    Limits { rx_mbit, burst_kb, ..Limits::default() }.shaping()
}

/// What some guests are in the sets; some send only as fast as `limit` says.
fn elements(count: usize, limit: usize) -> Vec<Element> {
    let of_one = |number: usize| {
        let name = VmName::new(&format!("g{number}")).unwrap();
        let tap = TapName::choose(NicName { vm: &name, index: 0 }, |_| false);
        let mac = Mac::of_guest("default", name.as_str());
        let ip = Some(Ipv4Addr::new(10, 0, 0, 10 + number as u8));
        let (isolated, antispoof) = (number == 1, number != 2);
        let limit = (number < 3).then_some(limit as u32);
        let limits = Limits { tx_mbit: limit, pps: limit, ..Limits::default() };
        let tap = &tap;
        let guest = GuestPort {
            tap,
            mac,
            ip,
            addresses: &[],
            asks_others: false,
            antispoof,
            ip6: None,
            claimed: &[],
            isolated,
            limits,
            inner: (number == 1).then_some(INNER),
        };
        ruleset::elements(&guest)
    };
    (0..=count).flat_map(of_one).collect()
}

/// What many guests take for their own.
const INNER: InnerPort = InnerPort {
    mac: Mac([2, 0, 0, 0, 0, 0xaa]),
    ip: Ipv4Addr::new(172, 16, 0, 2),
    gateway: [Ipv4Addr::new(172, 16, 0, 1), Ipv4Addr::new(192, 168, 127, 1)],
    gateway_mac: Some([Mac([2, 0, 0, 0, 0, 0xbb]), Mac([2, 0, 0, 0, 0, 0xcc])]),
};

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
