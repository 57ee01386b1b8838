//! What callers were told, and so may rely on, whatever happens then.
//!
//! A reply is a promise. A request that has no reply yet when the daemon ends may have been done
//! or not; one that was answered with an error has changed nothing.

use std::collections::{BTreeMap, BTreeSet};

use volnet::engine::name::VmName;
use volnet::engine::request::{Reply, Request};
use volnet::engine::supervise::Ticket;
use volnet::engine::view::VmView;
use volnet::error::Error;
use volnet::spec::{RestartPolicy, VmSpec};

/// What is known from replies alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promises {
    vms: BTreeMap<VmName, Promised>,
    /// VMs that may be there or not.
    open: BTreeSet<VmName>,
    /// What was last asked for under a name.
    asked_of: BTreeMap<VmName, VmSpec>,
    pending: BTreeMap<Ticket, Request>,
}

/// A VM that was promised to be.
#[derive(Clone, Debug)]
struct Promised {
    view: VmView,
    spec: VmSpec,
    /// Whether it runs, where that was said last.
    runs: Option<bool>,
}

impl Promises {
    /// Somebody asks.
    pub(crate) fn asked(&mut self, ticket: Ticket, request: &Request) {
        if let Request::Create { name, spec, dry_run: false, .. } = request
            && !self.vms.contains_key(name)
        {
            self.asked_of.insert(name.clone(), (**spec).clone());
        }
        self.pending.insert(ticket, request.clone());
    }

    /// Somebody is answered.
    pub(crate) fn answered(&mut self, ticket: Ticket, result: &Result<Reply, Error>) {
        let request = self.pending.remove(&ticket).expect("an answer to each request, and one");
        match (&request, result) {
            (
                Request::Create { dry_run: true, .. } | Request::Teardown { dry_run: true, .. },
                _,
            ) => {}
            (Request::Create { name, spec, start, .. }, Ok(Reply::Created { vm, .. })) => {
                let former = self.vms.get(name).map_or(Some(false), |former| former.runs);
                let runs = if *start { Some(true) } else { former };
                let promised = Promised { view: vm.clone(), spec: (**spec).clone(), runs };
                self.vms.insert(name.clone(), promised);
                self.open.remove(name);
            }
            (Request::Start { name } | Request::Restart { name, .. }, Ok(_)) => {
                self.runs(name, Some(true));
            }
            (Request::Stop { name, .. }, Ok(_)) => self.runs(name, Some(false)),
            (Request::Start { name }, Err(Error::Failed(_))) => {
                let left = |vm: &Promised| vm.spec.restart == RestartPolicy::No;
                let left = self.vms.get(name).is_some_and(left);
                self.runs(name, left.then_some(false));
            }
            (Request::Delete { name, .. }, Ok(_)) => {
                self.vms.remove(name);
                self.open.remove(name);
            }
            (Request::Teardown { .. }, Ok(_)) => {
                self.vms.clear();
                self.open.clear();
            }
            (Request::Teardown { .. }, Err(Error::Failed(_))) => self.all_open(),
            (
                Request::Create { name, .. }
                | Request::Stop { name, .. }
                | Request::Restart { name, .. }
                | Request::Delete { name, .. },
                Err(Error::Failed(_)),
            ) => self.runs(name, None),
            _ => {}
        }
    }

    /// A hypervisor ended by itself: what its policy makes of that is not promised.
    pub(crate) fn ended(&mut self, name: &VmName) {
        self.runs(name, None);
    }

    /// The daemon ended, and with it all requests that were not answered.
    pub(crate) fn crashed(&mut self) {
        for request in std::mem::take(&mut self.pending).into_values() {
            match request {
                Request::Create { name, .. } | Request::Delete { name, .. } => {
                    self.runs(&name, None);
                    self.open.insert(name);
                }
                Request::Start { name }
                | Request::Stop { name, .. }
                | Request::Restart { name, .. } => self.runs(&name, None),
                Request::Teardown { .. } => self.all_open(),
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
        for vm in self.vms.values_mut() {
            let again = vm.spec.autostart || vm.spec.restart == RestartPolicy::Always;
            vm.runs = if again { vm.runs } else { Some(false) };
        }
    }

    /// What was promised and is not so. What was left open is known from now on. The records in
    /// `unreadable` were moved aside: that is said, and all that can be done.
    pub(crate) fn broken(&mut self, there: &[VmView], unreadable: &[VmName]) -> Vec<String> {
        let mut broken = Vec::new();
        self.open.extend(unreadable.iter().cloned());
        let open = std::mem::take(&mut self.open);
        for name in &open {
            match there.iter().find(|vm| vm.name == *name) {
                None => drop(self.vms.remove(name)),
                Some(vm) if !self.vms.contains_key(name) => {
                    let spec = self.asked_of[name].clone();
                    let promised = Promised { view: vm.clone(), spec, runs: None };
                    self.vms.insert(name.clone(), promised);
                }
                Some(_) => {}
            }
        }
        for vm in there {
            let Some(promised) = self.vms.get(&vm.name) else {
                broken.push(format!("{vm:?} was not promised"));
                continue;
            };
            if identity(vm) != identity(&promised.view) {
                broken.push(format!("{vm:?} was promised as {:?}", promised.view));
            }
            if promised.runs.is_some_and(|runs| runs != vm.pid.is_some()) {
                broken.push(format!("{vm:?} was promised with runs = {:?}", promised.runs));
            }
        }
        for name in self.vms.keys() {
            if !there.iter().any(|vm| vm.name == *name) {
                broken.push(format!("{name} was promised and is not there"));
            }
        }
        broken
    }

    fn all_open(&mut self) {
        self.open.extend(self.vms.keys().cloned());
        self.vms.values_mut().for_each(|vm| vm.runs = None);
    }

    fn runs(&mut self, name: &VmName, runs: Option<bool>) {
        if let Some(vm) = self.vms.get_mut(name) {
            vm.runs = runs;
        }
    }
}

/// What never changes of a VM. The index of its tap does: a tap that was lost is made anew.
fn identity(vm: &VmView) -> VmView {
    VmView {
        status: volnet::engine::view::Status::Created,
        ifindex: None,
        pid: None,
        exit_code: None,
        exit_signal: None,
        restarts: 0,
        started_at: None,
        ..vm.clone()
    }
}
