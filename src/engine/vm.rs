//! A VM in the engine: its record, and the state of its process.

use std::net::IpAddr;
use std::rc::Rc;

use crate::engine::lease::Pace;
use crate::engine::stranded::Stranded;
use crate::engine::supervise::{Life, Pause};
use crate::model::kernel_args::kernel_args;
use crate::model::net::NetworkConfig;
use crate::model::record::{Exit, Record};
use crate::model::view::{NicView, Status, VmView};

/// A VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// What is written down. Shared with a decision that is under way, and with the VM as it was
    /// before that.
    pub record: Rc<Record>,
    /// The state of its process.
    pub life: Life,
    /// Why it has lost its place on its networks, if it has.
    pub stranded: Option<Box<Stranded>>,
    /// Restarts by policy since the last steady run.
    pub in_a_row: u32,
    /// The guest's changes of its lease, for their limit.
    pub changes: Pace,
    /// The answered messages of the guest, for their limit.
    pub answers: Pace,
    /// When such a message was last answered, by the monotonic clock.
    pub answered: Option<u64>,
    /// When the guest last asked for a name.
    pub named: Option<u64>,
}

impl Vm {
    /// A VM without a process.
    pub fn idle(record: Record) -> Vm {
        Vm {
            record: Rc::new(record),
            life: Life::Idle,
            stranded: None,
            in_a_row: 0,
            changes: Pace::default(),
            answers: Pace::default(),
            answered: None,
            named: None,
        }
    }

    /// The record, to be changed.
    pub(super) fn edit(&mut self) -> &mut Record {
        Rc::make_mut(&mut self.record)
    }

    /// Its status.
    pub fn status(&self) -> Status {
        match (&self.life, self.record.exit) {
            // An earlier daemon may have told that an adopted one runs.
            (Life::Running { check: Some(check), .. }, _) if !check.origin.was_told() => {
                Status::Created
            }
            (Life::Running { pause: Pause { is_paused: true, .. }, .. }, _) => Status::Paused,
            (Life::Running { .. }, _) => Status::Running,
            (Life::Stopping { .. }, _) => Status::Stopping,
            (Life::Idle | Life::Waiting { .. }, None) => Status::Created,
            (Life::Idle | Life::Waiting { .. }, Some(Exit::Code(0))) => Status::Stopped,
            (Life::Idle, Some(_)) if !self.record.wanted => Status::Stopped,
            (Life::Idle | Life::Waiting { .. }, Some(_)) => Status::Crashed,
        }
    }

    /// Why it does not run, or why its guest stands still.
    pub fn last_error(&self) -> Option<Box<str>> {
        self.halt().map(String::into).or_else(|| self.record.last_error.clone())
    }

    /// The VM as the interface shows it, with its NICs. `hypervisor` is the one that it has if it
    /// names none.
    pub fn view(&self, nics: Box<[NicView]>, kernel_args: Box<str>, hypervisor: &str) -> VmView {
        let first = nics.first();
        let record = &self.record;
        let machine = record.spec.machine.as_ref();
        let hypervisor =
            machine.map(|machine| machine.hypervisor.as_deref().unwrap_or(hypervisor).to_owned());
        VmView {
            name: record.name.clone(),
            mode: record.mode(),
            status: self.status(),
            problem: self.stranded.as_ref().map(|stranded| stranded.reason.clone()),
            network: first.map(|nic| nic.network.clone()),
            tap: first.map(|nic| nic.tap.clone()),
            ifindex: first.and_then(|nic| nic.ifindex),
            mac: first.map(|nic| nic.mac),
            ip: first.and_then(|nic| nic.ip),
            netmask: first.and_then(|nic| nic.netmask),
            gateway: first.and_then(|nic| nic.gateway),
            addresses: first.map(|nic| nic.addresses.clone()).unwrap_or_default(),
            ip6: first.and_then(|nic| nic.ip6),
            inner: first.and_then(|nic| nic.inner.clone()),
            claimed: first.map(|nic| nic.claimed.clone()).unwrap_or_default(),
            mtu: first.map(|nic| nic.mtu),
            policy: first.and_then(|nic| nic.policy.clone()),
            limits: first.and_then(|nic| nic.limits.clone()),
            expose: first.map(|nic| nic.expose.clone()).unwrap_or_default(),
            nics,
            cid: record.cid,
            vsock: record.spec.has_vsock(),
            kernel_args,
            ephemeral: record.spec.ephemeral,
            owner: record.spec.owner,
            attachment: record.spec.attachment.clone(),
            hypervisor,
            pid: self.life.pid(),
            uid: record.user.map(|user| user.uid),
            budget: (!record.spec.budget.is_empty()).then(|| Box::new(record.spec.budget)),
            kvm: record.kvm.filter(|_| self.life.pid().is_some()),
            exit_code: record.exit.and_then(Exit::code),
            exit_signal: record.exit.and_then(Exit::signal),
            last_error: self.last_error(),
            restarts: record.restarts,
            created_at: record.created_at,
            started_at: record.started_at,
        }
    }
}

/// What is added to a guest's kernel command line: a word for each interface that has an address of
/// its own. The first interface's stands last, because the kernel itself keeps the last of several
/// (net/ipv4/ipconfig.c, ip_auto_config_setup), and it alone names the gateway and the name
/// servers: a guest has one default route.
pub(super) fn kernel_args_of(
    record: &Record,
    networks: &[&NetworkConfig],
    servers: &[IpAddr],
) -> String {
    let nics = record.nics.iter().zip(networks).enumerate().rev();
    let words = nics.filter_map(|(index, (nic, network))| {
        let identity = nic.identity(network);
        let ipv4 = identity.ipv4?;
        let gateway = (index == 0).then_some(ipv4.gateway);
        let servers = if index == 0 { servers } else { &[] };
        let servers: Vec<IpAddr> = servers.iter().map(|it| identity.server(*it)).collect();
        Some(kernel_args(&record.name, index, ipv4.ip?, gateway, ipv4.subnet, &servers))
    });
    words.reduce(|line, word| line + " " + &word).unwrap_or_default()
}
