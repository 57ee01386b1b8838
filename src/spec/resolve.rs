//! Merges the two documents into one [`VmSpec`].
//!
//! The configuration wins over the manifest: field by field in `network` and `resources`, and as a
//! whole for the initramfs and the root file system, because a checksum belongs to its file. Ports
//! of a manifest count only if the configuration names none. A manifest inside the configuration
//! counts only if no other is given.

use serde_json::Value;

use super::config::{self, Config};
use super::fields::{Document, Place};
use super::manifest::{self, Manifest};
use super::sections::{FileSource, Network};
use crate::model::budget::Controller;
use crate::model::document::Kept;
use crate::model::error::Refusal;
use crate::model::expose::{EXPOSED_MAX, Expose};
use crate::model::mode::Mode;
use crate::model::spec::{File, MachineSpec, NetworkSpec, VmSpec};

/// Virtual CPUs of a VM, if none are given.
pub const CPUS_DEFAULT: u32 = 1;
/// Memory of a VM in MiB, if none is given.
pub const MEMORY_MB_DEFAULT: u64 = 512;
/// The size of a huge page in MiB, for which each driver asks.
pub const HUGE_PAGE_MB: u64 = 2;

/// Where the kernel finds the root file system without an initramfs: the first virtio disk.
const ROOT_DISK: &str = "root=/dev/vda rw";

/// Resolves the documents of a VM. A document that is null declares nothing.
pub fn resolve(manifest: Option<&Value>, config: Option<&Value>) -> Result<VmSpec, Refusal> {
    let given = manifest.filter(|value| !value.is_null());
    let config = config.filter(|value| !value.is_null()).map(config::content).transpose()?;
    let config = config.filter(|value| !value.is_null());
    let kept = (given.map(Kept::new), config.map(Kept::new));
    let given =
        given.map(|value| manifest::read(Place::root(Document::Manifest), value)).transpose()?;
    let mut config = config.map(config::read).transpose()?.unwrap_or_default();
    let manifest = given.or(config.manifest.take()).unwrap_or_default();
    let machine = resolve_machine_spec(&manifest, &config)?.map(Box::new);
    if config.owner.is_some() && machine.is_some() {
        let reason = "volnet starts the hypervisor of this VM, as run_as says; an owner is for \
                      a VM whose hypervisor somebody else starts";
        return Err(Place::root(Document::Config).field("owner").refuse(reason));
    }
    if machine.is_none() {
        refuse_for_hypervisor(&config)?;
    }
    Ok(VmSpec {
        networks: resolve_networks(&manifest.network, &config)?,
        machine,
        ephemeral: config.ephemeral,
        autostart: config.autostart,
        restart: config.restart,
        owner: config.owner,
        attachment: None,
        run_as: config.run_as,
        budget: config.budget,
        vsock: config.vsock,
        manifest: kept.0,
        config: kept.1,
    })
}

/// Refuses what is only for a hypervisor that volnet starts.
fn refuse_for_hypervisor(config: &Config) -> Result<(), Refusal> {
    let args = (!config.args.is_empty()).then_some("args");
    let run_as = config.run_as.is_some().then_some("run_as");
    let limit = config.budget.needs().next().map(Controller::field);
    let machine = [
        ("resources.hugepages", config.resources.hugepages),
        ("resources.balloon", config.resources.balloon),
        ("rng", config.rng),
        ("shares", !config.shares.is_empty()),
    ];
    let machine = machine.into_iter().find(|(_, set)| *set).map(|(field, _)| field);
    for (field, reason) in [
        (args, "volnet starts no hypervisor for this VM, to which it could give them"),
        (machine, "volnet starts no hypervisor for this VM, which could have it"),
        (run_as, "volnet starts no hypervisor for this VM; `owner` says who does"),
        (limit, "volnet starts no hypervisor for this VM, which it could limit"),
    ] {
        if let Some(field) = field {
            return Err(Place::root(Document::Config).field(field).refuse(reason));
        }
    }
    Ok(())
}

