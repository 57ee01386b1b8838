//! The host as other tools show it, for comparing it at different times.

use serde_json::{Value, json};

use super::run;

/// The kernel's objects, without values that differ each time they are made.
pub(crate) fn shown() -> Value {
    let mut links: Value = serde_json::from_str(&run("ip -d -j link")).unwrap();
    let mut rules: Value = serde_json::from_str(&run("nft -j list ruleset")).unwrap();
    for link in links.as_array_mut().unwrap() {
        let tap = link["linkinfo"]["info_kind"] == "tun";
        let link = link.as_object_mut().unwrap();
        for volatile in ["ifindex", "link_index", "operstate", "tso_max_size"] {
            link.remove(volatile);
        }
        if tap {
            // The kernel makes up the tap's own address.
            link.remove("address");
        }
        // Carrier comes and goes on its own time.
        let flags = link["flags"].as_array_mut().unwrap();
        flags.retain(|flag| flag != "LOWER_UP" && flag != "NO-CARRIER");
        if let Some(data) = link.get_mut("linkinfo") {
            strip(data, &["bridge_id", "root_id", "hello_timer", "gc_timer", "tcn_timer"]);
            strip(data, &["topology_change_timer", "message_age_timer", "forward_delay_timer"]);
            strip(data, &["state", "hold_timer", "designated_bridge", "designated_root"]);
            strip(data, &["id", "no", "designated_port"]);
        }
    }
    links.as_array_mut().unwrap().sort_by_key(|link| link["ifname"].to_string());
    strip(&mut rules, &["handle"]);
    let objects = rules["nftables"].as_array_mut().unwrap();
    objects.sort_by_key(ToString::to_string);
    // Of our two handles one is as good as the other.
    let qdiscs = run("tc -j qdisc").replace("7670:", "766f:");
    let mut qdiscs: Value = serde_json::from_str(&qdiscs).unwrap();
    qdiscs.as_array_mut().unwrap().sort_by_key(ToString::to_string);
    let routes = ["-4", "-6"]
        .map(|family| run(&format!("ip {family} route show proto 118")).replace(" linkdown", ""));
    json!({
        "links": links,
        "addresses": run("ip -o -4 addr show dev vbr0").split_whitespace().nth(3),
        "routes": routes,
        "forwarding": run("cat /proc/sys/net/ipv4/ip_forward"),
        "rules": rules,
        "qdiscs": qdiscs,
    })
}

/// Removes fields of these names, however deep.
fn strip(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !names.contains(&name.as_str()));
            fields.values_mut().for_each(|value| strip(value, names));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| strip(value, names)),
        _ => {}
    }
}
