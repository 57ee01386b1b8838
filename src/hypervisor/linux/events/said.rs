//! What a message of a hypervisor says of its guest.
//!
//! The messages are objects of JSON, one behind the other. QEMU writes each in a line
//! (docs/interop/qmp-spec.rst), Cloud Hypervisor in several, with an empty line behind
//! (event_monitor/src/lib.rs). A daemon that comes later may begin to read within one.

use serde_json::Value;

use crate::model::record::{GuestEnd, Halt, Motion};

/// The longest message that is understood, in bytes. QEMU tells of a disk in 2 KB.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// A crash kernel runs in place of the guest's, and resets the guest at its end.
pub(super) const CRASHES: GuestEnd = GuestEnd { over: false, ..GuestEnd::PANIC };
/// The hypervisor ends at once by itself.
pub(super) const SIGNALLED: GuestEnd = GuestEnd { over: false, signalled: true, ..GuestEnd::RESET };

/// A message that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The guest has ended, or will.
    End(GuestEnd),
    /// It goes on, or stands still.
    Moves(Motion),
    /// It stands still. Why has to be asked.
    Stopped,
    /// The disk that could not be read or written, if there is one.
    Disk(Option<Halt>),
}

/// Cuts what is read into objects.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// The beginning of one.
    object: Vec<u8>,
    /// How many braces are open.
    depth: u32,
    quoted: bool,
    escaped: bool,
}

impl Objects {
    /// Takes the next byte, and gives the object that it ends, unless that is too long.
    pub(super) fn take(&mut self, byte: u8) -> Option<Value> {
        let escaped = std::mem::take(&mut self.escaped);
        let before = self.depth;
        match byte {
            // No text of JSON has one. So a first part that was missed ends here.
            b'\n' => self.quoted = false,
            _ if escaped => {}
            b'\\' => self.escaped = self.quoted,
            b'"' => self.quoted = !self.quoted,
            b'{' if !self.quoted => self.depth += 1,
            b'}' if !self.quoted => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if (before, self.depth) == (0, 0) {
            return None;
        }
        if self.object.len() < MESSAGE_BYTES_MAX {
            self.object.push(byte);
        }
        match self.depth {
            0 => serde_json::from_slice(&std::mem::take(&mut self.object)).ok(),
            _ => None,
        }
    }
}

/// What a message of Cloud Hypervisor says (event_monitor/src/lib.rs, `Vm` in vmm/src/vm.rs,
/// devices/src/pvpanic.rs).
pub(super) fn by_cloud_hypervisor(message: &Value) -> Option<Said> {
    let word = |name: &str| message[name].as_str();
    Some(match (word("source")?, word("event")?) {
        ("vm", "rebooting") => Said::End(GuestEnd::RESET),
        // After a power-off, and if somebody at its API ends the guest (`vm_shutdown` in
        // vmm/src/lib.rs).
        ("vm", "shutdown") => Said::End(GuestEnd::OFF),
        ("vm", "paused") => Said::Moves(Motion::Paused),
        ("vm", "resumed") => Said::Moves(Motion::Goes),
        ("guest", "panic") => match message["properties"]["event"].as_str()? {
            "panic" => Said::End(GuestEnd::PANIC),
            "crash_loaded" => Said::End(CRASHES),
            _ => return None,
        },
        _ => return None,
    })
}

/// What a message of QEMU says (qapi/run-state.json, qapi/misc.json, qapi/block-core.json): an
/// event, or an answer.
pub(super) fn by_qmp(message: &Value) -> Option<Said> {
    let Some(event) = message["event"].as_str() else { return answered(&message["return"]) };
    Some(match event {
        "GUEST_PANICKED" => Said::End(GuestEnd::PANIC),
        "GUEST_CRASHLOADED" => Said::End(CRASHES),
        "SHUTDOWN" => match message["data"]["reason"].as_str()? {
            "guest-panic" => Said::End(GuestEnd::PANIC),
            "host-signal" => Said::End(SIGNALLED),
            _ => return None,
        },
        "STOP" => Said::Stopped,
        "RESUME" => Said::Moves(Motion::Goes),
        _ => return None,
    })
}

/// The answer to `query-block` or `query-status`.
fn answered(value: &Value) -> Option<Said> {
    if let Value::Array(disks) = value {
        return Some(Said::Disk(disks.iter().find_map(failed)));
    }
    Some(Said::Moves(match value["status"].as_str()? {
        "running" => Motion::Goes,
        "paused" => Motion::Paused,
        "io-error" => Motion::Halted(Halt::Disk { index: None, full: false }),
        "internal-error" => Motion::Halted(Halt::Broken),
        "watchdog" => Motion::Halted(Halt::Watchdog),
        _ => return None,
    }))
}

/// Whether this disk could not be read or written. Ours are `disk0`, `disk1` …
fn failed(disk: &Value) -> Option<Halt> {
    let full = match disk["io-status"].as_str()? {
        "nospace" => true,
        "failed" => false,
        _ => return None,
    };
    let index = disk["device"].as_str().and_then(|name| name.strip_prefix("disk")?.parse().ok());
    Some(Halt::Disk { index, full })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Value> {
        let mut objects = Objects::default();
        bytes.iter().filter_map(|byte| objects.take(*byte)).collect()
    }

    #[test]
    fn objects_are_found_in_any_form_and_from_any_beginning() {
        let first = r#"{"a": "}\"{\\", "b": {"c": [{}]}}"#;
        let second = "{\n  \"event\": \"x\",\n  \"properties\": {\n    \"y\": \"z\"\n  }\n}";
        let both = format!("{first}\r\n{second}\n\n{second}\n\n");
        let (one, two): (Value, Value) =
            (serde_json::from_str(first).unwrap(), serde_json::from_str(second).unwrap());
        assert_eq!(all(both.as_bytes()), [one, two.clone(), two.clone()]);
        for cut in first.len() + 3..first.len() + 2 + second.len() {
            assert_eq!(all(&both.as_bytes()[cut..]).last(), Some(&two), "from {cut}");
        }
    }

    #[test]
    fn an_object_without_end_is_not_kept() {
        let mut objects = Objects::default();
        let long = std::iter::repeat_n(b'x', 2 * MESSAGE_BYTES_MAX);
        let bytes: Vec<u8> = b"{\"a\":\"".iter().copied().chain(long).collect();
        assert!(bytes.iter().all(|byte| objects.take(*byte).is_none()));
        assert_eq!(objects.object.len(), MESSAGE_BYTES_MAX);
        assert!(b"\"}".iter().all(|byte| objects.take(*byte).is_none()));
        assert_eq!(b"{}".iter().filter_map(|byte| objects.take(*byte)).count(), 1);
    }
}
