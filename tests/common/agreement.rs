//! Checks that volnet's view is true: `List` against links, addresses, rules, processes and files.
//! Each is read with another tool or path.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::daemon::Daemon;
use super::{LOOK_AGAIN, PATIENCE, json as tool};

/// A host with one network, whose bridge is `vbr0`, and nothing else.
pub(crate) struct Agreement {
    /// The rules of a host without VMs.
    rules: Value,
    /// What the networks are in the sets of the bridge's table.
    networks: Elements,
}

/// Elements as text, by set.
type Elements = BTreeMap<String, BTreeSet<String>>;

/// What was found of one kind, and what `List` says there should be.
struct Compared {
    what: &'static str,
    found: Value,
    expected: Value,
}

impl Agreement {
    /// Remembers the rules of a daemon that has no VM.
    pub(crate) fn with(daemon: &Daemon) -> Agreement {
        assert_eq!(list(daemon), [] as [Value; 0]);
        let (rules, networks) = ruleset();
        Agreement { rules, networks }
    }

    /// Waits until everything agrees, which is at once but for processes that were told to end and
    /// have not come to it; gives what `List` says then.
    pub(crate) fn check(&self, daemon: &Daemon) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let vms = list(daemon);
            let compared = self.compare(daemon, &vms);
            // A VM may have ended between the first look and the last.
            let steady = list(daemon) == vms;
            match compared.iter().find(|compared| compared.found != compared.expected) {
                None if steady => return vms,
                Some(Compared { what, found, expected }) if Instant::now() > deadline => {
                    panic!("{what}:\n   found {found}\nexpected {expected}\nof {vms:#?}");
                }
                None | Some(_) => std::thread::park_timeout(LOOK_AGAIN),
            }
        }
    }

    fn compare(&self, daemon: &Daemon, vms: &[Value]) -> Vec<Compared> {
        let (rules, elements) = ruleset();
        let folder = &daemon.folder;
        let (durable, ephemeral): (Vec<_>, Vec<_>) =
            vms.iter().partition(|vm| vm["ephemeral"] == false);
        let running: BTreeSet<(String, u64)> =
            vms.iter().filter_map(|vm| Some((text(&vm["name"]), vm["pid"].as_u64()?))).collect();
        let unstarted: Vec<&Value> = vms
            .iter()
            .filter(|vm| vm["status"] == "running" && vm["started_at"].is_null())
            .collect();
        let compared = |what, found: Value, expected: Value| Compared { what, found, expected };
        vec![
            compared("links", links(), wanted_links(vms)),
            compared("addresses", addresses(), json!([["vbr0", "192.168.127.1/24"]])),
            compared("rules", rules, self.rules.clone()),
            compared("elements", json!(elements), json!(wanted_elements(&self.networks, vms))),
            compared("processes", json!(daemon.hypervisors()), json!(running)),
            compared("VMs that run and were never started", json!(unstarted), json!([])),
            compared("durable records", files(&folder.join("state/vms")), names(&durable)),
            compared("ephemeral records", files(&folder.join("run/vms")), names(&ephemeral)),
            compared("process files", files(&folder.join("run/processes")), {
                json!(running.iter().map(|(name, _)| format!("{name}.json")).collect::<Vec<_>>())
            }),
            compared("intents", files(&folder.join("run/intents")), json!([])),
            compared("folders of VMs that are gone", strangers(&folder.join("run/vm"), vms), {
                json!([])
            }),
        ]
    }
}

/// What `List` answers.
pub(crate) fn list(daemon: &Daemon) -> Vec<Value> {
    let mut answer = daemon.call("List", json!({}));
    serde_json::from_value(answer["parameters"]["vms"].take()).expect("a list of VMs")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_string()
}

/// Name, index, alias, bridge and whether it is up, of every link but `lo`.
fn links() -> Value {
    let links = tool("ip -d -j link show");
    let links = links.as_array().expect("links").iter().filter(|link| link["ifname"] != "lo");
    let mut links: Vec<Value> = links
        .map(|link| {
            let up = link["flags"].as_array().is_some_and(|flags| flags.contains(&json!("UP")));
            // The index of the bridge is nothing that volnet tells.
            let index = if link["master"].is_null() { &Value::Null } else { &link["ifindex"] };
            json!([link["ifname"], index, link["ifalias"], link["master"], up])
        })
        .collect();
    links.sort_by_key(|link| text(&link[0]));
    json!(links)
}

