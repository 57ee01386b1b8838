use serde_json::json;

use super::*;
use crate::model::limits::Limits;
use crate::model::mode::Mode;
use crate::model::run_as::RunAs;
use crate::model::spec::{DiskFormat, RestartPolicy};
use crate::model::traffic::Traffic;

fn of_manifest(manifest: Value) -> Result<VmSpec, Refusal> {
    resolve(Some(&manifest), None)
}

fn of_config(config: Value) -> Result<VmSpec, Refusal> {
    resolve(None, Some(&config))
}

/// The field that a refusal names, with the document before it.
fn refused(result: Result<VmSpec, Refusal>) -> String {
    match result.expect_err("it was accepted") {
        Refusal::InvalidManifest { field, .. } => format!("manifest {field}"),
        Refusal::InvalidConfig { field, .. } => format!("config {field}"),
        other => panic!("{other}"),
    }
}

/// Every case of the decision: the declaration, the mode, and the needs of the mode.
#[test]
fn the_mode_and_what_it_needs() {
    use Mode::{Bridged, Dhcp, Vsock};
    let mode = |word: &str| Some(json!({"network": {"mode": word}}));
    let cases = [
        // nothing, empty
        (None, None, Some(Bridged)),
        (Some(json!(null)), Some(json!(null)), Some(Bridged)),
        (Some(json!({})), Some(json!({})), Some(Bridged)),
        (Some(json!({"network": null})), Some(json!({"network": {}})), Some(Bridged)),
        (Some(json!({"network": {"mode": null}})), None, Some(Bridged)),
        (mode(""), mode("  "), Some(Bridged)),
        // each, in the manifest only
        (mode("bridged"), None, Some(Bridged)),
        (mode("dhcp"), None, Some(Dhcp)),
        (mode("vsock"), None, Some(Vsock)),
        // each, in the configuration only
        (None, mode("bridged"), Some(Bridged)),
        (None, mode("dhcp"), Some(Dhcp)),
        (None, mode("vsock"), Some(Vsock)),
        // upper case, white space
        (mode("VSOCK"), None, Some(Vsock)),
        (None, mode(" Bridged "), Some(Bridged)),
        (None, mode("\tdHcP\n"), Some(Dhcp)),
        // both: the configuration wins, and an empty one does not
        (mode("vsock"), mode("dhcp"), Some(Dhcp)),
        (mode("dhcp"), mode("bridged"), Some(Bridged)),
        (mode("bridged"), mode("VSOCK"), Some(Vsock)),
        (mode("vsock"), mode(""), Some(Vsock)),
        (mode("dhcp"), Some(json!({"network": {"mtu": 1400}})), Some(Dhcp)),
        // carried by the configuration
        (None, Some(json!({"manifest": {"network": {"mode": "vsock"}}})), Some(Vsock)),
        (mode("dhcp"), Some(json!({"manifest": {"network": {"mode": "vsock"}}})), Some(Dhcp)),
        // unknown, wherever it stands
        (mode("bridge"), None, None),
        (None, mode("none"), None),
        (mode("nat"), mode("bridged"), None),
        (None, Some(json!({"network": {"mode": true}})), None),
        (None, Some(json!({"network": "vsock"})), None),
    ];
    for (manifest, config, expected) in cases {
        let resolved = resolve(manifest.as_ref(), config.as_ref());
        let mode = resolved.ok().map(|spec| spec.networks[0].mode);
        assert_eq!(mode, expected, "{manifest:?} {config:?}");
    }
    let needs = |mode: Mode| (mode.needs_tap_device(), mode.needs_ip_allocation());
    assert_eq!(needs(Bridged), (true, true));
    assert_eq!(needs(Dhcp), (true, false));
    assert_eq!(needs(Vsock), (false, false));
}

