//! The host as a whole through the command line: dry runs that a shell carries out, overlaps,
//! several networks, the noop backend.

mod common;

use serde_json::{Value, json};

use common::agreement::Agreement;
use common::daemon::Daemon;
use common::shown::shown;
use common::{in_namespace, link_exists, run, try_run};

fn plan_of(answer: &Value) -> String {
    let plan = answer["parameters"]["plan"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let lines: Vec<&str> = plan.iter().map(|line| line.as_str().unwrap()).collect();
    lines.join("\n")
}

fn sh(script: &str) {
    let output = std::process::Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_a_dry_run_prints_is_what_volnet_does() {
    let vm = json!({ "name": "web", "config": { "network": { "isolated": true, "mtu": 1400 } } });
    let (by_volnet, create) = in_namespace(|| {
        run("ip link set lo up");
        let daemon = Daemon::start(&["--nft-owner", "no"]);
        let mut dry = vm.clone();
        dry["dry_run"] = json!(true);
        let create = plan_of(&daemon.call("Create", dry));
        assert!(!link_exists("vttap-web"), "a dry run changes nothing");
        assert_eq!(daemon.call("List", json!({}))["parameters"]["vms"], json!([]));
        daemon.call("Create", vm.clone());
        (shown(), create)
    });
    let by_shell = in_namespace(|| {
        run("ip link set lo up");
        let daemon = Daemon::without(&[]);
        let output = daemon.volnet(&["setup", "--dry-run", "--nft-owner", "no"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let setup = String::from_utf8(output.stdout).unwrap();
        assert!(!link_exists("vbr0"), "a dry run changes nothing");
        sh(&setup);
        sh(&create);
        shown()
    });
    assert_eq!(by_volnet, by_shell);
}

/// A daemon that could not set the host up serves all the same. It makes no VM on a bridge that is
/// not its own, and says why.
#[test]
fn no_vm_is_made_on_a_host_whose_setup_failed() {
    in_namespace(|| {
        run("ip link add vbr0 type bridge");
        let daemon = Daemon::start(&[]);
        let create = |name: &str| daemon.call("Create", json!({ "name": name }));
        for answer in [create("web"), create("web")] {
            assert_eq!(answer["error"], "io.volnet.InvalidConfig", "{answer}");
            let reason = answer["parameters"]["reason"].as_str().unwrap();
            assert!(reason.contains("bridge vbr0 is not volnet's"), "{reason}");
        }
        let vsock = json!({ "name": "vs", "config": { "network": { "mode": "vsock" } } });
        assert!(daemon.call("Create", vsock)["error"].is_null(), "it needs no bridge");
        assert!(!link_exists("vttap-web"));
        run("ip link delete vbr0");
        let answer = create("web");
        assert_eq!(answer["parameters"]["vm"]["tap"], "vttap-web", "{answer}");
        assert_eq!(common::ip_link("vttap-web")["master"], "vbr0");
        assert!(daemon.call("Delete", json!({ "name": "vs" }))["error"].is_null());
    });
}

#[test]
fn setup_and_teardown_work_without_a_daemon() {
    in_namespace(|| {
        let daemon = Daemon::without(&[]);
        for _ in 0..2 {
            assert!(daemon.volnet(&["setup"]).status.success());
        }
        assert!(link_exists("vbr0"));
        assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
        assert!(daemon.volnet(&["teardown"]).status.success());
        assert!(!link_exists("vbr0"));
        assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
        assert_eq!(run("nft list ruleset").trim(), "");
    });
}

#[test]
fn an_overlap_is_refused_by_its_name_unless_forced() {
    in_namespace(|| {
        run("ip link add lan type bridge");
        run("ip addr add 192.168.127.9/25 dev lan");
        run("ip link set lan up");
        let daemon = Daemon::without(&[]);
        let refused = daemon.volnet(&["setup"]);
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1));
        assert!(words.contains("192.168.127.0/25") && words.contains("lan"), "{words}");
        assert!(!link_exists("vbr0"));
        assert!(daemon.volnet(&["setup", "--force"]).status.success());
        assert!(link_exists("vbr0"));
    });
}

#[test]
fn every_network_of_the_configuration_is_made_and_removed() {
    in_namespace(|| {
        let daemon = Daemon::configured(&json!({ "networks": [
            { "name": "default", "bridge": "vbr0", "subnet": "192.168.127.0/24" },
            { "name": "lab", "bridge": "vbr1", "subnet": "10.7.0.0/16", "host_ip": "10.7.0.1" }
        ] }));
        for (bridge, address) in [("vbr0", "192.168.127.1/24"), ("vbr1", "10.7.0.1/16")] {
            assert!(run(&format!("ip -o -4 addr show dev {bridge}")).contains(address));
        }
        for (name, network, tap) in [
            ("by-name", json!({ "name": "lab" }), "vttap-byn"),
            ("by-subnet", json!({ "subnet": "10.7.0.0/16" }), "vttap-bys"),
            ("by-gateway", json!({ "gateway": "10.7.0.1" }), "vttap-byg"),
        ] {
            let answer =
                daemon.call("Create", json!({ "name": name, "config": { "network": network } }));
            let vm = &answer["parameters"]["vm"];
            assert_eq!(vm["network"], "lab", "{answer}");
            assert!(vm["ip"].as_str().unwrap().starts_with("10.7.0."));
            assert!(vm["tap"].as_str().unwrap().starts_with(tap));
        }
        assert_eq!(run("ip -o link show master vbr1").lines().count(), 3);
        assert_eq!(daemon.call("Teardown", json!({}))["error"], "io.volnet.VmsExist");
        let answer = daemon.call("Teardown", json!({ "force": true }));
        assert!(answer["error"].is_null(), "{answer}");
        assert_eq!(run("ip -o link").lines().count(), 1, "only lo is left");
    });
}

#[test]
fn a_vm_more_than_a_bridge_has_ports_just_works() {
    in_namespace(|| {
        let daemon = Daemon::configured(&json!({ "networks": [
            { "name": "vms", "bridge": "vbr0", "subnet": "10.7.0.0/16", "bridges": 2 }
        ] }));
        let mut connection = daemon.connect();
        let mut last = Value::Null;
        for number in 0..1030 {
            let config = json!({ "ephemeral": true });
            let create = json!({ "name": format!("vm{number}"), "config": config });
            last = connection.call("Create", create);
            assert!(last["error"].is_null(), "{last}");
        }
        let vm = &last["parameters"]["vm"];
        assert_eq!(vm["network"], "vms-2", "{last}");
        assert_eq!((&vm["ip"], &vm["gateway"]), (&json!("10.7.128.8"), &json!("10.7.128.1")));
        assert_eq!(run("ip -o link show master vbr0").lines().count(), 1023);
        assert_eq!(run("ip -o link show master vbr0-2").lines().count(), 7);
        let within = run("nft list set ip volnet within");
        assert!(within.contains("\"vbr0\" . \"vbr0-2\""), "{within}");
        // What is free again is the first part's, and is found there.
        assert!(connection.call("Delete", json!({ "name": "vm7" }))["error"].is_null());
        let again = connection.call("Create", json!({ "name": "again" }));
        assert_eq!(again["parameters"]["vm"]["network"], "vms", "{again}");
        let config = json!({ "network": { "name": "vms", "ip": "10.7.200.9" } });
        let placed = connection.call("Create", json!({ "name": "placed", "config": config }));
        assert_eq!(placed["parameters"]["vm"]["network"], "vms-2", "{placed}");
        let answer = connection.call("Teardown", json!({ "force": true }));
        assert!(answer["error"].is_null(), "{answer}");
        assert_eq!(run("ip -o link").lines().count(), 1, "only lo is left");
    });
}

#[test]
fn the_noop_backend_touches_nothing() {
    in_namespace(|| {
        let before = (run("ip -o link"), run("nft list ruleset"));
        let daemon = Daemon::start(&["--backend", "noop"]);
        let answer = daemon.call("Create", json!({ "name": "web" }));
        assert_eq!(answer["parameters"]["vm"]["tap"], "vttap-web", "{answer}");
        assert_eq!(daemon.call("Version", json!({}))["parameters"]["backend"], "noop");
        assert_eq!((run("ip -o link"), run("nft list ruleset")), before);
        assert!(daemon.log().contains("WARN"), "{}", daemon.log());
        assert!(!try_run("ip link show dev vttap-web").0);
    });
}

#[test]
fn a_hypervisor_of_ones_own_is_restarted_when_it_fails() {
    in_namespace(|| {
        let daemon = Daemon::configured(&json!({ "hypervisors": { "fails": {
            "program": "sh",
            "args": [["-c", "echo {tap} {ip} {mac} {cid}; sleep 1.3; exit 3"]]
        } } }));
        let answer = daemon.call(
            "Create",
            json!({ "name": "web", "start": true, "config": {
            "hypervisor": "fails", "restart": "on-failure", "kernel_override": "/etc/hostname" } }),
        );
        assert_eq!(answer["parameters"]["vm"]["status"], "running", "{answer}");
        common::eventually("its policy starts it again", || {
            daemon.call("Get", json!({ "name": "web" }))["parameters"]["vm"]["restarts"]
                .as_u64()
                .is_some_and(|restarts| restarts >= 1)
        });
        let log = daemon.folder.join("log/web.log");
        let said = std::fs::read_to_string(log).unwrap();
        assert!(said.contains("vttap-web 192.168.127.2 02:"), "{said}");
        let answer = daemon.call("Delete", json!({ "name": "web", "timeout_ms": 1000 }));
        assert!(answer["error"].is_null(), "{answer}");
        assert!(!daemon.folder.join("run/vm/web").exists(), "its folder goes with it");
    });
}

#[test]
fn a_create_whose_hypervisor_cannot_be_executed_leaves_nothing() {
    in_namespace(|| {
        let mut daemon = Daemon::without(&[]);
        let program = daemon.folder.join("text");
        std::fs::write(&program, "not a program").unwrap();
        run(&format!("chmod 755 {}", program.display()));
        let configuration =
            json!({ "hypervisors": { "text": { "program": program, "args": [] } } });
        std::fs::write(daemon.folder.join("config.json"), configuration.to_string()).unwrap();
        daemon.start_again();
        let agreement = Agreement::with(&daemon);
        let config = json!({ "hypervisor": "text", "kernel_override": "/etc/hostname" });
        let answer = daemon.call("Create", json!({ "name": "a", "start": true, "config": config }));
        assert_eq!(answer["error"], "io.volnet.HypervisorFailed", "{answer}");
        assert_eq!(agreement.check(&daemon), [] as [Value; 0]);
    });
}