/// The networks of the VM. The first is merged with the manifest's section; the ports that stand
/// beside the networks lead to it.
fn resolve_networks(manifest: &Network, config: &Config) -> Result<Vec<NetworkSpec>, Refusal> {
    let none = Network::default();
    let (first, others) = config.networks.split_first().unwrap_or((&none, &[]));
    let mut resolved = resolve_network(manifest, first);
    resolved.expose = ports_of_first(manifest, first, config, resolved.mode);
    let mut networks = vec![resolved];
    networks.extend(others.iter().map(|network| resolve_network(&none, network)));
    let root = Place::root(Document::Config);
    let several = networks.len() > 1;
    for (index, network) in networks.iter().enumerate() {
        let place = match several {
            true => root.field("networks").element(index),
            false => root.field("network"),
        };
        if several && !network.mode.needs_tap_device() {
            let reason =
                format!("a VM of several networks has no interface in {} mode", network.mode);
            return Err(place.field("mode").refuse(reason));
        }
        check_network(&place, network)?;
    }
    check_exposed(&root, &networks)?;
    Ok(networks)
}

/// The ports that lead to the first network: those of the configuration, within the network and
/// beside it, or else those of the manifest. Volant writes the same ports in both places.
fn ports_of_first(manifest: &Network, first: &Network, config: &Config, mode: Mode) -> Vec<Expose> {
    let (within, beside) = (first.expose.as_deref(), config.expose.as_deref());
    if within.is_none() && beside.is_none() {
        // A manifest declares what the image listens on, whatever network it may come to.
        let declared = manifest.expose.iter().flatten().filter(|_| mode.needs_tap_device());
        return declared.cloned().collect();
    }
    let mut ports: Vec<Expose> = within.unwrap_or_default().to_vec();
    for port in beside.unwrap_or_default() {
        let same = |other: &Expose| (other.at(), other.port) == (port.at(), port.port);
        if !within.unwrap_or_default().iter().any(same) {
            ports.push(port.clone());
        }
    }
    ports
}

/// Refuses ports of the host that lead to two places.
fn check_exposed(root: &Place, networks: &[NetworkSpec]) -> Result<(), Refusal> {
    let ports: Vec<&Expose> = networks.iter().flat_map(|network| &network.expose).collect();
    for (at, port) in ports.iter().enumerate() {
        let twice = |other: &&Expose| other.at().meets(&port.at());
        if port.host_port != 0 && ports[..at].iter().any(twice) {
            let reason = format!("{} leads somewhere else already", port.at());
            return Err(root.field("expose").refuse(reason));
        }
    }
    if ports.iter().map(|port| usize::from(port.count)).sum::<usize>() > EXPOSED_MAX {
        let reason = format!("there may be at most {EXPOSED_MAX}");
        return Err(root.field("expose").refuse(reason));
    }
    Ok(())
}

/// Merges the `network` sections field by field. No mode in either means bridged.
fn resolve_network(manifest: &Network, config: &Network) -> NetworkSpec {
    NetworkSpec {
        mode: config.mode.or(manifest.mode).unwrap_or_default(),
        name: config.name.clone(),
        subnet: config.subnet.or(manifest.subnet),
        gateway: config.gateway.or(manifest.gateway),
        ip: config.ip,
        ip6: config.ip6,
        addresses: config.addresses.clone(),
        mac: config.mac,
        inner: config.inner.map(Box::new),
        mtu: config.mtu,
        queues: config.queues,
        traffic: config.traffic.clone(),
        expose: config.expose.clone().unwrap_or_default(),
    }
}

/// What a VM without an address from the host does not have.
const INNER_NEEDS: &str = "inner identity; choose mode bridged, where a guest that asks by DHCP is \
                           answered, too";

