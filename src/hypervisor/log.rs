//! The logs of a VM, and their ends, which are shown when its hypervisor failed.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::model::name::VmName;

/// The directory of the logs of messages, in that of all logs. No name of a log in that is the
/// same.
const MESSAGES: &str = "hypervisor";

/// How much of a log is shown, in bytes and in lines.
const TAIL_BYTES: u64 = 2048;
pub(super) const TAIL_LINES: usize = 10;

/// How much of a log is searched for a panic. What the kernel writes after it has some 4 KiB.
const PANIC_BYTES: u64 = 16 * 1024;
/// What every panic of Linux begins with, also if the kernel is to be quiet.
const PANIC: &str = "Kernel panic - not syncing: ";

/// The beginning of the line that is written to the log when a hypervisor is started. Earlier lines
/// are from an earlier run.
pub(super) const HEADER: &str = "--- volnet starts ";

/// The logs of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    /// What its guest prints on the console.
    pub console: PathBuf,
    /// What its hypervisor and the helpers of that say themselves.
    pub messages: PathBuf,
}

impl Logs {
    /// The logs of a VM in the directory of all logs.
    pub fn of(directory: &Path, name: &VmName) -> Logs {
        let file = format!("{name}.log");
        Logs { console: directory.join(&file), messages: directory.join(MESSAGES).join(file) }
    }

    /// Why the hypervisor ended: its last messages since the last start, or what stands at the end
    /// of the console if there are none.
    pub fn tail(&self) -> Option<String> {
        tail_of_log(&self.messages).or_else(|| tail_of_log(&self.console))
    }

    /// Why the guest panicked.
    pub fn tail_of_console(&self) -> Option<String> {
        tail_of_log(&self.console)
    }

    /// Whether the guest's kernel says on its console that it panicked.
    pub fn tell_of_panic(&self) -> bool {
        tells_of_panic(&self.console)
    }
}

/// The last lines of a log since the last start: at most 10 lines and 2048 bytes. Control
/// characters are removed, because they could manipulate the reader's terminal. `None` if nothing
/// was written.
fn tail_of_log(path: &Path) -> Option<String> {
    let (bytes, cut) = last_bytes(path, TAIL_BYTES)?;
    last_lines(&bytes, cut)
}

/// The end of a log, and whether something stands before it.
fn last_bytes(path: &Path, most: u64) -> Option<(Vec<u8>, bool)> {
    // Callers see only the log itself, never the target of a link in its place.
    let named = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut file = File::open(path).ok()?;
    let opened = file.metadata().ok()?;
    if (named.dev(), named.ino()) != (opened.dev(), opened.ino()) {
        return None;
    }
    let length = opened.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most))).ok()?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some((bytes, length > most))
}

/// Whether the guest's kernel panicked since the last start, as its console says within its last
/// bytes (`panic` in kernel/panic.c of Linux). A program in the guest can write the same: then only
/// its own VM is told to have panicked.
fn tells_of_panic(path: &Path) -> bool {
    let Some((bytes, _)) = last_bytes(path, PANIC_BYTES) else { return false };
    let text = String::from_utf8_lossy(&bytes);
    let run = text.rfind(HEADER).map_or(&*text, |at| &text[at..]);
    run.contains(PANIC)
}

/// The lines to show from the end of a log. With `cut`, the first line is probably incomplete.
pub(super) fn last_lines(bytes: &[u8], cut: bool) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines: Vec<&str> = text.lines().collect();
    if cut && lines.len() > 1 {
        lines.remove(0);
    }
    let start = lines.iter().rposition(|line| line.starts_with(HEADER)).map_or(0, |at| at + 1);
    let last = lines.len().saturating_sub(TAIL_LINES).max(start);
    let plain = |line: &&str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    let shown = lines[last..].iter().map(plain).collect::<Vec<_>>().join("\n");
    (!shown.is_empty()).then_some(shown)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::tests::Scratch;

    fn tail(contents: &[u8]) -> Option<String> {
        let scratch = Scratch::new();
        let log = scratch.path().join("log");
        fs::write(&log, contents).unwrap();
        tail_of_log(&log)
    }

    #[test]
    fn the_end_of_the_last_start_is_shown() {
        let log = format!("old\n{HEADER}qemu\nfailed\n{HEADER}qemu\n\x1b[1mno tap\x07\r\nbye");
        assert_eq!(tail(log.as_bytes()).unwrap(), "[1mno tap\nbye");
        assert_eq!(tail(format!("old\n{HEADER}qemu\n").as_bytes()), None);
        assert_eq!(tail_of_log(Path::new("/nonexistent")), None);
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let scratch = Scratch::new();
        let (log, secret) = (scratch.path().join("log"), scratch.path().join("secret"));
        fs::write(&secret, "secret").unwrap();
        symlink(&secret, &log).unwrap();
        assert_eq!(tail_of_log(&log), None);
    }

    #[test]
    fn a_panic_of_the_last_start_is_seen() {
        let scratch = Scratch::new();
        let log = scratch.path().join("log");
        let panic = format!("[    1.2] {PANIC}No working init found.\n");
        let trace = "[    1.3]  panic+0x123/0x456\n".repeat(100);
        for (contents, seen) in [
            (format!("{HEADER}qemu\n{panic}{trace}"), true),
            (format!("{HEADER}qemu\n{panic}{HEADER}qemu\nreboot: Power down\n"), false),
            (String::new(), false),
        ] {
            fs::write(&log, contents).unwrap();
            assert_eq!(tells_of_panic(&log), seen);
        }
    }

    #[test]
    fn it_is_bounded() {
        let many: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        let shown = tail(many.as_bytes()).unwrap();
        assert_eq!(shown.lines().count(), TAIL_LINES);
        assert!(shown.ends_with("line 999"));
        let long = tail(&[b'x'; 10_000]).unwrap();
        assert_eq!(long.len() as u64, TAIL_BYTES);
        assert!(tail(&[0xff; 10_000]).unwrap().chars().all(|c| c == '\u{fffd}'));
    }
}
