//! The types of the interface's replies and events.
//!
//! The names and meanings of fields are those of `io.volnet.varlink`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::model::attachment::Attachment;
use crate::model::budget::Budget;
use crate::model::expose::Expose;
use crate::model::inner::Inner;
use crate::model::limits::Limits;
use crate::model::mac::Mac;
use crate::model::mode::Mode;
use crate::model::name::{TapName, VmName};
use crate::model::net::Dhcp;
use crate::model::prefix::Prefix;
use crate::model::spec::Owner;

/// The status of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The network is ready, no hypervisor has been started yet, or it is starting.
    Created,
    /// The hypervisor runs its guest.
    Running,
    /// Its guest stands still until it is resumed.
    Paused,
    /// It was asked to stop, and has not ended yet.
    Stopping,
    /// It ended on request, or by itself with status 0.
    Stopped,
    /// It ended in any other way, or was gone when the daemon returned.
    Crashed,
}

/// A VM as the interface shows it. What is about its network is that of its first NIC, null where
/// its mode does not have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmView {
    pub name: VmName,
    pub mode: Mode,
    pub status: Status,
    /// Why it has lost its place on its networks.
    pub problem: Option<String>,
    pub network: Option<String>,
    pub tap: Option<TapName>,
    pub ifindex: Option<u32>,
    pub mac: Option<Mac>,
    pub ip: Option<Ipv4Addr>,
    pub netmask: Option<Ipv4Addr>,
    pub gateway: Option<Ipv4Addr>,
    /// [`crate::model::spec::NetworkSpec::addresses`].
    #[serde(default)]
    pub addresses: Vec<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
    /// What its guest believes instead, if that is something else.
    #[serde(default)]
    pub inner: Option<Box<Inner>>,
    /// [`crate::model::nic::Nic::claimed`].
    #[serde(default)]
    pub claimed: Vec<Ipv6Addr>,
    pub mtu: Option<u16>,
    pub policy: Option<String>,
    pub limits: Option<Box<Limits>>,
    pub expose: Vec<Expose>,
    /// All NICs, the first among them; none in vsock mode.
    pub nics: Box<[NicView]>,
    pub cid: u32,
    /// Whether the guest has vsock.
    #[serde(default)]
    pub vsock: bool,
    pub kernel_args: Box<str>,
    pub ephemeral: bool,
    /// Who runs its hypervisor, if volnet does not and somebody was named.
    #[serde(default)]
    pub owner: Option<Owner>,
    /// The namespace of others that has its network, if one has.
    #[serde(default)]
    pub attachment: Option<Box<Attachment>>,
    pub hypervisor: Option<String>,
    pub pid: Option<u32>,
    /// As whom its processes run, if that is not the user of all hypervisors.
    #[serde(default)]
    pub uid: Option<u32>,
    /// What they may use of the host, if that is limited.
    #[serde(default)]
    pub budget: Option<Box<Budget>>,
    pub kvm: Option<bool>,
    pub exit_code: Option<i32>,
    pub exit_signal: Option<i32>,
    #[serde(default)]
    pub last_error: Option<Box<str>>,
    pub restarts: u32,
    pub created_at: u64,
    pub started_at: Option<u64>,
}

/// A NIC of a VM as the interface shows it. Its fields have the names that the first NIC's have in
/// the VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicView {
    pub mode: Mode,
    pub network: String,
    pub tap: TapName,
    pub ifindex: Option<u32>,
    pub mac: Mac,
    /// Queue pairs of the tap.
    pub queues: u16,
    pub ip: Option<Ipv4Addr>,
    pub netmask: Option<Ipv4Addr>,
    pub gateway: Option<Ipv4Addr>,
    #[serde(default)]
    pub addresses: Vec<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
    #[serde(default)]
    pub inner: Option<Box<Inner>>,
    #[serde(default)]
    pub claimed: Vec<Ipv6Addr>,
    pub mtu: u16,
    pub policy: Option<String>,
    pub limits: Option<Box<Limits>>,
    pub expose: Vec<Expose>,
}

/// A network in a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    pub name: String,
    pub bridge: String,
    /// Null if its VMs have IPv6 alone.
    pub subnet: Option<Prefix>,
    pub host_ip: Option<Ipv4Addr>,
    pub subnet6: Option<Prefix<Ipv6Addr>>,
    pub host_ip6: Option<Ipv6Addr>,
    pub mtu: u16,
    pub nat: bool,
    pub dhcp: Dhcp,
    /// The name servers that its guests are told.
    pub name_servers: Vec<IpAddr>,
    /// The domain of the names of its VMs, if volnet answers for them.
    pub domain: Option<String>,
    /// The prefixes on other hosts that are routed to.
    #[serde(default)]
    pub peers: Vec<Prefix<IpAddr>>,
    /// Whether it is not of the settings: it was added while volnet runs.
    #[serde(default)]
    pub added: bool,
    /// Whether what the host translates is so between its guests, too.
    #[serde(default)]
    pub services: bool,
    pub leased: u32,
    pub free: u32,
    pub ports: u32,
    pub ports_free: u32,
}

