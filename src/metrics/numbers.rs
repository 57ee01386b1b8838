//! What VMs and daemon have done until one moment.

use super::tally::Tally;
use crate::model::budget::Usage;
use crate::model::name::VmName;
use crate::model::view::{NetworkView, Status};
use crate::network::{Passed, tally};

/// The numbers.
#[derive(Debug)]
pub struct Snapshot {
    /// All VMs, by name.
    pub vms: Vec<VmNumbers>,
    pub networks: Vec<NetworkView>,
    /// The number of the last event.
    pub events: u64,
    pub tally: Tally,
    pub kernel: tally::Tally,
}

/// The numbers of a VM.
#[derive(Debug)]
pub struct VmNumbers {
    pub name: VmName,
    pub status: Status,
    /// Restarts by policy since it was started by request.
    pub restarts: u32,
    /// Leases that the guest was given since the daemon started.
    pub leases: u64,
    pub nics: Vec<NicNumbers>,
    /// What its processes have used, if the kernel counts that.
    pub usage: Option<Usage>,
}

/// The numbers of an interface of a VM.
#[derive(Clone, Copy, Debug, Default)]
pub struct NicNumbers {
    /// What went through its tap, if there is one.
    pub passed: Option<Passed>,
    /// Packets and bytes that its policy allowed.
    pub allowed: Option<(u64, u64)>,
    /// Packets and bytes that its policy denied.
    pub denied: Option<(u64, u64)>,
}
