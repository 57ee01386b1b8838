//! Checks the program and the files of a VM before anything is made for it.
//!
//! [`check`] is cheap and comes before every start. A [`Checksum`] reads a whole file, which takes
//! long for a large file. It comes only before a start that a client asks for: after the first
//! start, a disk that the guest may write to has other contents.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::user::User;
use super::{disks, handover, shares};
use crate::hypervisor::machine::ResolvedMachine;
use crate::model::error::Refusal;
use crate::model::spec::{File, MachineSpec, Share};

/// Where programs are looked up if the daemon has no `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a file is hashed at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// Finds a program: a path, or a name to be looked up in `PATH`. The error names it.
pub fn find_program(program: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let candidates: Vec<PathBuf> = match program.contains('/') {
        true => vec![program.into()],
        false => env::split_paths(&path).map(|directory| directory.join(program)).collect(),
    };
    let mut reason = format!("cannot start {program}: it is not in PATH");
    for candidate in candidates {
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            // It is not there, or the directory must not be searched.
            Err(error) if error.raw_os_error().is_some() && !program.contains('/') => {}
            Err(error) => reason = format!("cannot start {}: {error}", candidate.display()),
        }
    }
    Err(reason)
}

/// Whether a file can be executed by root, as execve(2) decides it: by any execute bit.
fn executable(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    match metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
        true => Ok(()),
        false => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not an executable file"))
        }
    }
}

/// Checks with the caller's rights that the program and all files of a machine exist and can be
/// read, and that disks can be written unless they are read-only. Those that `giver` has to give
/// need not be open to the caller yet.
pub fn check(
    machine: &ResolvedMachine<'_>,
    program: &str,
    giver: Option<&User>,
) -> Result<(), Refusal> {
    find_program(program)
        .map_err(|reason| Refusal::InvalidConfig { field: "hypervisor".into(), reason })?;
    for Share { path, .. } in &machine.spec.shares {
        fs::read_dir(path).map_err(|error| refuse(shares::FIELD, path, &error.to_string()))?;
    }
    each(machine, |path, _, field, kind| match giver {
        Some(giver) if kind == InputKind::Written && handover::is_handed(path, giver) => Ok(()),
        _ => open(path, kind).map(drop).map_err(|reason| refuse(field, path, &reason)),
    })
}

/// Checks that the disks are of the format that they are said to be of. Disks that do not exist yet
/// or cannot be read are not refused here.
pub fn recognise(machine: &MachineSpec) -> Result<(), Refusal> {
    machine.disks.iter().try_for_each(|disk| {
        let path = &disk.file.path;
        let Ok(file) = open(path, InputKind::RegularOrBlockDevice) else { return Ok(()) };
        match disks::mismatch(&file, disk.format) {
            Some(reason) => Err(refuse("disks", path, &reason)),
            None => Ok(()),
        }
    })
}

/// The files of a machine that have a checksum. `reader` is who reads a file.
pub fn checksums(
    machine: &ResolvedMachine<'_>,
    reader: impl Fn(&Path) -> Option<User>,
) -> Vec<Checksum> {
    let mut all = Vec::new();
    let _ = each(machine, |path, sha256, field, kind| {
        let (reader, path, field) = (reader(path), path.to_owned(), field.to_owned());
        all.extend(sha256.map(|expected| Checksum {
            reader,
            path,
            expected: expected.into(),
            field,
            kind,
        }));
        Ok(())
    });
    all
}

/// A file and its expected checksum.
#[derive(Clone, Debug)]
pub struct Checksum {
    /// With whose rights it is read; `None`: the daemon's.
    reader: Option<User>,
    path: PathBuf,
    /// SHA-256 as 64 lower-case hexadecimal digits.
    expected: String,
    field: String,
    kind: InputKind,
}

impl Checksum {
    /// Reads the file and compares. Between two chunks it calls `is_over`, which says whether
    /// nobody waits for the result any more.
    pub fn compare(&self, is_over: impl Fn() -> bool) -> Result<(), Refusal> {
        let Checksum { reader, path, expected, field, kind } = self;
        let open = || open(path, *kind);
        let open = match reader {
            None => open(),
            Some(user) => user.act(open).unwrap_or_else(|error| Err(error.to_string())),
        };
        let actual = open
            .and_then(|open| hash(open, is_over).map_err(|error| error.to_string()))
            .map_err(|reason| refuse(field, path, &reason))?;
        match actual == *expected {
            true => Ok(()),
            false => {
                let reason = format!("its SHA-256 is {actual}, not {expected}");
                Err(refuse(&format!("{field}.checksum"), path, &reason))
            }
        }
    }
}

/// The use of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InputKind {
    Regular,
    RegularOrBlockDevice,
    /// A file that is written to.
    Written,
}

/// Visits the files of a machine until one is refused. The first disk may come from `rootfs`, so
/// disks have no number here: the path in the reason identifies the disk.
fn each(
    machine: &ResolvedMachine<'_>,
    mut visit: impl FnMut(&Path, Option<&str>, &str, InputKind) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let spec = machine.spec;
    let kernel_hash = spec.kernel.as_ref().and_then(|file| file.sha256.as_deref());
    visit(machine.kernel, kernel_hash, "kernel_override", InputKind::Regular)?;
    if let Some(File { path, sha256 }) = &spec.initramfs {
        visit(path, sha256.as_deref(), "initramfs", InputKind::Regular)?;
    }
    for disk in &spec.disks {
        let File { path, sha256 } = &disk.file;
        let kind = if disk.readonly { InputKind::RegularOrBlockDevice } else { InputKind::Written };
        visit(path, sha256.as_deref(), "disks", kind)?;
    }
    Ok(())
}