/// What a VM has received, sent and used: the sum of its interfaces since their taps were made, and
/// of its processes since its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    pub name: VmName,
    pub status: Status,
    pub ip: Option<Ipv4Addr>,
    pub pid: Option<u32>,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    /// Packets that its policy denied.
    pub denied: u64,
    /// Packets that were more than it may receive.
    pub limited: u64,
    /// Packets that it did not read fast enough.
    pub unread: u64,
    /// Packets that were more than it may send.
    #[serde(default)]
    pub overrun: u64,
    /// Packets that were not from its own addresses.
    #[serde(default)]
    pub spoofed: u64,
    pub cpu_us: Option<u64>,
    pub memory_bytes: Option<u64>,
}

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It may cause trouble.
    Warning,
    /// VMs will not work.
    Error,
}

/// One finding about this host, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub check: String,
    pub level: Level,
    pub message: String,
    pub hint: Option<String>,
}

/// The way of one kind of packet of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceWay {
    /// The packet in words: protocol, addresses, port.
    pub packet: String,
    /// How many there were.
    pub packets: u64,
    /// What let them pass, first to last, and what was translated.
    pub steps: Vec<String>,
    pub end: TraceEnd,
    /// The end in words.
    pub message: String,
}

/// What became of a kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceEnd {
    /// A rule or a policy dropped it.
    Dropped,
    /// It was delivered, and answered.
    Answered,
    /// A router or the destination sent an error.
    Refused,
    /// It left, or came to the host, and nothing came back.
    Unanswered,
    /// It went nowhere, and no rule says why.
    Lost,
}

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    VmCreated,
    VmStarted,
    VmPaused,
    VmResumed,
    /// A snapshot of its guest was taken.
    VmSaved,
    VmStopping,
    VmExited,
    VmDeleted,
    VmAdopted,
    /// It was started without the KVM that it would use.
    VmSlow,
    /// The guest was given an address by the built-in DHCP server.
    LeaseGiven,
    /// The guest released the address, or the lease had ended and another VM needed it.
    LeaseEnded,
    /// Exposed ports, policy or limits of the VM were changed.
    VmChanged,
    /// A network was added while volnet runs.
    NetworkAdded,
    /// Such a network was removed: somebody said so, or nobody has used it for a while.
    NetworkRemoved,
    Drift,
    Repaired,
    Resync,
    /// Two machines use one address.
    AddressConflict,
    /// The guest asks for its address again and again.
    DhcpRepeated,
    /// The policy of the VM denies a flood of packets.
    DeniedFlood,
    /// A limit of the VM has dropped packets for minutes.
    LimitDrops,
}

/// A notice to subscribers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// A number that grows by one with each event.
    pub sequence: u64,
    /// Milliseconds since the epoch.
    pub at: u64,
    pub kind: EventKind,
    pub vm: Option<VmName>,
    pub message: String,
    /// The process that made the change, if the kernel names it.
    pub by_pid: Option<u32>,
    pub by_name: Option<String>,
}

impl Status {
    /// Every status, in the order of a VM's life.
    pub const ALL: [Status; 6] = [
        Status::Created,
        Status::Running,
        Status::Paused,
        Status::Stopping,
        Status::Stopped,
        Status::Crashed,
    ];

    /// The status as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopping => "stopping",
            Status::Stopped => "stopped",
            Status::Crashed => "crashed",
        }
    }
}

impl EventKind {
    /// The kind as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::VmCreated => "vm_created",
            EventKind::VmStarted => "vm_started",
            EventKind::VmPaused => "vm_paused",
            EventKind::VmResumed => "vm_resumed",
            EventKind::VmSaved => "vm_saved",
            EventKind::VmStopping => "vm_stopping",
            EventKind::VmExited => "vm_exited",
            EventKind::VmDeleted => "vm_deleted",
            EventKind::VmAdopted => "vm_adopted",
            EventKind::VmSlow => "vm_slow",
            EventKind::LeaseGiven => "lease_given",
            EventKind::LeaseEnded => "lease_ended",
            EventKind::VmChanged => "vm_changed",
            EventKind::NetworkAdded => "network_added",
            EventKind::NetworkRemoved => "network_removed",
            EventKind::Drift => "drift",
            EventKind::Repaired => "repaired",
            EventKind::Resync => "resync",
            EventKind::AddressConflict => "address_conflict",
            EventKind::DhcpRepeated => "dhcp_repeated",
            EventKind::DeniedFlood => "denied_flood",
            EventKind::LimitDrops => "limit_drops",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
