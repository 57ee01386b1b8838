//! Reads the numbers of which metrics are made.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
#[cfg(target_os = "linux")]
use std::rc::Rc;

use super::shell::Shell;
use crate::engine::vm::Vm;
use crate::hypervisor::process::Processes;
use crate::metrics::numbers::{NicNumbers, Snapshot, VmNumbers};
#[cfg(target_os = "linux")]
use crate::model::clock::Now;
use crate::model::error::Error;
use crate::model::nic::Nic;
use crate::network::{Cause, Counted, Dropped, Network, Passed};
use crate::store::storage::Storage;

/// Milliseconds for which a snapshot is good enough for scrapers. So those who ask more often do
/// not make the kernel be asked more often.
#[cfg(target_os = "linux")]
const FRESH_MS: u64 = 1_000;

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// The present numbers.
    pub(super) fn snapshot(&mut self) -> Result<Snapshot, Error> {
        let passed = self.network.passed()?;
        let passed: HashMap<u32, Passed> = passed.into_iter().map(|it| (it.index, it)).collect();
        let counted = self.network.counted()?;
        let dropped = self.network.dropped()?;
        let numbers = |vm: &Vm| {
            let name = &vm.record.name;
            let of_nic = |nic: &Nic| NicNumbers {
                passed: nic.ifindex.and_then(|index| passed.get(&index).copied()),
                ..NicNumbers::default()
            };
            VmNumbers {
                name: name.clone(),
                status: vm.status(),
                ip: vm.record.nics.first().and_then(Nic::address),
                pid: vm.life.pid(),
                restarts: vm.record.restarts,
                leases: self.tally.leases.get(name).copied().unwrap_or_default(),
                nics: vm.record.nics.iter().map(of_nic).collect(),
                usage: vm.life.pid().and_then(|_| self.launcher.usage(name)),
            }
        };
        let mut vms: Vec<VmNumbers> = self.engine.vms().map(numbers).collect();
        self.count(&mut vms, counted);
        self.count_dropped(&mut vms, dropped);
        Ok(Snapshot {
            vms,
            networks: self.engine.networks(),
            events: self.sequence,
            tally: self.tally.clone(),
            kernel: self.network.tally().cloned().unwrap_or_default(),
        })
    }

    /// Adds the counters of policies to the interfaces that have the addresses. An interface may
    /// have several.
    fn count(&self, vms: &mut [VmNumbers], counted: Vec<Counted>) {
        let owners: BTreeMap<IpAddr, (usize, usize)> = self
            .engine
            .vms()
            .enumerate()
            .flat_map(|(vm, it)| it.record.nics.iter().enumerate().map(move |it| (vm, it)))
            .flat_map(|(vm, (nic, it))| it.all_addresses().map(move |address| (address, (vm, nic))))
            .collect();
        for Counted { address, allowed, packets, bytes } in counted {
            let Some((vm, nic)) = owners.get(&address) else { continue };
            let nic = &mut vms[*vm].nics[*nic];
            let sum = if allowed { &mut nic.allowed } else { &mut nic.denied };
            let (before, bytes_before) = sum.unwrap_or_default();
            *sum = Some((before + packets, bytes_before + bytes));
        }
    }

    /// Adds the counters of ports to the interfaces that have them.
    fn count_dropped(&self, vms: &mut [VmNumbers], dropped: Vec<Dropped>) {
        let taps: HashMap<&str, (usize, usize)> = self
            .engine
            .vms()
            .enumerate()
            .flat_map(|(vm, it)| it.record.nics.iter().enumerate().map(move |it| (vm, it)))
            .map(|(vm, (nic, it))| (it.tap.as_str(), (vm, nic)))
            .collect();
        for Dropped { tap, cause, packets } in dropped {
            let Some((vm, nic)) = taps.get(&*tap) else { continue };
            let nic = &mut vms[*vm].nics[*nic];
            match cause {
                Cause::Spoofed => nic.spoofed = Some(packets),
                Cause::Forged => nic.forged = Some(packets),
                Cause::Overrun => nic.overrun = Some(packets),
            }
        }
    }

    /// The numbers for a scraper, which may be a moment old.
    #[cfg(target_os = "linux")]
    pub(super) fn recent_snapshot(&mut self, now: Now) -> Result<Rc<Snapshot>, Error> {
        if let Some((at, snapshot)) = &self.recent {
            if now.mono < at + FRESH_MS {
                return Ok(Rc::clone(snapshot));
            }
        }
        let snapshot = Rc::new(self.snapshot()?);
        self.judge_counters(&snapshot.vms, now);
        self.recent = Some((now.mono, Rc::clone(&snapshot)));
        Ok(snapshot)
    }
}
