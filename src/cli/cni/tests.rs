use super::*;

fn conf(value: Value) -> Conf {
    Conf::read(value.to_string().as_bytes()).expect("a configuration")
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    let pairs = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    Environment(pairs.collect())
}

#[test]
fn what_engines_write_is_understood_whatever_its_case() {
    let containerd = conf(json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "volnet", "network": "lab",
        "capabilities": {"portMappings": true, "bandwidth": true},
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.3.0/24"}]]},
        "runtimeConfig": {
            "portMappings": [
                {"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""},
                {"HostPort": 0, "ContainerPort": 81, "Protocol": "tcp", "HostIP": ""}
            ],
            "bandwidth": {
                "IngressRate": 10_000_001, "IngressBurst": 4_294_967_295_u64,
                "EgressRate": 0, "EgressBurst": 0
            },
            "dns": {"Servers": ["192.0.2.1"], "Searches": ["example"], "Options": []}
        }
    }));
    let none = Environment::default();
    assert_eq!(
        conf::vm(&containerd, &none).unwrap(),
        json!({
            "network": {"name": "lab", "subnet": "10.244.3.0/24", "limits": {"rx_mbit": 11}},
            "expose": [{"protocol": "tcp", "port": 80, "host_port": 8080}]
        })
    );
    assert_eq!(
        conf::dns(&containerd).unwrap(),
        json!({"nameservers": ["192.0.2.1"], "search": ["example"], "options": []})
    );
    // podman says the same in its environment.
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;IP=10.88.0.77;\
                MAC=02:00:00:00:00:07";
    let podman = environment(&[("CNI_ARGS", args)]);
    let plain = conf(json!({"cniVersion": "0.4.0", "name": "pods", "type": "volnet"}));
    assert_eq!(
        conf::vm(&plain, &podman).unwrap()["network"],
        json!({"ip": "10.88.0.77", "mac": "02:00:00:00:00:07"})
    );
    assert_eq!(labels(&podman.args().unwrap())["pod"], "default/web");
    // A network with IPv6 alone is known by its name.
    let fields = json!({"cniVersion": "0.4.0", "name": "pods", "type": "volnet",
        "subnet": "fd00:1::/64", "runtimeConfig": {"ips": ["fd00:1::5/64"]}});
    assert_eq!(
        conf::vm(&conf(fields), &none).unwrap()["network"],
        json!({"name": "pods", "ip6": "fd00:1::5"})
    );
    // What a capability says wins.
    let both = conf(json!({
        "cniVersion": "0.4.0", "name": "pods", "type": "volnet",
        "runtimeConfig": {"ips": ["10.88.0.5/16", "fd00::5/64"], "mac": "02:00:00:00:00:05",
            "bandwidth": {"egressRate": 1, "egressBurst": 8_388_608}}
    }));
    assert_eq!(
        conf::vm(&both, &podman).unwrap()["network"],
        json!({"ip": "10.88.0.5", "ip6": "fd00::5", "mac": "02:00:00:00:00:05",
            "limits": {"tx_mbit": 1, "burst_kb": 1024}})
    );
}

/// The container would be on another network than its configuration says.
#[test]
fn an_empty_subnet_hides_no_range_and_a_range_has_one() {
    let none = Environment::default();
    let vm = |fields: Value| {
        let mut all = json!({"cniVersion": "1.1.0", "name": "pods", "type": "volnet"});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        conf::vm(&conf(all), &none)
    };
    let ranges = json!([[{"subnet": "10.22.0.0/16"}]]);
    for fields in [
        json!({"subnet": "", "ipam": {"ranges": ranges}}),
        json!({"ipam": {"subnet": "", "ranges": ranges}}),
        json!({"ipam": {"subnet": ""}, "runtimeConfig": {"ipRanges": ranges}}),
    ] {
        assert_eq!(vm(fields).unwrap()["network"], json!({"subnet": "10.22.0.0/16"}));
    }
    for range in [json!({}), json!({"subnet": ""}), json!({"rangeStart": "10.22.0.9"})] {
        let refused = vm(json!({"ipam": {"ranges": [[range]]}})).unwrap_err();
        assert_eq!((refused.code, refused.message.contains("no subnet")), (DECODING, true));
    }
}

