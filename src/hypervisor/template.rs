//! Any other hypervisor, by a template in the settings.
//!
//! A template is a program and groups of arguments. `{word}` in them stands for a value of the VM:
//!
//! | word | stands for | absent |
//! |---|---|---|
//! | `{name}` `{cid}` `{folder}` | name, vsock context id and folder | never |
//! | `{log}` | `/dev/stdout`, which goes to the log of the console | never |
//! | `{cpus}` `{memory_mb}` `{kernel}` `{cmdline}` | what it runs on | never |
//! | `{initramfs}` | path of the initramfs | without one |
//! | `{disk}` `{disk_format}` `{disk_readonly}` | path, format, `on` or `off` | without one |
//! | `{tap}` `{mac}` `{queues}` | the tap, the guest's address on it, queue pairs | in vsock mode |
//! | `{fd}` `{fds}` | descriptors of the open tap: the first, all (`7,8`) | in vsock mode |
//! | `{ip}` `{netmask}` | the lease and its mask | unless bridged |
//! | `{control}` | the socket on which it is asked, see below | without `control` |
//! | `{vsock_cid}` `{vsock_socket}` | as `{cid}`, and the Unix socket of it | without vsock |
//!
//! If a word of a group is absent, the whole group is left out. A group with a disk comes once for
//! each disk, a group with a tap or a lease once for each NIC. So `["--initrd", "{initramfs}"]`
//! disappears if there is no initramfs. `{{` and `}}` are braces.
//!
//! If an argument has `{fd}` or `{fds}`, the hypervisor inherits its taps, which belong to root,
//! and otherwise it opens them by name. If the template names the protocol of a known hypervisor in
//! `control`, the start, the power-off and all else are asked by it on the socket `{control}`.
//! Otherwise nobody knows whether the guest runs, and SIGTERM asks the hypervisor to end.

use std::path::Path;

use super::{
    Attachment, Control, HypervisorCommand, Launch, LaunchNic, VSOCK_SOCKET, shares, text,
};
use crate::model::error::Refusal;
use crate::model::spec::{Disk, DiskCache, MachineSpec};

/// Where the console of a guest goes: to its log.
const OUTPUT: &str = "/dev/stdout";

/// All words. Those of the network come first; see [`NETWORK_WORDS`].
const WORDS: [&str; 22] = [
    "tap",
    "mac",
    "queues",
    "fd",
    "fds",
    "ip",
    "netmask",
    "vsock_cid",
    "vsock_socket",
    "name",
    "cid",
    "folder",
    "log",
    "control",
    "cpus",
    "memory_mb",
    "kernel",
    "cmdline",
    "initramfs",
    "disk",
    "disk_format",
    "disk_readonly",
];
/// How many of [`WORDS`] are the network's.
const NETWORK_WORDS: usize = 9;

/// The words of a NIC.
const NIC_WORDS: [&str; 7] = ["tap", "mac", "queues", "fd", "fds", "ip", "netmask"];
/// The socket that `{control}` stands for.
const CONTROL_SOCKET: &str = "control.sock";

/// Whose protocol a hypervisor speaks on its control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Qmp,
    CloudHypervisor,
    Firecracker,
}

/// A hypervisor that volnet does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    name: String,
    program: String,
    groups: Vec<Vec<String>>,
    protocol: Option<Protocol>,
}

