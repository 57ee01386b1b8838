//! Bodies of fuzz targets: each takes any bytes, and panics where this module breaks a promise.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use serde_json::Value;

use super::command::{Command, Invocation, Vms};
use super::{Trouble, args, document, show, vm};
use crate::protocol::client;
use crate::protocol::request::{self, CallFault};

/// Whatever a reply has, the terminal gets text and no control sequences.
pub fn show(bytes: &[u8]) {
    let views = [show::vm, show::vms, show::networks, show::findings, show::event];
    let fields = ["vm", "vms", "networks", "findings", "event"];
    match client::decode(bytes) {
        Ok(reply) => {
            for (view, field) in views.into_iter().zip(fields) {
                plain(&view(reply.parameters.get(field).unwrap_or(&Value::Null)));
            }
            plain(&show::plan(reply.parameters.get("plan")));
            plain(&show::version(&reply.parameters));
        }
        Err(error) => plain(&Trouble::NoReply(error).words()),
    }
}

fn plain(text: &str) {
    let commands = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!text.contains(commands), "{text:?}");
}

/// A command line, one word per line, is wrong or makes a call that the daemon can decode.
pub fn command_line(bytes: &[u8]) {
    let words = bytes.split(|&byte| byte == b'\n').map(|word| OsString::from_vec(word.into()));
    let program = OsString::from("volnet");
    let (method, parameters) = match args::parse(std::iter::once(program).chain(words)) {
        Ok(Invocation { command: Command::Create(create), .. }) => {
            let base = Path::new("/home/me");
            let Ok(parameters) = document::parameters(&create, None, None, base) else { return };
            ("io.volnet.Create", parameters)
        }
        Ok(Invocation { command: Command::VmVerb { change, vms, timeout_ms }, .. }) => match vms {
            Vms::Named(names) => (change.method(), vm::of_change(&names[0], timeout_ms)),
            Vms::Running => return,
        },
        Ok(Invocation { command: Command::Adjust { method, parameters }, .. }) => {
            (method, parameters)
        }
        Ok(_) => return,
        Err(usage) => return assert!(!usage.reason.is_empty()),
    };
    let call = client::call(method, parameters, false);
    match request::decode(&call).map_err(|rejected| rejected.fault) {
        Ok(_) | Err(CallFault::Refused(_)) => {}
        Err(fault) => panic!("{fault:?}: {}", String::from_utf8_lossy(&call)),
    }
}
