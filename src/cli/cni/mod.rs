//! volnet as a CNI plugin: the verbs of SPEC.md 1.1.0 (containernetworking/cni) as calls of the
//! daemon.
//!
//! An engine runs the program without arguments, with `CNI_COMMAND` in the environment and a
//! configuration on standard input. The plugin keeps nothing: what it is asked about is in the
//! records of the daemon. It opens the door to the namespace, calls the daemon once, and prints the
//! result.
//!
//! DEL always succeeds for what is not there. Without a daemon it deletes the link itself; then the
//! kernel removes both ends, and the daemon releases the rest when it is back.
//!
//! A link to the program with the name `loopback` does what the reference plugin of that name does.

mod call;
mod conf;
mod error;
mod loopback;
mod result;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::attach::{self, open_door, put_aside};
use super::connection::Connection;
use super::{DONE, FAILED, Trouble};
use crate::config::{self, Flags};
use crate::model::attachment::AttachmentId;
use crate::network::linux::{addresses, redirect, veth};
use call::{Conf, Environment, VERSIONS, find};
use error::{
    CONFIGURATION, CniError, DIFFERS, ENVIRONMENT, FAILED as FAILURE, INPUT, LATER, LIMITED,
    UNAVAILABLE,
};

/// The variable with the verb. Whoever sets it runs a plugin.
pub(super) const COMMAND: &str = "CNI_COMMAND";
/// The name by which the program is the reference plugin of that name.
const LOOPBACK: &str = "loopback";
/// The most bytes of a configuration.
const CONF_BYTES_MAX: u64 = 1 << 20;

/// How long the daemon may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a verb prints; nothing, if that is none.
type Printed = Option<Value>;

/// Runs the verb of the environment, and returns the exit status.
pub(super) fn run(program: &OsStr, input: impl Read, out: &mut dyn Write) -> u8 {
    let environment = Environment::of_process();
    let mut version = VERSIONS[VERSIONS.len() - 1].to_string();
    let done = read(input).and_then(|conf| {
        if VERSIONS.contains(&conf.version.as_str()) {
            version.clone_from(&conf.version);
        }
        let program = PathBuf::from(program);
        match program.file_name().is_some_and(|name| name == LOOPBACK) {
            true => loopback::verb(&conf, &environment),
            false => verb(&conf, &environment),
        }
    });
    let (printed, status) = match done {
        Ok(printed) => (printed, DONE),
        Err(error) => (Some(error.json(&version)), FAILED),
    };
    let written = printed.map_or(Ok(()), |printed| writeln!(out, "{printed}"));
    if written.and_then(|()| out.flush()).is_err() { FAILED } else { status }
}

fn read(input: impl Read) -> Result<Conf, CniError> {
    let mut bytes = Vec::new();
    let read = input.take(CONF_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| CniError::new(INPUT, format!("standard input: {error}")))?;
    if bytes.len() as u64 > CONF_BYTES_MAX {
        let words = format!("the configuration is longer than {CONF_BYTES_MAX} bytes");
        return Err(CniError::new(INPUT, words));
    }
    Conf::read(&bytes)
}

fn verb(conf: &Conf, environment: &Environment) -> Result<Printed, CniError> {
    match environment.required(COMMAND)? {
        "VERSION" => Ok(Some(versions(conf))),
        "ADD" => conf.check_version("0.3.0").and_then(|()| add(conf, environment)),
        "DEL" => conf.check_version("0.3.0").and_then(|()| del(conf, environment)),
        "CHECK" => conf.check_version("0.4.0").and_then(|()| check(conf, environment)),
        "STATUS" => conf.check_version("1.1.0").and_then(|()| status(conf)),
        "GC" => conf.check_version("1.1.0").and_then(|()| gc(conf)),
        other => Err(unknown(other)),
    }
}

fn unknown(verb: &str) -> CniError {
    CniError::new(ENVIRONMENT, format!("{COMMAND}: there is no verb {verb:?}"))
}

