//! The client: it encodes calls, decodes replies, and turns error replies into sentences.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::model::error::{Error, Failure, Refusal};

/// A reply that is not an error.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplyMessage {
    /// Its parameters.
    pub parameters: Map<String, Value>,
    /// More replies to the same call follow.
    pub continues: bool,
}

/// An error reply.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorReply {
    /// The error's full name, `io.volnet.VmExists`.
    pub error: String,
    /// Its parameters.
    pub parameters: Map<String, Value>,
}

/// Why there is no reply: the service returned an error, or the bytes are not a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum NoReply {
    /// An error reply.
    Error(ErrorReply),
    /// The bytes are not a reply; this is why.
    Garbled(String),
}

/// The message of a call, without a terminator.
pub fn call(method: &str, parameters: Value, more: bool) -> Vec<u8> {
    let mut message = json!({ "method": method, "parameters": parameters });
    if more {
        message["more"] = Value::Bool(true);
    }
    message.to_string().into_bytes()
}

/// Reads a reply, without its terminator.
pub fn decode(message: &[u8]) -> Result<ReplyMessage, NoReply> {
    let mut reply: Map<String, Value> =
        serde_json::from_slice(message).map_err(|error| NoReply::Garbled(error.to_string()))?;
    let parameters = match reply.remove("parameters") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(parameters)) => parameters,
        Some(_) => return Err(NoReply::Garbled("parameters is not an object".into())),
    };
    match reply.remove("error") {
        None => {
            let continues = reply.get("continues").and_then(Value::as_bool).unwrap_or(false);
            Ok(ReplyMessage { parameters, continues })
        }
        Some(Value::String(error)) => Err(NoReply::Error(ErrorReply { error, parameters })),
        Some(_) => Err(NoReply::Garbled("error is not a string".into())),
    }
}

impl ErrorReply {
    /// A parameter as text. A string has no quotes.
    fn text(&self, parameter: &str) -> String {
        match self.parameters.get(parameter) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        }
    }

    fn number<N: TryFrom<u64>>(&self, parameter: &str) -> Option<N> {
        self.parameters.get(parameter)?.as_u64()?.try_into().ok()
    }

    /// The error of the service, if its text depends on nothing else.
    pub(super) fn original(&self) -> Option<Error> {
        let text = |parameter| self.text(parameter);
        let refusal = match self.error.strip_prefix("io.volnet.")? {
            "VmExists" => Refusal::VmExists { name: text("name") },
            "VmNotFound" => Refusal::VmNotFound { name: text("name") },
            "NetworkExists" => Refusal::NetworkExists { name: text("name") },
            "NetworkNotFound" => Refusal::NetworkNotFound { name: text("name") },
            "NetworkInUse" => {
                Refusal::NetworkInUse { name: text("name"), vms: self.number("vms")? }
            }
            "AttachmentExists" => {
                Refusal::AttachmentExists { container: text("container"), ifname: text("ifname") }
            }
            "AttachmentNotFound" => {
                Refusal::AttachmentNotFound { container: text("container"), ifname: text("ifname") }
            }
            "VmsExist" => Refusal::VmsExist { count: self.number("count")? },
            "InvalidName" => Refusal::InvalidName { name: text("name"), reason: text("reason") },
            "InvalidManifest" => {
                Refusal::InvalidManifest { field: text("field"), reason: text("reason") }
            }
            "InvalidConfig" => {
                Refusal::InvalidConfig { field: text("field"), reason: text("reason") }
            }
            "NoFreeAddress" => Refusal::NoFreeAddress {
                network: text("network"),
                subnet: text("subnet").parse().ok()?,
            },
            "AddressInUse" => {
                Refusal::AddressInUse { ip: text("ip").parse().ok()?, owner: text("owner") }
            }
            "PortInUse" => Refusal::PortInUse {
                protocol: text("protocol").parse().ok()?,
                port: self.number("port")?,
                owner: text("owner"),
            },
            "BridgeFull" => {
                Refusal::BridgeFull { bridge: text("bridge"), limit: self.number("limit")? }
            }
            "TapBusy" => Refusal::TapBusy { tap: text("tap"), pid: self.number("pid") },
            "SnapshotExists" => Refusal::SnapshotExists { path: text("path") },
            "InvalidSnapshot" => {
                Refusal::InvalidSnapshot { path: text("path"), reason: text("reason") }
            }
            "StateNotWritten" => {
                return Some(Failure::State { path: text("path"), reason: text("reason") }.into());
            }
            "HypervisorFailed" => {
                let log = self.parameters.get("log").and_then(Value::as_str).map(String::from);
                let (name, reason) = (text("name"), text("reason"));
                return Some(Failure::Hypervisor { name, reason, log }.into());
            }
            _ => return None,
        };
        Some(refusal.into())
    }
}

impl fmt::Display for ErrorReply {
    /// The same sentence that the service itself would write.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = self.original() {
            return error.fmt(f);
        }
        let text = |parameter| self.text(parameter);
        match self.error.as_str() {
            "io.volnet.WrongState" => {
                write!(f, "VM {} is {}, not {}", text("name"), text("status"), text("wanted"))
            }
            "io.volnet.SnapshotMismatch" => {
                let (path, needs, reason) = (text("path"), text("needs"), text("reason"));
                write!(f, "snapshot {path}: {needs}: {reason}")
            }
            "io.volnet.KernelRefused" => write!(
                f,
                "{} {}: {} (errno {})",
                text("operation"),
                text("object"),
                text("message"),
                text("errno")
            ),
            "io.volnet.InvalidMessage" => f.write_str(&text("reason")),
            "org.varlink.service.PermissionDenied" => f.write_str(
                "permission denied: only root, the daemon's user and the group volnet may do this",
            ),
            "org.varlink.service.InvalidParameter" => {
                write!(f, "parameter {} is missing, wrong or unknown", text("parameter"))
            }
            "org.varlink.service.MethodNotFound" => {
                write!(f, "there is no method {}", text("method"))
            }
            "org.varlink.service.InterfaceNotFound" => {
                write!(f, "there is no interface {}", text("interface"))
            }
            name => write!(f, "{name} {}", Value::Object(self.parameters.clone())),
        }
    }
}

impl fmt::Display for NoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoReply::Error(error) => error.fmt(f),
            NoReply::Garbled(reason) => write!(f, "the daemon's reply cannot be read: {reason}"),
        }
    }
}
