//! The properties that hold whenever nothing is under way.

use std::collections::BTreeSet;
use std::fmt::Debug;

use super::world::World;
use crate::dns::fuzz::disagreement;
use crate::engine::decide::Engine;
use crate::model::expose::Expose;
use crate::model::nic::{CLAIMED_MAX, Nic};
use crate::model::record::Record;
use crate::model::view::Status;
use crate::plan::reconcile::{Desired, Reconciled, reconcile};

/// Panics if a property does not hold.
pub(super) fn all(world: &World<'_>) {
    owners(&world.shell.engine);
    kernel(world);
    processes(world);
    disk(world);
    standing(world);
}

/// A guest stands still for a snapshot only while that is taken, or it is told to go on. If it does
/// not do so for long, it is shown as paused.
fn standing(world: &World<'_>) {
    let engine = &world.shell.engine;
    for name in world.shell.processes.standing() {
        let is_shown = engine.vm(name).is_ok_and(|vm| vm.status() == Status::Paused);
        assert!(is_shown || engine.is_waking(name), "{name} stands still for ever");
    }
}

/// Nothing has two owners, and exactly the things that VMs have are handed out.
pub(super) fn owners(engine: &Engine) {
    let placed = engine.vms().filter(|vm| vm.stranded.is_none());
    let records: Vec<&Record> = placed.map(|vm| &*vm.record).collect();
    let ports: Vec<_> = records.iter().flat_map(|record| &record.nics).collect();
    once(records.iter().map(|record| record.cid));
    once(ports.iter().map(|port| &port.tap));
    once(ports.iter().map(|port| (&port.network, port.mac)));
    // An offered address belongs to nobody else.
    let held = |port: &&Nic| port.ip.or(port.lease.map(|lease| lease.ip));
    once(ports.iter().copied().filter_map(|port| held(&port)));
    once(ports.iter().flat_map(|port| port.addresses6().map(|ip| (&port.network, ip))));
    assert!(ports.iter().all(|port| port.claimed.len() <= CLAIMED_MAX), "{ports:?}");
    for (at, record) in records.iter().enumerate() {
        let others = records[..at].iter().flat_map(|record| record.exposed());
        let meets = |port: &Expose| others.clone().any(|other| other.at().meets(&port.at()));
        assert!(!record.exposed().any(meets), "{record:?} has another's port");
    }
    assert_eq!(disagreement(engine), None);
    // For a stranded VM, what nobody else has is held, too.
    let networks = match engine.stranded().next() {
        Some(_) => Vec::new(),
        None => engine.networks(),
    };
    for network in networks {
        let here = ports.iter().filter(|port| port.network == network.name);
        let leased = here.clone().filter(|port| held(port).is_some()).count();
        assert_eq!((network.ports as usize, network.leased as usize), (here.count(), leased));
    }
}

fn once<T: Ord + Debug>(all: impl Iterator<Item = T>) {
    let mut seen = BTreeSet::new();
    for one in all {
        let shown = format!("{one:?} has two owners");
        assert!(seen.insert(one), "{shown}");
    }
}

/// Nothing is overdue. The kernel has the desired objects, and no other object of ours, unless
/// others changed something that is looked at later.
fn kernel(world: &World<'_>) {
    let (shell, now) = (&world.shell, world.now.mono);
    assert!(shell.deadline().is_none_or(|at| now < at), "something is overdue");
    if !shell.engine.is_content() {
        return;
    }
    let desired = match shell.host {
        Some(_) => shell.engine.desired(),
        None => {
            let off = Some(false);
            Desired { forwarding: off, forwarding6: off, ..Desired::default() }
        }
    };
    let observed = &shell.network.kernel.observed;
    assert_eq!(reconcile(&desired, observed), Reconciled::default());
}

/// A running VM has a process, and there are no other processes.
fn processes(world: &World<'_>) {
    let vms = world.shell.engine.vms();
    let running = vms.filter_map(|vm| Some((&vm.record.name, vm.life.pid()?)));
    let living = world.shell.processes.living().map(|(name, id)| (name, id.pid));
    let ended = world.shell.processes.ended();
    // One that was killed has ended before that is told.
    let told = running.filter(|(name, _)| !ended.contains(name));
    assert_eq!(told.collect::<BTreeSet<_>>(), living.collect::<BTreeSet<_>>());
}

/// The written records are those that the engine knows, and the next daemon would hand out the same
/// things. A change of a process is not delayed because it cannot be written.
fn disk(world: &World<'_>) {
    let lasting = |record: &Record| {
        let mut record = Record {
            wanted: false,
            exit: None,
            last_error: None,
            restarts: 0,
            started_at: None,
            kvm: None,
            ..record.clone()
        };
        record.nics.iter_mut().for_each(|nic| nic.ifindex = None);
        record
    };
    let (engine, records) = (&world.shell.engine, world.records());
    let known: Vec<Record> = engine.vms().map(|vm| lasting(&vm.record)).collect();
    assert_eq!(records.values().map(lasting).collect::<Vec<_>>(), known);
    assert_eq!(world.next_engine(records).networks(), engine.networks());
}
