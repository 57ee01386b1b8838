//! From the configuration of a plugin to that of a VM.
//!
//! The keys of the reference plugins `bridge` and `host-local` that have a meaning here are
//! understood. What would be a lie to accept is refused, with its key.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::call::{Conf, Environment, find};
use super::error::{CONFIGURATION, CniError, DECODING, ENVIRONMENT, UNSUPPORTED};
use super::network;
use crate::model::limits::{BURST_KB_MAX, BURST_KB_MIN};

/// Keys that every plugin may get, and keys of `bridge` that say what is so here anyway.
const ACCEPTED: [&str; 19] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "capabilities",
    "args",
    "dns",
    "prevResult",
    "runtimeConfig",
    "disableCheck",
    "disableGC",
    "bridge",
    "isGateway",
    "isDefaultGateway",
    "ipMasq",
    "loadOnlyIfInlined",
    "macspoofchk",
    "preserveDefaultVlan",
    "socket",
];
/// Keys that are the VM's.
const OWN: [&str; 5] = ["network", "policy", "isolated", "mtu", "portIsolation"];
/// The name of a VM's tap, if none is asked for.
const TAP: &str = "tap0";
/// Keys that are only understood if they are off.
const OFF: [&str; 5] =
    ["promiscMode", "vlan", "forceAddress", "enabledad", "disableContainerInterface"];
/// A burst of which an engine says that there is none.
const NO_BURST: u64 = u32::MAX as u64;

/// The configuration of the VM.
pub(super) fn vm(conf: &Conf, environment: &Environment) -> Result<Value, CniError> {
    check_keys(conf)?;
    let empty = Map::new();
    let runtime = section(conf.field("runtimeConfig"), "runtimeConfig")?.unwrap_or(&empty);
    check_runtime(runtime)?;
    let mut wanted = Map::new();
    for (key, field) in [
        ("policy", "policy"),
        ("isolated", "isolated"),
        ("portIsolation", "isolated"),
        ("mtu", "mtu"),
    ] {
        let value = conf.field(key).filter(|value| **value != json!(0) && **value != json!(""));
        if let Some(value) = value {
            wanted.insert(field.into(), value.clone());
        }
    }
    for (field, value) in network::wanted(conf)? {
        wanted.extend(value.map(|value| (field.to_string(), value)));
    }
    let args = environment.args()?;
    let given = section(conf.field("args"), "args")?.and_then(|args| find(args, "cni"));
    let given = section(given, "args.cni")?.unwrap_or(&empty);
    let said = [requested(find(runtime, "ips"))?, requested(find(given, "ips"))?];
    let of_args = args.get("IP").map(|ip| vec![address(ip)]).unwrap_or_default();
    if let Some(ips) = said.into_iter().chain([of_args]).find(|ips| !ips.is_empty()) {
        for ip in ips {
            let field = if ip.contains(':') { "ip6" } else { "ip" };
            wanted.insert(field.into(), ip.into());
        }
    }
    let mac = find(runtime, "mac").or(find(given, "mac")).cloned();
    if let Some(mac) = mac.or(args.get("MAC").map(|mac| json!(mac))) {
        wanted.insert("mac".into(), mac);
    }
    if let Some(limits) = limits(runtime)? {
        wanted.insert("limits".into(), limits);
    }
    let mut vm = json!({ "network": wanted, "expose": ports(runtime)? });
    if let Some(owner) = owner(&args)? {
        vm["owner"] = owner;
    }
    Ok(vm)
}

/// Whether a configuration is for guests of hypervisors. If not, it is for containers.
pub(super) fn is_for_guest(conf: &Conf) -> bool {
    conf.field("attach").is_some_and(|attach| attach == "vm")
}

/// The name of the tap in the namespace by which a VM has the network, if it is for one. In that of
/// the host, volnet names it. The words of CNI_ARGS are those of awslabs/tc-redirect-tap.
pub(super) fn tap<'a>(
    conf: &Conf,
    environment: &'a Environment,
    host: bool,
) -> Result<Option<&'a str>, CniError> {
    let args = environment.args()?;
    let named = args.get("TC_REDIRECT_TAP_NAME").copied().filter(|name| !name.is_empty());
    match (is_for_guest(conf), host, named) {
        (false, ..) | (true, true, None) => Ok(None),
        (true, false, named) => Ok(Some(named.unwrap_or(TAP))),
        (true, true, Some(name)) => {
            let words = format!(
                "CNI_ARGS: TC_REDIRECT_TAP_NAME {name} is not supported in the namespace of the \
                 host: volnet names the tap, and the result tells its name"
            );
            Err(CniError::new(UNSUPPORTED, words))
        }
    }
}

