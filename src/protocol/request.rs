//! Decodes a message to a call.
//!
//! A message is an object with `method`, `parameters` and the flags `more` and `oneway`. Nothing is
//! guessed: if a field does not exist or has the wrong type, the refusal names it. [`crate::spec`]
//! reads the two documents of Create, and names the path inside them.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::model::attachment::AttachmentId;
use crate::model::document::Kept;
use crate::model::error::Refusal;
use crate::model::expose::{Expose, HostPort, Protocol};
use crate::model::limits::Limits;
use crate::model::name::VmName;
use crate::model::request::{
    Change, OpenFile, Query, Request, STOP_TIMEOUT_MS, TRACE_SECONDS, TRACE_SECONDS_MAX, Trace,
    TraceFrom,
};
use crate::spec;

use super::service::{self, ServiceCall};
use crate::model::nic::NICS_MAX;

/// The longest time in milliseconds that a guest can be given to power off: one day.
pub const STOP_TIMEOUT_MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// The most VMs that one call makes: as many as a bridge has ports.
pub const MANY_MAX: u16 = 1023;

/// A client's call, and how the client wants the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is asked.
    pub body: Body,
    /// The client takes more than one reply.
    pub more: bool,
    /// The client takes no reply, not even an error.
    pub oneway: bool,
    /// How many VMs a create of many makes, each with a reply; `None`: it is another call.
    pub count: Option<u16>,
}

/// The call, by interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// `io.volnet`: for the engine.
    Volnet(Request),
    /// `org.varlink.service`: answered by [`service::answer`].
    Service(ServiceCall),
}

/// A message that is not a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// What is wrong with it.
    pub fault: CallFault,
    /// The client takes no reply, not even this one.
    pub oneway: bool,
}

/// What can be wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallFault {
    /// It is not a request. The connection ends with the reply to it.
    Message { reason: String },
    /// volnet does not have this interface.
    Interface { interface: String },
    /// The interface has no such method.
    Method { method: String },
    /// This parameter is missing, is of the wrong type or does not exist.
    Parameter { parameter: String },
    /// The method has several replies, and the client takes one.
    More,
    /// The value of a parameter is not allowed.
    Refused(Refusal),
}

impl Call {
    /// Whether the caller must be root, the daemon's own user or a member of its group. The other
    /// methods change nothing, and everybody whom the socket admits may call them.
    pub fn needs_right(&self) -> bool {
        match &self.body {
            Body::Service(ServiceCall::GetInfo | ServiceCall::GetInterfaceDescription { .. }) => {
                false
            }
            Body::Volnet(request) => request.needs_right(),
        }
    }
}

impl CallFault {
    /// Whether the connection ends with the reply, because the bytes that follow cannot be trusted.
    pub fn ends_connection(&self) -> bool {
        match self {
            CallFault::Message { .. } => true,
            CallFault::Interface { .. }
            | CallFault::Method { .. }
            | CallFault::Parameter { .. }
            | CallFault::More
            | CallFault::Refused(_) => false,
        }
    }
}

impl From<Refusal> for CallFault {
    fn from(refusal: Refusal) -> Self {
        CallFault::Refused(refusal)
    }
}

impl From<super::frame::FrameError> for CallFault {
    fn from(error: super::frame::FrameError) -> Self {
        CallFault::Message { reason: error.to_string() }
    }
}

/// Reads one message.
pub fn decode(message: &[u8]) -> Result<Call, Rejected> {
    decode_with(message, Vec::new())
}

/// Reads one message, with the descriptors that were sent with it.
pub fn decode_with(message: &[u8], files: Vec<OpenFile>) -> Result<Call, Rejected> {
    let rejected = |fault, oneway| Rejected { fault, oneway };
    let envelope = serde_json::from_slice(message).map_err(|error| {
        rejected(CallFault::Message { reason: format!("the message is not JSON: {error}") }, false)
    })?;
    let mut envelope = Parameters { fields: envelope, files };
    let oneway = envelope.flag("oneway").map_err(|fault| rejected(fault, false))?;
    let more = envelope.flag("more").map_err(|fault| rejected(fault, oneway))?;
    let (mut body, count) = body(envelope).map_err(|fault| rejected(fault, oneway))?;
    if let Body::Volnet(Request::Trace(trace)) = &mut body {
        trace.more = more;
    }
    if count.is_some() && !more {
        return Err(rejected(CallFault::More, oneway));
    }
    Ok(Call { body, more, oneway, count })
}

