//! Our tables on the real kernel, read back with `nft`.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{in_namespace, run, try_run};
use volnet::model::expose::{Expose, Protocol};
use volnet::model::limits::Limits;
use volnet::model::mac::Mac;
use volnet::model::name::{TapName, VmName};
use volnet::model::net::{Ipv6Network, NetworkConfig};
use volnet::model::nic::NicName;
use volnet::model::policy::Policy;
use volnet::network::linux::nft::Nft;
use volnet::plan::reconcile::ObservedTable;
use volnet::plan::ruleset::{
    self, Accept, Direction, Element, Family, GuestPort, InnerPort, Table, TracedPort,
};

fn network() -> NetworkConfig {
    NetworkConfig {
        ipv6: Some(Ipv6Network::new("fd00:1:2:3::/64".parse().unwrap(), true)),
        ..NetworkConfig::sample("default", "vbr0", "192.168.127.0/24", "192.168.127.1")
    }
}

fn tables(owned: bool, elements: Vec<Element>) -> Vec<Table> {
    let mut tables = ruleset::tables(&[&network()], &Policy::built_in(), elements.clone(), owned);
    tables.append(&mut ruleset::tracing(true, elements, owned));
    tables
}

fn guests(count: u32) -> Vec<Element> {
    (0..count)
        .flat_map(|number| {
            let name = format!("g{number}");
            let tap =
                TapName::choose(NicName { vm: &VmName::new(&name).unwrap(), index: 0 }, |_| false);
            let ip = Ipv4Addr::from_bits(0x0a00_0000 + number);
            let mac = Mac::of_guest("default", &name);
            let (isolated, asks_others) = (number % 2 == 0, number % 5 == 0);
            let ip6 = network().ipv6.filter(|_| number % 3 == 0).map(|ipv6| ipv6.address_of(mac));
            let (tap, ip, antispoof) = (&tap, Some(ip), number % 7 != 0);
            let limits = Limits {
                tx_mbit: (number % 4 == 0).then_some(number),
                pps: (number % 3 == 0).then_some(number),
                ..Limits::default()
            };
            let addresses =
                &[Ipv4Addr::from_bits(0x0a0f_0000 + number % 2)][..(number % 2) as usize];
            let made = [Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(number) << 40)];
            let claimed = if ip6.is_some() { &made[..] } else { &[] };
            let guest = GuestPort {
                tap,
                mac,
                ip,
                addresses,
                asks_others,
                antispoof,
                ip6,
                claimed,
                isolated,
                limits,
                inner: ip.filter(|_| number % 3 == 2).map(|_| INNER),
            };
            let own = ip.map(IpAddr::V4).into_iter().chain(ip6.map(IpAddr::V6));
            let addresses: Vec<IpAddr> = own.clone().collect();
            let ports = exposed(number);
            let traced = TracedPort { tap, addresses, exposed: &ports };
            let traced = ruleset::traced(&traced, true);
            let led = own.flat_map(move |address| ruleset::exposed(address, &ports));
            ruleset::elements(&guest).into_iter().chain(led).chain(traced)
        })
        .collect()
}

/// What many guests take for their own.
const INNER: InnerPort = InnerPort {
    mac: Mac([2, 0, 0, 0, 0, 0xaa]),
    ip: Ipv4Addr::new(172, 16, 0, 2),
    gateway: [Ipv4Addr::new(172, 16, 0, 1), Ipv4Addr::new(192, 168, 127, 1)],
    gateway_mac: Some([Mac([2, 0, 0, 0, 0, 0xbb]), Mac([2, 0, 0, 0, 0, 0xcc])]),
};

/// A port of each address of the host, and one of one of each family.
fn exposed(number: u32) -> [Expose; 3] {
    let one = Ipv4Addr::from_bits(number + 1);
    [None, Some(one.into()), Some(one.to_ipv6_compatible().into())].map(|host_ip| Expose {
        protocol: [Protocol::Tcp, Protocol::Udp][number as usize % 2],
        port: 80,
        host_port: 1000 + number as u16,
        count: 1,
        host_ip,
        name: None,
    })
}