/// Shaped after the OCI image examples in Volant's documentation: a bare checksum, a digest,
/// labels.
fn server_on_a_disk() -> Value {
    json!({
        "$schema": "https://example.com/schemas/plugin-manifest-v1.json",
        "schema_version": "1.0",
        "name": "mirror",
        "version": "0.4.2",
        "runtime": "mirror",
        "enabled": true,
        "image": "registry.example.com/mirror:0.4",
        "image_digest": format!("sha256:{}", "1f".repeat(32)),
        "rootfs": {
            "url": "/srv/images/mirror.img",
            "checksum": "0A".repeat(32),
            "format": "ext4"
        },
        "resources": {"cpu_cores": 2, "memory_mb": 1024},
        "workload": {
            "type": "http",
            "entrypoint": ["/usr/bin/mirror", "--listen", ":80"],
            "base_url": "http://127.0.0.1:80",
            "env": {"PATH": "/usr/bin:/bin"},
            "workdir": "/"
        },
        "health_check": {
            "endpoint": "/", "timeout_ms": 10000, "interval_ms": 5000, "retries": 3
        },
        "labels": {"tier": "reference"}
    })
}

/// Shaped after the appliance and GPU examples, with every optional section.
fn appliance() -> Value {
    json!({
        "schema_version": "1.0",
        "name": "edge",
        "version": "2.0.0",
        "runtime": "edge",
        "initramfs": {
            "url": "file:///srv/images/edge.cpio.gz",
            "checksum": format!("sha256:{}", "b7".repeat(32))
        },
        "rootfs": {"url": "", "format": "raw"},
        "disks": [
            {"name": "data", "source": "/srv/data.qcow2", "format": "qcow2", "readonly": false,
             "target": "vdb"},
            {"name": "seed", "source": "/srv/seed.img", "readonly": true}
        ],
        "resources": {"cpu_cores": 1, "memory_mb": 64},
        "actions": {
            "drain": {"description": "stop taking work", "method": "POST", "path": "/v1/drain",
                      "timeout_ms": 60000}
        },
        "health_check": {"endpoint": "", "timeout_ms": 0},
        "workload": {"type": "http", "base_url": "http://127.0.0.1:8080", "entrypoint": ["/edge"]},
        "cloud_init": {
            "datasource": "NoCloud",
            "seed_mode": "disk",
            "user_data": {"inline": true, "content": "#cloud-config\nruncmd: []\n"},
            "meta_data": {"path": "/srv/meta"}
        },
        "network": {
            "mode": "bridged", "subnet": "10.1.0.0/24", "gateway": "10.1.0.1", "auto_assign": true
        },
        "devices": {"pci_passthrough": ["0000:01:00.0"], "allowlist": ["10de:*"]},
        "openapi": "https://example.com/edge/openapi.json"
    })
}

#[test]
fn a_manifest_with_a_root_file_system() {
    let spec = of_manifest(server_on_a_disk()).unwrap();
    assert_eq!(spec.networks, [NetworkSpec::default()]);
    let machine = spec.machine.unwrap();
    assert_eq!((machine.cpus, machine.memory_mb), (2, 1024));
    assert_eq!(machine.cmdline, "root=/dev/vda rw");
    assert_eq!(machine.initramfs, None);
    let [disk] = &machine.disks[..] else { panic!("{machine:?}") };
    assert_eq!(disk.file.path.to_str(), Some("/srv/images/mirror.img"));
    assert_eq!(disk.file.sha256, Some("0a".repeat(32)));
    assert_eq!((disk.format, disk.readonly), (DiskFormat::Raw, false));
}

#[test]
fn a_manifest_with_an_initramfs_and_disks() {
    let spec = of_manifest(appliance()).unwrap();
    assert_eq!(spec.networks[0].subnet, Some("10.1.0.0/24".parse().unwrap()));
    assert_eq!(spec.networks[0].gateway, Some("10.1.0.1".parse().unwrap()));
    let machine = spec.machine.unwrap();
    let initramfs = machine.initramfs.unwrap();
    assert_eq!(initramfs.path.to_str(), Some("/srv/images/edge.cpio.gz"));
    assert_eq!(initramfs.sha256, Some("b7".repeat(32)));
    assert_eq!(machine.cmdline, "");
    let disks: Vec<_> = machine.disks.iter().map(|disk| (disk.format, disk.readonly)).collect();
    assert_eq!(disks, [(DiskFormat::Qcow2, false), (DiskFormat::Raw, true)]);
}

#[test]
fn a_short_manifest_declares_what_it_says() {
    let spec = of_manifest(json!({
        "name": "small", "version": "1", "runtime": "small",
        "initramfs": {"url": " /i "}
    }));
    let machine = spec.unwrap().machine.unwrap();
    assert_eq!((machine.cpus, machine.memory_mb), (CPUS_DEFAULT, MEMORY_MB_DEFAULT));
    assert_eq!(of_manifest(json!({})).unwrap().machine, None);
    assert_eq!(
        of_config(json!({"plugin": "p", "resources": {"cpu_cores": 2}})).unwrap().machine,
        None
    );
}