fn body(mut envelope: Parameters) -> Result<(Body, Option<u16>), CallFault> {
    let method = envelope.required("method")?;
    let parameters = envelope.object("parameters")?.unwrap_or_default();
    let files = std::mem::take(&mut envelope.files);
    let mut fields = Parameters { fields: parameters, files };
    envelope.finish()?;

    let unknown = || CallFault::Method { method: method.clone() };
    let (interface, name) = method.rsplit_once('.').ok_or_else(unknown)?;
    let body = match interface {
        "io.volnet" => Body::Volnet(volnet(name, &mut fields)?.ok_or_else(unknown)?),
        service::INTERFACE => Body::Service(service(name, &mut fields)?.ok_or_else(unknown)?),
        _ => return Err(CallFault::Interface { interface: interface.into() }),
    };
    let count = match (interface, name) {
        ("io.volnet", "CreateMany") => Some(fields.many()?),
        _ => None,
    };
    fields.finish()?;
    Ok((body, count))
}

/// A method of `io.volnet`; `None` if it has none of that name.
fn volnet(method: &str, fields: &mut Parameters) -> Result<Option<Request>, CallFault> {
    if let Some(query) = query(method, fields)? {
        return Ok(Some(query.into()));
    }
    if method == "OpenTap" {
        return Ok(Some(Request::OpenTap { name: fields.name()?, nic: fields.nic()? }));
    }
    if method == "Trace" {
        return Ok(Some(Request::Trace(trace(fields)?)));
    }
    Ok(change(method, fields)?.map(Request::from))
}

fn trace(fields: &mut Parameters) -> Result<Trace, CallFault> {
    let name = fields.name()?;
    let from = match fields.text("from")?.as_deref() {
        None => None,
        Some("world") => Some(TraceFrom::World),
        Some(ip) => Some(TraceFrom::Address(ip.parse().map_err(|_| wrong("from"))?)),
    };
    let to = fields.text("to")?.map(|to| to.parse().map_err(|_| wrong("to"))).transpose()?;
    let port = fields.port("port")?;
    let seconds = match fields.take("seconds") {
        None => TRACE_SECONDS,
        Some(value) => value
            .as_u64()
            .and_then(|seconds| u32::try_from(seconds).ok())
            .filter(|seconds| (1..=TRACE_SECONDS_MAX).contains(seconds))
            .ok_or_else(|| wrong("seconds"))?,
    };
    Ok(Trace { name, from, to, port, seconds, more: false })
}

/// A method that changes nothing; `None` if there is none of that name.
fn query(method: &str, fields: &mut Parameters) -> Result<Option<Query>, CallFault> {
    Ok(Some(match method {
        "Get" => Query::Get { name: fields.name()? },
        "List" => Query::List,
        "Args" => Query::Args { name: fields.name()?, hypervisor: fields.text("hypervisor")? },
        "Networks" => Query::Networks,
        "Version" => Query::Version,
        "Check" => Query::Check,
        "Doctor" => Query::Doctor { name: fields.vm()? },
        "Monitor" => Query::Monitor,
        "Metrics" => Query::Metrics,
        "Usage" => Query::Usage,
        "Verify" => Query::Verify { id: fields.attachment_id()? },
        "Ready" => {
            let (network, config) = (fields.text("network")?, fields.object("config")?);
            let wanted = spec::wanted(network, config.map(Value::Object).as_ref())?;
            Query::Ready { wanted: Box::new(wanted) }
        }
        _ => return Ok(None),
    }))
}

