//! The sections that manifest and configuration share, and the sections of which volnet only checks
//! the form.
//!
//! A file may turn out to be unused: the manifest's disk, if the configuration names another. So it
//! is taken as a [`FileSource`], which is parsed only if it is used. A manifest whose image is on
//! the web is accepted if the configuration names the fetched file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::fields::{Fields, Place};
use super::text;
use crate::model::budget::{Budget, CPU_PERCENT_MAX, IoRates, MEMORY_MAX_MB_MIN, RATE_MAX};
use crate::model::error::Refusal;
use crate::model::expose::{EXPOSED_MAX, Expose};
use crate::model::inner::{self, InnerSpec};
use crate::model::limits::Limits;
use crate::model::mac::Mac;
use crate::model::mode::Mode;
use crate::model::nic::NICS_MAX;
use crate::model::prefix::Prefix;
use crate::model::spec::{
    ADDRESSES_MAX, Disk, DiskCache, DiskFormat, DiskLimits, File, Owner, SHARES_MAX, Share,
};
use crate::model::traffic::Traffic;
use serde_json::Value;

/// The most virtual CPUs.
pub const CPUS_MAX: u64 = 255;
/// The least memory in MiB: a kernel does not fit in less.
pub const MEMORY_MB_MIN: u64 = 16;
/// The most memory in MiB: 16 TiB.
pub const MEMORY_MB_MAX: u64 = 16 << 20;
/// The least MTU in bytes that IPv4 allows (RFC 791).
pub const MTU_MIN: u64 = 68;
/// The largest MTU in bytes that a tap can have: `MAX_MTU` less an Ethernet header
/// (drivers/net/tun.c, tun_net_initialize).
pub const MTU_MAX: u64 = 65521;
/// The most queue pairs of a guest's interface.
pub const QUEUES_MAX: u64 = 16;
/// The most disks of a VM, its root file system among them.
pub const DISKS_MAX: usize = 16;
/// The largest number of a user or a group. The next one means none (chown(2)).
const ID_MAX: u64 = u32::MAX as u64 - 1;
/// The most arguments for a hypervisor beside volnet's own.
const ARGS_MAX: usize = 128;
/// The largest port number.
const PORT_MAX: u64 = 65535;

/// The fields that a `network` section declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) mode: Option<Mode>,
    pub(super) name: Option<String>,
    pub(super) subnet: Option<Prefix>,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) ip: Option<Ipv4Addr>,
    pub(super) ip6: Option<Ipv6Addr>,
    pub(super) addresses: Vec<Ipv4Addr>,
    pub(super) mac: Option<Mac>,
    pub(super) inner: Option<InnerSpec>,
    pub(super) mtu: Option<u16>,
    pub(super) queues: Option<u16>,
    pub(super) traffic: Traffic,
    /// `None`: nothing is said of ports. Empty: there are to be none.
    pub(super) expose: Option<Vec<Expose>>,
}

/// A `resources` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resources {
    pub(super) cpus: Option<u32>,
    pub(super) memory_mb: Option<u64>,
    pub(super) hugepages: bool,
    pub(super) balloon: bool,
}

/// A file that is named but not yet parsed.
#[derive(Clone, Debug)]
pub(super) struct FileSource<'a> {
    fields: Fields<'a>,
    /// The field with its place.
    location: &'static str,
    pub(super) format: DiskFormat,
    readonly: bool,
    cache: DiskCache,
    limits: DiskLimits,
}

impl FileSource<'_> {
    /// Parses it.
    pub(super) fn file(&self) -> Result<File, Refusal> {
        let missing = || self.fields.place.field(self.location).refuse("it is missing");
        let path = self.fields.parsed(self.location, text::location)?.ok_or_else(missing)?;
        Ok(File { path, sha256: self.fields.parsed("checksum", text::checksum)? })
    }

    /// Parses it as a disk.
    pub(super) fn disk(&self) -> Result<Disk, Refusal> {
        Ok(Disk {
            file: self.file()?,
            format: self.format,
            readonly: self.readonly,
            cache: self.cache,
            limits: self.limits,
        })
    }
}

