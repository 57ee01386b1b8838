//! Reads the numbers of which metrics are made.
//!
//! That takes milliseconds with many VMs: the kernel tells of all links, of all counters of two
//! sets, and of each VM in two files of its control group. So it is done in parts, one in each
//! round of the loop, and others have their turns between two of them. There is one such
//! [`Reading`] at a time, and whoever wants numbers meanwhile waits for its end. `Metrics` alone is
//! never of the past: who asks for it waits for a reading that begins later.

use std::rc::Rc;

use super::shell::Shell;
use crate::engine::decide::Step;
use crate::engine::vm::Vm;
use crate::hypervisor::process::Processes;
use crate::metrics::counters::Counters;
use crate::metrics::numbers::{Snapshot, VmNumbers};
use crate::model::clock::Now;
use crate::model::error::Error;
use crate::model::nic::Nic;
use crate::model::request::{Reply, Ticket};
use crate::network::Network;
use crate::store::storage::Storage;

/// Milliseconds for which a snapshot is good enough for those who look at numbers all the time. So
/// those who ask more often do not make the kernel be asked more often.
const FRESH_MS: u64 = 1_000;
/// The VMs of one part: to read the files of one takes some 30 us.
const VMS_PER_PART: usize = 32;

/// Numbers that are being read, part by part.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The callers of `Usage` who wait for it.
    usage: Vec<Ticket>,
    /// The callers of `Metrics` who wait for it.
    metrics: Vec<Ticket>,
    /// The callers of `Metrics` who wait for the next one, because this one had begun.
    late: Vec<Ticket>,
    /// When it began, in milliseconds.
    at: u64,
    next: Part,
    counters: Counters,
    /// The first VMs, by name.
    vms: Vec<VmNumbers>,
}

/// What is read at once.
#[derive(Debug, Default)]
enum Part {
    #[default]
    Links,
    Policies,
    Ports,
    /// Some VMs.
    Vms,
}

