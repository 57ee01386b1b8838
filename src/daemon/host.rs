//! The host as a whole: setup, teardown, and the takeover of the state that an earlier daemon left.
//!
//! All three observe the kernel, compare it with the desired state, and run the resulting plan. A
//! create or a delete never dumps kernel state.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::doubt::{Evidence, State};
use super::shell::Shell;
use crate::engine::create::commands;
use crate::engine::vm::Vm;
use crate::engine::watch::Notice;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::error::{Error, Failure, Refusal};
use crate::model::name::VmName;
use crate::model::record::{Action, HostRecord, Intent, ProcessId};
use crate::model::request::Reply;
use crate::model::view::EventKind;
use crate::network::features::Features;
use crate::network::{Network, execute};
use crate::plan::op::{Op, Plan, Switch};
use crate::plan::reconcile::{
    ACCEPT_RA, Desired, Observed, Problem, Reconciled, reconcile, remove_unfinished,
};
use crate::store::storage::Storage;

/// The obstacles that setup ignores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insistence {
    /// Nothing.
    None,
    /// Networks that overlap with addresses and routes of the host are made.
    Overlaps,
    /// Taps that belong to no VM but are held open are also removed, and the state directory is
    /// trusted.
    Forced,
}

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Brings the host to its desired state. With `dry_run` it only returns the commands for that.
    pub(super) fn setup(
        &mut self,
        dry_run: bool,
        insistence: Insistence,
        now: Now,
    ) -> Result<Reply, Error> {
        let evict = insistence == Insistence::Forced;
        let observed = self.network.observe()?;
        self.is_in_doubt(&observed);
        if !evict {
            self.refuse_in_doubt()?;
        }
        let reconciled = reconcile(&Desired { evict, ..self.engine.desired() }, &observed);
        let overlap = match insistence {
            Insistence::None => self.engine.overlap(&observed),
            Insistence::Overlaps | Insistence::Forced => None,
        };
        if let Some(refusal) = self.features()?.refusal(&reconciled.plan) {
            return Err(refusal.into());
        }
        let blocking = reconciled.problems.iter().find(|problem| !problem.is_left_over());
        if let Some(reason) = blocking.map(Problem::to_string).or(overlap) {
            return Err(Refusal::InvalidConfig { field: "networks".into(), reason }.into());
        }
        let plan = self.told(&reconciled, dry_run);
        if !dry_run {
            self.state = State::Trusted;
            let first = self.host.is_none();
            self.remember_host(&observed)?;
            self.engine.observed(&observed.links);
            let applied = execute::execute(&mut self.network, &reconciled.plan, self.serving);
            if applied.is_err() {
                self.undo_setup(first, now);
            }
            let applied = applied?;
            self.sound = true;
            for (op, applied) in reconciled.plan.iter().zip(applied) {
                self.remade(op, applied, now);
            }
        }
        Ok(Reply::Plan { plan })
    }

    /// A setup failed and its steps were undone. A bridge that was made, but has no alias yet, is
    /// removed here, because no step knows its index.
    pub(super) fn undo_setup(&mut self, first: bool, now: Now) {
        let cleared = self.network.observe().and_then(|observed| {
            let results = execute::execute_all(
                &mut self.network,
                &remove_unfinished(&observed),
                self.serving,
            );
            results.into_iter().collect::<Result<Vec<_>, _>>()
        });
        let forgotten = if first { self.forget_host() } else { Ok(()) };
        for failure in cleared.err().into_iter().chain(forgotten.err()) {
            log::error!("while undoing: {failure}");
        }
        if self.host.is_some() {
            self.engine.look_again(now);
        }
    }

    /// Makes sure that the bridges and tables that a plan needs exist. They do, unless a step
    /// failed when the host was last observed. Then the step is tried again here, and its error is
    /// returned.
    pub(super) fn stand(&mut self, plan: &[Op]) -> Result<(), Error> {
        if plan.iter().any(|op| matches!(op, Op::ShapeLink { to: Some(_), .. })) {
            if let Some(refusal) = self.features()?.refusal(plan) {
                return Err(refusal.into());
            }
        }
        let bridges: Vec<&str> = plan.iter().filter_map(Op::attaches_to).collect();
        if self.sound || bridges.is_empty() {
            return Ok(());
        }
        let observed = self.network.observe()?;
        if self.is_in_doubt(&observed) {
            self.refuse_in_doubt()?;
        }
        let reconciled = reconcile(&self.engine.desired(), &observed);
        let of_bridge = |problem: &&Problem| {
            matches!(problem,
                Problem::BridgeTaken { bridge, .. } | Problem::BridgeMissing { bridge }
                if bridges.contains(&&**bridge))
        };
        if let Some(problem) = reconciled.problems.iter().find(of_bridge) {
            let reason = problem.to_string();
            return Err(Refusal::InvalidConfig { field: "networks".into(), reason }.into());
        }
        let needed = |op: &Op| op.is_of_host() || op.link().is_some_and(|on| bridges.contains(&on));
        let plan: Plan = reconciled.plan.into_iter().filter(needed).collect();
        if let Some(refusal) = self.features()?.refusal(&plan) {
            return Err(refusal.into());
        }
        self.remember_host(&observed)?;
        execute::execute(&mut self.network, &plan, self.serving)?;
        Ok(())
    }

    /// Removes everything of volnet from the host. If a step fails, it goes on and reports the
    /// first failure; then the removed objects come back, as after any request that failed. Only
    /// with `force` it removes taps that belong to no VM but are held open, and objects that a
    /// state directory in doubt does not know.
    pub(super) fn teardown(
        &mut self,
        dry_run: bool,
        force: bool,
        now: Now,
    ) -> Result<Reply, Error> {
        let observed = self.network.observe()?;
        self.is_in_doubt(&observed);
        if !force {
            self.refuse_in_doubt()?;
        }
        let (forwarding, kept) = self.forwarding_after(observed.forwarding);
        let (forwarding6, kept6) = self.forwarding6_after(&observed);
        let accepted = self.host.as_ref().map(|host| host.accepted.clone()).unwrap_or_default();
        let nothing =
            Desired { forwarding, forwarding6, accepted, evict: force, ..Desired::default() };
        let reconciled = reconcile(&nothing, &observed);
        let held = |problem: &&Problem| matches!(problem, Problem::TapHeld { .. });
        if let Some(problem) = reconciled.problems.iter().find(held) {
            let (field, reason) = ("force".into(), problem.to_string());
            return Err(Refusal::InvalidConfig { field, reason }.into());
        }
        let mut plan = self.told(&reconciled, dry_run);
        let kept = [("IPv4", kept), ("IPv6", kept6)];
        for (family, why) in kept.into_iter().filter_map(|(family, why)| Some((family, why?))) {
            let words = format!("{family} forwarding stays on: {why}");
            plan.push(format!("# {words}"));
            if !dry_run {
                log::warn!("{words}");
            }
        }
        if !dry_run {
            self.state = State::Trusted;
            self.engine.look_again(now);
            let results = execute::execute_all(&mut self.network, &reconciled.plan, self.serving);
            self.network.flush();
            self.bridges.extend(self.engine.configured().map(|network| network.bridge.clone()));
            results.into_iter().collect::<Result<Vec<_>, _>>()?;
            self.forget_networks(now)?;
            self.forget_host()?;
            self.processes.leave();
        }
        Ok(Reply::Plan { plan })
    }

    /// The commands of a plan, with comments about the links that stay. The comments are logged,
    /// unless it is a dry run.
    fn told(&self, reconciled: &Reconciled, dry_run: bool) -> Vec<String> {
        let mut plan = commands(&reconciled.plan);
        for problem in &reconciled.problems {
            plan.push(format!("# {problem}"));
            if !dry_run {
                log::warn!("{problem}");
            }
        }
        plan
    }

    /// The features of the kernel. It is asked once.
    pub(super) fn features(&mut self) -> Result<Features, Failure> {
        if let Some(features) = self.features {
            return Ok(features);
        }
        let features = self.network.features()?;
        self.features = Some(features);
        Ok(features)
    }

    /// The state of forwarding after a teardown: the former state, if volnet switched it on and
    /// nobody else needs it now. The second value says who needs it.
    fn forwarding_after(&mut self, is: bool) -> (Option<bool>, Option<String>) {
        let switched = self.engine.configured().any(|network| network.managed);
        match self.host.as_ref().filter(|_| switched).map(|host| host.forwarding_before) {
            Some(false) if is => match self.network.surroundings() {
                Ok(surroundings) => match surroundings.needs_forwarding() {
                    Some(why) => (None, Some(why)),
                    None => (Some(false), None),
                },
                Err(failure) => (None, Some(failure.to_string())),
            },
            before => (before, None),
        }
    }

    /// The same for IPv6. If forwarding stays on, links go on accepting router advertisements.
    fn forwarding6_after(&mut self, observed: &Observed) -> (Option<bool>, Option<String>) {
        let before = self.host.as_ref().and_then(|host| host.forwarding6_before);
        match (before, observed.switches.get(&Switch::Forwarding)) {
            (Some(false), Some(1)) => match self.network.surroundings() {
                Ok(surroundings) => match surroundings.needs_forwarding() {
                    Some(why) => (None, Some(why)),
                    None => (Some(false), None),
                },
                Err(failure) => (None, Some(failure.to_string())),
            },
            (Some(false), _) => (Some(false), None),
            (Some(true) | None, _) => (None, None),
        }
    }

    /// The host is as it was before the first setup. If the file of its former state cannot be
    /// removed, the host still counts as set up, and healing sets it up again.
    fn forget_host(&mut self) -> Result<(), Failure> {
        self.store.remove_host()?;
        self.host = None;
        self.engine.forget_drift();
        Ok(())
    }

    /// Takes over the state that an earlier daemon left, and makes host and VMs agree with the
    /// records.
    pub fn recover(&mut self, now: Now) -> Result<(), Error> {
        let intents = self.load(now)?;
        if let Err(error) = self.resume(now) {
            log::error!("{error}");
            self.engine.look_again(now);
        }
        for (name, intent) in intents {
            if self.has_guest_go_on(&intent) {
                self.await_guest(name);
                continue;
            }
            if self.engine.vm(&name).is_err() {
                if self.processes.find(&name).is_some() {
                    // It was killed but has not ended. The intent stays, for the next daemon.
                    continue;
                }
                self.launcher.take_back(&intent.record);
                self.clean(&name);
            }
            if let Err(failure) = self.store.clear_intent(&name) {
                log::warn!("{failure}");
            }
        }
        self.resolve(now);
        let starts = |vm: &Vm| vm.record.spec.autostart && self.launcher.uses_kvm(&vm.record);
        if self.engine.vms().any(starts) {
            self.launcher.await_kvm();
        }
        self.engine.autostart();
        self.settle(now);
        Ok(())
    }

    /// Makes the kernel agree with the records. A step that fails is logged, and the daemon serves
    /// all other VMs.
    pub(super) fn resume(&mut self, now: Now) -> Result<(), Failure> {
        let observed = self.network.observe()?;
        if self.is_in_doubt(&observed) {
            return Ok(());
        }
        self.engine.observed(&observed.links);
        let reconciled = reconcile(&self.engine.desired(), &observed);
        for problem in &reconciled.problems {
            log::error!("{problem}");
        }
        for op in &reconciled.plan {
            if let Op::DeleteLink { name, .. } = op {
                log::warn!("removing link {name}: it has our mark, and no VM or network needs it");
            }
        }
        self.look_around(now);
        let mut plan = reconciled.plan;
        let refusal = self.features()?.restrict(&mut plan);
        if let Some(refusal) = &refusal {
            log::error!("{refusal}");
        }
        self.remember_host(&observed)?;
        let failed = self.apply_all(&plan, now);
        let blocked = reconciled.problems.iter().any(|problem| !problem.is_left_over());
        self.sound = !failed && !blocked && refusal.is_none();
        if failed {
            self.engine.look_again(now);
        }
        Ok(())
    }

    /// Reads the files of an earlier daemon and takes its processes over. The kernel is not
    /// changed. Returns the changes that were cut short. A process that has no file, or one that
    /// cannot be read, is found by its environment. It is an error if a directory cannot be read,
    /// or if a process runs and cannot be watched.
    pub fn load(&mut self, now: Now) -> Result<Vec<(VmName, Intent)>, Error> {
        let loaded = self.store.load()?;
        for (path, reason) in &loaded.set_aside {
            log::error!("cannot use a file, moved it to {}: {reason}", path.display());
        }
        self.state = State::Open(Evidence::new(&loaded, self.store.durable()), None);
        self.host = loaded.host;
        self.load_networks(loaded.networks, now);
        for record in loaded.records {
            let name = record.name.clone();
            if let Err(reason) = self.engine.restore(record) {
                let message = format!("VM {name} cannot be taken over: {reason}");
                let vm = Some(name);
                self.event(Notice { kind: EventKind::Drift, vm, message, by: None }, now);
            }
        }
        let started = loaded.intents.iter().filter(|(_, intent)| match &intent.action {
            Action::Create => intent.record.wanted,
            Action::Start => true,
            Action::Snapshot { .. } => false,
        });
        let cut_short: BTreeSet<&VmName> =
            started.map(|(name, _)| name).chain(&loaded.in_doubt).collect();
        let mut known: BTreeMap<VmName, ProcessId> = loaded.processes.into_iter().collect();
        for (name, id) in self.processes.find_all(&self.engine.users()) {
            if self.engine.vm(&name).is_err() && !cut_short.contains(&name) {
                known.remove(&name);
                self.keep_stray(name, id);
            } else if known.get(&name) != Some(&id) {
                // The file may exist and name an earlier process that has ended.
                self.store.put_process(&name, &id)?;
                known.insert(name, id);
            }
        }
        self.take_over_processes(known, now)?;
        self.processes.sweep();
        self.lend_folders();
        for name in &loaded.in_doubt {
            if self.engine.vm(name).is_err() {
                self.clean(name);
            }
        }
        Ok(loaded.intents)
    }

    /// Makes the folders of VMs whose hypervisors others start, if they are missing: the host has
    /// rebooted, or somebody wiped the runtime directory.
    fn lend_folders(&mut self) {
        let records: Vec<_> = self.engine.vms().map(|vm| Rc::clone(&vm.record)).collect();
        for record in records {
            if let Err(failure) = self.lend_folder(&record) {
                log::error!(vm:% = record.name; "{failure}");
            }
        }
    }

    /// Adopts the processes that still run, and reports the end of the others.
    fn take_over_processes(
        &mut self,
        mut known: BTreeMap<VmName, ProcessId>,
        now: Now,
    ) -> Result<(), Failure> {
        let names: Vec<VmName> = self.engine.vms().map(|vm| vm.record.name.clone()).collect();
        for name in names {
            let adopted = match known.remove(&name) {
                Some(id) => self.adopt(&name, &id, now)?,
                None => false,
            };
            if !adopted {
                self.forget_process(&name);
                if self.engine.vm(&name).is_ok_and(|vm| !vm.record.spec.lends_folder()) {
                    self.processes.clean(&name);
                }
                if let Some(decision) = self.engine.lost(&name, now) {
                    self.carry_out(decision, now);
                }
            }
        }
        known.iter().try_for_each(|(name, id)| self.end_orphan(name, id))
    }

    /// Watches a process again. Returns false if it has ended.
    fn adopt(&mut self, name: &VmName, id: &ProcessId, now: Now) -> Result<bool, Failure> {
        if !self.processes.adopt(name, id)? {
            return Ok(false);
        }
        let completed = self.engine.adopted(name, id.pid, now);
        self.started.push(name.clone());
        let message = format!("VM {name} was adopted, process {}", id.pid);
        let vm = Some(name.clone());
        self.event(Notice { kind: EventKind::VmAdopted, vm, message, by: None }, now);
        if let Some(decision) = completed {
            self.carry_out(decision, now);
        }
        Ok(true)
    }

    /// Ends a process of ours whose VM does not exist, because its create was cut short. If it does
    /// not end, its intent stays for the next daemon.
    fn end_orphan(&mut self, name: &VmName, id: &ProcessId) -> Result<(), Failure> {
        if self.processes.adopt(name, id)? {
            if let Err(failure) = self.processes.kill_and_reap(name) {
                log::error!(vm:% = name; "cannot remove the rest of it: {failure}");
                return Ok(());
            }
        }
        self.clean(name);
        self.forget_process(name);
        Ok(())
    }

    /// Writes the state of the host before its first change, so that teardown can restore it, and
    /// the directory of its records.
    pub(super) fn remember_host(&mut self, observed: &Observed) -> Result<(), Failure> {
        self.store.begin()?;
        let records = self.store.durable();
        let mut host = match &self.host {
            Some(host) => HostRecord { records, ..host.clone() },
            None => {
                let networks = self.engine.configured();
                HostRecord {
                    forwarding_before: observed.forwarding,
                    forwarding6_before: None,
                    accepted: BTreeSet::new(),
                    bridges: networks.map(|network| network.bridge.clone()).collect(),
                    records,
                }
            }
        };
        if self.engine.has_ipv6() {
            let forwarding = observed.switches.get(&Switch::Forwarding).map(|value| *value == 1);
            host.forwarding6_before = host.forwarding6_before.or(forwarding);
            host.accepted.extend(accepting(observed));
        }
        if self.host.as_ref() == Some(&host) {
            return Ok(());
        }
        self.store.put_host(&host)?;
        self.host = Some(host);
        Ok(())
    }
}

/// The links that accept router advertisements as long as the host does not forward IPv6.
fn accepting(observed: &Observed) -> impl Iterator<Item = String> {
    let forwards = observed.switches.get(&Switch::Forwarding) != Some(&0);
    observed.switches.iter().filter_map(move |(switch, value)| match switch {
        Switch::AcceptRa(link) if *value == ACCEPT_RA && !forwards => Some(link.clone()),
        Switch::AcceptRa(_) | Switch::Forwarding => None,
    })
}
