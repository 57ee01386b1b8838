//! The two kinds of error.
//!
//! A [`Refusal`] is the caller's fault: the request breaks a rule, nothing was changed, and the
//! error has a name of the interface. A [`Failure`] comes from the world: the kernel, the disk or a
//! hypervisor refused a step that volnet had the right to try. They are different types, because
//! the reader must do different things: mend the request, or mend the host.

use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;

use crate::model::expose::Protocol;
use crate::model::prefix::Prefix;
use crate::model::view::Status;

/// A request that breaks a rule. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A VM of that name exists and was made with other arguments.
    VmExists { name: String },
    /// There is such an attachment already.
    AttachmentExists { container: String, ifname: String },
    /// There is no such attachment.
    AttachmentNotFound { container: String, ifname: String },
    /// There is a network of that name with other values.
    NetworkExists { name: String },
    /// No network that was added has that name.
    NetworkNotFound { name: String },
    /// The network is that of `vms` VMs.
    NetworkInUse { name: String, vms: usize },
    /// No VM has that name.
    VmNotFound { name: String },
    /// Teardown is not possible while `count` VMs exist.
    VmsExist { count: usize },
    /// A VM cannot have this name.
    InvalidName { name: String, reason: String },
    /// The manifest is wrong at `field` (a path such as `network.mode`).
    InvalidManifest { field: String, reason: String },
    /// The per-VM configuration, or a setting, is wrong at `field`.
    InvalidConfig { field: String, reason: String },
    /// Every address of the network's pool is leased.
    NoFreeAddress { network: String, subnet: Prefix },
    /// The requested address belongs to `owner`.
    AddressInUse { ip: IpAddr, owner: String },
    /// The port of the host leads to `owner`.
    PortInUse { protocol: Protocol, port: u16, owner: String },
    /// The bridge has as many ports as the kernel allows.
    BridgeFull { bridge: String, limit: usize },
    /// The tap exists, and another process holds it: `pid`, if it is known.
    TapBusy { tap: String, pid: Option<u32> },
    /// The VM has the wrong status for this request.
    WrongState { name: String, status: Status, wanted: &'static str },
    /// There is something where the snapshot is to be.
    SnapshotExists { path: String },
    /// There is no snapshot at this path that this volnet can read.
    InvalidSnapshot { path: String, reason: String },
    /// This host, or the VM that is to wake, lacks what the snapshot needs: `needs` is one word.
    SnapshotMismatch { path: String, needs: &'static str, reason: String },
    /// The caller may not call this method.
    PermissionDenied { reason: String },
}

/// The world refused a step. The steps before it were undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A kernel call failed: what volnet did, to what, what is known of it, the number of the error
    /// (errno(3); 0 where there is none) and the kernel's own words.
    Kernel {
        operation: &'static str,
        object: String,
        outcome: KernelOutcome,
        errno: i32,
        message: String,
    },
    /// A file of the state could not be written or read; `reason` says which.
    State { path: String, reason: String },
    /// The hypervisor could not be started; `log` holds the last lines that it wrote.
    Hypervisor { name: String, reason: String, log: Option<String> },
}

/// What is known of a kernel call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelOutcome {
    /// It was refused, and so not done.
    Refused(Reason),
    /// It was asked for and the answer did not come, or made no sense: it may have been done.
    Unknown,
}

/// Why the kernel refused something. Whoever speaks with a kernel makes this of its numbers;
/// nothing else knows these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Rights are missing, or somebody else owns it.
    Denied,
    /// There is no such object.
    Missing,
    /// There is no such link.
    NoLink,
    /// There is one already.
    Exists,
    /// Somebody uses it.
    Busy,
    /// There is no room for one more.
    Full,
    /// The kernel takes no such value.
    Invalid,
    /// The value is too long or too short.
    OutOfRange,
    /// It would lead in a circle.
    Loop,
    /// This kernel cannot do it, or not with this object.
    Unsupported,
    /// Anything else.
    Other,
}

/// Either kind of error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The caller's fault; nothing was changed.
    Refused(Refusal),
    /// The world's fault; all steps were undone.
    Failed(Failure),
}

impl Failure {
    /// Something that was refused, in the words of the error alone.
    pub fn kernel(
        operation: &'static str,
        object: impl Into<String>,
        error: &std::io::Error,
    ) -> Self {
        Failure::refused(operation, object, Reason::of(error.kind()), error)
    }

