//! The verbs about VMs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::protocol::frame::MESSAGE_MAX;

use super::command::{Change, Create, Vms};
use super::session::{Session, file};
use super::{DONE, FAILED, Trouble, document, show};

/// The most VMs that are changed at a time, each on its own connection. The daemon takes 64
/// connections of a user.
const AT_A_TIME: usize = 48;

/// `create` and `run`.
pub(super) fn create(session: &mut Session, create: &Create) -> Result<u8, Trouble> {
    let manifest = create.manifest.as_deref().map(read).transpose()?;
    let config = create.config.as_deref().map(read).transpose()?;
    let base = std::env::current_dir()
        .map_err(|e| file("cannot find the current directory", Path::new("."), e))?;
    let parameters =
        document::parameters(create, manifest, config, &base).map_err(Trouble::Input)?;
    let reply = session.call("io.volnet.Create", parameters)?;
    for note in reply.get("notes").and_then(Value::as_array).into_iter().flatten() {
        // There is nobody to report a failure of this to.
        let _ = writeln!(io::stderr(), "volnet: warning: {}", show::text(note));
    }
    session.show(&reply, |reply| {
        let vm = show::vm(reply.get("vm").unwrap_or(&Value::Null));
        if create.dry_run { dry_run(&vm, reply.get("plan")) } else { vm }
    })?;
    Ok(DONE)
}

/// The plan for a shell, with the VM as a comment before it.
fn dry_run(vm: &str, plan: Option<&Value>) -> String {
    let comment: String = vm.lines().map(|line| format!("# {line}\n")).collect();
    comment + &show::plan(plan)
}

/// Reads a document. It is refused if it does not fit a message.
fn read(path: &Path) -> Result<Value, Trouble> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MESSAGE_MAX as u64 + 1).read_to_string(&mut text))
        .map_err(|error| file("cannot read", path, error))?;
    if text.len() > MESSAGE_MAX {
        let reason = format!("{} is longer than {MESSAGE_MAX} bytes", path.display());
        return Err(Trouble::Input(reason));
    }
    serde_json::from_str(&text)
        .map_err(|error| Trouble::Input(format!("{} is not JSON: {error}", path.display())))
}

/// `start`, `stop`, `restart` and `delete`. If one VM fails, the others are still changed.
pub(super) fn change(
    session: &mut Session,
    change: Change,
    vms: Vms,
    timeout_ms: Option<u64>,
) -> Result<u8, Trouble> {
    let names = match vms {
        Vms::Named(names) => names,
        Vms::Running => running(session)?,
    };
    let mut status = DONE;
    for names in names.chunks(AT_A_TIME) {
        let mut under_way = Vec::new();
        for name in names {
            let mut connection = session.connect()?;
            connection.send(change.method(), of_change(name, timeout_ms), false)?;
            under_way.push((name, connection));
        }
        for (name, mut connection) in under_way {
            match connection.receive() {
                Ok(reply) => session.show(&reply.parameters, |reply| {
                    let status = reply.get("vm").map(|vm| show::text(&vm["status"]));
                    format!("{name}: {}\n", status.as_deref().unwrap_or("deleted"))
                })?,
                Err(trouble @ Trouble::NoReply(_)) => {
                    trouble.tell();
                    status = FAILED;
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }
    Ok(status)
}

/// The names of the VMs that run.
fn running(session: &mut Session) -> Result<Vec<String>, Trouble> {
    let reply = session.call("io.volnet.List", json!({}))?;
    let vms = reply.get("vms").and_then(Value::as_array).into_iter().flatten();
    let running = vms.filter(|vm| vm["status"] == "running" || vm["status"] == "stopping");
    Ok(running.map(|vm| show::text(&vm["name"])).collect())
}

/// The parameters of a change.
pub(super) fn of_change(name: &str, timeout_ms: Option<u64>) -> Value {
    let mut parameters = json!({ "name": name });
    if let Some(timeout_ms) = timeout_ms {
        parameters["timeout_ms"] = timeout_ms.into();
    }
    parameters
}

/// `expose` and `unexpose`.
pub(super) fn adjust(
    session: &mut Session,
    method: &str,
    parameters: Value,
) -> Result<u8, Trouble> {
    let reply = session.call(method, parameters)?;
    session.show(&reply, |reply| show::vm(reply.get("vm").unwrap_or(&Value::Null)))?;
    Ok(DONE)
}

/// `get`.
pub(super) fn get(session: &mut Session, name: &str) -> Result<u8, Trouble> {
    let reply = session.call("io.volnet.Get", json!({ "name": name }))?;
    session.show(&reply, |reply| show::vm(reply.get("vm").unwrap_or(&Value::Null)))?;
    Ok(DONE)
}

/// `list`.
pub(super) fn list(session: &mut Session) -> Result<u8, Trouble> {
    let reply = session.call("io.volnet.List", json!({}))?;
    session.show(&reply, |reply| show::vms(reply.get("vms").unwrap_or(&Value::Null)))?;
    Ok(DONE)
}

/// `args`.
pub(super) fn args(
    session: &mut Session,
    name: &str,
    hypervisor: Option<String>,
) -> Result<u8, Trouble> {
    let parameters = json!({ "name": name, "hypervisor": hypervisor });
    let reply = session.call("io.volnet.Args", parameters)?;
    session.show(&reply, |reply| show::plan(reply.get("args")))?;
    Ok(DONE)
}
