//! What the daemon logs, and how.
//!
//! On a terminal a line has its level and its module. For the journal a line begins with its
//! priority (sd-daemon(3)), which the journal keeps as a field, so that `journalctl -p warning`
//! finds what needs somebody. systemd says in `JOURNAL_STREAM` which file is the journal's
//! (systemd.exec(5)).

use std::io::Write;

use log::Level;

/// The variable that names the journal's file, as device and inode.
const STREAM: &str = "JOURNAL_STREAM";

/// Logs to standard error from now on.
pub(super) fn log() {
    let level = env_logger::Env::new().filter_or("VOLNET_LOG", "info");
    let mut builder = env_logger::Builder::from_env(level);
    builder.format_timestamp(None);
    if std::env::var(STREAM).is_ok_and(|named| Some(named) == standard_error()) {
        builder.format(|line, record| {
            line.write_all(entry(record.level(), &record.args().to_string()).as_bytes())
        });
    }
    builder.init();
}

/// Device and inode of standard error, as the variable has them.
#[cfg(target_os = "linux")]
fn standard_error() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata("/proc/self/fd/2").ok()?;
    Some(format!("{}:{}", file.dev(), file.ino()))
}

/// There is no journal elsewhere.
#[cfg(not(target_os = "linux"))]
fn standard_error() -> Option<String> {
    None
}

/// A message with its priority before each of its lines: the journal takes each for an entry.
fn entry(level: Level, message: &str) -> String {
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    message.lines().map(|line| format!("<{priority}>{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_the_priority_of_its_message() {
        assert_eq!(entry(Level::Warn, "tap gone\nagain"), "<4>tap gone\n<4>again\n");
        assert_eq!(entry(Level::Error, "no"), "<3>no\n");
        assert_eq!(entry(Level::Info, "yes"), "<6>yes\n");
    }
}
