//! `org.varlink.service`: volnet describes itself.

use serde::Serialize;

use super::frame::Terminator;
use super::reply;
use super::request::CallFault;

/// The name of this interface.
pub const INTERFACE: &str = "org.varlink.service";
/// The description of `io.volnet`.
pub const VOLNET: &str = include_str!("io.volnet.varlink");
/// The description of `org.varlink.service`.
const SERVICE: &str = include_str!("org.varlink.service.varlink");

/// A call of `org.varlink.service`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceCall {
    /// The vendor, product, version and interfaces.
    GetInfo,
    /// The description of one interface.
    GetInterfaceDescription { interface: String },
}

#[derive(Serialize)]
struct Info {
    vendor: &'static str,
    product: &'static str,
    version: &'static str,
    url: &'static str,
    interfaces: [&'static str; 2],
}

#[derive(Serialize)]
struct Description {
    description: &'static str,
}

/// Answers a call.
pub fn answer(out: &mut Vec<u8>, call: &ServiceCall, end: Terminator) {
    match call {
        ServiceCall::GetInfo => {
            let info = Info {
                vendor: "volnet",
                product: "volnet",
                version: env!("CARGO_PKG_VERSION"),
                url: env!("CARGO_PKG_HOMEPAGE"),
                interfaces: [INTERFACE, "io.volnet"],
            };
            reply::parameters(out, &info, false, end);
        }
        ServiceCall::GetInterfaceDescription { interface } => match interface.as_str() {
            "io.volnet" => {
                reply::parameters(out, &Description { description: VOLNET }, false, end);
            }
            INTERFACE => reply::parameters(out, &Description { description: SERVICE }, false, end),
            _ => reply::fault(out, &CallFault::Interface { interface: interface.clone() }, end),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(call: ServiceCall) -> serde_json::Value {
        let mut out = Vec::new();
        answer(&mut out, &call, Terminator::Nul);
        assert_eq!(out.pop(), Some(0));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn says_what_it_is() {
        let info = &answered(ServiceCall::GetInfo)["parameters"];
        assert_eq!(info["product"], "volnet");
        assert_eq!(info["url"], "man:volnet(8)");
        assert_eq!(info["interfaces"][1], "io.volnet");
    }

    #[test]
    fn describes_each_interface_it_names() {
        for interface in ["io.volnet", INTERFACE] {
            let call = ServiceCall::GetInterfaceDescription { interface: interface.into() };
            let reply = answered(call);
            let description = reply["parameters"]["description"].as_str().unwrap();
            assert!(description.contains(&format!("\ninterface {interface}\n")));
        }
        let unknown = ServiceCall::GetInterfaceDescription { interface: "io.other".into() };
        assert_eq!(answered(unknown)["error"], "org.varlink.service.InterfaceNotFound");
    }
}
