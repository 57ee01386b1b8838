//! What goes wrong, as CNI numbers it (SPEC.md 1.1.0, section 6 and the codes of its verbs).

use serde_json::{Value, json};

use super::super::Trouble;
use crate::protocol::client::{ErrorReply, NoReply};

/// The version of the configuration is not one of ours.
pub(super) const VERSION: u32 = 1;
/// A field has a value that is not supported.
pub(super) const UNSUPPORTED: u32 = 2;
/// There is no such container.
pub(super) const UNKNOWN_CONTAINER: u32 = 3;
/// The environment is wrong.
pub(super) const ENVIRONMENT: u32 = 4;
/// Standard input cannot be read.
pub(super) const INPUT: u32 = 5;
/// It is not JSON, or not of the right form.
pub(super) const DECODING: u32 = 6;
/// The configuration cannot be.
pub(super) const CONFIGURATION: u32 = 7;
/// The namespace cannot be attached (`ErrInvalidNetNS`, pkg/types of containernetworking/cni).
pub(super) const NAMESPACE: u32 = 8;
/// It may be different later.
pub(super) const LATER: u32 = 11;
/// Nothing can be added now.
pub(super) const UNAVAILABLE: u32 = 50;
/// Nothing can be added now, and what was may lack something.
pub(super) const LIMITED: u32 = 51;
/// Ours: the address belongs to somebody else.
const ADDRESS_IN_USE: u32 = 100;
/// Ours: the port of the host belongs to somebody else.
const PORT_IN_USE: u32 = 101;
/// Ours: the kernel refused a step, or something of the host failed.
pub(super) const FAILED: u32 = 102;
/// Ours: what was added differs from what it was.
pub(super) const DIFFERS: u32 = 103;

/// Why a verb failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CniError {
    pub(super) code: u32,
    /// A sentence.
    pub(super) message: String,
    /// More of it, or empty.
    pub(super) details: String,
}

impl CniError {
    pub(super) fn new(code: u32, message: impl Into<String>) -> CniError {
        CniError { code, message: message.into(), details: String::new() }
    }

    /// As it is printed.
    pub(super) fn json(&self, version: &str) -> Value {
        let CniError { code, message, details } = self;
        json!({ "cniVersion": version, "code": code, "msg": message, "details": details })
    }
}

impl From<Trouble> for CniError {
    fn from(trouble: Trouble) -> CniError {
        let code = match &trouble {
            Trouble::Unreachable { .. } => LATER,
            Trouble::NoReply(NoReply::Error(reply)) => code_of(reply),
            Trouble::Usage(_) | Trouble::Input(_) => CONFIGURATION,
            Trouble::Here(_)
            | Trouble::File { .. }
            | Trouble::NoReply(NoReply::Garbled(_))
            | Trouble::Output(_) => FAILED,
        };
        CniError::new(code, trouble.words())
    }
}

/// The number of an error of the interface.
fn code_of(reply: &ErrorReply) -> u32 {
    match reply.error.strip_prefix("io.volnet.").unwrap_or_default() {
        "AttachmentNotFound" => UNKNOWN_CONTAINER,
        "InvalidConfig" | "InvalidName" | "VmExists" | "AttachmentExists" | "NetworkExists"
        | "NetworkInUse" => CONFIGURATION,
        "NoFreeAddress" | "BridgeFull" | "StateNotWritten" => LATER,
        "AddressInUse" => ADDRESS_IN_USE,
        "PortInUse" => PORT_IN_USE,
        _ => FAILED,
    }
}
