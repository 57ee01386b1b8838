//! Container engines as Debian packs them, with volnet as their plugin: containerd by `ctr` and by
//! the interface that Kubernetes uses (CRI), and podman. Containers are reached and reach, and in
//! the end nothing is left. Each test is a machine of its own.

#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
mod containerd;
mod machine;
mod podman;

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use common::space::WORLD_IP;
use common::{eventually, in_namespace, ip_link, run};
use containerd::{Cri, pod};
use machine::{IMAGE, Machine, SERVE};
use podman::Podman;

/// A name of a container that no other test has, in `ctr` also that of its control group.
fn name(machine: &Machine, short: &str) -> String {
    let folder = machine.daemon.folder.file_name().expect("a name").to_string_lossy();
    format!("{short}-{}", folder.trim_start_matches("volnet-test-"))
}

#[test]
fn ctr_runs_containers() {
    in_namespace(|| {
        let machine = Machine::new();
        containerd::start(&machine, None);
        containerd::import(&machine, "default");
        let (a, b) = (name(&machine, "a"), name(&machine, "b"));
        machine.run(&format!("ctr run -d --cni {IMAGE} {a}"));
        let vm = machine.vm();
        assert_eq!(vm["name"], format!("default-{a}.eth0"));
        let ip = vm["ip"].as_str().expect("an address");
        // This one ends by itself, and DEL comes with no namespace.
        for address in [ip, "192.168.127.1", WORLD_IP] {
            let ping = format!("busybox ping -c 1 -W 5 -q {address}");
            machine.run(&format!("ctr run --rm --cni {IMAGE} {b} {ping}"));
            assert_eq!(machine.vms().len(), 1);
        }
        // It is killed, and nobody says DEL.
        machine.run(&format!("ctr task rm -f {a}"));
        machine.expect_clean();
        assert!(machine.daemon.log().contains("its link is gone, or its network namespace"));
    });
}

#[test]
fn a_plugin_that_is_killed_leaves_nothing() {
    in_namespace(|| {
        let machine = Machine::new();
        machine.kill_plugins();
        containerd::start(&machine, None);
        containerd::import(&machine, "default");
        let mut ended = BTreeSet::new();
        for round in 0..12 {
            machine.plugins_live(Duration::from_millis(round));
            let container = name(&machine, &format!("c{round}"));
            let run = format!("ctr run --rm --cni {IMAGE} {container} busybox true");
            ended.insert(machine.try_run(&run).0);
            machine.try_run(&format!("ctr task rm -f {container}"));
            machine.expect_clean();
        }
        machine.plugins_live(Duration::from_secs(60));
        machine.run(&format!("ctr run --rm --cni {IMAGE} {} busybox true", name(&machine, "last")));
        machine.expect_clean();
        assert!(ended.contains(&false), "one was killed before it was done");
    });
}

/// The file with the number of a process of ctr in the room.
const CTR_PID: &str = "/run/ctr.pid";

/// It calls the plugin itself, and leaves the task that it has begun.
#[test]
fn ctr_that_is_killed_leaves_nothing() {
    in_namespace(|| {
        let machine = Machine::new();
        containerd::start(&machine, None);
        containerd::import(&machine, "default");
        let mut ended = BTreeSet::new();
        for round in 0..8 {
            let container = name(&machine, &format!("k{round}"));
            let script = format!(
                "ctr run --rm --cni {IMAGE} {container} busybox sleep 1000000 >/dev/null 2>&1 & \
                 echo $! >{CTR_PID}"
            );
            let mut sh = machine.command("sh");
            let begun = sh.args(["-c", &script]).stdin(Stdio::null()).status();
            assert!(begun.expect("nsenter starts").success());
            // Once in a while before it, and else at some moment after it has a network.
            let pause = Duration::from_millis(20 * round);
            match round % 4 {
                0 => std::thread::sleep(pause),
                _ => eventually("it has a network", || !machine.vms().is_empty()),
            }
            ended.insert(machine.vms().len());
            let pid = fs::read_to_string(CTR_PID).expect("it was started");
            machine.run(&format!("kill -9 {}", pid.trim()));
            // As people do who find it there.
            let task = format!("ctr task rm -f {container}");
            eventually("there is no task", || {
                machine.try_run(&task);
                !machine.run("ctr task ls -q").contains(&container)
            });
            machine.try_run(&format!("ctr container rm {container}"));
            machine.expect_clean();
        }
        assert!(ended.contains(&1), "one was killed when it had a network");
        machine.run(&format!("ctr run --rm --cni {IMAGE} {} busybox true", name(&machine, "last")));
        machine.expect_clean();
    });
}

