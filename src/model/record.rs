//! The record of every VM and of the host.
//!
//! A [`Record`] is written to disk, one file per VM. It has the decisions (names, addresses) and
//! the request ([`VmSpec`]), but nothing that can be observed. The process of a VM is a
//! [`ProcessId`] in a file of its own, because it means nothing after a reboot.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::expose::{Expose, HostPort};
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::nic::Nic;
use crate::model::run_as::VmUser;
use crate::model::spec::{NetworkSpec, VmSpec};

/// The version of the record format that this binary writes. Older ones are read, newer refused.
pub const FORMAT: u32 = 4;

/// The signal by which the kernel ends who has too little memory (signal(7)).
const SIGKILL: i32 = 9;

/// The most bytes of [`Record::last_error`]: a sentence, and the end of a log.
pub const LAST_ERROR_BYTES_MAX: usize = 4096;

/// The content of a VM's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`FORMAT`] of the binary that wrote it.
    pub format: u32,
    /// The VM's name, and the file's name.
    pub name: VmName,
    /// The request.
    pub spec: VmSpec,
    /// Its interfaces, in the order of the networks that it asked for; none in vsock mode.
    pub nics: Vec<Nic>,
    /// vsock context id, 3 or more.
    pub cid: u32,
    /// As whom its processes run, if that is not the user of all hypervisors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<VmUser>,
    /// Milliseconds since the epoch.
    pub created_at: u64,
    /// How often the hypervisor was restarted by policy since it was last started by request.
    pub restarts: u32,
    /// When the hypervisor was last started, milliseconds since the epoch; `None`: it was not, or
    /// its guest was to wake from a snapshot and never did.
    pub started_at: Option<u64>,
    /// Whether it was then to use KVM; `None`: it was not started, or volnet does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kvm: Option<bool>,
    /// How the hypervisor last ended.
    pub exit: Option<Exit>,
    /// Why the VM does not run although it should: the last start failed, or the hypervisor ended
    /// by itself. At most [`LAST_ERROR_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Box<str>>,
    /// Whether the VM should run: start sets it, and stop clears it.
    pub wanted: bool,
    /// The boot of the host that the ends of its leases count from.
    #[serde(default)]
    pub boot: BootId,
}

/// A boot of a host: `/proc/sys/kernel/random/boot_id`, which differs for each. The default is none
/// that ever was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootId(u128);

/// How a hypervisor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It ended by itself with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Its guest panicked, and it ended for that.
    Panicked,
    /// The kernel killed it because memory ran out, that of its control group or the host's.
    OutOfMemory,
    /// It was gone when volnet looked. Its status is unknown.
    Lost,
}

/// How far the start of a hypervisor is, as its control socket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It does not serve its socket yet, or its guest does not run yet.
    Starting,
    /// Its guest runs.
    Running,
    /// Its guest stands still, and goes on if it is told to.
    Paused,
    /// It has no control socket that volnet knows.
    Untold,
}

/// What a hypervisor is asked to do with its guest, on its control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Have it power off.
    PowerOff,
    /// Let it go on, because it is paused, and have it power off.
    WakeAndPowerOff,
    /// Let it stand still.
    Pause,
    /// Let it go on.
    Resume,
    /// Give up the snapshot that is being taken of it, and let it go on.
    GiveUpSnapshot,
}

/// What a hypervisor has said about the end of its guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestEnd {
    /// The guest has ended. The hypervisor itself may go on, as if the guest had not.
    pub over: bool,
    /// The guest is off. The hypervisor is about to end, unless somebody has ended only the guest
    /// on its API.
    pub off: bool,
    /// The guest's kernel has panicked.
    pub panicked: bool,
    /// The hypervisor was told to end by a signal.
    pub signalled: bool,
}

/// What a hypervisor has said of its guest without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Of its end, since the hypervisor was started.
    pub end: GuestEnd,
    /// Of its motion, last. `None`: nothing, or it has to be heard first why the guest was stopped.
    pub motion: Option<Motion>,
    /// How often it was stopped. So one that goes on and is stopped again at once is told from one
    /// that stands still.
    pub stops: u32,
    /// There is more to hear.
    pub more: bool,
}

/// Whether a guest goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// It does.
    Goes,
    /// Somebody has paused it.
    Paused,
    /// Its hypervisor has stopped it by itself.
    Halted(Halt),
}

/// Why a hypervisor stops its guest by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// A disk could not be read or written. It goes on when it is told to, and tries again.
    Disk {
        /// Which one of the machine's, if it is one of these.
        index: Option<usize>,
        /// The host had no room to write.
        full: bool,
    },
    /// Its processor is in a state that the hypervisor cannot go on with.
    Broken,
    /// Its watchdog has run out.
    Watchdog,
}

