//! `exec`: runs a program of the caller with a VM's tap open.
//!
//! The descriptor comes over the socket and stays open across execve(2), so the program needs no
//! rights on the tap. The program replaces this one. Words in its arguments are replaced by what
//! only the daemon knows, so that a whole command line can be written down beforehand.

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::{Value, json};

use super::session::Session;
use super::{Trouble, show};

/// The text that is replaced by the number of the first descriptor.
const FIRST: &str = "{fd}";
/// The text that is replaced by the numbers of all descriptors, with commas between them.
const ALL: &str = "{fds}";
/// The text that is replaced by the guest's Ethernet address.
const MAC: &str = "{mac}";
/// The text that is replaced by what belongs to the guest's kernel command line.
const KERNEL_ARGS: &str = "{kernel_args}";

/// What the words of arguments stand for.
#[derive(Debug, Default)]
struct Words {
    /// The numbers of the open descriptors, one for each queue.
    numbers: Vec<String>,
    mac: String,
    kernel_args: String,
}

/// Becomes the program. Returns only if that fails.
pub(super) fn exec(
    session: &Session,
    name: &str,
    program: &str,
    args: &[String],
) -> Result<u8, Trouble> {
    let reply = session.call("io.volnet.Get", json!({ "name": name }))?;
    let vm = reply.get("vm").unwrap_or(&Value::Null);
    let guest_mac = if vm["inner"].is_null() { &vm["mac"] } else { &vm["inner"]["mac"] };
    let mut words = Words {
        numbers: Vec::new(),
        mac: show::text(guest_mac),
        kernel_args: show::text(&vm["kernel_args"]),
    };
    let queues = vm["nics"][0]["queues"].as_u64().unwrap_or(1);
    for _ in 0..if wants_all(args) { queues } else { 1 } {
        // The descriptor is the first thing on a connection.
        let mut connection = session.connect()?;
        let tap = connection.call_for_descriptor("io.volnet.OpenTap", json!({ "name": name }))?;
        words.numbers.push(tap.to_string());
    }
    let args = args.iter().map(|arg| words.fill(arg));
    let error = Command::new(program).args(args).exec();
    Err(Trouble::File { what: format!("cannot run {program}"), error })
}

/// Whether the program gets a descriptor for each queue of the tap, and not only the first.
fn wants_all(args: &[String]) -> bool {
    let numbered = |arg: &str| {
        let ends = arg.match_indices("{fd").map(|(at, word)| &arg[at + word.len()..]);
        ends.filter_map(|end| end.bytes().next()).any(|byte| byte.is_ascii_digit())
    };
    args.iter().any(|arg| arg.contains(ALL) || numbered(arg))
}

impl Words {
    /// An argument with its words replaced.
    fn fill(&self, arg: &str) -> String {
        let mut arg = arg.replace(ALL, &self.numbers.join(","));
        for (queue, number) in self.numbers.iter().enumerate() {
            arg = arg.replace(&format!("{{fd{queue}}}"), number);
        }
        arg.replace(FIRST, self.numbers.first().map_or("", String::as_str))
            .replace(MAC, &self.mac)
            .replace(KERNEL_ARGS, &self.kernel_args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_has_a_word() {
        let words = Words {
            numbers: vec!["7".into(), "9".into()],
            mac: "02:00:00:00:00:01".into(),
            kernel_args: "ip=10.0.0.2".into(),
        };
        for (arg, all, expected) in [
            ("fd={fd},mac={mac}", false, "fd=7,mac=02:00:00:00:00:01"),
            ("fd=[{fds}],num_queues=4", true, "fd=[7,9],num_queues=4"),
            ("fds={fd0}:{fd1}", true, "fds=7:9"),
            ("console=ttyS0 {kernel_args}", false, "console=ttyS0 ip=10.0.0.2"),
            ("{fd2} {fdx} {}", true, "{fd2} {fdx} {}"),
        ] {
            assert_eq!(wants_all(&[arg.into()]), all, "{arg}");
            assert_eq!(words.fill(arg), expected);
        }
    }
}
