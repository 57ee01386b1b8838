//! Makes the command that starts a VM on this host, from its record.
//!
//! The drivers are pure. Their inputs are read here: the settings, and the features of the host
//! (KVM, vhost-vsock, the TSC's frequency).

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::hypervisor::cgroup::{self, Group, Root};
use crate::hypervisor::inputs::Checksum;
use crate::hypervisor::log::Logs;
use crate::hypervisor::machine::{MachineDefaults, resolve_machine};
use crate::hypervisor::process::Given;
use crate::hypervisor::seed::SEED;
use crate::hypervisor::user::{self, User};
use crate::hypervisor::{
    self, Architecture, Attachment, CLOUD_HYPERVISOR, Control, FIRECRACKER, HypervisorCommand,
    Launch, LaunchNic, Options, QEMU, handover, inputs, seed, shares,
};
use crate::model::budget::Usage;
use crate::model::error::{Error, Failure, Refusal};
use crate::model::name::VmName;
use crate::model::net::NetworkConfig;
use crate::model::nic::Nic;
use crate::model::record::Record;
use crate::model::run_as::VmUser;
use crate::model::spec::{MachineSpec, NetworkSpec, VmSpec};
use crate::model::view::{Finding, Level};
use crate::spec::MEMORY_MB_DEFAULT;
use crate::store::{Paths, folder_of};

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
/// For how many seconds after its start a host is one that has just booted.
const BOOT_SECONDS: f64 = 300.0;

/// The settings and features for hypervisors on this host.
#[derive(Clone, Debug)]
pub struct Launcher {
    defaults: MachineDefaults,
    options: Options,
    logs: PathBuf,
    runtime_dir: PathBuf,
    /// Whether the settings let hypervisors use KVM.
    kvm: bool,
    /// How long [`Launcher::await_kvm`] waits.
    kvm_patience: Duration,
    tsc_khz: Option<u64>,
    /// The user of the hypervisors; `None`: the daemon's.
    user: Option<User>,
    /// The control group that those of VMs are in.
    cgroup: Option<Root>,
}

/// What the guest of a VM is told of its networks.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuestNetworks<'a> {
    /// The networks of its NICs.
    pub(super) networks: &'a [&'a NetworkConfig],
    /// volnet's part of the kernel command line.
    pub(super) kernel_args: &'a str,
    /// The name servers of the first of them.
    pub(super) servers: &'a [IpAddr],
}