#[test]
fn the_configuration_wins() {
    let config = json!({
        "plugin": "mirror",
        "runtime": "mirror",
        "kernel_cmdline": " loglevel=7 ",
        "kernel_override": "/boot/own",
        "resources": {"memory_mb": 2048},
        "api": {"host": "127.0.0.1", "port": "7777"},
        "devices": {"pci_passthrough": []},
        "metadata": {"owner": {"team": 7}},
        "expose": [{"name": "web", "protocol": "tcp", "port": 80, "host_port": 8080,
                    "mode": "bridged"}],
        "cloud_init": null,
        "network": {
            "name": "lab", "ip": "10.1.0.9", "mac": "02:00:00:00:00:09", "mtu": 1400, "queues": 2,
            "addresses": ["10.1.0.200"], "ip6": "2001:db8::9", "isolated": false,
            "policy": "internet", "gateway": "10.1.0.254",
            "limits": {"tx_mbit": 50, "pps": 0, "rx_mbit": null}
        },
        "rootfs": {"url": "/other.qcow2", "format": "QCOW2"},
        "hypervisor": "qemu",
        "ephemeral": true,
        "autostart": true,
        "restart": "On-Failure",
        "run_as": "own"
    });
    let mut manifest = server_on_a_disk();
    manifest["network"] =
        json!({"mode": "bridged", "subnet": "10.1.0.0/24", "gateway": "10.1.0.1"});
    let spec = resolve(Some(&manifest), Some(&config)).unwrap();
    assert_eq!(
        spec.networks,
        [NetworkSpec {
            mode: Mode::Bridged,
            name: Some("lab".into()),
            subnet: Some("10.1.0.0/24".parse().unwrap()),
            gateway: Some("10.1.0.254".parse().unwrap()),
            ip: Some("10.1.0.9".parse().unwrap()),
            addresses: vec!["10.1.0.200".parse().unwrap()],
            ip6: Some("2001:db8::9".parse().unwrap()),
            inner: None,
            mac: Some("02:00:00:00:00:09".parse().unwrap()),
            mtu: Some(1400),
            queues: Some(2),
            traffic: Traffic {
                policy: Some("internet".into()),
                limits: Limits { tx_mbit: Some(50), pps: Some(0), ..Limits::default() },
                isolated: Some(false),
                antispoof: None,
            },
            expose: spec.networks[0].expose.clone(),
        }]
    );
    let [port] = &spec.networks[0].expose[..] else { panic!("{spec:?}") };
    assert_eq!((port.port, port.host_port, port.name.as_deref()), (80, 8080, Some("web")));
    assert!(spec.ephemeral && spec.autostart);
    assert_eq!(spec.restart, RestartPolicy::OnFailure);
    assert_eq!(spec.run_as, Some(RunAs::Own));
    let machine = spec.machine.unwrap();
    assert_eq!(machine.hypervisor.as_deref(), Some("qemu"));
    assert_eq!(machine.kernel.unwrap().path.to_str(), Some("/boot/own"));
    assert_eq!((machine.cpus, machine.memory_mb), (2, 2048));
    assert_eq!(machine.cmdline, "root=/dev/vda rw loglevel=7");
    // It is another file, so the manifest's checksum does not apply.
    let disk = &machine.disks[0];
    assert_eq!((disk.format, disk.file.sha256.as_ref()), (DiskFormat::Qcow2, None));
}

#[test]
fn a_root_that_is_named_is_not_named_again() {
    let mut manifest = server_on_a_disk();
    let config = json!({"kernel_cmdline": "root=/dev/vda1 ro"});
    let machine = resolve(Some(&manifest), Some(&config)).unwrap().machine.unwrap();
    assert_eq!(machine.cmdline, "root=/dev/vda1 ro");
    manifest["initramfs"] = json!({"url": "/i"});
    assert_eq!(of_manifest(manifest).unwrap().machine.unwrap().cmdline, "");
}

