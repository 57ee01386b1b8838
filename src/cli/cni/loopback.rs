//! The plugin `loopback`: `lo` of a namespace is up (plugins/main/loopback of
//! containernetworking/plugins).

use serde_json::{Value, json};

use super::call::{Conf, Environment};
use super::error::{CniError, FAILED, UNKNOWN_CONTAINER};
use super::{Printed, unknown};
use crate::cli::attach::open_door;
use crate::network::linux::veth;

/// The link.
const LO: &str = "lo";

/// Runs the verb of the environment.
pub(super) fn verb(conf: &Conf, environment: &Environment) -> Result<Printed, CniError> {
    match environment.required(super::COMMAND)? {
        "ADD" => conf.check_version("0.3.0").and_then(|()| add(conf, environment)),
        // The namespace goes with its `lo`, and others may use it until then.
        "DEL" | "CHECK" | "STATUS" | "GC" => Ok(None),
        other => Err(unknown(other)),
    }
}

fn add(conf: &Conf, environment: &Environment) -> Result<Printed, CniError> {
    let netns = environment.required("CNI_NETNS")?;
    let mut door =
        open_door(netns).map_err(|trouble| CniError::new(UNKNOWN_CONTAINER, trouble.words()))?;
    veth::bring_up(&mut door, LO)
        .map_err(|error| CniError::new(FAILED, error.failure("bring up", LO).to_string()))?;
    if let Some(before) = conf.field("prevResult") {
        return Ok(Some(before.clone()));
    }
    let is_old = conf.version.starts_with("0.");
    let ip = |address: &str, family: &str| {
        let mut ip = json!({ "address": address, "interface": 0 });
        if is_old {
            ip["version"] = family.into();
        }
        ip
    };
    let link = json!({ "name": LO, "mac": "00:00:00:00:00:00", "sandbox": netns });
    let ips: [Value; 2] = [ip("127.0.0.1/8", "4"), ip("::1/128", "6")];
    Ok(Some(json!({
        "cniVersion": conf.version, "interfaces": [link], "ips": ips, "dns": {}
    })))
}
