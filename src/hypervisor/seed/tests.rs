use std::io::{Cursor, Read};
use std::net::Ipv4Addr;

use fatfs::{FileSystem, FsOptions};
use serde_json::json;

use super::*;
use crate::model::document::Kept;
use crate::model::expose::Protocol;
use crate::model::mac::Mac;
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::net::{Dhcp, Ipv6Network, Service};
use crate::model::record::{BootId, FORMAT};
use crate::model::spec::VmSpec;
use crate::model::traffic::Traffic;

fn network(name: &str, subnet: &str, host_ip: [u8; 4]) -> NetworkConfig {
    NetworkConfig {
        peers: Vec::new(),
        services: false,
        host_services: vec![Service::Port(Protocol::Tcp, 1)],
        ..NetworkConfig::sample(name, "vbr0", subnet, &Ipv4Addr::from(host_ip).to_string())
    }
}

/// A VM with these NICs, each by its mode and its address.
fn record(nics: &[(Mode, Option<[u8; 4]>)], config: Value) -> Record {
    let nic = |(at, (_, ip)): (usize, &(Mode, Option<[u8; 4]>))| Nic {
        network: "default".into(),
        tap: serde_json::from_value(json!(format!("vttap-{at}"))).unwrap(),
        ifindex: None,
        mac: Mac([2, 0, 0, 0, 0, at as u8]),
        ip: ip.map(Ipv4Addr::from),
        ip6: None,
        inner: None,
        claimed: Vec::new(),
        lease: None,
        exposed: Vec::new(),
        traffic: Traffic::default(),
    };
    let networks = nics.iter().map(|(mode, _)| NetworkSpec { mode: *mode, ..Default::default() });
    let networks = networks.collect();
    Record {
        format: FORMAT,
        name: VmName::new("WEB_1").unwrap(),
        spec: VmSpec { networks, config: Some(Kept::new(&config)), ..VmSpec::default() },
        nics: nics.iter().enumerate().map(nic).collect(),
        cid: 3,
        user: None,
        created_at: 1_795_562_458_519,
        restarts: 0,
        started_at: None,
        exit: None,
        last_error: None,
        wanted: true,
        boot: BootId::default(),
        kvm: None,
    }
}

/// The files of the disk, by name.
fn files(record: &Record, networks: &[&NetworkConfig]) -> Vec<(String, String)> {
    let servers = [[192, 0, 2, 53].into(), [192, 0, 2, 54].into()];
    let image = image(record, networks, &servers).unwrap().expect("it has a disk");
    let volume = FileSystem::new(Cursor::new(image), FsOptions::new()).unwrap();
    assert_eq!(volume.volume_label(), "CIDATA");
    let read = |entry: fatfs::DirEntry<'_, _>| {
        let mut text = String::new();
        entry.to_file().read_to_string(&mut text).unwrap();
        (entry.file_name(), text)
    };
    volume.root_dir().iter().map(|entry| read(entry.unwrap())).collect()
}

fn file(name: &str, text: &str) -> (String, String) {
    (name.into(), text.into())
}

#[test]
fn without_the_section_there_is_no_disk() {
    for config in [json!({}), json!({"cloud_init": null})] {
        assert_eq!(image(&record(&[], config), &[], &[]), Ok(None));
    }
}

#[test]
fn a_bridged_vm_is_told_its_address() {
    let network = network("default", "192.168.127.0/24", [192, 168, 127, 1]);
    let vm = record(&[(Mode::Bridged, Some([192, 168, 127, 2]))], json!({"cloud_init": {}}));
    let expected = "\
version: 2
ethernets:
  eth0:
    match:
      macaddress: \"02:00:00:00:00:00\"
    set-name: eth0
    mtu: 1500
    dhcp4: false
    addresses: [192.168.127.2/24]
    gateway4: 192.168.127.1
    nameservers:
      addresses: [192.0.2.53, 192.0.2.54]
";
    let meta = "instance-id: \"WEB_1-1795562458519\"\nlocal-hostname: \"WEB-1\"\n";
    assert_eq!(
        files(&vm, &[&network]),
        [
            file("user-data", "#cloud-config\n"),
            file("meta-data", meta),
            file("network-config", expected)
        ]
    );
}

#[test]
fn each_nic_is_told_of_and_the_first_alone_leads_out() {
    let front = network("front", "10.1.0.0/16", [10, 1, 0, 1]);
    let back = NetworkConfig {
        gateway: Some([10, 2, 0, 254].into()),
        mtu: 9000,
        ..network("back", "10.2.0.0/24", [10, 2, 0, 1])
    };
    let nics = [(Mode::Dhcp, None), (Mode::Bridged, Some([10, 2, 0, 7]))];
    let mut vm = record(&nics, json!({"cloud_init": {}}));
    vm.spec.networks[0].mtu = Some(1400);
    let expected = "\
version: 2
ethernets:
  eth0:
    match:
      macaddress: \"02:00:00:00:00:00\"
    set-name: eth0
    mtu: 1400
    dhcp4: true
  eth1:
    match:
      macaddress: \"02:00:00:00:00:01\"
    set-name: eth1
    mtu: 9000
    dhcp4: false
    addresses: [10.2.0.7/24]
";
    assert_eq!(files(&vm, &[&front, &back])[2], file("network-config", expected));
    // What guests are told is the network's gateway, be it another machine.
    let vm = record(&nics[1..], json!({"cloud_init": {}}));
    assert!(files(&vm, &[&back])[2].1.contains("gateway4: 10.2.0.254\n"));
}

