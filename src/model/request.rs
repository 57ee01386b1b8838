//! The engine's requests and replies, independent of the protocol.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::attachment::AttachmentId;
use crate::model::document::Kept;
use crate::model::expose::{Expose, HostPort};
use crate::model::limits::Limits;
use crate::model::mac::Mac;
use crate::model::name::VmName;
use crate::model::run_as::RunAs;
use crate::model::spec::{NetworkSpec, VmSpec};
use crate::model::view::{Event, Finding, NetworkView, TraceWay, VmView};

/// Milliseconds that Stop, Restart and Delete give a guest when the caller names no time.
pub const STOP_TIMEOUT_MS: u64 = 30_000;

/// A request whose caller waits for a reply. No two requests of a daemon have the same, and the
/// daemon knows the connection.
pub type Ticket = u64;

/// The request that something is done for, as the log names it. Nothing is written where nobody
/// asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serving(pub Option<Ticket>);

/// Nobody asked for it.
pub const NOBODY: Serving = Serving(None);

/// A request, validated for form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Everybody whom the socket admits may ask, and it is answered at once, but for a look at a
    /// VM, which waits for its guest.
    Query(Query),
    /// Open the tap of a VM's NIC; of the first, if none is named. It changes nothing, but who has
    /// a tap is the guest, so it needs the right to change.
    OpenTap { name: VmName, nic: Option<usize> },
    /// Tell of the packets of a guest for some time. It changes no more than what the kernel tells,
    /// but it shows to whom a guest speaks, so it needs the right to change.
    Trace(Trace),
    /// It needs the right to change, and the engine decides on it.
    Change(Change),
}

/// A request to tell of the packets that a guest sends, or that come to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The VM.
    pub name: VmName,
    /// Who sends the packets; `None`: the guest of the VM.
    pub from: Option<TraceFrom>,
    /// The destination of the packets; `None`: any.
    pub to: Option<IpAddr>,
    /// Their port; `None`: any.
    pub port: Option<u16>,
    /// For how long, in seconds, at most [`TRACE_SECONDS_MAX`].
    pub seconds: u32,
    /// Whether the caller takes a reply whenever there is something new to say.
    pub more: bool,
}

/// Who sends packets to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFrom {
    /// Anybody but the guest itself.
    World,
    /// Whoever has this address.
    Address(IpAddr),
}

/// For how long packets are told of when the caller names no time, and at most, in seconds.
pub const TRACE_SECONDS: u32 = 10;
pub const TRACE_SECONDS_MAX: u32 = 600;

/// A request that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Show one VM.
    Get { name: VmName },
    /// Show all VMs.
    List,
    /// The network arguments of a VM for a hypervisor.
    Args { name: VmName, hypervisor: Option<String> },
    /// Show the networks.
    Networks,
    /// Version of volnet, of the kernel, and the backend.
    Version,
    /// Check the host.
    Check,
    /// Look a VM over hop by hop, or the host.
    Doctor { name: Option<VmName> },
    /// Follow the state.
    Monitor,
    /// Counters and gauges.
    Metrics,
    /// What each VM has received, sent and used.
    Usage,
    /// Compare an attachment with the host.
    Verify { id: AttachmentId },
    /// Whether something that wants this of a network can be attached to it.
    Ready { wanted: Box<NetworkSpec> },
}

