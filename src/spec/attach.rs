//! The request for an attachment: what tells it from others, and the configuration of its VM.
//!
//! The configuration is that of any VM, of which only the network says something: nothing runs.

use serde_json::Value;

use super::resolve;
use crate::model::attachment::Attachment;
use crate::model::error::Refusal;
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::spec::{NetworkSpec, VmSpec};

/// Checks an attachment, and resolves it with its configuration. The record of such a VM ends with
/// the uptime of the host, as all namespaces do.
pub fn attach(attachment: Attachment, config: Option<&Value>) -> Result<(VmName, VmSpec), Refusal> {
    attachment.check()?;
    let refuse = |field: &str, reason: &str| Refusal::InvalidConfig {
        field: field.into(),
        reason: reason.into(),
    };
    let given = resolve(None, config)?;
    let networks = given.networks.clone();
    // A tap belongs to somebody.
    let owner = given.owner.filter(|_| attachment.is_for_guest());
    let plain = VmSpec { networks, owner, config: given.config.clone(), ..VmSpec::default() };
    if (VmSpec { ephemeral: false, ..given }) != plain {
        return Err(refuse("attachment", "the configuration of an attachment has a network alone"));
    }
    match &plain.networks[..] {
        [NetworkSpec { mode: Mode::Bridged, queues: None | Some(1), .. }] => {}
        [NetworkSpec { mode: Mode::Bridged, .. }] => {
            return Err(refuse("network.queues", "the link of an attachment has one queue"));
        }
        [_] => return Err(refuse("network.mode", "an attachment is bridged")),
        _ => return Err(refuse("networks", "an attachment is on one network")),
    }
    let (name, attachment) = (attachment.id.vm_name(), Some(Box::new(attachment)));
    Ok((name, VmSpec { attachment, ephemeral: true, config: None, ..plain }))
}

/// What something to be attached wants of its network: that of a configuration, or of this name.
pub fn wanted(network: Option<String>, config: Option<&Value>) -> Result<NetworkSpec, Refusal> {
    let mut networks = resolve(None, config)?.networks;
    let mut wanted = networks.pop().filter(|_| networks.is_empty()).ok_or_else(|| {
        let reason = "an attachment is on one network".into();
        Refusal::InvalidConfig { field: "networks".into(), reason }
    })?;
    wanted.name = network.filter(|name| !name.is_empty()).or(wanted.name);
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolved(config: Value) -> Result<VmSpec, String> {
        resolved_with(None, config)
    }

    fn resolved_with(tap: Option<&str>, config: Value) -> Result<VmSpec, String> {
        let attachment = json!({
            "cni": "pods", "container": "c1", "ifname": "eth0", "netns": "/run/netns/a", "tap": tap
        });
        let attachment = serde_json::from_value(attachment).expect("an attachment");
        let attached = attach(attachment, Some(&config)).map_err(|refusal| refusal.to_string())?;
        assert_eq!(attached.0.as_str(), "c1.eth0");
        Ok(attached.1)
    }

    #[test]
    fn what_is_said_of_the_network_holds() {
        let spec = resolved(json!({
            "network": {"name": "lab", "ip": "10.0.0.5", "policy": "none", "isolated": true},
            "expose": [{"port": 80, "host_port": 8080}]
        }))
        .unwrap();
        assert_eq!(spec.networks[0].name.as_deref(), Some("lab"));
        assert_eq!((spec.networks[0].expose.len(), spec.ephemeral), (1, true));
        assert_eq!(spec.attachment.unwrap().id.container, "c1");
        assert_eq!(resolved(json!({})).unwrap().config, None);
        let owned = resolved_with(Some("tap0"), json!({"owner": {"uid": 7}})).unwrap();
        assert_eq!(owned.owner.map(|owner| owner.uid), Some(7));
    }

    #[test]
    fn what_is_said_of_anything_else_is_refused() {
        for (config, field) in [
            (json!({"hypervisor": "qemu"}), "attachment"),
            (json!({"autostart": true}), "attachment"),
            (json!({"vsock": true}), "attachment"),
            (json!({"owner": {"uid": 7, "gid": 7}}), "attachment"),
            (json!({"network": {"mode": "dhcp"}}), "network.mode"),
            (json!({"network": {"mode": "vsock"}}), "network.mode"),
            (json!({"network": {"queues": 2}}), "network.queues"),
            (json!({"networks": [{}, {}]}), "networks"),
        ] {
            let reason = resolved(config.clone()).expect_err("refused");
            assert!(reason.starts_with(&format!("config: {field}: ")), "{config}: {reason}");
        }
    }
}