#[test]
fn what_would_be_a_lie_is_refused_with_its_key() {
    for (field, value) in [
        ("promiscMode", json!(true)),
        ("vlan", json!(7)),
        ("ipam", json!({"type": "dhcp"})),
        ("attach", json!("macvtap")),
        ("colour", json!("red")),
        ("runtimeConfig", json!({"deviceID": "0000:00:01.0"})),
        ("runtimeConfig", json!({"ips": ["10.0.0.1", "10.0.0.2"]})),
        ("runtimeConfig", json!({"ips": ["fd00::1", "fd00::2"]})),
        (
            "runtimeConfig",
            json!({"portMappings": [
            {"hostPort": 1, "containerPort": 2, "hostIP": "127.0.0.1"}]}),
        ),
    ] {
        let mut fields = json!({"cniVersion": "1.1.0", "name": "pods", "type": "volnet"});
        fields[field] = value;
        let error = conf::vm(&conf(fields.clone()), &Environment::default()).expect_err("refused");
        assert_eq!(error.code, error::UNSUPPORTED, "{fields}: {error:?}");
    }
    // What has not the form of a port, or of an address, is not passed over.
    for runtime in [
        json!({"portMappings": "80"}),
        json!({"portMappings": ["80:80"]}),
        json!({"portMappings": [{"hostPort": "80", "containerPort": 80}]}),
        json!({"portMappings": [{"hostPort": 65_536, "containerPort": 80}]}),
        json!({"portMappings": [{"hostPort": -1, "containerPort": 80}]}),
        json!({"portMappings": [{"hostPort": 80, "containerPort": 80.5}]}),
        json!({"portMappings": [{"hostPort": 80}]}),
        json!({"portMappings": [{"hostPort": 80, "containerPort": 0}]}),
        json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": 6}]}),
        json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]}),
        json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": 7}]}),
        json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "web"}]}),
        json!({"portMappings": [{"hostPort": 0, "containerPort": 80, "protocol": "icmp"}]}),
        json!({"ips": "10.88.0.5"}),
        json!({"ips": [7]}),
    ] {
        let fields = json!({"cniVersion": "1.1.0", "name": "pods", "type": "volnet",
            "runtimeConfig": runtime});
        let error = conf::vm(&conf(fields.clone()), &Environment::default()).expect_err("refused");
        assert_eq!(error.code, error::DECODING, "{fields}: {error:?}");
    }
    let off = json!({"cniVersion": "1.1.0", "name": "pods", "type": "volnet", "bridge": "cni0",
        "hairpinMode": false, "vlan": 0, "isGateway": true, "ipMasq": true, "mtu": 0,
        "cni.dev/valid-attachments": []});
    conf::vm(&conf(off), &Environment::default()).unwrap();
}

