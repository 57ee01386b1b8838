//! Makes the command that starts a VM on this host, from its record.
//!
//! The drivers are pure. Their inputs are read here: the settings, and the features of the host
//! (vhost-vsock, the TSC's frequency, and what is in `devices`).

mod devices;

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::config::Settings;
use crate::hypervisor::cgroup::{self, Group, Root};
use crate::hypervisor::hardware;
use crate::hypervisor::inputs::Checksum;
use crate::hypervisor::log::Logs;
use crate::hypervisor::machine::{MachineDefaults, resolve_machine};
use crate::hypervisor::process::Given;
use crate::hypervisor::seed::SEED;
use crate::hypervisor::snapshot::Taking;
use crate::hypervisor::user::{self, User};
use crate::hypervisor::{
    self, Architecture, Attachment, CLOUD_HYPERVISOR, Control, FIRECRACKER, HypervisorCommand,
    Launch, LaunchNic, Options, QEMU, QemuMachine, handover, inputs, own_disks, seed, shares,
    snapshot,
};
use crate::model::budget::Usage;
use crate::model::error::{Error, Failure, Refusal};
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::net::NetworkConfig;
use crate::model::nic::Nic;
use crate::model::record::Record;
use crate::model::run_as::VmUser;
use crate::model::spec::{File as SpecFile, MachineSpec, NetworkSpec, VmSpec};
use crate::model::view::{Finding, Level};
use crate::spec::MEMORY_MB_DEFAULT;
use crate::spec::snapshot::{FORMAT, Made, Snapshot, describe};
use crate::store::{DISKS, Paths, folder_of};