/// Refuses settings that have no meaning in this mode. Only the configuration has them.
fn check_network(place: &Place, network: &NetworkSpec) -> Result<(), Refusal> {
    let without_lease = [("ip", network.ip.is_some())];
    let without_tap = [
        ("name", network.name.is_some()),
        ("mac", network.mac.is_some()),
        ("inner", network.inner.is_some()),
        ("ip6", network.ip6.is_some()),
        ("addresses", !network.addresses.is_empty()),
        ("mtu", network.mtu.is_some()),
        ("queues", network.queues.is_some()),
    ];
    let refuse = |name: &str, what: &str| {
        Err(place.field(name).refuse(format!("a VM in {} mode has no {what}", network.mode)))
    };
    let set = |settings: &[(&'static str, bool)]| {
        settings.iter().find(|(_, set)| *set).map(|(name, _)| *name)
    };
    match (set(&without_lease), set(&without_tap).or(network.traffic.named())) {
        (Some(name), _) if !network.mode.needs_ip_allocation() => {
            refuse(name, "address from the host; choose mode bridged, which has the one of ip")
        }
        (_, Some(name)) if !network.mode.needs_tap_device() => refuse(name, "interface"),
        _ if network.inner.is_some() && !network.mode.needs_ip_allocation() => {
            refuse("inner", INNER_NEEDS)
        }
        _ => Ok(()),
    }
}

/// The machine to run; `None` if the documents declare none.
fn resolve_machine_spec(
    manifest: &Manifest,
    config: &Config,
) -> Result<Option<MachineSpec>, Refusal> {
    let initramfs = config.initramfs.as_ref().or(manifest.initramfs.as_ref());
    let rootfs = config.rootfs.as_ref().or(manifest.rootfs.as_ref());
    if config.from.is_some() {
        refuse_beside_snapshot(manifest, config)?;
    }
    let declared = config.hypervisor.is_some()
        || config.from.is_some()
        || config.kernel.is_some()
        || initramfs.is_some()
        || rootfs.is_some()
        || !manifest.disks.is_empty();
    if !declared {
        return Ok(None);
    }
    let from = config.from.clone();
    let own = config.cmdline.as_deref().unwrap_or_default();
    let boots_disk = from.is_none() && rootfs.is_some() && initramfs.is_none() && !names_root(own);
    let cmdline =
        if boots_disk { format!("{ROOT_DISK} {own}").trim_end().into() } else { own.into() };
    let memory_mb = config.resources.memory_mb.or(manifest.resources.memory_mb);
    let memory_mb = memory_mb.unwrap_or(MEMORY_MB_DEFAULT);
    if config.resources.hugepages && memory_mb % HUGE_PAGE_MB != 0 {
        let reason = format!("with huge pages it is a multiple of {HUGE_PAGE_MB}");
        let resources = Place::root(Document::Config).field("resources");
        return Err(resources.field("memory_mb").refuse(reason));
    }
    Ok(Some(MachineSpec {
        hypervisor: config.hypervisor.clone(),
        kernel: config.kernel.clone().map(|path| File { path, sha256: None }),
        initramfs: initramfs.map(FileSource::file).transpose()?,
        disks: rootfs
            .into_iter()
            .chain(&manifest.disks)
            .map(FileSource::disk)
            .collect::<Result<_, _>>()?,
        cpus: config.resources.cpus.or(manifest.resources.cpus).unwrap_or(CPUS_DEFAULT),
        memory_mb,
        hugepages: config.resources.hugepages,
        balloon: config.resources.balloon,
        rng: config.rng,
        shares: config.shares.clone(),
        cmdline,
        args: config.args.clone(),
        from,
    }))
}

/// Refuses what a snapshot says already.
fn refuse_beside_snapshot(manifest: &Manifest, config: &Config) -> Result<(), Refusal> {
    let resources = [config.resources, manifest.resources];
    for (field, is_set) in [
        ("hypervisor", config.hypervisor.is_some()),
        ("kernel_override", config.kernel.is_some()),
        ("kernel_cmdline", config.cmdline.is_some()),
        ("initramfs", config.initramfs.is_some() || manifest.initramfs.is_some()),
        ("resources.cpu_cores", resources.iter().any(|it| it.cpus.is_some())),
        ("resources.memory_mb", resources.iter().any(|it| it.memory_mb.is_some())),
        ("resources.hugepages", config.resources.hugepages),
        ("resources.balloon", config.resources.balloon),
        ("rng", config.rng),
        ("shares", !config.shares.is_empty()),
        ("cloud_init", config.cloud_init.is_some() || manifest.cloud_init.is_some()),
    ] {
        if is_set {
            let reason = "the guest wakes from a snapshot, which says it already";
            return Err(Place::root(Document::Config).field(field).refuse(reason));
        }
    }
    Ok(())
}

/// Whether a kernel command line names the root file system itself.
fn names_root(cmdline: &str) -> bool {
    cmdline.split_ascii_whitespace().any(|word| word.starts_with("root="))
}

#[cfg(test)]
mod tests;
