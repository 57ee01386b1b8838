//! Who is told which names.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::{self, Flags};
use crate::dns::fuzz::question;
use crate::dns::query::DnsQuery;
use crate::dns::resolve::{Course, resolve};
use crate::dns::wire::{A, AAAA, ANY, PTR};
use crate::engine::decide::{Engine, Outcome, Step};
use crate::engine::names::Asker;
use crate::model::clock::Now;
use crate::model::name::VmName;
use crate::model::net::NetworkConfig;
use crate::model::request::Change;
use crate::model::spec::{NetworkSpec, VmSpec};
use crate::model::traffic::Traffic;
use simple_dns::rdata::RData;
use simple_dns::{Packet, PacketFlag, RCODE};

/// An engine whose decisions always succeed.
struct Host(Engine);

impl Host {
    fn new(settings: &str) -> Host {
        let settings =
            config::resolve(&Flags::default(), &Default::default(), Some(settings), "host");
        let engine = Engine::new(settings.unwrap().networks, "qemu".into(), true);
        Host(engine.unwrap())
    }

    fn create(&mut self, name: &str, networks: &[NetworkSpec]) -> Ipv4Addr {
        let name = VmName::new(name).unwrap();
        let spec = Box::new(VmSpec { networks: networks.into(), ..VmSpec::default() });
        let (start, dry_run, notes) = (false, false, Vec::new());
        self.change(&Change::Create { name: name.clone(), spec, start, dry_run, notes });
        self.0.vm(&name).unwrap().record.nics[0].ip.unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    fn delete(&mut self, name: &str) {
        let name = VmName::new(name).unwrap();
        self.change(&Change::Delete { name, timeout_ms: 0 });
    }

    fn change(&mut self, change: &Change) {
        let Ok(Step::Do(decision)) = self.0.request(1, change, Now::default()) else {
            panic!("{change:?}");
        };
        self.0.commit(*decision, &Outcome::default(), Now::default());
    }

    fn network(&self, name: &str) -> &NetworkConfig {
        self.0.configured().find(|network| network.name == name).unwrap()
    }

    /// What becomes of a question of the guest with this address; `None` is the host.
    fn course(&self, network: &str, guest: Option<Ipv4Addr>, name: &str, kind: u16) -> Course {
        let network = self.network(network);
        let asker = match guest {
            None => Asker::Host,
            Some(address) => self.0.asker(network, address.into()).unwrap(),
        };
        let query = DnsQuery::read(&question(name, kind, None)).unwrap();
        resolve(&self.0, network, asker, &query)
    }

    /// The answer in words.
    fn told(&self, network: &str, guest: Option<Ipv4Addr>, name: &str, kind: u16) -> String {
        let Course::Answer(answer) = self.course(network, guest, name, kind) else {
            return "passed on".into();
        };
        let packet = Packet::parse(&answer).unwrap();
        match packet.rcode() {
            RCODE::NoError => {}
            RCODE::NameError => return "no name".into(),
            other => return format!("{other:?}"),
        }
        assert!(packet.has_flags(PacketFlag::AUTHORITATIVE_ANSWER));
        let record = |record: &simple_dns::ResourceRecord| match &record.rdata {
            RData::A(a) => Ipv4Addr::from(a.address).to_string(),
            RData::PTR(name) => name.0.to_string(),
            other => panic!("{other:?}"),
        };
        packet.answers.iter().map(record).collect::<Vec<_>>().join(" ")
    }
}

fn plain() -> NetworkSpec {
    NetworkSpec::default()
}

fn on(network: &str) -> NetworkSpec {
    NetworkSpec { name: Some(network.into()), ..plain() }
}

fn with(policy: &str) -> NetworkSpec {
    let traffic = Traffic { policy: Some(policy.into()), ..Traffic::default() };
    NetworkSpec { traffic, ..plain() }
}

fn alone() -> NetworkSpec {
    let traffic = Traffic { isolated: Some(true), ..Traffic::default() };
    NetworkSpec { traffic, ..plain() }
}

fn reverse(ip: Ipv4Addr) -> String {
    let [a, b, c, d] = ip.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

#[test]
fn a_guest_finds_the_guests_of_its_network() {
    let mut host = Host::new("{}");
    let web = host.create("web", &[plain()]);
    let db = host.create("db", &[plain()]);
    let told = |host: &Host, name: &str, kind| host.told("default", Some(web), name, kind);
    for name in ["db.volnet", "DB.Volnet", "db", "Db"] {
        assert_eq!(told(&host, name, A), db.to_string(), "{name}");
        assert_eq!(told(&host, name, AAAA), "", "{name} has no such address");
    }
    assert_eq!(told(&host, "db.volnet", ANY), db.to_string());
    assert_eq!(told(&host, "db.volnet", 16), "", "nor a text");
    assert_eq!(told(&host, "gateway.volnet", A), "192.168.127.1");
    assert_eq!(told(&host, &reverse(db), PTR), "db.volnet");
    assert_eq!(told(&host, &reverse([192, 168, 127, 1].into()), PTR), "gateway.volnet");
    assert_eq!(told(&host, &reverse([192, 168, 127, 99].into()), PTR), "no name");
    assert_eq!(told(&host, &reverse([192, 168, 1, 1].into()), PTR), "passed on");
    assert_eq!(told(&host, "nobody.volnet", A), "no name");
    assert_eq!(told(&host, "volnet", A), "", "the domain itself");
    assert_eq!(told(&host, "a.db.volnet", A), "no name");
    assert_eq!(told(&host, "nobody", A), "passed on");
    assert_eq!(told(&host, "www.example.com", A), "passed on");
    host.delete("db");
    assert_eq!(told(&host, "db.volnet", A), "no name");
    assert_eq!(told(&host, &reverse(db), PTR), "no name");
    assert_eq!(host.told("default", None, "web.volnet", A), web.to_string(), "the host asks");
    assert_eq!(host.told("default", None, "www.example.com", A), "Refused");
}

#[test]
fn names_of_vms_that_are_no_labels_lead_to_them_too() {
    let mut host = Host::new("{}");
    let own = host.create("x", &[plain()]);
    let told = |host: &Host, name: &str| host.told("default", Some(own), name, A);
    let dotted = host.create("web.1_x", &[plain()]).to_string();
    for name in ["web.1_x.volnet", "web-1-x.volnet", "WEB-1-X", "Web.1_X.volnet"] {
        assert_eq!(told(&host, name), dotted, "{name}");
    }
    assert_eq!(told(&host, "web.1_x"), "passed on", "it could be a name of others");
    let capital = host.create("API", &[plain()]).to_string();
    assert_eq!(told(&host, "api.volnet"), capital);
    // The very name goes before what is only called so.
    let lower = host.create("api", &[plain()]).to_string();
    assert_eq!(told(&host, "API.volnet"), lower);
    let plain_one = host.create("web-1-x", &[plain()]).to_string();
    assert_eq!(told(&host, "web-1-x.volnet"), plain_one);
    assert_eq!(told(&host, "web.1_x.volnet"), dotted);
    host.delete("api");
    host.delete("web-1-x");
    assert_eq!(told(&host, "api.volnet"), capital);
    assert_eq!(told(&host, "web-1-x.volnet"), dotted);
    let odd = host.create("a..b", &[plain()]);
    assert_eq!(told(&host, "a--b.volnet"), odd.to_string());
    assert_eq!(host.told("default", Some(own), &reverse(odd), PTR), "a--b.volnet");
    host.create("gateway", &[plain()]);
    assert_eq!(told(&host, "gateway.volnet"), "192.168.127.1", "it is the host");
    host.delete("web.1_x");
    assert_eq!(told(&host, "web-1-x.volnet"), "no name");
}

#[test]
fn names_of_other_networks_and_of_isolated_guests_do_not_exist() {
    let mut host = Host::new(
        r#"{ "networks": [{}, { "name": "lab", "bridge": "vbr1", "subnet": "10.9.0.0/24",
            "domain": "lab.example" },
            { "name": "quiet", "bridge": "vbr2", "subnet": "10.9.1.0/24",
            "domain": "quiet.example", "dns": "off" }] }"#,
    );
    let web = host.create("web", &[plain()]);
    let lab = host.create("probe", &[on("lab")]);
    let both = host.create("both", &[plain(), on("lab")]);
    let (one, two) = (host.create("one", &[alone()]), host.create("two", &[alone()]));
    let told = |guest, name: &str| host.told("default", Some(guest), name, A);
    assert_eq!(told(web, "probe.volnet"), "no name");
    assert_eq!(told(web, "probe.lab.example"), "no name", "the host would be told");
    assert_eq!(told(web, "www.quiet.example"), "passed on", "volnet knows nothing of these");
    assert_eq!(told(web, &reverse(lab)), "passed on");
    assert_eq!(told(web, "both.volnet"), both.to_string(), "only what is on this network");
    assert_eq!(host.told("lab", Some(lab), "both.lab.example", A), "10.9.0.3");
    assert_eq!(host.told("lab", Some(lab), "web.lab.example", A), "no name");
    assert!(host.0.asker(host.network("lab"), web.into()).is_none(), "it is not a guest there");
    assert!(host.0.asker(host.network("default"), IpAddr::from([192, 168, 127, 99])).is_none());
    assert_eq!(told(one, "one.volnet"), one.to_string());
    assert_eq!(told(one, "two.volnet"), "no name");
    assert_eq!(told(one, "web.volnet"), "no name");
    assert_eq!(host.told("default", Some(one), &reverse(two), PTR), "no name");
    assert_eq!(told(one, "gateway.volnet"), "192.168.127.1");
    assert_eq!(told(web, "two.volnet"), two.to_string(), "they can speak with each other");
}