/// A request that changes something. A dry run is among them: it opens files with the daemon's
/// rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Prepare the host; with `force` even where a subnet overlaps with what the host already has.
    Setup { dry_run: bool, force: bool },
    /// Undo the preparation of the host.
    Teardown { dry_run: bool, force: bool },
    /// Make a VM's network, and start its hypervisor if `start`. `notes` go into the reply: what
    /// the documents say that volnet does not act on.
    Create { name: VmName, spec: Box<VmSpec>, start: bool, dry_run: bool, notes: Vec<String> },
    /// Start the hypervisor.
    Start { name: VmName },
    /// Stop the hypervisor.
    Stop { name: VmName, timeout_ms: u64 },
    /// Stop it and start it again.
    Restart { name: VmName, timeout_ms: u64 },
    /// Let the guest stand still.
    Pause { name: VmName },
    /// Let it go on.
    Resume { name: VmName },
    /// Save its guest, with its memory, into a folder that does not exist yet.
    Snapshot { name: VmName, folder: PathBuf },
    /// Stop it and release everything it has.
    Delete { name: VmName, timeout_ms: u64 },
    /// Make a port of the guest, at its first NIC or the named one, one of the host's; with `force`
    /// even if a program of the host listens on it.
    Expose { name: VmName, nic: Option<usize>, port: Expose, force: bool },
    /// Say what the guest may send beyond its networks: by one NIC, or by all.
    SetPolicy { name: VmName, nic: Option<usize>, policy: String },
    /// Say how much the guest may receive and send, where that is named: by one NIC, or by each.
    SetLimits { name: VmName, nic: Option<usize>, limits: Limits },
    /// Take an exposed port back.
    Unexpose { name: VmName, at: HostPort },
    /// Give the namespace behind the door a place on a network. The attachment is in `spec`, and
    /// the name of the VM follows from it. `tun` makes the tap there, if it has one. With `force`
    /// even if a program of the host listens on a port that it exposes.
    Attach { name: VmName, spec: Box<VmSpec>, door: OpenFile, tun: Option<OpenFile>, force: bool },
    /// Take the place away. If there is none, that is success.
    Detach { id: AttachmentId },
    /// Add a network, which is described as one of the settings. If it is there already, that is
    /// success. With `replace` it takes the place of an added one with its name that nobody uses.
    AddNetwork { document: Kept, replace: bool },
    /// Remove a network that was added.
    RemoveNetwork { name: String },
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Setup, Teardown: the steps that were or would be taken.
    Plan { plan: Vec<String> },
    /// Create.
    Created { vm: Box<VmView>, plan: Vec<String>, notes: Vec<String> },
    /// Start, Stop, Restart, Pause, Resume, Snapshot, Expose, Unexpose, SetPolicy, SetLimits, Get.
    Vm { vm: Box<VmView> },
    /// Delete, RemoveNetwork.
    Deleted,
    /// Detach: whether there was something to release.
    Detached { released: bool },
    /// List, and the state for Monitor. Whoever sends the reply takes the VMs from the engine, in
    /// parts.
    Vms,
    /// Args.
    Args { args: Vec<String>, kernel_args: String },
    /// OpenTap: the descriptor, which goes to the caller with the reply.
    Tap { file: OpenFile },
    /// Networks.
    Networks { networks: Vec<NetworkView> },
    /// AddNetwork: the network, and whether it was not there before.
    Network { network: Box<NetworkView>, is_new: bool },
    /// Version; `missing` are the features that the kernel lacks, in words.
    Version { version: String, kernel: String, backend: String, missing: Vec<String> },
    /// Check, Doctor.
    Findings { findings: Vec<Finding> },
    /// Trace: the ways of the packets, or what is new of them, and whether the kernel told of more
    /// than could be read.
    Ways { ways: Vec<TraceWay>, lost: bool },
    /// Monitor: an event.
    Event { event: Event },
    /// Metrics. Whoever drives the engine writes them, too.
    Metrics,
    /// Usage of all VMs, at this time in milliseconds of a clock that nobody sets. Whoever drives
    /// the engine writes them.
    Usage { at_ms: u64 },
    /// Attach: the VM, its bridge with its Ethernet address if volnet made it, the Ethernet address
    /// of the outer end of its link, and its gateway of IPv6.
    Attached {
        vm: Box<VmView>,
        bridge: String,
        bridge_mac: Option<Mac>,
        host_mac: Mac,
        gateway6: Option<Ipv6Addr>,
    },
    /// Verify: the VM, and what differs from it, each in words.
    Verified { vm: Box<VmView>, differences: Vec<String> },
    /// Ready: whether something can be attached; whether what is attached may lack something; why.
    Ready { ready: bool, limited: bool, reason: Option<String> },
}

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |ticket| ticket.fmt(f))
    }
}

impl From<Query> for Request {
    fn from(query: Query) -> Request {
        Request::Query(query)
    }
}

impl From<Change> for Request {
    fn from(change: Change) -> Request {
        Request::Change(change)
    }
}

