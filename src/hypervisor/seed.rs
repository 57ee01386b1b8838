//! The seed disk of a VM, which cloud-init in the guest reads: its NoCloud source of data.
//!
//! Source of the format: `doc/rtd/reference/datasources/nocloud.rst` and
//! `doc/rtd/reference/network-config-format-v2.rst` of github.com/canonical/cloud-init. It is a
//! FAT file system with the label `CIDATA` and these files:
//!
//! | file | what it is, where the documents of the VM do not give it |
//! |---|---|
//! | `user-data` | an empty `#cloud-config` |
//! | `meta-data` | an instance id of this VM and no other, also of the same name; the host name |
//! | `network-config` | the addresses of the NICs, or that they ask by DHCP; none in vsock mode |
//!
//! A VM has the disk if its documents have the section `cloud_init`. It is made anew for each
//! start, in the VM's folder, which goes with the VM. The guest gets it as its last disk, read
//! only. The instance id stays the same, so that cloud-init does what is to be done once only once.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value};

use super::fat;
use crate::model::error::Refusal;
use crate::model::kernel_args::host_name;
use crate::model::mode::Mode;
use crate::model::net::NetworkConfig;
use crate::model::nic::Nic;
use crate::model::record::Record;
use crate::model::spec::{Disk, DiskFormat, File, NetworkSpec};
use crate::spec::{self, MetaData};

/// The disk in a VM's folder.
pub const SEED: &str = "seed.img";
/// The label of the file system.
const LABEL: &[u8; 11] = b"CIDATA     ";

/// The image of a VM's seed disk; `None` if its documents say nothing of cloud-init. `servers`
/// are the name servers that its guest is told.
pub fn image(
    record: &Record,
    networks: &[&NetworkConfig],
    servers: &[IpAddr],
) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(given) = spec::cloud_init(&record.spec)? else { return Ok(None) };
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    let user_data = said(given.user_data).unwrap_or_else(|| "#cloud-config\n".into());
    let meta_data = meta_data(record, given.meta_data);
    let network_config =
        said(given.network_config).or_else(|| network_config(record, networks, servers));
    let mut files: Vec<fat::FatFile> =
        vec![("user-data", user_data.as_bytes()), ("meta-data", meta_data.as_bytes())];
    files.extend(network_config.iter().map(|text| ("network-config", text.as_bytes())));
    match fat::image(LABEL, &files) {
        Some(image) => Ok(Some(image)),
        None => {
            let reason = "its texts are too long: all of them must fit 2 MB".into();
            Err(Refusal::InvalidConfig { field: "cloud_init".into(), reason })
        }
    }
}

/// The disk, as a hypervisor is told of it.
pub fn disk(folder: &Path) -> Disk {
    let file = File { path: folder.join(SEED), sha256: None };
    Disk { file, format: DiskFormat::Raw, readonly: true, ..Disk::default() }
}

/// What the guest is. A text stands for itself; keys are completed.
fn meta_data(record: &Record, given: Option<MetaData>) -> String {
    let id = format!("{}-{}", record.name, record.created_at);
    let host = host_name(&record.name);
    match given {
        Some(MetaData::Text(text)) if !text.is_empty() => text,
        Some(MetaData::Text(_)) | None => {
            format!("instance-id: \"{id}\"\nlocal-hostname: \"{host}\"\n")
        }
        Some(MetaData::Keys(mut keys)) => {
            complete(&mut keys, "instance-id", id);
            complete(&mut keys, "local-hostname", host);
            // JSON is YAML, too.
            format!("{:#}\n", Value::Object(keys))
        }
    }
}

fn complete(keys: &mut Map<String, Value>, key: &str, value: String) {
    let at = keys.entry(key).or_insert(Value::Null);
    if at.is_null() {
        *at = value.into();
    }
}

/// How the guest is to set up its NICs; `None` if it has none. As on the kernel command line, the
/// first alone has a gateway and name servers: a guest has one default route.
fn network_config(
    record: &Record,
    networks: &[&NetworkConfig],
    servers: &[IpAddr],
) -> Option<String> {
    if record.nics.is_empty() {
        return None;
    }
    let mut text = String::from("version: 2\nethernets:\n");
    for (index, ((nic, spec), network)) in record.interfaces().zip(networks).enumerate() {
        text += &ethernet(index, nic, spec, network, servers);
    }
    Some(text)
}

/// One NIC, found by its Ethernet address. It is named as the guest's kernel names it first: some
/// ways in which cloud-init writes the configuration down need a name.
fn ethernet(
    index: usize,
    nic: &Nic,
    spec: &NetworkSpec,
    network: &NetworkConfig,
    servers: &[IpAddr],
) -> String {
    let mut text = format!("  eth{index}:\n");
    let mut line = |line: std::fmt::Arguments| {
        let _ = writeln!(text, "    {line}");
    };
    let identity = nic.identity(network);
    line(format_args!("match:"));
    line(format_args!("  macaddress: \"{}\"", identity.mac));
    line(format_args!("set-name: eth{index}"));
    line(format_args!("mtu: {}", spec.mtu.unwrap_or(network.mtu)));
    let is_told = spec.mode != Mode::Dhcp;
    line(format_args!("dhcp4: {}", !is_told));
    let four = identity.ipv4.and_then(|ipv4| Some((ipv4.ip?, ipv4)));
    let mut addresses: Vec<String> =
        four.iter().map(|(ip, of)| format!("{ip}/{}", of.subnet.length())).collect();
    let six = nic.ip6.zip(network.ipv6);
    // In quotation marks: a colon means something else in YAML.
    addresses.extend(six.map(|(ip6, of)| format!("\"{ip6}/{}\"", of.prefix.length())));
    if !addresses.is_empty() {
        line(format_args!("addresses: [{}]", addresses.join(", ")));
    }
    if index > 0 {
        return text;
    }
    if let Some((_, of)) = six {
        line(format_args!("gateway6: \"{}\"", of.host));
    }
    if let Some((_, of)) = four {
        line(format_args!("gateway4: {}", of.gateway));
    }
    if !is_told {
        return text;
    }
    if !servers.is_empty() {
        let servers = servers.iter().map(|server| identity.server(*server).to_string());
        let servers: Vec<String> = servers.collect();
        line(format_args!("nameservers:"));
        line(format_args!("  addresses: [{}]", servers.join(", ")));
        if !network.search().is_empty() {
            line(format_args!("  search: [{}]", network.search().join(", ")));
        }
    }
    text
}

#[cfg(test)]
mod tests;
