//! What must hold whenever the daemon has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use volnet::dns::fuzz::disagreement;
use volnet::engine::decide::Engine;
use volnet::engine::supervise::Life;
use volnet::hypervisor::process::Processes;
use volnet::model::mode::Mode;
use volnet::model::name::VmName;
use volnet::model::record::{Motion, ProcessId, Record};
use volnet::model::view::{NicView, VmView};
use volnet::plan::reconcile::{Desired, Problem, Reconciled, reconcile};
use volnet::plan::ruleset::{Family, Key, Value};
use volnet::store::storage::is_temporary;
use volnet::store::{Loaded, Paths, Store};

use crate::sim::Sim;
use crate::world::{RUNTIME, STATE, World};

/// What may lie about: files that could not be removed are looked at by the next daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Litter {
    None,
    Allowed,
}

/// All that does not hold; empty when all is well.
pub(crate) fn check(sim: &mut Sim, litter: Litter) -> Vec<String> {
    let mut wrong = Wrong(Vec::new());
    let Some(shell) = &sim.shell else { return vec!["no daemon runs".into()] };
    let world = sim.world.borrow();
    // If the record of an added network is lost, its VMs have no network, and say so.
    let is_lost = world.disk.paths().any(is_aside_network);
    let (stranded, views): (Vec<_>, Vec<_>) =
        shell.engine().list(None).partition(|vm| is_lost && vm.problem.is_some());
    let stranded: Vec<VmName> = stranded.into_iter().map(|vm| vm.name).collect();
    let loaded = loaded(&world);
    let forgotten = world.disk.paths().any(is_aside_host);
    let desired = match loaded.host {
        Some(_) => shell.engine().desired(),
        // How forwarding was is not known any more where that file could not be read.
        None => {
            let off = (!forgotten).then_some(false);
            let accepted = BTreeSet::from(["eth0".to_string()]);
            Desired { forwarding: off, forwarding6: off, accepted, ..Desired::default() }
        }
    };
    let mut drift = reconcile(&desired, &world.network.kernel.observed);
    // What the kernel cannot do is refused to whoever asks for it.
    world.network.kernel.features.restrict(&mut drift.plan);
    // Its bridge stays where others have ports on it.
    drift.problems.retain(|problem| !is_lost || !matches!(problem, Problem::BridgeHeld { .. }));
    // Where nothing is set up nothing is watched: what a failed setup could not undo stays until
    // the next one.
    if loaded.host.is_some() || !sim.promises.undoing_fails {
        wrong.unless_same("kernel and records differ", &drift, &Reconciled::default());
    }
    kernel(&world, &views, &stranded, &mut wrong);
    unique(&views, &mut wrong);
    wrong.0.extend(disagreement(shell.engine()));
    let of_machines = nics(&views).filter_map(|nic| nic.ip).find(|ip| world.lan.has(*ip));
    wrong.0.extend(of_machines.map(|ip| format!("{ip} is the address of a machine of the LAN")));
    for network in shell.engine().networks() {
        let here = |nic: &&NicView| nic.network == network.name;
        let ports = nics(&views).filter(here).count();
        // What was offered and not taken yet is not shown.
        let held = shell.engine().vms().filter(|vm| !stranded.contains(&vm.record.name));
        let held = held.flat_map(|vm| &vm.record.nics);
        let held = held.filter(|nic| nic.network == network.name);
        let leased = held.filter(|nic| nic.ip.is_some() || nic.lease.is_some()).count();
        let counted = (network.ports as usize, network.leased as usize);
        wrong.unless_same("ports and leases", &counted, &(ports, leased));
    }
    // What could not be undone stays in the file, and the next daemon makes it.
    if litter == Litter::None || !sim.promises.undoing_fails {
        let added = shell.engine().added();
        let added: Vec<_> = added.map(|(name, kept)| (name.to_string(), kept.clone())).collect();
        wrong.unless_same("networks that were added", &loaded.networks, &added);
    }
    processes(&world, &views, &mut wrong);
    watched(sim, &world, &mut wrong);
    motions(shell.engine(), &world, &mut wrong);
    snapshots(&world, &mut wrong);
    let records: Vec<Record> = shell.engine().vms().map(|vm| lasting(&vm.record)).collect();
    disk(&loaded, records, &mut wrong);
    files_of_processes(&world, &loaded, litter, &mut wrong);
    if litter == Litter::None {
        clean(&world, &loaded, &views, &mut wrong);
    }
    sim.talk.check(&world, &views, &mut wrong.0);
    sim.leases.check(&views, sim.time(), &mut wrong.0);
    let unreadable = [unreadable(&world), stranded].concat();
    drop(world);
    let died = std::mem::take(&mut sim.world.borrow_mut().died);
    died.iter().for_each(|name| sim.promises.ended(name));
    wrong.0.extend(sim.promises.broken(shell.engine(), &unreadable));
    wrong.0
}