/// The network section of a manifest.
pub(super) fn manifest_network(fields: &Fields) -> Result<Network, Refusal> {
    const KNOWN: &[&str] = &["mode", "subnet", "gateway", "auto_assign", "expose"];
    let Some(fields) = fields.section("network", KNOWN)? else { return Ok(Network::default()) };
    let expose = expose(&fields, Unnamed::Any)?;
    Ok(Network { expose, ..shared_network(&fields)? })
}

/// The networks of a configuration: the list `networks`, or the one section `network`.
pub(super) fn config_networks(fields: &Fields) -> Result<Vec<Network>, Refusal> {
    let items = fields.list("networks")?;
    let Some(single) = fields.section("network", CONFIG_NETWORK)? else {
        if items.len() > NICS_MAX {
            let reason = format!("there may be at most {NICS_MAX}");
            return Err(fields.place.field("networks").refuse(reason));
        }
        let read = |(place, value)| config_network(&Fields::read(place, value, CONFIG_NETWORK)?);
        return items.into_iter().map(read).collect();
    };
    if !items.is_empty() {
        let reason = "it says what `network` says already; name one of the two";
        return Err(fields.place.field("networks").refuse(reason));
    }
    Ok(vec![config_network(&single)?])
}

/// The fields of a network in a configuration: the manifest's and volnet's own.
const CONFIG_NETWORK: &[&str] = &[
    "mode",
    "subnet",
    "gateway",
    "auto_assign",
    "name",
    "ip",
    "ip6",
    "addresses",
    "mac",
    "inner",
    "mtu",
    "queues",
    "isolated",
    "policy",
    "limits",
    "antispoof",
    "expose",
];

fn config_network(fields: &Fields) -> Result<Network, Refusal> {
    let narrow = |number: u64| number as u16;
    Ok(Network {
        name: fields.parsed("name", text::name)?,
        ip: fields.parsed("ip", address)?,
        ip6: fields.parsed("ip6", address6)?,
        addresses: addresses(fields)?,
        mac: fields.parsed("mac", mac)?,
        inner: inner(fields)?,
        mtu: fields.integer("mtu", MTU_MIN..=MTU_MAX)?.map(narrow),
        queues: fields.integer("queues", 1..=QUEUES_MAX)?.map(narrow),
        traffic: traffic(fields)?,
        expose: expose(fields, Unnamed::Same)?,
        ..shared_network(fields)?
    })
}

/// What a section says of the traffic of an interface, or of a network.
pub(crate) fn traffic(fields: &Fields) -> Result<Traffic, Refusal> {
    Ok(Traffic {
        policy: fields.parsed("policy", text::name)?,
        limits: limits(fields)?,
        isolated: fields.flag("isolated")?,
        antispoof: fields.flag("antispoof")?,
    })
}

fn limits(fields: &Fields) -> Result<Limits, Refusal> {
    match fields.section("limits", &["rx_mbit", "tx_mbit", "burst_kb", "pps"])? {
        Some(fields) => Limits::read(|name, bounds| fields.integer(name, bounds)),
        None => Ok(Limits::default()),
    }
}

/// The identity that a guest has inside.
pub(crate) fn inner(fields: &Fields) -> Result<Option<InnerSpec>, Refusal> {
    const KNOWN: &[&str] = &["mac", "ip", "gateway", "gateway_mac"];
    let Some(fields) = fields.section("inner", KNOWN)? else { return Ok(None) };
    let missing = |name: &'static str| fields.place.field(name).refuse("it is missing");
    let (ip, prefix) = fields.parsed("ip", inner_address)?.ok_or_else(|| missing("ip"))?;
    Ok(Some(InnerSpec {
        mac: fields.parsed("mac", mac)?.ok_or_else(|| missing("mac"))?,
        ip,
        prefix,
        gateway: fields.parsed("gateway", address)?,
        gateway_mac: fields.parsed("gateway_mac", mac)?,
    }))
}

/// An address, alone or with a slash and the length of its prefix.
fn inner_address(text: &str) -> Result<(Ipv4Addr, Option<u8>), String> {
    let Some((ip, length)) = text.split_once('/') else { return Ok((address(text)?, None)) };
    let number = length.parse().ok().filter(|_| length.bytes().all(|byte| byte.is_ascii_digit()));
    match number.filter(|length| inner::is_length(*length)) {
        Some(length) => Ok((address(ip)?, Some(length))),
        None => Err(format!(
            "the length of {text:?} is not from {} to {}",
            inner::PREFIX_MIN,
            inner::PREFIX_MAX
        )),
    }
}