/// Who may open the tap.
fn owner(args: &BTreeMap<&str, &str>) -> Result<Option<Value>, CniError> {
    let [uid, gid] = ["TC_REDIRECT_TAP_UID", "TC_REDIRECT_TAP_GID"].map(|key| {
        let number = |text: &&str| {
            let wrong = || CniError::new(ENVIRONMENT, format!("CNI_ARGS: {key} is not a number"));
            text.parse::<u32>().map_err(|_| wrong())
        };
        args.get(key).map(number).transpose()
    });
    match (uid?, gid?) {
        (None, None) => Ok(None),
        (Some(uid), None) => Ok(Some(json!({ "uid": uid }))),
        (Some(uid), Some(gid)) => Ok(Some(json!({ "uid": uid, "gid": gid }))),
        (None, Some(_)) => {
            let words = "CNI_ARGS: TC_REDIRECT_TAP_GID needs TC_REDIRECT_TAP_UID: a tap has a user";
            Err(CniError::new(UNSUPPORTED, words))
        }
    }
}

/// What the engine is told of names: what it has said itself.
pub(super) fn dns(conf: &Conf) -> Result<Value, CniError> {
    let runtime = section(conf.field("runtimeConfig"), "runtimeConfig")?;
    if let Some(given) = section(runtime.and_then(|runtime| find(runtime, "dns")), "dns")? {
        let pairs = [("nameservers", "servers"), ("search", "searches"), ("options", "options")];
        let known = pairs.map(|(field, key)| Some((field, find(given, key)?.clone())));
        return Ok(known
            .into_iter()
            .flatten()
            .map(|(field, it)| (field.to_string(), it))
            .collect());
    }
    Ok(conf.field("dns").cloned().unwrap_or_else(|| json!({})))
}

fn check_keys(conf: &Conf) -> Result<(), CniError> {
    for (key, value) in &conf.fields {
        let is = |known: &str| known.eq_ignore_ascii_case(key);
        let known = ACCEPTED.iter().chain(&OWN).chain(&network::KEYS).any(|known| is(known));
        let off = [json!(false), json!(0), Value::Null].contains(value);
        if known || key.starts_with("cni.dev/") || off && OFF.iter().any(|known| is(known)) {
            continue;
        }
        match key.as_str() {
            "ipam" | "subnet" => {}
            "attach" if value == "container" || value == "vm" => {}
            _ => return Err(unsupported(key, value)),
        }
    }
    Ok(())
}

/// Capabilities that would have a meaning which they have not here.
fn check_runtime(runtime: &Map<String, Value>) -> Result<(), CniError> {
    for key in ["cgroupPath", "deviceID", "infinibandGUID"] {
        if let Some(value) = find(runtime, key).filter(|value| **value != json!("")) {
            return Err(unsupported(key, value));
        }
    }
    Ok(())
}

/// The addresses that an engine asks for, at most one of each family, without the lengths of their
/// prefixes.
fn requested(ips: Option<&Value>) -> Result<Vec<String>, CniError> {
    let Some(ips) = ips else { return Ok(Vec::new()) };
    let list = ips
        .as_array()
        .ok_or_else(|| CniError::new(DECODING, format!("ips {ips} is not a list")))?;
    let texts: Option<Vec<String>> = list.iter().map(|ip| ip.as_str().map(address)).collect();
    let texts = texts.ok_or_else(|| CniError::new(DECODING, format!("ips {ips}: not of texts")))?;
    match &texts[..] {
        [] | [_] => Ok(texts),
        [one, other] if one.contains(':') != other.contains(':') => Ok(texts),
        _ => Err(unsupported("ips", ips)),
    }
}

fn address(text: &str) -> String {
    text.split('/').next().unwrap_or_default().into()
}