/// Whether a guest goes on is known, unless it is being asked, and why it does not.
fn motions(engine: &Engine, world: &World, wrong: &mut Wrong) {
    for vm in engine.vms() {
        let Life::Running { check: None, pause, .. } = &vm.life else { continue };
        let Some(motion) = world.processes.motion(&vm.record.name) else { continue };
        let known = match (pause.is_paused, pause.halt) {
            (false, _) => Motion::Goes,
            (true, None) => Motion::Paused,
            (true, Some(halt)) => Motion::Halted(halt),
        };
        if pause.wish.is_none() {
            wrong.unless_same(vm.record.name.as_str(), &known, &motion);
        }
    }
}

/// No snapshot is left half taken, and no guest stands still for one, unless the file that says so
/// cannot be read.
fn snapshots(world: &World, wrong: &mut Wrong) {
    let unreadable = aside(world, "intents");
    let is_known = |name: &str| unreadable.iter().all(|other| other.as_str() != name);
    let part =
        |path: &&PathBuf| path.file_stem().and_then(|name| name.to_str()).is_some_and(is_known);
    let parts: Vec<&PathBuf> = world.processes.parts().filter(part).collect();
    wrong.unless_same("snapshots that are not whole", &parts, &vec![]);
    let standing = world.processes.standing().filter(|name| is_known(name.as_str()));
    let standing: Vec<&VmName> = standing.collect();
    wrong.unless_same("guests that stand still for a snapshot", &standing, &vec![]);
}

fn is_aside_host(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("host.json.bad-"))
}

fn is_aside_network(path: &Path) -> bool {
    let is_record = path.parent().is_some_and(|folder| folder.ends_with("networks"));
    is_record && path.to_string_lossy().contains(".json.bad-")
}

/// The VMs whose records were moved aside.
fn unreadable(world: &World) -> Vec<VmName> {
    aside(world, "vms")
}

/// The VMs whose files in this directory were moved aside.
fn aside(world: &World, directory: &str) -> Vec<VmName> {
    let records =
        world.disk.paths().filter(|path| path.parent().is_some_and(|in_| in_.ends_with(directory)));
    let aside = |path: &Path| {
        let (name, _) = path.file_name()?.to_str()?.split_once(".json.bad-")?;
        VmName::new(name).ok()
    };
    records.filter_map(aside).collect()
}

/// What is found wrong.
struct Wrong(Vec<String>);

impl Wrong {
    fn unless_same<T: PartialEq + Debug>(&mut self, what: &str, is: &T, should: &T) {
        if is != should {
            self.0.push(format!("{what}: {is:?}, not {should:?}"));
        }
    }
}

/// The files, read as a daemon would.
pub(crate) fn loaded(world: &World) -> Loaded {
    let mut disk = world.disk.clone();
    disk.disarm();
    let store = Store::open(disk, Paths::new(STATE, RUNTIME));
    store.and_then(|mut store| store.load()).expect("the files can be read")
}

/// All NICs.
fn nics(views: &[VmView]) -> impl Iterator<Item = &NicView> {
    views.iter().flat_map(|vm| &vm.nics)
}

/// What marks the link of a VM's NIC: `web`, `web/1`.
fn mark(vm: &VmView, nic: usize) -> String {
    if nic == 0 { vm.name.to_string() } else { format!("{}/{nic}", vm.name) }
}

