//! What the daemon logs, and how a line looks.
//!
//! A line has its message and then fields, such as `vm=web`, by which it can be found. In the
//! format `text` it begins with its level and its module. In the format `journal` it begins with
//! its priority (sd-daemon(3)), which the journal keeps as a field, so that `journalctl -p warning`
//! finds what needs somebody. If the settings name no format, it is that of the journal where
//! standard error is the journal's, which systemd says in `JOURNAL_STREAM` (systemd.exec(5)).

use std::fmt::Write as _;
use std::io::Write as _;

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};

use crate::config::LogFormat;

/// The variable that names the journal's file, as device and inode.
const STREAM: &str = "JOURNAL_STREAM";

/// Logs to standard error from now on.
pub(super) fn log(format: Option<LogFormat>) {
    let level = env_logger::Env::new().filter_or("VOLNET_LOG", "info");
    let mut builder = env_logger::Builder::from_env(level);
    let format = format.unwrap_or_else(|| {
        match std::env::var(STREAM).is_ok_and(|named| Some(named) == standard_error()) {
            true => LogFormat::Journal,
            false => LogFormat::Text,
        }
    });
    builder.format(move |out, record| {
        let (message, fields) = (record.args().to_string(), fields(record));
        let entry = match format {
            LogFormat::Journal => entry(record.level(), &message, &fields),
            LogFormat::Text => {
                format!("{:<5} {}: {message}{fields}\n", record.level(), record.target())
            }
        };
        out.write_all(entry.as_bytes())
    });
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

/// A message with its priority before each of its lines, and its fields behind each: the journal
/// takes each line for an entry.
fn entry(level: Level, message: &str, fields: &str) -> String {
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    message.lines().map(|line| format!("<{priority}>{line}{fields}\n")).collect()
}

/// The fields of a record, each with a space before it. One that says nothing is left out.
fn fields(record: &Record<'_>) -> String {
    let mut fields = Fields(String::new());
    // A field that cannot be shown is missing, and the message is there.
    let _ = record.key_values().visit(&mut fields);
    fields.0
}

struct Fields(String);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = value.to_string();
        let is_plain = |c: char| c.is_ascii_graphic() && c != '"';
        match value.chars().all(is_plain) {
            _ if value.is_empty() => {}
            true => write!(self.0, " {key}={value}")?,
            false => write!(self.0, " {key}={value:?}")?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_the_priority_and_the_fields_of_its_message() {
        let lines = "<4>tap gone vm=web\n<4>again vm=web\n";
        assert_eq!(entry(Level::Warn, "tap gone\nagain", " vm=web"), lines);
        assert_eq!(entry(Level::Error, "no", ""), "<3>no\n");
        assert_eq!(entry(Level::Info, "yes", ""), "<6>yes\n");
    }

    #[test]
    fn a_field_is_one_word_or_quoted_and_is_missing_if_it_is_empty() {
        let pairs = [("vm", "web"), ("id", ""), ("error", "no \"such\"\nVM")];
        let record = Record::builder().key_values(&pairs).build();
        assert_eq!(fields(&record), r#" vm=web error="no \"such\"\nVM""#);
    }
}