fn installed(owned: bool, elements: Vec<Element>) -> Nft {
    let mut nft = Nft::new().unwrap();
    for table in tables(owned, elements) {
        nft.create_table(&table).unwrap();
    }
    nft
}

fn listed() -> String {
    run("nft list ruleset")
}

#[test]
fn what_is_made_is_what_the_text_says() {
    in_namespace(|| {
        let elements = guests(3);
        let mut nft = installed(false, elements.clone());
        let ours = run("nft -j list ruleset");
        for table in tables(false, elements) {
            nft.remove_table(table.family, table.name).unwrap();
            let path = std::env::temp_dir().join(format!("volnet-nft-{}", std::process::id()));
            std::fs::write(&path, ruleset::text::create_table(&table)).unwrap();
            run(&format!("nft -f {}", path.display()));
            std::fs::remove_file(path).unwrap();
        }
        let strip = |text: &str| {
            let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
            let objects = value["nftables"].as_array_mut().unwrap();
            for object in objects.iter_mut() {
                for (_, inner) in object.as_object_mut().unwrap() {
                    inner.as_object_mut().unwrap().remove("handle");
                }
            }
            objects.sort_by_key(ToString::to_string);
            value
        };
        assert_eq!(strip(&ours), strip(&run("nft -j list ruleset")));
    });
}

#[test]
fn what_is_made_is_observed_as_such() {
    in_namespace(|| {
        for owned in [false, true] {
            let wanted = tables(owned, guests(700));
            let mut nft = installed(owned, guests(700));
            let seen = nft.observe().unwrap().tables;
            assert_eq!(seen.len(), wanted.len());
            for table in &wanted {
                let is_it =
                    |seen: &&ObservedTable| (seen.family, seen.name) == (table.family, table.name);
                let seen = seen.iter().find(is_it).unwrap();
                assert_eq!(seen.fingerprint, Some(table.fingerprint()));
                assert_eq!(seen.owned, nft.has_owned_tables().then_some(owned));
                for set in &table.sets {
                    let (_, mut keys) =
                        seen.sets.iter().find(|(name, _)| **name == *set.name).unwrap().clone();
                    let mut expected = set.elements.clone();
                    keys.sort();
                    expected.sort();
                    assert_eq!(keys, expected);
                }
                nft.replace_table(table).unwrap();
            }
            for table in &wanted {
                nft.remove_table(table.family, table.name).unwrap();
                nft.remove_table(table.family, table.name).unwrap();
            }
            assert_eq!(listed().trim(), "");
        }
    });
}

#[test]
fn a_rule_that_others_add_is_seen() {
    in_namespace(|| {
        let mut nft = installed(false, Vec::new());
        run("nft insert rule ip volnet forward accept");
        let seen = nft.observe().unwrap().tables;
        let table = &tables(false, Vec::new())[0];
        assert_ne!(seen[0].fingerprint, Some(table.fingerprint()));
        nft.replace_table(table).unwrap();
        let seen = nft.observe().unwrap().tables;
        assert_eq!(seen[0].fingerprint, Some(table.fingerprint()));
    });
}

#[test]
fn an_element_that_volnet_could_not_write_is_seen() {
    in_namespace(|| {
        let mut nft = installed(false, Vec::new());
        let path = std::env::temp_dir().join(format!("volnet-odd-{}", std::process::id()));
        let odd = b"add element ip volnet bridges { \"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\" }";
        std::fs::write(&path, odd).unwrap();
        run(&format!("nft -f {}", path.display()));
        std::fs::remove_file(path).unwrap();
        let table = &tables(false, Vec::new())[0];
        assert_eq!(nft.observe().unwrap().tables[0].fingerprint, None);
        nft.replace_table(table).unwrap();
        assert_eq!(nft.observe().unwrap().tables[0].fingerprint, Some(table.fingerprint()));
    });
}

