//! What guests are told of IPv6 on the real kernel: by router advertisements, and by DHCPv6 to
//! ISC's client.

#![cfg(target_os = "linux")]

mod common;

use std::net::Ipv6Addr;
use std::process::Command;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::guest::{Guest as Player, as_guest};
use common::space::Guest;
use common::{eventually, in_namespace, run};
use volnet::dhcp6;
use volnet::dhcp6::message::{Kind, Writer, option};
use volnet::model::mac::Mac;
use volnet::ndp;

fn settings(ipv6: Value) -> Value {
    json!({ "networks": [{
        "name": "default", "bridge": "vbr0", "subnet": "192.168.127.0/24", "ipv6": ipv6,
        "search": ["lan", "example.com"],
    }] })
}

fn create(daemon: &Daemon, name: &str, network: Value) -> Value {
    let config = json!({ "network": network });
    daemon.create(json!({ "name": name, "config": config }))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"))
}

fn network(daemon: &Daemon) -> Value {
    daemon.call("Networks", json!({}))["parameters"]["networks"][0].take()
}

/// Starts the daemon with other settings.
fn configure(daemon: &mut Daemon, settings: &Value) {
    daemon.stop();
    std::fs::write(daemon.folder.join("config.json"), settings.to_string()).unwrap();
    daemon.start_again();
}

#[test]
fn a_guest_finds_all_by_itself_and_is_told_what_changes() {
    in_namespace(|| {
        let mut daemon = Daemon::configured(&settings(json!(true)));
        let vm = create(&daemon, "web", json!({ "mtu": 1400 }));
        let ip6 = text(&vm, "ip6");
        let guest = Guest::of(&vm);
        let addresses = || guest.space.run("ip -6 -o addr show dev eth0 scope global");
        let router = || guest.space.run("ip -6 route show default");
        // While the guest still looks for others with the address, it may lose it.
        eventually("an address and a router", || {
            let addresses = addresses();
            let has = addresses.contains(&format!("{ip6}/64")) && !addresses.contains("tentative");
            has && router().contains("proto ra")
        });
        let mac: Mac = run("cat /sys/class/net/vbr0/address").trim().parse().unwrap();
        assert!(router().contains(&format!("via {}", mac.link_local())), "{}", router());
        let expires = |text: &str| -> u32 {
            let seconds = text.split("expires ").nth(1).expect("a lifetime");
            seconds.split("sec").next().unwrap().parse().unwrap()
        };
        assert!(expires(&router()) > 65_000, "{}", router());
        let mtu = guest.space.run("sysctl -n net.ipv6.conf.eth0.mtu");
        assert_eq!(mtu.trim(), "1400");
        assert!(guest.reaches(text(&network(&daemon), "host_ip6")));

        // While no daemon runs it keeps all. The next one tells it without being asked.
        daemon.crash();
        assert!(router().contains("proto ra") && addresses().contains(ip6));
        guest.space.run("ip -6 route flush default");
        daemon.start_again();
        eventually("it is told again", || router().contains("proto ra"));

        // Another prefix, and none.
        configure(&mut daemon, &settings(json!({ "prefix": "2001:db8:9::/64" })));
        eventually("the former address is over, and there is a new one", || {
            let addresses = addresses();
            let former = addresses.lines().find(|line| line.contains(ip6)).unwrap_or_default();
            former.contains("deprecated") && addresses.contains("2001:db8:9:")
        });
        assert!(router().contains("proto ra"));
        eventually("the new one is nobody's else", || !addresses().contains("tentative"));
        configure(&mut daemon, &settings(json!(false)));
        eventually("it has no router", || router().is_empty());
        assert!(addresses().lines().all(|line| line.contains("deprecated")), "{}", addresses());
    });
}

/// Questions of a guest in a flood, and how many may be answered: a burst, and then one a second.
const FLOOD: usize = 300;
const ANSWERS_MAX: usize = 45;

#[test]
fn answers_are_bounded_and_for_the_guest_that_asks_alone() {
    in_namespace(|| {
        let daemon = Daemon::configured(&settings(json!(true)));
        let vms = ["one", "two"].map(|name| create(&daemon, name, json!({})));
        let [asker, other] = [0, 1].map(|at| Player::of(&vms[at]));
        let is_told = |frame: &Vec<u8>, mac: Mac| frame[..6] == mac.0 && frame[54] == 134;
        let told = |guest: &Player, mac: Mac| {
            std::iter::from_fn(|| guest.try_receive()).filter(|it| is_told(it, mac)).count()
        };
        let ask = |guest: &Player, mac: Mac| {
            guest.send(&ndp::fuzz::ask(mac, mac.link_local(), &[0; 4]));
        };
        ask(&asker, asker.mac);
        eventually("an answer", || told(&asker, asker.mac) == 1);
        // In the name of the other, by the port of the first: nobody hears it.
        ask(&asker, other.mac);
        for _ in 0..FLOOD {
            ask(&asker, asker.mac);
        }
        // Frames are answered in their order: after this one nothing is to come.
        ask(&other, other.mac);
        let mut heard = 0;
        eventually("an answer for the other", || {
            heard += told(&asker, asker.mac);
            told(&other, other.mac) == 1
        });
        heard += told(&asker, asker.mac);
        assert!((1..=ANSWERS_MAX).contains(&heard), "{heard}");
        assert_eq!(told(&other, asker.mac) + told(&asker, other.mac), 0);
    });
}

