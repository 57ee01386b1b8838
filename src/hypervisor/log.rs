//! The end of a VM's log, to be shown when its hypervisor failed.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How much of a log is shown, in bytes and in lines.
const TAIL_BYTES: u64 = 2048;
pub(super) const TAIL_LINES: usize = 10;

/// The beginning of the line that is written to the log when a hypervisor is started. Earlier lines
/// are from an earlier run.
pub(super) const HEADER: &str = "--- volnet starts ";

/// The last lines of a log since the last start: at most 10 lines and 2048 bytes. Control
/// characters are removed, because they could manipulate the reader's terminal. `None` if nothing
/// was written.
pub fn tail_of_log(path: &Path) -> Option<String> {
    // Callers see only the log itself, never the target of a link in its place.
    let named = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut file = File::open(path).ok()?;
    let opened = file.metadata().ok()?;
    if (named.dev(), named.ino()) != (opened.dev(), opened.ino()) {
        return None;
    }
    let length = opened.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    last_lines(&bytes, length > TAIL_BYTES)
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