/// The identity of a process. A pid can be reused, but these three together cannot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// The process id.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`: clock ticks from boot to its start (proc(5)).
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id` when it was started.
    pub boot_id: String,
}

/// A change of one VM that starts a process, or that has its guest stand still. It is written
/// before the first step and removed after the last. If the daemon finds one when it starts, the
/// change was cut short, and the daemon completes or undoes it. Other changes that are cut short
/// show in the kernel, by alias and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The kind of change.
    pub action: Action,
    /// The VM after the change.
    pub record: Record,
}

/// The kind of an [`Intent`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The VM is being made.
    Create,
    /// Its hypervisor is being started.
    Start,
    /// A snapshot of its guest is being taken, in this folder until it is whole.
    Snapshot {
        /// The folder.
        part: PathBuf,
        /// Whether the guest was paused before, and stays so.
        #[serde(default)]
        stays_paused: bool,
    },
}

/// The former state of the host. Teardown restores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRecord {
    /// Whether IPv4 forwarding was on.
    pub forwarding_before: bool,
    /// Whether IPv6 forwarding was on. `None`: volnet has not switched it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding6_before: Option<bool>,
    /// The links that accepted router advertisements while the host did not forward IPv6, and do
    /// now although it does.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub accepted: BTreeSet<String>,
    /// The bridges that volnet made, by link name.
    pub bridges: Vec<String>,
    /// The directory of the durable records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<DirectoryId>,
}

/// A directory, whatever its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryId {
    /// The device that has its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

impl GuestEnd {
    /// The guest has reset itself.
    pub const RESET: GuestEnd =
        GuestEnd { over: true, off: false, panicked: false, signalled: false };
    /// It has panicked, and that was its end.
    pub const PANIC: GuestEnd = GuestEnd { panicked: true, ..GuestEnd::RESET };
    /// It is off.
    pub const OFF: GuestEnd = GuestEnd { over: false, off: true, ..GuestEnd::RESET };

    /// Adds what was said later.
    pub fn add(&mut self, later: GuestEnd) {
        self.over |= later.over;
        self.off |= later.off;
        self.panicked |= later.panicked;
        self.signalled |= later.signalled;
    }
}

impl Record {
    /// The VM's mode.
    pub fn mode(&self) -> Mode {
        self.spec.networks.first().map_or(Mode::default(), |network| network.mode)
    }

    /// The interfaces, each with what was asked for.
    pub fn interfaces(&self) -> impl Iterator<Item = (&Nic, &NetworkSpec)> {
        self.nics.iter().zip(&self.spec.networks)
    }

    /// The user that only this VM has.
    pub fn own_uid(&self) -> Option<u32> {
        self.user.filter(|user| user.own).map(|user| user.uid)
    }

    /// The same as [`Record::exposed`], at addresses of the families that the guest has.
    pub fn host_ports(&self) -> impl Iterator<Item = HostPort> {
        self.interfaces()
            .flat_map(|(nic, spec)| nic.exposed.iter().map(|port| nic.host_port(spec, port)))
    }

    /// The folder of the snapshot that its next start wakes its guest from. Once the guest has
    /// woken, starts boot it, because it has written to its disks since.
    pub fn wakes_from(&self) -> Option<&Path> {
        let from = self.spec.machine.as_ref()?.from.as_deref();
        from.filter(|_| self.started_at.is_none())
    }

    /// All ports of the host that lead to the guest.
    pub fn exposed(&self) -> impl Iterator<Item = &Expose> + Clone {
        self.nics.iter().flat_map(|nic| &nic.exposed)
    }
}

impl FromStr for BootId {
    type Err = String;

    /// Reads a UUID (RFC 9562).
    fn from_str(text: &str) -> Result<BootId, String> {
        let digits = text.trim_ascii_end().replace('-', "");
        let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
        number.map(BootId).ok_or_else(|| format!("{text:?} is not the id of a boot"))
    }
}

impl TryFrom<String> for BootId {
    type Error = String;

    fn try_from(text: String) -> Result<BootId, String> {
        text.parse()
    }
}

impl From<BootId> for String {
    fn from(BootId(number): BootId) -> String {
        let digits = format!("{number:032x}");
        let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        parts.join("-")
    }
}

impl Exit {
    /// The status, if it ended by itself.
    pub fn code(self) -> Option<i32> {
        match self {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) | Exit::Panicked | Exit::OutOfMemory | Exit::Lost => None,
        }
    }

    /// The signal, if one ended it.
    pub fn signal(self) -> Option<i32> {
        match self {
            Exit::Signal(signal) => Some(signal),
            Exit::OutOfMemory => Some(SIGKILL),
            Exit::Code(_) | Exit::Panicked | Exit::Lost => None,
        }
    }
}

impl fmt::Display for Exit {
    /// As the predicate of a sentence: "ended with status 1".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "ended with status {code}"),
            Exit::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Exit::OutOfMemory => f.write_str("was killed because it had too little memory"),
            Exit::Panicked => f.write_str("ended because its guest panicked"),
            Exit::Lost => f.write_str("ended with an unknown status"),
        }
    }
}
