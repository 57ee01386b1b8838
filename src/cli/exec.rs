//! `exec`: runs a program of the caller with a VM's tap open.
//!
//! The descriptor comes over the socket and stays open across execve(2), so the program needs no
//! rights on the tap. The program replaces this one.

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::json;

use super::Trouble;
use super::session::Session;

/// The text that is replaced by the number of the descriptor.
const WORD: &str = "{fd}";

/// Becomes the program. Returns only if that fails.
pub(super) fn exec(
    session: &Session,
    name: &str,
    program: &str,
    args: &[String],
) -> Result<u8, Trouble> {
    let mut connection = session.connect()?;
    let descriptor =
        connection.call_for_descriptor("io.volnet.OpenTap", json!({ "name": name }))?;
    let number = descriptor.to_string();
    let args = args.iter().map(|arg| arg.replace(WORD, &number));
    let error = Command::new(program).args(args).exec();
    Err(Trouble::File { what: format!("cannot run {program}"), error })
}
