//! What VMs and daemon have done until one moment.

use std::net::Ipv4Addr;

use super::tally::Tally;
use crate::model::budget::Usage;
use crate::model::name::VmName;
use crate::model::view::{NetworkView, Status, UsageView};
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
    /// The address of its first interface.
    pub ip: Option<Ipv4Addr>,
    /// Its process.
    pub pid: Option<u32>,
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
    /// Frames that the guest may not send, as they are not from its own addresses, for example:
    /// without ARP.
    pub spoofed: Option<u64>,
    /// ARP that did not state them.
    pub forged: Option<u64>,
    /// Frames over a limit for sending.
    pub overrun: Option<u64>,
}

impl Snapshot {
    /// What the VMs after one have used; without one, all.
    pub fn usage_after(&self, last: Option<&VmName>) -> impl Iterator<Item = UsageView> + '_ {
        let from = last.map_or(0, |last| self.vms.partition_point(|vm| vm.name <= *last));
        self.vms[from..].iter().map(VmNumbers::view)
    }
}

impl NicNumbers {
    /// Frames that antispoof dropped, if it counts them.
    pub fn antispoof(&self) -> Option<u64> {
        self.spoofed.zip(self.forged).map(|(spoofed, forged)| spoofed + forged)
    }
}

impl VmNumbers {
    /// The VM as the interface shows it.
    pub fn view(&self) -> UsageView {
        let sum = |of: fn(&NicNumbers) -> u64| self.nics.iter().map(of).sum();
        let passed = |of: fn(&Passed) -> u64| {
            self.nics.iter().filter_map(|nic| nic.passed.as_ref()).map(of).sum()
        };
        UsageView {
            name: self.name.clone(),
            status: self.status,
            ip: self.ip,
            pid: self.pid,
            rx_bytes: passed(|it| it.bytes[1]),
            rx_packets: passed(|it| it.packets[1]),
            tx_bytes: passed(|it| it.bytes[0]),
            tx_packets: passed(|it| it.packets[0]),
            denied: sum(|nic| nic.denied.map_or(0, |(packets, _)| packets)),
            limited: passed(|it| it.shaped),
            unread: passed(|it| it.unread),
            overrun: sum(|nic| nic.overrun.unwrap_or_default()),
            spoofed: sum(|nic| nic.antispoof().unwrap_or_default()),
            cpu_us: self.usage.map(|usage| usage.cpu_us),
            memory_bytes: self.usage.and_then(|usage| usage.memory),
        }
    }
}
