//! The result of ADD: links, addresses, routes and names (SPEC.md 1.1.0, section 5).

use serde_json::{Map, Value, json};

/// What the daemon has replied to Attach.
type Attached = Map<String, Value>;

/// The result in a version of the specification. The addresses are those of the link in the
/// namespace, which is the third. For a VM, the guest has the first of them, too. In the namespace
/// of the host there is no such link: the tap is the second, and the guest the third.
pub(super) fn of(attached: &Attached, version: &str, dns: Value) -> Value {
    let vm = &attached["vm"];
    let place = &vm["attachment"];
    let link = |name: &Value, mac: &Value| json!({ "name": name, "mac": mac });
    let bridge_mac = attached.get("bridge_mac").cloned().unwrap_or_default();
    let mut bridge = link(&attached["bridge"], &bridge_mac);
    if bridge_mac.is_null() {
        bridge = json!({ "name": attached["bridge"] });
    }
    let is_host = place["host"] == true;
    let (name, sandbox) = match is_host {
        true => (&vm["tap"], &place["container"]),
        false => (&place["ifname"], &place["netns"]),
    };
    let mut inner = link(name, &vm["mac"]);
    inner["sandbox"] = sandbox.clone();
    let mut outer = link(&vm["tap"], &attached["host_mac"]);
    if is_host {
        outer["sandbox"] = place["netns"].clone();
    }
    let mut interfaces = [bridge, outer, inner];
    if version == "1.1.0" {
        interfaces.iter_mut().for_each(|interface| interface["mtu"] = vm["mtu"].clone());
    }
    let mut interfaces = interfaces.to_vec();
    if place["tap"].is_string() {
        interfaces.extend(guest(&interfaces[2], place));
    }
    let length = |mask: &Value| {
        let mask = mask.as_str().and_then(|mask| mask.parse::<std::net::Ipv4Addr>().ok());
        mask.map_or(32, |mask| mask.to_bits().leading_ones())
    };
    let (mut ips, mut routes) = (Vec::new(), Vec::new());
    if let Some(four) = vm["ip"].as_str() {
        let four = format!("{four}/{}", length(&vm["netmask"]));
        ips.push((four, vm["gateway"].clone(), "4"));
        routes.push(json!({ "dst": "0.0.0.0/0", "gw": vm["gateway"] }));
    }
    if let (Some(six), Some(gateway)) = (vm["ip6"].as_str(), attached.get("gateway6")) {
        ips.push((format!("{six}/64"), gateway.clone(), "6"));
        routes.push(json!({ "dst": "::/0", "gw": gateway }));
    }
    // That of the guest's own interface is one alone: its readers take exactly one.
    let of_link = ips.iter().take(if is_host { 1 } else { ips.len() }).map(|ip| (ip, 2));
    let of_guest = ips.iter().take(1).map(|ip| (ip, 4)).filter(|_| interfaces.len() > 4);
    let ips = of_link.chain(of_guest).map(|((address, gateway, family), interface)| {
        let mut ip = json!({ "address": address, "gateway": gateway, "interface": interface });
        if version.starts_with("0.") {
            ip["version"] = (*family).into();
        }
        ip
    });
    json!({
        "cniVersion": version,
        "interfaces": interfaces,
        "ips": ips.collect::<Vec<_>>(),
        "routes": routes,
        "dns": dns
    })
}

/// The tap by which a VM has the network, and the interface that the guest is to have. Both have
/// the same name. They are told apart by their sandbox: that of the tap is the namespace, that of
/// the guest its container. So readers of results find them: awslabs/tc-redirect-tap writes them
/// so, and firecracker-go-sdk (`cni/vmconf`) reads them.
fn guest(link: &Value, place: &Value) -> [Value; 2] {
    let mut tap = json!({ "name": place["tap"], "sandbox": place["netns"] });
    let mut guest = json!({
        "name": place["tap"], "mac": link["mac"], "sandbox": place["container"]
    });
    if let Some(mtu) = link.get("mtu") {
        (tap["mtu"], guest["mtu"]) = (mtu.clone(), mtu.clone());
    }
    [tap, guest]
}
