//! The verbs about VMs.

use std::io::{self, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::protocol::client::ErrorReply;
use crate::spec;

use super::command::{Create, Origin, VmVerb, Vms};
use super::session::{Session, file};
use super::{DONE, FAILED, Trouble, document, paths, show};

/// The most VMs that are changed at a time, each on its own connection. The daemon takes 64
/// connections of a user.
const AT_A_TIME: usize = 48;

/// `create` and `run`.
pub(super) fn create(session: &mut Session, create: &Create) -> Result<u8, Trouble> {
    let base = base()?;
    let manifest = create.manifest.as_deref();
    let manifest = manifest.map(|path| document(path, &base, paths::of_manifest)).transpose()?;
    let config = create.config.as_deref();
    let config = config.map(|path| document(path, &base, of_config)).transpose()?;
    let mut parameters =
        document::parameters(create, manifest, config, &base).map_err(Trouble::Input)?;
    // A flag may have named a text, too.
    paths::texts(spec::content_mut(&mut parameters["config"]), &base)?;
    if let Some(count) = create.count {
        return create_many(session, parameters, count);
    }
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

/// `run --count`: each VM is shown when it is up.
fn create_many(session: &mut Session, mut parameters: Value, count: u16) -> Result<u8, Trouble> {
    for field in ["start", "dry_run"] {
        parameters.as_object_mut().expect("it is one").remove(field);
    }
    parameters["count"] = count.into();
    let mut connection = session.connect()?;
    connection.send("io.volnet.CreateMany", parameters, true)?;
    let mut status = DONE;
    loop {
        let reply = connection.receive()?;
        if reply.parameters.contains_key("error") {
            status = FAILED;
        }
        session.show(&reply.parameters, one_of_many)?;
        session.out.flush()?;
        if !reply.continues {
            return Ok(status);
        }
    }
}

/// One of many VMs in a line.
fn one_of_many(reply: &Map<String, Value>) -> String {
    let text = |name: &str| reply.get(name).map(show::text).unwrap_or_default();
    let name = text("name");
    match reply.get("vm") {
        Some(vm) => format!("{name}: {} {}\n", show::text(&vm["status"]), show::text(&vm["ip"])),
        None => {
            let parameters = reply.get("parameters").and_then(Value::as_object).cloned();
            let parameters = parameters.unwrap_or_default();
            format!("{name}: {}\n", ErrorReply { error: text("error"), parameters })
        }
    }
}

/// Reads a document, and settles its paths by its folder.
fn document(
    path: &Path,
    base: &Path,
    settle: fn(&mut Value, &Path) -> Result<(), Trouble>,
) -> Result<Value, Trouble> {
    let mut document = serde_json::from_str(&paths::read(path)?)
        .map_err(|error| Trouble::Input(format!("{} is not JSON: {error}", path.display())))?;
    settle(&mut document, base.join(path).parent().unwrap_or(base))?;
    Ok(document)
}

fn of_config(config: &mut Value, folder: &Path) -> Result<(), Trouble> {
    paths::of_config(spec::content_mut(config), folder)
}

/// The plan for a shell, with the VM as a comment before it.
fn dry_run(vm: &str, plan: Option<&Value>) -> String {
    let comment: String = vm.lines().map(|line| format!("# {line}\n")).collect();
    comment + &show::plan(plan)
}

/// `trace`.
pub(super) fn trace(
    session: &mut Session,
    name: &str,
    from: Option<&Origin>,
    to: Option<&str>,
    seconds: Option<u32>,
) -> Result<u8, Trouble> {
    let (outside, other) = match from {
        None => (None, None),
        Some(Origin::Outside(outside)) => (Some(outside), None),
        Some(Origin::Vm(other)) => (None, Some(other.as_str())),
    };
    let to = match other {
        None => to.map(destination).transpose()?,
        Some(_) => Some((address_of(session, name)?, None)),
    };
    let (ip, port) = to.map_or((None, None), |(ip, port)| (Some(ip), port));
    let mut parameters = json!({ "name": other.unwrap_or(name) });
    for (field, value) in [
        ("from", json!(outside)),
        ("to", json!(ip)),
        ("port", json!(port)),
        ("seconds", json!(seconds)),
    ] {
        if !value.is_null() {
            parameters[field] = value;
        }
    }
    let mut connection = session.connect()?;
    connection.send("io.volnet.Trace", parameters, true)?;
    let mut some = false;
    loop {
        let reply = connection.receive()?;
        let ways = reply.parameters.get("ways").and_then(Value::as_array);
        some |= ways.is_some_and(|ways| !ways.is_empty());
        session.show(&reply.parameters, |told| {
            let end = || show::end_of_trace(some, outside.is_some(), told.get("lost"));
            show::ways(told.get("ways")) + &(!reply.continues).then(end).unwrap_or_default()
        })?;
        session.out.flush()?;
        if !reply.continues {
            return Ok(DONE);
        }
    }
}

/// The address of a VM, for which others send packets.
fn address_of(session: &Session, name: &str) -> Result<IpAddr, Trouble> {
    let reply = session.call("io.volnet.Get", json!({ "name": name }))?;
    let ip = reply.get("vm").and_then(|vm| vm["ip"].as_str()).and_then(|ip| ip.parse().ok());
    ip.ok_or_else(|| Trouble::Input(format!("{name} has no address that packets could be for")))
}

/// A destination: an address or a name of a host, and maybe a port.
fn destination(text: &str) -> Result<(IpAddr, Option<u16>), Trouble> {
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok((ip, None));
    }
    let wrong = |reason: String| Trouble::Input(format!("--to {text}: {reason}"));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(number @ 1..) => (host, Some(number)),
            Ok(_) | Err(_) => return Err(wrong(format!("{port:?} is not a port"))),
        },
        None => (text, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut found = (host, 0).to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    let first = found.next().ok_or_else(|| wrong("it has no address".into()))?;
    Ok((first.ip(), port))
}

/// `start`, `stop`, `restart`, `pause`, `resume` and `delete`. If one VM fails, the others are
/// still changed.
pub(super) fn change(
    session: &mut Session,
    change: VmVerb,
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
    let runs = |vm: &&Value| {
        ["running", "paused", "stopping"].iter().any(|status| vm["status"] == *status)
    };
    let running = vms.filter(runs);
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

/// `snapshot`.
pub(super) fn snapshot(session: &mut Session, name: &str, folder: &Path) -> Result<u8, Trouble> {
    let folder = document::absolute(folder, &base()?).map_err(Trouble::Input)?;
    let reply = session.call("io.volnet.Snapshot", json!({ "name": name, "folder": folder }))?;
    session.show(&reply, |_| format!("{name}: saved in {folder}\n"))?;
    Ok(DONE)
}

/// The folder in which relative paths begin.
fn base() -> Result<PathBuf, Trouble> {
    std::env::current_dir()
        .map_err(|error| file("cannot find the current directory", Path::new("."), error))
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
    kernel_args: bool,
) -> Result<u8, Trouble> {
    let parameters = json!({ "name": name, "hypervisor": hypervisor });
    let reply = session.call("io.volnet.Args", parameters)?;
    session.show(&reply, |reply| match kernel_args {
        true => show::text(&reply["kernel_args"]) + "\n",
        false => show::plan(reply.get("args")),
    })?;
    Ok(DONE)
}
