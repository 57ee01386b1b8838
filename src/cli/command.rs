//! What can be asked for on the command line.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::verbs::Sort;
use crate::config::Flags;

/// A command line, understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Invocation {
    /// Settings that were given as flags.
    pub(super) flags: Flags,
    /// JSON instead of tables.
    pub(super) json: bool,
    /// What is to be done.
    pub(super) command: Command,
}

/// The VMs that are to be changed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Vms {
    /// These, by name.
    Named(Vec<String>),
    /// All that run.
    Running,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    /// Be the daemon.
    Serve,
    /// Prepare the host.
    Setup(Preparation),
    /// Take the preparation away.
    Teardown(Preparation),
    /// Make a VM's network, and start its hypervisor if `start`.
    Create(Box<Create>),
    /// Give a network namespace a place on a network.
    Attach(Box<Attach>),
    /// Take the place away.
    Detach(Detach),
    /// Start, stop, restart, pause, resume or delete VMs.
    VmVerb { change: VmVerb, vms: Vms, timeout_ms: Option<u64> },
    /// Save the guest of a VM into a folder.
    Snapshot { name: String, folder: PathBuf },
    /// Change what a VM may do or how it is reached, by a method of the interface.
    Adjust { method: &'static str, parameters: Value },
    /// Show one VM.
    Get { name: String },
    /// Show all VMs; with `watch`, again whenever something happens.
    List { watch: bool },
    /// Show what VMs do, as long as the user likes or once; sorted so, and anew after so many
    /// seconds.
    Top { once: bool, interval_s: u64, sort: Sort },
    /// Show the networks.
    Networks,
    /// Show the network arguments for a hypervisor.
    /// Or only what belongs to the guest's kernel command line.
    Args { name: String, hypervisor: Option<String>, kernel_args: bool },
    /// Run a program with a VM's tap open.
    Exec { name: String, program: String, args: Vec<String> },
    /// Become a hypervisor, with the rights of its user: how the daemon starts one.
    ExecAs { words: Vec<String> },
    /// Keep the log of a VM within its bound: how the daemon starts a keeper.
    KeepLog { words: Vec<String> },
    /// Call a method and print its replies.
    Call { method: String, parameters: Option<String>, more: bool },
    /// Connect the terminal to a VM's serial console.
    Console { name: String },
    /// Connect to a vsock port of a guest.
    Vsock { name: String, port: u32, wait: Option<u32> },
    /// Show the log of a VM's hypervisor.
    Logs { name: String, messages: bool, follow: bool },
    /// Follow what happens.
    Monitor,
    /// Print the counters.
    Metrics,
    /// Look the host over.
    Check,
    /// Tell of the packets of a guest.
    Trace { name: String, from: Option<Origin>, to: Option<String>, seconds: Option<u32> },
    /// Look a VM over, or the host.
    Doctor { name: Option<String> },
    /// Show versions.
    Version,
    /// Print the completion of a shell.
    Completion { shell: String },
    /// Explain a verb, or all of them.
    Help { verb: Option<String> },
}

/// How the host is prepared, or the preparation taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Preparation {
    /// Change nothing, show what would be.
    pub(super) dry_run: bool,
    /// Also show what was done, as commands.
    pub(super) verbose: bool,
    /// Even where a subnet overlaps with what the host has, while VMs exist, or where a file says
    /// something else.
    pub(super) force: bool,
    /// The files of the service, too.
    pub(super) service: bool,
    /// The files for engines of containers, too.
    pub(super) cni: bool,
    /// The file for systemd-resolved, too.
    pub(super) resolved: bool,
    /// Below which these files are.
    pub(super) root: PathBuf,
}