fn shared_network(fields: &Fields) -> Result<Network, Refusal> {
    fields.flag("auto_assign")?;
    Ok(Network {
        mode: fields.parsed("mode", str::parse)?,
        subnet: fields.parsed("subnet", str::parse)?,
        gateway: fields.parsed("gateway", address)?,
        ..Network::default()
    })
}

/// The addresses besides the guest's own, each named once.
fn addresses(fields: &Fields) -> Result<Vec<Ipv4Addr>, Refusal> {
    let named = fields.parsed_list("addresses", ADDRESSES_MAX, address)?.unwrap_or_default();
    let mut before = named.iter().enumerate();
    match before.find(|(at, address)| named[..*at].contains(address)) {
        None => Ok(named),
        Some((at, address)) => {
            let place = fields.place.field("addresses").element(at);
            Err(place.refuse(format!("{address} is named twice")))
        }
    }
}

fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IPv4 address"))
}

fn address6(text: &str) -> Result<Ipv6Addr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IPv6 address"))
}

fn address_of_host(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address"))
}

fn mac(text: &str) -> Result<Mac, String> {
    let mac: Mac = text.parse()?;
    if mac.is_usable() { Ok(mac) } else { Err(format!("{mac} is not a unicast address")) }
}

/// The resources section.
pub(super) fn resources(fields: &Fields) -> Result<Resources, Refusal> {
    match fields.section("resources", &["cpu_cores", "memory_mb"])? {
        Some(fields) => size(&fields),
        None => Ok(Resources::default()),
    }
}

/// The fields of the section in a configuration: the manifest's and volnet's own.
const CONFIG_RESOURCES: &[&str] =
    &["cpu_cores", "memory_mb", "hugepages", "balloon", "cpu_percent", "memory_max_mb", "io"];

/// The resources section of a configuration, as far as it is about the machine.
pub(super) fn config_resources(fields: &Fields) -> Result<Resources, Refusal> {
    let Some(fields) = fields.section("resources", CONFIG_RESOURCES)? else {
        return Ok(Resources::default());
    };
    Ok(Resources {
        hugepages: fields.flag("hugepages")?.unwrap_or_default(),
        balloon: fields.flag("balloon")?.unwrap_or_default(),
        ..size(&fields)?
    })
}

/// The same section, as far as it is about the processes of the host.
pub(super) fn budget(fields: &Fields) -> Result<Budget, Refusal> {
    let Some(fields) = fields.section("resources", CONFIG_RESOURCES)? else {
        return Ok(Budget::default());
    };
    Ok(Budget {
        cpu_percent: fields.integer("cpu_percent", 1..=CPU_PERCENT_MAX)?.map(|n| n as u32),
        memory_max_mb: fields.integer("memory_max_mb", MEMORY_MAX_MB_MIN..=MEMORY_MB_MAX)?,
        io: io_rates(&fields)?,
    })
}

fn io_rates(fields: &Fields) -> Result<Option<IoRates>, Refusal> {
    const KNOWN: &[&str] = &["read_mb", "write_mb", "read_iops", "write_iops"];
    let Some(fields) = fields.section("io", KNOWN)? else { return Ok(None) };
    let rate = |name| Ok(fields.integer(name, 1..=RATE_MAX)?.map(|number| number as u32));
    let rates = IoRates {
        read_mb: rate("read_mb")?,
        write_mb: rate("write_mb")?,
        read_iops: rate("read_iops")?,
        write_iops: rate("write_iops")?,
    };
    Ok((rates != IoRates::default()).then_some(rates))
}

fn size(fields: &Fields) -> Result<Resources, Refusal> {
    Ok(Resources {
        cpus: fields.integer("cpu_cores", 1..=CPUS_MAX)?.map(|number| number as u32),
        memory_mb: fields.integer("memory_mb", MEMORY_MB_MIN..=MEMORY_MB_MAX)?,
        ..Resources::default()
    })
}