/// A method that changes something; `None` if there is none of that name.
fn change(method: &str, fields: &mut Parameters) -> Result<Option<Change>, CallFault> {
    Ok(Some(match method {
        "Setup" => Change::Setup { dry_run: fields.flag("dry_run")?, force: fields.flag("force")? },
        "Teardown" => {
            Change::Teardown { dry_run: fields.flag("dry_run")?, force: fields.flag("force")? }
        }
        "Create" => create(fields)?,
        "CreateMany" => create_many(fields)?,
        "Start" => Change::Start { name: fields.name()? },
        "Stop" => Change::Stop { name: fields.name()?, timeout_ms: fields.timeout()? },
        "Restart" => Change::Restart { name: fields.name()?, timeout_ms: fields.timeout()? },
        "Pause" => Change::Pause { name: fields.name()? },
        "Resume" => Change::Resume { name: fields.name()? },
        "Snapshot" => Change::Snapshot { name: fields.name()?, folder: fields.folder()? },
        "Delete" => Change::Delete { name: fields.name()?, timeout_ms: fields.timeout()? },
        "Attach" => attach(fields)?,
        "Detach" => Change::Detach { id: fields.attachment_id()? },
        "AddNetwork" => {
            let network = fields.object("network")?.ok_or_else(|| wrong("network"))?;
            let document = Kept::new(&Value::Object(network));
            Change::AddNetwork { document, replace: fields.flag("replace")? }
        }
        "RemoveNetwork" => Change::RemoveNetwork { name: fields.required("name")? },
        "Expose" => expose(fields)?,
        "SetPolicy" => {
            let (name, nic) = (fields.name()?, fields.nic()?);
            Change::SetPolicy { name, nic, policy: fields.required("policy")? }
        }
        "SetLimits" => Change::SetLimits {
            name: fields.name()?,
            nic: fields.nic()?,
            limits: Limits::read(|field, bounds| fields.limit(field, bounds))?,
        },
        "Unexpose" => Change::Unexpose {
            name: fields.name()?,
            at: HostPort {
                protocol: fields.protocol()?,
                port: fields.port("host_port")?.ok_or_else(|| wrong("host_port"))?,
                count: fields.count()?,
                ip: fields.address("host_ip")?,
            },
        },
        _ => return Ok(None),
    }))
}

fn create(fields: &mut Parameters) -> Result<Change, CallFault> {
    let name = fields.name()?;
    let start = fields.flag("start")?;
    let dry_run = fields.flag("dry_run")?;
    let manifest = fields.object("manifest")?.map(Value::Object);
    let config = fields.object("config")?.map(Value::Object);
    let (manifest, config) = (manifest.as_ref(), config.as_ref());
    let spec = Box::new(spec::resolve(manifest, config)?);
    let notes = spec::notes(manifest, config, &spec);
    Ok(Change::Create { name, spec, start, dry_run, notes })
}

/// What each of them is. Their number is for the caller of [`decode`].
fn create_many(fields: &mut Parameters) -> Result<Change, CallFault> {
    match create(fields)? {
        Change::Create { name, spec, notes, .. } => {
            Ok(Change::Create { name, spec, start: true, dry_run: false, notes })
        }
        other => Ok(other),
    }
}

fn attach(fields: &mut Parameters) -> Result<Change, CallFault> {
    let attachment = fields.object("attachment")?.ok_or_else(|| wrong("attachment"))?;
    let attachment = serde_json::from_value(Value::Object(attachment)).map_err(|error| {
        let (field, reason) = ("attachment".into(), error.to_string());
        Refusal::InvalidConfig { field, reason }
    })?;
    let config = fields.object("config")?.map(Value::Object);
    let (door, force) = (fields.file("door")?, fields.flag("force")?);
    let tun = match fields.fields.get("tun").is_some_and(|tun| !tun.is_null()) {
        true => Some(fields.file("tun")?),
        false => None,
    };
    let (name, spec) = spec::attach(attachment, config.as_ref())?;
    let has_tap = spec.attachment.as_ref().is_some_and(|attachment| attachment.tap.is_some());
    if has_tap != tun.is_some() {
        return Err(wrong("tun"));
    }
    Ok(Change::Attach { name, spec: Box::new(spec), door, tun, force })
}

fn expose(fields: &mut Parameters) -> Result<Change, CallFault> {
    let name = fields.name()?;
    let port = fields.port("port")?.ok_or_else(|| wrong("port"))?;
    let expose = Expose {
        protocol: fields.protocol()?,
        port,
        host_port: fields.host_port()?.unwrap_or(port),
        count: fields.count()?,
        host_ip: fields.address("host_ip")?,
        name: fields.text("label")?,
    };
    if let Err((field, reason)) = expose.check() {
        return Err(Refusal::InvalidConfig { field: field.into(), reason }.into());
    }
    let (nic, force) = (fields.nic()?, fields.flag("force")?);
    Ok(Change::Expose { name, nic, port: expose, force })
}