#[test]
fn a_vm_is_told_its_ipv6_address_in_each_mode() {
    let ipv6 = Ipv6Network::new("fd00:1:2:3::/64".parse().unwrap(), true);
    let network = NetworkConfig {
        ipv6: Some(ipv6),
        ..network("default", "192.168.127.0/24", [192, 168, 127, 1])
    };
    let told = |nics: &[(Mode, Option<[u8; 4]>)]| {
        let mut vm = record(nics, json!({"cloud_init": {}}));
        for nic in &mut vm.nics {
            nic.ip6 = Some(ipv6.address_of(nic.mac));
        }
        let networks = vec![&network; nics.len()];
        let (_, text) = files(&vm, &networks).remove(2);
        let lines = text.lines().map(str::trim);
        let about = |line: &&str| line.starts_with("addr") || line.starts_with("gate");
        lines.filter(about).map(String::from).collect::<Vec<_>>()
    };
    let bridged = (Mode::Bridged, Some([192, 168, 127, 2]));
    assert_eq!(
        told(&[bridged, bridged])[..4],
        [
            "addresses: [192.168.127.2/24, \"fd00:1:2:3:0:ff:fe00:0/64\"]",
            "gateway6: \"fd00:1:2:3::1\"",
            "gateway4: 192.168.127.1",
            "addresses: [192.0.2.53, 192.0.2.54]",
        ]
    );
    assert_eq!(told(&[bridged, bridged]).len(), 5, "the second has no gateway");
    assert_eq!(
        told(&[(Mode::Dhcp, None)]),
        ["addresses: [\"fd00:1:2:3:0:ff:fe00:0/64\"]", "gateway6: \"fd00:1:2:3::1\""]
    );
}

#[test]
fn a_vm_with_ipv6_alone_is_told_that_and_no_more() {
    let ipv6 = Ipv6Network::new("fd00:1:2:3::/64".parse().unwrap(), true);
    let network = network("default", "192.168.127.0/24", [192, 168, 127, 1]);
    let network = NetworkConfig { ipv4: None, ipv6: Some(ipv6), dhcp: Dhcp::Off, ..network };
    let mut vm = record(&[(Mode::Bridged, None)], json!({"cloud_init": {}}));
    vm.nics[0].ip6 = Some(ipv6.address_of(vm.nics[0].mac));
    let expected = "\
version: 2
ethernets:
  eth0:
    match:
      macaddress: \"02:00:00:00:00:00\"
    set-name: eth0
    mtu: 1500
    dhcp4: false
    addresses: [\"fd00:1:2:3:0:ff:fe00:0/64\"]
    gateway6: \"fd00:1:2:3::1\"
    nameservers:
      addresses: [192.0.2.53, 192.0.2.54]
";
    assert_eq!(files(&vm, &[&network])[2], file("network-config", expected));
}

#[test]
fn without_a_nic_there_is_no_configuration_of_one() {
    let vm = record(&[], json!({"cloud_init": {"user_data": {"content": "#!/bin/sh\ntrue"}}}));
    let files = files(&vm, &[]);
    assert_eq!(files[0], file("user-data", "#!/bin/sh\ntrue\n"));
    assert_eq!(files.len(), 2);
}

#[test]
fn what_the_documents_give_wins() {
    let network = network("default", "192.168.127.0/24", [192, 168, 127, 1]);
    let nics = [(Mode::Bridged, Some([192, 168, 127, 2]))];
    let manifest = json!({ "cloud_init": {
        "user_data": {"inline": true, "content": "#cloud-config\na: 1\n"},
        "meta_data": {"content": "instance-id: m\n"},
        "network_config": {"inline": true, "content": "version: 1\n"}
    }});
    let given = |config: Value| {
        let mut vm = record(&nics, config);
        vm.spec.manifest = Some(Kept::new(&manifest));
        let texts = files(&vm, &[&network]).into_iter().map(|(_, text)| text);
        <[String; 3]>::try_from(texts.collect::<Vec<_>>()).unwrap()
    };
    let of_manifest = ["#cloud-config\na: 1\n", "instance-id: m\n", "version: 1\n"];
    assert_eq!(given(json!({})), of_manifest);
    assert_eq!(given(json!({"cloud_init": {"user_data": {"content": " "}}})), of_manifest);
    let of_config = json!({"cloud_init": {
        "user_data": {"content": "  indented: yes"},
        "meta_data": {"instance-id": "c", "tags": [1, "two"], "local-hostname": null},
        "network_config": {"inline": true}
    }});
    let [user, meta, config] = given(of_config);
    assert_eq!(user, "  indented: yes\n");
    // A text that is empty and `inline` is given, and then volnet's own stands there.
    assert!(config.starts_with("version: 2\n"), "{config}");
    let keys = json!({"instance-id": "c", "tags": [1, "two"], "local-hostname": "WEB-1"});
    assert_eq!(serde_json::from_str::<Value>(&meta).unwrap(), keys);
}

#[test]
fn texts_that_do_not_fit_are_refused() {
    let long = "x".repeat(3 << 20);
    let vm = record(&[], json!({"cloud_init": {"user_data": {"content": long}}}));
    let Err(Refusal::InvalidConfig { field, .. }) = image(&vm, &[], &[]) else {
        panic!("it was accepted");
    };
    assert_eq!(field, "cloud_init");
}