    /// As [`Failure::kernel`], for a reason that is known better.
    pub fn refused(
        operation: &'static str,
        object: impl Into<String>,
        reason: Reason,
        error: &std::io::Error,
    ) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        let mut message = error.to_string();
        if let Some(words) = message.strip_suffix(&format!(" (os error {errno})")) {
            message.truncate(words.len());
        }
        let (object, outcome) = (object.into(), KernelOutcome::Refused(reason));
        Failure::Kernel { operation, object, outcome, errno, message }
    }

    /// What a kernel failure is about: the name of a link, in most cases.
    pub fn object(&self) -> Option<&str> {
        match self {
            Failure::Kernel { object, .. } => Some(object),
            Failure::State { .. } | Failure::Hypervisor { .. } => None,
        }
    }

    /// What is known of a kernel call.
    pub fn outcome(&self) -> Option<KernelOutcome> {
        match self {
            Failure::Kernel { outcome, .. } => Some(*outcome),
            Failure::State { .. } | Failure::Hypervisor { .. } => None,
        }
    }

    /// Why the kernel refused something; `None` of any other failure.
    pub fn reason(&self) -> Option<Reason> {
        match self.outcome() {
            Some(KernelOutcome::Refused(reason)) => Some(reason),
            Some(KernelOutcome::Unknown) | None => None,
        }
    }
}

impl Reason {
    /// What a kind of error of the standard library means.
    pub fn of(kind: ErrorKind) -> Reason {
        match kind {
            ErrorKind::PermissionDenied => Reason::Denied,
            ErrorKind::NotFound => Reason::Missing,
            ErrorKind::AlreadyExists => Reason::Exists,
            ErrorKind::ResourceBusy => Reason::Busy,
            ErrorKind::InvalidInput => Reason::Invalid,
            ErrorKind::Unsupported => Reason::Unsupported,
            _ => Reason::Other,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::Refused(refusal)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Error::Failed(failure)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::VmExists { name } => {
                write!(f, "VM {name} exists and was made with other arguments")
            }
            Refusal::VmNotFound { name } => write!(f, "there is no VM {name}"),
            Refusal::AttachmentExists { container, ifname } => {
                write!(f, "{ifname} of container {container} is attached already")
            }
            Refusal::AttachmentNotFound { container, ifname } => {
                write!(f, "{ifname} of container {container} is not attached")
            }
            Refusal::NetworkExists { name } => {
                write!(f, "there is a network {name} with other values")
            }
            Refusal::NetworkNotFound { name } => {
                write!(f, "no network {name} was added while volnet runs")
            }
            Refusal::NetworkInUse { name, vms } => {
                let vms = if *vms == 1 { "a VM".into() } else { format!("{vms} VMs") };
                write!(f, "network {name} is that of {vms}")
            }
            Refusal::VmsExist { count } => {
                let (vms, them) =
                    if *count == 1 { ("VM exists", "it") } else { ("VMs exist", "them") };
                write!(f, "{count} {vms}; delete {them} first, or use force")
            }
            Refusal::InvalidName { name, reason } => write!(f, "invalid name {name:?}: {reason}"),
            Refusal::InvalidManifest { field, reason } => write!(f, "manifest: {field}: {reason}"),
            Refusal::InvalidConfig { field, reason } => write!(f, "config: {field}: {reason}"),
            Refusal::NoFreeAddress { network, subnet } => {
                write!(f, "network {network}: no free address in {subnet}")
            }
            Refusal::AddressInUse { ip, owner } => write!(f, "address {ip} belongs to {owner}"),
            Refusal::PortInUse { protocol, port, owner } => {
                write!(f, "{protocol} port {port} of the host belongs to {owner}")
            }
            Refusal::BridgeFull { bridge, limit } => {
                write!(f, "bridge {bridge} has all of its {limit} ports in use")
            }
            Refusal::TapBusy { tap, pid: Some(pid) } => {
                write!(f, "tap {tap} is held by process {pid}")
            }
            Refusal::TapBusy { tap, pid: None } => {
                write!(f, "link {tap} exists and does not belong to this VM")
            }
            Refusal::WrongState { name, status, wanted } => {
                write!(f, "VM {name} is {status}, not {wanted}")
            }
            Refusal::SnapshotExists { path } => write!(f, "{path} exists"),
            Refusal::InvalidSnapshot { path, reason } => write!(f, "snapshot {path}: {reason}"),
            Refusal::SnapshotMismatch { path, needs, reason } => {
                write!(f, "snapshot {path}: {needs}: {reason}")
            }
            Refusal::PermissionDenied { reason } => f.write_str(reason),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Kernel { operation, object, errno: 0, message, .. } => {
                write!(f, "{operation} {object}: {message}")
            }
            Failure::Kernel { operation, object, errno, message, .. } => {
                write!(f, "{operation} {object}: {message} (errno {errno})")
            }
            Failure::State { path, reason } => write!(f, "{path}: {reason}"),
            Failure::Hypervisor { name, reason, log: None } => {
                write!(f, "hypervisor of {name}: {reason}")
            }
            Failure::Hypervisor { name, reason, log: Some(log) } => {
                write!(f, "hypervisor of {name}: {reason}\n{log}")
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(refusal) => refusal.fmt(f),
            Error::Failed(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}
impl std::error::Error for Failure {}
impl std::error::Error for Error {}