/// A method of `org.varlink.service`; `None` if it has none of that name.
fn service(method: &str, fields: &mut Parameters) -> Result<Option<ServiceCall>, CallFault> {
    Ok(Some(match method {
        "GetInfo" => ServiceCall::GetInfo,
        "GetInterfaceDescription" => {
            ServiceCall::GetInterfaceDescription { interface: fields.required("interface")? }
        }
        _ => return Ok(None),
    }))
}

/// The fields of an object that have not been read yet. A field that is null counts as absent.
struct Parameters {
    fields: Map<String, Value>,
    /// The descriptors that came with the message.
    files: Vec<OpenFile>,
}

impl Parameters {
    fn take(&mut self, field: &str) -> Option<Value> {
        self.fields.remove(field).filter(|value| !value.is_null())
    }

    fn flag(&mut self, field: &str) -> Result<bool, CallFault> {
        match self.take(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(wrong(field)),
        }
    }

    fn text(&mut self, field: &str) -> Result<Option<String>, CallFault> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(field)),
        }
    }

    fn required(&mut self, field: &str) -> Result<String, CallFault> {
        self.text(field)?.ok_or_else(|| wrong(field))
    }

    fn object(&mut self, field: &str) -> Result<Option<Map<String, Value>>, CallFault> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(wrong(field)),
        }
    }

    fn name(&mut self) -> Result<VmName, CallFault> {
        Ok(VmName::new(&self.required("name")?)?)
    }

    /// The name of a VM, if one is given.
    fn vm(&mut self) -> Result<Option<VmName>, CallFault> {
        Ok(self.text("name")?.map(|name| VmName::new(&name)).transpose()?)
    }

    /// The index of a NIC. Whether the VM has it, the engine knows.
    fn nic(&mut self) -> Result<Option<usize>, CallFault> {
        let Some(value) = self.take("nic") else { return Ok(None) };
        let index = value.as_u64().filter(|index| *index < NICS_MAX as u64);
        index.map(|index| Some(index as usize)).ok_or_else(|| wrong("nic"))
    }

    /// The descriptor at this place among those that came with the message.
    fn file(&mut self, field: &str) -> Result<OpenFile, CallFault> {
        let index =
            self.take(field).and_then(|value| value.as_u64()).ok_or_else(|| wrong(field))?;
        let file = usize::try_from(index).ok().and_then(|index| self.files.get(index));
        file.cloned().ok_or_else(|| wrong(field))
    }

    /// A folder of the host.
    fn folder(&mut self) -> Result<PathBuf, CallFault> {
        let text = self.required("folder")?;
        let wrong = |reason| Refusal::InvalidConfig { field: "folder".into(), reason };
        Ok(spec::text::location(&text).map_err(wrong)?)
    }

    fn attachment_id(&mut self) -> Result<AttachmentId, CallFault> {
        let (cni, container) = (self.required("cni")?, self.required("container")?);
        let id = AttachmentId { cni, container, ifname: self.required("ifname")? };
        id.check()?;
        Ok(id)
    }

    fn protocol(&mut self) -> Result<Protocol, CallFault> {
        match self.text("protocol")? {
            None => Ok(Protocol::default()),
            Some(text) => text.parse().map_err(|_| wrong("protocol")),
        }
    }

    fn port(&mut self, field: &str) -> Result<Option<u16>, CallFault> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
        port.filter(|port| *port != 0).map(Some).ok_or_else(|| wrong(field))
    }

    /// A port of the host, where 0 means any.
    fn host_port(&mut self) -> Result<Option<u16>, CallFault> {
        let Some(value) = self.take("host_port") else { return Ok(None) };
        let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
        port.map(Some).ok_or_else(|| wrong("host_port"))
    }

    /// How many VMs.
    fn many(&mut self) -> Result<u16, CallFault> {
        let count = self.take("count").and_then(|value| value.as_u64());
        let count = count.and_then(|count| u16::try_from(count).ok());
        count.filter(|count| (1..=MANY_MAX).contains(count)).ok_or_else(|| wrong("count"))
    }

    /// How many ports in a row.
    fn count(&mut self) -> Result<u16, CallFault> {
        Ok(self.port("count")?.unwrap_or(1))
    }

    fn address(&mut self, field: &str) -> Result<Option<IpAddr>, CallFault> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| wrong(field))
    }

    fn limit(
        &mut self,
        field: &str,
        bounds: RangeInclusive<u64>,
    ) -> Result<Option<u64>, CallFault> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let number = value.as_u64().ok_or_else(|| wrong(field))?;
        if bounds.contains(&number) {
            return Ok(Some(number));
        }
        let reason = format!("{number} is not from {} to {}", bounds.start(), bounds.end());
        let field = format!("network.limits.{field}");
        Err(Refusal::InvalidConfig { field, reason }.into())
    }

    fn timeout(&mut self) -> Result<u64, CallFault> {
        match self.take("timeout_ms") {
            None => Ok(STOP_TIMEOUT_MS),
            Some(value) => value
                .as_u64()
                .filter(|ms| *ms <= STOP_TIMEOUT_MAX_MS)
                .ok_or_else(|| wrong("timeout_ms")),
        }
    }

    /// Refuses the fields that nobody has read.
    fn finish(self) -> Result<(), CallFault> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(field) => Err(wrong(field)),
        }
    }
}