/// Counts what is marked as ours, without asking the code that made it.
fn kernel(world: &World, views: &[VmView], stranded: &[VmName], wrong: &mut Wrong) {
    let observed = &world.network.kernel.observed;
    let marked = observed.links.iter().filter_map(|link| {
        let vm = link.alias.as_deref()?.strip_prefix("volnet:")?;
        let is_known = stranded.iter().all(|name| name.as_str() != vm);
        (!vm.is_empty() && is_known).then(|| (vm.to_string(), link.name.clone(), link.index))
    });
    let taps: BTreeSet<_> = marked.collect();
    let marks = views.iter().flat_map(|vm| {
        let nics = vm.nics.iter().enumerate();
        nics.map(|(at, nic)| (mark(vm, at), nic))
    });
    let should: BTreeSet<_> =
        marks.filter_map(|(mark, nic)| Some((mark, nic.tap.to_string(), nic.ifindex?))).collect();
    for vm in views {
        let first = vm.nics.first().map(|nic| (&nic.tap, nic.mac, nic.ip, nic.ifindex));
        let shown = vm.tap.as_ref().zip(vm.mac).map(|(tap, mac)| (tap, mac, vm.ip, vm.ifindex));
        wrong.unless_same("the first NIC", &shown, &first);
        wrong.unless_same("NICs in vsock mode", &vm.nics.is_empty(), &(vm.mode == Mode::Vsock));
    }
    wrong.unless_same("taps", &taps, &should);
    let tables = observed.tables.iter().filter(|table| table.family == Family::Bridge);
    let guests = tables.flat_map(|table| &table.sets).filter(|(name, _)| name == "guests");
    let elements: usize = guests.map(|(_, keys)| keys.len()).sum();
    let own = nics(views).filter_map(|nic| nic.ip).count();
    let movable: Vec<Ipv4Addr> = nics(views).flat_map(|nic| nic.addresses.clone()).collect();
    if observed.tables.iter().any(|table| table.family == Family::Bridge) {
        wrong.unless_same("elements", &elements, &(own + movable.len()));
    }
    let tables = observed.tables.iter().filter(|table| table.family == Family::Ip);
    let counting = tables.flat_map(|table| &table.sets).filter(|(name, _)| name == "allowed");
    let counted: BTreeSet<Key> = counting.flat_map(|(_, keys)| keys).cloned().collect();
    let known = nics(views).filter_map(|nic| nic.ip).chain(movable);
    let known: BTreeSet<Key> = known.map(|ip| vec![Value::Address(ip.into())]).collect();
    wrong.unless_same("addresses with a policy", &counted, &known);
    kernel_of_ipv6(world, views, wrong);
}

/// The same for IPv6: what guests may use is that of their VMs, what they made for themselves, and
/// a link-local address.
fn kernel_of_ipv6(world: &World, views: &[VmView], wrong: &mut Wrong) {
    let observed = &world.network.kernel.observed;
    let keys = |family: Family, set: &'static str| {
        let tables = observed.tables.iter().filter(move |table| table.family == family);
        let sets = tables.flat_map(|table| &table.sets).filter(move |(name, _)| name == set);
        sets.flat_map(|(_, keys)| keys.iter().cloned())
    };
    let speaking = || nics(views).filter(|nic| nic.ip6.is_some());
    let local = speaking().count();
    let own = || speaking().flat_map(|nic| nic.ip6.iter().chain(&nic.claimed).copied());
    if observed.tables.iter().any(|table| table.family == Family::Bridge) {
        let elements = keys(Family::Bridge, "guests6").count();
        wrong.unless_same("elements of IPv6", &elements, &(own().count() + local));
    }
    let counted: BTreeSet<Key> = keys(Family::Ip6, "allowed").collect();
    let routed = own().filter(|ip| !ip.is_unicast_link_local());
    let known: BTreeSet<Key> = routed.map(|ip| vec![Value::Address(ip.into())]).collect();
    wrong.unless_same("IPv6 addresses with a policy", &counted, &known);
}

/// Nothing has two owners.
fn unique(views: &[VmView], wrong: &mut Wrong) {
    fn once<T: Ord + Debug>(what: &str, values: impl Iterator<Item = T>, wrong: &mut Wrong) {
        let mut seen = BTreeSet::new();
        for value in values {
            let shown = format!("{what} {value:?} has two owners");
            if !seen.insert(value) {
                wrong.0.push(shown);
            }
        }
    }
    let movable: BTreeSet<Ipv4Addr> = nics(views).flat_map(|nic| nic.addresses.clone()).collect();
    once("address", nics(views).filter_map(|nic| nic.ip).chain(movable), wrong);
    let six =
        nics(views).flat_map(|nic| nic.ip6.iter().chain(&nic.claimed).map(|ip| (&nic.network, ip)));
    once("IPv6 address", six, wrong);
    once("MAC", nics(views).map(|nic| nic.mac), wrong);
    once("tap", nics(views).map(|nic| nic.tap.clone()), wrong);
    once("user", views.iter().filter_map(|vm| vm.uid), wrong);
    once("context id", views.iter().map(|vm| vm.cid), wrong);
    if views.iter().any(|vm| vm.cid as usize >= 3 + views.len()) {
        // The lowest free one is given, but a VM keeps its own while those below it go.
        let most = 3 + crate::script::NAMES.len() + crate::script::CONTAINERS.len();
        let past = views.iter().find(|vm| vm.cid as usize >= most);
        wrong.0.extend(past.map(|vm| format!("context ids leak: {vm:?}")));
    }
}

