//! volnet as a CNI plugin: the verbs of SPEC.md 1.1.0 (containernetworking/cni) as calls of the
//! daemon.
//!
//! An engine runs the program without arguments, with `CNI_COMMAND` in the environment and a
//! configuration on standard input. The plugin keeps nothing: what it is asked about is in the
//! records of the daemon. It opens the door to the namespace, calls the daemon once, and prints the
//! result.
//!
//! For a VM, the namespace may be that of the host. Then the VM has a tap on the bridge, and there
//! is nothing else to be made.
//!
//! DEL always succeeds for what is not there. Without a daemon it deletes the link itself; then the
//! kernel removes both ends, and the daemon releases the rest when it is back.
//!
//! A link to the program with the name `loopback` does what the reference plugin of that name does.

mod call;
mod conf;
mod error;
mod loopback;
mod network;
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

use super::attach::{self, has_released, is_own, open_door, put_aside};
use super::connection::Connection;
use super::{DONE, FAILED, Trouble};
use crate::config::{self, Flags};
use crate::model::attachment::AttachmentId;
use crate::network::linux::socket::{Error, NetlinkFamily, Socket};
use crate::network::linux::{addresses, redirect, veth};
use crate::store;
use call::{Conf, Environment, VERSIONS, find};
use error::{
    CONFIGURATION, CniError, DECODING, DIFFERS, ENVIRONMENT, FAILED as FAILURE, INPUT, LIMITED,
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
    let conf = read(input);
    let version = spoken(conf.as_ref().ok());
    let program = PathBuf::from(program);
    let is_loopback = program.file_name().is_some_and(|name| name == LOOPBACK);
    let done = match (environment.get(COMMAND), &conf) {
        // People ask for the versions without a configuration.
        (Some("VERSION"), _) => Ok(Some(versions(version))),
        (_, Err(error)) => Err(error.clone()),
        (_, Ok(conf)) if is_loopback => loopback::verb(conf, &environment),
        (_, Ok(conf)) => verb(conf, &environment),
    };
    let is_added = environment.get(COMMAND) == Some("ADD") && done.is_ok() && !is_loopback;
    let (printed, status) = match done {
        Ok(printed) => (printed, DONE),
        Err(error) => (Some(error.json(version)), FAILED),
    };
    let written = printed.map_or(Ok(()), |printed| writeln!(out, "{printed}"));
    if written.and_then(|()| out.flush()).is_ok() {
        return status;
    }
    if let (true, Ok(conf)) = (is_added, &conf) {
        // Its engine has ended meanwhile, and will not know of it.
        let _ = del(conf, &environment);
    }
    FAILED
}

/// The version in which the answer is: that of the configuration, or the newest.
fn spoken(conf: Option<&Conf>) -> &str {
    let version = conf.map(|conf| conf.version.as_str());
    version.filter(|version| VERSIONS.contains(version)).unwrap_or(VERSIONS[VERSIONS.len() - 1])
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
        "ADD" => conf.check_version("0.3.0").and_then(|()| add(conf, environment)),
        "DEL" => conf.check_version("0.3.0").and_then(|()| del(conf, environment)),
        "CHECK" => conf.check_version("0.4.0").and_then(|()| check(conf, environment)),
        "STATUS" => conf.check_version("1.1.0").and_then(|()| status(conf, environment)),
        "GC" => conf.check_version("1.1.0").and_then(|()| gc(conf)),
        other => Err(unknown(other)),
    }
}

fn unknown(verb: &str) -> CniError {
    CniError::new(ENVIRONMENT, format!("{COMMAND}: there is no verb {verb:?}"))
}

fn versions(version: &str) -> Value {
    json!({ "cniVersion": version, "supportedVersions": VERSIONS })
}

/// Attaches the namespace. If that fails, nothing is left of it, and it can be tried again.
fn add(conf: &Conf, environment: &Environment) -> Result<Printed, CniError> {
    conf::check_first(conf)?;
    let id = environment.attachment(conf)?;
    let netns = environment.required("CNI_NETNS")?;
    let (config, dns) = (conf::vm(conf, environment)?, conf::dns(conf)?);
    let network = network::described(conf)?;
    let host = is_own(netns);
    if host && !conf::is_for_guest(conf) {
        let words = format!("CNI_NETNS {netns} is the namespace of the host, which needs no link");
        return Err(CniError::new(error::NAMESPACE, words));
    }
    let attachment = json!({
        "cni": id.cni, "container": id.container, "ifname": id.ifname, "netns": netns,
        "tap": conf::tap(conf, environment, host)?, "host": host,
        "labels": labels(&environment.args()?)
    });
    let mut daemon = connect(conf)?;
    let mut door = open_door(netns)
        .map_err(|trouble| CniError::new(error::UNKNOWN_CONTAINER, trouble.words()))?;
    // Some engines listen on the ports that they publish, to keep others from taking them.
    let attach = |daemon: &mut _, config: &Value| {
        let parameters = json!({ "attachment": attachment, "config": config, "force": true });
        attach::call(daemon, parameters, &door)
    };
    let reply = network::asked(&mut daemon, network.as_ref(), config, attach);
    if let Err(Trouble::Unreachable { .. }) = &reply {
        take_back(conf, &id, host, &mut door);
    }
    Ok(Some(result::of(&reply?.parameters, &conf.version, dns)))
}

