//! The daemon end to end: the real binary on the real kernel, in its own namespace, with calls over
//! its socket. Other tools read the result back.

mod common;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::{eventually, in_namespace, ip_link, json as tool, link_exists, run};

/// What `nft` lists of our tables.
fn ruleset() -> String {
    run("nft list ruleset")
}

fn vm(answer: &Value) -> &Value {
    let vm = &answer["parameters"]["vm"];
    assert!(vm.is_object(), "{answer}");
    vm
}

fn error(answer: &Value) -> &str {
    answer["error"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

fn forwarding() -> String {
    // The test's thread has the namespace; `cat` inherits it.
    run("cat /proc/sys/net/ipv4/ip_forward").trim().to_string()
}

#[test]
fn the_host_is_set_up_and_taken_down() {
    in_namespace(|| {
        let before = forwarding();
        let daemon = Daemon::start(&[]);
        let bridge = ip_link("vbr0");
        assert_eq!(bridge["linkinfo"]["info_kind"], "bridge");
        assert!(bridge["flags"].as_array().unwrap().contains(&json!("UP")));
        let address = &tool("ip -j -4 addr show dev vbr0")[0]["addr_info"][0];
        assert_eq!(
            (&address["local"], &address["prefixlen"]),
            (&json!("192.168.127.1"), &json!(24))
        );
        assert_eq!(forwarding(), "1");
        assert!(ruleset().contains("masquerade"));

        let again = daemon.call("Setup", json!({}));
        assert_eq!(again["parameters"]["plan"], json!([]), "a second setup changes nothing");

        let answer = daemon.call("Teardown", json!({}));
        assert!(answer["parameters"]["plan"].as_array().is_some_and(|plan| !plan.is_empty()));
        assert!(!link_exists("vbr0"));
        assert_eq!(ruleset().trim(), "");
        assert_eq!(forwarding(), before);
    });
}

#[test]
fn a_name_too_long_for_its_sockets_is_refused_before_anything_is_made() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let folder = daemon.folder.join("run/vm/").display().to_string().len();
        // The longest name for a VM with a hypervisor, and for one that has vsock.
        let [longest, with_vsock] = ["/events.sock", "/vsock.sock_4294967295"]
            .map(|socket| 63.min(107 - folder - socket.len()));
        assert!(with_vsock < 63, "the folder of tests is short: {folder}");
        let sleeps = json!({ "hypervisor": "qemu", "kernel_override": "/etc/hostname" });
        let vsock = json!({ "network": { "mode": "vsock" } });
        for (config, longest) in [(sleeps, longest), (vsock, with_vsock), (json!({}), 63)] {
            let create = |length: usize| {
                let parameters = json!({ "name": "n".repeat(length), "config": config });
                daemon.call("Create", parameters)
            };
            if longest < 63 {
                let refused = create(longest + 1);
                assert_eq!(error(&refused), "io.volnet.InvalidConfig");
                assert_eq!(refused["parameters"]["field"], "runtime_dir", "{refused}");
                let reason = refused["parameters"]["reason"].as_str().unwrap();
                assert!(reason.ends_with("or a name that is 1 bytes shorter"), "{reason}");
            }
            assert!(create(longest)["error"].is_null(), "{config}");
            daemon.call("Delete", json!({ "name": "n".repeat(longest) }));
        }
    });
}

#[test]
fn a_vm_gets_its_tap_and_its_elements_and_gives_them_back() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let rules_before = ruleset().matches("accept").count();
        let answer = daemon.call("Create", json!({ "name": "web" }));
        let vm = vm(&answer);
        assert_eq!((&vm["tap"], &vm["ip"]), (&json!("vttap-web"), &json!("192.168.127.2")));
        // Behind that stand the name servers of the host, if it has some.
        let args = vm["kernel_args"].as_str().unwrap();
        let own = "ip=192.168.127.2::192.168.127.1:255.255.255.0:web:eth0:off";
        assert!(args.starts_with(own), "{args}");
        let tap = ip_link("vttap-web");
        assert_eq!(tap["master"], "vbr0");
        assert_eq!(tap["ifalias"], "volnet:web");
        assert_eq!(tap["linkinfo"]["info_data"]["vnet_hdr"], true);
        assert_eq!(tap["ifindex"], vm["ifindex"]);
        assert!(tap["flags"].as_array().unwrap().contains(&json!("UP")));
        assert_ne!(tap["address"], vm["mac"], "the tap's own address is not the guest's");
        assert!(!run("ip -4 addr show dev vttap-web").contains("inet"));
        assert!(ruleset().contains("vttap-web"));
        assert_eq!(
            ruleset().matches("accept").count(),
            rules_before,
            "VMs are elements, not rules"
        );

        assert_eq!(daemon.call("Delete", json!({ "name": "web" })), json!({ "parameters": {} }));
        assert!(!link_exists("vttap-web"));
        assert!(!ruleset().contains("vttap-web"));
        let networks = daemon.call("Networks", json!({}));
        assert_eq!(networks["parameters"]["networks"][0]["leased"], 0);
    });
}

