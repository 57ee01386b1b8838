//! What is asked of the engine, and what it answers. Neither knows how it travels.

use super::name::VmName;
use super::view::{Event, Finding, NetworkView, VmView};
use crate::spec::VmSpec;

/// Milliseconds that Stop, Restart and Delete give a guest when the caller names no time.
pub const STOP_TIMEOUT_MS: u64 = 30_000;

/// A request, validated for form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Prepare the host; with `force` even where a subnet overlaps with what the host already has.
    Setup { dry_run: bool, force: bool },
    /// Take the host's preparation away.
    Teardown { dry_run: bool, force: bool },
    /// Make a VM's network, and start its hypervisor if `start`.
    Create { name: VmName, spec: Box<VmSpec>, start: bool, dry_run: bool },
    /// Start the hypervisor.
    Start { name: VmName },
    /// Stop the hypervisor.
    Stop { name: VmName, timeout_ms: u64 },
    /// Stop it and start it again.
    Restart { name: VmName, timeout_ms: u64 },
    /// Stop it and give everything back.
    Delete { name: VmName, timeout_ms: u64 },
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
    /// Look the host over.
    Check,
    /// Follow the state.
    Monitor,
    /// Counters and gauges.
    Metrics,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Setup, Teardown: what was or would be done.
    Plan { plan: Vec<String> },
    /// Create.
    Created { vm: VmView, plan: Vec<String> },
    /// Start, Stop, Restart, Get.
    Vm { vm: VmView },
    /// Delete.
    Deleted,
    /// List.
    Vms { vms: Vec<VmView> },
    /// Args.
    Args { args: Vec<String> },
    /// Networks.
    Networks { networks: Vec<NetworkView> },
    /// Version.
    Version { version: String, kernel: String, backend: String },
    /// Check.
    Findings { findings: Vec<Finding> },
    /// Monitor: the state as it is.
    State { vms: Vec<VmView> },
    /// Monitor: something happened.
    Event { event: Event },
    /// Metrics.
    Metrics { text: String },
}
