//! `make bench`: what volnet costs, beside the floor and beside its peers, in one run.
//!
//! The floor is what the kernel itself takes for the same work. Everybody works in namespaces of
//! the benchmark's own ([`stage`]) and takes turns ([`contender`]), so that what disturbs one
//! disturbs all. Results go to `build/bench.json`, from which `scripts/performance.py` makes the
//! tables. How busy others keep the machine is looked at between the parts ([`load`]).
//!
//! `BENCH_QUICK=1` takes fewer samples, and peers with fewer VMs.

mod client;
mod clones;
mod contender;
mod daemon;
mod drift;
mod floor;
mod host;
mod load;
mod names;
mod peers;
mod plugins;
mod pure;
mod record;
mod stage;
mod traffic;

use std::fs;
use std::path::Path;
use std::time::Duration;

use clones::Namespaces;
use contender::{Contender, Rounds, bring, compete};
use daemon::Daemon;
use floor::Floor;
use load::Others;
use record::Record;
use stage::Stage;

/// Where results, records and logs go, below the project's root.
pub(crate) const BUILD: &str = "build";
/// VMs that are asked for at once, in a burst or a pipeline.
pub(crate) const BURST: usize = 100;
/// The prefix of the guests, for everybody.
pub(crate) const SUBNET: &str = "10.0.0.0/16";

/// The fields of a VM with its addresses.
pub(crate) const IP: &str = "ip";
const IP6: &str = "ip6";

/// How much is measured.
struct Extent {
    quick: bool,
    /// VMs that are there, ascending; the last is the crowd on which the daemon as a whole is
    /// measured.
    vms: &'static [usize],
    /// The most VMs that the slow peers are brought to.
    slow_most: usize,
    rounds: Rounds,
    idle: Duration,
    packets: usize,
}

const FULL: Extent = Extent {
    quick: false,
    vms: &[0, 100, 500, 1000],
    slow_most: 500,
    rounds: Rounds { all: 40, slow: 20 },
    idle: Duration::from_secs(10),
    packets: 10_000,
};
const QUICK: Extent = Extent {
    quick: true,
    vms: &[0, 100, 1000],
    slow_most: 100,
    rounds: Rounds { all: 8, slow: 4 },
    idle: Duration::from_secs(3),
    packets: 2000,
};

