//! The parts of the engine: what the settings say, what is written, what is to come, and what was
//! seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use crate::engine::added::Added;
use crate::engine::advertise::Advertisements;
use crate::engine::ledger::Ledger;
use crate::engine::lifecycle::FollowUp;
use crate::engine::names::Unheard;
use crate::engine::probe::Probes;
use crate::engine::trouble::Troubles;
use crate::engine::vm::Vm;
use crate::engine::watch::Watch;
use crate::model::expose::{Listener, Ports};
use crate::model::name::{TapName, VmName};
use crate::model::policy::Policy;
use crate::model::record::BootId;
use crate::model::request::Ticket;
use crate::model::run_as::{RunAs, VmUser};

/// What the settings and the boot of the host say. It does not change while the daemon runs.
#[derive(Debug)]
pub(super) struct Host {
    /// The hypervisor of a VM that names none.
    pub(super) hypervisor: String,
    /// Whether our tables are to be owned.
    pub(super) nft_owner: bool,
    /// What guests may be allowed.
    pub(super) policies: Vec<Policy>,
    /// The user who may open a tap by name, and which hypervisors need not.
    pub(super) tap_owner: (u32, Vec<String>),
    /// As whom the processes of a VM run that says nothing of it.
    pub(super) run_as: RunAs,
    /// Ports that are given to those who ask for any.
    pub(super) expose_ports: Ports,
    /// How many hypervisors may start at once.
    pub(super) starts_at_once: usize,
    /// Milliseconds for which a start keeps its place.
    pub(super) place_ms: u64,
    /// The boot of the host that leases count from.
    pub(super) boot: BootId,
    /// The identifier of the host.
    pub(super) machine: String,
}

/// What the records say: the VMs, who has what, and the networks that are not of the settings.
#[derive(Debug)]
pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) added: Added,
    pub(super) vms: BTreeMap<VmName, Vm>,
}

/// What is to come.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// The VMs for which something may be due at some time: few of many. Others may be among them.
    pub(super) timed: BTreeSet<VmName>,
    /// What follows from what was done.
    pub(super) follow_ups: VecDeque<FollowUp>,
    /// Who waits until the host is free of everything.
    pub(super) teardown: Vec<Ticket>,
    /// When guests are told of their router.
    pub(super) advertisements: Advertisements,
    /// The next look at the kernel, and what is known of drift.
    pub(super) watch: Watch,
}

/// What was seen of the host. Whoever drives the engine tells it.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Whether the links of the host were seen at all.
    pub(super) links_seen: bool,
    /// Our bridges by the kernel's index.
    pub(super) bridges: BTreeMap<u32, String>,
    /// The links of ours that somebody has open: guests that run.
    pub(super) carriers: BTreeSet<u32>,
    /// Who has addresses beside the VMs, as far as that was asked.
    pub(super) probes: Probes,
    /// The name servers of the host, as far as guests can reach them.
    pub(super) resolvers: Vec<IpAddr>,
    /// The networks whose guests volnet does not hear when they ask for names, and why.
    pub(super) unheard: BTreeMap<String, Unheard>,
    /// Programs of the host that listen on ports, as far as the request at hand is about ports.
    pub(super) listeners: Vec<Listener>,
    /// The taps whose packets the kernel tells of, each with how many want to know.
    pub(super) traced: BTreeMap<TapName, u32>,
    /// What goes wrong with guests.
    pub(super) troubles: Troubles,
    /// The user that the request at hand names.
    pub(super) user: Option<VmUser>,
}