fn versions(conf: &Conf) -> Value {
    let version = match VERSIONS.contains(&conf.version.as_str()) {
        true => conf.version.as_str(),
        false => VERSIONS[VERSIONS.len() - 1],
    };
    json!({ "cniVersion": version, "supportedVersions": VERSIONS })
}

/// Attaches the namespace. If that fails, nothing is left of it.
fn add(conf: &Conf, environment: &Environment) -> Result<Printed, CniError> {
    conf::check_first(conf)?;
    let id = environment.attachment(conf)?;
    let netns = environment.required("CNI_NETNS")?;
    let (config, dns) = (conf::vm(conf, environment)?, conf::dns(conf)?);
    let attachment = json!({
        "cni": id.cni, "container": id.container, "ifname": id.ifname, "netns": netns,
        "tap": conf::tap(conf, environment)?, "labels": labels(&environment.args()?)
    });
    let mut daemon = connect(conf)?;
    let door = open_door(netns)
        .map_err(|trouble| CniError::new(error::UNKNOWN_CONTAINER, trouble.words()))?;
    // Some engines listen on the ports that they publish, to keep others from taking them.
    let parameters = json!({ "attachment": attachment, "config": config, "force": true });
    let reply = attach::call(&mut daemon, parameters, &door)?;
    Ok(Some(result::of(&reply.parameters, &conf.version, dns)))
}

/// What an engine calls a container, from what it says of it.
fn labels(args: &BTreeMap<&str, &str>) -> Map<String, Value> {
    let pod = args.get("K8S_POD_NAMESPACE").zip(args.get("K8S_POD_NAME"));
    let label = pod.map(|(namespace, name)| ("pod".into(), json!(format!("{namespace}/{name}"))));
    label.into_iter().collect()
}

/// Releases the attachment. It is no error if there is none, nor if there is no daemon.
fn del(conf: &Conf, environment: &Environment) -> Result<Printed, CniError> {
    let id = environment.attachment(conf)?;
    let released = connect(conf).and_then(|mut daemon| Ok(detach(&mut daemon, &id)?));
    if let Some(mut door) = environment.get("CNI_NETNS").and_then(|netns| open_door(netns).ok()) {
        let done = match released {
            Ok(()) => put_aside(&mut door, &id),
            Err(_) => veth::remove_inner(&mut door, &id.ifname)
                .and_then(|()| redirect::remove_left_over(&mut door, &veth::alias(&id))),
        };
        done.map_err(|error| {
            CniError::new(FAILURE, error.failure("remove", &*id.ifname).to_string())
        })?;
    }
    match released {
        Err(error) if error.code != LATER => Err(error),
        Ok(()) | Err(_) => Ok(None),
    }
}

fn detach(daemon: &mut Connection, id: &AttachmentId) -> Result<(), Trouble> {
    daemon.call("io.volnet.Detach", json!(id)).map(drop)
}

