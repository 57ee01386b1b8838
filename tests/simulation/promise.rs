//! What callers were told, and so may rely on, whatever happens then.
//!
//! A reply is a promise. A request that has no reply yet when the daemon ends may have been done
//! or not; one that was answered with an error has changed nothing.

use std::collections::{BTreeMap, BTreeSet};

use volnet::engine::decide::Engine;
use volnet::model::error::{Error, Failure};
use volnet::model::expose::Expose;
use volnet::model::limits::Limits;
use volnet::model::mode::Mode;
use volnet::model::name::VmName;
use volnet::model::request::Ticket;
use volnet::model::request::{Change, Reply, Request};
use volnet::model::spec::{RestartPolicy, VmSpec};
use volnet::model::view::{NicView, Status, VmView};

use crate::meddling::Meddling;

/// What is known from replies alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Promises {
    vms: BTreeMap<VmName, Promised>,
    /// VMs that may be there or not.
    open: BTreeSet<VmName>,
    /// VMs in whose place others of their name were made, although nobody had deleted them, and
    /// whether they were ephemeral.
    replaced: BTreeMap<VmName, bool>,
    pending: BTreeMap<Ticket, Request>,
    /// VMs that one caller makes and starts, and another one has asked to start, too. They stay
    /// even if their start fails.
    joined: BTreeSet<VmName>,
    /// Whether more than one thing goes wrong at a time, so that a failure may not be undone.
    pub(crate) undoing_fails: bool,
}

/// A VM that was promised to be.
#[derive(Clone, Debug, PartialEq)]
struct Promised {
    view: VmView,
    spec: VmSpec,
    /// Whether it runs, where that was said last.
    runs: Option<bool>,
    /// Of each NIC the ports that lead to it, its policy and its limits, where that was said last.
    traffic: Option<Traffic>,
}

type Traffic = Vec<(Vec<Expose>, Option<String>, Option<Box<Limits>>)>;

fn traffic(vm: &VmView) -> Traffic {
    let nics = vm.nics.iter();
    nics.map(|nic| (nic.expose.clone(), nic.policy.clone(), nic.limits.clone())).collect()
}

impl Promised {
    /// Whether it is the same VM, and not another one of its name.
    fn is(&self, other: &VmView) -> bool {
        self.view.created_at == other.created_at
    }
}

impl Promises {
    /// Somebody asks.
    pub(crate) fn asked(&mut self, ticket: Ticket, request: &Request) {
        if is_clearing(request) {
            self.all_open();
        }
        if let Some(name) = starts(request) {
            let is_made = |other: &Request| makes(other) == Some(name);
            if self.pending.values().any(is_made) {
                self.joined.insert(name.clone());
            }
        }
        self.pending.insert(ticket, request.clone());
    }

    /// Somebody is answered.
    pub(crate) fn answered(&mut self, ticket: Ticket, result: &Result<Reply, Error>) {
        let request = self.pending.remove(&ticket).expect("an answer to each request, and one");
        let Request::Change(change) = request else { return };
        match (&change, result) {
            (Change::Create { dry_run: true, .. } | Change::Teardown { dry_run: true, .. }, _) => {}
            (Change::Create { name, spec, start, .. }, Ok(Reply::Created { vm, .. })) => {
                self.made(name, spec, *start, vm);
            }
            (Change::Attach { name, spec, .. }, Ok(Reply::Attached { vm, .. })) => {
                self.made(name, spec, false, vm);
            }
            (Change::Detach { id }, Ok(_)) => {
                self.vms.remove(&id.vm_name());
                self.open.remove(&id.vm_name());
            }
            (Change::Detach { id }, Err(Error::Failed(_))) => {
                self.open.insert(id.vm_name());
            }
            (Change::Start { name } | Change::Restart { name, .. }, Ok(Reply::Vm { vm })) => {
                self.runs(name, (vm.status == Status::Running).then_some(true))
            }
            (Change::Create { name, start: true, .. }, Err(Error::Failed(_)))
                if !self.vms.contains_key(name) && self.joined.contains(name) =>
            {
                self.open.insert(name.clone());
            }
            (
                Change::Create { name, start: true, .. },
                Err(Error::Failed(Failure::Hypervisor { .. })),
            ) if self.undoing_fails && !self.vms.contains_key(name) => {
                // It was made, its hypervisor ended, and then the kernel did not let go of it.
                self.runs(name, None);
                self.open.insert(name.clone());
            }
            (
                Change::Expose { name, .. }
                | Change::Unexpose { name, .. }
                | Change::SetPolicy { name, .. }
                | Change::SetLimits { name, .. },
                Ok(Reply::Vm { vm }),
            ) => self.traffic(name, Some(traffic(vm))),
            (
                Change::Expose { name, .. }
                | Change::Unexpose { name, .. }
                | Change::SetPolicy { name, .. }
                | Change::SetLimits { name, .. },
                Err(Error::Failed(_)),
            ) if self.undoing_fails => self.traffic(name, None),
            (Change::Stop { name, .. }, Ok(_)) => self.runs(name, Some(false)),
            (Change::Start { name }, Err(Error::Failed(_))) => {
                let left = |vm: &Promised| vm.spec.restart == RestartPolicy::No;
                let left = self.vms.get(name).is_some_and(left);
                self.runs(name, left.then_some(false));
            }
            (Change::Delete { name, .. }, Ok(_)) => {
                self.vms.remove(name);
                self.open.remove(name);
            }
            (Change::Delete { name, .. }, Err(Error::Failed(_)))
                if !self.vms.contains_key(name) =>
            {
                // Whoever made it was told that it was deleted, and then it could not be.
                self.open.insert(name.clone());
            }
            (Change::Teardown { .. }, Ok(_)) => {
                self.vms.clear();
                self.open.clear();
            }
            (Change::Teardown { .. }, Err(Error::Failed(_))) => self.all_open(),
            (
                Change::Create { name, .. }
                | Change::Stop { name, .. }
                | Change::Restart { name, .. }
                | Change::Delete { name, .. },
                Err(Error::Failed(_)),
            ) => self.runs(name, None),
            _ => {}
        }
        let pending = &self.pending;
        self.joined.retain(|name| pending.values().any(|other| makes(other) == Some(name)));
    }