/// Arguments for a hypervisor after volnet's own.
pub(crate) fn extra_args(fields: &Fields) -> Result<Vec<String>, Refusal> {
    Ok(fields.parsed_list("args", ARGS_MAX, text::argument)?.unwrap_or_default())
}

/// The owner of a VM whose hypervisor somebody else runs. A group that is not named has the number
/// of the user.
pub(super) fn owner(fields: &Fields) -> Result<Option<Owner>, Refusal> {
    let Some(fields) = fields.section("owner", &["uid", "gid"])? else { return Ok(None) };
    let missing = || fields.place.field("uid").refuse("it is missing");
    let uid = fields.integer("uid", 0..=ID_MAX)?.ok_or_else(missing)?;
    let gid = fields.integer("gid", 0..=ID_MAX)?.unwrap_or(uid);
    Ok(Some(Owner { uid: uid as u32, gid: gid as u32 }))
}

/// The initramfs, if one is named.
pub(super) fn initramfs<'a>(fields: &Fields<'a>) -> Result<Option<FileSource<'a>>, Refusal> {
    let known = &["url", "checksum", "format"];
    let Some(fields) = fields.section("initramfs", known)? else { return Ok(None) };
    // The kernel finds out by itself how it is compressed.
    fields.text("format")?;
    source(fields)
}

/// The root file system, if one is named.
pub(super) fn rootfs<'a>(fields: &Fields<'a>) -> Result<Option<FileSource<'a>>, Refusal> {
    const KNOWN: &[&str] = &["url", "checksum", "format", "cache", "limits"];
    let Some(fields) = fields.section("rootfs", KNOWN)? else { return Ok(None) };
    let format = fields.parsed("format", text::disk_format)?.unwrap_or_default();
    let (cache, limits) = (cache(&fields)?, disk_limits(&fields)?);
    Ok(source(fields)?.map(|source| FileSource { format, cache, limits, ..source }))
}

fn cache(fields: &Fields) -> Result<DiskCache, Refusal> {
    Ok(fields.parsed("cache", text::disk_cache)?.unwrap_or_default())
}

fn disk_limits(fields: &Fields) -> Result<DiskLimits, Refusal> {
    let Some(fields) = fields.section("limits", &["mb", "iops"])? else {
        return Ok(DiskLimits::default());
    };
    let rate = |name| Ok(fields.integer(name, 1..=RATE_MAX)?.map(|number| number as u32));
    Ok(DiskLimits { mb: rate("mb")?, iops: rate("iops")? })
}

/// A section whose `url` is empty names no file. A checksum without a file is refused: nobody would
/// check it.
fn source(fields: Fields<'_>) -> Result<Option<FileSource<'_>>, Refusal> {
    let checksum = fields.text("checksum")?;
    match fields.text("url")? {
        Some(_) => Ok(Some(FileSource {
            fields,
            location: "url",
            format: DiskFormat::Raw,
            readonly: false,
            cache: DiskCache::default(),
            limits: DiskLimits::default(),
        })),
        None if checksum.is_some() => {
            Err(fields.place.field("url").refuse("it is missing, but a checksum is given"))
        }
        None => Ok(None),
    }
}

/// The disks besides the root file system.
pub(super) fn disks<'a>(fields: &Fields<'a>) -> Result<Vec<FileSource<'a>>, Refusal> {
    const KNOWN: &[&str] =
        &["name", "source", "checksum", "format", "readonly", "target", "cache", "limits"];
    let items = fields.list("disks")?;
    if items.len() >= DISKS_MAX {
        let reason =
            format!("at most {} disks are allowed besides the root file system", DISKS_MAX - 1);
        return Err(fields.place.field("disks").refuse(reason));
    }
    let read = |(place, value): (Place, &'a Value)| {
        let fields = Fields::read(place, value, KNOWN)?;
        fields.text("name")?;
        fields.text("target")?;
        let format = fields.parsed("format", text::disk_format)?.unwrap_or_default();
        let readonly = fields.flag("readonly")?.unwrap_or_default();
        let (cache, limits) = (cache(&fields)?, disk_limits(&fields)?);
        Ok(FileSource { fields, location: "source", format, readonly, cache, limits })
    };
    items.into_iter().map(read).collect()
}

