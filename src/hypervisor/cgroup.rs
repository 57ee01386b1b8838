//! The control groups of VMs (version 2, Documentation/admin-guide/cgroup-v2.rst of Linux).
//!
//! ```text
//! ROOT                delegated to volnet: volnet-vms.service of systemd, or the setting `cgroup`
//! ├── rest            what else is in it
//! └── vm-NAME         a hypervisor and its helper, from before they are a program of others
//! ```
//!
//! A group with controllers for its children has no processes itself, so those that are in the root
//! move to `rest`. The group of a VM ends with its process. The kernel removes no group that has a
//! process in it, so groups without a process, which a crash left, are found by removing all.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::model::budget::{Budget, Controller, Usage};
use crate::model::error::{Failure, Refusal};
use crate::model::name::VmName;
use crate::model::spec::MachineSpec;

/// The group that systemd delegates, by the unit of the package.
pub const DEFAULT: &str = "/sys/fs/cgroup/system.slice/volnet-vms.service";
/// The unit.
pub const UNIT: &str = "volnet-vms.service";
/// The setting.
pub const FIELD: &str = "cgroup";

/// What begins the name of a VM's group. No file of the kernel's begins so.
const PREFIX: &str = "vm-";
const REST: &str = "rest";
/// The processes of a group. Who writes 0 to it joins it.
pub const PROCESSES: &str = "cgroup.procs";
const CONTROLLERS: &str = "cgroup.controllers";
const CHILDREN: &str = "cgroup.subtree_control";

/// The group that all groups of VMs are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    path: PathBuf,
    controllers: Vec<Controller>,
}

/// The group of a VM: what is written to its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its directory.
    pub path: PathBuf,
    /// The limits.
    pub files: Vec<(&'static str, String)>,
}

impl Root {
    /// The root that the settings name, which is made, or the default, if it is there.
    pub fn open(setting: Option<&Path>) -> Result<Option<Root>, Failure> {
        let path = setting.unwrap_or(DEFAULT.as_ref());
        let failed = |error: io::Error| Failure::State {
            path: path.display().to_string(),
            reason: format!("cannot be the control group of VMs: {error}"),
        };
        match setting {
            None if !path.join(CONTROLLERS).exists() => return Ok(None),
            None => {}
            Some(path) => make(path).map_err(failed)?,
        }
        let mut root = Root { path: path.into(), controllers: Vec::new() };
        root.prepare().map_err(failed)?;
        Ok(Some(root))
    }

    /// The root as an earlier daemon has made it, if it is there.
    pub fn found(setting: Option<&Path>) -> Option<Root> {
        let path = setting.unwrap_or(DEFAULT.as_ref());
        let enabled = fs::read_to_string(path.join(CHILDREN)).ok()?;
        let is_enabled =
            |one: &Controller| enabled.split_whitespace().any(|word| word == one.as_str());
        let controllers = Controller::ALL.into_iter().filter(is_enabled).collect();
        Some(Root { path: path.into(), controllers })
    }

    /// A root with these controllers, which is not looked at.
    #[cfg(any(test, feature = "testing"))]
    pub fn told(path: &str, controllers: &[Controller]) -> Root {
        Root { path: path.into(), controllers: controllers.into() }
    }

    /// Makes the controllers available to the groups of VMs.
    fn prepare(&mut self) -> io::Result<()> {
        let offered = fs::read_to_string(self.path.join(CONTROLLERS))?;
        let processes = fs::read_to_string(self.path.join(PROCESSES))?;
        if !processes.is_empty() {
            let rest = self.path.join(REST);
            make(&rest)?;
            for process in processes.lines() {
                // It may have ended since.
                let _ = fs::write(rest.join(PROCESSES), process);
            }
        }
        for controller in Controller::ALL {
            if offered.split_whitespace().any(|word| word == controller.as_str()) {
                fs::write(self.path.join(CHILDREN), format!("+{}", controller.as_str()))?;
                self.controllers.push(controller);
            }
        }
        Ok(())
    }

    /// The controllers, by their names.
    pub fn controllers(&self) -> impl Iterator<Item = &'static str> {
        self.controllers.iter().map(|controller| controller.as_str())
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The group of a VM.
    pub fn group(&self, name: &VmName) -> PathBuf {
        self.path.join(format!("{PREFIX}{name}"))
    }

    /// Ends the processes that are still in the group of a VM. A process that left its process
    /// group by setsid(2) is still in this one, and has the user of the VM.
    pub fn kill(&self, name: &VmName) {
        // Linux 5.14 and later have this file.
        let _ = fs::write(self.group(name).join("cgroup.kill"), "1");
    }

    /// Ends the processes that are still in the group of a VM, and removes it.
    pub fn remove(&self, name: &VmName) {
        self.kill(name);
        let _ = fs::remove_dir(self.group(name));
    }

    /// Removes the groups of VMs that have no process.
    pub fn sweep(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }

    /// Removes the root, if nothing is in it.
    pub fn end(&self) {
        self.sweep();
        let _ = fs::remove_dir(&self.path);
    }

    /// Whether the kernel has killed a process of a VM because memory ran out.
    pub fn lacked_memory(&self, name: &VmName) -> bool {
        let events = fs::read_to_string(self.group(name).join("memory.events"));
        let events = events.unwrap_or_default();
        let killed = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        killed.is_some_and(|count| count != "0")
    }

    /// What a VM has used since it was started; `None` if it has no group.
    pub fn usage(&self, name: &VmName) -> Option<Usage> {
        let group = self.group(name);
        let stat = fs::read_to_string(group.join("cpu.stat")).ok()?;
        let used = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        let memory = fs::read_to_string(group.join("memory.current")).ok();
        Some(Usage {
            cpu_us: used.parse().ok()?,
            memory: memory.and_then(|bytes| bytes.trim().parse().ok()),
        })
    }
}

