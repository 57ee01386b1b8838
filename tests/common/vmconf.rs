//! What a VM gets of the result of a CNI plugin, by the rules of firecracker-go-sdk
//! (`cni/vmconf/vmconf.go`), which other programs that run VMs in network namespaces keep to.

use std::process::Command;

use serde_json::Value;

/// The network of a VM.
#[derive(Debug)]
pub(crate) struct Vmconf {
    /// The tap that it opens in the namespace.
    pub(crate) tap: String,
    /// The path of the namespace.
    pub(crate) netns: String,
    /// The Ethernet address of the guest.
    pub(crate) mac: String,
    /// That of the tap.
    pub(crate) mtu: u64,
    /// `ip=` of the guest's kernel (Documentation/admin-guide/nfs/nfsroot.rst), with this name and
    /// device.
    pub(crate) boot: String,
}

/// Reads a result for a container. Each rule that it breaks is a panic.
pub(crate) fn vmconf(result: &Value, container: &str) -> Vmconf {
    let list = |field: &str| result[field].as_array().expect("a list").clone();
    let text = |value: &Value| value.as_str().expect("a text").to_string();
    let interfaces = list("interfaces");
    let places: Vec<usize> =
        (0..interfaces.len()).filter(|place| interfaces[*place]["sandbox"] == container).collect();
    let [place] = places[..] else { panic!("{} interfaces of the guest: {result}", places.len()) };
    let guest = &interfaces[place];
    let taps: Vec<&Value> = interfaces
        .iter()
        .filter(|other| other["name"] == guest["name"] && other["sandbox"] != container)
        .collect();
    let [tap] = taps[..] else { panic!("{} taps of the guest: {result}", taps.len()) };
    let (name, netns) = (text(&tap["name"]), text(&tap["sandbox"]));
    let shown = Command::new("nsenter")
        .arg(format!("--net={netns}"))
        .args(["ip", "-j", "link", "show", "dev", &name])
        .output()
        .expect("nsenter runs");
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("the tap is there");
    let ips: Vec<Value> = list("ips").into_iter().filter(|ip| ip["interface"] == place).collect();
    let [ip] = &ips[..] else { panic!("{} addresses of the guest: {result}", ips.len()) };
    let address = text(&ip["address"]);
    let (address, length) = address.split_once('/').expect("a prefix");
    let length: u32 = length.parse().expect("a length");
    let mask = std::net::Ipv4Addr::from(u32::MAX << (32 - length));
    let gateway = text(&ip["gateway"]);
    Vmconf {
        boot: format!("ip={address}::{gateway}:{mask}:{container}:eth0:off:::"),
        tap: name,
        netns,
        mac: text(&guest["mac"]),
        mtu: shown[0]["mtu"].as_u64().expect("a number"),
    }
}
