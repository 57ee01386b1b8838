//! The network that a configuration describes.
//!
//! A subnet says which network is meant. If volnet has none with it, the keys of the reference
//! plugins `bridge` and `host-local` become a network that is added: so a change of `type` is all
//! that a configuration of theirs needs. What one of them would do and volnet does not is refused.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::call::{Conf, find};
use super::conf::{section, unsupported};
use super::error::{CniError, DECODING};
use crate::cli::Trouble;
use crate::cli::connection::Connection;
use crate::model::net::Ipv6Network;
use crate::model::prefix::Prefix;
use crate::network::linux::socket::{NetlinkFamily, Socket};
use crate::network::linux::{addresses, links};
use crate::protocol::client::{ErrorReply, NoReply, ReplyMessage};

/// Keys that only say something of a network that is added.
pub(super) const KEYS: [&str; 4] = ["peers", "host_services", "services", HAIRPIN];
/// What `bridge` calls services: a port may send a frame back to where it came from.
const HAIRPIN: &str = "hairpinMode";
/// The keys of `host-local`. Its files are not needed.
const IPAM_KEYS: [&str; 8] =
    ["type", "subnet", "rangeStart", "rangeEnd", "gateway", "ranges", "routes", "dataDir"];

/// Some addresses of the world: those of root servers of DNS (A and B), to which nothing is sent.
const WORLD: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2801, 0x1b8, 0x10, 0, 0, 0, 0, 0xb)),
];
/// The MTUs that a network takes over from the host: not of a link that IPv6 cannot have.
const MTUS: RangeInclusive<u32> = 1280..=65_535;

/// Addresses as `host-local` describes them, one of each family at most.
#[derive(Default)]
struct Ranges<'a> {
    four: Option<&'a Map<String, Value>>,
    six: Option<&'a Map<String, Value>>,
}