impl Group {
    /// Makes it, with its limits. One that is there and empty is made anew, without the limits that
    /// it had.
    pub fn make(&self) -> Result<(), String> {
        let _ = fs::remove_dir(&self.path);
        let failed = |path: &Path, error| format!("cannot write {}: {error}", path.display());
        make(&self.path).map_err(|error| failed(&self.path, error))?;
        self.files.iter().try_for_each(|(name, text)| {
            let path = self.path.join(name);
            fs::write(&path, text).map_err(|error| failed(&path, error))
        })
    }
}

/// The group that a VM is to have. A limit that the host cannot keep is refused. `devices` finds
/// those that have its disks; it is called only if they have a limit.
pub fn plan(
    root: Option<&Root>,
    name: &VmName,
    budget: &Budget,
    devices: impl FnOnce() -> Result<Vec<String>, Refusal>,
) -> Result<Option<Group>, Refusal> {
    let refuse = |one, reason| Err(refusal(one, reason));
    let Some(root) = root else {
        return match budget.needs().next() {
            None => Ok(None),
            Some(one) => refuse(
                one,
                format!("there is no {DEFAULT}, and the setting `{FIELD}` names no control group"),
            ),
        };
    };
    if let Some(one) = budget.needs().find(|one| !root.controllers.contains(one)) {
        let path = root.path.display();
        return refuse(one, format!("{path} has no controller `{}`", one.as_str()));
    }
    let devices = match budget.io {
        None => Vec::new(),
        Some(_) => devices()?,
    };
    Ok(Some(Group { path: root.group(name), files: budget.files(&devices) }))
}

/// The devices that have the disks of a machine, each once, as `MAJOR:MINOR`. The disks are looked
/// at with the caller's rights.
pub fn devices(machine: &MachineSpec) -> Result<Vec<String>, Refusal> {
    let mut devices = Vec::new();
    for disk in &machine.disks {
        let path = &disk.file.path;
        let device = device(path)
            .map_err(|error| refusal(Controller::Io, format!("{}: {error}", path.display())))?;
        if !devices.contains(&device) {
            devices.push(device);
        }
    }
    match devices.is_empty() {
        true => Err(refusal(Controller::Io, "the VM has no disk".into())),
        false => Ok(devices),
    }
}

fn refusal(controller: Controller, reason: String) -> Refusal {
    Refusal::InvalidConfig { field: controller.field().into(), reason }
}

/// The whole device that has a file, or is it. The kernel limits no partition by itself.
fn device(path: &Path) -> io::Result<String> {
    let file = fs::metadata(path)?;
    // A device file has a number of its own.
    let number = if file.rdev() == 0 { file.dev() } else { file.rdev() };
    let (major, minor) = (major(number), minor(number));
    let shown = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    if !shown.exists() {
        let reason = format!("its file system ({major}:{minor}) is on no block device of its own");
        return Err(io::Error::other(reason));
    }
    if !shown.join("partition").exists() {
        return Ok(format!("{major}:{minor}"));
    }
    let whole = fs::read_to_string(fs::canonicalize(shown)?.join("../dev"))?;
    Ok(whole.trim().into())
}

/// makedev(3) of glibc and musl, the other way around.
fn major(device: u64) -> u64 {
    device >> 8 & 0xfff | device >> 32 & 0xffff_f000
}

fn minor(device: u64) -> u64 {
    device & 0xff | device >> 12 & 0xffff_ff00
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::budget::IoRates;

    #[test]
    fn a_limit_that_the_host_cannot_keep_is_refused_by_its_field() {
        let name = VmName::new("a").unwrap();
        let none = || devices(&MachineSpec::default());
        let field = |root: Option<&Root>, budget: Budget| match plan(root, &name, &budget, none) {
            Err(Refusal::InvalidConfig { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        let cpu = Budget { cpu_percent: Some(50), ..Budget::default() };
        let memory = Budget { memory_max_mb: Some(64), ..Budget::default() };
        let io = Budget { io: Some(IoRates::default()), ..Budget::default() };
        let some = Root::told("/r", &[Controller::Cpu, Controller::Io]);
        assert_eq!(field(None, cpu), "resources.cpu_percent");
        assert_eq!(field(Some(&some), memory), "resources.memory_max_mb");
        assert_eq!(field(Some(&some), io), "resources.io");
        assert_eq!(plan(None, &name, &Budget::default(), none), Ok(None));
        let files = vec![("cpu.max", "50000 100000".to_string())];
        let group = Group { path: "/r/vm-a".into(), files };
        assert_eq!(plan(Some(&some), &name, &cpu, none), Ok(Some(group)));
    }

    #[test]
    fn a_kill_for_want_of_memory_is_known() {
        let scratch = crate::store::tests::Scratch::new();
        let root = Root::told(scratch.path().to_str().unwrap(), &[Controller::Memory]);
        let name = VmName::new("a").unwrap();
        assert!(!root.lacked_memory(&name), "it has no group");
        fs::create_dir(root.group(&name)).unwrap();
        for (kills, lacked) in [("0", false), ("3", true)] {
            let events =
                format!("low 0\nhigh 0\nmax 9\noom 1\noom_kill {kills}\noom_group_kill 1\n");
            fs::write(root.group(&name).join("memory.events"), events).unwrap();
            assert_eq!(root.lacked_memory(&name), lacked);
        }
    }

    #[test]
    fn numbers_of_devices_are_read() {
        assert_eq!((major(0x801), minor(0x801)), (8, 1));
        assert_eq!((major(0x1_0301), minor(0x1_0301)), (259, 1));
    }
}