#[test]
fn a_manifest_is_acted_on_and_the_rest_of_it_is_said() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let manifest = json!({
            "schema_version": "v1", "name": "store", "version": "3.1.0", "runtime": "store",
            "workload": { "entrypoint": "/sbin/store", "args": ["--listen", "7000"] },
            "env": { "STORE_DIR": "/data" },
            "network": {
                "mode": "bridged",
                "expose": [{ "port": 7000, "protocol": "tcp" },
                           { "port": 7001, "protocol": "udp", "host_port": 9001 }]
            }
        });
        // Two VMs of one manifest: only a port that names the host's is in the way.
        let create = |name: &str, config: Value| {
            daemon.call("Create", json!({ "name": name, "manifest": manifest, "config": config }))
        };
        let made = create("store", json!({ "image": "store" }));
        let ports = vm(&made)["expose"].as_array().unwrap();
        assert_eq!(ports.len(), 2, "{made}");
        assert_eq!((&ports[0]["port"], &ports[1]["host_port"]), (&json!(7000), &json!(9001)));
        assert!(ports[0]["host_port"].as_u64().is_some_and(|port| port >= 30_000), "{made}");
        assert!(ruleset().contains("9001"));
        let notes = made["parameters"]["notes"].as_array().unwrap();
        let about = |field: &str| notes.iter().any(|note| note.as_str().unwrap().contains(field));
        assert!(["workload: ", "env: ", "image: "].into_iter().all(about), "{made}");
        assert_eq!(
            create("store", json!({ "image": "store" }))["parameters"]["notes"],
            json!(notes)
        );
        assert_eq!(error(&create("other", json!({}))), "io.volnet.PortInUse");

        let versioned = json!({ "version": 2, "config": { "expose": [{ "port": 7000 }] } });
        let made = create("other", versioned);
        assert_eq!(vm(&made)["expose"][0]["host_port"], 7000);
        assert_eq!(vm(&made)["expose"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn five_similar_names_get_five_taps() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let long = "a".repeat(59);
        let names =
            ["web-1".into(), "web1".into(), "WEB_1".into(), format!("{long}1"), format!("{long}2")];
        let taps: std::collections::BTreeSet<String> = names
            .iter()
            .map(|name| vm(&daemon.call("Create", json!({ "name": name })))["tap"].to_string())
            .collect();
        assert_eq!(taps.len(), 5);
        let ports = tool("ip -j link show master vbr0");
        assert_eq!(ports.as_array().unwrap().len(), 5);
    });
}

#[test]
fn bad_input_is_answered_and_changes_nothing() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let (links, rules) = (run("ip link"), ruleset());
        let long = "x".repeat(64);
        let network = |network: Value| json!({ "name": "web", "config": { "network": network } });
        for (parameters, name) in [
            (json!({ "name": long }), "io.volnet.InvalidName"),
            (json!({ "name": "../x" }), "io.volnet.InvalidName"),
            (json!({ "name": "" }), "io.volnet.InvalidName"),
            (json!({ "name": "web", "nome": 1 }), "org.varlink.service.InvalidParameter"),
            (json!({ "name": "web", "config": { "netwrk": {} } }), "io.volnet.InvalidConfig"),
            (network(json!({ "mode": "bridge" })), "io.volnet.InvalidConfig"),
            (network(json!({ "ip": "10.0.0.1" })), "io.volnet.InvalidConfig"),
            (network(json!({ "ip": "192.168.127.1" })), "io.volnet.AddressInUse"),
            (network(json!({ "name": "other" })), "io.volnet.InvalidConfig"),
        ] {
            let answer = daemon.call("Create", parameters);
            assert_eq!(error(&answer), name, "{answer}");
        }
        assert_eq!(error(&daemon.call("Nope", json!({}))), "org.varlink.service.MethodNotFound");
        assert_eq!(error(&daemon.call("Get", json!({ "name": "web" }))), "io.volnet.VmNotFound");
        assert_eq!((run("ip link"), ruleset()), (links, rules));
        assert_eq!(daemon.call("List", json!({}))["parameters"]["vms"], json!([]));
    });
}

