//! The machine of a VM, after the host's defaults are filled in.

use std::path::{Path, PathBuf};

use crate::hypervisor::FIRECRACKER;
use crate::model::error::Refusal;
use crate::model::spec::MachineSpec;

/// The host's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineDefaults {
    /// The hypervisor by name.
    pub hypervisor: String,
    /// A compressed kernel, which may have its own initramfs.
    pub kernel_bzimage: Option<PathBuf>,
    /// A kernel as an ELF file.
    pub kernel_vmlinux: Option<PathBuf>,
}

/// A machine with all defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedMachine<'a> {
    /// The request.
    pub spec: &'a MachineSpec,
    /// The hypervisor by name.
    pub hypervisor: &'a str,
    /// The kernel; it need not exist.
    pub kernel: &'a Path,
}

/// Fills in the defaults. The kernel is the VM's own. If it names none, it is the ELF file if the
/// VM has an initramfs or the hypervisor reads nothing else (Firecracker), and otherwise the
/// compressed one. If the host has only one of the two, it is that one.
pub fn resolve_machine<'a>(
    spec: &'a MachineSpec,
    defaults: &'a MachineDefaults,
) -> Result<ResolvedMachine<'a>, Refusal> {
    let hypervisor = spec.hypervisor.as_deref().unwrap_or(&defaults.hypervisor);
    let bzimage = defaults.kernel_bzimage.as_deref();
    let vmlinux = defaults.kernel_vmlinux.as_deref();
    let offered = if spec.initramfs.is_some() || hypervisor == FIRECRACKER {
        vmlinux.or(bzimage)
    } else {
        bzimage.or(vmlinux)
    };
    let own = spec.kernel.as_ref().map(|file| file.path.as_path());
    let kernel = own.or(offered).ok_or_else(|| Refusal::InvalidConfig {
        field: "kernel_override".into(),
        reason: "no kernel is given, and this host has none by default".into(),
    })?;
    Ok(ResolvedMachine { spec, hypervisor, kernel })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::File;

    fn machine() -> MachineSpec {
        MachineSpec { cpus: 1, memory_mb: 128, ..MachineSpec::default() }
    }

    fn file(path: &str) -> Option<File> {
        Some(File { path: path.into(), sha256: None })
    }

    #[test]
    fn the_kernel_is_the_vms_own_then_the_hosts_that_fits() {
        let defaults = MachineDefaults {
            hypervisor: "qemu".into(),
            kernel_bzimage: Some("/bzImage".into()),
            kernel_vmlinux: Some("/vmlinux".into()),
        };
        let plain = machine();
        let initramfs = MachineSpec { initramfs: file("/i"), ..machine() };
        let own = MachineSpec { kernel: file("/own"), initramfs: file("/i"), ..machine() };
        let firecracker = MachineSpec { hypervisor: Some(FIRECRACKER.into()), ..machine() };
        for (spec, hypervisor, kernel) in [
            (plain, "qemu", "/bzImage"),
            (initramfs, "qemu", "/vmlinux"),
            (own, "qemu", "/own"),
            (firecracker, "firecracker", "/vmlinux"),
        ] {
            let resolved = resolve_machine(&spec, &defaults).unwrap();
            assert_eq!((resolved.hypervisor, resolved.kernel), (hypervisor, Path::new(kernel)));
        }
    }

    #[test]
    fn a_host_without_kernels_is_no_default() {
        let mut defaults = MachineDefaults {
            hypervisor: "qemu".into(),
            kernel_bzimage: None,
            kernel_vmlinux: Some("/vmlinux".into()),
        };
        assert_eq!(resolve_machine(&machine(), &defaults).unwrap().kernel, Path::new("/vmlinux"));
        defaults.kernel_vmlinux = None;
        assert!(resolve_machine(&machine(), &defaults).is_err());
    }
}
