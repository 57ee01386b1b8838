//! volnet as a CNI plugin, called as engines call it: by environment and standard input. The kernel
//! is read back with `ip`, and packets are sent from within.

mod common;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::room::Room;
use common::vmconf::vmconf;
use common::{eventually, in_namespace, json, run};

/// An engine with a daemon and a configuration.
struct Engine {
    daemon: Daemon,
    plugin: PathBuf,
    conf: Value,
    args: &'static str,
}

/// What a plugin has printed, and whether it succeeded.
type Printed = (bool, Value);

impl Engine {
    fn new() -> Engine {
        let daemon = Daemon::start(&[]);
        let conf = json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "volnet",
            "socket": daemon.socket(), "capabilities": {"portMappings": true}
        });
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web";
        Engine { plugin: daemon.program.clone(), daemon, conf, args }
    }

    fn command(&self, verb: &str, container: &str, netns: &str) -> Command {
        let mut command = Command::new(&self.plugin);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    fn ask(&self, verb: &str, container: &str, netns: &str, more: Value) -> Printed {
        let mut conf = self.conf.clone();
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut child = self.command(verb, container, netns).spawn().expect("it runs");
        let input = child.stdin.take().expect("a pipe");
        serde_json::to_writer(&input, &conf).expect("it reads");
        drop(input);
        let output = child.wait_with_output().expect("it is ours");
        let text = String::from_utf8(output.stdout).expect("text");
        let printed = match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).expect("JSON"),
        };
        (output.status.success(), printed)
    }

    fn add(&self, container: &str, room: &Room) -> Value {
        let (done, printed) = self.ask("ADD", container, &room.netns(), json!({}));
        assert!(done, "{printed}");
        printed
    }

    fn code(&self, verb: &str, container: &str, netns: &str, more: Value) -> u64 {
        let (done, printed) = self.ask(verb, container, netns, more);
        match (done, printed["code"].as_u64()) {
            (true, None) => 0,
            (false, Some(code)) => code,
            (_, _) => panic!("{verb}: {done}, {printed}"),
        }
    }

    /// The attachments that the daemon knows.
    fn attached(&self) -> usize {
        let list = self.daemon.call("List", json!({}));
        list["parameters"]["vms"].as_array().expect("a list").len()
    }

    fn leased(&self) -> u64 {
        let networks = self.daemon.call("Networks", json!({}));
        networks["parameters"]["networks"][0]["leased"].as_u64().expect("a number")
    }

    fn is_clean(&self) -> bool {
        (self.attached(), self.leased()) == (0, 0) && run("ip -o link show type veth").is_empty()
    }
}

const NONE: Value = Value::Null;

#[test]
fn every_verb_does_what_the_specification_says() {
    in_namespace(|| {
        let mut engine = Engine::new();
        let (room, nothing) = (Room::new(), || json!({}));
        let netns = room.netns();
        // podman asks for the version with an environment of its own.
        let (_, version) = engine.ask("VERSION", "", "dummy", nothing());
        assert_eq!(version["supportedVersions"].as_array().map(Vec::len), Some(5), "{version}");
        assert_eq!(engine.code("STATUS", "", "", nothing()), 0);
        assert_eq!(engine.code("DEL", "never", &netns, nothing()), 0);
        assert_eq!(engine.code("CHECK", "never", &netns, nothing()), 3);
        let added = engine.add("c1", &room);
        assert_eq!(added["interfaces"][2]["sandbox"], json!(netns), "{added}");
        assert_eq!(added["ips"][0]["address"], "192.168.127.2/24");
        let vm = engine.daemon.call("Get", json!({"name": "c1.eth0"}));
        assert_eq!(vm["parameters"]["vm"]["attachment"]["labels"]["pod"], "default/web");
        assert!(room.can("ping -c 1 -W 1 -q 192.168.127.1"));
        let before = json!({"prevResult": added});
        assert_eq!(engine.code("CHECK", "c1", &netns, before.clone()), 0);
        assert_eq!(engine.code("ADD", "c1", &netns, nothing()), 7, "it is there already");
        assert_eq!(engine.code("ADD", "c2", &netns, before.clone()), 7, "it is not the first");
        for damage in ["link set eth0 address 02:00:00:00:00:07", "address flush dev eth0"] {
            room.run(&format!("ip {damage}"));
            assert_eq!(engine.code("CHECK", "c1", &netns, before.clone()), 103, "{damage}");
        }
        // Its name is free at once; the container may have none any more; and it may be asked
        // twice.
        for _ in 0..3 {
            assert_eq!(engine.code("DEL", "c1", &netns, nothing()), 0);
            engine.add("c1", &room);
        }
        assert_eq!(engine.code("DEL", "c1", "", nothing()), 0);
        assert_eq!(engine.code("DEL", "c1", "", nothing()), 0);
        eventually("nothing is left", || engine.is_clean());
        // What the engine does not know any more goes, by either name of the key.
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let (a, b) = (Room::new(), Room::new());
            engine.add("a", &a);
            engine.add("b", &b);
            let valid = json!({ key: [{"containerID": "a", "ifname": "eth0"}] });
            assert_eq!(engine.code("GC", "", "", valid), 0);
            assert_eq!(engine.attached(), 1);
            assert_eq!(engine.code("GC", "", "", nothing()), 0);
            eventually("nothing is left", || engine.is_clean());
        }
        // Without a daemon.
        engine.add("c1", &room);
        engine.daemon.crash();
        assert_eq!(engine.code("STATUS", "", "", nothing()), 50);
        assert_eq!(engine.code("ADD", "c2", &Room::new().netns(), nothing()), 11);
        assert_eq!(engine.code("CHECK", "c1", &netns, nothing()), 11);
        assert_eq!(engine.code("DEL", "c1", &netns, nothing()), 0);
        assert_eq!(engine.code("DEL", "c1", "/proc/1/ns/none", nothing()), 0);
        assert!(!room.can("ip link show dev eth0"));
        engine.daemon.start_again();
        eventually("nothing is left", || engine.is_clean());
        assert_eq!(engine.code("STATUS", "", "", nothing()), 0);
    });
}