/// Compares what was added with what there is: outside the daemon does, inside the plugin.
fn check(conf: &Conf, environment: &Environment) -> Result<Printed, CniError> {
    let id = environment.attachment(conf)?;
    let netns = environment.required("CNI_NETNS")?;
    let reply = connect(conf)?.call("io.volnet.Verify", json!(id))?.parameters;
    let outside = reply["differences"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut differences: Vec<String> = outside.map(String::from).collect();
    differences.extend(inside(netns, &id, &reply["vm"])?);
    if differences.is_empty() {
        return Ok(None);
    }
    let message = format!("{} of {} differs", id.ifname, id.container);
    let details = differences.join("\n");
    Err(CniError { details, ..CniError::new(DIFFERS, message) })
}

/// What differs in the namespace.
fn inside(netns: &str, id: &AttachmentId, vm: &Value) -> Result<Vec<String>, CniError> {
    let ifname = id.ifname.as_str();
    let failed = |error: crate::network::linux::socket::Error| {
        CniError::new(FAILURE, error.failure("read", ifname).to_string())
    };
    let mut door = open_door(netns)
        .map_err(|trouble| CniError::new(error::UNKNOWN_CONTAINER, trouble.words()))?;
    let Some(link) = veth::inner(&mut door, ifname).map_err(failed)? else {
        return Ok(vec![format!("there is no link {ifname} of volnet")]);
    };
    let mut differences = Vec::new();
    if !link.up {
        differences.push(format!("{ifname} is down"));
    }
    let mac = vm["mac"].as_str().unwrap_or_default();
    if link.mac.to_string() != mac {
        differences.push(format!(
            "{ifname} has the Ethernet address {}, not {mac}: what it sends is dropped",
            link.mac
        ));
    }
    if let Some(tap) = vm["attachment"]["tap"].as_str() {
        let differ = redirect::differences(&mut door, (tap, &veth::alias(id)), link.index);
        differences.extend(differ.map_err(failed)?);
        return Ok(differences);
    }
    let has = addresses::observe(&mut door).map_err(failed)?;
    for wanted in [&vm["ip"], &vm["ip6"]].into_iter().filter_map(Value::as_str) {
        let is_it = |(index, address, _): &(u32, IpAddr, u8)| {
            *index == link.index && address.to_string() == wanted
        };
        if !has.iter().any(is_it) {
            differences.push(format!("{ifname} has not the address {wanted}"));
        }
    }
    let routes = addresses::routes(&mut door).map_err(failed)?;
    if !routes.all.iter().any(|(_, prefix)| prefix.length() == 0) {
        differences.push("there is no default route".into());
    }
    Ok(differences)
}

/// Whether something can be added.
fn status(conf: &Conf) -> Result<Printed, CniError> {
    let network = conf.field("network").and_then(Value::as_str);
    let asked = connect(conf).and_then(|mut daemon| {
        Ok(daemon.call("io.volnet.Ready", json!({ "network": network }))?.parameters)
    });
    let reply = asked.map_err(|error| match error.code {
        CONFIGURATION => error,
        _ => CniError { code: UNAVAILABLE, ..error },
    })?;
    let is = |field: &str| reply.get(field) == Some(&json!(true));
    let reason = reply.get("reason").and_then(Value::as_str).unwrap_or("it is not ready");
    match (is("ready"), is("limited")) {
        (true, false) => Ok(None),
        (false, false) => Err(CniError::new(UNAVAILABLE, reason)),
        (_, true) => Err(CniError::new(LIMITED, reason)),
    }
}

/// Releases the attachments of this configuration that are not among the valid ones. If one fails,
/// the others are still released.
fn gc(conf: &Conf) -> Result<Printed, CniError> {
    let valid = conf.field("cni.dev/valid-attachments").or(conf.field("cni.dev/attachments"));
    let valid = valid.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let is_valid = |attachment: &Value| {
        valid.iter().filter_map(Value::as_object).any(|valid| {
            let is = |key, field: &str| find(valid, key) == Some(&attachment[field]);
            is("containerID", "container") && is("ifname", "ifname")
        })
    };
    let mut daemon = connect(conf)?;
    let vms = daemon.call("io.volnet.List", json!({}))?.parameters;
    let vms = vms["vms"].as_array().into_iter().flatten();
    let ours = vms.map(|vm| &vm["attachment"]).filter(|it| it["cni"] == conf.name.as_str());
    let mut failed = None;
    for attachment in ours.filter(|attachment| !is_valid(attachment)) {
        let id = json!({
            "cni": attachment["cni"], "container": attachment["container"],
            "ifname": attachment["ifname"]
        });
        if let Err(trouble) = daemon.call("io.volnet.Detach", id) {
            failed.get_or_insert(CniError::from(trouble));
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Connects to the daemon at the socket of the configuration, or at that of the settings.
fn connect(conf: &Conf) -> Result<Connection, CniError> {
    let socket = match conf.field("socket").and_then(Value::as_str) {
        Some(socket) => PathBuf::from(socket),
        None => {
            let settings = config::read(&Flags::default());
            settings.map_err(|refusal| CniError::new(CONFIGURATION, refusal.to_string()))?.socket
        }
    };
    Ok(Connection::open_for(&socket, PATIENCE)?)
}
