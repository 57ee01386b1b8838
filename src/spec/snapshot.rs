//! The description of a snapshot, `snapshot.json` in its folder: what wakes from it needs this.
//!
//! `config` is the configuration of a VM, as documents have it, with the inner identity that the
//! guest believes in. So it is read and checked as all configurations are, whoever may have written
//! to the folder. [`Snapshot::wake`] merges what is asked for of a clone into it: the machine is
//! that of the snapshot, and all that is outside of it is the clone's own.
//!
//! What only root may say is not taken from the folder: arguments for the hypervisor must be given
//! again, and the same.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::resolve::resolve;
use crate::model::error::Refusal;
use crate::model::inner::Inner;
use crate::model::mode::Mode;
use crate::model::spec::{Disk, MachineSpec, NetworkSpec, VmSpec};

/// The version of the description that this binary writes. Others are refused.
pub const FORMAT: u32 = 1;
/// The file with the description.
pub const DESCRIPTION: &str = "snapshot.json";
/// The most bytes of it.
pub const DESCRIPTION_BYTES_MAX: u64 = 64 << 10;

/// What is in the folder of a snapshot, and what it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// [`FORMAT`] of the binary that wrote it.
    pub format: u32,
    /// By what it was made.
    pub made_by: Made,
    /// The VM, as a configuration.
    pub config: Value,
    /// For each disk of `config`, in its order, the file in the folder with its bytes; null: the
    /// guest does not write to it, and wakes with the same file.
    pub disks: Vec<Option<String>>,
}

/// What runs a guest, which has to be the same where it wakes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The hypervisor by name.
    pub hypervisor: String,
    /// What it says of its version.
    pub version: String,
    /// QEMU's machine; null for others.
    pub machine: Option<String>,
    /// The architecture of the guest.
    pub architecture: String,
    /// Whether the guest runs by KVM.
    pub kvm: bool,
}

/// A NIC of a guest that is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedNic<'a> {
    /// The name of its network.
    pub network: &'a str,
    /// What the guest believes in.
    pub inner: Inner,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Its queue pairs.
    pub queues: u16,
}

