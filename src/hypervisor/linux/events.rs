//! What Cloud Hypervisor writes about its guest.
//!
//! If its guest resets itself, Cloud Hypervisor boots it again within the same process
//! (vmm/src/lib.rs, `vm_reboot`). It writes the event `rebooting` of its source `vm`. The events go
//! to a FIFO in the VM's folder, which is made before the process and opened for reading first, so
//! that nobody waits for the other. The FIFO stays when the daemon ends. The next one opens it
//! again; what was written meanwhile is lost, because Cloud Hypervisor does not wait either.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::rights;

/// The event, without white space. Its texts are names, so these bytes mean nothing else.
const RESETS: &[u8] = b"\"event\":\"rebooting\"";
/// Bytes that are read at a time.
const CHUNK: usize = 4096;
/// Chunks that are read in one look: a hypervisor that writes for ever does not keep the loop.
const CHUNKS_MAX: usize = 16;

/// The reading end of the FIFO.
#[derive(Debug)]
pub(super) struct Events {
    fifo: File,
    /// The end of what was read, without white space.
    kept: Vec<u8>,
}

impl Events {
    /// Makes the FIFO, which belongs to the owner of its folder.
    pub(super) fn make(path: &Path) -> Result<Events, String> {
        let folder = path.parent().unwrap_or(path);
        let make = || Ok(mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?);
        rights::act_as_owner(folder, make)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Events::open(path).ok_or_else(|| format!("cannot open {}", path.display()))
    }

    /// Opens the FIFO that an earlier daemon made. `None` if there is none: the hypervisor has
    /// nothing to say, or its user has removed it.
    pub(super) fn open(path: &Path) -> Option<Events> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
        let open = || options.open(path);
        let fifo = rights::act_as_owner(path.parent().unwrap_or(path), open).ok()?;
        let is_fifo = fifo.metadata().is_ok_and(|found| found.file_type().is_fifo());
        is_fifo.then_some(Events { fifo, kept: Vec::new() })
    }

    /// Whether the guest has reset itself, by what was written since the last look.
    pub(super) fn has_reset(&mut self) -> bool {
        let mut chunk = [0; CHUNK];
        let mut reset = false;
        for _ in 0..CHUNKS_MAX {
            match self.fifo.read(&mut chunk) {
                Ok(length) if length > 0 => {
                    let plain = chunk[..length].iter().filter(|byte| !byte.is_ascii_whitespace());
                    self.kept.extend(plain);
                    reset |= self.kept.windows(RESETS.len()).any(|window| window == RESETS);
                    let surplus = self.kept.len().saturating_sub(RESETS.len() - 1);
                    self.kept.drain(..surplus);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        reset
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.fifo.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::store::tests::Scratch;

    #[test]
    fn a_reset_is_heard_once_in_any_cut() {
        let scratch = Scratch::new();
        let path = scratch.path().join("events");
        let mut events = Events::make(&path).unwrap();
        assert!(!events.has_reset(), "nobody writes");
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        let event = "{\n  \"source\": \"vm\",\n  \"event\": \"rebooting\"\n}\n\n";
        for cut in 0..event.len() {
            writer.write_all(&event.as_bytes()[..cut]).unwrap();
            let first = events.has_reset();
            writer.write_all(&event.as_bytes()[cut..]).unwrap();
            assert!(first ^ events.has_reset(), "{cut}");
        }
        writer.write_all(b"{\"event\": \"rebooted\"}\n\n").unwrap();
        assert!(!events.has_reset());
    }

    #[test]
    fn another_file_in_its_place_is_not_read() {
        let scratch = Scratch::new();
        let path = scratch.path().join("events");
        assert!(Events::open(&path).is_none());
        std::fs::write(&path, "").unwrap();
        assert!(Events::open(&path).is_none());
    }
}
