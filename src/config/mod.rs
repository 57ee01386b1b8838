//! Settings: flags over environment over `/etc/volnet/config.json` over defaults.
//!
//! [`resolve`] is pure: it makes [`Settings`] from the three places. [`read`] fetches them first.
//! Volant's environment is read, too; it ranks below volnet's own and above the file. If a setting
//! is wrong, the refusal has the name under which it was written: a flag, a variable, or a path in
//! the file.
//!
//! Flags and variables describe the usual host, which has one network. More networks, and
//! hypervisors that volnet does not know, need the file. `fuzz` has the bodies of the fuzz
//! targets.

#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod hypervisors;
mod network;
mod policies;
mod source;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::hypervisor::machine::MachineDefaults;
use crate::hypervisor::{Options, RUNTIME_DIR_BYTES_MAX, SOCKET_PATH_BYTES_MAX};
use crate::model::error::Refusal;
use crate::model::expose::{PORTS_DEFAULT, Ports};
use crate::model::net::NetworkConfig;
use crate::model::policy::Policy;
use crate::model::run_as::{RunAs, UIDS_DEFAULT};
use crate::spec::PATH_BYTES_MAX;

pub use hypervisors::{HYPERVISORS_MAX, TEMPLATE_ARGS_MAX};
pub use network::{
    NETWORKS_MAX, PEERS_MAX, PREFIX_LENGTH_MAX, PREFIX_LENGTH_MIN, SERVICES_MAX, added,
};
pub use source::{Flags, Key};

use source::{Found, Sources};

/// The default configuration file. It may be missing.
pub const FILE_DEFAULT: &str = "/etc/volnet/config.json";
/// The largest configuration file in bytes.
pub const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The path of the file itself, which cannot be set in the file.
const CONFIG_FILE: Key = Key::new("", Some("config-file"), "VOLNET_CONFIG", None);
const SOCKET: Key = Key::new("socket", Some("socket"), "VOLNET_SOCKET", None);
const STATE_DIR: Key = Key::new("state_dir", Some("state-dir"), "VOLNET_STATE_DIR", None);
const RUNTIME_DIR: Key =
    Key::new("runtime_dir", Some("runtime-dir"), "VOLNET_RUNTIME_DIR", Some("VOLANT_RUNTIME_DIR"));
const LOG_DIR: Key = Key::new("log_dir", Some("log-dir"), "VOLNET_LOG_DIR", Some("VOLANT_LOG_DIR"));
const BACKEND: Key = Key::new("backend", Some("backend"), "VOLNET_BACKEND", None);
const NFT_OWNER: Key = Key::new("nft_owner", Some("nft-owner"), "VOLNET_NFT_OWNER", None);
const POOL: Key = Key::new("pool", None, "VOLNET_POOL", None);
const LOG_FORMAT: Key = Key::new("log_format", Some("log-format"), "VOLNET_LOG_FORMAT", None);
const LOG_MB: Key = Key::new("log_mb", None, "VOLNET_LOG_MB", None);
const EXPOSE_PORTS: Key = Key::new("expose_ports", None, "VOLNET_EXPOSE_PORTS", None);
const HYPERVISOR_USER: Key = Key::new("hypervisor_user", None, "VOLNET_HYPERVISOR_USER", None);
const RUN_AS: Key = Key::new("run_as", None, "VOLNET_RUN_AS", None);
const VM_UIDS: Key = Key::new("vm_uids", None, "VOLNET_VM_UIDS", None);
const CGROUP: Key = Key::new("cgroup", None, "VOLNET_CGROUP", None);
const METRICS: Key = Key::new("metrics", None, "VOLNET_METRICS", None);
const KVM: Key = Key::new("kvm", Some("kvm"), "VOLNET_KVM", None);
const KERNEL_BZIMAGE: Key =
    Key::new("kernel_bzimage", None, "VOLNET_KERNEL_BZIMAGE", Some("VOLANT_KERNEL_BZIMAGE"));
const KERNEL_VMLINUX: Key =
    Key::new("kernel_vmlinux", None, "VOLNET_KERNEL_VMLINUX", Some("VOLANT_KERNEL_VMLINUX"));

/// The most taps that are made ahead: a quarter of the ports of a bridge.
const POOL_MAX: usize = 256;