#[test]
fn a_guest_is_leased_its_own_address_whatever_it_asks_for() {
    in_namespace(|| {
        let daemon = Daemon::configured(&settings(json!(true)));
        let vms = ["one", "two"].map(|name| create(&daemon, name, json!({})));
        let own = vms.each_ref().map(|vm| text(vm, "ip6").parse::<Ipv6Addr>().unwrap());
        let guest = Player::of(&vms[0]);
        let ask = |mac: Mac, wanted: Ipv6Addr| {
            let mut writer = Writer::new(Kind::Rebind, [1, 2, 3]);
            writer.option(option::CLIENT_ID, &mac.0);
            let wanted = dhcp6::message::address(wanted, [9, 9]);
            writer.association(option::IA_NA, [1; 4], [0, 0], &[wanted]);
            guest.send(&dhcp6::fuzz::ask(mac, &writer.finish()));
        };
        // In the name of the other: nobody hears it.
        ask(vms[1]["mac"].as_str().unwrap().parse().unwrap(), own[1]);
        ask(guest.mac, own[1]);
        let mut answers = Vec::new();
        eventually("an answer", || {
            let frames = std::iter::from_fn(|| guest.try_receive());
            answers.extend(frames.filter(|frame| frame[12..14] == [0x86, 0xdd] && frame[20] == 17));
            !answers.is_empty()
        });
        let (message, addresses) = dhcp6::fuzz::message(&answers[0]);
        let leased: Vec<_> = message.associations().flat_map(|it| it.addresses()).collect();
        let valid = leased[0].1;
        assert_eq!(leased, [(own[0], valid), (own[1], [0, 0])]);
        assert!(addresses.to == guest.mac && valid[0] > 0);
    });
}

/// What dhclient calls with what it got: sets the address, and writes down what it is.
const SCRIPT: &str = r#"#!/bin/sh
case $reason in
BOUND6 | REBIND6 | RENEW6) ip -6 addr replace "$new_ip6_address/128" dev eth0 nodad ;;
RELEASE6) ip -6 addr del "$old_ip6_address/128" dev eth0 ;;
esac
echo "$reason $new_ip6_address $new_dhcp6_name_servers $new_dhcp6_domain_search" \
    >>"$(dirname "$0")/said"
"#;

#[test]
fn the_client_of_isc_is_leased_its_address_and_told_the_rest() {
    in_namespace(|| {
        let daemon = Daemon::configured(&settings(json!(true)));
        let vm = create(&daemon, "isc", json!({}));
        let (ip6, gateway) = (text(&vm, "ip6"), network(&daemon)["host_ip6"].take());
        let gateway = gateway.as_str().expect("an address");
        let folder = daemon.folder.join("isc");
        std::fs::create_dir(&folder).unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        std::fs::write(path("script"), SCRIPT).unwrap();
        run(&format!("chmod +x {}", path("script")));
        std::fs::write(path("rapid"), "send dhcp6.rapid-commit;").unwrap();
        std::fs::write(path("slow"), "").unwrap();
        // What is said by one run, which must succeed.
        let dhclient = |words: &str| {
            let _ = std::fs::remove_file(path("said"));
            let files = [("-lf", "leases"), ("-pf", "pid"), ("-sf", "script")];
            let files = files.map(|(flag, name)| format!("{flag} {}", path(name))).join(" ");
            let line = format!("-6 -1 {files} {words} eth0");
            let output = Command::new("dhclient").args(line.split(' ')).output().expect("dhclient");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "dhclient {words}: {errors}");
            std::fs::read_to_string(path("said")).expect("it says something")
        };
        as_guest(&vm, || {
            // Its address is what DHCPv6 gives, not what it would make itself.
            run("sysctl -qw net.ipv6.conf.eth0.autoconf=0");
            run("ip link set lo up");
            eventually("a link-local address", || {
                let addresses = run("ip -6 addr show dev eth0 scope link");
                addresses.contains("fe80") && !addresses.contains("tentative")
            });
            let rest = format!("{gateway} lan. example.com.");
            for conf in ["slow", "rapid"] {
                let said = dhclient(&format!("-cf {}", path(conf)));
                assert!(said.contains(&format!("BOUND6 {ip6} {rest}\n")), "{conf}: {said}");
                eventually("the host answers", || {
                    run("ip -6 route show default").contains("proto ra")
                });
                run(&format!("ping -c 1 -W 5 -I {ip6} {gateway}"));
                assert!(dhclient("-r").contains("RELEASE6"), "{conf}");
            }
            let said = dhclient("-S");
            assert!(said.contains(&format!(" {rest}\n")) && !said.contains(ip6), "{said}");
        });
    });
}