#[test]
fn kubernetes_runs_pods() {
    in_namespace(|| {
        let machine = Machine::new();
        // The engine makes the configuration, when it is told of the addresses of pods.
        let template = machine.daemon.folder.join("template");
        let mut conf = machine.take_configuration();
        conf["plugins"][0]["subnet"] = "{{.PodCIDR}}".into();
        fs::write(&template, conf.to_string()).expect("a template");
        containerd::start(&machine, Some(&template));
        containerd::import(&machine, "k8s.io");
        let mut cri = Cri::new(&machine);
        let is_ready = |cri: &mut Cri| {
            let status = cri.call("Status", json!({}));
            let conditions = status["status"]["conditions"].as_array().expect("a list").clone();
            conditions.iter().all(|condition| condition["status"] == true)
        };
        assert!(!is_ready(&mut cri), "there is no network yet");
        let given = json!({"network_config": {"pod_cidr": "192.168.127.0/24"}});
        cri.call("UpdateRuntimeConfig", json!({ "runtime_config": given }));
        eventually("there is a network", || is_ready(&mut cri));

        let mut web = pod("web");
        web["port_mappings"] = json!([{"container_port": 80, "host_port": 8080}]);
        web["annotations"] = json!({
            "kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "20M"
        });
        web["dns_config"] = json!({"servers": ["192.0.2.53"], "searches": ["example"]});
        let id = cri.start_pod(&web);
        let vm = machine.vm();
        assert_eq!(vm["attachment"]["labels"]["pod"], "default/web");
        assert_eq!(vm["attachment"]["container"], id);
        let status = cri.call("PodSandboxStatus", json!({ "pod_sandbox_id": id }));
        assert_eq!(status["status"]["network"]["ip"], vm["ip"]);
        // The engine gives a burst that means none, and the limit has one of its own.
        let tap = vm["tap"].as_str().expect("a link");
        let shaped = run(&format!("tc qdisc show dev {tap} root"));
        assert!(shaped.contains("tbf 766f: ") && shaped.contains("rate 10Mbit"), "{shaped}");
        assert_eq!(ip_link(tap)["master"], "vbr0");
        let container = cri.serve(&id, &web);
        eventually("it is served", || machine.is_served(8080));
        for address in ["192.168.127.1", WORLD_IP] {
            assert!(
                cri.can(&container, &format!("busybox ping -c 1 -W 5 -q {address}")),
                "{address}"
            );
        }
        cri.remove(&[id.into()]);
        assert!(!machine.is_served(8080));
        machine.expect_clean();
    });
}

#[test]
fn podman_runs_containers() {
    in_namespace(|| {
        let machine = Machine::new();
        let podman = Podman::new(&machine);
        let place = "pods:ip=192.168.127.77,mac=02:00:00:00:00:77";
        let serve = SERVE.join(" ");
        podman.run(&format!("run -d --name a -p 8081:80 --network {place} {IMAGE} {serve}"));
        let vm = machine.vm();
        assert_eq!(
            (&vm["ip"], &vm["mac"]),
            (&json!("192.168.127.77"), &json!("02:00:00:00:00:77"))
        );
        eventually("it is served", || machine.is_served(8081));
        for address in ["192.168.127.1", WORLD_IP] {
            podman.run(&format!("exec a busybox ping -c 1 -W 5 -q {address}"));
        }
        // An address that somebody has is refused, and nothing is left of the attempt.
        let (done, said) =
            podman.try_run(&format!("run -d --name b --network pods:ip=192.168.127.77 {IMAGE}"));
        assert!(!done && said.contains("address 192.168.127.77 belongs to"), "{said}");
        assert_eq!(machine.vms().len(), 1);
        // It leaves the network and comes back.
        podman.run("network disconnect pods a");
        assert_eq!(machine.vms().len(), 0);
        podman.run("network connect pods a");
        assert_eq!(machine.vms().len(), 1);
        // podman listens on the port itself, so that nobody else takes it.
        eventually("it is served again", || machine.is_served(8081));
        podman.run("rm -f -t 0 a b");
        machine.expect_clean();
    });
}

