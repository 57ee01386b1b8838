//! `exec`: runs a program of the caller with a VM's tap open.
//!
//! The descriptor comes over the socket and stays open across execve(2), so the program needs no
//! rights on the tap. The program replaces this one.

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::json;

use super::Trouble;
use super::session::Session;

/// The text that is replaced by the number of the first descriptor.
const FIRST: &str = "{fd}";
/// The text that is replaced by the numbers of all descriptors, with commas between them.
const ALL: &str = "{fds}";

/// Becomes the program. Returns only if that fails.
pub(super) fn exec(
    session: &Session,
    name: &str,
    program: &str,
    args: &[String],
) -> Result<u8, Trouble> {
    let wanted = if wants_all(args) { queues(session, name)? } else { 1 };
    let mut numbers = Vec::new();
    for _ in 0..wanted {
        // The descriptor is the first thing on a connection.
        let mut connection = session.connect()?;
        let tap = connection.call_for_descriptor("io.volnet.OpenTap", json!({ "name": name }))?;
        numbers.push(tap.to_string());
    }
    let args = args.iter().map(|arg| filled(arg, &numbers));
    let error = Command::new(program).args(args).exec();
    Err(Trouble::File { what: format!("cannot run {program}"), error })
}

/// The queue pairs of a VM's tap.
fn queues(session: &Session, name: &str) -> Result<u64, Trouble> {
    let reply = session.call("io.volnet.Get", json!({ "name": name }))?;
    let queues = reply.get("vm").and_then(|vm| vm["nics"][0]["queues"].as_u64());
    Ok(queues.unwrap_or(1))
}

/// Whether the program gets a descriptor for each queue of the tap, and not only the first.
fn wants_all(args: &[String]) -> bool {
    let numbered = |arg: &str| {
        let ends = arg.match_indices("{fd").map(|(at, word)| &arg[at + word.len()..]);
        ends.filter_map(|end| end.bytes().next()).any(|byte| byte.is_ascii_digit())
    };
    args.iter().any(|arg| arg.contains(ALL) || numbered(arg))
}

/// An argument with the numbers of descriptors in the place of its words.
fn filled(arg: &str, numbers: &[String]) -> String {
    let arg = arg.replace(ALL, &numbers.join(","));
    let arg = numbers
        .iter()
        .enumerate()
        .fold(arg, |arg, (queue, number)| arg.replace(&format!("{{fd{queue}}}"), number));
    arg.replace(FIRST, numbers.first().map_or("", String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_has_a_word() {
        let numbers = ["7".to_string(), "9".to_string()];
        for (arg, all, expected) in [
            ("fd={fd}", false, "fd=7"),
            ("fd=[{fds}],num_queues=4", true, "fd=[7,9],num_queues=4"),
            ("fds={fd0}:{fd1}", true, "fds=7:9"),
            ("{fd2} {fdx} {}", true, "{fd2} {fdx} {}"),
        ] {
            assert_eq!(wants_all(&[arg.into()]), all, "{arg}");
            assert_eq!(filled(arg, &numbers), expected);
        }
    }
}