/// The configuration of a VM that is saved. `machine` has all defaults filled in, and its kernel.
pub fn describe(machine: &MachineSpec, nics: &[SavedNic<'_>], vsock: bool) -> Value {
    let networks: Vec<Value> = match nics {
        [] => vec![json!({ "mode": Mode::Vsock.as_str() })],
        nics => nics.iter().map(network).collect(),
    };
    let mut config = json!({
        "hypervisor": machine.hypervisor,
        "kernel_override": machine.kernel.as_ref().map(|file| &file.path),
        "kernel_cmdline": machine.cmdline,
        "resources": {
            "cpu_cores": machine.cpus,
            "memory_mb": machine.memory_mb,
            "hugepages": machine.hugepages,
            "balloon": machine.balloon,
        },
        "rng": machine.rng,
        "vsock": vsock && !nics.is_empty(),
        "args": machine.args,
        "networks": networks,
        "manifest": { "disks": machine.disks.iter().map(disk).collect::<Vec<_>>() },
    });
    if let Some(initramfs) = &machine.initramfs {
        config["initramfs"] = json!({ "url": initramfs.path });
    }
    config
}

fn network(nic: &SavedNic<'_>) -> Value {
    let Inner { mac, ip, prefix, gateway, gateway_mac } = nic.inner;
    let mut inner = json!({ "mac": mac, "ip": format!("{ip}/{prefix}"), "gateway": gateway });
    if let Some(gateway_mac) = gateway_mac {
        inner["gateway_mac"] = json!(gateway_mac);
    }
    json!({ "name": nic.network, "inner": inner, "mtu": nic.mtu, "queues": nic.queues })
}

fn disk(disk: &Disk) -> Value {
    let mut described = json!({
        "source": disk.file.path,
        "format": disk.format.as_str(),
        "readonly": disk.readonly,
        "cache": disk.cache.as_str(),
    });
    for (name, limit) in [("mb", disk.limits.mb), ("iops", disk.limits.iops)] {
        if let Some(limit) = limit {
            described["limits"][name] = limit.into();
        }
    }
    described
}

impl Snapshot {
    /// Reads a description. The error says what is wrong with it.
    pub fn read(text: &[u8]) -> Result<Snapshot, String> {
        let wrong = |error: serde_json::Error| format!("{DESCRIPTION}: {error}");
        let value: Value = serde_json::from_slice(text).map_err(wrong)?;
        match value.get("format").and_then(Value::as_u64) {
            Some(format) if format != u64::from(FORMAT) => {
                Err(format!("{DESCRIPTION} has format {format}, and this volnet reads {FORMAT}"))
            }
            _ => serde_json::from_value(value).map_err(wrong),
        }
    }

    /// Refuses to wake a guest where something else would run it.
    pub fn check(&self, folder: &Path, here: &Made) -> Result<(), Refusal> {
        let Made { hypervisor, version, machine, architecture, kvm } = &self.made_by;
        let differs = |needs, made: &str, here: &str| {
            let reason = format!("it was made by {made}, and here is {here}");
            Err(mismatch(folder, needs, reason))
        };
        let kvm_word = |kvm| if kvm { "KVM" } else { "no KVM" };
        if *hypervisor != here.hypervisor {
            return differs("hypervisor", hypervisor, &here.hypervisor);
        }
        if *version != here.version {
            return differs("version", version, &here.version);
        }
        if *machine != here.machine {
            let word = |machine: &Option<String>| machine.clone().unwrap_or_default();
            return differs("machine", &word(machine), &word(&here.machine));
        }
        if *architecture != here.architecture {
            return differs("architecture", architecture, &here.architecture);
        }
        match *kvm == here.kvm {
            true => Ok(()),
            false => differs("kvm", kvm_word(*kvm), kvm_word(here.kvm)),
        }
    }

    /// The VM that wakes from the snapshot in this folder, if this is asked for of it.
    pub fn wake(&self, folder: &Path, asked: &VmSpec) -> Result<VmSpec, Refusal> {
        let saved = resolve(None, Some(&self.config))
            .map_err(|refusal| invalid(folder, refusal.to_string()))?;
        let mut spec = asked.clone();
        spec.networks = networks(folder, &saved, asked)?;
        spec.vsock |= saved.vsock;
        let asked = asked.machine.as_deref().cloned().unwrap_or_default();
        let machine = saved.machine.filter(|machine| machine.hypervisor.is_some());
        let mut machine = machine.ok_or_else(|| invalid(folder, "it has no machine".into()))?;
        if machine.args != asked.args {
            let reason = match machine.args.is_empty() {
                true => "its hypervisor had no arguments of its own".into(),
                false => format!("its hypervisor had these: {}", machine.args.join(" ")),
            };
            return Err(mismatch(folder, "args", reason));
        }
        machine.disks = self.disks(folder, machine.disks, &asked.disks)?;
        machine.from = Some(folder.into());
        spec.machine = Some(machine);
        Ok(spec)
    }

    /// The disks of a clone: its own where the guest writes, in their order. If it names none, they
    /// are those of the snapshot, which are to be copied ([`crate::hypervisor::own_disks`]).
    fn disks(&self, folder: &Path, saved: Vec<Disk>, own: &[Disk]) -> Result<Vec<Disk>, Refusal> {
        if saved.len() != self.disks.len() {
            let (disks, files) = (saved.len(), self.disks.len());
            return Err(invalid(folder, format!("it has {disks} disks, and files for {files}")));
        }
        if let Some(file) = self.disks.iter().flatten().find(|file| !is_plain(file)) {
            return Err(invalid(folder, format!("{file:?} is not the name of a file in it")));
        }
        let written = saved.iter().filter(|disk| !disk.readonly).count();
        if written != own.len() && !own.is_empty() {
            let files = self.disks.iter().zip(&saved).filter(|(_, disk)| !disk.readonly);
            let files: Vec<&str> = files.filter_map(|(file, _)| file.as_deref()).collect();
            let reason = format!(
                "the guest writes to {written}, and {} are given: name a copy of each, in this \
                 order: {}; or none, and volnet copies them",
                own.len(),
                files.join(", ")
            );
            return Err(mismatch(folder, "disks", reason));
        }
        let mut own = own.iter();
        let mut disks = saved;
        for (disk, file) in disks.iter_mut().zip(&self.disks) {
            match (disk.readonly, file) {
                (false, file) => match (own.next(), file) {
                    (Some(mine), _) => *disk = self.own_disk(folder, disk, mine)?,
                    (None, Some(file)) => disk.file.path = folder.join(file),
                    (None, None) => {
                        let disk = disk.file.path.display();
                        return Err(invalid(folder, format!("it has no copy of {disk}")));
                    }
                },
                (true, Some(file)) => disk.file.path = folder.join(file),
                (true, None) => {}
            }
        }
        Ok(disks)
    }

    /// A disk of a clone in the place of one that its guest writes to. Of all hypervisors, only
    /// QEMU is told its cache and its limits when the guest wakes. The others have saved them.
    fn own_disk(&self, folder: &Path, saved: &Disk, mine: &Disk) -> Result<Disk, Refusal> {
        let path = mine.file.path.display();
        let refused = |reason| Err(mismatch(folder, "disks", reason));
        if mine.format != saved.format || mine.readonly {
            let format = saved.format.as_str();
            return refused(format!("{path} is to be {format}, and the guest writes to it"));
        }
        if self.made_by.machine.is_some() {
            return Ok(mine.clone());
        }
        let default = Disk::default();
        let asked = (mine.cache, mine.limits);
        if asked != (default.cache, default.limits) && asked != (saved.cache, saved.limits) {
            return refused(format!("the cache and the limits of {path} are in the snapshot"));
        }
        Ok(Disk { file: mine.file.clone(), ..saved.clone() })
    }
}

/// Whether it names a file in the folder, and nothing outside of it.
fn is_plain(file: &str) -> bool {
    !file.is_empty() && file.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The networks of a clone. What it says of a NIC counts, and the guest believes what it did.
fn networks(folder: &Path, saved: &VmSpec, asked: &VmSpec) -> Result<Vec<NetworkSpec>, Refusal> {
    if asked.networks.len() > saved.networks.len() {
        let (nics, wanted) = (saved.networks.len(), asked.networks.len());
        let reason = format!("the guest has {nics} NICs, and {wanted} are asked for");
        return Err(mismatch(folder, "networks", reason));
    }
    let none = NetworkSpec::default();
    let asked = asked.networks.iter().chain(std::iter::repeat(&none));
    let mut networks = Vec::new();
    for (saved, asked) in saved.networks.iter().zip(asked) {
        let mut network = asked.clone();
        let is_chosen = asked.name.is_some() || asked.subnet.is_some() || asked.gateway.is_some();
        if asked.queues.is_some_and(|queues| Some(queues) != saved.queues) {
            let reason = "the NIC of the guest has another number of queues".into();
            return Err(mismatch(folder, "networks", reason));
        }
        if asked.mode != Mode::default() && asked.mode != saved.mode {
            let reason = format!("the guest was saved in {} mode", saved.mode);
            return Err(mismatch(folder, "networks", reason));
        }
        network.mode = saved.mode;
        network.name = if is_chosen { asked.name.clone() } else { saved.name.clone() };
        network.inner = asked.inner.clone().or_else(|| saved.inner.clone());
        network.mtu = asked.mtu.or(saved.mtu);
        network.queues = saved.queues;
        networks.push(network);
    }
    Ok(networks)
}

/// The refusal of a folder.
pub fn invalid(folder: &Path, reason: String) -> Refusal {
    Refusal::InvalidSnapshot { path: folder.display().to_string(), reason }
}

/// The refusal of a place where the guest cannot wake.
pub fn mismatch(folder: &Path, needs: &'static str, reason: String) -> Refusal {
    Refusal::SnapshotMismatch { path: folder.display().to_string(), needs, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::{DiskFormat, File};

    fn disk(path: &str, readonly: bool) -> Disk {
        let file = File { path: path.into(), sha256: None };
        Disk { file, readonly, format: DiskFormat::Qcow2, ..Disk::default() }
    }

    fn machine() -> MachineSpec {
        MachineSpec {
            hypervisor: Some("qemu".into()),
            kernel: Some(File { path: "/k".into(), sha256: None }),
            initramfs: Some(File { path: "/i".into(), sha256: None }),
            disks: vec![disk("/w", false), disk("/r", true), disk("/run/seed.img", true)],
            cpus: 2,
            memory_mb: 256,
            balloon: true,
            rng: true,
            cmdline: "quiet x=1".into(),
            args: vec!["-device".into(), "x".into()],
            ..MachineSpec::default()
        }
    }

    fn snapshot() -> Snapshot {
        let inner = Inner {
            mac: "02:00:00:00:00:aa".parse().unwrap(),
            ip: "10.0.0.2".parse().unwrap(),
            prefix: 24,
            gateway: "10.0.0.1".parse().unwrap(),
            gateway_mac: Some("02:00:00:00:00:01".parse().unwrap()),
        };
        let nic = SavedNic { network: "front", inner, mtu: 1400, queues: 1 };
        let back = SavedNic { network: "back", ..nic };
        Snapshot {
            format: FORMAT,
            made_by: Made {
                hypervisor: "qemu".into(),
                version: "QEMU 7.2".into(),
                machine: Some("q35".into()),
                architecture: "x86_64".into(),
                kvm: true,
            },
            config: describe(&machine(), &[nic, back], true),
            disks: vec![Some("disk0".into()), None, Some("disk2".into())],
        }
    }

    fn asked(config: &Value) -> VmSpec {
        resolve(None, Some(config)).expect("a configuration")
    }

    fn wake(snapshot: &Snapshot, config: &Value) -> Result<VmSpec, Refusal> {
        snapshot.wake(Path::new("/s"), &asked(config))
    }

    #[test]
    fn what_is_written_is_read_and_wakes_the_same_machine() {
        let text = serde_json::to_vec(&snapshot()).unwrap();
        let read = Snapshot::read(&text).unwrap();
        assert_eq!(read, snapshot());
        let config = json!({
            "from": "/s", "rootfs": { "url": "/own", "format": "qcow2" },
            "args": ["-device", "x"], "network": { "policy": "none", "mtu": 1300 }
        });
        let spec = wake(&read, &config).unwrap();
        let mut expected = machine();
        expected.disks = vec![disk("/own", false), disk("/r", true), disk("/s/disk2", true)];
        expected.from = Some("/s".into());
        assert_eq!(spec.machine.as_deref(), Some(&expected));
        assert!(spec.vsock);
        let [front, back] = spec.networks.as_slice() else { panic!("{:?}", spec.networks) };
        assert_eq!((front.name.as_deref(), front.mtu), (Some("front"), Some(1300)));
        assert_eq!((back.name.as_deref(), back.mtu), (Some("back"), Some(1400)));
        assert_eq!(front.traffic.policy.as_deref(), Some("none"));
        let inner = back.inner.as_ref().expect("an identity");
        assert_eq!((inner.ip.to_string(), inner.prefix), ("10.0.0.2".into(), Some(24)));
    }

    #[test]
    fn a_clone_that_names_no_disks_has_those_of_the_snapshot() {
        let spec = wake(&snapshot(), &json!({ "from": "/s", "args": ["-device", "x"] })).unwrap();
        let expected = [disk("/s/disk0", false), disk("/r", true), disk("/s/disk2", true)];
        assert_eq!(spec.machine.unwrap().disks, expected);
    }

    #[test]
    fn what_is_missing_is_refused_by_one_word() {
        let own = json!({ "url": "/own", "format": "qcow2" });
        let raw = json!({ "url": "/own" });
        let args = json!(["-device", "x"]);
        let nics = json!([{}, {}, {}]);
        let two = json!([{ "source": "/a" }, { "source": "/b" }]);
        for (config, expected) in [
            (json!({ "from": "/s", "rootfs": own }), "args"),
            (json!({ "from": "/s", "args": args, "manifest": { "disks": two } }), "disks"),
            (json!({ "from": "/s", "args": args, "rootfs": raw }), "disks"),
            (json!({ "from": "/s", "args": args, "rootfs": own, "networks": nics }), "networks"),
            (
                json!({ "from": "/s", "args": args, "rootfs": own, "network": { "mode": "dhcp" } }),
                "networks",
            ),
            (
                json!({ "from": "/s", "args": args, "rootfs": own, "network": { "queues": 2 } }),
                "networks",
            ),
        ] {
            match wake(&snapshot(), &config) {
                Err(Refusal::SnapshotMismatch { needs, .. }) => assert_eq!(needs, expected),
                other => panic!("{config}: {other:?}"),
            }
        }
        let mut saved = snapshot();
        saved.made_by.machine = None;
        let limited = json!({ "url": "/own", "format": "qcow2", "limits": { "iops": 5 } });
        let refused = wake(&saved, &json!({ "from": "/s", "args": args, "rootfs": limited }));
        assert!(matches!(refused, Err(Refusal::SnapshotMismatch { needs: "disks", .. })));
        let snapshot = snapshot();
        let here = |change: fn(&mut Made)| {
            let mut made = snapshot.made_by.clone();
            change(&mut made);
            match snapshot.check(Path::new("/s"), &made) {
                Err(Refusal::SnapshotMismatch { needs, .. }) => needs,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(snapshot.check(Path::new("/s"), &snapshot.made_by), Ok(()));
        assert_eq!(here(|made| made.hypervisor = "firecracker".into()), "hypervisor");
        assert_eq!(here(|made| made.version = "QEMU 8.0".into()), "version");
        assert_eq!(here(|made| made.machine = None), "machine");
        assert_eq!(here(|made| made.architecture = "aarch64".into()), "architecture");
        assert_eq!(here(|made| made.kvm = false), "kvm");
    }

    #[test]
    fn what_others_wrote_into_the_folder_is_checked_as_all_configurations_are() {
        let config = json!({
            "from": "/s", "args": ["-device", "x"],
            "rootfs": { "url": "/own", "format": "qcow2" }
        });
        let changes: [fn(&mut Snapshot); 5] = [
            |it| it.config["resources"]["cpu_cores"] = 9999.into(),
            |it| it.config["unknown"] = true.into(),
            |it| it.config["hypervisor"] = Value::Null,
            |it| it.disks[2] = Some("../x".into()),
            |it| drop(it.disks.pop()),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut changed = snapshot();
            change(&mut changed);
            let refused = wake(&changed, &config);
            assert!(
                matches!(refused, Err(Refusal::InvalidSnapshot { .. })),
                "{index}: {refused:?}"
            );
        }
        assert!(Snapshot::read(b"{}").is_err());
        let newer = Snapshot::read(b"{\"format\":2}").unwrap_err();
        assert_eq!(newer, "snapshot.json has format 2, and this volnet reads 1");
    }
}