#[test]
fn what_lies_on_the_web_is_refused_only_where_it_is_used() {
    let manifest =
        json!({"initramfs": {"url": "https://example.com/i.cpio", "checksum": "sha256:…"}});
    assert_eq!(refused(of_manifest(manifest.clone())), "manifest initramfs.url");
    let config = json!({"initramfs": {"url": "/srv/i.cpio"}});
    let machine = resolve(Some(&manifest), Some(&config)).unwrap().machine.unwrap();
    assert_eq!(machine.initramfs.unwrap().path.to_str(), Some("/srv/i.cpio"));
}

#[test]
fn refusals_of_a_manifest_name_the_field() {
    for (manifest, field) in [
        (json!([]), "(document)"),
        (json!({"nme": "x"}), "nme"),
        (json!({"name": 7}), "name"),
        (json!({"schema_version": "2.0"}), "schema_version"),
        (json!({"network": {"mod": "vsock"}}), "network.mod"),
        (json!({"network": {"mode": "nat"}}), "network.mode"),
        (json!({"network": {"ip": "10.0.0.2"}}), "network.ip"),
        (json!({"network": {"subnet": "10.0.0.1/24"}}), "network.subnet"),
        (json!({"network": {"gateway": "fe80::1"}}), "network.gateway"),
        (json!({"network": {"auto_assign": "yes"}}), "network.auto_assign"),
        (json!({"resources": {"cpu_cores": 0}}), "resources.cpu_cores"),
        (json!({"resources": {"cpu_cores": 1.5}}), "resources.cpu_cores"),
        (json!({"resources": {"memory_mb": "64"}}), "resources.memory_mb"),
        (json!({"resources": {"vcpu": 1}}), "resources.vcpu"),
        (json!({"rootfs": {"url": "x.img"}}), "rootfs.url"),
        (json!({"rootfs": {"url": "/x", "format": "vmdk"}}), "rootfs.format"),
        (json!({"rootfs": {"url": "/x", "checksum": "md5:0"}}), "rootfs.checksum"),
        (json!({"rootfs": {"checksum": "ab".repeat(32)}}), "rootfs.url"),
        (json!({"disks": [{"name": "a", "source": "/a"}, {"name": "b"}]}), "disks[1].source"),
        (json!({"disks": [{"source": "/a", "bus": "scsi"}]}), "disks[0].bus"),
        (json!({"disks": [{"source": "/a", "cache": "fast"}]}), "disks[0].cache"),
        (json!({"disks": [{"source": "/a", "limits": {"mb": 0}}]}), "disks[0].limits.mb"),
        (json!({"disks": {}}), "disks"),
        (json!({"labels": {"a": 1}}), "labels.a"),
        (json!({"workload": {"entrypoint": ["a", 1]}}), "workload.entrypoint[1]"),
        (json!({"actions": {"go": {"verb": "GET"}}}), "actions.go.verb"),
        (json!({"health_check": {"timeout_ms": -1}}), "health_check.timeout_ms"),
        (json!({"cloud_init": {"user_data": "x"}}), "cloud_init.user_data"),
        (json!({"devices": {"pci_passthrough": "0000:01:00.0"}}), "devices.pci_passthrough"),
    ] {
        assert_eq!(refused(of_manifest(manifest)), format!("manifest {field}"));
    }
}