impl Request {
    /// Whether the caller must be root, the daemon's own user or a member of its group.
    pub fn needs_right(&self) -> bool {
        match self {
            Request::Query(_) => false,
            Request::OpenTap { .. } | Request::Trace(_) | Request::Change(_) => true,
        }
    }

    /// The method of the interface that asks for it.
    pub fn method(&self) -> &'static str {
        match self {
            Request::Query(query) => query.method(),
            Request::OpenTap { .. } => "OpenTap",
            Request::Trace(_) => "Trace",
            Request::Change(change) => change.method(),
        }
    }

    /// The VM that it is about.
    pub fn vm(&self) -> Option<&VmName> {
        match self {
            Request::Query(query) => query.vm(),
            Request::OpenTap { name, .. } => Some(name),
            Request::Trace(trace) => Some(&trace.name),
            Request::Change(change) => change.vm(),
        }
    }

    /// The change that it asks for.
    pub fn change(&self) -> Option<&Change> {
        match self {
            Request::Change(change) => Some(change),
            Request::Query(_) | Request::OpenTap { .. } | Request::Trace(_) => None,
        }
    }
}

impl Query {
    fn vm(&self) -> Option<&VmName> {
        match self {
            Query::Get { name } | Query::Args { name, .. } => Some(name),
            Query::Doctor { name } => name.as_ref(),
            Query::List
            | Query::Networks
            | Query::Version
            | Query::Check
            | Query::Monitor
            | Query::Metrics
            | Query::Usage
            | Query::Verify { .. }
            | Query::Ready { .. } => None,
        }
    }

    fn method(&self) -> &'static str {
        match self {
            Query::Get { .. } => "Get",
            Query::List => "List",
            Query::Args { .. } => "Args",
            Query::Networks => "Networks",
            Query::Version => "Version",
            Query::Check => "Check",
            Query::Doctor { .. } => "Doctor",
            Query::Monitor => "Monitor",
            Query::Metrics => "Metrics",
            Query::Usage => "Usage",
            Query::Verify { .. } => "Verify",
            Query::Ready { .. } => "Ready",
        }
    }
}

impl Change {
    pub fn vm(&self) -> Option<&VmName> {
        match self {
            Change::Create { name, .. }
            | Change::Start { name }
            | Change::Stop { name, .. }
            | Change::Restart { name, .. }
            | Change::Pause { name }
            | Change::Resume { name }
            | Change::Snapshot { name, .. }
            | Change::Delete { name, .. }
            | Change::Expose { name, .. }
            | Change::SetPolicy { name, .. }
            | Change::SetLimits { name, .. }
            | Change::Unexpose { name, .. }
            | Change::Attach { name, .. } => Some(name),
            Change::Setup { .. }
            | Change::Teardown { .. }
            | Change::Detach { .. }
            | Change::AddNetwork { .. }
            | Change::RemoveNetwork { .. } => None,
        }
    }

