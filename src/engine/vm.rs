//! One VM as the engine holds it: its record, and the life of its process.

use std::rc::Rc;

use crate::engine::lease::Pace;
use crate::engine::supervise::Life;
use crate::model::kernel_args::kernel_args;
use crate::model::net::NetworkConfig;
use crate::model::record::{Exit, Port, Record};
use crate::model::view::{Status, VmView};

/// A VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// What is written down. Shared with a decision that is under way, and with the VM as it was
    /// before that.
    pub record: Rc<Record>,
    /// What its process is doing.
    pub life: Life,
    /// Restarts by policy since the last steady run.
    pub in_a_row: u32,
    /// How many changes of its lease the guest has asked for.
    pub changes: Pace,
    /// How many messages of the guest were answered.
    pub answers: Pace,
}

impl Vm {
    /// A VM without a process.
    pub fn idle(record: Record) -> Vm {
        Vm {
            record: Rc::new(record),
            life: Life::Idle,
            in_a_row: 0,
            changes: Pace::default(),
            answers: Pace::default(),
        }
    }

    /// The record, to be changed.
    pub(super) fn edit(&mut self) -> &mut Record {
        Rc::make_mut(&mut self.record)
    }

    /// Where it is in its life, as the interface tells it.
    pub fn status(&self) -> Status {
        match (&self.life, self.record.exit) {
            (Life::Running { .. }, _) => Status::Running,
            (Life::Stopping { .. }, _) => Status::Stopping,
            (Life::Idle | Life::Waiting { .. }, None) => Status::Created,
            (Life::Idle | Life::Waiting { .. }, Some(Exit::Code(0))) => Status::Stopped,
            (Life::Idle, Some(_)) if !self.record.wanted => Status::Stopped,
            (Life::Idle | Life::Waiting { .. }, Some(_)) => Status::Crashed,
        }
    }

    /// The VM as the interface shows it. `network` is the one its port is on, `hypervisor` the one
    /// it has if it names none.
    pub fn view(&self, network: Option<&NetworkConfig>, hypervisor: &str) -> VmView {
        let record = &self.record;
        let machine = record.spec.machine.as_ref();
        let port = record.port.as_ref();
        let leased = port.and_then(Port::address);
        let of_lease = |config: &NetworkConfig| leased.map(|_| config.subnet.netmask());
        VmView {
            name: record.name.clone(),
            mode: record.mode(),
            status: self.status(),
            network: port.map(|port| port.network.clone()),
            tap: port.map(|port| port.tap.clone()),
            ifindex: port.and_then(|port| port.ifindex),
            mac: port.map(|port| port.mac),
            ip: leased,
            netmask: network.and_then(of_lease),
            gateway: network.and_then(|config| leased.map(|_| config.host_ip)),
            mtu: network.map(|config| record.spec.network.mtu.unwrap_or(config.mtu)),
            policy: None,
            limits: None,
            expose: record.exposed.clone(),
            cid: record.cid,
            kernel_args: kernel_args_of(record, network),
            ephemeral: record.spec.ephemeral,
            hypervisor: machine
                .map(|machine| machine.hypervisor.as_deref().unwrap_or(hypervisor).to_owned()),
            pid: self.life.pid(),
            exit_code: record.exit.and_then(Exit::code),
            exit_signal: record.exit.and_then(Exit::signal),
            restarts: record.restarts,
            created_at: record.created_at,
            started_at: record.started_at,
        }
    }
}

/// What is added to a guest's kernel command line; empty unless the host gives it its address.
pub fn kernel_args_of(record: &Record, network: Option<&NetworkConfig>) -> String {
    match (record.port.as_ref().and_then(|port| port.ip), network) {
        (Some(ip), Some(config)) => kernel_args(&record.name, ip, config.host_ip, config.subnet),
        (None, _) | (_, None) => String::new(),
    }
}