/// What pods of these names are asked for with.
fn pods(names: impl Iterator<Item = String>) -> Vec<Value> {
    names.map(|name| json!({ "config": pod(&name) })).collect()
}

#[test]
fn fifty_pods_start_at_once_and_a_reboot_ends_them() {
    in_namespace(|| {
        let mut machine = Machine::new();
        containerd::start(&machine, None);
        containerd::import(&machine, "k8s.io");
        let mut cri = Cri::new(&machine);
        for answer in cri.call_all("RunPodSandbox", &pods((0..50).map(|n| format!("p{n}")))) {
            assert!(answer["error"].is_null(), "{answer}");
        }
        let vms = machine.vms();
        let addresses: BTreeSet<&str> = vms.iter().filter_map(|vm| vm["ip"].as_str()).collect();
        assert_eq!((vms.len(), addresses.len()), (50, 50));
        for address in addresses {
            run(&format!("ping -c 1 -W 5 -q {address}"));
        }
        let mut ids = cri.pods();
        // A namespace ends without DEL: its address is free, and the DELs of its engine succeed.
        let lost = ids.pop().expect("there are many");
        let vm = vms.iter().find(|vm| vm["attachment"]["container"] == lost).expect("it is one");
        let kill = "ctr -n k8s.io task kill -s KILL";
        machine.run(&format!("{kill} {}", lost.as_str().expect("an id")));
        let netns = vm["attachment"]["netns"].as_str().expect("a path");
        let netns = netns.rsplit('/').next().expect("a name");
        machine.run(&format!("ip netns delete {netns}"));
        eventually("it is over", || machine.vms().len() == 49);
        let wanted = json!({ "ip": vm["ip"] });
        let taken = machine.daemon.create(json!({"name": "next", "config": {"network": wanted}}));
        assert_eq!(taken["ip"], vm["ip"]);
        machine.daemon.call("Delete", json!({"name": "next"}));
        cri.remove(&[lost]);
        let rest = ids.split_off(25);
        cri.remove(&ids);
        assert_eq!(machine.vms().len(), rest.len());
        // The engine keeps its own files over a reboot, and asks for the end of what is long gone.
        drop(cri);
        machine.reboot();
        machine.expect_ready();
        machine.expect_clean();
        containerd::start(&machine, None);
        let mut cri = Cri::new(&machine);
        assert_eq!(cri.pods().len(), rest.len());
        let id = cri.start_pod(&pod("new"));
        cri.remove(&rest);
        assert_eq!(machine.vm()["attachment"]["container"], id);
        cri.remove(&[id.into()]);
        machine.expect_clean();
        machine.expect_ready();
    });
}

#[test]
fn daemons_and_engines_that_are_killed_leave_nothing() {
    in_namespace(|| {
        let mut machine = Machine::new();
        containerd::start(&machine, None);
        containerd::import(&machine, "k8s.io");
        let mut cri = Cri::new(&machine);
        for round in 0..4 {
            let asked = pods((0..6).map(|number| format!("r{round}-{number}")));
            std::thread::scope(|scope| {
                let starting = scope.spawn(|| cri.call_all("RunPodSandbox", &asked));
                // At a moment that is another one each time: when so many are there.
                eventually("some are there", || {
                    machine.vms().len() >= round || starting.is_finished()
                });
                machine.daemon.crash();
                machine.daemon.start_again();
                starting.join().expect("it answers");
            });
            let ids = cri.pods();
            cri.remove(&ids);
            machine.expect_clean();
        }
        // An engine that is killed while it starts pods forgets those that it has not written down.
        // They have their network while their namespaces are there.
        std::thread::scope(|scope| {
            let asked = pods((0..6).map(|number| format!("e{number}")));
            scope.spawn(move || cri.call_all("RunPodSandbox", &asked));
            eventually("some are there", || machine.vms().len() >= 3);
            containerd::crash(&machine);
        });
        containerd::start(&machine, None);
        let mut cri = Cri::new(&machine);
        let ids = cri.pods();
        cri.remove(&ids);
        for name in machine.run("ls /run/netns").split_ascii_whitespace() {
            machine.run(&format!("ip netns delete {name}"));
        }
        machine.expect_clean();
    });
}
