use std::net::Ipv4Addr;

use super::*;
use crate::hypervisor::QemuMachine;
use crate::hypervisor::template::Template;
use crate::model::document::Kept;
use crate::model::expose::Protocol;
use crate::model::mac::Mac;
use crate::model::net::{Dhcp, Dns, Ipv4Network, Service};
use crate::model::traffic::Traffic;

fn flags(list: &[(&'static str, &str)]) -> Flags {
    let mut flags = Flags::default();
    for (flag, value) in list {
        flags.set(flag, (*value).into());
    }
    flags
}

fn environment(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn from_file(text: &str) -> Result<Settings, Refusal> {
    resolve(&Flags::default(), &BTreeMap::new(), Some(text), "host")
}

fn from_environment(list: &[(&str, &str)]) -> Result<Settings, Refusal> {
    resolve(&Flags::default(), &environment(list), None, "host")
}

/// The field that a refusal names.
fn field(refused: Result<Settings, Refusal>) -> String {
    match refused {
        Err(Refusal::InvalidConfig { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults() {
    let settings = resolve(&Flags::default(), &BTreeMap::new(), None, "host").unwrap();
    assert_eq!(settings.socket, Path::new("/run/volnet/volnet.sock"));
    assert_eq!(settings.state_dir, Path::new("/var/lib/volnet"));
    assert_eq!(settings.runtime_dir, Path::new("/run/volnet"));
    assert_eq!(settings.log_dir, Path::new("/var/log/volnet"));
    assert_eq!(
        settings.networks,
        [NetworkConfig {
            name: "default".into(),
            whole: "default".into(),
            bridge: "vbr0".into(),
            ipv4: Some(Ipv4Network {
                prefix: "192.168.127.0/24".parse().unwrap(),
                host: Ipv4Addr::new(192, 168, 127, 1),
            }),
            mtu: 1500,
            nat: true,
            dhcp: Dhcp::Builtin,
            dns: Dns::Builtin,
            domain: "volnet".into(),
            ipv6: None,
            managed: true,
            gateway: None,
            range: None,
            reserve: Vec::new(),
            told: Default::default(),
            inner: None,
            peers: Vec::new(),
            services: false,
            host_services: vec![Service::Ping],
            traffic: Traffic::default(),
            mac: Mac::of_bridge("host", "vbr0"),
        }]
    );
    assert!(settings.nft_owner);
    assert_eq!(settings.machine.hypervisor, "cloud-hypervisor");
    assert_eq!(settings.hypervisors, Options::default());
    assert_eq!(settings.hypervisor_user, None);
}

#[test]
fn flags_beat_the_environment_and_that_the_file() {
    let file = r#"{"state_dir": "/file", "log_dir": "/file", "runtime_dir": "/file",
        "socket": "/file.sock"}"#;
    let environment = environment(&[
        ("VOLNET_STATE_DIR", "/environment"),
        ("VOLNET_LOG_DIR", "/environment"),
        ("VOLANT_LOG_DIR", "/volant"),
        ("VOLANT_RUNTIME_DIR", "/volant"),
        ("VOLNET_SOCKET", "  "),
    ]);
    let flags = flags(&[("state-dir", "/flag")]);
    let settings = resolve(&flags, &environment, Some(file), "host").unwrap();
    assert_eq!(settings.state_dir, Path::new("/flag"));
    assert_eq!(settings.log_dir, Path::new("/environment"));
    assert_eq!(settings.runtime_dir, Path::new("/volant"));
    assert_eq!(settings.socket, Path::new("/file.sock"));
}

#[test]
fn the_environment_of_volant_is_understood() {
    let settings = from_environment(&[
        ("HOME", "/root"),
        ("VOLANT_BRIDGE", "vol0"),
        ("VOLANT_SUBNET", "10.9.0.0/16"),
        ("VOLANT_HOST_IP", "10.9.0.254"),
        ("VOLANT_RUNTIME_DIR", "~/.volant/run"),
        ("VOLANT_LOG_DIR", "/logs"),
        ("VOLANT_HYPERVISOR", "/opt/cloud-hypervisor"),
        ("VOLANT_KERNEL_BZIMAGE", "/k/bzImage"),
        ("VOLANT_KERNEL_VMLINUX", "/k/vmlinux"),
    ])
    .unwrap();
    let network = &settings.networks[0];
    assert_eq!(network.bridge, "vol0");
    let ipv4 = network.ipv4.unwrap();
    assert_eq!(ipv4.prefix.to_string(), "10.9.0.0/16");
    assert_eq!(ipv4.host, Ipv4Addr::new(10, 9, 0, 254));
    assert_eq!(settings.runtime_dir, Path::new("/root/.volant/run"));
    assert_eq!(settings.socket, Path::new("/root/.volant/run/volnet.sock"));
    assert_eq!(settings.log_dir, Path::new("/logs"));
    assert_eq!(settings.machine.hypervisor, "cloud-hypervisor");
    assert_eq!(settings.hypervisors.cloud_hypervisor.program, "/opt/cloud-hypervisor");
    assert_eq!(settings.machine.kernel_bzimage.as_deref(), Some(Path::new("/k/bzImage")));
    assert_eq!(settings.machine.kernel_vmlinux.as_deref(), Some(Path::new("/k/vmlinux")));

    let named = from_environment(&[("VOLANT_HYPERVISOR", "qemu")]).unwrap();
    assert_eq!(named.machine.hypervisor, "qemu");
    assert_eq!(named.hypervisors, Options::default());
    let beaten =
        from_environment(&[("VOLANT_HYPERVISOR", "/ch"), ("VOLNET_HYPERVISOR", "qemu")]).unwrap();
    assert_eq!(beaten.machine.hypervisor, "qemu");
    assert_eq!(beaten.hypervisors, Options::default());
}

#[test]
fn a_host_address_goes_with_its_subnet() {
    let host = |settings: Settings| settings.networks[0].ipv4.unwrap().host.to_string();
    let moved = from_environment(&[("VOLNET_SUBNET", "10.0.0.0/24")]).unwrap();
    assert_eq!(host(moved), "10.0.0.1");

    let file = r#"{"networks": [{"subnet": "10.0.0.0/24", "host_ip": "10.0.0.9"}]}"#;
    assert_eq!(host(from_file(file).unwrap()), "10.0.0.9");
    let flags = flags(&[("subnet", "10.1.0.0/24")]);
    let moved = resolve(&flags, &BTreeMap::new(), Some(file), "host").unwrap();
    assert_eq!(host(moved), "10.1.0.1");

    let long = from_environment(&[("VOLNET_HOST_IP", "192.168.127.5/24")]).unwrap();
    assert_eq!(host(long), "192.168.127.5");
    assert_eq!(field(from_environment(&[("VOLNET_HOST_IP", "10.0.0.1")])), "VOLNET_HOST_IP");
}

#[test]
fn who_answers_dhcp_follows_from_nat_unless_it_is_said() {
    for (said, expected) in [
        ("", Dhcp::Builtin),
        (r#","nat": true"#, Dhcp::Builtin),
        (r#","nat": false"#, Dhcp::External),
        (r#","nat": false, "dhcp": "builtin""#, Dhcp::Builtin),
        (r#","dhcp": "external""#, Dhcp::External),
        (r#","dhcp": " off ""#, Dhcp::Off),
    ] {
        let file = format!(r#"{{"networks": [{{"bridge": "vbr0"{said}}}]}}"#);
        assert_eq!(from_file(&file).unwrap().networks[0].dhcp, expected, "{said}");
    }
    let wrong = from_file(r#"{"networks": [{"dhcp": "on"}]}"#);
    assert_eq!(field(wrong), "networks[0].dhcp");
}

#[test]
fn several_networks_and_hypervisors_stand_in_the_file() {
    let file = r#"{
        "networks": [
            {"name": "front", "bridge": "vbr0", "subnet": "10.0.0.0/24"},
            {"name": "back", "bridge": "vbr1", "subnet": "10.0.1.0/24", "mtu": 9000, "nat": false,
             "isolated": true}
        ],
        "hypervisor": "crosvm",
        "hypervisors": {
            "crosvm": {"program": "crosvm", "args": ["run", ["--net", "tap-name={tap}"]]},
            "qemu": {"program": "/opt/qemu/bin/qemu-system-x86_64", "machine": "Q35"}
        },
        "backend": "noop", "nft_owner": false, "net_ip_mask": true, "hypervisor_user": "990"
    }"#;
    let settings = from_file(file).unwrap();
    let back = &settings.networks[1];
    assert_eq!((back.mtu, back.nat, back.traffic().isolated), (9000, false, true));
    assert_eq!(back.ipv4.unwrap().host, Ipv4Addr::new(10, 0, 1, 1));
    assert_ne!(back.mac, settings.networks[0].mac);
    assert_eq!(settings.machine.hypervisor, "crosvm");
    let options = settings.hypervisors;
    let groups = vec![vec!["run".into()], vec!["--net".into(), "tap-name={tap}".into()]];
    let crosvm = Template::new("crosvm".into(), "crosvm".into(), groups, None).unwrap();
    assert_eq!(options.templates, [crosvm]);
    assert_eq!(options.qemu.program, "/opt/qemu/bin/qemu-system-x86_64");
    assert_eq!(options.qemu.machine, QemuMachine::Q35);
    assert_eq!(settings.backend, Backend::Noop);
    assert_eq!(settings.hypervisor_user.as_deref(), Some("990"));
    assert!(!settings.nft_owner && options.cloud_hypervisor.net_ip_mask);
}

#[test]
fn a_machine_of_qemu_names_its_program() {
    let read = |qemu: &str| from_file(&format!(r#"{{"hypervisors": {{"qemu": {{{qemu}}}}}}}"#));
    for (qemu, program) in [
        (r#""machine": "q35""#, "qemu-system-x86_64"),
        (r#""machine": "virt""#, "qemu-system-aarch64"),
        (r#""program": "/opt/q", "machine": "virt""#, "/opt/q"),
    ] {
        assert_eq!(read(qemu).unwrap().hypervisors.qemu.program, program);
    }
    assert_eq!(field(read(r#""machine": "raspi3b""#)), "hypervisors.qemu.machine");
}

#[test]
fn a_network_is_spread_over_bridges() {
    let file = r#"{"networks": [
        {"name": "vms", "bridge": "vbr0", "subnet": "10.0.0.0/16", "bridges": 3, "nat": false},
        {"name": "back", "bridge": "vbr1", "subnet": "10.1.0.0/16"}
    ]}"#;
    let networks = from_file(file).unwrap().networks;
    let shown: Vec<String> = networks
        .iter()
        .map(|part| {
            let NetworkConfig { name, whole, bridge, nat, .. } = part;
            let Ipv4Network { prefix, host } = part.ipv4.unwrap();
            format!("{name} of {whole} {bridge} {prefix} {host} {nat}")
        })
        .collect();
    let expected = [
        "vms of vms vbr0 10.0.0.0/18 10.0.0.1 false",
        "vms-2 of vms vbr0-2 10.0.64.0/18 10.0.64.1 false",
        "vms-3 of vms vbr0-3 10.0.128.0/18 10.0.128.1 false",
        "back of back vbr1 10.1.0.0/16 10.1.0.1 true",
    ];
    assert_eq!(shown, expected);
    let narrowest = from_file(r#"{"networks": [{"subnet": "10.0.0.0/30"}]}"#).unwrap();
    assert_eq!(narrowest.networks.len(), 1, "one bridge needs no second address");
    for (wrong, at) in [
        (r#"{"bridges": 0}"#, "networks[0].bridges"),
        (r#"{"bridges": 65}"#, "networks[0].bridges"),
        (r#"{"bridges": 64, "subnet": "10.0.0.0/24"}"#, "networks[0].bridges"),
        (
            r#"{"bridges": 2, "subnet": "10.0.0.0/24", "host_ip": "10.0.0.129"}"#,
            "networks[0].host_ip",
        ),
        (r#"{"bridges": 2, "bridge": "a-bridge-of-15b"}"#, "networks[0].bridge"),
    ] {
        assert_eq!(field(from_file(&format!(r#"{{"networks": [{wrong}]}}"#))), at, "{wrong}");
    }
}

#[test]
fn what_is_wrong_in_the_file_is_named_by_its_path() {
    let table = [
        ("{", "(document)"),
        ("[]", "(document)"),
        (r#"{"colour": 1}"#, "colour"),
        (r#"{"socket": 1}"#, "socket"),
        (r#"{"socket": "volnet.sock"}"#, "socket"),
        (r#"{"state_dir": "a/b"}"#, "state_dir"),
        (r#"{"state_dir": "/run/volnet"}"#, "state_dir"),
        (r#"{"backend": "bsd"}"#, "backend"),
        (r#"{"nft_owner": "yes"}"#, "nft_owner"),
        (r#"{"pool": 257}"#, "pool"),
        (r#"{"pool": -1}"#, "pool"),
        (r#"{"log_mb": 0}"#, "log_mb"),
        (r#"{"log_mb": 4097}"#, "log_mb"),
        (r#"{"hypervisor": "xen"}"#, "hypervisor"),
        (r#"{"hypervisors": {"a b": {}}}"#, "hypervisors.a b"),
        (r#"{"hypervisors": {"xen": {}}}"#, "hypervisors.xen.program"),
        (r#"{"hypervisors": {"xen": {"program": "xl"}}}"#, "hypervisors.xen.args"),
        (r#"{"hypervisors": {"xen": {"program": "./xl", "args": []}}}"#, "hypervisors.xen.program"),
        (r#"{"hypervisors": {"qemu": {"arguments": []}}}"#, "hypervisors.qemu.arguments"),
        (r#"{"hypervisors": {"xen": {"program": "x", "args": [1]}}}"#, "hypervisors.xen.args[0]"),
        (
            r#"{"hypervisors": {"xen": {"program": "x", "args": [["a", 1]]}}}"#,
            "hypervisors.xen.args[0][1]",
        ),
        (
            r#"{"hypervisors": {"xen": {"program": "x", "args": ["{nic}"]}}}"#,
            "hypervisors.xen.args",
        ),
        (r#"{"hypervisors": {"qemu": {"machine": "pc"}}}"#, "hypervisors.qemu.machine"),
        (r#"{"networks": {}}"#, "networks"),
        (r#"{"networks": [{"colour": 1}]}"#, "networks[0].colour"),
        (r#"{"networks": [{"name": "a/b"}]}"#, "networks[0].name"),
        (r#"{"networks": [{"bridge": "a-name-of-16-bytes"}]}"#, "networks[0].bridge"),
        (r#"{"networks": [{"bridge": "vttap-x"}]}"#, "networks[0].bridge"),
        (r#"{"networks": [{"subnet": "10.0.0.0/31"}]}"#, "networks[0].subnet"),
        (r#"{"networks": [{"subnet": "10.0.0.0/7"}]}"#, "networks[0].subnet"),
        (r#"{"networks": [{"subnet": "10.0.0.1/24"}]}"#, "networks[0].subnet"),
        (r#"{"networks": [{"subnet": "127.0.0.0/24"}]}"#, "networks[0].subnet"),
        (r#"{"networks": [{"subnet": "224.0.0.0/24"}]}"#, "networks[0].subnet"),
        (r#"{"networks": [{"host_ip": "192.168.127.0"}]}"#, "networks[0].host_ip"),
        (r#"{"networks": [{"host_ip": "192.168.127.255"}]}"#, "networks[0].host_ip"),
        (r#"{"networks": [{"host_ip": "192.168.128.1"}]}"#, "networks[0].host_ip"),
        (r#"{"networks": [{"host_ip": "192.168.127.1/16"}]}"#, "networks[0].host_ip"),
        (r#"{"networks": [{"mtu": 67}]}"#, "networks[0].mtu"),
        (r#"{"networks": [{"nat": 1}]}"#, "networks[0].nat"),
        (r#"{"networks": [{"managed": false, "nat": true}]}"#, "networks[0].nat"),
        (r#"{"networks": [{"managed": false, "antispoof": false}]}"#, "networks[0].managed"),
        (r#"{"networks": [{"managed": false, "bridges": 2}]}"#, "networks[0].bridges"),
        (r#"{"networks": [{"gateway": "10.0.0.1"}]}"#, "networks[0].gateway"),
        (r#"{"networks": [{"range": "192.168.127.9-192.168.127.8"}]}"#, "networks[0].range"),
        (r#"{"networks": [{"range": "192.168.127.9-192.168.128.8"}]}"#, "networks[0].range"),
        (r#"{"networks": [{"search": ["lan", "a..b"]}]}"#, "networks[0].search[1]"),
        (r#"{"networks": [{"next_server": "tftp"}]}"#, "networks[0].next_server"),
        (r#"{"networks": [{"boot_file": "a b"}]}"#, "networks[0].boot_file"),
        (r#"{"networks": [{"reserve": ["192.168.127.9", "x"]}]}"#, "networks[0].reserve[1]"),
        (r#"{"expose_ports": "0-9"}"#, "expose_ports"),
        (r#"{"hypervisors": {"qemu": {"args": [""]}}}"#, "hypervisors.qemu.args[0]"),
        (
            r#"{"hypervisors": {"m": {"program": "m", "args": ["{control}"]}}}"#,
            "hypervisors.m.args",
        ),
        (
            r#"{"hypervisors": {"m": {"program": "m", "args": ["{cid}"], "control": "qemu"}}}"#,
            "hypervisors.m.args",
        ),
        (
            r#"{"hypervisors": {"m": {"program": "m", "args": ["{control}"], "control": "x"}}}"#,
            "hypervisors.m.control",
        ),
        (r#"{"vm_uids": "0-9"}"#, "vm_uids"),
        (r#"{"vm_uids": "9-8"}"#, "vm_uids"),
        (r#"{"vm_uids": "5-4294967295"}"#, "vm_uids"),
        (r#"{"run_as": "nobody"}"#, "run_as"),
        (r#"{"networks": [{"antispoof": "no"}]}"#, "networks[0].antispoof"),
        (r#"{"networks": [{"policy": "nonesuch"}]}"#, "networks"),
        (r#"{"policies": {"open": []}}"#, "policies.open"),
        (r#"{"policies": {"a b": []}}"#, "policies.a b"),
        (r#"{"policies": {"mine": "allow any"}}"#, "policies.mine"),
        (r#"{"policies": {"mine": ["allow any", "allow all"]}}"#, "policies.mine[1]"),
        (r#"{"networks": [{"antispoof": false, "isolated": true}]}"#, "networks[0].isolated"),
        (
            r#"{"networks": [{"antispoof": false,
                "inner": {"mac": "02:00:00:00:00:01", "ip": "192.168.127.2"}}]}"#,
            "networks[0].inner",
        ),
        (
            r#"{"networks": [{"ipv6": true,
                "inner": {"mac": "02:00:00:00:00:01", "ip": "192.168.127.2"}}]}"#,
            "networks[0].inner",
        ),
        (
            r#"{"networks": [{"inner": {"mac": "02:00:00:00:00:01", "ip": "10.0.0.2"}}]}"#,
            "networks[0].inner.gateway",
        ),
        (r#"{"networks": [{"inner": {"ip": "192.168.127.2"}}]}"#, "networks[0].inner.mac"),
        (r#"{"networks": [{"peers": ["0.0.0.0/0"]}]}"#, "networks[0].peers[0]"),
        (r#"{"networks": [{"peers": ["10.0.0.0"]}]}"#, "networks[0].peers[0]"),
        (r#"{"networks": [{"managed": false, "peers": []}]}"#, "networks[0].peers"),
        (r#"{"networks": [{"services": "yes"}]}"#, "networks[0].services"),
        (r#"{"networks": [{"managed": false, "services": true}]}"#, "networks[0].services"),
        (r#"{"networks": [{"isolated": true, "services": true}]}"#, "networks[0].services"),
        (r#"{"networks": [{"host_services": "ping"}]}"#, "networks[0].host_services"),
        (r#"{"networks": [{"host_services": ["ping", 22]}]}"#, "networks[0].host_services[1]"),
        (r#"{"networks": [{"host_services": ["dccp/22"]}]}"#, "networks[0].host_services[0]"),
        (r#"{"networks": [{"host_services": ["tcp/0"]}]}"#, "networks[0].host_services[0]"),
        (r#"{"networks": [{"host_services": ["tcp/65536"]}]}"#, "networks[0].host_services[0]"),
        (r#"{"networks": [{}, {"bridge": "b", "subnet": "10.0.0.0/8"}]}"#, "networks[1].name"),
        (r#"{"networks": [{}, {"name": "b", "subnet": "10.0.0.0/8"}]}"#, "networks[1].bridge"),
        (r#"{"networks": [{}, {"name": "b", "bridge": "b"}]}"#, "networks[1].subnet"),
    ];
    for (file, expected) in table {
        assert_eq!(field(from_file(file)), expected, "{file}");
    }
}

#[test]
fn what_is_wrong_outside_the_file_is_named_by_flag_or_variable() {
    let flagged = |flag: &'static str, value: &str| {
        resolve(&flags(&[(flag, value)]), &BTreeMap::new(), None, "host")
    };
    assert_eq!(field(flagged("bridge", "")), "--bridge");
    assert_eq!(field(flagged("nft-owner", "maybe")), "--nft-owner");
    assert_eq!(field(flagged("socket", &format!("/{}", "x".repeat(107)))), "--socket");
    assert_eq!(field(flagged("runtime-dir", &format!("/{}", "x".repeat(80)))), "--runtime-dir");
    assert!(flagged("runtime-dir", &format!("/{}", "x".repeat(79))).is_ok());
    assert_eq!(field(from_environment(&[("VOLNET_SUBNET", "10.0.0.0")])), "VOLNET_SUBNET");
    assert_eq!(field(from_environment(&[("VOLANT_LOG_DIR", "logs")])), "VOLANT_LOG_DIR");
    let no = from_environment(&[("VOLNET_NFT_OWNER", "no")]).unwrap();
    assert!(!no.nft_owner);
}

#[test]
fn the_host_answers_what_is_listed_and_a_server_that_may_be_on_it() {
    let services = |network: &str| {
        let settings = from_file(&format!(r#"{{"networks": [{network}]}}"#)).unwrap();
        settings.networks[0].host_services.clone()
    };
    let dhcp = Service::Port(Protocol::Udp, 67);
    assert_eq!(services("{}"), [Service::Ping]);
    assert_eq!(services(r#"{"nat": false}"#), [Service::Ping, dhcp]);
    assert_eq!(services(r#"{"dhcp": "external"}"#), [Service::Ping, dhcp]);
    assert_eq!(services(r#"{"dhcp": "external", "host_services": []}"#), []);
    assert_eq!(
        services(r#"{"host_services": ["tcp/22", " udp/67 ", "ping", "any"]}"#),
        [Service::Port(Protocol::Tcp, 22), dhcp, Service::Ping, Service::Any]
    );
}

#[test]
fn bounds() {
    let networks = |n: usize| {
        let one = |i| format!(r#"{{"name":"n{i}","bridge":"b{i}","subnet":"10.0.{i}.0/24"}}"#);
        let list: Vec<String> = (0..n).map(one).collect();
        from_file(&format!("{{\"networks\":[{}]}}", list.join(",")))
    };
    assert_eq!(networks(NETWORKS_MAX).unwrap().networks.len(), NETWORKS_MAX);
    assert_eq!(field(networks(NETWORKS_MAX + 1)), "networks");
    let services = vec!["\"ping\""; SERVICES_MAX + 1].join(",");
    let file = format!(r#"{{"networks":[{{"host_services":[{services}]}}]}}"#);
    assert_eq!(field(from_file(&file)), "networks[0].host_services");
    let peers = vec!["\"10.0.0.0/8\""; PEERS_MAX + 1].join(",");
    let file = format!(r#"{{"networks":[{{"peers":[{peers}]}}]}}"#);
    assert_eq!(field(from_file(&file)), "networks[0].peers");
    let args = vec!["\"x\""; TEMPLATE_ARGS_MAX + 1].join(",");
    let file = format!(r#"{{"hypervisors":{{"xen":{{"program":"xl","args":[{args}]}}}}}}"#);
    assert_eq!(field(from_file(&file)), "hypervisors.xen.args");
}

#[test]
fn a_network_without_a_subnet_has_ipv6_alone() {
    let read = |said: &str| from_file(&format!(r#"{{"networks": [{{"subnet": null{said}}}]}}"#));
    let networks = read(r#", "ipv6": true, "bridges": 2, "search": ["lan"]"#).unwrap().networks;
    let shown = networks.iter().map(|it| (it.ipv4, it.ipv6.is_some(), it.dhcp, it.dns.clone()));
    let alone = (None, true, Dhcp::Off, Dns::Builtin);
    assert_eq!(shown.collect::<Vec<_>>(), [alone.clone(), alone]);
    assert!(!networks[0].nat && networks[0].gateway().is_none());
    let sixes: Vec<_> = networks.iter().flat_map(NetworkConfig::host_addresses).collect();
    assert!(sixes.len() == 2 && sixes[0] != sixes[1] && sixes[0].is_ipv6(), "{sixes:?}");
    for (said, at) in [
        ("", "subnet"),
        (r#", "ipv6": false"#, "subnet"),
        (r#", "ipv6": true, "managed": false"#, "ipv6"),
        (r#", "ipv6": true, "host_ip": "10.0.0.1""#, "host_ip"),
        (r#", "ipv6": true, "nat": false"#, "nat"),
        (r#", "ipv6": true, "dhcp": "builtin""#, "dhcp"),
        (r#", "ipv6": true, "dhcp": "external""#, "dhcp"),
        (r#", "ipv6": true, "gateway": "10.0.0.1""#, "gateway"),
        (r#", "ipv6": true, "range": "10.0.0.1-10.0.0.9""#, "range"),
        (r#", "ipv6": true, "reserve": []"#, "reserve"),
        (r#", "ipv6": true, "next_server": "10.0.0.1""#, "next_server"),
        (r#", "ipv6": true, "boot_file": "a""#, "boot_file"),
        (r#", "ipv6": true, "inner": {"mac": "02:00:00:00:00:aa", "ip": "10.0.0.2"}"#, "inner"),
    ] {
        assert_eq!(field(read(said)), format!("networks[0].{at}"), "{said}");
    }
    assert!(read(r#", "ipv6": true, "dhcp": "off""#).is_ok());
    // A flag has a higher rank than the file.
    let file = r#"{"networks": [{"subnet": null, "ipv6": true}]}"#;
    let flagged =
        resolve(&flags(&[("subnet", "10.0.0.0/24")]), &BTreeMap::new(), Some(file), "host");
    let network = flagged.unwrap().networks.remove(0);
    assert_eq!(network.ipv4.unwrap().host, Ipv4Addr::new(10, 0, 0, 1));
    assert!(network.ipv6.is_some() && network.dhcp == Dhcp::Builtin);
}

#[test]
fn a_network_has_ipv6_of_its_own_or_as_written() {
    let read = |said: &str| from_file(&format!(r#"{{"networks": [{{"bridge": "vbr0"{said}}}]}}"#));
    let ipv6 =
        |said: &str| read(said).unwrap().networks.iter().map(|it| it.ipv6).collect::<Vec<_>>();
    assert_eq!((ipv6(""), ipv6(r#", "ipv6": false"#)), (vec![None], vec![None]));

    let own = ipv6(r#", "ipv6": true, "bridges": 3"#);
    assert_eq!(own[..1], ipv6(r#", "ipv6": true"#));
    for (number, ipv6) in own.iter().flatten().enumerate() {
        let segments = ipv6.prefix.network().segments();
        assert_eq!((segments[0] >> 8, segments[3], ipv6.nat), (0xfd, number as u16, true));
        assert_eq!((ipv6.host.segments()[7], ipv6.prefix.length()), (1, 64));
    }
    assert_eq!(own.len(), 3);
    let other = ipv6(r#", "ipv6": true, "name": "lab""#)[0].unwrap();
    assert!(!other.prefix.overlaps(own[0].unwrap().prefix));

    let [Some(written)] = ipv6(r#", "ipv6": {"prefix": "2001:db8:1:2::/64"}"#)[..] else {
        panic!("it has none")
    };
    assert_eq!((written.host.to_string(), written.nat), ("2001:db8:1:2::1".into(), false));

    for (said, at) in [
        (r#", "ipv6": "yes""#, "networks[0].ipv6"),
        (r#", "ipv6": {}"#, "networks[0].ipv6.prefix"),
        (r#", "ipv6": {"prefix": "fe80::/64"}"#, "networks[0].ipv6.prefix"),
        (r#", "ipv6": {"prefix": "2001:db8::/48"}"#, "networks[0].ipv6.prefix"),
        (r#", "ipv6": {"prefix": "2001:db8::1/64"}"#, "networks[0].ipv6.prefix"),
        (r#", "ipv6": {"prefix": "2001:db8::/64", "nat": 1}"#, "networks[0].ipv6.nat"),
        (r#", "ipv6": {"prefix": "2001:db8::/64"}, "bridges": 2"#, "networks[0].ipv6"),
        (r#", "ipv6": true, "mtu": 1279"#, "networks[0].ipv6"),
        (r#", "ipv6": true, "managed": false"#, "networks[0].ipv6"),
        (
            r#", "ipv6": {"prefix": "fd00::/64"}}, {"name": "b", "bridge": "b", "subnet":
                "10.1.0.0/24", "ipv6": {"prefix": "fd00::/64"}"#,
            "networks[1].ipv6",
        ),
    ] {
        assert_eq!(field(read(said)), at, "{said}");
    }
}

/// A network that is added to those of the settings.
fn adding(document: &str) -> Result<NetworkConfig, Refusal> {
    let settings = from_file(r#"{"networks": [{"subnet": "10.1.0.0/24", "bridge": "vbr0"}]}"#);
    let settings = settings.unwrap();
    let document = Kept::new(&serde_json::from_str(document).unwrap());
    added(&document, settings.networks.iter(), &Policy::built_in(), "host")
}

#[test]
fn a_network_is_added_as_one_of_the_settings_would_be() {
    let document = r#"{"name": "pods", "subnet": "10.2.0.0/24", "peers": ["10.2.0.0/16"],
        "mtu": 1400, "nat": true, "policy": "internet"}"#;
    let network = adding(document).unwrap();
    let settings = from_file(&format!(r#"{{"networks": [{document}]}}"#)).unwrap();
    let of_settings = &settings.networks[0];
    assert_eq!(network.bridge, "vn-pods");
    let (bridge, mac) = (network.bridge.clone(), Mac::of_bridge("host", "vn-pods"));
    assert_eq!(network, NetworkConfig { bridge, mac, ..of_settings.clone() });
    let long = r#"{"name": "a-name-that-is-long", "subnet": "10.2.0.0/24"}"#;
    let bridge = adding(long).unwrap().bridge;
    assert!(bridge.starts_with("vn-") && bridge.len() == 11, "{bridge}");
}

#[test]
fn what_cannot_be_added_is_refused() {
    for (document, wrong) in [
        (r#"{"subnet": "10.2.0.0/24"}"#, "network.name"),
        (r#"{"name": ".pods", "subnet": "10.2.0.0/24"}"#, "network.name"),
        (r#"{"name": "pods"}"#, "network.subnet"),
        (r#"{"name": "pods", "subnet": null}"#, "network.subnet"),
        (r#"{"name": "pods", "subnet": "10.1.0.128/25"}"#, "network.subnet"),
        (r#"{"name": "pods", "subnet": "10.2.0.0/24", "bridge": "vbr0"}"#, "network.bridge"),
        (r#"{"name": "pods", "subnet": "10.2.0.0/24", "bridges": 2}"#, "network.bridges"),
        (r#"{"name": "pods", "subnet": "10.2.0.0/24", "managed": false}"#, "network.managed"),
        (r#"{"name": "pods", "subnet": "10.2.0.0/24", "policy": "x"}"#, "network.policy"),
        (r#"{"name": "pods", "subnet": "10.2.0.0/24", "x": 1}"#, "network.x"),
    ] {
        let refused = adding(document).unwrap_err();
        let Refusal::InvalidConfig { field, .. } = refused else { panic!("{refused:?}") };
        assert_eq!(field, wrong, "{document}");
    }
}