#[test]
fn a_vm_in_a_namespace_gets_what_its_runtime_reads() {
    in_namespace(|| {
        let mut engine = Engine::new();
        engine.conf["attach"] = json!("vm");
        let room = Room::new();
        let netns = room.netns();
        // As firecracker-go-sdk does it: DEL of what may be there, and then ADD.
        for (version, ip) in [("1.1.0", "192.168.127.2"), ("0.4.0", "192.168.127.3")] {
            engine.conf["cniVersion"] = json!(version);
            assert_eq!(engine.code("DEL", "vm1", &netns, json!({})), 0);
            let added = engine.add("vm1", &room);
            let vm = vmconf(&added, "vm1");
            assert_eq!((&*vm.tap, &*vm.netns, vm.mtu), ("tap0", &*netns, 1500));
            let boot = format!("ip={ip}::192.168.127.1:255.255.255.0:vm1:eth0:off:::");
            assert_eq!(vm.boot, boot);
            assert_eq!(added["interfaces"][2]["mac"], vm.mac, "{added}");
            assert_eq!(engine.code("CHECK", "vm1", &netns, json!({"prevResult": added})), 0);
        }
        for damage in [
            "tc qdisc delete dev eth0 ingress",
            "tc filter delete dev tap0 ingress",
            "ip link set tap0 down",
            "ip link delete tap0",
        ] {
            room.run(damage);
            assert_eq!(engine.code("CHECK", "vm1", &netns, json!({})), 103, "{damage}");
            assert_eq!(engine.code("DEL", "vm1", &netns, json!({})), 0);
            engine.add("vm1", &room);
            assert_eq!(engine.code("CHECK", "vm1", &netns, json!({})), 0);
        }
        assert_eq!(engine.code("DEL", "vm1", &netns, json!({})), 0);
        // The words of tc-redirect-tap.
        engine.args = "TC_REDIRECT_TAP_NAME=vm1-tap;TC_REDIRECT_TAP_UID=65534";
        let vm = vmconf(&engine.add("vm1", &room), "vm1");
        assert_eq!(vm.tap, "vm1-tap");
        let user = &room.json("ip -d -j link show dev vm1-tap")[0]["linkinfo"]["info_data"]["user"];
        assert!(*user == "nobody" || *user == 65534, "{user}");
        // Without a daemon, the tap goes with the link.
        engine.daemon.crash();
        assert_eq!(engine.code("DEL", "vm1", &netns, json!({})), 0);
        assert!(!room.can("ip link show dev vm1-tap") && !room.can("ip link show dev eth0"));
        engine.daemon.start_again();
        eventually("nothing is left", || engine.is_clean());
        engine.args = "TC_REDIRECT_TAP_GID=7";
        assert_eq!(engine.code("ADD", "vm1", &netns, json!({})), 2);
        engine.args = "TC_REDIRECT_TAP_NAME=eth0";
        assert_eq!(engine.code("ADD", "vm1", &netns, json!({})), 7);
        assert!(engine.is_clean());
    });
}