/// A piece of an argument.
enum Piece<'a> {
    Text(&'a str),
    Word(&'a str),
}

impl Template {
    /// Checks a template: its words are known, its braces balanced. `groups` are its arguments.
    pub fn new(
        name: String,
        program: String,
        groups: Vec<Vec<String>>,
        protocol: Option<Protocol>,
    ) -> Result<Template, String> {
        for argument in groups.iter().flatten() {
            for piece in pieces(argument) {
                match piece {
                    Ok(Piece::Word(word)) if !WORDS.contains(&word) => {
                        return Err(format!("{argument:?}: unknown word {{{word}}}"));
                    }
                    Ok(Piece::Word(_) | Piece::Text(_)) => {}
                    Err(()) => {
                        return Err(format!("{argument:?}: a brace is not closed or not opened"));
                    }
                }
            }
        }
        let template = Template { name, program, groups, protocol };
        if template.mentions(|word| word == "control") != template.protocol.is_some() {
            return Err("`control` and an argument with {control} go together".into());
        }
        Ok(template)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its program: a path, or a name to be found in PATH.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Whether it gets its taps open.
    pub fn takes_open_tap(&self) -> bool {
        self.mentions(|word| matches!(word, "fd" | "fds"))
    }

    /// Whether it opens its taps itself, by their names.
    pub fn opens_tap_by_name(&self) -> bool {
        !self.takes_open_tap() && self.mentions(|word| word == "tap")
    }

    /// Whether one of the arguments has such a word.
    fn mentions(&self, is: impl Fn(&str) -> bool) -> bool {
        self.groups.iter().any(|group| mentions(group, &is))
    }

    /// The arguments: each group is filled in or left out.
    fn expand(&self, values: &Values, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut args = Vec::new();
        for group in self.groups.iter().filter(|group| wanted(group)) {
            let rounds = if mentions(group, |word| word.starts_with("disk")) {
                (0..values.disks.len()).map(|disk| Round { disk, nic: 0 }).collect()
            } else if mentions(group, |word| NIC_WORDS.contains(&word)) {
                (0..values.nics.len()).map(|nic| Round { disk: 0, nic }).collect()
            } else {
                vec![Round { disk: 0, nic: 0 }]
            };
            for round in rounds {
                let filled: Option<Vec<String>> =
                    group.iter().map(|argument| values.fill(argument, round)).collect();
                args.extend(filled.into_iter().flatten());
            }
        }
        args
    }
}

/// How to ask such a hypervisor.
pub fn control(folder: &Path, template: &Template) -> Result<Control, Refusal> {
    let Some(protocol) = template.protocol else { return Ok(Control::Terminate) };
    let socket = text::in_folder(folder, CONTROL_SOCKET)?.into();
    Ok(match protocol {
        Protocol::Qmp => Control::Qmp(socket),
        Protocol::CloudHypervisor => Control::CloudHypervisor(socket),
        Protocol::Firecracker => Control::Firecracker(socket),
    })
}

/// The command that starts a VM.
pub fn command(launch: &Launch, template: &Template) -> Result<HypervisorCommand, Refusal> {
    let machine = launch.machine;
    refuse_devices(machine)?;
    let mut values = Values::of(&launch.attachment())?;
    values.set("name", launch.name);
    values.set("log", OUTPUT);
    values.set("control", text::in_folder(&launch.folder, CONTROL_SOCKET)?);
    values.set("cpus", machine.cpus);
    values.set("kernel", text::path(launch.kernel, "kernel_override")?);
    values.set("cmdline", text::cmdline("", launch)?);
    if let Some(initramfs) = &machine.initramfs {
        values.set("initramfs", text::path(&initramfs.path, "initramfs")?);
    }
    values.disks = machine.disks.iter().map(disk).collect::<Result<_, _>>()?;
    Ok(HypervisorCommand {
        program: template.program.clone(),
        args: template.expand(&values, |_| true),
        files: Vec::new(),
        links: Vec::new(),
        directory: None,
        inherits: launch.nics.iter().flat_map(|nic| nic.fds).copied().collect(),
        helpers: Vec::new(),
        ready: None,
        control: control(&launch.folder, template)?,
        events: None,
    })
}

/// Refuses what no word stands for: it would be missing in silence.
fn refuse_devices(machine: &MachineSpec) -> Result<(), Refusal> {
    let (cached, limited) = (
        machine.disks.iter().any(|disk| disk.cache != DiskCache::default()),
        machine.disks.iter().any(|disk| !disk.limits.is_empty()),
    );
    let fields = [
        ("disks.cache", cached),
        ("disks.limits", limited),
        ("resources.hugepages", machine.hugepages),
        ("resources.balloon", machine.balloon),
        ("rng", machine.rng),
        (shares::FIELD, !machine.shares.is_empty()),
    ];
    match fields.into_iter().find(|(_, set)| *set) {
        None => Ok(()),
        Some((field, _)) => {
            let reason = "a template cannot be told of it; write it into the template itself";
            Err(text::refuse(field, reason))
        }
    }
}

/// The groups with words of the network.
pub fn network_args(attachment: &Attachment, template: &Template) -> Result<Vec<String>, Refusal> {
    let network = |group: &[String]| mentions(group, |word| WORDS[..NETWORK_WORDS].contains(&word));
    Ok(template.expand(&Values::of(attachment)?, network))
}

/// The values of the words for one VM.
#[derive(Default)]
struct Values {
    words: Vec<(&'static str, String)>,
    /// Path, format, whether read-only.
    disks: Vec<[String; 3]>,
    /// The words of each NIC in the order of [`NIC_WORDS`]; the last two are absent without a
    /// lease.
    nics: Vec<[Option<String>; 7]>,
}

/// The disk and the NIC that a group is filled in for.
#[derive(Clone, Copy)]
struct Round {
    disk: usize,
    nic: usize,
}

impl Values {
    fn of(attachment: &Attachment) -> Result<Values, Refusal> {
        let mut values = Values::default();
        values.set("cid", attachment.cid);
        values.set("folder", text::path(attachment.folder, "runtime_dir")?);
        values.set("memory_mb", attachment.memory_mb);
        if attachment.has_vsock() {
            values.set("vsock_cid", attachment.cid);
            values.set("vsock_socket", text::in_folder(attachment.folder, VSOCK_SOCKET)?);
        }
        values.nics = attachment.nics.iter().map(nic).collect();
        Ok(values)
    }

    fn set(&mut self, word: &'static str, value: impl ToString) {
        self.words.push((word, value.to_string()));
    }

    fn get(&self, word: &str, round: Round) -> Option<&str> {
        let disk = |part: usize| self.disks.get(round.disk).map(|disk| disk[part].as_str());
        if let Some(part) = NIC_WORDS.iter().position(|name| *name == word) {
            return self.nics.get(round.nic)?[part].as_deref();
        }
        match word {
            "disk" => disk(0),
            "disk_format" => disk(1),
            "disk_readonly" => disk(2),
            _ => self.words.iter().find(|(name, _)| *name == word).map(|(_, value)| value.as_str()),
        }
    }

    /// An argument with its words filled in; `None` if a word is absent.
    fn fill(&self, argument: &str, round: Round) -> Option<String> {
        pieces(argument)
            .map(|piece| match piece.ok()? {
                Piece::Text(text) => Some(text),
                Piece::Word(word) => self.get(word, round),
            })
            .collect()
    }
}

fn nic(nic: &LaunchNic) -> [Option<String>; 7] {
    let fds: Vec<String> = nic.fds.iter().map(u32::to_string).collect();
    [
        Some(nic.tap.to_string()),
        Some(nic.mac.to_string()),
        Some(nic.queues.to_string()),
        fds.first().cloned(),
        (!fds.is_empty()).then(|| fds.join(",")),
        nic.lease.map(|(ip, _)| ip.to_string()),
        nic.lease.map(|(_, netmask)| netmask.to_string()),
    ]
}

fn disk(disk: &Disk) -> Result<[String; 3], Refusal> {
    let readonly = if disk.readonly { "on" } else { "off" };
    let path = text::path(&disk.file.path, "disks")?;
    Ok([path.into(), disk.format.as_str().into(), readonly.into()])
}

/// Whether a group has a word of that kind.
fn mentions(group: &[String], kind: impl Fn(&str) -> bool) -> bool {
    group
        .iter()
        .flat_map(|argument| pieces(argument))
        .any(|piece| matches!(piece, Ok(Piece::Word(word)) if kind(word)))
}

/// An argument in pieces; an error where a brace is not closed or not opened.
fn pieces(argument: &str) -> impl Iterator<Item = Result<Piece<'_>, ()>> {
    let mut rest = argument;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, left) = split_piece(rest);
        rest = left;
        Some(piece)
    })
}

/// The first piece of a non-empty argument, and the rest.
fn split_piece(argument: &str) -> (Result<Piece<'_>, ()>, &str) {
    if let Some(left) = argument.strip_prefix("{{") {
        return (Ok(Piece::Text("{")), left);
    }
    if let Some(left) = argument.strip_prefix("}}") {
        return (Ok(Piece::Text("}")), left);
    }
    if let Some(left) = argument.strip_prefix('{') {
        return match left.split_once('}') {
            Some((word, left)) => (Ok(Piece::Word(word)), left),
            None => (Err(()), ""),
        };
    }
    if argument.starts_with('}') {
        return (Err(()), "");
    }
    let end = argument.find(['{', '}']).unwrap_or(argument.len());
    (Ok(Piece::Text(&argument[..end])), &argument[end..])
}
