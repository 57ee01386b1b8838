//! The default hypervisor, and how each hypervisor is run.

use serde_json::Value;

use crate::hypervisor::template::{Protocol, Template};
use crate::hypervisor::{CLOUD_HYPERVISOR, FIRECRACKER, Options, QEMU, QemuMachine, QemuOptions};
use crate::model::error::Refusal;
use crate::spec::fields::{Fields, Place};
use crate::spec::{extra_args, text};

use super::source::{Found, Key, Rank, Sources};

/// The most hypervisors that the file can describe.
pub const HYPERVISORS_MAX: usize = 32;
/// The most arguments of a template. A group counts as one.
pub const TEMPLATE_ARGS_MAX: usize = 128;

pub(super) const HYPERVISOR: Key =
    Key::new("hypervisor", None, "VOLNET_HYPERVISOR", Some("VOLANT_HYPERVISOR"));
pub(super) const NET_IP_MASK: Key = Key::new("net_ip_mask", None, "VOLNET_NET_IP_MASK", None);
const KNOWN: [&str; 3] = [CLOUD_HYPERVISOR, QEMU, FIRECRACKER];

/// The hypervisor of a VM that names none.
pub(super) fn default(sources: &Sources) -> Result<String, Refusal> {
    let Some(found) = sources.text(&HYPERVISOR)? else { return Ok(CLOUD_HYPERVISOR.into()) };
    if volant_program(&found).is_some() {
        return Ok(CLOUD_HYPERVISOR.into());
    }
    let described = sources.file.entries("hypervisors")?;
    let described = described.iter().any(|(_, name, _)| *name == found.text);
    if described || KNOWN.contains(&found.text.as_str()) {
        return Ok(found.text);
    }
    Err(found.refuse(format!(
        "{:?} is neither {} nor described in hypervisors",
        found.text,
        KNOWN.join(", ")
    )))
}

/// Volant's variable is the program of Cloud Hypervisor, the only hypervisor that Volant has. If it
/// is the name of one of our hypervisors, it means that one.
fn volant_program(found: &Found) -> Option<&str> {
    (found.rank == Rank::Volant && !KNOWN.contains(&found.text.as_str())).then_some(&found.text)
}

/// How each hypervisor is run, from the file. Volant's variable replaces the program of Cloud
/// Hypervisor.
pub(super) fn options(sources: &Sources) -> Result<Options, Refusal> {
    let table = sources.file.entries("hypervisors")?;
    if table.len() > HYPERVISORS_MAX {
        let reason = format!("at most {HYPERVISORS_MAX} hypervisors are allowed");
        return Err(sources.file.place.field("hypervisors").refuse(reason));
    }
    let mut options = Options::default();
    for (place, name, value) in table {
        text::name(name).map_err(|reason| place.refuse(reason))?;
        describe(&mut options, place, name, value)?;
    }
    if let Some(found) = sources.outside(&HYPERVISOR) {
        if let Some(path) = volant_program(&found) {
            options.cloud_hypervisor.program = found.parsed(|_| executable(path))?;
        }
    }
    options.cloud_hypervisor.net_ip_mask = sources.switch(&NET_IP_MASK)?.unwrap_or(false);
    Ok(options)
}

/// Reads the entry of one hypervisor.
fn describe(options: &mut Options, place: Place, name: &str, value: &Value) -> Result<(), Refusal> {
    match name {
        QEMU => {
            const KNOWN: &[&str] =
                &["program", "machine", "vhost_net", "vsock_helper", "share_helper", "args"];
            let fields = Fields::read(place, value, KNOWN)?;
            set(&mut options.qemu, fields.parsed("machine", qemu_machine)?.map(QemuOptions::of));
            set(&mut options.qemu.program, fields.parsed("program", executable)?);
            set(&mut options.qemu.vhost_net, fields.flag("vhost_net")?);
            set(&mut options.qemu.vsock_helper, fields.parsed("vsock_helper", executable)?);
            set(&mut options.qemu.share_helper, fields.parsed("share_helper", executable)?);
            options.qemu.args = extra_args(&fields)?;
        }
        CLOUD_HYPERVISOR => {
            let fields = Fields::read(place, value, &["program", "share_helper", "args"])?;
            let options = &mut options.cloud_hypervisor;
            set(&mut options.program, fields.parsed("program", executable)?);
            set(&mut options.share_helper, fields.parsed("share_helper", executable)?);
            options.args = extra_args(&fields)?;
        }
        FIRECRACKER => {
            let fields = Fields::read(place, value, &["program", "args"])?;
            set(&mut options.firecracker.program, fields.parsed("program", executable)?);
            options.firecracker.args = extra_args(&fields)?;
        }
        _ => options.templates.push(template(place, name, value)?),
    }
    Ok(())
}

fn set<T>(setting: &mut T, found: Option<T>) {
    if let Some(found) = found {
        *setting = found;
    }
}

/// The template of a hypervisor that volnet does not know.
fn template(place: Place, name: &str, value: &Value) -> Result<Template, Refusal> {
    let fields = Fields::read(place, value, &["program", "args", "control"])?;
    let missing = |name: &str| fields.place.field(name).refuse("it is missing");
    let program = fields.parsed("program", executable)?.ok_or_else(|| missing("program"))?;
    let (args, _) = fields.value("args").ok_or_else(|| missing("args"))?;
    let groups = fields.text_groups("args", TEMPLATE_ARGS_MAX)?;
    let protocol = fields.parsed("control", protocol)?;
    Template::new(name.into(), program, groups, protocol).map_err(|reason| args.refuse(reason))
}

/// The protocol of a control socket, by the hypervisor that has it.
fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        QEMU => Ok(Protocol::Qmp),
        CLOUD_HYPERVISOR => Ok(Protocol::CloudHypervisor),
        FIRECRACKER => Ok(Protocol::Firecracker),
        _ => Err(format!("{text:?} is not one of {}", KNOWN.join(", "))),
    }
}

fn qemu_machine(text: &str) -> Result<QemuMachine, String> {
    match text.to_ascii_lowercase().as_str() {
        "microvm" => Ok(QemuMachine::Microvm),
        "q35" => Ok(QemuMachine::Q35),
        "virt" => Ok(QemuMachine::Virt),
        _ => Err(format!("{text:?} is not a machine; they are microvm, q35 and virt (arm64)")),
    }
}

/// An absolute path, or a bare name.
fn executable(text: &str) -> Result<String, String> {
    if text.contains('/') && !text.starts_with('/') {
        return Err(format!("{text:?} is neither an absolute path nor a bare name"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{text:?} holds a control character"));
    }
    Ok(text.into())
}