/// The bound of the log of a VM in MiB, and the most that it can be.
const LOG_MB_DEFAULT: usize = 8;
const LOG_MB_MAX: usize = 4096;

/// The settings that a client needs to find the daemon and its files.
pub const CLIENT_KEYS: [Key; 4] = [CONFIG_FILE, SOCKET, RUNTIME_DIR, LOG_DIR];
/// Every setting that has a flag.
pub const KEYS: [Key; 12] = [
    CONFIG_FILE,
    SOCKET,
    STATE_DIR,
    RUNTIME_DIR,
    LOG_DIR,
    BACKEND,
    NFT_OWNER,
    KVM,
    LOG_FORMAT,
    network::BRIDGE,
    network::SUBNET,
    network::HOST_IP,
];

/// The settings that have a variable and no flag.
pub const WITHOUT_FLAG: [Key; 12] = [
    POOL,
    LOG_MB,
    METRICS,
    HYPERVISOR_USER,
    RUN_AS,
    VM_UIDS,
    CGROUP,
    KERNEL_BZIMAGE,
    KERNEL_VMLINUX,
    EXPOSE_PORTS,
    hypervisors::HYPERVISOR,
    hypervisors::NET_IP_MASK,
];

/// The settings of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The socket of the daemon.
    pub socket: PathBuf,
    /// The directory of durable records.
    pub state_dir: PathBuf,
    /// The directory of files that a reboot removes.
    pub runtime_dir: PathBuf,
    /// The directory of hypervisor logs.
    pub log_dir: PathBuf,
    /// The bound of the log of a VM, in bytes.
    pub log_bound: u64,
    /// How the daemon logs; `None`: as standard error is read.
    pub log_format: Option<LogFormat>,
    /// The identifier of this host that the Ethernet addresses of the bridges are derived from.
    pub machine_id: String,
    /// The networks. The first is the default.
    pub networks: Vec<NetworkConfig>,
    /// The policies of the settings, in addition to the built-in ones.
    pub policies: Vec<Policy>,
    /// Whether nf_tables keeps others from changing volnet's tables, if the kernel can do this.
    pub nft_owner: bool,
    /// How many taps are made ahead. The default is none, because other programs see these links,
    /// too.
    pub pool: usize,
    /// The ports of the host that are given to VMs that ask for any.
    pub expose_ports: Ports,
    /// Whether hypervisors may use KVM if the host has it. On a host that is itself a VM, KVM can
    /// be slower than emulation.
    pub kvm: bool,
    /// The backend that runs plans.
    pub backend: Backend,
    /// The defaults for the machine of a VM.
    pub machine: MachineDefaults,
    /// How each hypervisor is run.
    pub hypervisors: Options,
    /// The user of the hypervisors, by name or number; `None`: see
    /// [`crate::hypervisor::user::DEFAULT`].
    pub hypervisor_user: Option<String>,
    /// As whom a VM runs that says nothing of it: [`RunAs::Shared`] or [`RunAs::Own`].
    pub run_as: RunAs,
    /// The control group that those of VMs are in; `None`: see
    /// [`crate::hypervisor::cgroup::DEFAULT`].
    pub cgroup: Option<PathBuf>,
    /// The users that VMs have for themselves.
    pub vm_uids: RangeInclusive<u32>,
    /// Where scrapers find the metrics; `None`: nowhere.
    pub metrics: Option<MetricsAt>,
}

/// How a line of the daemon's log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: its level and its module come first.
    Text,
    /// For the journal: its priority comes first (sd-daemon(3)).
    Journal,
}

/// Where metrics are served by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAt {
    /// At this address and TCP port.
    Tcp(SocketAddr),
    /// At a Unix socket of this path.
    Unix(PathBuf),
}

/// The backend that runs plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The kernel.
    Linux,
    /// Nothing: every plan succeeds and changes nothing.
    Noop,
}