#[test]
fn broken_messages_end_their_connection_and_nothing_else() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let huge = format!("{{\"method\":\"{}", "x".repeat(1024 * 1024));
        let deep = "{\"a\":".repeat(40);
        for broken in
            [huge.as_bytes(), deep.as_bytes(), b"\x80\xff\x00\x01binary", b"GET / HTTP/1.1\r\n\r\n"]
        {
            let mut connection = daemon.connect();
            connection.send(broken);
            let answer = connection.receive().unwrap();
            assert_eq!(error(&answer), "io.volnet.InvalidMessage");
            assert!(connection.try_receive().is_none(), "the connection ends");
        }
        let mut quiet = daemon.connect();
        quiet.send(b"{\"method\":\"org.varlink.service.GetInfo\",\"oneway\":true}\n");
        quiet.send(b"{\"method\":\"io.volnet.Fly\",\"oneway\":true}\n");
        quiet.send(b"{\"method\":\"io.volnet.List\"}\n");
        assert!(quiet.receive().unwrap()["parameters"]["vms"].is_array());
        let mut half = daemon.connect();
        half.send(b"{\"method\":\"io.volnet.Li");
        assert!(daemon.call("List", json!({}))["parameters"]["vms"].is_array());
        half.send(b"st\"}\n");
        assert!(half.receive().unwrap()["parameters"]["vms"].is_array());
    });
}

#[test]
fn a_connection_ends_its_replies_as_the_client_ends_its_requests() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let mut pretty = daemon.connect();
        pretty
            .send(b"{\n  \"method\": \"io.volnet.List\"\n}\n{\"method\":\"io.volnet.Version\"}\n");
        assert!(pretty.receive().unwrap()["parameters"]["vms"].is_array());
        assert!(pretty.receive().unwrap()["parameters"]["version"].is_string());
        let mut varlink = daemon.connect();
        varlink.send(b"{\"method\":\"org.varlink.service.GetInfo\"}\0");
        assert!(varlink.receive_until(0).contains("io.volnet"));
    });
}

#[test]
fn a_name_that_a_foreign_link_has_fails_and_leaves_nothing() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        run("ip tuntap add dev vttap-web mode tap");
        let (links, rules) = (run("ip -o link"), ruleset());
        let answer = daemon.call("Create", json!({ "name": "web" }));
        assert_eq!(error(&answer), "io.volnet.KernelRefused", "{answer}");
        let parameters = &answer["parameters"];
        assert_eq!(parameters["object"], "vttap-web");
        assert!(parameters["errno"].as_i64().unwrap() > 0);
        assert!(!parameters["message"].as_str().unwrap().is_empty());
        assert_eq!((run("ip -o link"), ruleset()), (links, rules));
        assert_eq!(daemon.call("List", json!({}))["parameters"]["vms"], json!([]));
    });
}

#[test]
fn vms_survive_the_daemon() {
    in_namespace(|| {
        let mut daemon = Daemon::start(&[]);
        daemon.call("Create", json!({ "name": "durable" }));
        daemon.call("Create", json!({ "name": "passing", "config": { "ephemeral": true } }));
        let before = daemon.call("List", json!({}));
        let index = ip_link("vttap-durable")["ifindex"].clone();
        daemon.crash();
        assert!(link_exists("vttap-durable"));
        daemon.start_again();
        assert_eq!(daemon.call("List", json!({})), before);
        assert_eq!(ip_link("vttap-durable")["ifindex"], index, "the tap was not made anew");
        daemon.stop();
        run("ip link del vttap-durable");
        run("ip link del vbr0");
        daemon.start_again();
        assert_eq!(ip_link("vttap-durable")["master"], "vbr0", "what was lost is made again");
    });
}

#[test]
fn a_hypervisor_that_fails_at_once_says_why_and_leaves_nothing() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let parameters = json!({ "name": "web", "start": true, "config": {
            "hypervisor": "qemu", "kernel_override": "/etc/hostname",
            "resources": { "cpu_cores": 1, "memory_mb": 64 } } });
        let answer = daemon.call("Create", parameters);
        assert_eq!(error(&answer), "io.volnet.HypervisorFailed", "{answer}");
        assert!(
            answer["parameters"]["log"].as_str().is_some_and(|log| !log.is_empty()),
            "{answer}"
        );
        eventually("the VM is gone", || {
            daemon.call("List", json!({}))["parameters"]["vms"] == json!([])
        });
        assert!(!link_exists("vttap-web"));
    });
}

