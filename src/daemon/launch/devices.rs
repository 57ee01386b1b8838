//! The devices of the host that hypervisors need, and its huge pages: what a VM is refused for,
//! what `check` says, and how long a host that boots is waited for.
//!
//! What is missing is told before the start. Of vhost-net QEMU aborts, and of too few huge pages
//! Firecracker says "Cannot allocate memory", or ends by SIGBUS when its guest gets that far.

use std::io;
use std::time::{Duration, Instant};

use super::Launcher;
use crate::hypervisor::hardware::{self, can_open};
use crate::hypervisor::user::{self, User};
use crate::hypervisor::{Architecture, CLOUD_HYPERVISOR, FIRECRACKER, QEMU, inputs};
use crate::model::error::Refusal;
use crate::model::record::Record;
use crate::model::spec::{MachineSpec, VmSpec};
use crate::model::view::{Finding, Level};
use crate::spec::HUGE_PAGE_MB;

/// How long a host that has just booted is waited for to have KVM.
#[cfg(target_os = "linux")]
const KVM_PATIENCE: Duration = Duration::from_secs(15);
/// The pause between two looks.
const KVM_LOOK: Duration = Duration::from_millis(100);
/// What to do where a host has no KVM. On arm64 it is no module.
const NEEDED_FOR_KVM: &str = match Architecture::HOST {
    Architecture::X86_64 => "load kvm_intel or kvm_amd",
    Architecture::Aarch64 => "boot a kernel with KVM at exception level 2",
};
/// What to do where a host has no vhost-net, although the settings want it.
const NEEDED_FOR_VHOST_NET: &str = "load vhost_net, or take vhost_net out of the settings";
/// What to do where the hypervisors' user may not open a device.
const LET_A_GROUP: &str = "give the device to a group that may read and write it, such as kvm: \
                           volnet gives hypervisors this group";

impl Launcher {
    /// The launcher of a daemon that starts when the host does.
    #[cfg(target_os = "linux")]
    pub(in crate::daemon) fn at_boot(self) -> Launcher {
        Launcher { kvm_patience: KVM_PATIENCE, ..self }
    }

    /// Waits for KVM if this host has just booted and its processor has it: the module is loaded
    /// beside the daemon, and a guest that starts without runs without for as long as it runs.
    pub(in crate::daemon) fn await_kvm(&self) {
        let begin = Instant::now();
        let waits = || begin.elapsed() < self.kvm_patience && hardware::has_just_booted();
        while self.lacks_kvm() && waits() {
            if !hardware::virtualises(&hardware::cpuinfo()) {
                return;
            }
            std::thread::sleep(KVM_LOOK);
        }
    }

    /// Whether the settings want KVM and the host does not have it.
    fn lacks_kvm(&self) -> bool {
        self.kvm && !self.opens(user::KVM, self.user.as_ref())
    }

    /// Whether a VM has a hypervisor that uses KVM.
    pub(in crate::daemon) fn uses_kvm(&self, record: &Record) -> bool {
        let uses = match self.hypervisor(record) {
            // It emulates machines of another architecture.
            QEMU => self.options.qemu.machine.architecture() == Architecture::HOST,
            CLOUD_HYPERVISOR | FIRECRACKER => true,
            _ => false,
        };
        record.spec.machine.is_some() && uses
    }

    /// Whether the hypervisor of a VM that starts now is to use KVM; `None`: it is for a template
    /// to say, or its architecture is not the host's. Only QEMU can do without.
    pub(in crate::daemon) fn kvm_for(&self, record: &Record) -> Option<bool> {
        self.uses_kvm(record).then(|| {
            let user = self.user_of(record.user);
            self.hypervisor(record) != QEMU || self.kvm && self.opens(user::KVM, user.as_ref())
        })
    }

    /// Whether a hypervisor does without the KVM that the settings want.
    pub(in crate::daemon) fn is_slow(&self, kvm: Option<bool>) -> bool {
        self.kvm && kvm == Some(false)
    }

    /// What `check` says of the devices that volnet and hypervisors need.
    pub(in crate::daemon) fn check_devices(&self) -> Vec<Finding> {
        let mut findings = vec![self.check_tun()];
        if self.kvm {
            let consequence = "guests of QEMU run without KVM, slowly, and others do not run";
            let opened = can_open(user::KVM).map_err(|error| (error, NEEDED_FOR_KVM));
            findings.push(self.device(user::KVM, opened, consequence));
        }
        if self.options.qemu.vhost_net {
            let opened = can_open(user::VHOST_NET).map_err(|error| (error, NEEDED_FOR_VHOST_NET));
            findings.push(self.device(
                user::VHOST_NET,
                opened,
                "guests of QEMU with a network do not run",
            ));
        }
        findings
    }

