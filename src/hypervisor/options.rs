//! How hypervisors are run on this host, from the settings.

use super::template::Template;
use super::{Architecture, CLOUD_HYPERVISOR, FIRECRACKER, QEMU};
use crate::model::error::Refusal;

/// Where distributions have virtiofsd, which is in no `PATH`.
const SHARE_HELPER: &str = "/usr/libexec/virtiofsd";

/// Settings of all hypervisors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// See [`super::qemu`].
    pub qemu: QemuOptions,
    /// See [`super::cloud_hypervisor`].
    pub cloud_hypervisor: CloudHypervisorOptions,
    /// See [`super::firecracker`].
    pub firecracker: FirecrackerOptions,
    /// Hypervisors that volnet does not know, by name.
    pub templates: Vec<Template>,
}

/// Settings of QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuOptions {
    /// A path, or a name to be found in PATH.
    pub program: String,
    /// The machine.
    pub machine: QemuMachine,
    /// The host's kernel carries the frames of guests (vhost-net).
    pub vhost_net: bool,
    /// The helper that gives vsock to guests where the host's kernel has no vhost-vsock.
    pub vsock_helper: String,
    /// The helper that serves the directories that guests see.
    pub share_helper: String,
    /// Arguments after volnet's own, before a VM's.
    pub args: Vec<String>,
}

/// The machines of QEMU that volnet can describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QemuMachine {
    /// A PC with virtio-mmio and without PCI: starts fastest.
    Microvm,
    /// A PC with PCI Express, for guests without virtio-mmio.
    Q35,
    /// An arm64 machine with PCI Express.
    Virt,
}

/// Settings of Cloud Hypervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudHypervisorOptions {
    /// A path, or a name to be found in PATH.
    pub program: String,
    /// Pass `ip=` and `mask=` as Volant does. For Cloud Hypervisor they mean the host's side of the
    /// tap, and it ignores them if the tap exists.
    pub net_ip_mask: bool,
    /// The helper that serves the directories that guests see.
    pub share_helper: String,
    /// Arguments after volnet's own, before a VM's.
    pub args: Vec<String>,
}

/// Settings of Firecracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirecrackerOptions {
    /// A path, or a name to be found in PATH.
    pub program: String,
    /// Arguments after volnet's own, before a VM's.
    pub args: Vec<String>,
}

impl Options {
    /// The program of the hypervisor of that name.
    pub fn program(&self, name: &str) -> Result<&str, Refusal> {
        Ok(match name {
            QEMU => &self.qemu.program,
            CLOUD_HYPERVISOR => &self.cloud_hypervisor.program,
            FIRECRACKER => &self.firecracker.program,
            name => self.template(name)?.program(),
        })
    }

    /// The helper that serves directories to the guests of the hypervisor of that name.
    pub fn share_helper(&self, name: &str) -> Option<&str> {
        match name {
            QEMU => Some(&self.qemu.share_helper),
            CLOUD_HYPERVISOR => Some(&self.cloud_hypervisor.share_helper),
            _ => None,
        }
    }

    /// The arguments of the settings for the hypervisor of that name, beside volnet's own.
    pub(super) fn args(&self, name: &str) -> &[String] {
        match name {
            QEMU => &self.qemu.args,
            CLOUD_HYPERVISOR => &self.cloud_hypervisor.args,
            FIRECRACKER => &self.firecracker.args,
            _ => &[],
        }
    }

    /// Whether the hypervisor of that name gets its tap open. Others open it by name.
    pub fn takes_open_tap(&self, name: &str) -> bool {
        match name {
            QEMU | CLOUD_HYPERVISOR => true,
            FIRECRACKER => false,
            name => self.template(name).is_ok_and(Template::takes_open_tap),
        }
    }

    /// The hypervisors that open their taps by name.
    pub fn openers(&self) -> Vec<String> {
        let templates = self.templates.iter().filter(|template| !template.takes_open_tap());
        let templates = templates.map(|template| template.name().to_owned());
        [FIRECRACKER.to_owned()].into_iter().chain(templates).collect()
    }

    /// The template of that name.
    pub(super) fn template(&self, name: &str) -> Result<&Template, Refusal> {
        self.templates.iter().find(|template| template.name() == name).ok_or_else(|| {
            let mut known = [QEMU, CLOUD_HYPERVISOR, FIRECRACKER].join(", ");
            for template in &self.templates {
                known = format!("{known}, {}", template.name());
            }
            let reason = format!("{name:?} is not a hypervisor of this host, which has {known}");
            Refusal::InvalidConfig { field: "hypervisor".into(), reason }
        })
    }
}

impl QemuMachine {
    /// Its name, in settings and on the command line of QEMU.
    pub fn as_str(self) -> &'static str {
        match self {
            QemuMachine::Microvm => "microvm",
            QemuMachine::Q35 => "q35",
            QemuMachine::Virt => "virt",
        }
    }

    /// The architecture of its guests.
    pub fn architecture(self) -> Architecture {
        match self {
            QemuMachine::Microvm | QemuMachine::Q35 => Architecture::X86_64,
            QemuMachine::Virt => Architecture::Aarch64,
        }
    }
}

impl QemuOptions {
    /// QEMU with this machine, by the name that the program has for its architecture.
    pub fn of(machine: QemuMachine) -> QemuOptions {
        let program = match machine.architecture() {
            Architecture::X86_64 => "qemu-system-x86_64",
            Architecture::Aarch64 => "qemu-system-aarch64",
        };
        QemuOptions {
            program: program.into(),
            machine,
            vhost_net: false,
            vsock_helper: "vhost-device-vsock".into(),
            share_helper: SHARE_HELPER.into(),
            args: Vec::new(),
        }
    }
}

impl Default for QemuOptions {
    fn default() -> Self {
        QemuOptions::of(match Architecture::HOST {
            Architecture::X86_64 => QemuMachine::Microvm,
            Architecture::Aarch64 => QemuMachine::Virt,
        })
    }
}

impl Default for CloudHypervisorOptions {
    fn default() -> Self {
        CloudHypervisorOptions {
            program: CLOUD_HYPERVISOR.into(),
            net_ip_mask: false,
            share_helper: SHARE_HELPER.into(),
            args: Vec::new(),
        }
    }
}

impl Default for FirecrackerOptions {
    fn default() -> Self {
        FirecrackerOptions { program: FIRECRACKER.into(), args: Vec::new() }
    }
}