#[test]
fn an_add_that_fails_leaves_nothing() {
    in_namespace(|| {
        let engine = Engine::new();
        let (a, b) = (Room::new(), Room::new());
        let port = json!({"runtimeConfig": {"portMappings": [
            {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]}});
        assert_eq!(engine.code("ADD", "a", &a.netns(), port.clone()), 0);
        assert_eq!(engine.code("ADD", "b", &b.netns(), port), 101);
        b.run("ip link add eth0 type bridge");
        assert_eq!(engine.code("ADD", "b", &b.netns(), json!({})), 102);
        assert_eq!(engine.code("ADD", "b", "/proc/1/ns/none", json!({})), 3);
        assert_eq!(engine.code("ADD", "b", "", json!({})), 4);
        assert_eq!(engine.code("ADD", "b", &b.netns(), json!({"subnet": "10.9.0.0/24"})), 7);
        assert_eq!(engine.code("ADD", "b", &b.netns(), json!({"vlan": 7})), 2);
        assert_eq!(engine.code("ADD", "b", &b.netns(), json!({"cniVersion": "0.1.0"})), 1);
        assert_eq!((engine.attached(), engine.leased()), (1, 1));
        assert_eq!(json("ip -j link show type veth").as_array().map(Vec::len), Some(1));
        // The link of somebody else stays, whatever is deleted.
        assert_eq!(engine.code("DEL", "b", &b.netns(), json!({})), 0);
        assert!(b.can("ip link show dev eth0"));
    });
}

#[test]
fn a_link_of_that_name_is_the_plugin_loopback() {
    in_namespace(|| {
        let mut engine = Engine::new();
        let link = engine.daemon.folder.join("loopback");
        symlink(&engine.plugin, &link).expect("a link");
        engine.plugin = link;
        let room = Room::new();
        let (done, result) = engine.ask("ADD", "c1", &room.netns(), json!({}));
        assert!(done, "{result}");
        assert_eq!(result["interfaces"][0]["name"], "lo");
        assert!(room.can("ping -c 1 -W 1 -q 127.0.0.1"));
        assert_eq!(engine.ask("DEL", "c1", "", json!({})), (true, NONE));
        assert_eq!(engine.attached(), 0);
    });
}

#[test]
fn a_daemon_that_is_killed_among_many_leaves_nothing() {
    in_namespace(|| {
        let mut engine = Engine::new();
        for round in 0..4 {
            let rooms: Vec<Room> = (0..12).map(|_| Room::new()).collect();
            let name = |number: usize| format!("pod{number}");
            let conf = engine.conf.to_string();
            let adding: Vec<_> = rooms
                .iter()
                .enumerate()
                .map(|(number, room)| {
                    let mut command = engine.command("ADD", &name(number), &room.netns());
                    let mut child = command.stdout(Stdio::null()).spawn().expect("it runs");
                    let mut input = child.stdin.take().expect("a pipe");
                    std::io::Write::write_all(&mut input, conf.as_bytes()).expect("it reads");
                    child
                })
                .collect();
            // At a moment that is another one each time: when so many are there.
            eventually("some are there", || engine.attached() >= 2 * round);
            engine.daemon.crash();
            for mut child in adding {
                child.wait().expect("it is ours");
            }
            engine.daemon.start_again();
            for (number, room) in rooms.iter().enumerate() {
                let netns = if number % 2 == 0 { room.netns() } else { String::new() };
                assert_eq!(engine.code("DEL", &name(number), &netns, json!({})), 0);
            }
            eventually("nothing is left", || engine.is_clean());
            for room in &rooms {
                assert!(!room.can("ip link show dev eth0"));
            }
        }
    });
}

/// The program is found by a link, as `/opt/cni/bin/volnet` is.
#[test]
fn the_plugin_runs_by_its_link() {
    in_namespace(|| {
        let mut engine = Engine::new();
        let link = Path::new(&engine.daemon.folder).join("volnet-cni");
        symlink(&engine.plugin, &link).expect("a link");
        engine.plugin = link;
        let room = Room::new();
        engine.add("c1", &room);
        room.end();
        eventually("nothing is left", || engine.is_clean());
    });
}