/// What says which network is meant: its name, its IPv4 subnet, or both. One with IPv6 alone has no
/// subnet, so it is known by the name that it would be added with.
pub(super) fn wanted(conf: &Conf) -> Result<[(&'static str, Option<Value>); 2], CniError> {
    let Ranges { four, six } = ranges(conf)?;
    let named = named(conf, "network").or(six.filter(|_| four.is_none()).map(|_| name(conf)));
    Ok([("name", named), ("subnet", four.and_then(|range| find(range, "subnet")).cloned())])
}

/// The name with which a network is added.
fn name(conf: &Conf) -> Value {
    named(conf, "network").unwrap_or_else(|| json!(conf.name))
}

/// A field that is not empty.
fn named(conf: &Conf, key: &str) -> Option<Value> {
    conf.field(key).filter(|value| **value != json!("")).cloned()
}

/// The network of a configuration with a subnet, as `AddNetwork` takes it. It is described while
/// this process is in the namespace of the host.
pub(super) fn described(conf: &Conf) -> Result<Option<Value>, CniError> {
    let Some(mut network) = document(conf)? else { return Ok(None) };
    if let Some(mtu) = network["mtu"].is_null().then(mtu_of_host).flatten() {
        network["mtu"] = mtu.into();
    }
    Ok(Some(network))
}

/// The same, as far as the configuration says.
pub(super) fn document(conf: &Conf) -> Result<Option<Value>, CniError> {
    let Ranges { four, six } = ranges(conf)?;
    if four.or(six).is_none() {
        let is_on = |value: &&Value| **value != json!(false);
        let said = KEYS.iter().find_map(|key| Some((key, conf.field(key).filter(is_on)?)));
        return match said {
            Some((key, value)) => Err(unsupported(key, value)),
            None => Ok(None),
        };
    }
    let nat = match (conf.field("ipMasq"), conf.field("ipam")) {
        (Some(said), _) => said.clone(),
        // That is what `bridge` does with the addresses of an IPAM plugin.
        (None, Some(_)) => json!(false),
        (None, None) => json!(true),
    };
    let mut network = json!({ "name": name(conf), "subnet": null });
    if let Some(range) = four {
        network["subnet"] = json!(find(range, "subnet"));
        (network["nat"], network["dhcp"]) = (nat.clone(), json!("builtin"));
    }
    for (field, value) in [
        ("bridge", named(conf, "bridge")),
        ("mtu", conf.field("mtu").filter(|mtu| **mtu != json!(0)).cloned()),
        ("host_ip", four.and_then(|range| find(range, "gateway")).cloned()),
        ("range", four.map(from_to).transpose()?.flatten()),
        ("ipv6", six.map(|range| ipv6(range, &nat)).transpose()?),
        ("peers", named(conf, "peers")),
        ("host_services", named(conf, "host_services")),
        ("services", named(conf, "services").or(named(conf, HAIRPIN))),
    ] {
        if let Some(value) = value {
            network[field] = value;
        }
    }
    Ok(Some(network))
}

/// Asks the daemon for something on the network of a configuration. If the configuration describes
/// one, it is added before, or takes the place of the one of its name if that is nobody's. A
/// network that has VMs keeps its values, and the daemon is asked all the same: it has the subnet,
/// or it has not.
pub(super) fn asked(
    daemon: &mut Connection,
    document: Option<&Value>,
    config: Value,
    ask: impl Fn(&mut Connection, &Value) -> Result<ReplyMessage, Trouble>,
) -> Result<ReplyMessage, Trouble> {
    let Some(network) = document else { return ask(daemon, &config) };
    let added = daemon.call("io.volnet.AddNetwork", json!({ "network": network, "replace": true }));
    let Err(refused) = added else { return ask(daemon, &config) };
    if network["subnet"].is_null() && !is_known(daemon, network)? {
        return Err(refused);
    }
    let keeps = error_of(&refused).is_some_and(|reply| reply.error == "io.volnet.NetworkInUse");
    match ask(daemon, &config) {
        Err(trouble) if is_about(&trouble, &["network.name", "network.subnet"]) => Err(refused),
        // The MTU of the configuration is that of the network to be, which has a lower one yet.
        Err(trouble) if keeps && is_about(&trouble, &["network.mtu"]) => {
            let mut config = config;
            config["network"].as_object_mut().map(|network| network.remove("mtu"));
            ask(daemon, &config).inspect(|_| warn(network))
        }
        asked => asked.inspect(|reply| {
            let served = reply.parameters.get("vm").map(|vm| &vm["nics"][0]["network"]);
            if keeps {
                warn(network)
            } else if served == Some(&network["name"]) {
                tell(network, &format!("keeps its values: {}", refused.words()));
            }
        }),
    }
}

/// The MTU of the host's way to the world, by IPv4 or else by IPv6: longer packets of guests would
/// be cut there, or come back.
fn mtu_of_host() -> Option<u32> {
    let mut socket = Socket::open(NetlinkFamily::Route).ok()?;
    let mut mtu_to = |world| {
        let (link, of_route) = addresses::way_out(&mut socket, world).ok()??;
        let (_, of_link) = links::name_and_mtu(&mut socket, link).ok()?;
        Some(of_route.map_or(of_link, |mtu| mtu.min(of_link)))
    };
    let mtu = WORLD.into_iter().find_map(&mut mtu_to)?;
    MTUS.contains(&mtu).then_some(mtu)
}

/// Whether the daemon has the network with IPv6 alone that is described: no subnet tells.
fn is_known(daemon: &mut Connection, network: &Value) -> Result<bool, Trouble> {
    let reply = daemon.call("io.volnet.Networks", json!({}))?.parameters;
    let prefix = |text: &Value| text.as_str()?.parse::<Prefix<Ipv6Addr>>().ok();
    let (name, wanted) = (&network["name"], prefix(&network["ipv6"]["prefix"]));
    Ok(reply["networks"].as_array().into_iter().flatten().any(|known| {
        known["name"] == *name && known["subnet"].is_null() && prefix(&known["subnet6"]) == wanted
    }))
}

/// Tells the engine that its configuration does not hold yet.
fn warn(network: &Value) {
    let words = "has VMs, so it keeps its values: the other ones of this configuration hold when \
                 it has none";
    tell(network, words);
}

/// Tells the engine something of a network. It keeps a log of that.
fn tell(network: &Value, words: &str) {
    let name = network["name"].as_str().unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "volnet: network {name} {words}");
}

/// The error that the daemon has replied.
fn error_of(trouble: &Trouble) -> Option<&ErrorReply> {
    match trouble {
        Trouble::NoReply(NoReply::Error(reply)) => Some(reply),
        _ => None,
    }
}

/// Whether the daemon refuses one of these fields.
fn is_about(trouble: &Trouble, fields: &[&str]) -> bool {
    error_of(trouble).is_some_and(|reply| {
        let field = reply.parameters.get("field").and_then(Value::as_str);
        reply.error == "io.volnet.InvalidConfig"
            && field.is_some_and(|field| fields.contains(&field))
    })
}