fn wanted_links(vms: &[Value]) -> Value {
    let tap =
        |(alias, nic): (String, &Value)| json!([nic["tap"], nic["ifindex"], alias, "vbr0", true]);
    let mut links: Vec<Value> = nics(vms).map(tap).collect();
    links.push(json!(["vbr0", null, "volnet:", null, true]));
    links.sort_by_key(|link| text(&link[0]));
    json!(links)
}

/// Each NIC with the alias of its link. The fields of a VM are those of its first NIC.
fn nics(vms: &[Value]) -> impl Iterator<Item = (String, &Value)> {
    vms.iter().filter(|vm| !vm["tap"].is_null()).flat_map(|vm| {
        let further = vm["nics"].as_array().into_iter().flatten().skip(1);
        let nics = std::iter::once(vm).chain(further).enumerate();
        nics.map(|(at, nic)| {
            let place = if at == 0 { String::new() } else { format!("/{at}") };
            (format!("volnet:{}{place}", text(&vm["name"])), nic)
        })
    })
}

fn addresses() -> Value {
    let links = tool("ip -j addr show");
    let pairs = links.as_array().expect("links").iter().flat_map(|link| {
        let addresses = link["addr_info"].as_array().into_iter().flatten();
        addresses.filter(|address| address["family"] == "inet").map(|address| {
            let text = format!("{}/{}", text(&address["local"]), address["prefixlen"]);
            json!([link["ifname"], text])
        })
    });
    pairs.filter(|pair| pair[0] != "lo").collect()
}

/// All tables without their elements and handles, and the elements of each set.
fn ruleset() -> (Value, Elements) {
    let mut rules = tool("nft -j list ruleset");
    let mut elements = Elements::new();
    for object in rules["nftables"].as_array_mut().expect("objects") {
        for object in object.as_object_mut().expect("an object").values_mut() {
            let fields = object.as_object_mut().expect("fields");
            fields.remove("handle");
            let in_bridge = fields.get("family") == Some(&json!("bridge"));
            if let Some(there) = fields.remove("elem").filter(|_| in_bridge) {
                let set = text(&fields["name"]);
                let there = there.as_array().expect("elements").iter();
                // What is counted differs from time to time.
                let counts = |it: &Value| !it["elem"]["counter"].is_null();
                let there = there.map(|it| if counts(it) { &it["elem"]["val"] } else { it });
                let there = there.map(Value::to_string);
                elements.entry(set).or_default().extend(there);
            }
        }
    }
    (rules, elements)
}

/// Those of the networks, and those of the VMs. `List` does not tell who is isolated, but the
/// kernel does of each port.
fn wanted_elements(networks: &Elements, vms: &[Value]) -> Elements {
    let mut elements = networks.clone();
    let mut put = |set: &str, element: Value| {
        elements.entry(set.into()).or_default().insert(element.to_string());
    };
    for (_, nic) in nics(vms) {
        // nft shows what is compared with bytes of a packet as numbers of at most four bytes.
        let digits = text(&nic["mac"]).replace(':', "");
        let mac = u64::from_str_radix(&digits, 16).expect("an Ethernet address");
        put("macs", json!({ "concat": [nic["tap"], mac >> 32, mac & 0xffff_ffff] }));
        for set in ["ports", "ordinary", "spoofed", "forged"] {
            put(set, nic["tap"].clone());
        }
        if !nic["ip"].is_null() {
            put("guests", json!({ "concat": [nic["tap"], nic["mac"], nic["ip"]] }));
        }
    }
    let links = tool("ip -d -j link show");
    for link in links.as_array().expect("links") {
        if link["linkinfo"]["info_slave_data"]["isolated"] == true {
            put("isolated", link["ifname"].clone());
        }
    }
    elements
}

/// The names of everything in a directory.
fn files(directory: &Path) -> Value {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    json!(names.collect::<BTreeSet<_>>())
}

fn names(vms: &[&Value]) -> Value {
    json!(vms.iter().map(|vm| format!("{}.json", text(&vm["name"]))).collect::<BTreeSet<_>>())
}

fn strangers(directory: &Path, vms: &[Value]) -> Value {
    let mut names = files(directory);
    let known = |name: &Value| vms.iter().any(|vm| vm["name"] == *name);
    names.as_array_mut().expect("names").retain(|name| !known(name));
    names
}