/// Ingress is towards the container. Rates are bits a second, bursts are bits.
fn limits(runtime: &Map<String, Value>) -> Result<Option<Value>, CniError> {
    let Some(given) = section(find(runtime, "bandwidth"), "bandwidth")? else { return Ok(None) };
    let number = |key| match find(given, key) {
        None => Ok(0),
        Some(value) => value.as_u64().ok_or_else(|| {
            CniError::new(DECODING, format!("bandwidth.{key} is not a whole number"))
        }),
    };
    let mut limits = Map::new();
    for (field, key) in [("rx_mbit", "ingressRate"), ("tx_mbit", "egressRate")] {
        match number(key)? {
            0 => {}
            rate => drop(limits.insert(field.into(), rate.div_ceil(1_000_000).into())),
        }
    }
    let burst = number("ingressBurst")?.max(number("egressBurst")?);
    let kib = burst / 8 / 1024;
    if burst < NO_BURST && (BURST_KB_MIN..=BURST_KB_MAX).contains(&kib) {
        limits.insert("burst_kb".into(), kib.into());
    }
    Ok((!limits.is_empty()).then_some(Value::Object(limits)))
}

/// The ports of the host. A host port of 0 means that none is wanted.
fn ports(runtime: &Map<String, Value>) -> Result<Vec<Value>, CniError> {
    let mappings = match find(runtime, "portMappings") {
        None => return Ok(Vec::new()),
        Some(Value::Array(mappings)) => mappings,
        Some(_) => return Err(CniError::new(DECODING, "portMappings is not a list")),
    };
    mappings.iter().filter_map(|mapping| port(mapping).transpose()).collect()
}

/// One port, if one is wanted.
fn port(mapping: &Value) -> Result<Option<Value>, CniError> {
    let wrong = |what: &str| {
        CniError::new(DECODING, format!("portMappings: {mapping}: {what} cannot be that"))
    };
    let fields = mapping.as_object().ok_or_else(|| wrong("a mapping"))?;
    let number = |key| match find(fields, key).map(|value| value.as_u64().map(u16::try_from)) {
        None => Ok(0),
        Some(Some(Ok(number))) => Ok(number),
        Some(_) => Err(wrong(key)),
    };
    let text = |key| match find(fields, key) {
        None => Ok(""),
        Some(value) => value.as_str().ok_or_else(|| wrong(key)),
    };
    let (host_port, port, ip) = (number("hostPort")?, number("containerPort")?, text("hostIP")?);
    let protocol = match text("protocol")?.to_ascii_lowercase().as_str() {
        "" => "tcp".to_string(),
        protocol @ ("tcp" | "udp" | "sctp") => protocol.into(),
        _ => return Err(wrong("protocol")),
    };
    if host_port == 0 {
        return Ok(None);
    }
    if port == 0 {
        return Err(wrong("containerPort"));
    }
    let mut expose = json!({ "protocol": protocol, "port": port, "host_port": host_port });
    match ip.parse::<IpAddr>() {
        _ if ip.is_empty() => {}
        Ok(address) if address.is_unspecified() => {}
        Ok(address) if address.to_canonical().is_loopback() => {
            let words = format!("hostIP {ip} of portMappings: a port cannot lead from loopback");
            return Err(CniError::new(UNSUPPORTED, words));
        }
        Ok(_) => expose["host_ip"] = ip.into(),
        Err(_) => return Err(wrong("hostIP")),
    }
    Ok(Some(expose))
}

pub(super) fn section<'a>(
    value: Option<&'a Value>,
    name: &str,
) -> Result<Option<&'a Map<String, Value>>, CniError> {
    match value {
        None => Ok(None),
        Some(Value::Object(fields)) => Ok(Some(fields)),
        Some(_) => Err(CniError::new(DECODING, format!("{name} is not a JSON object"))),
    }
}

pub(super) fn unsupported(key: &str, value: &Value) -> CniError {
    CniError::new(UNSUPPORTED, format!("{key} {value} is not supported"))
}

/// Refuses to be behind another plugin that makes a link.
pub(super) fn check_first(conf: &Conf) -> Result<(), CniError> {
    match conf.field("prevResult") {
        None => Ok(()),
        Some(_) => {
            let words = "volnet makes the link, so it is the first plugin of its list";
            Err(CniError::new(CONFIGURATION, words))
        }
    }
}