#[test]
fn a_network_is_described_by_the_keys_of_bridge_and_host_local() {
    let described = |fields: Value| {
        let mut all = json!({"cniVersion": "1.0.0", "name": "pods", "type": "volnet"});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        network::document(&conf(all)).map_err(|error| error.code)
    };
    let own = json!({"name": "pods", "subnet": "10.1.0.0/24", "nat": true, "dhcp": "builtin"});
    assert_eq!(described(json!({"subnet": "10.1.0.0/24"})), Ok(Some(own)));
    let dual = json!({"ipMasq": true, "bridge": "", "mtu": 0, "network": "lab", "ipam": {
        "type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.9"}],
            [{"subnet": "2001:db8:1::/64"}]]}});
    let wanted = json!({"name": "lab", "subnet": "10.1.0.0/24", "nat": true, "dhcp": "builtin",
        "range": "10.1.0.1-10.1.0.9", "ipv6": {"prefix": "2001:db8:1::/64", "nat": true}});
    assert_eq!(described(dual), Ok(Some(wanted)));
    let six = json!({"name": "pods", "subnet": null,
        "ipv6": {"prefix": "2001:db8:1::/64", "nat": false}});
    let ranges = json!({"ipam": {"ranges":
        [[{"subnet": "2001:db8:1::/64", "gateway": "2001:db8:1:0::1"}]]}});
    assert_eq!(described(ranges), Ok(Some(six.clone())));
    let mut own = six;
    own["ipv6"]["nat"] = json!(true);
    assert_eq!(described(json!({"subnet": "2001:db8:1::/64"})), Ok(Some(own)));
    for key in ["services", "hairpinMode"] {
        let fields = json!({"subnet": "10.1.0.0/24", key: true});
        assert_eq!(described(fields).unwrap().expect("a network")["services"], true);
        assert_eq!(described(json!({ key: true })), Err(error::UNSUPPORTED), "there is no subnet");
        assert_eq!(described(json!({ key: false })), Ok(None));
    }
    // bridge masquerades nothing unless it is told to.
    let plain = json!({"ipam": {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.5"}});
    let wanted = json!({"name": "pods", "subnet": "10.1.0.0/24", "nat": false, "dhcp": "builtin",
        "range": "10.1.0.5-10.1.0.254"});
    assert_eq!(described(plain), Ok(Some(wanted)));
    assert_eq!(described(json!({})), Ok(None));
    for (fields, code) in [
        (json!({"peers": ["10.0.0.0/8"]}), error::UNSUPPORTED),
        (
            json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "2001:db8:1::/64",
            "rangeStart": "2001:db8:1::9"}]]}}),
            error::UNSUPPORTED,
        ),
        (
            json!({"ipam": {"ranges": [[{"subnet": "2001:db8:1::/64",
            "gateway": "2001:db8:1::9"}]]}}),
            error::UNSUPPORTED,
        ),
        (json!({"ipam": {"ranges": 7}}), error::DECODING),
        (json!({"ipam": {"subnet": "x", "rangeStart": "10.1.0.5"}}), error::DECODING),
    ] {
        assert_eq!(described(fields.clone()), Err(code), "{fields}");
    }
}

#[test]
fn verbs_have_their_versions_and_names_their_form() {
    for (version, least, code) in [
        ("0.2.0", "0.3.0", Some(error::VERSION)),
        ("0.3.0", "0.4.0", Some(error::VERSION)),
        ("1.0.0", "1.1.0", Some(error::VERSION)),
        ("2.0.0", "0.3.0", Some(error::VERSION)),
        ("0.3.1", "0.3.0", None),
        ("1.1.0", "1.1.0", None),
    ] {
        let conf = conf(json!({"cniVersion": version, "name": "pods"}));
        assert_eq!(conf.check_version(least).err().map(|error| error.code), code, "{version}");
    }
    let pods = conf(json!({"cniVersion": "1.1.0", "name": "pods"}));
    for (id, ifname) in [("", "eth0"), ("-", "eth0"), ("c", ""), ("c", "a/b"), ("c", "..")] {
        let environment = environment(&[("CNI_CONTAINERID", id), ("CNI_IFNAME", ifname)]);
        let error = environment.attachment(&pods).expect_err("refused");
        assert_eq!(error.code, ENVIRONMENT, "{id} {ifname}");
    }
    for input in ["", "[]", "{\"name\": 7}", "{\"cniVersion\": \"1.1.0\""] {
        assert_eq!(Conf::read(input.as_bytes()).expect_err("refused").code, error::DECODING);
    }
    let endless = read(std::io::repeat(b' ')).expect_err("refused");
    assert_eq!(endless.code, INPUT);
    let odd = environment(&[("CNI_ARGS", "IP")]).args().map(drop);
    assert_eq!(odd.expect_err("refused").code, ENVIRONMENT);
}

