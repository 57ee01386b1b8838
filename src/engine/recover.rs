//! Takes over the state of an earlier run.
//!
//! Order: first every record is restored. Then the daemon reports the process of each:
//! [`Engine::adopted`] or [`Engine::lost`]. Then comes [`Engine::autostart`].

use crate::engine::decide::{Decision, Engine, Write};
use crate::engine::lifecycle::FollowUp;
use crate::engine::supervise::{self, Life, Origin};
use crate::engine::vm::Vm;
use crate::model::clock::Now;
use crate::model::name::VmName;
use crate::model::record::{Exit, Record};

impl Engine {
    /// Takes over a record with all its things. The error says why this is not possible: the
    /// networks have other settings now, or two records claim the same thing. Then the VM is
    /// stranded.
    pub fn restore(&mut self, mut record: Record) -> Result<(), String> {
        for nic in &mut record.nics {
            // It may be from another boot, and then it belongs to another link.
            nic.ifindex = None;
        }
        let free = self.check_free(&record, record.exposed()).map_err(|it| it.to_string());
        let mut placed = record.clone();
        match free.and_then(|()| self.state.ledger.restore(&mut placed)) {
            Ok(()) => {
                self.compare_prefixes(&record, &placed);
                self.state.vms.insert(record.name.clone(), Vm::idle(placed));
                Ok(())
            }
            Err(reason) => {
                self.strand(record, reason.clone());
                Err(reason)
            }
        }
    }

    /// The VM's process still runs. If it is new, the last daemon may have ended before the guest
    /// ran, and nobody was told. So the start-up check begins again. It also tells whether the
    /// guest is paused, which is in no record. If the VM's record does not say that it was started,
    /// the start was cut short before the write, and it is completed now.
    pub fn adopted(&mut self, name: &VmName, pid: u32, now: Now) -> Option<Decision> {
        let vm = self.state.vms.get_mut(name)?;
        vm.life = Life::running(pid, now.mono);
        let started_at = vm.record.started_at.unwrap_or(now.wall);
        let is_new = now.wall.saturating_sub(started_at) < supervise::START_MAX_MS;
        let origin = if is_new { Origin::Adopted } else { Origin::Known };
        // A daemon may adopt hundreds at once. They are asked one after another.
        let later = self.agenda.timed.len() as u64;
        self.begin_check(name, Vec::new(), origin, now);
        let vm = self.state.vms.get_mut(name)?;
        if let Life::Running { check: Some(check), .. } = &mut vm.life {
            check.check_at += later;
        }
        let former = vm.clone();
        let exit = vm.edit().exit.take();
        if exit.is_none() && vm.record.started_at.is_some() {
            return None;
        }
        let record = vm.edit();
        (record.started_at, record.kvm) = (Some(now.wall), None);
        record.wanted = true;
        Some(Decision::of(vm, None, Write::Put, former))
    }

    /// The VM has no process. If its record says that it ran, it ended with an unknown status.
    pub fn lost(&mut self, name: &VmName, now: Now) -> Option<Decision> {
        let record = &self.state.vms.get(name)?.record;
        let ran = record.started_at.is_some() && record.exit.is_none();
        if ran { self.exited(name, Exit::Lost, None, now) } else { None }
    }

    /// Starts the VMs with autostart and those that the restart policy was about to start when the
    /// last daemon ended. The number of restarts in a row is not known any more.
    pub fn autostart(&mut self) {
        for vm in self.state.vms.values().filter(|vm| vm.stranded.is_none()) {
            let (record, name) = (&vm.record, &vm.record.name);
            let exit = record.exit.unwrap_or(Exit::Lost);
            let again = supervise::restart_after(record.spec.restart, exit, 0).is_some();
            if vm.life == Life::Idle
                && record.spec.machine.is_some()
                && (record.spec.autostart || record.wanted && again)
            {
                self.agenda
                    .follow_ups
                    .push_back(FollowUp::Start { name: name.clone(), answers: Vec::new() });
            }
        }
    }
}