fn refuse(field: &str, path: &Path, reason: &str) -> Refusal {
    let reason = format!("{}: {reason}", path.display());
    Refusal::InvalidConfig { field: field.to_owned(), reason }
}

/// Checks the type of a file, then opens it: to open a FIFO would wait for a writer.
fn open(path: &Path, kind: InputKind) -> Result<fs::File, String> {
    let found = fs::metadata(path).map_err(|error| error.to_string())?.file_type();
    match kind {
        InputKind::Regular | InputKind::RegularOrBlockDevice | InputKind::Written
            if found.is_file() => {}
        InputKind::RegularOrBlockDevice | InputKind::Written if found.is_block_device() => {}
        InputKind::Regular => return Err("it is not a regular file".into()),
        InputKind::RegularOrBlockDevice | InputKind::Written => {
            return Err("it is neither a regular file nor a block device".into());
        }
    }
    // If a block device that was open for writing is closed, udev probes it again.
    let write = matches!(kind, InputKind::Written) && found.is_file();
    fs::File::options().read(true).write(write).open(path).map_err(|error| error.to_string())
}

fn hash(mut file: fs::File, is_over: impl Fn() -> bool) -> io::Result<String> {
    use std::fmt::Write;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            _ if is_over() => return Err(io::ErrorKind::Interrupted.into()),
            0 => break,
            count => hash.update(&chunk[..count]),
        }
    }
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::Disk;
    use crate::store::tests::Scratch;

    // printf abc | sha256sum; also FIPS 180-2, B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn file(path: PathBuf, sha256: Option<&str>) -> File {
        File { path, sha256: sha256.map(str::to_owned) }
    }

    fn machine(scratch: &Scratch) -> MachineSpec {
        let path = scratch.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let disk = Disk { file: file(path.clone(), Some(ABC)), readonly: true, ..Disk::default() };
        MachineSpec {
            hypervisor: Some("qemu".into()),
            kernel: Some(file(path.clone(), Some(ABC))),
            initramfs: Some(file(path, None)),
            disks: vec![disk],
            cpus: 1,
            memory_mb: 128,
            ..MachineSpec::default()
        }
    }

    fn verify(spec: &MachineSpec) -> Result<(), Refusal> {
        let kernel = &spec.kernel.as_ref().unwrap().path;
        let machine = ResolvedMachine { spec, hypervisor: "qemu", kernel };
        check(&machine, "/bin/sh", None)?;
        checksums(&machine, |_| None).iter().try_for_each(|file| file.compare(|| false))
    }

    fn refused(result: Result<(), Refusal>) -> (String, String) {
        match result.unwrap_err() {
            Refusal::InvalidConfig { field, reason } => (field, reason),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_as_it_should_be_passes() {
        verify(&machine(&Scratch::new())).unwrap();
    }

    #[test]
    fn what_nobody_wants_to_know_any_more_is_not_read_to_its_end() {
        let scratch = Scratch::new();
        let path = scratch.path().join("endless");
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let (expected, field, kind) = (ABC.into(), "disks".into(), InputKind::Regular);
        Checksum { reader: None, path, expected, field, kind }.compare(|| true).unwrap_err();
    }

    #[test]
    fn every_other_file_is_refused_by_its_field() {
        let scratch = Scratch::new();
        let good = machine(&scratch);
        let path = scratch.path().join("abc");

        let mut bad = good.clone();
        bad.kernel = Some(file("/nonexistent/vmlinux".into(), None));
        let (field, reason) = refused(verify(&bad));
        assert_eq!(field, "kernel_override");
        assert_eq!(reason, "/nonexistent/vmlinux: No such file or directory (os error 2)");

        let mut bad = good.clone();
        bad.initramfs = Some(file(path.clone(), Some(&ABC.replace('b', "c"))));
        let (field, reason) = refused(verify(&bad));
        assert_eq!(field, "initramfs.checksum");
        assert!(reason.starts_with(&format!("{}: its SHA-256 is {ABC}, not ca", path.display())));

        let mut bad = good.clone();
        bad.disks[0].file.path = scratch.path().into();
        let (field, reason) = refused(verify(&bad));
        assert_eq!(field, "disks");
        assert!(reason.ends_with("neither a regular file nor a block device"));

        let mut bad = good;
        bad.initramfs = Some(file("/dev/zero".into(), None));
        assert_eq!(refused(verify(&bad)).1, "/dev/zero: it is not a regular file");
    }

    #[test]
    fn a_program_is_found_by_path_or_by_name() {
        assert!(find_program("sh").unwrap().ends_with("sh"));
        assert_eq!(find_program("/bin/sh").unwrap(), Path::new("/bin/sh"));
        let missing = "cannot start volnet-no-such: it is not in PATH";
        assert_eq!(find_program("volnet-no-such").unwrap_err(), missing);
        let missing = "cannot start /x/y: No such file or directory (os error 2)";
        assert_eq!(find_program("/x/y").unwrap_err(), missing);
        let unfit = "cannot start /etc/passwd: it is not an executable file";
        assert_eq!(find_program("/etc/passwd").unwrap_err(), unfit);
    }
}