fn main() {
    let extent = if std::env::var_os("BENCH_QUICK").is_some() { QUICK } else { FULL };
    stage::leave();
    let files = Path::new(BUILD).join("bench");
    let _ = fs::remove_dir_all(&files);
    fs::create_dir_all(&files).expect("a directory for the files");

    let (mut record, mut others) = (Record::default(), Others::default());
    others.look();
    eprintln!("others use {} % of the processors", others.percent());
    host::file_size(&mut record);
    let mut floor = Floor::new("floor", Stage::new("floor"), None);
    let files = Some(files.join("floor"));
    let mut synced = Floor::new("floor and a synced file", Stage::new("synced"), files);
    let mut ephemeral = Daemon::new("volnet, ephemeral", Stage::new("ephemeral"), true, "{}");
    let pool = r#"{ "pool": 16 }"#;
    let mut pooled = Daemon::new("volnet, ephemeral, pool of 16", Stage::new("pooled"), true, pool);
    // What it costs that guests are held to what they are.
    let open = r#"{ "networks": [{ "antispoof": false }] }"#;
    let mut open = Daemon::new("volnet, ephemeral, no antispoof", Stage::new("open"), true, open);
    let six = r#"{ "networks": [{ "ipv6": true }] }"#;
    let mut six = Daemon::new("volnet, ephemeral, IPv6", Stage::new("six"), true, six);
    let all = clones::CONFIGURATION;
    let mut clones = Daemon::new("volnet, ephemeral, clones", Stage::new("clones"), true, all);
    let mut namespaces = Namespaces::new();
    let mut durable = Daemon::new("volnet, durable", Stage::new("durable"), false, "{}");
    let mut peers = peers::all(&mut record, extent.slow_most);
    for daemon in [&ephemeral, &durable, &open, &six, &clones] {
        traffic::add_world(&daemon.stage, false);
    }
    traffic::plain(extent.packets, &mut record);
    let stand_in = concat!(
        r#"{ "hypervisor_user": "root", "hypervisors": { "cloud-hypervisor": { "program": ""#,
        env!("CARGO_MANIFEST_DIR"),
        r#"/tests/vmm/cloud-hypervisor" } } }"#
    );
    let starting = Daemon::new("volnet, stand-ins", Stage::new("starting"), true, stand_in);
    host::starts(&starting, &mut record);
    drop(starting);
    host::memory(&durable, "no VM yet", 0, &mut record);
    host::restarts(&mut durable, 0, &mut record);

    let mut rules = Vec::new();
    for &vms in extent.vms {
        let floors = [&mut floor, &mut synced];
        let daemons = [&mut ephemeral, &mut pooled, &mut open, &mut six, &mut clones, &mut durable];
        grow(floors, &mut namespaces, daemons, vms, &mut record);
        let mut all: Vec<&mut dyn Contender> = vec![&mut floor, &mut synced, &mut ephemeral];
        all.extend([&mut pooled, &mut open, &mut six, &mut clones, &mut durable].map(as_contender));
        all.push(&mut namespaces);
        all.extend(peers.iter_mut().map(|peer| &mut **peer as &mut dyn Contender));
        compete(&mut all, vms, extent.rounds, &mut record);
        let daemons = [(&mut ephemeral, IP), (&mut open, IP), (&mut six, IP6), (&mut clones, IP)];
        packets(daemons, &mut namespaces, vms, extent.packets, &mut record);
        rules.push(clones::count_rules(&clones.stage, clones.name(), vms, &mut record));
        assert_eq!(rules.first(), rules.last(), "rules depend on the number of VMs");
        others.look();
    }

    let crowd = extent.vms.last().copied().unwrap_or_default();
    load::attach_under_load(&mut ephemeral, crowd, extent.rounds.slow, &mut record);
    host::system_calls(&mut ephemeral, &mut record);
    names::measure(&ephemeral, crowd, extent.packets, &mut record);
    as_a_whole(&mut durable, crowd, extent.idle, &mut record);
    pure::measure(&floor.stage, crowd, &mut record);
    others.look();
    record.write(&format!("{BUILD}/bench.json"), extent.quick, &others);
}

fn as_contender(daemon: &mut Daemon) -> &mut dyn Contender {
    daemon
}

/// The daemon in a crowd, and after it.
fn as_a_whole(durable: &mut Daemon, crowd: usize, idle: Duration, record: &mut Record) {
    host::memory(durable, "with VMs", crowd, record);
    host::wakeups(durable, idle, crowd, record);
    host::round_trips(durable, crowd, record);
    drift::repairs(durable, crowd, record);
    host::system_calls(durable, record);
    host::restarts(durable, crowd, record);
    host::delete_all(durable, crowd, record);
    host::memory(durable, "all VMs gone", 0, record);
    host::disturbance(durable, record);
}

/// Plays the guests of one more VM of each, with `vms` there.
fn packets(
    mut daemons: [(&mut Daemon, &str); 4],
    namespaces: &mut Namespaces,
    vms: usize,
    packets: usize,
    record: &mut Record,
) {
    let name = format!("guest{vms}");
    let mut guests = Vec::new();
    for (daemon, address) in &mut daemons {
        guests.push((daemon.name().to_owned(), host::guest(daemon, &name, address)));
    }
    namespaces.attach(&name);
    guests.push((namespaces.name().into(), namespaces.guest(&name)));
    traffic::measure(guests, vms + 1, packets, record);
    daemons.into_iter().for_each(|(daemon, _)| _ = daemon.detach(&name));
    namespaces.detach(&name);
}

/// Brings all to so many VMs, in turns of a hundred; the last hundred comes to a daemon as a burst.
fn grow(
    floors: [&mut Floor; 2],
    namespaces: &mut Namespaces,
    daemons: [&mut Daemon; 6],
    vms: usize,
    record: &mut Record,
) {
    let mut daemons = daemons;
    let before = vms.checked_sub(BURST).filter(|before| *before >= BURST);
    let mut all: Vec<&mut dyn Contender> = Vec::new();
    all.extend(floors.map(|floor| floor as &mut dyn Contender));
    all.push(namespaces);
    all.extend(daemons.iter_mut().map(|daemon| as_contender(daemon)));
    bring(&mut all, before.unwrap_or(vms), record);
    if let Some(before) = before {
        daemons.iter_mut().for_each(|daemon| host::burst(daemon, before, record));
    }
}