    /// volnet makes taps with this device, and some hypervisors open their taps with it.
    fn check_tun(&self) -> Finding {
        if let Err(error) = can_open(user::TUN) {
            let message = format!("{error}: volnet cannot make taps");
            let hint = Some("load the module tun".into());
            return Finding { check: user::TUN.into(), level: Level::Error, message, hint };
        }
        let named = self.open_taps_by_name().join(", ");
        match named.is_empty() {
            true => device_is_well(user::TUN),
            false => self.device(user::TUN, Ok(()), &format!("guests of {named} do not run")),
        }
    }

    /// The hypervisors of this host that open their taps by name.
    fn open_taps_by_name(&self) -> Vec<&str> {
        let templates = self.options.templates.iter().filter(|it| it.opens_tap_by_name());
        let programs = templates.map(|it| (it.name(), Ok(it.program())));
        let programs = programs.chain([(FIRECRACKER, self.options.program(FIRECRACKER))]);
        let here = programs.filter(|(_, program)| {
            program.as_ref().is_ok_and(|program| inputs::find_program(program).is_ok())
        });
        here.map(|(name, _)| name).collect()
    }

    /// Whether hypervisors can open a device, with their rights. `opened` is whether volnet can.
    fn device(
        &self,
        path: &str,
        opened: Result<(), (io::Error, &str)>,
        consequence: &str,
    ) -> Finding {
        let (message, hint) = match (opened, &self.user) {
            (Err((error, hint)), _) => (format!("{error}: {consequence}"), hint),
            (Ok(()), Some(user)) if !user.clone().reaches(path) => {
                (format!("user {} may not open it: {consequence}", user.name), LET_A_GROUP)
            }
            (Ok(()), _) => return device_is_well(path),
        };
        let (check, hint) = (path.into(), Some(hint.into()));
        Finding { check, level: Level::Warning, message, hint }
    }

    /// Refuses a hypervisor that cannot do without KVM, if the settings forbid KVM.
    pub(super) fn refuse_without_kvm(&self, hypervisor: &str) -> Result<(), Refusal> {
        match hypervisor {
            CLOUD_HYPERVISOR | FIRECRACKER if !self.kvm => {
                let reason = format!(
                    "{hypervisor} runs guests only by KVM, and the settings say kvm: false; \
                     {QEMU} can do without"
                );
                Err(Refusal::InvalidConfig { field: "hypervisor".into(), reason })
            }
            _ => Ok(()),
        }
    }

    /// Refuses a guest of QEMU with a network if the settings want vhost-net for it, and the VM's
    /// user cannot have that.
    pub(super) fn refuse_without_vhost_net(
        &self,
        hypervisor: &str,
        spec: &VmSpec,
        user: Option<&User>,
    ) -> Result<(), Refusal> {
        let wants = hypervisor == QEMU && self.options.qemu.vhost_net && spec.needs_tap_device();
        if !wants || self.opens(user::VHOST_NET, user) {
            return Ok(());
        }
        let user = user.map_or_else(|| "root".into(), |user| format!("user {}", user.name));
        let device = user::VHOST_NET;
        let reason =
            format!("the settings say vhost_net for {hypervisor}, and {user} cannot open {device}");
        Err(Refusal::InvalidConfig { field: "hypervisor".into(), reason })
    }

    /// Whether hypervisors of a user can use a device.
    pub(super) fn opens(&self, device: &str, user: Option<&User>) -> bool {
        can_open(device).is_ok() && user.is_none_or(|user| user.clone().reaches(device))
    }

    /// Refuses a machine whose memory are to be huge pages, if the host has too few of them now.
    /// Others may still be faster.
    pub(super) fn refuse_without_huge_pages(&self, machine: &MachineSpec) -> Result<(), Refusal> {
        let wanted = machine.memory_mb.div_ceil(HUGE_PAGE_MB);
        let available = hardware::huge_pages();
        if !machine.hugepages || available >= wanted {
            return Ok(());
        }
        let reason = format!(
            "the VM needs {wanted} huge pages of {HUGE_PAGE_MB} MiB, and the host has {available} \
             to give: raise vm.nr_hugepages by {}",
            wanted - available
        );
        Err(Refusal::InvalidConfig { field: "resources.hugepages".into(), reason })
    }
}

fn device_is_well(path: &str) -> Finding {
    let message = "it can be opened".into();
    Finding { check: path.into(), level: Level::Ok, message, hint: None }
}