/// The settings and features for hypervisors on this host.
#[derive(Clone, Debug)]
pub struct Launcher {
    defaults: MachineDefaults,
    options: Options,
    logs: PathBuf,
    /// The directory of disks that volnet makes.
    disks: PathBuf,
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
            disks: settings.state_dir.join(DISKS),
            runtime_dir: settings.runtime_dir.clone(),
            kvm: settings.kvm,
            kvm_patience: Duration::ZERO,
            tsc_khz: hardware::tsc_khz(&hardware::cpuinfo()),
            user,
            cgroup: None,
        }
    }

    /// Gives each VM a control group in this one.
    pub fn with_cgroup(self, cgroup: Option<Root>) -> Launcher {
        Launcher { cgroup, ..self }
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
        self.refuse_without_vhost_net(resolved.hypervisor, spec, self.user_of(own).as_ref())?;
        self.refuse_without_huge_pages(machine)?;
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
        self.refuse_without_huge_pages(&machine)?;
        let number = |descriptor: &OwnedFd| descriptor.as_raw_fd() as u32;
        let taps: Vec<u32> = given.taps.iter().map(number).collect();
        let nics = nics(record, told.networks, &taps);
        let saved = self.saved(record)?;
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
            memory: given.memory.as_ref().map(number),
            saved: saved.as_ref(),
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

    /// The memory of the snapshot from which the guest of a VM that starts now wakes, open. It is
    /// opened as who opens it: QEMU is handed it, and the others open it again.
    pub(super) fn memory_of(&self, record: &Record) -> Result<Option<OwnedFd>, Refusal> {
        let Some(folder) = record.wakes_from() else { return Ok(None) };
        let hypervisor = self.hypervisor(record);
        let user = match hypervisor {
            FIRECRACKER | CLOUD_HYPERVISOR => self.user_of(record.user),
            _ => self.user.clone(),
        };
        snapshot::open_memory(folder, hypervisor, user.as_ref()).map(Some)
    }

    /// How Cloud Hypervisor had configured the guest, if it wakes from a snapshot of it.
    fn saved(&self, record: &Record) -> Result<Option<Value>, Refusal> {
        match record.wakes_from() {
            Some(folder) if self.hypervisor(record) == CLOUD_HYPERVISOR => {
                snapshot::read_configuration(folder, self.user.as_ref()).map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The VM that wakes from a snapshot: what is asked for, and what the snapshot says. It reads
    /// files and asks the hypervisor for its version, so it is for a thread.
    #[cfg(target_os = "linux")]
    pub(super) fn wake(&self, asked: &VmSpec) -> Result<VmSpec, Refusal> {
        let from = asked.machine.as_ref().and_then(|machine| machine.from.as_deref());
        let Some(folder) = from else { return Ok(asked.clone()) };
        let snapshot = snapshot::read(folder, self.user.as_ref())?;
        let spec = snapshot.wake(folder, asked)?;
        let hypervisor = snapshot.made_by.hypervisor.as_str();
        let program = self.options.program(hypervisor)?;
        let version = snapshot::version(program, self.user.as_ref())
            .map_err(|reason| crate::spec::snapshot::mismatch(folder, "version", reason))?;
        snapshot.check(folder, &Made { version, ..self.made_by(hypervisor) })?;
        Ok(spec)
    }

    /// The copies to be made of the disks of the snapshot that a new VM wakes from, if it is to
    /// have such.
    #[cfg(target_os = "linux")]
    pub(super) fn copying(&self, name: &VmName, spec: &VmSpec) -> Option<own_disks::Copying> {
        let mut machine = spec.machine.as_deref()?.clone();
        let from: Vec<PathBuf> =
            own_disks::uncopied(&mut machine).map(|disk| disk.file.path.clone()).collect();
        (!from.is_empty()).then(|| own_disks::Copying {
            name: name.clone(),
            directory: self.disks.clone(),
            user: self.user.clone(),
            durable: !spec.ephemeral,
            from,
        })
    }

    /// The folder of the disks that volnet has made for a VM, if it has.
    pub(super) fn own_disks<'a>(&self, record: &'a Record) -> Option<&'a Path> {
        own_disks::folder_of(&self.disks, record)
    }

    /// The directory of such folders.
    #[cfg(target_os = "linux")]
    pub(super) fn disks(&self) -> &Path {
        &self.disks
    }

    /// What runs a guest of this hypervisor here, but for the version.
    fn made_by(&self, hypervisor: &str) -> Made {
        let machine = (hypervisor == QEMU).then_some(self.options.qemu.machine);
        let architecture = machine.map_or(Architecture::HOST, QemuMachine::architecture);
        let native = architecture == Architecture::HOST;
        Made {
            hypervisor: hypervisor.into(),
            version: String::new(),
            machine: machine.map(|machine| machine.as_str().into()),
            architecture: architecture.as_str().into(),
            kvm: self.kvm && native && self.opens(user::KVM, self.user.as_ref()),
        }
    }

    /// A snapshot of a VM's guest, for a thread to take.
    pub(super) fn taking(
        &self,
        record: &Record,
        networks: &[&NetworkConfig],
        to: &Path,
        paths: &Paths,
    ) -> Result<Taking, Refusal> {
        let mut machine = record.spec.machine.clone().ok_or_else(no_machine)?;
        self.refuse_unsaved(record, &machine, networks)?;
        // What is there in the place of the part is somebody else's, and would be removed.
        for path in [to.to_owned(), snapshot::part_of(to)] {
            let exists = || Ok(fs::symlink_metadata(&path).is_ok());
            if act(self.user.as_ref(), exists)? {
                return Err(Refusal::SnapshotExists { path: path.display().to_string() });
            }
        }
        let folder = paths.folder(&record.name);
        if seed::image(record, networks, &[])?.is_some() {
            machine.disks.push(seed::disk(&folder));
        }
        let (copies, disks) = snapshot::copies(&machine, &folder);
        let hypervisor = self.hypervisor(record).to_owned();
        let kernel = resolve_machine(&machine, &self.defaults)?.kernel.to_owned();
        machine.kernel = Some(SpecFile { path: kernel, sha256: None });
        machine.hypervisor = Some(hypervisor.clone());
        let nics = snapshot::nics(record, networks);
        let mut made_by = self.made_by(&hypervisor);
        made_by.kvm = record.kvm.unwrap_or(made_by.kvm);
        Ok(Taking {
            name: record.name.clone(),
            control: hypervisor::control(&hypervisor, &folder, &self.options)?,
            user: self.user.clone(),
            reader: self.user_of(record.user),
            folder: to.into(),
            snapshot: Snapshot {
                format: FORMAT,
                made_by,
                config: describe(&machine, &nics, record.spec.has_vsock()),
                disks,
            },
            copies,
            stays_paused: false,
        })
    }

    /// Refuses to save a guest that could not wake.
    fn refuse_unsaved(
        &self,
        record: &Record,
        machine: &MachineSpec,
        networks: &[&NetworkConfig],
    ) -> Result<(), Refusal> {
        let refuse = |field: &str, reason: String| {
            Err(Refusal::InvalidConfig { field: field.into(), reason })
        };
        let hypervisor = self.hypervisor(record);
        match hypervisor {
            QEMU => {}
            FIRECRACKER if machine.hugepages => {
                let reason = "firecracker cannot wake a guest whose memory is in huge pages";
                return refuse("resources.hugepages", reason.into());
            }
            FIRECRACKER | CLOUD_HYPERVISOR if self.user_of(record.user) != self.user => {
                let reason = format!(
                    "{hypervisor} writes a snapshot itself, and a user that is this VM's own may \
                     not write there"
                );
                return refuse("run_as", reason);
            }
            FIRECRACKER | CLOUD_HYPERVISOR => {}
            _ => {
                let reason = format!(
                    "volnet takes snapshots with {QEMU}, {FIRECRACKER} and {CLOUD_HYPERVISOR}, not \
                     with {hypervisor}"
                );
                return refuse("hypervisor", reason);
            }
        }
        hypervisor::check_waking(hypervisor, machine, &self.options)?;
        if !machine.shares.is_empty() {
            return refuse("shares", "what a guest shares with the host cannot be saved".into());
        }
        if record.mode() == Mode::Dhcp {
            let reason = "a guest that has its address from elsewhere cannot wake with another";
            return refuse("network.mode", reason.into());
        }
        if let Some(network) = networks.iter().find(|network| network.ipv6.is_some()) {
            let name = &network.name;
            return refuse(
                "network.name",
                format!("network {name} has IPv6, and clones have none"),
            );
        }
        Ok(())
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
}