#[test]
fn refusals_of_a_configuration_name_the_field() {
    for (config, field) in [
        (json!("x"), "(document)"),
        (json!({"kernel": "/k"}), "kernel"),
        (json!({"kernel_override": "boot/k"}), "kernel_override"),
        (json!({"kernel_cmdline": "a\nb"}), "kernel_cmdline"),
        (json!({"kernel_cmdline": "x".repeat(2048)}), "kernel_cmdline"),
        (json!({"api": {"port": 7777}}), "api.port"),
        (json!({"metadata": []}), "metadata"),
        (json!({"expose": [{"port": 65536}]}), "expose[0].port"),
        (json!({"expose": [{"host_port": 80}]}), "expose[0].port"),
        (json!({"expose": [{"port": 80, "protocol": "dccp"}]}), "expose[0].protocol"),
        (json!({"expose": [{"port": 80, "host_ip": "::1"}]}), "expose[0].host_ip"),
        (json!({"expose": [{"port": 80}, {"port": 81, "host_port": 80}]}), "expose[1].host_port"),
        (json!({"restart": "sometimes"}), "restart"),
        (json!({"run_as": "a b"}), "run_as"),
        (json!({"run_as": "own"}), "run_as"),
        (json!({"args": ["-S"]}), "args"),
        (json!({"resources": {"cpu_percent": 50}}), "resources.cpu_percent"),
        (json!({"resources": {"io": {"write_mb": 1}}}), "resources.io"),
        (json!({"resources": {"cpu_percent": 0}}), "resources.cpu_percent"),
        (json!({"resources": {"memory_max_mb": 31}}), "resources.memory_max_mb"),
        (json!({"resources": {"io": {"write_mb": 0}}}), "resources.io.write_mb"),
        (json!({"resources": {"io": {"weight": 1}}}), "resources.io.weight"),
        (json!({"rng": true}), "rng"),
        (json!({"shares": [{"tag": "a", "path": "/a"}]}), "shares"),
        (json!({"shares": [{"tag": "a b", "path": "/a"}]}), "shares[0].tag"),
        (json!({"shares": [{"tag": "a", "path": "a"}]}), "shares[0].path"),
        (json!({"shares": [{"tag": "a", "path": "/a"}, {"tag": "b"}]}), "shares[1].path"),
        (
            json!({"shares": [{"tag": "a", "path": "/a"}, {"tag": "a", "path": "/b"}]}),
            "shares[1].tag",
        ),
        (json!({"resources": {"balloon": true}}), "resources.balloon"),
        (json!({"resources": {"hugepages": true}}), "resources.hugepages"),
        (
            json!({"kernel_override": "/k", "resources": {"hugepages": true, "memory_mb": 129}}),
            "resources.memory_mb",
        ),
        (json!({"ephemeral": 1}), "ephemeral"),
        (json!({"hypervisor": "a b"}), "hypervisor"),
        (json!({"manifest": {"network": {"mode": "x"}}}), "manifest.network.mode"),
        (json!({"network": {"mac": "ff:ff:ff:ff:ff:ff"}}), "network.mac"),
        (json!({"network": {"mtu": 67}}), "network.mtu"),
        (json!({"network": {"queues": 17}}), "network.queues"),
        (json!({"network": {"mode": "dhcp", "ip": "10.0.0.2"}}), "network.ip"),
        (json!({"network": {"mode": "vsock", "ip": "10.0.0.2"}}), "network.ip"),
        (json!({"network": {"mode": "vsock", "mac": "02:00:00:00:00:01"}}), "network.mac"),
        (json!({"network": {"mode": "vsock", "isolated": true}}), "network.isolated"),
    ] {
        assert_eq!(refused(of_config(config)), format!("config {field}"));
    }
}

/// Shaped after what Volant's builder writes: an entry point as text, arguments and variables
/// beside it, and the format of every file.
fn built() -> Value {
    json!({
        "schema_version": "v1",
        "name": "store",
        "version": "3.1.0",
        "runtime": "store",
        "initramfs": {
            "url": "file:///srv/store.cpio.gz",
            "format": "cpio.gz",
            "checksum": format!("sha256:{}", "c4".repeat(32))
        },
        "resources": {"cpu_cores": 2, "memory_mb": 1024},
        "workload": {"entrypoint": "/sbin/store", "args": ["--listen", "7000"]},
        "env": {"STORE_DIR": "/data"},
        "actions": {"flush": {"path": "/flush", "method": "POST"}},
        "cloud_init": {
            "datasource": "nocloud",
            "user_data": {"inline": true, "content": "#cloud-config\n"},
            "meta_data": {"instance-id": "s-1", "tags": {"tier": ["a", 1]}}
        },
        "network": {
            "mode": "bridged",
            "expose": [
                {"port": 7000, "protocol": ""},
                {"port": 7001, "protocol": "udp", "host_port": 9001}
            ]
        }
    })
}

/// Where the ports lead: the host's port and the guest's.
fn ports(spec: &VmSpec) -> Vec<(u16, u16)> {
    spec.networks[0].expose.iter().map(|port| (port.host_port, port.port)).collect()
}