/// Makes settings from the three places. `file` is the text of the configuration file. `machine`
/// identifies this host: the Ethernet addresses of the bridges are derived from it.
pub fn resolve(
    flags: &Flags,
    environment: &BTreeMap<String, String>,
    file: Option<&str>,
    machine: &str,
) -> Result<Settings, Refusal> {
    let document = source::parse(file)?;
    let sources = Sources::new(flags, environment, &document)?;
    let runtime_dir = runtime_dir(&sources)?;
    let state_dir = path(&sources, &STATE_DIR, "/var/lib/volnet")?;
    if state_dir == runtime_dir {
        let reason =
            "it is the runtime directory, which does not survive a reboot of the host".into();
        return Err(Refusal::InvalidConfig { field: "state_dir".into(), reason });
    }
    let networks = network::resolve(&sources, machine)?;
    Ok(Settings {
        socket: socket(&sources, &runtime_dir)?,
        state_dir,
        log_dir: path(&sources, &LOG_DIR, "/var/log/volnet")?,
        log_bound: log_bound(&sources)?,
        log_format: log_format(&sources)?,
        policies: policies::resolve(&sources, &networks)?,
        machine_id: machine.into(),
        networks,
        nft_owner: sources.switch(&NFT_OWNER)?.unwrap_or(true),
        pool: sources.number(&POOL, POOL_MAX)?.unwrap_or(0),
        expose_ports: expose_ports(&sources)?,
        kvm: sources.switch(&KVM)?.unwrap_or(true),
        backend: backend(&sources)?,
        machine: MachineDefaults {
            hypervisor: hypervisors::default(&sources)?,
            kernel_bzimage: optional_path(&sources, &KERNEL_BZIMAGE)?,
            kernel_vmlinux: optional_path(&sources, &KERNEL_VMLINUX)?,
        },
        hypervisors: hypervisors::options(&sources)?,
        hypervisor_user: sources.text(&HYPERVISOR_USER)?.map(|found| found.text),
        run_as: run_as(&sources)?,
        vm_uids: vm_uids(&sources)?,
        cgroup: optional_path(&sources, &CGROUP)?,
        metrics: metrics(&sources)?,
        runtime_dir,
    })
}

/// Reads the environment and the file, and resolves them with the flags.
pub fn read(flags: &Flags) -> Result<Settings, Refusal> {
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("VOL") || name == "HOME")
        .collect();
    let named = Sources::new(flags, &environment, &source::parse(None)?)?.text(&CONFIG_FILE)?;
    let file = match named {
        Some(found) => Some(
            read_bounded(Path::new(&found.text))
                .map_err(|e| found.refuse(format!("cannot read {}: {e}", found.text)))?,
        ),
        None => match read_bounded(Path::new(FILE_DEFAULT)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                let field = FILE_DEFAULT.into();
                return Err(Refusal::InvalidConfig { field, reason: error.to_string() });
            }
        },
    };
    resolve(flags, &environment, file.as_deref(), &machine_id())
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let reason = format!("it is larger than {FILE_BYTES_MAX} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, reason));
    }
    Ok(text)
}

/// An identifier of this host: machine-id(5), or its name if it has none.
fn machine_id() -> String {
    ["/etc/machine-id", "/proc/sys/kernel/hostname"]
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| text.trim().to_owned())
        .find(|id| !id.is_empty())
        .unwrap_or_default()
}

fn log_bound(sources: &Sources) -> Result<u64, Refusal> {
    match sources.number(&LOG_MB, LOG_MB_MAX)?.unwrap_or(LOG_MB_DEFAULT) {
        0 => {
            let reason = format!("a log needs some room, from 1 to {LOG_MB_MAX} MiB");
            Err(Refusal::InvalidConfig { field: LOG_MB.field.into(), reason })
        }
        mib => Ok((mib as u64) << 20),
    }
}

fn log_format(sources: &Sources) -> Result<Option<LogFormat>, Refusal> {
    let Some(found) = sources.text(&LOG_FORMAT)? else { return Ok(None) };
    match found.text.as_str() {
        "text" => Ok(Some(LogFormat::Text)),
        "journal" => Ok(Some(LogFormat::Journal)),
        other => Err(found.refuse(format!("{other:?} is not a format; they are text and journal"))),
    }
}

fn expose_ports(sources: &Sources) -> Result<Ports, Refusal> {
    let Some(found) = sources.text(&EXPOSE_PORTS)? else { return Ok(PORTS_DEFAULT) };
    found.text.parse().map_err(|reason: String| found.refuse(reason))
}