fn wrong(parameter: &str) -> CallFault {
    CallFault::Parameter { parameter: parameter.into() }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::AsFd;

    use super::*;

    fn call(text: &str) -> Call {
        decode(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e:?}"))
    }

    fn fault(text: &str) -> CallFault {
        decode(text.as_bytes()).expect_err(text).fault
    }

    fn web() -> VmName {
        VmName::new("web").unwrap()
    }

    fn request(method: &str, parameters: &str) -> Request {
        let text = format!("{{\"method\":\"io.volnet.{method}\",\"parameters\":{parameters}}}");
        match call(&text).body {
            Body::Volnet(request) => request,
            Body::Service(call) => panic!("{call:?}"),
        }
    }

    #[test]
    fn every_method_of_the_interface_is_understood() {
        let name = web();
        let changes = [
            ("Setup", "{}", Change::Setup { dry_run: false, force: false }),
            ("Setup", r#"{"dry_run":true}"#, Change::Setup { dry_run: true, force: false }),
            ("Teardown", r#"{"force":true}"#, Change::Teardown { dry_run: false, force: true }),
            ("Start", r#"{"name":"web"}"#, Change::Start { name: name.clone() }),
            (
                "Stop",
                r#"{"name":"web"}"#,
                Change::Stop { name: name.clone(), timeout_ms: STOP_TIMEOUT_MS },
            ),
            (
                "Restart",
                r#"{"name":"web","timeout_ms":0}"#,
                Change::Restart { name: name.clone(), timeout_ms: 0 },
            ),
            ("Pause", r#"{"name":"web"}"#, Change::Pause { name: name.clone() }),
            ("Resume", r#"{"name":"web"}"#, Change::Resume { name: name.clone() }),
            (
                "Snapshot",
                r#"{"name":"web","folder":"/s"}"#,
                Change::Snapshot { name: name.clone(), folder: "/s".into() },
            ),
            (
                "Delete",
                r#"{"name":"web","timeout_ms":null}"#,
                Change::Delete { name: name.clone(), timeout_ms: STOP_TIMEOUT_MS },
            ),
        ];
        let queries = [
            ("Get", r#"{"name":"web"}"#, Query::Get { name: name.clone() }),
            ("List", "{}", Query::List),
            ("List", "null", Query::List),
            (
                "Args",
                r#"{"name":"web","hypervisor":"qemu"}"#,
                Query::Args { name: name.clone(), hypervisor: Some("qemu".into()) },
            ),
            ("Networks", "{}", Query::Networks),
            ("Version", "{}", Query::Version),
            ("Check", "{}", Query::Check),
            ("Doctor", "{}", Query::Doctor { name: None }),
            ("Doctor", r#"{"name":"web"}"#, Query::Doctor { name: Some(name.clone()) }),
            ("Monitor", "{}", Query::Monitor),
            ("Metrics", "{}", Query::Metrics),
            ("Usage", "{}", Query::Usage),
        ];
        let changes = changes.map(|(method, text, change)| (method, text, change.into()));
        let queries = queries.map(|(method, text, query)| (method, text, query.into()));
        for (method, parameters, expected) in changes.into_iter().chain(queries) {
            assert_eq!(request(method, parameters), expected, "{method} {parameters}");
        }
        let tap = Request::OpenTap { name, nic: None };
        assert_eq!(request("OpenTap", r#"{"name":"web"}"#), tap);
        let name = VmName::new("web").unwrap();
        let (from, to, port, seconds) = (None, None, None, TRACE_SECONDS);
        let plain = Trace { name, from, to, port, seconds, more: false };
        assert_eq!(request("Trace", r#"{"name":"web"}"#), Request::Trace(plain.clone()));
        let to = Some("192.0.2.7".parse().unwrap());
        let there = Trace { to, port: Some(443), seconds: 3, ..plain.clone() };
        let text = r#"{"name":"web","to":"192.0.2.7","port":443,"seconds":3}"#;
        assert_eq!(request("Trace", text), Request::Trace(there));
        let address = TraceFrom::Address("2001:db8::7".parse().unwrap());
        for (from, word) in [(TraceFrom::World, "world"), (address, "2001:db8::7")] {
            let here = Trace { from: Some(from), ..plain.clone() };
            let text = format!(r#"{{"name":"web","from":"{word}"}}"#);
            assert_eq!(request("Trace", &text), Request::Trace(here));
        }
    }

    #[test]
    fn no_method_of_the_interface_file_is_missing() {
        for line in service::VOLNET.lines() {
            let Some(rest) = line.strip_prefix("method ") else { continue };
            let method = rest.split('(').next().unwrap();
            let text = format!("{{\"method\":\"io.volnet.{method}\"}}");
            match decode(text.as_bytes()) {
                Ok(_) => {}
                Err(rejected) => {
                    let first = rest.split(['(', ':']).nth(1).unwrap();
                    assert_eq!(rejected.fault, wrong(first), "{method}");
                }
            }
        }
    }

    #[test]
    fn create_hands_the_documents_to_spec() {
        let Request::Change(Change::Create { name, spec, start, dry_run, notes }) =
            request("Create", r#"{"name":"web","start":true,"config":{"ephemeral":true}}"#)
        else {
            panic!("not a Create");
        };
        assert_eq!((name, start, dry_run), (web(), true, false));
        assert!(spec.ephemeral && notes.is_empty());
        let unknown = r#"{"method":"io.volnet.Create",
            "parameters":{"name":"web","config":{"network":{"colour":"red"}}}}"#;
        let CallFault::Refused(Refusal::InvalidConfig { field, .. }) = fault(unknown) else {
            panic!("{:?}", fault(unknown));
        };
        assert_eq!(field, "network.colour");
    }

    #[test]
    fn flags_of_the_envelope() {
        let quiet = call(r#"{"method":"io.volnet.List","oneway":true}"#);
        assert!(quiet.oneway && !quiet.more);
        let follow = call(r#"{"method":"io.volnet.Monitor","more":true,"parameters":{}}"#);
        assert!(follow.more && !follow.oneway);
        assert!(decode(br#"{"method":"no.such.Method","oneway":true}"#).unwrap_err().oneway);
    }

    #[test]
    fn service_methods() {
        let info = call(r#"{"method":"org.varlink.service.GetInfo"}"#);
        assert_eq!(info.body, Body::Service(ServiceCall::GetInfo));
        let text = r#"{"method":"org.varlink.service.GetInterfaceDescription",
            "parameters":{"interface":"io.volnet"}}"#;
        let expected = ServiceCall::GetInterfaceDescription { interface: "io.volnet".into() };
        assert_eq!(call(text).body, Body::Service(expected));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let method = |m: &str| CallFault::Method { method: m.into() };
        let interface = |i: &str| CallFault::Interface { interface: i.into() };
        let table = [
            (r#"{}"#, wrong("method")),
            (r#"{"method":1}"#, wrong("method")),
            (r#"{"method":"List"}"#, method("List")),
            (r#"{"method":"io.volnet.Fly"}"#, method("io.volnet.Fly")),
            (r#"{"method":"io.volnet."}"#, method("io.volnet.")),
            (r#"{"method":"org.varlink.service.X"}"#, method("org.varlink.service.X")),
            (r#"{"method":"io.other.List"}"#, interface("io.other")),
            (r#"{"method":"io.volnet.List","more":1}"#, wrong("more")),
            (r#"{"method":"io.volnet.List","upgrade":true}"#, wrong("upgrade")),
            (r#"{"method":"io.volnet.List","parameters":[]}"#, wrong("parameters")),
            (r#"{"method":"io.volnet.List","parameters":{"x":1}}"#, wrong("x")),
            (r#"{"method":"io.volnet.Get","parameters":{}}"#, wrong("name")),
            (r#"{"method":"io.volnet.Get","parameters":{"name":7}}"#, wrong("name")),
            (
                r#"{"method":"io.volnet.Stop","parameters":{"name":"a","timeout_ms":-1}}"#,
                wrong("timeout_ms"),
            ),
            (
                r#"{"method":"io.volnet.Stop","parameters":{"name":"a","timeout_ms":86400001}}"#,
                wrong("timeout_ms"),
            ),
            (
                r#"{"method":"io.volnet.Create","parameters":{"name":"a","config":"x"}}"#,
                wrong("config"),
            ),
        ];
        for (text, expected) in table {
            let fault = fault(text);
            assert_eq!(fault, expected, "{text}");
            assert!(!fault.ends_connection());
        }
    }

    #[test]
    fn names_are_checked_where_they_enter() {
        for name in ["", "../x", ".", "a/b", "-a", &"a".repeat(64)] {
            let text =
                format!("{{\"method\":\"io.volnet.Get\",\"parameters\":{{\"name\":\"{name}\"}}}}");
            let fault = fault(&text);
            assert!(matches!(fault, CallFault::Refused(Refusal::InvalidName { .. })), "{fault:?}");
        }
    }

    #[test]
    fn what_is_not_json_ends_the_connection() {
        for text in ["", "{", "{]", "[]", "{\"method\":}", "\u{0}", "{\"a\":1}x"] {
            assert!(fault(text).ends_connection(), "{text}");
        }
        assert!(decode(b"{\"method\":\"\xff\"}").unwrap_err().fault.ends_connection());
    }

    #[test]
    fn methods_that_change_nothing_are_for_everyone() {
        let open = [
            "Get", "Args", "List", "Networks", "Version", "Check", "Doctor", "Monitor", "Metrics",
            "Usage", "Verify", "Ready",
        ];
        for line in service::VOLNET.lines() {
            let Some(rest) = line.strip_prefix("method ") else { continue };
            let method = rest.split('(').next().unwrap();
            let parameters = match method {
                "SetPolicy" => r#"{"name":"web","policy":"open"}"#,
                "SetLimits" => r#"{"name":"web","rx_mbit":100}"#,
                "Expose" | "Unexpose" => r#"{"name":"web","PORT":80}"#,
                "Attach" => {
                    r#"{"door":0,"attachment":
                        {"cni":"pods","container":"c","ifname":"eth0","netns":"/run/c"}}"#
                }
                "Snapshot" => r#"{"name":"web","folder":"/s"}"#,
                "CreateMany" => r#"{"name":"web","count":2}"#,
                "AddNetwork" => r#"{"network":{"name":"pods"}}"#,
                "Detach" | "Verify" => r#"{"cni":"pods","container":"c","ifname":"eth0"}"#,
                _ if rest.contains("(name: string") => r#"{"name":"web"}"#,
                _ => "{}",
            };
            let port = if rest.contains(", port: int") { "port" } else { "host_port" };
            let parameters = parameters.replace("PORT", port);
            let text = format!(
                "{{\"method\":\"io.volnet.{method}\",\"parameters\":{parameters},\"more\":true}}"
            );
            let file = io::stdin().as_fd().try_clone_to_owned().expect("any descriptor");
            let call = decode_with(text.as_bytes(), vec![file.into()]);
            let call = call.unwrap_or_else(|rejected| panic!("{text}: {rejected:?}"));
            assert_eq!(call.needs_right(), !open.contains(&method), "{method}");
        }
    }
}