#[test]
fn a_manifest_as_the_builder_writes_it() {
    let spec = of_manifest(built()).unwrap();
    assert_eq!(spec.machine.as_ref().unwrap().memory_mb, 1024);
    // A port that names none of the host's gets any: many VMs come from one manifest.
    assert_eq!(ports(&spec), [(0, 7000), (9001, 7001)]);
    for (path, wrong) in [
        ("/workload/entrypoint", json!(7)),
        ("/workload/args", json!("x")),
        ("/env/STORE_DIR", json!(1)),
        ("/cloud_init/meta_data", json!("instance-id: x")),
        ("/network/expose/1/port", json!(0)),
    ] {
        let mut manifest = built();
        *manifest.pointer_mut(path).unwrap() = wrong;
        let field = path[1..].replace("/1/", "[1]/").replace('/', ".");
        assert_eq!(refused(of_manifest(manifest)), format!("manifest {field}"));
    }
}

#[test]
fn ports_of_a_manifest_count_if_the_configuration_names_none() {
    let with = |config: Value| resolve(Some(&built()), Some(&config)).unwrap();
    let of_manifest = vec![(0, 7000), (9001, 7001)];
    assert_eq!(ports(&with(json!({"network": {"mode": "dhcp"}}))), of_manifest);
    assert_eq!(ports(&with(json!({"networks": [{}, {"name": "b"}]}))), of_manifest);
    assert_eq!(ports(&with(json!({"expose": [{"port": 80}]}))), [(80, 80)]);
    assert_eq!(ports(&with(json!({"expose": []}))), []);
    assert_eq!(ports(&with(json!({"network": {"expose": [{"port": 80}]}}))), [(80, 80)]);
    assert_eq!(ports(&with(json!({"network": {"mode": "vsock"}}))), []);
    // Volant has the ports of a VM in both places.
    let both = json!({
        "network": {"expose": [{"port": 80, "protocol": "tcp"}, {"port": 81}]},
        "expose": [{"port": 80, "name": "web"}, {"port": 82}]
    });
    assert_eq!(ports(&with(both)), [(80, 80), (81, 81), (82, 82)]);
    let elsewhere = json!({
        "network": {"expose": [{"port": 80}]}, "expose": [{"port": 81, "host_port": 80}]
    });
    assert_eq!(refused(of_config(elsewhere)), "config expose");
}

#[test]
fn a_configuration_may_stand_beside_its_version() {
    let inner = json!({"image": "store", "network": {"mtu": 1400}, "manifest": built()});
    let spec = of_config(json!({
        "version": 4, "updated_at": "2025-11-01T22:56:36.5Z", "config": inner
    }));
    let spec = spec.unwrap();
    assert_eq!(spec.networks[0].mtu, Some(1400));
    assert_eq!(spec.machine.as_ref().unwrap().cpus, 2);
    // Its next version is the same request, if nothing else has changed.
    assert_eq!(of_config(json!({"id": 1, "version": 5, "config": inner})).unwrap(), spec);
    assert_eq!(of_config(inner).unwrap(), spec);
    for (config, field) in [
        (json!({"version": "4", "config": {}}), "version"),
        (json!({"version": 4, "config": {}, "colour": 1}), "colour"),
        (json!({"version": 4, "config": {"network": {"mtu": 1}}}), "network.mtu"),
        (json!({"version": 4, "config": []}), "(document)"),
        (json!({"version": 4}), "version"),
    ] {
        assert_eq!(refused(of_config(config)), format!("config {field}"));
    }
}

#[test]
fn the_documents_are_kept_and_tell_requests_apart() {
    let spec = of_manifest(appliance()).unwrap();
    let kept: Value = serde_json::from_str(spec.manifest.as_ref().unwrap().as_str()).unwrap();
    assert_eq!(kept, appliance());
    let text = serde_json::to_string(&spec).unwrap();
    assert!(text.contains(r#""manifest":{"actions":{"#), "{text}");
    assert_eq!(serde_json::from_str::<VmSpec>(&text).unwrap(), spec);
    let mut other = appliance();
    other["workload"]["entrypoint"] = json!(["/other"]);
    assert_ne!(of_manifest(other).unwrap(), spec);
}

#[test]
fn whoever_names_an_address_is_told_the_mode_that_has_one() {
    for mode in ["dhcp", "vsock"] {
        let config = json!({"network": {"mode": mode, "ip": "10.0.0.2"}});
        let Err(Refusal::InvalidConfig { reason, .. }) = resolve(None, Some(&config)) else {
            panic!("{mode}: it is refused");
        };
        assert!(reason.contains("mode bridged"), "{mode}: {reason}");
    }
}
