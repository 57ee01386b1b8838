//! Encodes answers.
//!
//! Every function appends one reply with its terminator to `out`. The names of errors and of their
//! parameters are exactly those of `io.volnet.varlink` and `org.varlink.service`.

use std::net::Ipv6Addr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::model::error::{Error, Failure, Refusal};
use crate::model::mac::Mac;
use crate::model::name::VmName;
use crate::model::request;
use crate::model::view::{Event, Finding, NetworkView, TraceWay, UsageView, VmView};

use super::frame::Terminator;
use super::request::CallFault;
use super::text::TextReply;
use super::vms::VmsReply;

/// The parameters of a reply, as the interface names them.
#[derive(Serialize)]
#[serde(untagged)]
enum Parameters<'a> {
    Detached {
        released: bool,
    },
    Plan {
        plan: &'a [String],
    },
    Created {
        vm: &'a VmView,
        plan: &'a [String],
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        notes: &'a [String],
    },
    Vm {
        vm: &'a VmView,
    },
    Empty {},
    Args {
        args: &'a [String],
        kernel_args: &'a str,
    },
    Descriptor {
        fd: usize,
    },
    Networks {
        networks: &'a [NetworkView],
    },
    Network {
        network: &'a NetworkView,
        is_new: bool,
    },
    Version {
        version: &'a str,
        kernel: &'a str,
        backend: &'a str,
        missing: &'a [String],
    },
    Findings {
        findings: &'a [Finding],
    },
    Ways {
        ways: &'a [TraceWay],
        lost: bool,
    },
    Event {
        event: &'a Event,
    },
    Attached {
        vm: &'a VmView,
        bridge: &'a str,
        bridge_mac: Option<Mac>,
        host_mac: Mac,
        gateway6: Option<Ipv6Addr>,
    },
    Verified {
        vm: &'a VmView,
        differences: &'a [String],
    },
    Ready {
        ready: bool,
        limited: bool,
        reason: Option<&'a str>,
    },
}

#[derive(Serialize)]
struct Success<'a, P> {
    parameters: &'a P,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    continues: bool,
}

/// A reply of the engine. `continues`: more replies to the same call follow. What is written in
/// parts is not in it: the VMs of [`request::Reply::Vms`] and [`request::Reply::Usage`], and the
/// text of [`request::Reply::Metrics`].
pub fn reply(out: &mut Vec<u8>, reply: &request::Reply, continues: bool, end: Terminator) {
    use request::Reply;
    let body = match reply {
        Reply::Vms => return VmsReply::default().whole::<VmView>(out, [], continues, end),
        Reply::Usage { at_ms } => {
            return VmsReply::usage(*at_ms).whole::<UsageView>(out, [], continues, end);
        }
        Reply::Metrics => return TextReply::default().whole("", out, end),
        Reply::Plan { plan } => Parameters::Plan { plan },
        Reply::Created { vm, plan, notes } => Parameters::Created { vm, plan, notes },
        Reply::Vm { vm } => Parameters::Vm { vm },
        Reply::Deleted => Parameters::Empty {},
        Reply::Detached { released } => Parameters::Detached { released: *released },
        Reply::Args { args, kernel_args } => Parameters::Args { args, kernel_args },
        // No other descriptor goes with the reply, so its index is 0.
        Reply::Tap { .. } => Parameters::Descriptor { fd: 0 },
        Reply::Networks { networks } => Parameters::Networks { networks },
        Reply::Network { network, is_new } => Parameters::Network { network, is_new: *is_new },
        Reply::Version { version, kernel, backend, missing } => {
            Parameters::Version { version, kernel, backend, missing }
        }
        Reply::Findings { findings } => Parameters::Findings { findings },
        Reply::Ways { ways, lost } => Parameters::Ways { ways, lost: *lost },
        Reply::Event { event } => Parameters::Event { event },
        Reply::Attached { vm, bridge, bridge_mac, host_mac, gateway6 } => Parameters::Attached {
            vm,
            bridge,
            bridge_mac: *bridge_mac,
            host_mac: *host_mac,
            gateway6: *gateway6,
        },
        Reply::Verified { vm, differences } => Parameters::Verified { vm, differences },
        Reply::Ready { ready, limited, reason } => {
            let reason = reason.as_deref();
            Parameters::Ready { ready: *ready, limited: *limited, reason }
        }
    };
    parameters(out, &body, continues, end);
}

/// What became of one of many VMs. An error is no error of the call, which goes on.
pub fn one_of_many(
    out: &mut Vec<u8>,
    name: &VmName,
    result: &Result<request::Reply, Error>,
    continues: bool,
    end: Terminator,
) {
    let body = match result {
        Ok(request::Reply::Created { vm, .. }) => json!({ "name": name, "vm": vm }),
        Ok(_) => json!({ "name": name }),
        Err(error) => {
            let (error, why) = error_parts(error);
            json!({ "name": name, "error": error, "parameters": why })
        }
    };
    parameters(out, &body, continues, end);
}

/// An error of either kind.
pub fn error(out: &mut Vec<u8>, error: &Error, end: Terminator) {
    let (name, parameters) = error_parts(error);
    write(out, &json!({ "error": name, "parameters": parameters }), end);
}

