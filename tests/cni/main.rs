//! volnet as a CNI plugin, called as engines call it: by environment and standard input. The kernel
//! is read back with `ip`, and packets are sent from within.

#[path = "../common/mod.rs"]
mod common;
mod guests;
mod networks;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::room::Room;
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
            .env("VOLNET_RUNTIME_DIR", self.daemon.folder.join("run"))
            .env("VOLNET_SOCKET", self.daemon.socket())
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
        let without = engine.command("VERSION", "", "").stdin(Stdio::null()).output();
        assert!(without.expect("it runs").status.success(), "people have no configuration");
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
        // Nor do settings that cannot be read keep a container.
        let broken = engine.daemon.folder.join("broken.json");
        std::fs::write(&broken, "{").expect("a file");
        let mut del = engine.command("DEL", "c1", &netns);
        let mut del = del.env("VOLNET_CONFIG", &broken).spawn().expect("it runs");
        let conf = r#"{"cniVersion": "1.1.0", "name": "pods", "type": "volnet"}"#;
        let mut input = del.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut input, conf.as_bytes()).expect("it reads");
        drop(input);
        assert!(del.wait().expect("it is ours").success());
        assert!(!room.can("ip link show dev eth0"));
        engine.daemon.start_again();
        eventually("nothing is left", || engine.is_clean());
        assert_eq!(engine.code("STATUS", "", "", nothing()), 0);
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
        assert_eq!(engine.code("ADD", "b", &b.netns(), json!({"subnet": "192.168.127.0/25"})), 7);
        assert_eq!(engine.code("ADD", "b", &b.netns(), json!({"vlan": 7})), 2);
        assert_eq!(engine.code("ADD", "b", &b.netns(), json!({"cniVersion": "0.1.0"})), 1);
        assert_eq!((engine.attached(), engine.leased()), (1, 1));
        assert_eq!(json("ip -j link show type veth").as_array().map(Vec::len), Some(1));
        // The link of somebody else stays, whatever is deleted.
        assert_eq!(engine.code("DEL", "b", &b.netns(), json!({})), 0);
        assert!(b.can("ip link show dev eth0"));
    });
}

/// Its engine has ended, and does not get the result.
#[test]
fn an_add_whose_result_cannot_be_told_is_taken_back() {
    in_namespace(|| {
        let (engine, room) = (Engine::new(), Room::new());
        for _ in 0..3 {
            let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
            let mut add = engine.command("ADD", "c1", &room.netns());
            let mut child = add.stdout(full).spawn().expect("it runs");
            let input = child.stdin.take().expect("a pipe");
            serde_json::to_writer(&input, &engine.conf).expect("it reads");
            drop(input);
            assert!(!child.wait().expect("it is ours").success());
            assert_eq!((engine.attached(), engine.leased()), (0, 0));
            assert!(!room.can("ip link show dev eth0"));
        }
        engine.add("c1", &room);
    });
}

/// What a power cut leaves of files that were just written: their names.
#[test]
fn records_that_are_empty_keep_nothing_and_nobody() {
    in_namespace(|| {
        let mut engine = Engine::new();
        engine.conf["subnet"] = json!("10.244.3.0/24");
        let (room, other) = (Room::new(), Room::new());
        engine.add("c1", &room);
        engine.daemon.crash();
        let socket = engine.daemon.socket();
        let folder = socket.parent().expect("a folder").display().to_string();
        let records = format!("{folder} -name *.json -not -name config.json");
        run(&format!("find {records} -exec truncate -s 0 {{}} +"));
        engine.daemon.start_again();
        assert_eq!(engine.code("DEL", "c1", &room.netns(), json!({})), 0);
        assert_eq!(engine.code("GC", "", "", json!({})), 0);
        assert_eq!(engine.code("STATUS", "", "", json!({})), 0);
        let added = engine.add("c2", &other);
        assert_eq!(added["ips"][0]["address"], "10.244.3.2/24", "{added}");
        assert_eq!(engine.code("ADD", "c1", &room.netns(), json!({})), 0);
        assert!(room.can("ping -c 1 -W 5 -q 10.244.3.1"));
        for container in ["c1", "c2"] {
            assert_eq!(engine.code("DEL", container, "", json!({})), 0);
        }
        eventually("nothing is left", || engine.is_clean());
    });
}

/// A namespace is named with the name of another container, or by another configuration.
#[test]
fn a_del_leaves_the_links_of_other_attachments() {
    in_namespace(|| {
        let mut engine = Engine::new();
        let room = Room::new();
        let netns = room.netns();
        engine.add("c1", &room);
        let reaches = || room.can("ping -c 1 -W 1 -q 192.168.127.1");
        assert_eq!(engine.code("DEL", "c2", &netns, json!({})), 0, "there is none");
        assert_eq!(engine.code("DEL", "c1", &netns, json!({"name": "other"})), 0);
        assert_eq!(engine.code("ADD", "c2", &netns, json!({})), 102, "it has an eth0");
        assert_eq!(engine.code("DEL", "c2", &netns, json!({})), 0);
        let mut detach = Command::new(&engine.daemon.program);
        detach.args(["detach", "c2", "--netns", &netns, "--socket"]).arg(engine.daemon.socket());
        assert!(detach.status().expect("it runs").success());
        assert!(reaches());
        engine.daemon.crash();
        assert_eq!(engine.code("DEL", "c2", &netns, json!({})), 0);
        assert!(room.can("ip link show dev eth0"));
        engine.daemon.start_again();
        assert!(reaches());
    });
}

#[test]
fn gc_releases_nothing_if_its_list_has_another_form() {
    in_namespace(|| {
        let (engine, room) = (Engine::new(), Room::new());
        engine.add("c1", &room);
        for valid in [
            json!({}),
            json!("c1"),
            json!(["c1"]),
            json!([{"containerID": "c1"}]),
            json!([{"containerID": "c1", "ifname": 0}]),
        ] {
            let list = json!({ "cni.dev/valid-attachments": valid });
            assert_eq!(engine.code("GC", "", "", list), 6, "{valid}");
        }
        let list = json!({ "cni.dev/valid-attachments": null, "name": "other" });
        assert_eq!(engine.code("GC", "", "", list), 0);
        assert_eq!(engine.attached(), 1);
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
            let added: Vec<bool> =
                adding.into_iter().map(|mut it| it.wait().expect("it is ours").success()).collect();
            engine.daemon.start_again();
            // What failed can be tried again, whatever the daemon had done of it.
            for (number, room) in rooms.iter().enumerate().filter(|(number, _)| !added[*number]) {
                assert_eq!(engine.code("ADD", &name(number), &room.netns(), json!({})), 0);
            }
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