/// What says of addresses: the own key, the IPAM plugin, or the engine.
fn ranges(conf: &Conf) -> Result<Ranges<'_>, CniError> {
    let ipam = section(conf.field("ipam"), "ipam")?;
    if let Some(ipam) = ipam {
        check_ipam(ipam)?;
    }
    let mut ranges = Ranges::default();
    if let Some(subnet) = subnet_of(&conf.fields) {
        return enter(&mut ranges, &conf.fields, subnet).map(|()| ranges);
    }
    let one = ipam.filter(|ipam| subnet_of(ipam).is_some());
    let several = ipam.and_then(|ipam| find(ipam, "ranges"));
    let runtime = section(conf.field("runtimeConfig"), "runtimeConfig")?;
    let of_engine = runtime.and_then(|runtime| find(runtime, "ipRanges"));
    let sets = match (one, several.or(of_engine)) {
        (Some(one), _) => return enter(&mut ranges, one, &json!(one)).map(|()| ranges),
        (None, None) => return Ok(ranges),
        (None, Some(sets)) => sets,
    };
    let wrong = || CniError::new(DECODING, format!("ranges {sets} is not a list of lists"));
    for set in sets.as_array().ok_or_else(wrong)? {
        match set.as_array().map(Vec::as_slice).ok_or_else(wrong)? {
            [] => {}
            [Value::Object(range)] if subnet_of(range).is_some() => {
                enter(&mut ranges, range, sets)?;
            }
            [Value::Object(_)] => {
                let words = format!("ranges {sets}: a range has no subnet");
                return Err(CniError::new(DECODING, words));
            }
            _ => return Err(unsupported("ranges", sets)),
        }
    }
    Ok(ranges)
}

/// The subnet that these fields name. A template leaves an empty one where there is none.
fn subnet_of(fields: &Map<String, Value>) -> Option<&Value> {
    find(fields, "subnet").filter(|subnet| **subnet != json!(""))
}

/// Takes a range for its family.
fn enter<'a>(
    ranges: &mut Ranges<'a>,
    range: &'a Map<String, Value>,
    shown: &Value,
) -> Result<(), CniError> {
    let is_six = find(range, "subnet").and_then(Value::as_str).is_some_and(|it| it.contains(':'));
    let place = if is_six { &mut ranges.six } else { &mut ranges.four };
    match place.replace(range) {
        None => Ok(()),
        Some(_) => Err(unsupported("ranges", shown)),
    }
}

/// The IPv6 side of a network. Its addresses are not chosen from a range, and its first one is that
/// of the host.
fn ipv6(range: &Map<String, Value>, nat: &Value) -> Result<Value, CniError> {
    let prefix = find(range, "subnet").and_then(Value::as_str).unwrap_or_default();
    let first: Option<Prefix<Ipv6Addr>> = prefix.parse().ok();
    let first = first.map(|prefix| Ipv6Network::new(prefix, false).host.to_string());
    let is_first = |gateway: &Value| {
        let gateway = gateway.as_str().and_then(|text| text.parse::<Ipv6Addr>().ok());
        gateway.map(|gateway| gateway.to_string()) == first
    };
    for key in ["rangeStart", "rangeEnd", "gateway"] {
        match find(range, key) {
            Some(value) if key != "gateway" || !is_first(value) => {
                return Err(unsupported(key, value));
            }
            Some(_) | None => {}
        }
    }
    Ok(json!({ "prefix": prefix, "nat": nat }))
}

/// Refuses another IPAM plugin, and what `host-local` would do and volnet does not.
fn check_ipam(ipam: &Map<String, Value>) -> Result<(), CniError> {
    let kind = find(ipam, "type").unwrap_or(&Value::Null);
    if *kind != json!("host-local") && !kind.is_null() && *kind != json!("") {
        return Err(unsupported("ipam.type", kind));
    }
    let is_known = |key: &str| IPAM_KEYS.iter().any(|known| known.eq_ignore_ascii_case(key));
    let is_said = |value: &Value| !value.is_null() && *value != json!("");
    if let Some((key, value)) = ipam.iter().find(|(key, value)| !is_known(key) && is_said(value)) {
        return Err(unsupported(&format!("ipam.{key}"), value));
    }
    // All goes by the default route, so a route without a gateway of its own is there.
    let routes = find(ipam, "routes").and_then(Value::as_array).into_iter().flatten();
    let others = |route: &&Value| route.as_object().is_none_or(|it| find(it, "gw").is_some());
    match routes.filter(|route| !route.is_null()).find(others) {
        Some(route) => Err(unsupported("ipam.routes", route)),
        None => Ok(()),
    }
}

/// The addresses that are leased, as the settings write them. An end that is not given is that of
/// the subnet.
fn from_to(range: &Map<String, Value>) -> Result<Option<Value>, CniError> {
    let text = |key| find(range, key).and_then(Value::as_str);
    let (first, last) = (text("rangeStart"), text("rangeEnd"));
    if first.is_none() && last.is_none() {
        return Ok(None);
    }
    let subnet: Option<Prefix> = text("subnet").and_then(|subnet| subnet.parse().ok());
    let Some(subnet) = subnet else {
        return Err(CniError::new(DECODING, "subnet is not a prefix"));
    };
    let beside = |address: Ipv4Addr, up: i64| {
        Ipv4Addr::from_bits((i64::from(address.to_bits()) + up) as u32).to_string()
    };
    let first = first.map_or_else(|| beside(subnet.network(), 1), String::from);
    let last = last.map_or_else(|| beside(subnet.broadcast(), -1), String::from);
    Ok(Some(json!(format!("{first}-{last}"))))
}