fn error_parts(error: &Error) -> (&'static str, Value) {
    match error {
        Error::Refused(refusal) => refusal_parts(refusal),
        Error::Failed(failure) => failure_parts(failure),
    }
}

/// What is wrong with a message.
pub fn fault(out: &mut Vec<u8>, fault: &CallFault, end: Terminator) {
    let (name, parameters) = match fault {
        CallFault::Message { reason } => ("io.volnet.InvalidMessage", json!({ "reason": reason })),
        CallFault::Interface { interface } => {
            ("org.varlink.service.InterfaceNotFound", json!({ "interface": interface }))
        }
        CallFault::Method { method } => {
            ("org.varlink.service.MethodNotFound", json!({ "method": method }))
        }
        CallFault::Parameter { parameter } => {
            ("org.varlink.service.InvalidParameter", json!({ "parameter": parameter }))
        }
        CallFault::More => ("org.varlink.service.ExpectedMore", json!({})),
        CallFault::Refused(refusal) => refusal_parts(refusal),
    };
    write(out, &json!({ "error": name, "parameters": parameters }), end);
}

/// Any other reply, from its parameters.
pub(super) fn parameters<P: Serialize>(
    out: &mut Vec<u8>,
    parameters: &P,
    continues: bool,
    end: Terminator,
) {
    write(out, &Success { parameters, continues }, end);
}

fn write<T: Serialize>(out: &mut Vec<u8>, value: &T, end: Terminator) {
    serde_json::to_writer(&mut *out, value).expect("a reply is made of what JSON has");
    out.push(end.byte());
}

fn refusal_parts(refusal: &Refusal) -> (&'static str, Value) {
    match refusal {
        Refusal::VmExists { name } => ("io.volnet.VmExists", json!({ "name": name })),
        Refusal::AttachmentExists { container, ifname } => {
            ("io.volnet.AttachmentExists", json!({ "container": container, "ifname": ifname }))
        }
        Refusal::AttachmentNotFound { container, ifname } => {
            ("io.volnet.AttachmentNotFound", json!({ "container": container, "ifname": ifname }))
        }
        Refusal::NetworkExists { name } => ("io.volnet.NetworkExists", json!({ "name": name })),
        Refusal::NetworkNotFound { name } => ("io.volnet.NetworkNotFound", json!({ "name": name })),
        Refusal::NetworkInUse { name, vms } => {
            ("io.volnet.NetworkInUse", json!({ "name": name, "vms": vms }))
        }
        Refusal::VmNotFound { name } => ("io.volnet.VmNotFound", json!({ "name": name })),
        Refusal::VmsExist { count } => ("io.volnet.VmsExist", json!({ "count": count })),
        Refusal::InvalidName { name, reason } => {
            ("io.volnet.InvalidName", json!({ "name": name, "reason": reason }))
        }
        Refusal::InvalidManifest { field, reason } => {
            ("io.volnet.InvalidManifest", json!({ "field": field, "reason": reason }))
        }
        Refusal::InvalidConfig { field, reason } => {
            ("io.volnet.InvalidConfig", json!({ "field": field, "reason": reason }))
        }
        Refusal::NoFreeAddress { network, subnet } => {
            ("io.volnet.NoFreeAddress", json!({ "network": network, "subnet": subnet }))
        }
        Refusal::AddressInUse { ip, owner } => {
            ("io.volnet.AddressInUse", json!({ "ip": ip, "owner": owner }))
        }
        Refusal::PortInUse { protocol, port, owner } => {
            ("io.volnet.PortInUse", json!({ "protocol": protocol, "port": port, "owner": owner }))
        }
        Refusal::BridgeFull { bridge, limit } => {
            ("io.volnet.BridgeFull", json!({ "bridge": bridge, "limit": limit }))
        }
        Refusal::TapBusy { tap, pid } => ("io.volnet.TapBusy", json!({ "tap": tap, "pid": pid })),
        Refusal::WrongState { name, status, wanted } => {
            ("io.volnet.WrongState", json!({ "name": name, "status": status, "wanted": wanted }))
        }
        Refusal::SnapshotExists { path } => ("io.volnet.SnapshotExists", json!({ "path": path })),
        Refusal::InvalidSnapshot { path, reason } => {
            ("io.volnet.InvalidSnapshot", json!({ "path": path, "reason": reason }))
        }
        Refusal::SnapshotMismatch { path, needs, reason } => (
            "io.volnet.SnapshotMismatch",
            json!({ "path": path, "needs": needs, "reason": reason }),
        ),
        // `org.varlink.service` has this error, without parameters.
        Refusal::PermissionDenied { .. } => ("org.varlink.service.PermissionDenied", json!({})),
    }
}

fn failure_parts(failure: &Failure) -> (&'static str, Value) {
    match failure {
        Failure::Kernel { operation, object, outcome: _, errno, message } => (
            "io.volnet.KernelRefused",
            json!({
                "operation": operation, "object": object, "errno": errno, "message": message
            }),
        ),
        Failure::State { path, reason } => {
            ("io.volnet.StateNotWritten", json!({ "path": path, "reason": reason }))
        }
        Failure::Hypervisor { name, reason, log } => {
            ("io.volnet.HypervisorFailed", json!({ "name": name, "reason": reason, "log": log }))
        }
    }
}

#[cfg(test)]
mod tests;