#[test]
fn a_disk_for_cloud_init_is_made_for_each_start_and_goes_with_the_vm() {
    in_namespace(|| {
        let plain =
            json!({ "program": "sleep", "args": [["100000"], ["{disk}", "{disk_readonly}"]] });
        // `sleep` takes no other words than numbers.
        let other = json!({ "program": "sh", "args": [["-c", "exec sleep 100000"], ["{disk}"]] });
        let mut daemon =
            Daemon::configured(&json!({ "hypervisors": { "plain": other, "no": plain } }));
        let config = |hypervisor: &str, text: &str| {
            json!({ "hypervisor": hypervisor, "kernel_override": "/etc/hostname",
                    "cloud_init": { "user_data": { "content": text } } })
        };
        let start = |daemon: &Daemon, name: &str, config: Value| {
            daemon.call("Create", json!({ "name": name, "start": true, "config": config }))
        };
        let text = "x".repeat(30_000);
        let made = start(&daemon, "web", config("plain", &text));
        assert_eq!(vm(&made)["status"], "running");
        assert_eq!(made["parameters"]["notes"], Value::Null);
        let folder = daemon.folder.join("run/vm/web");
        let seed = folder.join("seed.img").to_str().unwrap().to_owned();
        let command = std::fs::read_to_string(format!("/proc/{}/cmdline", vm(&made)["pid"]));
        assert!(command.unwrap().contains("sleep"));
        assert!(run(&format!("blkid -p {seed}")).contains("LABEL=\"CIDATA\""));
        // The label counts.
        assert!(run(&format!("fsck.vfat -n {seed}")).contains("4 files, "));
        let first = std::fs::read(&seed).unwrap();

        // The next daemon finds it beside the process. It ends with the process, and each start
        // makes the same again.
        daemon.crash();
        daemon.start_again();
        assert_eq!(std::fs::read(&seed).unwrap(), first);
        daemon.call("Stop", json!({ "name": "web" }));
        assert!(!folder.exists());
        daemon.call("Start", json!({ "name": "web" }));
        assert_eq!(std::fs::read(&seed).unwrap(), first);

        // A VM of the same name is another one.
        daemon.call("Delete", json!({ "name": "web" }));
        assert!(!folder.exists());
        start(&daemon, "web", config("plain", &text));
        assert_ne!(std::fs::read(&seed).unwrap(), first);
        daemon.call("Delete", json!({ "name": "web" }));

        let failed = start(&daemon, "fails", config("no", "#cloud-config"));
        assert_eq!(error(&failed), "io.volnet.HypervisorFailed", "{failed}");
        eventually("nothing is left", || !daemon.folder.join("run/vm/fails").exists());
    });
}

#[test]
fn subscribers_see_what_happens() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let mut monitor = daemon.connect();
        monitor.send(b"{\"method\":\"io.volnet.Monitor\",\"more\":true}\n");
        let first = monitor.receive().unwrap();
        assert_eq!((&first["parameters"]["vms"], &first["continues"]), (&json!([]), &json!(true)));
        daemon.call("Create", json!({ "name": "web" }));
        daemon.call("Delete", json!({ "name": "web" }));
        let kinds: Vec<Value> = (0..2)
            .map(|_| monitor.receive().unwrap()["parameters"]["event"]["kind"].clone())
            .collect();
        assert_eq!(kinds, [json!("vm_created"), json!("vm_deleted")]);
    });
}

#[test]
fn a_second_daemon_is_refused_with_the_holders_pid() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let second = daemon.volnet(&["serve"]);
        assert_eq!(second.status.code(), Some(1));
        let words = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(words.contains(&daemon.pid().to_string()), "{words}");
        assert!(daemon.call("List", json!({}))["parameters"]["vms"].is_array());
    });
}

#[test]
fn a_subscriber_that_was_too_slow_is_told_so_and_gets_the_state() {
    /// Enough for all that the daemon and the kernel keep for a subscriber.
    const PAIRS: usize = 4000;
    in_namespace(|| {
        let daemon = Daemon::start(&["--backend", "noop"]);
        let mut monitor = daemon.connect();
        monitor.send(b"{\"method\":\"io.volnet.Monitor\",\"more\":true}\n");
        assert!(monitor.receive().unwrap()["parameters"]["vms"].is_array());
        let mut other = daemon.connect();
        for _ in 0..PAIRS {
            let config = json!({ "ephemeral": true, "network": { "mode": "vsock" } });
            other.call("Create", json!({ "name": "comes", "config": config }));
            other.call("Delete", json!({ "name": "comes" }));
        }
        other.call("Create", json!({ "name": "stays" }));
        let mut seen = 0;
        let resync = loop {
            let event = monitor.receive().unwrap()["parameters"]["event"].take();
            if event["kind"] == "resync" {
                break event;
            }
            seen += 1;
            assert_eq!(event["sequence"], seen, "none is missing before");
        };
        assert!(seen < 2 * PAIRS, "some were lost: {seen} came");
        let state = monitor.receive().unwrap();
        assert_eq!(state["parameters"]["vms"][0]["name"], "stays", "{state}");
        other.call("Delete", json!({ "name": "stays" }));
        let next = monitor.receive().unwrap()["parameters"]["event"].take();
        assert_eq!(next["kind"], "vm_deleted", "{next}");
        assert_eq!(next["sequence"].as_u64(), resync["sequence"].as_u64().map(|at| at + 1));
    });
}