    /// Somebody was told that a VM was made.
    fn made(&mut self, name: &VmName, spec: &VmSpec, start: bool, vm: &VmView) {
        let open = self.open.contains(name);
        let former = match self.vms.get(name) {
            Some(former) if former.is(vm) => former.runs,
            Some(former) if !open => {
                let ephemeral = former.spec.ephemeral;
                self.replaced.insert(name.clone(), ephemeral);
                Some(false)
            }
            Some(_) | None => (!open).then_some(false),
        };
        let runs = if start { Some(true) } else { former };
        let (view, spec, traffic) = (vm.clone(), spec.clone(), Some(traffic(vm)));
        self.vms.insert(name.clone(), Promised { view, spec, runs, traffic });
        self.open.remove(name);
        if vm.status == Status::Stopping || self.pending.values().any(is_clearing) {
            // Somebody has asked for its end meanwhile, or for that of all.
            self.runs(name, None);
            self.open.insert(name.clone());
        }
    }

    /// A hypervisor ended by itself: what its policy makes of that is not promised.
    pub(crate) fn ended(&mut self, name: &VmName) {
        self.runs(name, None);
    }

    /// Others did something. A hypervisor that loses its tap may be restarted for it, and an
    /// attachment ends with its link.
    pub(crate) fn meddled(&mut self, meddling: Meddling) {
        if let Meddling::Delete(_) = meddling {
            self.vms.values_mut().for_each(|vm| vm.runs = None);
            let attached = self.vms.iter().filter(|(_, vm)| vm.spec.attachment.is_some());
            self.open.extend(attached.map(|(name, _)| name.clone()));
        }
    }

    /// The daemon ended, and with it all requests that were not answered.
    pub(crate) fn crashed(&mut self) {
        self.joined.clear();
        for request in std::mem::take(&mut self.pending).into_values() {
            let Request::Change(change) = request else { continue };
            match change {
                Change::Create { name, .. }
                | Change::Attach { name, .. }
                | Change::Delete { name, .. } => {
                    self.runs(&name, None);
                    self.open.insert(name);
                }
                Change::Detach { id } => drop(self.open.insert(id.vm_name())),
                Change::Start { name }
                | Change::Stop { name, .. }
                | Change::Restart { name, .. } => self.runs(&name, None),
                // Whether a guest is paused is in no record.
                Change::Pause { .. } | Change::Resume { .. } => {}
                Change::Expose { name, .. }
                | Change::Unexpose { name, .. }
                | Change::SetPolicy { name, .. }
                | Change::SetLimits { name, .. } => {
                    self.traffic(&name, None);
                }
                Change::Teardown { .. } => self.all_open(),
                _ => {}
            }
        }
        for vm in self.vms.values_mut().filter(|vm| vm.spec.autostart) {
            vm.runs = vm.runs.filter(|runs| *runs);
        }
    }

    /// The host ended: what was ephemeral is no more, and nothing runs that is not to be started
    /// with the daemon.
    pub(crate) fn rebooted(&mut self) {
        self.crashed();
        self.vms.retain(|_, vm| !vm.spec.ephemeral);
        // A record that was moved aside went with the others, so nobody can tell that it was.
        self.replaced.retain(|_, ephemeral| !*ephemeral);
        for vm in self.vms.values_mut() {
            let again = vm.spec.autostart || vm.spec.restart != RestartPolicy::No;
            vm.runs = if again { vm.runs } else { Some(false) };
        }
    }