#[test]
fn a_result_has_the_form_of_its_version() {
    let attached = json!({
        "bridge": "vbr0", "bridge_mac": "02:00:00:00:00:fe", "host_mac": "fe:e3:a3:62:9a:78",
        "gateway6": null,
        "vm": {"ip": "10.77.0.2", "netmask": "255.255.255.248", "gateway": "10.77.0.1",
            "mac": "02:e3:a3:62:9a:78", "mtu": 1500, "tap": "vttap-x", "ip6": null,
            "attachment": {"ifname": "eth0", "netns": "/run/netns/a"}}
    });
    let attached = attached.as_object().unwrap();
    let newest = result::of(attached, "1.1.0", json!({}));
    assert_eq!(
        newest,
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "vbr0", "mac": "02:00:00:00:00:fe", "mtu": 1500},
                {"name": "vttap-x", "mac": "fe:e3:a3:62:9a:78", "mtu": 1500},
                {"name": "eth0", "mac": "02:e3:a3:62:9a:78", "mtu": 1500,
                    "sandbox": "/run/netns/a"}
            ],
            "ips": [{"address": "10.77.0.2/29", "gateway": "10.77.0.1", "interface": 2}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.77.0.1"}],
            "dns": {}
        })
    );
    assert_eq!(result::of(attached, "1.0.0", json!({}))["interfaces"][0].get("mtu"), None);
    assert_eq!(result::of(attached, "0.4.0", json!({}))["ips"][0]["version"], "4");
    let mut guest = attached.clone();
    guest["vm"]["attachment"] = json!({
        "container": "vm1", "ifname": "eth0", "netns": "/run/netns/a", "tap": "tap0"
    });
    let guest = result::of(&guest, "1.1.0", json!({}));
    assert_eq!(
        (&guest["interfaces"][3], &guest["interfaces"][4]),
        (
            &json!({"name": "tap0", "mtu": 1500, "sandbox": "/run/netns/a"}),
            &json!({"name": "tap0", "mac": "02:e3:a3:62:9a:78", "mtu": 1500, "sandbox": "vm1"})
        )
    );
    assert_eq!(guest["ips"][1]["interface"], 4);
    let mut host = attached.clone();
    host["vm"]["attachment"] = json!({
        "container": "vm1", "ifname": "eth0", "netns": "/proc/1/ns/net", "host": true
    });
    (host["vm"]["ip6"], host["gateway6"]) = (json!("fd00::2"), json!("fd00::1"));
    let host = result::of(&host, "1.1.0", json!({}));
    assert_eq!(
        (&host["interfaces"][1], &host["interfaces"][2]),
        (
            &json!({"name": "vttap-x", "mac": "fe:e3:a3:62:9a:78", "mtu": 1500,
                "sandbox": "/proc/1/ns/net"}),
            &json!({"name": "vttap-x", "mac": "02:e3:a3:62:9a:78", "mtu": 1500, "sandbox": "vm1"})
        )
    );
    assert_eq!(
        (host["ips"].as_array().map(Vec::len), &host["ips"][0]["interface"]),
        (Some(1), &json!(2))
    );
    let mut both = attached.clone();
    both["vm"]["ip6"] = json!("fd00::2");
    both["gateway6"] = json!("fd00::1");
    let mut alone = both.clone();
    (alone["vm"]["ip"], alone["vm"]["gateway"]) = (Value::Null, Value::Null);
    let [both, alone] = [both, alone].map(|attached| result::of(&attached, "1.1.0", json!({})));
    assert_eq!(both["ips"][1]["address"], "fd00::2/64");
    assert_eq!(both["routes"][1], json!({"dst": "::/0", "gw": "fd00::1"}));
    let parts = ["ips", "routes"].map(|part| alone[part].as_array().expect("a list"));
    assert_eq!(parts.map(Vec::len), [1, 1]);
    assert_eq!((&parts[0][0], &parts[1][0]), (&both["ips"][1], &both["routes"][1]));
}