/// The numbers that were read last.
#[derive(Debug)]
pub(super) struct Recent {
    /// When they were, in milliseconds.
    at: u64,
    /// Until when nobody reads them anew.
    until: u64,
    /// A failure is not repeated before that either.
    numbers: Result<Rc<Snapshot>, Error>,
}

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// All numbers as they are now, later.
    pub(super) fn metrics(&mut self, ticket: Ticket) -> Step {
        let reading = self.begin_reading();
        match reading.next {
            Part::Links => reading.metrics.push(ticket),
            Part::Policies | Part::Ports | Part::Vms => reading.late.push(ticket),
        }
        Step::Later
    }

    /// What each VM has received, sent and used: now if that was read lately, or later.
    pub(super) fn usage(&mut self, ticket: Ticket, now: Now) -> Result<Step, Error> {
        match self.recent(now) {
            Some(Recent { at, numbers: Ok(_), .. }) => Ok(Step::reply(Reply::Usage { at_ms: *at })),
            Some(Recent { numbers: Err(error), .. }) => Err(error.clone()),
            None => {
                self.begin_reading().usage.push(ticket);
                Ok(Step::Later)
            }
        }
    }

    /// Numbers that may be a moment old; `None`: they are being read, and there later.
    #[cfg(target_os = "linux")]
    pub(super) fn recent_snapshot(&mut self, now: Now) -> Option<Result<Rc<Snapshot>, Error>> {
        let recent = self.recent(now).map(|recent| recent.numbers.clone());
        if recent.is_none() {
            self.begin_reading();
        }
        recent
    }

    /// The numbers that were read last, however old.
    pub(super) fn last_numbers(&self) -> Result<Rc<Snapshot>, Error> {
        self.recent.as_ref().expect("numbers were read").numbers.clone()
    }

    fn recent(&self, now: Now) -> Option<&Recent> {
        self.recent.as_ref().filter(|recent| now.mono < recent.until)
    }

    /// Has numbers read, from the next round of the loop on.
    pub(super) fn begin_reading(&mut self) -> &mut Reading {
        self.reading.get_or_insert_default()
    }

    /// Whether numbers are being read: [`Shell::read_on`] has work.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Nobody waits for the answer to this request any more.
    #[cfg(target_os = "linux")]
    pub(super) fn end_waiting_for_numbers(&mut self, ticket: Ticket) {
        if let Some(reading) = &mut self.reading {
            for callers in [&mut reading.usage, &mut reading.metrics, &mut reading.late] {
                callers.retain(|caller| *caller != ticket);
            }
        }
    }

    /// Reads the next part of the numbers. After the last one, those who wait are answered.
    pub(super) fn read_on(&mut self, now: Now) {
        let Some(mut reading) = self.reading.take() else { return };
        let numbers = match self.read_part(&mut reading, now) {
            Ok(None) => return self.reading = Some(reading),
            Ok(Some(numbers)) => Ok(Rc::new(numbers)),
            Err(error) => Err(error),
        };
        match &numbers {
            Ok(numbers) => self.judge_counters(&numbers.vms, now),
            // Whoever asks for them is told.
            Err(error) => log::debug!("counters are not read: {error}"),
        }
        let Reading { usage, metrics, late, at, .. } = reading;
        let usage = usage.into_iter().map(|ticket| (ticket, Reply::Usage { at_ms: at }));
        let metrics = metrics.into_iter().map(|ticket| (ticket, Reply::Metrics));
        for (ticket, reply) in usage.chain(metrics) {
            self.reply(ticket, numbers.as_ref().map(|_| reply).map_err(Error::clone));
        }
        if !late.is_empty() {
            self.begin_reading().metrics = late;
        }
        self.recent = Some(Recent { at, until: now.mono + FRESH_MS, numbers });
    }

    /// Reads one thing of the kernel, or the numbers of some VMs. All of them, if it was the last
    /// part.
    fn read_part(&mut self, reading: &mut Reading, now: Now) -> Result<Option<Snapshot>, Error> {
        let counters = &mut reading.counters;
        reading.next = match reading.next {
            Part::Links => {
                reading.at = now.mono;
                counters.of_links(self.network.passed()?);
                Part::Policies
            }
            Part::Policies => {
                counters.of_policies(self.network.counted()?);
                Part::Ports
            }
            Part::Ports => {
                counters.of_ports(self.network.dropped()?);
                Part::Vms
            }
            Part::Vms => return Ok(self.read_vms(reading)),
        };
        Ok(None)
    }

    /// Reads the numbers of some VMs. All of them, if there are no more.
    fn read_vms(&self, reading: &mut Reading) -> Option<Snapshot> {
        let last = reading.vms.last().map(|vm| vm.name.clone());
        let mut left = VMS_PER_PART;
        for vm in self.engine.vms_after(last.as_ref()) {
            left = left.checked_sub(1)?;
            reading.vms.push(self.numbers(vm, &mut reading.counters));
        }
        Some(Snapshot {
            vms: std::mem::take(&mut reading.vms),
            networks: self.engine.networks(),
            events: self.sequence,
            tally: self.tally.clone(),
            kernel: self.network.tally().cloned().unwrap_or_default(),
        })
    }

    fn numbers(&self, vm: &Vm, counters: &mut Counters) -> VmNumbers {
        let name = &vm.record.name;
        VmNumbers {
            name: name.clone(),
            status: vm.status(),
            ip: vm.record.nics.first().and_then(Nic::address),
            pid: vm.life.pid(),
            restarts: vm.record.restarts,
            leases: self.tally.leases.get(name).copied().unwrap_or_default(),
            nics: vm.record.nics.iter().map(|nic| counters.take(nic)).collect(),
            usage: vm.life.pid().and_then(|_| self.launcher.usage(name)),
        }
    }
}