/// What a VM is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Create {
    /// Its name.
    pub(super) name: String,
    /// A file with its manifest.
    pub(super) manifest: Option<PathBuf>,
    /// A file with its configuration.
    pub(super) config: Option<PathBuf>,
    /// What flags say; they win over the configuration.
    pub(super) overrides: Vec<Override>,
    /// Disks beside those of the manifest.
    pub(super) disks: Vec<Disk>,
    /// Directories of the host that the guest sees.
    pub(super) shares: Vec<Share>,
    /// Arguments for its hypervisor beside those of the configuration.
    pub(super) args: Vec<String>,
    /// Ports of the host that lead to it, as elements of `expose`, beside those of the
    /// configuration; each with the index of the network.
    pub(super) expose: Vec<(usize, Value)>,
    /// Start its hypervisor too.
    pub(super) start: bool,
    /// So many of them, each with a number behind the name.
    pub(super) count: Option<u16>,
    /// Change nothing, show what would be.
    pub(super) dry_run: bool,
}

/// A network namespace that is to be attached.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attach {
    /// Its name, and what is said of its network.
    pub(super) create: Create,
    /// Its path.
    pub(super) netns: String,
    /// The name of its link.
    pub(super) ifname: String,
    /// The name of the tap there that a VM opens, if it is for one.
    pub(super) tap: Option<String>,
    /// Even if a program of the host listens on a port that it exposes.
    pub(super) force: bool,
}

/// A network namespace that is to be detached.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Detach {
    /// Its name.
    pub(super) name: String,
    /// The name of its link.
    pub(super) ifname: String,
    /// Its path, if the link is to be renamed there.
    pub(super) netns: Option<String>,
}

/// A field of the configuration that a flag sets.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Override {
    /// The network that it is about, by its index, where its section is one.
    pub(super) nic: usize,
    /// Its section, where it is in one.
    pub(super) section: Option<&'static str>,
    /// The field.
    pub(super) field: &'static str,
    /// What it is set to.
    pub(super) value: Setting,
}

/// What a field is set to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Setting {
    /// This value.
    Value(Value),
    /// The path of a file, which may be relative.
    Path(PathBuf),
    /// A section that names a file by `url`, without a checksum.
    Image(PathBuf),
}

/// A directory that the guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// By which name it mounts it.
    pub(super) tag: String,
    /// The directory, whose path may be relative.
    pub(super) path: PathBuf,
    /// Whether the guest may not change it.
    pub(super) readonly: bool,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Disk {
    /// The image, whose path may be relative.
    pub(super) path: PathBuf,
    /// Whether the guest may not write to it.
    pub(super) readonly: bool,
    /// Its format; `None`: as the ending of its name says.
    pub(super) format: Option<String>,
    /// Its cache.
    pub(super) cache: Option<String>,
    /// MB that are read and written a second.
    pub(super) mb: Option<u64>,
    /// Reads and writes a second.
    pub(super) iops: Option<u64>,
}

/// What is done to VMs that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VmVerb {
    /// Start the hypervisor.
    Start,
    /// Stop it.
    Stop,
    /// Stop it and start it again.
    Restart,
    /// Let its guest stand still.
    Pause,
    /// Let its guest go on.
    Resume,
    /// Stop it and give everything back.
    Delete,
}

impl VmVerb {
    /// The method of the interface.
    pub(super) fn method(self) -> &'static str {
        match self {
            VmVerb::Start => "io.volnet.Start",
            VmVerb::Stop => "io.volnet.Stop",
            VmVerb::Restart => "io.volnet.Restart",
            VmVerb::Pause => "io.volnet.Pause",
            VmVerb::Resume => "io.volnet.Resume",
            VmVerb::Delete => "io.volnet.Delete",
        }
    }
}

/// Where packets come from: a VM, or outside, which is an address or `world`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Vm(String),
    Outside(String),
}

impl Origin {
    /// Reads what somebody has typed.
    pub(super) fn of(text: String) -> Origin {
        match text == "world" || text.parse::<IpAddr>().is_ok() {
            true => Origin::Outside(text),
            false => Origin::Vm(text),
        }
    }
}
