//! The format of a disk's file, and which VMs have it.
//!
//! The guest gets a raw disk byte by byte. An image of another format that is called raw does not
//! boot, and what the guest writes destroys it. Two guests that have the same disk destroy it, too,
//! if one of them writes to it, and so does one guest that has it twice. QEMU and Cloud Hypervisor
//! lock the files of disks, Firecracker does not, and no lock tells whose the other one is.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::model::error::Refusal;
use crate::model::name::VmName;
use crate::model::spec::{Disk, DiskFormat, MachineSpec};

/// The first bytes of images that are not raw.
const MAGICS: [(&[u8], &str); 7] = [
    // docs/interop/qcow2.rst of QEMU.
    (b"QFI\xfb", "qcow2"),
    // Virtual Disk Format 5.0, "Hosted Sparse Extents" and the descriptor.
    (b"KDMV", "VMDK"),
    (b"COWD", "VMDK"),
    (b"# Disk DescriptorFile", "VMDK"),
    // [MS-VHDX], 2.2.1.
    (b"vhdxfile", "VHDX"),
    // Virtual Hard Disk Image Format Specification: the copy of the footer.
    (b"conectix", "VHD"),
    // block/vdi.c of QEMU begins its header with this text.
    (b"<<< Oracle VM VirtualBox Disk Image >>>", "VDI"),
];

/// How many bytes of a file are compared with these.
const HEAD: u64 = 64;

/// Why a file is not a disk of this format; `None` if it may be one, or cannot be read.
pub(super) fn mismatch(file: &File, format: DiskFormat) -> Option<String> {
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head).ok()?;
    let found = MAGICS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name);
    match (format, found) {
        (DiskFormat::Raw, None) | (DiskFormat::Qcow2, Some("qcow2")) => None,
        (DiskFormat::Raw, Some("qcow2")) => Some(
            "it is a qcow2 image and is called raw: say format: qcow2 (--rootfs FILE,format=qcow2)"
                .into(),
        ),
        (DiskFormat::Raw, Some(other)) => Some(format!(
            "it is a {other} image and is called raw: convert it, with qemu-img convert -O raw"
        )),
        (DiskFormat::Qcow2, _) => Some("it is no qcow2 image".into()),
    }
}

/// Which file or device a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    Device(u64),
    File(u64, u64),
}

fn identity(path: &Path) -> Option<Identity> {
    let found = fs::metadata(path).ok()?;
    Some(match found.file_type().is_block_device() {
        true => Identity::Device(found.rdev()),
        false => Identity::File(found.dev(), found.ino()),
    })
}

/// A disk of a machine, and which file or device it is.
#[derive(Clone, Copy)]
struct Known<'a> {
    disk: &'a Disk,
    identity: Identity,
}

impl Known<'_> {
    fn of(machine: &MachineSpec) -> Vec<Known<'_>> {
        let known = |disk| Some(Known { disk, identity: identity(&disk.file.path)? });
        machine.disks.iter().filter_map(known).collect()
    }

    /// Whether the two are the same, and one of them is written to.
    fn is_harmed_by(&self, other: &Known<'_>) -> bool {
        self.identity == other.identity && !(self.disk.readonly && other.disk.readonly)
    }
}

/// Refuses a disk of a machine that it has twice, or that a running VM has as well, if one of the
/// two writes to it.
pub fn refuse_shared<'a>(
    machine: &MachineSpec,
    others: impl Iterator<Item = (&'a VmName, &'a MachineSpec)>,
) -> Result<(), Refusal> {
    let ours = Known::of(machine);
    for (at, disk) in ours.iter().enumerate() {
        if ours[..at].iter().any(|earlier| disk.is_harmed_by(earlier)) {
            return Err(refuse(disk, "the VM has this disk twice, and writes to it"));
        }
    }
    if ours.is_empty() {
        return Ok(());
    }
    for (name, theirs) in others {
        let theirs = Known::of(theirs);
        let shared = |disk: &&Known| theirs.iter().any(|other| disk.is_harmed_by(other));
        if let Some(disk) = ours.iter().find(shared) {
            let reason = format!("VM {name} runs with this disk, and one of them writes");
            return Err(refuse(disk, &reason));
        }
    }
    Ok(())
}

fn refuse(known: &Known, reason: &str) -> Refusal {
    let reason = format!("{}: {reason}", known.disk.file.path.display());
    Refusal::InvalidConfig { field: "disks".into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec;
    use crate::store::tests::Scratch;

    fn machine(disks: &[(&Path, bool)]) -> MachineSpec {
        let disk = |(path, readonly): &(&Path, bool)| Disk {
            file: spec::File { path: path.to_path_buf(), sha256: None },
            readonly: *readonly,
            ..Disk::default()
        };
        MachineSpec {
            disks: disks.iter().map(disk).collect(),
            cpus: 1,
            memory_mb: 128,
            ..MachineSpec::default()
        }
    }

    #[test]
    fn an_image_is_what_it_is_said_to_be_or_refused() {
        let scratch = Scratch::new();
        let path = scratch.path().join("disk");
        let is = |bytes: &[u8], format| {
            fs::write(&path, bytes).unwrap();
            mismatch(&File::open(&path).unwrap(), format)
        };
        assert_eq!(is(b"", DiskFormat::Raw), None);
        assert_eq!(is(&[0; 4096], DiskFormat::Raw), None);
        assert_eq!(is(b"QFI\xfb\0\0\0\x03", DiskFormat::Qcow2), None);
        for (magic, name) in MAGICS {
            let reason = is(&[magic, &[0; 100]].concat(), DiskFormat::Raw).unwrap();
            assert!(reason.starts_with(&format!("it is a {name} image")), "{reason}");
        }
        assert!(is(b"QFI\xfb", DiskFormat::Raw).unwrap().contains("format: qcow2"));
        assert_eq!(is(b"KDMV", DiskFormat::Qcow2).unwrap(), "it is no qcow2 image");
    }

    #[test]
    fn a_disk_is_shared_only_where_nobody_writes_to_it() {
        let scratch = Scratch::new();
        let [one, two, link] = ["one", "two", "link"].map(|name| scratch.path().join(name));
        fs::write(&one, "").unwrap();
        fs::write(&two, "").unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let running = machine(&[(&two, true), (&one, false)]);
        let other = VmName::new("other").unwrap();
        let shared = |path: &Path, readonly| {
            let result =
                refuse_shared(&machine(&[(path, readonly)]), [(&other, &running)].into_iter());
            result.err().map(|refusal| refusal.to_string())
        };
        for (path, readonly) in [(&one, false), (&link, true), (&two, false)] {
            let words = shared(path, readonly).unwrap();
            let named = format!("{}: VM other runs with this disk", path.display());
            assert!(words.contains(&named), "{words}");
        }
        assert_eq!(shared(&two, true), None);
        assert_eq!(shared(Path::new("/none"), false), None);
    }

    #[test]
    fn a_vm_has_a_disk_twice_only_to_read() {
        let scratch = Scratch::new();
        let [disk, link] = ["disk", "link"].map(|name| scratch.path().join(name));
        fs::write(&disk, "").unwrap();
        std::os::unix::fs::symlink(&disk, &link).unwrap();
        let twice = |one: bool, two: bool| {
            refuse_shared(&machine(&[(&disk, one), (&link, two)]), [].into_iter())
        };
        assert_eq!(twice(true, true), Ok(()));
        for (one, two) in [(true, false), (false, true), (false, false)] {
            let words = twice(one, two).unwrap_err().to_string();
            let named = format!("{}: the VM has this disk twice", link.display());
            assert!(words.contains(&named), "{words}");
        }
    }
}