fn run_as(sources: &Sources) -> Result<RunAs, Refusal> {
    let Some(found) = sources.text(&RUN_AS)? else { return Ok(RunAs::Shared) };
    match found.parsed(str::parse)? {
        RunAs::User(name) => Err(found.refuse(format!("{name:?} is neither shared nor own"))),
        run_as => Ok(run_as),
    }
}

/// A range `FIRST-LAST`. root is not in it, and neither is the number that means no user
/// (chown(2)).
fn vm_uids(sources: &Sources) -> Result<RangeInclusive<u32>, Refusal> {
    let Some(found) = sources.text(&VM_UIDS)? else { return Ok(UIDS_DEFAULT) };
    let range = found.text.split_once('-').and_then(|(first, last)| {
        let range = first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?;
        (*range.start() > 0 && *range.end() < u32::MAX && !range.is_empty()).then_some(range)
    });
    let wrong =
        || found.refuse(format!("{:?} is not a range of users such as 70000-79999", found.text));
    range.ok_or_else(wrong)
}

fn backend(sources: &Sources) -> Result<Backend, Refusal> {
    let Some(found) = sources.text(&BACKEND)? else {
        return Ok(if cfg!(target_os = "linux") { Backend::Linux } else { Backend::Noop });
    };
    match found.text.as_str() {
        "linux" if cfg!(target_os = "linux") => Ok(Backend::Linux),
        "linux" => Err(found.refuse("this is not Linux")),
        "noop" => Ok(Backend::Noop),
        other => Err(found.refuse(format!("{other:?} is not a backend; they are linux and noop"))),
    }
}

/// All sockets of the daemon and of VMs are in the runtime directory.
fn runtime_dir(sources: &Sources) -> Result<PathBuf, Refusal> {
    let Some(found) = sources.text(&RUNTIME_DIR)? else { return Ok("/run/volnet".into()) };
    let directory = absolute(&found)?;
    if directory.as_os_str().len() > RUNTIME_DIR_BYTES_MAX {
        let reason = format!(
            "it has more than {RUNTIME_DIR_BYTES_MAX} bytes: a socket's path has at most \
             {SOCKET_PATH_BYTES_MAX}, and the sockets of VMs are in it"
        );
        return Err(found.refuse(reason));
    }
    Ok(directory)
}

/// The default socket is in the runtime directory.
fn socket(sources: &Sources, runtime_dir: &Path) -> Result<PathBuf, Refusal> {
    match sources.text(&SOCKET)? {
        Some(found) => socket_path(&found),
        None => Ok(runtime_dir.join("volnet.sock")),
    }
}

/// An address with a port, or the path of a socket.
fn metrics(sources: &Sources) -> Result<Option<MetricsAt>, Refusal> {
    let Some(found) = sources.text(&METRICS)? else { return Ok(None) };
    if found.text.starts_with('/') {
        return Ok(Some(MetricsAt::Unix(socket_path(&found)?)));
    }
    match found.text.parse::<SocketAddr>() {
        Ok(at) if at.port() != 0 => Ok(Some(MetricsAt::Tcp(at))),
        _ => Err(found.refuse(format!(
            "{:?} is neither an address with a port, such as 127.0.0.1:9744, nor the path of a \
             socket",
            found.text
        ))),
    }
}

/// The path of a socket.
fn socket_path(found: &Found) -> Result<PathBuf, Refusal> {
    match absolute(found)? {
        path if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX => Ok(path),
        _ => {
            let too_long = format!("a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes");
            Err(found.refuse(too_long))
        }
    }
}

fn path(sources: &Sources, key: &Key, default: &str) -> Result<PathBuf, Refusal> {
    Ok(optional_path(sources, key)?.unwrap_or_else(|| default.into()))
}

fn optional_path(sources: &Sources, key: &Key) -> Result<Option<PathBuf>, Refusal> {
    sources.text(key)?.as_ref().map(absolute).transpose()
}

fn absolute(found: &Found) -> Result<PathBuf, Refusal> {
    if !found.text.starts_with('/') {
        return Err(found.refuse(format!("{:?} is not an absolute path", found.text)));
    }
    if found.text.len() > PATH_BYTES_MAX || found.text.chars().any(char::is_control) {
        return Err(found.refuse("it is too long, or holds a control character"));
    }
    Ok(PathBuf::from(&found.text))
}

#[cfg(test)]
mod tests;
