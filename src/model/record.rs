//! What volnet knows: the networks of the host and a record of every VM.
//!
//! A [`Record`] is what is written to disk, one file a VM. It holds what was decided (names,
//! addresses) and what was asked for ([`VmSpec`]), never what can be observed. What a process is
//! lives beside it as a [`ProcessId`], because it means nothing after a reboot.

use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::engine::expose::{Expose, Protocol};
use crate::engine::limits::Limits;
use crate::model::mac::Mac;
use crate::model::mode::Mode;
use crate::model::name::{TapName, VmName};
use crate::model::prefix::Prefix;
use crate::spec::VmSpec;

/// The version of the record format that this binary writes. Older ones are read, newer refused.
pub const FORMAT: u32 = 1;

/// One network of the host: a bridge, its prefix and how it is joined to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Its name in requests and replies.
    pub name: String,
    /// The network that it is a part of, by name: its own where it is all of one.
    pub whole: String,
    /// The bridge link, at most 15 bytes.
    pub bridge: String,
    /// The prefix that leases come from.
    pub subnet: Prefix,
    /// The host's own address on the bridge: the guests' gateway.
    pub host_ip: Ipv4Addr,
    /// MTU of the bridge and, unless a VM asks for another, of its taps, in bytes.
    pub mtu: u16,
    /// Whether traffic that leaves the prefix is masqueraded.
    pub nat: bool,
    /// Whether VMs on it are kept from each other unless they say otherwise.
    pub isolated: bool,
    /// What its guests may send beyond it, by the name of a policy, unless they say otherwise.
    pub policy: String,
    /// How much its guests may receive and send unless they say otherwise.
    pub limits: Limits,
    /// Who answers guests that ask for an address.
    pub dhcp: Dhcp,
    /// Whether VMs on it are held to their own addresses unless they say otherwise.
    pub antispoof: bool,
    /// Whether VMs on it may speak IPv6.
    pub ipv6: bool,
    /// What the host answers to VMs on it.
    pub host_services: Vec<Service>,
    /// The bridge's MAC, pinned so that it does not follow the lowest port.
    pub mac: Mac,
}

/// Something that the host answers to its guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Echo requests.
    Ping,
    /// A port, 1 to 65535.
    Port(Protocol, u16),
}

/// Who answers the guests of a network that ask for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dhcp {
    /// volnet, from the network's pool.
    Builtin,
    /// A server that others run on the bridge or behind its uplink.
    External,
    /// Nobody: there are no VMs in dhcp mode on the network.
    Off,
}

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

impl Dhcp {
    /// The word as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Dhcp::Builtin => "builtin",
            Dhcp::External => "external",
            Dhcp::Off => "off",
        }
    }
}

impl FromStr for Dhcp {
    type Err = String;

    fn from_str(text: &str) -> Result<Dhcp, String> {
        [Dhcp::Builtin, Dhcp::External, Dhcp::Off]
            .into_iter()
            .find(|dhcp| text == dhcp.as_str())
            .ok_or_else(|| format!("{text:?} is none of builtin, external and off"))
    }
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