#[test]
fn a_policy_decides_what_is_passed_on() {
    let mut host = Host::new("{}");
    let open = host.create("open", &[plain()]);
    let internet = host.create("internet", &[with("internet")]);
    let none = host.create("none", &[with("none")]);
    for (name, kind, by_internet) in [
        ("www.example.com", A, "passed on"),
        ("4.4.8.8.in-addr.arpa", PTR, "passed on"),
        ("printer.local", A, "no name"),
        ("db.corp.internal", A, "no name"),
        ("INTRANET", A, "no name"),
        ("1.0.0.10.in-addr.arpa", PTR, "no name"),
        ("168.192.in-addr.arpa", ANY, "no name"),
        ("lb._dns-sd._udp.0.1.168.192.in-addr.arpa", PTR, "no name"),
    ] {
        assert_eq!(host.told("default", Some(open), name, kind), "passed on", "{name}");
        assert_eq!(host.told("default", Some(internet), name, kind), by_internet, "{name}");
        assert_eq!(host.told("default", Some(none), name, kind), "Refused", "{name}");
    }
    for guest in [internet, none] {
        assert_eq!(host.told("default", Some(guest), "open.volnet", A), open.to_string());
    }
}

#[test]
fn ten_thousand_names() {
    let mut host = Host::new(r#"{ "networks": [{ "subnet": "10.0.0.0/16", "bridges": 16 }] }"#);
    let ips: Vec<Ipv4Addr> =
        (0..10_000).map(|n| host.create(&format!("Vm-{n}"), &[plain()])).collect();
    for (n, ip) in ips.iter().enumerate().step_by(97) {
        let told = |name: &str, kind| host.told("default", Some(ips[0]), name, kind);
        assert_eq!(told(&format!("vm-{n}.volnet"), A), ip.to_string());
        assert_eq!(told(&reverse(*ip), PTR), format!("Vm-{n}.volnet"));
    }
    for n in 0..10_000 {
        host.delete(&format!("Vm-{n}"));
    }
    let last = host.create("last", &[plain()]);
    assert_eq!(host.told("default", Some(last), "vm-5.volnet", A), "no name");
}
