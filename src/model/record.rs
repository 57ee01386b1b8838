//! What volnet knows: the networks of the host and a record of every VM.
//!
//! A [`Record`] is what is written to disk, one file a VM. It holds what was decided (names,
//! addresses) and what was asked for ([`VmSpec`]), never what can be observed. What a process is
//! lives beside it as a [`ProcessId`], because it means nothing after a reboot.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::model::expose::Expose;
use crate::model::limits::Limits;
use crate::model::mac::Mac;
use crate::model::mode::Mode;
use crate::model::name::{TapName, VmName};
use crate::model::spec::VmSpec;

/// The version of the record format that this binary writes. Older ones are read, newer refused.
pub const FORMAT: u32 = 1;

/// What stands in a VM's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`FORMAT`] of the binary that wrote it.
    pub format: u32,
    /// The VM's name, which is also the file's.
    pub name: VmName,
    /// What was asked for.
    pub spec: VmSpec,
    /// What the VM was given of the network; `None` in vsock mode.
    pub port: Option<Port>,
    /// The ports of the host that lead to the guest: those that were asked for, as they were
    /// changed since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<Expose>,
    /// What the guest may send beyond its network; `None`: as the network says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// How much the guest may receive and send, where its network does not say.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// vsock context id, 3 or more.
    pub cid: u32,
    /// Milliseconds since the epoch.
    pub created_at: u64,
    /// How often the hypervisor was restarted by policy since it was last started by request.
    pub restarts: u32,
    /// When the hypervisor was last started, milliseconds since the epoch.
    pub started_at: Option<u64>,
    /// How the hypervisor last ended.
    pub exit: Option<Exit>,
    /// Whether the administrator wants it to run: set by start, cleared by stop.
    pub wanted: bool,
}

/// A VM's place on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The network's name.
    pub network: String,
    /// The host link.
    pub tap: TapName,
    /// Index of the tap once it exists.
    pub ifindex: Option<u32>,
    /// The guest's address on the wire.
    pub mac: Mac,
    /// The address that the VM has for as long as it exists; `None` in dhcp mode.
    pub ip: Option<Ipv4Addr>,
    /// What the guest was given when it asked; `None` but in dhcp mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
}

/// An address that the built-in DHCP server lends to a guest. It is the guest's beyond its end, too,
/// until another one needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The address.
    pub ip: Ipv4Addr,
    /// When it ends, milliseconds since the epoch.
    pub until: u64,
    /// Whether the guest has it; else it was only offered.
    pub given: bool,
}

/// How a hypervisor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It ended by itself with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It was gone when volnet looked; nobody knows how it ended.
    Lost,
}

/// Which process it is: a pid alone is reused, these three together are not.
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

/// A change of one VM that starts a process: written before the first step, removed after the last.
/// One that is found when the daemon starts was cut short, and is completed or undone. Whatever else
/// is cut short shows in the kernel, by alias and by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// What was begun.
    pub action: Action,
    /// The VM as it is to be after it.
    pub record: Record,
}

/// What an [`Intent`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The VM is being made.
    Create,
    /// Its hypervisor is being started.
    Start,
}

/// What the host was before volnet changed it, so that teardown can put it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRecord {
    /// Whether IPv4 forwarding was on.
    pub forwarding_before: bool,
    /// The bridges that volnet made, by link name.
    pub bridges: Vec<String>,
}

impl Port {
    /// The address that the guest uses, as far as volnet knows it.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.ip.or(self.lease.filter(|lease| lease.given).map(|lease| lease.ip))
    }
}

impl Record {
    /// The VM's mode.
    pub fn mode(&self) -> Mode {
        self.spec.network.mode
    }
}

impl Exit {
    /// The status, if it ended by itself.
    pub fn code(self) -> Option<i32> {
        match self {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) | Exit::Lost => None,
        }
    }

    /// The signal, if one ended it.
    pub fn signal(self) -> Option<i32> {
        match self {
            Exit::Signal(signal) => Some(signal),
            Exit::Code(_) | Exit::Lost => None,
        }
    }
}

impl fmt::Display for Exit {
    /// As the predicate of a sentence: "ended with status 1".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "ended with status {code}"),
            Exit::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Exit::Lost => f.write_str("ended with an unknown status"),
        }
    }
}