    /// What was promised and is not so. What was left open is known from now on. The records in
    /// `unreadable` were moved aside: that is said, and all that can be done.
    pub(crate) fn broken(&mut self, engine: &Engine, unreadable: &[VmName]) -> Vec<String> {
        let mut broken = Vec::new();
        let there: Vec<(VmView, &VmSpec)> =
            engine.vms().map(|vm| (engine.show(vm), &vm.record.spec)).collect();
        for request in self.pending.values() {
            broken.push(format!("{request:?} was not answered"));
        }
        for name in std::mem::take(&mut self.replaced).into_keys() {
            if !unreadable.contains(&name) {
                broken.push(format!("{name} was promised and made anew"));
            }
        }
        self.open.extend(unreadable.iter().cloned());
        let open = std::mem::take(&mut self.open);
        for name in &open {
            match there.iter().find(|(vm, _)| vm.name == *name) {
                None => drop(self.vms.remove(name)),
                // Made, or deleted and made anew.
                Some((vm, spec)) if !self.vms.get(name).is_some_and(|old| old.is(vm)) => {
                    let (view, spec) = (vm.clone(), (*spec).clone());
                    let promised = Promised { view, spec, runs: None, traffic: None };
                    self.vms.insert(name.clone(), promised);
                }
                Some(_) => {}
            }
        }
        for (vm, _) in there.iter().filter(|(vm, _)| !unreadable.contains(&vm.name)) {
            let Some(promised) = self.vms.get(&vm.name) else {
                broken.push(format!("{vm:?} was not promised"));
                continue;
            };
            if identity(vm) != identity(&promised.view) {
                broken.push(format!("{vm:?} was promised as {:?}", promised.view));
            }
            if promised.traffic.as_ref().is_some_and(|promised| *promised != traffic(vm)) {
                broken.push(format!("{vm:?} was promised with {:?}", promised.traffic));
            }
            if promised.runs.is_some_and(|runs| runs != vm.pid.is_some()) {
                broken.push(format!("{vm:?} was promised with runs = {:?}", promised.runs));
            }
        }
        for name in self.vms.keys() {
            if !there.iter().any(|(vm, _)| vm.name == *name) {
                broken.push(format!("{name} was promised and is not there"));
            }
        }
        broken
    }

    fn all_open(&mut self) {
        self.open.extend(self.vms.keys().cloned());
        self.vms.values_mut().for_each(|vm| vm.runs = None);
    }

    fn traffic(&mut self, name: &VmName, traffic: Option<Traffic>) {
        if let Some(vm) = self.vms.get_mut(name) {
            vm.traffic = traffic;
        }
    }

    fn runs(&mut self, name: &VmName, runs: Option<bool>) {
        if let Some(vm) = self.vms.get_mut(name) {
            vm.runs = runs;
        }
    }
}

/// The VM that a request makes and starts.
fn makes(request: &Request) -> Option<&VmName> {
    match request {
        Request::Change(Change::Create { name, start: true, dry_run: false, .. }) => Some(name),
        _ => None,
    }
}

/// The VM that a request wants to run.
fn starts(request: &Request) -> Option<&VmName> {
    match request {
        Request::Change(Change::Start { name }) => Some(name),
        _ => makes(request),
    }
}

/// Whether every VM goes, those too that are made before it is answered.
fn is_clearing(request: &Request) -> bool {
    matches!(request, Request::Change(Change::Teardown { dry_run: false, force: true }))
}

/// What never changes of a VM. The index of its tap does: a tap that was lost is made anew; and so
/// does the address of a guest that asks for one.
fn identity(vm: &VmView) -> VmView {
    let own = vm.mode != Mode::Dhcp;
    let nics = vm.nics.iter().map(|nic| {
        let own = nic.mode != Mode::Dhcp;
        NicView {
            ip: nic.ip.filter(|_| own),
            netmask: nic.netmask.filter(|_| own),
            gateway: nic.gateway.filter(|_| own),
            ifindex: None,
            expose: Vec::new(),
            policy: None,
            limits: None,
            claimed: Vec::new(),
            ..nic.clone()
        }
    });
    VmView {
        ip: vm.ip.filter(|_| own),
        netmask: vm.netmask.filter(|_| own),
        gateway: vm.gateway.filter(|_| own),
        status: Status::Created,
        ifindex: None,
        expose: Vec::new(),
        policy: None,
        limits: None,
        claimed: Vec::new(),
        nics: nics.collect(),
        pid: None,
        uid: None,
        budget: None,
        kvm: None,
        exit_code: None,
        exit_signal: None,
        last_error: None,
        restarts: 0,
        started_at: None,
        ..vm.clone()
    }
}