/// Every process has a VM, and every VM that runs has its own.
fn processes(world: &World, views: &[VmView], wrong: &mut Wrong) {
    let living: Vec<(String, ProcessId)> =
        world.processes.living().map(|(name, id)| (name.to_string(), id.clone())).collect();
    let running = views.iter().filter_map(|vm| Some((vm.name.to_string(), vm.pid?)));
    let pids: BTreeSet<_> = living.iter().map(|(name, id)| (name.clone(), id.pid)).collect();
    wrong.unless_same("processes", &pids, &running.collect());
    let cgroups: BTreeSet<_> = world.processes.cgroups().map(VmName::to_string).collect();
    let names = living.iter().map(|(name, _)| name.clone()).collect();
    wrong.unless_same("control groups", &cgroups, &names);
    wrong.unless_same("number of processes", &living.len(), &pids.len());
}

/// Every process is watched by one source, and each source watches one.
fn watched(sim: &Sim, world: &World, wrong: &mut Wrong) {
    let living = world.processes.living();
    let mut living: Vec<(VmName, Option<RawFd>)> =
        living.map(|(name, _)| (name.clone(), world.processes.pidfd(name))).collect();
    let mut watching: Vec<(VmName, Option<RawFd>)> =
        sim.watching().into_iter().map(|(name, pidfd)| (name, Some(pidfd))).collect();
    living.sort();
    watching.sort();
    wrong.unless_same("watched processes", &watching, &living);
}

/// Every process has a file.
fn files_of_processes(world: &World, loaded: &Loaded, litter: Litter, wrong: &mut Wrong) {
    let living: Vec<(&VmName, &ProcessId)> = world.processes.living().collect();
    let there = |file: &&(VmName, ProcessId)| {
        litter == Litter::None || living.contains(&(&file.0, &file.1))
    };
    let written: BTreeMap<&VmName, &ProcessId> =
        loaded.processes.iter().filter(there).map(|(name, id)| (name, id)).collect();
    wrong.unless_same("process files", &written, &living.into_iter().collect());
}

/// The files say what the daemon thinks.
fn disk(loaded: &Loaded, mut records: Vec<Record>, wrong: &mut Wrong) {
    let mut written: Vec<Record> = loaded.records.iter().map(lasting).collect();
    records.sort_by(|a, b| a.name.cmp(&b.name));
    written.sort_by(|a, b| a.name.cmp(&b.name));
    let only = |these: &[Record], those: &[Record]| -> Vec<Record> {
        these.iter().filter(|record| !those.contains(record)).cloned().collect()
    };
    wrong.unless_same("records", &only(&written, &records), &only(&records, &written));
    wrong.unless_same("files moved aside", &loaded.set_aside, &Vec::new());
}

/// Nothing is left over among the files.
fn clean(world: &World, loaded: &Loaded, views: &[VmView], wrong: &mut Wrong) {
    let strange = |name: &&VmName| !views.iter().any(|vm| vm.name == **name);
    let folders: Vec<&VmName> = world.processes.folders().filter(strange).collect();
    wrong.unless_same("folders of VMs that are not there", &folders, &Vec::new());
    let lent = |vm: &&VmView| vm.hypervisor.is_none() && vm.vsock;
    let idle = views.iter().filter(|vm| vm.pid.is_none() && !lent(vm)).map(|vm| &vm.name);
    let has_folder = |name: &&VmName| world.processes.folders().any(|folder| folder == *name);
    let idle: Vec<&VmName> = idle.filter(has_folder).collect();
    wrong.unless_same("folders of VMs that do not run", &idle, &Vec::new());
    let lacks = |vm: &&VmView| !world.processes.folders().any(|name| *name == vm.name);
    let without: Vec<&VmName> =
        views.iter().filter(lent).filter(lacks).map(|vm| &vm.name).collect();
    wrong.unless_same("VMs without the folder of their sockets", &without, &Vec::new());
    let logs: Vec<&VmName> = world.processes.logs().filter(strange).collect();
    wrong.unless_same("logs of VMs that are not there", &logs, &Vec::new());
    wrong.unless_same("intents", &loaded.intents, &Vec::new());
    let left: Vec<&Path> = world.disk.paths().filter(|path| is_temporary(path)).collect();
    wrong.unless_same("temporary files", &left, &Vec::new());
}

/// A record without what may change behind it: the index of a tap that was made anew, and why a
/// process could not be started, are written with the next change.
fn lasting(record: &Record) -> Record {
    let mut record = record.clone();
    record.nics.iter_mut().for_each(|nic| nic.ifindex = None);
    record.last_error = None;
    record
}