    pub fn method(&self) -> &'static str {
        match self {
            Change::Setup { .. } => "Setup",
            Change::Teardown { .. } => "Teardown",
            Change::Create { .. } => "Create",
            Change::Start { .. } => "Start",
            Change::Stop { .. } => "Stop",
            Change::Restart { .. } => "Restart",
            Change::Pause { .. } => "Pause",
            Change::Resume { .. } => "Resume",
            Change::Snapshot { .. } => "Snapshot",
            Change::Delete { .. } => "Delete",
            Change::Expose { .. } => "Expose",
            Change::SetPolicy { .. } => "SetPolicy",
            Change::SetLimits { .. } => "SetLimits",
            Change::Unexpose { .. } => "Unexpose",
            Change::Attach { .. } => "Attach",
            Change::Detach { .. } => "Detach",
            Change::AddNetwork { .. } => "AddNetwork",
            Change::RemoveNetwork { .. } => "RemoveNetwork",
        }
    }

    /// Whether it should be carried out together with others: it makes a durable VM, whose record
    /// must reach the disk, and starts no process. What the kernel holds of a movable address
    /// depends on all VMs that name it, so creates with these are carried out one by one. A
    /// snapshot that the guest is to wake from is read before the create is handled.
    pub fn joins_group(&self) -> bool {
        let Change::Create { spec, start: false, dry_run: false, .. } = self else { return false };
        let wakes = spec.machine.as_ref().is_some_and(|machine| machine.from.is_some());
        !spec.ephemeral && !wakes && spec.networks.iter().all(|it| it.addresses.is_empty())
    }

    /// The VM that it makes.
    pub fn makes(&self) -> Option<&VmName> {
        match self {
            Change::Create { name, .. } | Change::Attach { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Whether only root may ask for it: it gives a namespace a network, or says which networks
    /// there are.
    pub fn is_for_root(&self) -> bool {
        matches!(
            self,
            Change::Attach { .. } | Change::AddNetwork { .. } | Change::RemoveNetwork { .. }
        )
    }

    /// Whether it starts a process at once.
    pub fn starts_process(&self) -> bool {
        matches!(self, Change::Create { start: true, dry_run: false, .. } | Change::Start { .. })
    }

    /// The ports of the host that it wants, of which it matters who else listens on them.
    pub fn exposes(&self) -> Vec<HostPort> {
        match self {
            Change::Create { spec, .. } | Change::Attach { spec, .. } => {
                let is_forced = matches!(self, Change::Attach { force: true, .. });
                let ports = spec.networks.iter().flat_map(|network| &network.expose);
                let ports = ports.filter(|port| !is_forced || port.host_port == 0);
                ports.map(Expose::at).collect()
            }
            Change::Expose { port, force, .. } if !force || port.host_port == 0 => {
                vec![port.at()]
            }
            _ => Vec::new(),
        }
    }

    /// What only root may ask for, by the field that says it, and why.
    pub fn for_root(&self) -> Option<(&'static str, &'static str)> {
        let Change::Create { spec, .. } = self else { return None };
        let named = matches!(spec.run_as, Some(RunAs::User(_)));
        let args = spec.machine.as_ref().is_some_and(|machine| !machine.args.is_empty());
        let user = ("run_as", "only root may name a user, because the VM has its rights");
        let words = ("args", "only root may give a hypervisor arguments of its own");
        named.then_some(user).or(args.then_some(words))
    }

    /// Whether it names files for a hypervisor.
    pub fn names_files(&self) -> bool {
        let spec = match self {
            Change::Create { spec, .. } => spec,
            Change::Snapshot { .. } => return true,
            _ => return false,
        };
        spec.machine.as_ref().is_some_and(|machine| {
            machine.kernel.is_some()
                || machine.from.is_some()
                || machine.initramfs.is_some()
                || !machine.disks.is_empty()
                || !machine.shares.is_empty()
        })
    }
}

/// A descriptor on its way to a caller, or from one. It is closed here after it is sent or used, or
/// if nobody wants it any more.
#[derive(Clone, Debug)]
pub struct OpenFile(Arc<OwnedFd>);

impl Reply {
    /// The answer to a create whose documents need no notes.
    pub fn created(vm: VmView, plan: Vec<String>) -> Reply {
        Reply::Created { vm: Box::new(vm), plan, notes: Vec::new() }
    }

    /// Puts these notes into the answer to a create.
    pub fn note(&mut self, about: &[String]) {
        if let Reply::Created { notes, .. } = self {
            *notes = about.into();
        }
    }

    /// The descriptor that goes with the reply.
    pub fn file(&self) -> Option<&OpenFile> {
        match self {
            Reply::Tap { file } => Some(file),
            Reply::Plan { .. }
            | Reply::Created { .. }
            | Reply::Vm { .. }
            | Reply::Deleted
            | Reply::Detached { .. }
            | Reply::Vms
            | Reply::Args { .. }
            | Reply::Networks { .. }
            | Reply::Network { .. }
            | Reply::Version { .. }
            | Reply::Findings { .. }
            | Reply::Ways { .. }
            | Reply::Event { .. }
            | Reply::Metrics
            | Reply::Usage { .. }
            | Reply::Attached { .. }
            | Reply::Verified { .. }
            | Reply::Ready { .. } => None,
        }
    }
}

impl From<OwnedFd> for OpenFile {
    fn from(descriptor: OwnedFd) -> OpenFile {
        OpenFile(Arc::new(descriptor))
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Eq for OpenFile {}

impl PartialEq for OpenFile {
    /// Whether it is the same descriptor.
    fn eq(&self, other: &OpenFile) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