impl Launcher {
    /// Reads what the settings say. What the host offers is looked at for each VM.
    pub fn new(settings: &Settings, user: Option<User>) -> Launcher {
        Launcher {
            defaults: settings.machine.clone(),
            options: settings.hypervisors.clone(),
            logs: settings.log_dir.clone(),
            runtime_dir: settings.runtime_dir.clone(),
            kvm: settings.kvm,
            kvm_patience: Duration::ZERO,
            tsc_khz: tsc_khz(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            user,
            cgroup: None,
        }
    }

    /// Gives each VM a control group in this one.
    pub fn with_cgroup(self, cgroup: Option<Root>) -> Launcher {
        Launcher { cgroup, ..self }
    }

    /// The launcher of a daemon that starts when the host does.
    #[cfg(target_os = "linux")]
    pub(super) fn at_boot(self) -> Launcher {
        Launcher { kvm_patience: KVM_PATIENCE, ..self }
    }

    /// Waits for KVM if this host has just booted and its processor has it: the module is loaded
    /// beside the daemon, and a guest that starts without runs without for as long as it runs.
    pub(super) fn await_kvm(&self) {
        let begin = Instant::now();
        let booting = || {
            let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
            let seconds = uptime.split(' ').next().and_then(|text| text.parse().ok());
            seconds.is_some_and(|seconds: f64| seconds < BOOT_SECONDS)
        };
        while self.lacks_kvm() && begin.elapsed() < self.kvm_patience && booting() {
            let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            if !virtualises(&cpuinfo) {
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
    pub(super) fn uses_kvm(&self, record: &Record) -> bool {
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
    pub(super) fn kvm_for(&self, record: &Record) -> Option<bool> {
        self.uses_kvm(record).then(|| {
            let user = self.user_of(record.user);
            self.hypervisor(record) != QEMU || self.kvm && self.opens(user::KVM, user.as_ref())
        })
    }

    /// Whether a hypervisor does without the KVM that the settings want.
    pub(super) fn is_slow(&self, kvm: Option<bool>) -> bool {
        self.kvm && kvm == Some(false)
    }

    /// What `check` says of the devices that volnet and hypervisors need.
    pub(super) fn check_devices(&self) -> Vec<Finding> {
        let mut findings = vec![self.check_tun()];
        if self.kvm {
            let consequence = "guests of QEMU run without KVM, slowly, and others do not run";
            let opened = can_open(user::KVM).map_err(|error| (error, NEEDED_FOR_KVM));
            findings.push(self.device(user::KVM, opened, consequence));
        }
        if self.options.qemu.vhost_net {
            let opened = can_open(user::VHOST_NET).map_err(|error| (error, NEEDED_FOR_VHOST_NET));
            findings.push(self.device(user::VHOST_NET, opened, "guests of QEMU do not run"));
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
    fn refuse_without_kvm(&self, hypervisor: &str) -> Result<(), Refusal> {
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

    /// Refuses QEMU if the settings want vhost-net, and the VM's user cannot have it.
    fn refuse_without_vhost_net(
        &self,
        hypervisor: &str,
        user: Option<&User>,
    ) -> Result<(), Refusal> {
        let wants = hypervisor == QEMU && self.options.qemu.vhost_net;
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
    fn opens(&self, device: &str, user: Option<&User>) -> bool {
        can_open(device).is_ok() && user.is_none_or(|user| user.clone().reaches(device))
    }

    /// As whom the processes of a VM run, if it has this user; `None`: as the daemon does.
    pub(super) fn user_of(&self, own: Option<VmUser>) -> Option<User> {
        own.map(User::of_vm).or_else(|| self.user.clone())
    }

    /// The control group that a VM is to have, if it has this user.
    pub(super) fn cgroup_of(
        &self,
        name: &VmName,
        spec: &VmSpec,
        own: Option<VmUser>,
    ) -> Result<Option<Group>, Refusal> {
        let Some(machine) = &spec.machine else { return Ok(None) };
        let devices = || act(self.user_of(own).as_ref(), || cgroup::devices(machine));
        cgroup::plan(self.cgroup.as_ref(), name, &spec.budget, devices)
    }

    /// What a VM has used since it was started.
    pub(super) fn usage(&self, name: &VmName) -> Option<Usage> {
        self.cgroup.as_ref()?.usage(name)
    }

    /// As whom hypervisors run; `None`: as the daemon does.
    pub(super) fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// The files of a machine with a checksum, each read by who has it now.
    pub(super) fn checksums(
        &self,
        machine: &MachineSpec,
        own: Option<VmUser>,
    ) -> Result<Vec<Checksum>, Refusal> {
        let giver = self.giver(own);
        let reader = |path: &Path| match giver {
            Some(giver) if handover::is_handed(path, giver) => Some(giver.clone()),
            _ => self.user_of(own),
        };
        Ok(inputs::checksums(&resolve_machine(machine, &self.defaults)?, reader))
    }

    /// Whether the host can have a VM that starts now: as [`Launcher::accept`], and the VM's user
    /// can open all files of its machine, now or once it has what it is given. For their contents
    /// see [`Launcher::checksums`].
    pub(super) fn verify(
        &self,
        name: &VmName,
        spec: &VmSpec,
        own: Option<VmUser>,
    ) -> Result<(), Refusal> {
        self.accept(name, spec, own)?;
        let Some(machine) = &spec.machine else { return Ok(()) };
        let resolved = resolve_machine(machine, &self.defaults)?;
        let program = self.options.program(resolved.hypervisor)?;
        self.refuse_without_kvm(resolved.hypervisor)?;
        self.refuse_without_vhost_net(resolved.hypervisor, self.user_of(own).as_ref())?;
        if let (false, Some(helper)) =
            (machine.shares.is_empty(), self.options.share_helper(resolved.hypervisor))
        {
            inputs::find_program(helper)
                .map_err(|reason| Refusal::InvalidConfig { field: shares::FIELD.into(), reason })?;
        }
        let giver = self.giver(own);
        act(self.user_of(own).as_ref(), || inputs::check(&resolved, program, giver))
    }

    /// Whether the host can have a VM that does not start yet: the paths of its sockets fit, its
    /// limits can be kept, and those of its disks that exist already are of the format that they
    /// are said to be of.
    pub(super) fn accept(
        &self,
        name: &VmName,
        spec: &VmSpec,
        own: Option<VmUser>,
    ) -> Result<(), Refusal> {
        hypervisor::check_folder(&folder_of(&self.runtime_dir, name), spec)?;
        self.cgroup_of(name, spec, own)?;
        spec.machine.as_ref().map_or(Ok(()), |machine| self.recognise(machine, own))
    }

    /// Whether the disks of a machine that exist already are of the format that they are said to be
    /// of.
    fn recognise(&self, machine: &MachineSpec, own: Option<VmUser>) -> Result<(), Refusal> {
        if let Some(giver) = self.giver(own) {
            act(Some(giver), || inputs::recognise(machine))?;
        }
        act(self.user_of(own).as_ref(), || inputs::recognise(machine))
    }

    /// Who gives its disks to a VM that has this user, if that is for itself.
    fn giver(&self, own: Option<VmUser>) -> Option<&User> {
        self.user.as_ref().filter(|_| own.is_some_and(|own| own.own))
    }

    /// Gives a VM that has a user for itself the disks that it writes to.
    pub(super) fn hand_over(&self, record: &Record) -> Result<(), Failure> {
        let Some((machine, shared, own)) = self.handing(record) else { return Ok(()) };
        handover::hand_over(machine, shared, &own).map_err(|reason| {
            let name = record.name.to_string();
            Failure::Hypervisor { name, reason, log: None }
        })
    }

    /// Takes back what such a VM was given.
    pub(super) fn take_back(&self, record: &Record) {
        let Some((machine, shared, own)) = self.handing(record) else { return };
        if let Err(reason) = handover::hand_over(machine, &own, shared) {
            ::log::warn!(vm:% = record.name; "{reason}");
        }
    }

    fn handing<'a>(&'a self, record: &'a Record) -> Option<(&'a MachineSpec, &'a User, User)> {
        record.own_uid()?;
        let machine = record.spec.machine.as_deref()?;
        Some((machine, self.user.as_ref()?, self.user_of(record.user)?))
    }

    /// The command that starts a VM with its open descriptors; for `kvm` see
    /// [`Launcher::kvm_for`].
    pub(super) fn command(
        &self,
        record: &Record,
        told: &GuestNetworks<'_>,
        paths: &Paths,
        given: &Given,
        kvm: Option<bool>,
    ) -> Result<HypervisorCommand, Error> {
        let mut machine = record.spec.machine.clone().ok_or_else(no_machine)?;
        let folder = paths.folder(&record.name);
        let seed = seed::image(record, told.networks, told.servers)?;
        machine.disks.extend(seed.iter().map(|_| seed::disk(&folder)));
        let resolved = resolve_machine(&machine, &self.defaults)?;
        self.refuse_without_kvm(resolved.hypervisor)?;
        let number = |descriptor: &OwnedFd| descriptor.as_raw_fd() as u32;
        let taps: Vec<u32> = given.taps.iter().map(number).collect();
        let nics = nics(record, told.networks, &taps);
        let launch = Launch {
            name: record.name.as_str(),
            machine: &machine,
            kernel: resolved.kernel,
            nics: &nics,
            cid: record.cid,
            vsock: record.spec.vsock,
            kernel_args: told.kernel_args,
            folder: folder.clone(),
            vhost_vsock: self.opens(user::VHOST_VSOCK, self.user_of(record.user).as_ref()),
            architecture: Architecture::HOST,
            kvm: kvm == Some(true),
            tsc_khz: self.tsc_khz,
        };
        let mut command = hypervisor::command_line(resolved.hypervisor, &launch, &self.options)?;
        command.files.extend(seed.map(|image| (folder.join(SEED), image)));
        Ok(command)
    }

    /// The descriptors of its taps that a VM's hypervisor is handed, one a queue, or none: for each
    /// the index of the NIC.
    pub(super) fn taps_of(&self, record: &Record) -> Vec<usize> {
        if !self.options.takes_open_tap(self.hypervisor(record)) {
            return Vec::new();
        }
        let nics = record.interfaces().enumerate();
        nics.flat_map(|(at, (_, spec))| (0..queues(spec)).map(move |_| at)).collect()
    }

    /// How to ask the VM's guest to power off.
    pub(super) fn control(&self, record: &Record, paths: &Paths) -> Result<Control, Error> {
        let folder = paths.folder(&record.name);
        Ok(hypervisor::control(self.hypervisor(record), &folder, &self.options)?)
    }

    /// Refuses what takes a hypervisor that can be asked.
    pub(super) fn refuse_unasked(&self, record: &Record, paths: &Paths) -> Result<(), Error> {
        match self.control(record, paths)? {
            Control::Terminate => {
                let reason = format!("volnet cannot ask {} for that", self.hypervisor(record));
                Err(Refusal::InvalidConfig { field: "hypervisor".into(), reason }.into())
            }
            Control::Qmp(_) | Control::CloudHypervisor(_) | Control::Firecracker(_) => Ok(()),
        }
    }

    /// The VM's hypervisor by name.
    fn hypervisor<'a>(&'a self, record: &'a Record) -> &'a str {
        let machine = record.spec.machine.as_ref();
        let own = machine.and_then(|machine| machine.hypervisor.as_deref());
        own.unwrap_or(&self.defaults.hypervisor)
    }

    /// The network arguments for a hypervisor.
    pub(super) fn args(
        &self,
        record: &Record,
        networks: &[&NetworkConfig],
        hypervisor: Option<&str>,
        paths: &Paths,
    ) -> Result<Vec<String>, Refusal> {
        let machine = record.spec.machine.as_ref();
        let attachment = Attachment {
            nics: &nics(record, networks, &[]),
            cid: record.cid,
            vsock: record.spec.vsock,
            folder: &paths.folder(&record.name),
            vhost_vsock: self.opens(user::VHOST_VSOCK, self.user_of(record.user).as_ref()),
            memory_mb: machine.map_or(MEMORY_MB_DEFAULT, |machine| machine.memory_mb),
        };
        let hypervisor = hypervisor.unwrap_or(self.hypervisor(record));
        hypervisor::network_args(hypervisor, &attachment, &self.options)
    }

    /// The findings about installed hypervisors.
    pub(super) fn check(&self) -> Vec<Finding> {
        let found = |name: &&str| {
            self.options.program(name).is_ok_and(|program| inputs::find_program(program).is_ok())
        };
        let installed: Vec<&str> = [CLOUD_HYPERVISOR, QEMU, FIRECRACKER]
            .iter()
            .filter(|name| found(name))
            .copied()
            .collect();
        let (level, message) = match installed.as_slice() {
            [] => (Level::Warning, "no hypervisor was found".to_string()),
            some => (Level::Ok, format!("found: {}", some.join(", "))),
        };
        let installed = Finding { check: "hypervisors".into(), level, message, hint: None };
        vec![installed, self.check_user(), self.check_cgroup()]
    }

    fn check_user(&self) -> Finding {
        let check = user::FIELD.into();
        match &self.user {
            Some(User { name, uid, .. }) => {
                let message = format!("hypervisors run as user {name} ({uid})");
                Finding { check, level: Level::Ok, message, hint: None }
            }
            None => {
                let message = "hypervisors run as root: a guest that breaks out owns the host, \
                    and only root may name files of VMs";
                let hint = format!("create the user {}, or set hypervisor_user", user::DEFAULT);
                let (level, message) = (Level::Warning, message.into());
                Finding { check, level, message, hint: Some(hint) }
            }
        }
    }

    fn check_cgroup(&self) -> Finding {
        let check = cgroup::FIELD.into();
        let Some(root) = &self.cgroup else {
            let message = format!(
                "VMs have no control groups, so limits of `resources` are refused: neither does {} \
                 run, nor is {} set",
                cgroup::UNIT,
                cgroup::FIELD
            );
            return Finding { check, level: Level::Ok, message, hint: None };
        };
        let controllers: Vec<&str> = root.controllers().collect();
        let path = root.path().display();
        let message = match controllers.as_slice() {
            [] => format!("VMs have control groups in {path}, which limit nothing"),
            some => format!("VMs have control groups in {path}: {}", some.join(", ")),
        };
        Finding { check, level: Level::Ok, message, hint: None }
    }

    /// The directory of the logs.
    #[cfg(target_os = "linux")]
    pub(super) fn logs(&self) -> &std::path::Path {
        &self.logs
    }

    /// The logs of a VM.
    pub(super) fn logs_of(&self, name: &VmName) -> Logs {
        Logs::of(&self.logs, name)
    }

    /// Whether a VM's hypervisor needs a terminal.
    pub(super) fn needs_terminal(&self, record: &Record) -> bool {
        hypervisor::needs_terminal(self.hypervisor(record))
    }
}

fn can_open(device: &str) -> io::Result<()> {
    File::options().read(true).write(true).open(device).map(drop)
}

fn device_is_well(path: &str) -> Finding {
    let message = "it can be opened".into();
    Finding { check: path.into(), level: Level::Ok, message, hint: None }
}

/// Looks at files with the rights of a user.
fn act<T>(user: Option<&User>, look: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    let Some(user) = user else { return look() };
    let found = user.act(look).unwrap_or_else(|error| {
        Err(Refusal::InvalidConfig { field: user::FIELD.into(), reason: error.to_string() })
    });
    found.map_err(|refusal| match refusal {
        Refusal::InvalidConfig { field, reason } => {
            let reason = format!("{reason}, for user {}", user.name);
            Refusal::InvalidConfig { field, reason }
        }
        refusal => refusal,
    })
}

fn no_machine() -> Refusal {
    let reason = "the VM was created without a hypervisor, so there is nothing to start".into();
    Refusal::InvalidConfig { field: "hypervisor".into(), reason }
}

fn queues(spec: &NetworkSpec) -> u16 {
    spec.queues.unwrap_or(1)
}

/// What a hypervisor has to know of a VM's NICs. `taps` are their open descriptors, or none.
fn nics<'a>(
    record: &'a Record,
    networks: &[&NetworkConfig],
    mut taps: &'a [u32],
) -> Vec<LaunchNic<'a>> {
    let nic = |((nic, spec), network): ((&'a Nic, &NetworkSpec), &&NetworkConfig)| {
        let queues = queues(spec);
        let (fds, rest) = taps.split_at(taps.len().min(queues.into()));
        taps = rest;
        let identity = nic.identity(network);
        LaunchNic {
            tap: nic.tap.as_str(),
            mac: identity.mac,
            queues,
            mtu: spec.mtu.unwrap_or(network.mtu),
            fds,
            lease: identity.ipv4.and_then(|ipv4| Some((ipv4.ip?, ipv4.subnet.netmask()))),
        }
    };
    record.interfaces().zip(networks).map(nic).collect()
}

/// Whether a processor has hardware virtualisation, as proc(5) shows its flags.
fn virtualises(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| line.split(' ').any(|flag| flag == "vmx" || flag == "svm"))
}

/// The frequency of the first processor as proc(5) shows it, which is that of the TSC where it is
/// constant.
pub(super) fn tsc_khz(cpuinfo: &str) -> Option<u64> {
    let line = cpuinfo.lines().find(|line| line.starts_with("cpu MHz"))?;
    let mhz: f64 = line.split(':').nth(1)?.trim().parse().ok()?;
    Some((mhz * 1000.0) as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{self, Flags};
    use crate::model::budget::{Budget, Controller, IoRates};
    use crate::model::spec::{Disk, File as FileSpec};
    use crate::store::tests::Scratch;

    #[test]
    #[ignore = "needs root"]
    fn the_devices_of_disks_are_looked_for_with_the_rights_of_the_vm() {
        let secret = Scratch::new();
        fs::set_permissions(secret.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let path = secret.path().join("disk");
        fs::write(&path, "").unwrap();
        let disk = Disk { file: FileSpec { path: path.clone(), sha256: None }, ..Disk::default() };
        let machine = MachineSpec { disks: vec![disk], ..MachineSpec::default() };
        let spec = VmSpec {
            machine: Some(Box::new(machine)),
            budget: Budget { io: Some(IoRates::default()), ..Budget::default() },
            ..VmSpec::default()
        };
        let root = Root::told("/r", &Controller::ALL);
        let shared = VmUser { uid: 65534, gid: 65534, own: false };
        let settings = config::resolve(&Flags::default(), &BTreeMap::new(), None, "test").unwrap();
        let launcher = Launcher::new(&settings, Some(User::of_vm(shared))).with_cgroup(Some(root));
        let name = VmName::new("a").unwrap();
        for (own, uid) in [(None, 65534), (Some(VmUser { uid: 65533, ..shared }), 65533)] {
            let reason =
                format!("{}: Permission denied (os error 13), for user {uid}", path.display());
            let field = "resources.io".into();
            let refused = Refusal::InvalidConfig { field, reason };
            assert_eq!(launcher.cgroup_of(&name, &spec, own), Err(refused));
        }
    }

    #[test]
    fn virtualisation_is_read_from_cpuinfo() {
        assert!(virtualises("processor\t: 0\nflags\t\t: fpu svm sse\n"));
        assert!(virtualises("flags\t\t: fpu vmx\n"));
        assert!(!virtualises("flags\t\t: fpu sse\nbugs\t\t: vmx\n"));
    }

    #[test]
    fn the_frequency_is_read_from_cpuinfo() {
        assert_eq!(tsc_khz("processor\t: 0\ncpu MHz\t\t: 2595.124\n"), Some(2_595_124));
        assert_eq!(tsc_khz("processor\t: 0\n"), None);
    }
}