#[test]
fn elements_come_and_go_and_the_rules_stay() {
    in_namespace(|| {
        let mut nft = installed(true, Vec::new());
        let before = listed().matches(" accept").count();
        nft.add_elements(&guests(1000)).unwrap();
        nft.add_elements(&guests(1)).unwrap();
        assert_eq!(listed().matches(" accept").count(), before);
        assert!(listed().contains("10.0.3.231"));
        nft.remove_elements(&guests(1000)).unwrap();
        nft.remove_elements(&guests(1000)).unwrap();
        assert!(!listed().contains("10.0.3.231"));
        let bridge = tables(true, Vec::new()).remove(2);
        nft.remove_table(bridge.family, bridge.name).unwrap();
        nft.remove_elements(&guests(2)).unwrap();
        let refused = nft.add_elements(&guests(1)).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::ENOENT));
    });
}

#[test]
fn owned_tables_outlive_a_flush_and_their_owner() {
    in_namespace(|| {
        let mut first = installed(true, guests(2));
        run("nft flush ruleset");
        if !first.has_owned_tables() {
            // Before Linux 6.9 others can remove them, and volnet makes them again.
            assert_eq!(listed(), "");
            assert!(first.observe().unwrap().tables.is_empty());
            for table in tables(true, guests(2)) {
                first.create_table(&table).unwrap();
            }
            assert!(listed().contains("masquerade"));
            return;
        }
        assert!(listed().contains("masquerade"));
        assert!(!try_run("nft delete table ip volnet").0);
        let mut other = Nft::new().unwrap();
        for table in tables(true, Vec::new()) {
            let refused = other.replace_table(&table).unwrap_err();
            assert_eq!(refused.errno(), Some(libc::EPERM));
        }
        drop((first, other));
        assert!(listed().contains("10.0.0.1"), "the elements stay too");
        let mut next = Nft::new().unwrap();
        let seen = next.observe().unwrap().tables;
        assert!(seen.iter().all(|table| table.owned == Some(true)), "adopted");
        next.add_elements(&guests(3)).unwrap();
        assert!(listed().contains("10.0.0.2"));
    });
}

#[test]
fn accept_rules_are_such_as_iptables_can_read() {
    in_namespace(|| {
        let mut nft = Nft::new().unwrap();
        for (program, family) in [("iptables-nft", Family::Ip), ("ip6tables-nft", Family::Ip6)] {
            can_be_read_by(program, family, &mut nft);
        }
    });
}

/// The rules of one family are such as this program can read.
fn can_be_read_by(program: &str, family: Family, nft: &mut Nft) {
    let chain = |nft: &mut Nft| nft.observe().unwrap().chains.get(&family).cloned();
    assert_eq!(chain(nft), None);
    run(&format!("{program} -P FORWARD DROP"));
    assert_eq!(chain(nft).as_deref(), Some("FORWARD"));
    run(&format!("{program} -N DOCKER-USER"));
    run(&format!("{program} -A DOCKER-USER -j RETURN"));
    assert_eq!(chain(nft).as_deref(), Some("DOCKER-USER"));
    let rule = |direction| Accept {
        family,
        chain: "DOCKER-USER".into(),
        bridge: "vbr0".into(),
        direction,
    };
    let both = [rule(Direction::In), rule(Direction::Out)];
    for accept in both.iter().chain(&both) {
        nft.add_accept(accept).unwrap();
    }
    let rules = run(&format!("{program} -S DOCKER-USER"));
    let lines: Vec<&str> = rules.lines().collect();
    assert!(lines[1].contains("-o vbr0") && lines[2].contains("-i vbr0"), "{rules}");
    assert!(lines[5].ends_with("-j RETURN"), "{rules}");
    assert_eq!(nft.observe().unwrap().accepts.len(), 4);
    for accept in &both {
        nft.remove_accept(accept).unwrap();
    }
    assert_eq!(nft.observe().unwrap().accepts, []);
}