/// The daemon was asked to attach, and did not answer: it may have done so. A failure here is not
/// told, because the first error is more useful. DEL does the same.
fn take_back(conf: &Conf, id: &AttachmentId, host: bool, door: &mut Socket) {
    let _ = match connect(conf).map(|mut daemon| detach(&mut daemon, id)) {
        Ok(Ok(_)) => put_aside(door, id),
        Ok(Err(_)) | Err(_) => remove(conf, id, host, door),
    };
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
    let is_released = match connect(conf).map(|mut daemon| detach(&mut daemon, &id)) {
        Ok(Ok(true)) => true,
        // A link of that name is another one's.
        Ok(Ok(false)) => return Ok(None),
        Ok(Err(Trouble::Unreachable { .. })) => false,
        Ok(Err(trouble)) => return Err(trouble.into()),
        // There is no daemon, or the settings do not say where.
        Err(_) => false,
    };
    let netns = environment.get("CNI_NETNS");
    let host = netns.is_none_or(is_own);
    let door = match netns.and_then(|netns| open_door(netns).ok()) {
        Some(door) => Some((door, host)),
        // A VM may have been attached to the namespace of the host, whatever path that had then.
        None if conf::is_for_guest(conf) => {
            Socket::open(NetlinkFamily::Route).ok().map(|door| (door, true))
        }
        None => None,
    };
    if let Some((mut door, host)) = door {
        let freed = match is_released {
            true => put_aside(&mut door, &id),
            false => remove(conf, &id, host, &mut door),
        };
        freed.map_err(|error| {
            CniError::new(FAILURE, error.failure("remove", &*id.ifname).to_string())
        })?;
    }
    Ok(None)
}

/// Has the daemon release an attachment. Says whether there was one.
fn detach(daemon: &mut Connection, id: &AttachmentId) -> Result<bool, Trouble> {
    Ok(has_released(&daemon.call("io.volnet.Detach", json!(id))?.parameters))
}

/// Removes what an attachment has in its namespace, in place of the daemon. In that of the host
/// there are the taps of all VMs, and one may have the same name: there its record must say so.
fn remove(conf: &Conf, id: &AttachmentId, host: bool, door: &mut Socket) -> Result<(), Error> {
    if host && !is_recorded(conf, id) {
        return Ok(());
    }
    veth::remove_inner(door, id)?;
    redirect::remove_left_over(door, &veth::alias(id))
}

/// Whether the daemon has written down that it made this attachment. The settings say where, if
/// they are those of this daemon. Those of another are not known: its socket is beside its files by
/// default.
fn is_recorded(conf: &Conf, id: &AttachmentId) -> bool {
    let Ok(socket) = socket(conf) else { return false };
    let settings = config::read(&Flags::default()).ok().filter(|it| it.socket == socket);
    let runtime = settings.map(|settings| settings.runtime_dir);
    let runtime = runtime.or_else(|| Some(socket.parent()?.to_owned()));
    runtime.is_some_and(|it| store::attached(&it, &id.vm_name()).as_ref() == Some(id))
}

/// Compares what was added with what there is: outside the daemon does, inside the plugin.
fn check(conf: &Conf, environment: &Environment) -> Result<Printed, CniError> {
    let id = environment.attachment(conf)?;
    let netns = environment.required("CNI_NETNS")?;
    let reply = connect(conf)?.call("io.volnet.Verify", json!(id))?.parameters;
    let outside = reply["differences"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut differences: Vec<String> = outside.map(String::from).collect();
    if reply["vm"]["attachment"]["host"] != true {
        differences.extend(inside(netns, &id, &reply["vm"])?);
    }
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
    let failed = |error: Error| CniError::new(FAILURE, error.failure("read", ifname).to_string());
    let mut door = open_door(netns)
        .map_err(|trouble| CniError::new(error::UNKNOWN_CONTAINER, trouble.words()))?;
    let Some(link) = veth::inner(&mut door, id).map_err(failed)? else {
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
fn status(conf: &Conf, environment: &Environment) -> Result<Printed, CniError> {
    let wanted = conf::vm(conf, environment)?;
    let config = json!({ "network": wanted["network"] });
    let network = network::described(conf)?;
    let ready = |daemon: &mut Connection, config: &Value| {
        daemon.call("io.volnet.Ready", json!({ "config": config }))
    };
    let asked = connect(conf).and_then(|mut daemon| {
        Ok(network::asked(&mut daemon, network.as_ref(), config, ready)?.parameters)
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
    let valid = valid_attachments(conf)?;
    let is_valid = |attachment: &Value| {
        valid.iter().any(|(container, ifname)| {
            attachment["container"] == *container && attachment["ifname"] == *ifname
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

/// The containers and links that GC keeps. An engine that has none may leave the list out, or
/// write null. What has another form is refused, for else everything would be released.
fn valid_attachments(conf: &Conf) -> Result<Vec<(&str, &str)>, CniError> {
    let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
    let Some((key, value)) = keys.iter().find_map(|key| Some((key, conf.field(key)?))) else {
        return Ok(Vec::new());
    };
    let wrong = || {
        CniError::new(DECODING, format!("{key}: not a list of objects with containerID and ifname"))
    };
    let entries = value.as_array().ok_or_else(wrong)?.iter();
    entries
        .map(|entry| {
            let text = |key| find(entry.as_object()?, key).and_then(Value::as_str);
            text("containerID").zip(text("ifname")).ok_or_else(wrong)
        })
        .collect()
}

/// Connects to the daemon.
fn connect(conf: &Conf) -> Result<Connection, CniError> {
    Ok(Connection::open_for(&socket(conf)?, PATIENCE)?)
}

/// The socket of the daemon: that of the configuration, or that of the settings.
fn socket(conf: &Conf) -> Result<PathBuf, CniError> {
    match conf.field("socket").and_then(Value::as_str) {
        Some(socket) => Ok(PathBuf::from(socket)),
        None => {
            let settings = config::read(&Flags::default());
            let settings =
                settings.map_err(|refusal| CniError::new(CONFIGURATION, refusal.to_string()))?;
            Ok(settings.socket)
        }
    }
}