/// The directories that the guest sees, each by a tag of its own.
pub(super) fn shares(fields: &Fields) -> Result<Vec<Share>, Refusal> {
    let items = fields.list("shares")?;
    if items.len() > SHARES_MAX {
        let reason = format!("there may be at most {SHARES_MAX}");
        return Err(fields.place.field("shares").refuse(reason));
    }
    let mut shares: Vec<Share> = Vec::with_capacity(items.len());
    for (place, value) in items {
        let fields = Fields::read(place, value, &["tag", "path", "readonly"])?;
        let missing = |name: &'static str| fields.place.field(name).refuse("it is missing");
        let tag = fields.parsed("tag", text::tag)?.ok_or_else(|| missing("tag"))?;
        let path = fields.parsed("path", text::location)?.ok_or_else(|| missing("path"))?;
        if shares.iter().any(|other| other.tag == tag) {
            return Err(fields.place.field("tag").refuse(format!("{tag} is named twice")));
        }
        let readonly = fields.flag("readonly")?.unwrap_or_default();
        shares.push(Share { tag, path, readonly });
    }
    Ok(shares)
}

/// Checks the form of `devices`.
pub(super) fn check_devices(fields: &Fields) -> Result<(), Refusal> {
    let Some(fields) = fields.section("devices", &["pci_passthrough", "allowlist"])? else {
        return Ok(());
    };
    fields.check_texts("pci_passthrough")?;
    fields.check_texts("allowlist")
}

/// The port of the host where a document does not name one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unnamed {
    /// That of the guest's port.
    Same,
    /// Any that is free: a manifest describes many VMs, and a port of the host leads to one.
    Any,
}

/// The exposed ports; `None` if the document says nothing of ports.
pub(super) fn expose(fields: &Fields, unnamed: Unnamed) -> Result<Option<Vec<Expose>>, Refusal> {
    if fields.value("expose").is_none() {
        return Ok(None);
    }
    let items = fields.list("expose")?;
    let too_many = || {
        let reason = format!("a VM may have at most {EXPOSED_MAX} exposed ports");
        fields.place.field("expose").refuse(reason)
    };
    if items.len() > EXPOSED_MAX {
        return Err(too_many());
    }
    let mut exposed: Vec<Expose> = Vec::with_capacity(items.len());
    for (place, value) in items {
        let (place, expose) = expose_one(place, value, unnamed)?;
        let twice = |other: &Expose| other.at().meets(&expose.at());
        if expose.host_port != 0 && exposed.iter().any(twice) {
            let reason = format!("{} is exposed twice", expose.at());
            return Err(place.field("host_port").refuse(reason));
        }
        exposed.push(expose);
    }
    match exposed.iter().map(|port| usize::from(port.count)).sum::<usize>() > EXPOSED_MAX {
        true => Err(too_many()),
        false => Ok(Some(exposed)),
    }
}

fn expose_one(place: Place, value: &Value, unnamed: Unnamed) -> Result<(Place, Expose), Refusal> {
    const KNOWN: &[&str] = &["name", "protocol", "port", "host_port", "count", "host_ip", "mode"];
    let fields = Fields::read(place, value, KNOWN)?;
    fields.text("mode")?;
    let missing = || fields.place.field("port").refuse("it is missing");
    let port = fields.integer("port", 1..=PORT_MAX)?.ok_or_else(missing)?;
    let host_port = fields.integer("host_port", 0..=PORT_MAX)?.unwrap_or(match unnamed {
        Unnamed::Same => port,
        Unnamed::Any => 0,
    });
    let count = fields.integer("count", 1..=EXPOSED_MAX as u64)?.unwrap_or(1);
    let expose = Expose {
        protocol: fields.parsed("protocol", str::parse)?.unwrap_or_default(),
        port: port as u16,
        host_port: host_port as u16,
        count: count as u16,
        host_ip: fields.parsed("host_ip", address_of_host)?,
        name: fields.text("name")?.map(String::from),
    };
    match expose.check() {
        Err((field, reason)) => Err(fields.place.field(field).refuse(reason)),
        Ok(()) => Ok((fields.place, expose)),
    }
}
