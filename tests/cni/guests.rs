//! VMs in namespaces of their own, and in that of the host.

use serde_json::json;

use super::Engine;
use super::common::guest::{behind_tap, open_tap};
use super::common::room::Room;
use super::common::vmconf::vmconf;
use super::common::{self, eventually, in_namespace, run, try_run};

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

/// A runtime that has no namespace for each VM: the tap is the port of the bridge.
#[test]
fn a_vm_in_the_namespace_of_the_host_has_a_tap_on_the_bridge() {
    in_namespace(|| {
        let mut engine = Engine::new();
        let thread = std::fs::read_link("/proc/thread-self").expect("a thread");
        let own = format!("/proc/{}/ns/net", thread.display());
        assert_eq!(engine.code("ADD", "vm1", &own, json!({})), 8, "a container needs its own");
        engine.conf["attach"] = json!("vm");
        engine.args = "TC_REDIRECT_TAP_NAME=tap0";
        assert_eq!(engine.code("ADD", "vm1", &own, json!({})), 2, "volnet names the tap");
        engine.args = "TC_REDIRECT_TAP_UID=65534;TC_REDIRECT_TAP_GID=65534";
        for (version, ip) in [("1.1.0", "192.168.127.2"), ("0.4.0", "192.168.127.3")] {
            engine.conf["cniVersion"] = json!(version);
            assert_eq!(engine.code("DEL", "vm1", &own, json!({})), 0);
            let (done, added) = engine.ask("ADD", "vm1", &own, json!({}));
            assert!(done, "{added}");
            let vm = vmconf(&added, "vm1");
            let boot = format!("ip={ip}::192.168.127.1:255.255.255.0:vm1:eth0:off:::");
            assert_eq!((vm.boot, &*vm.netns, vm.mtu), (boot, &*own, 1500), "{added}");
            let link = common::ip_link(&vm.tap);
            assert_eq!(
                (&link["master"], &link["address"]),
                (&json!("vbr0"), &added["interfaces"][1]["mac"])
            );
            let tun = &link["linkinfo"]["info_data"];
            assert!(tun["user"] == "nobody" || tun["user"] == 65534, "{link}");
            assert_eq!(engine.code("CHECK", "vm1", &own, json!({"prevResult": added})), 0);
            assert_eq!(engine.code("ADD", "vm1", &own, json!({})), 7, "it is there already");
            // Its guest has what any guest on the bridge has, and is held to it.
            let tap = open_tap(&vm.tap);
            let reaches = |mac: &str| {
                behind_tap(&tap, mac, || {
                    run(&format!("ip address add {ip}/24 dev eth0"));
                    try_run("ping -c 2 -i 0.2 -W 2 -q 192.168.127.1").0
                })
            };
            assert!(reaches(&vm.mac));
            assert!(!reaches("02:00:00:00:00:07"), "another Ethernet address");
            drop(tap);
            // What others change of it comes back.
            run(&format!("ip link set {} nomaster down", vm.tap));
            eventually("CHECK succeeds", || engine.code("CHECK", "vm1", &own, json!({})) == 0);
        }
        // The next daemon has it.
        engine.daemon.crash();
        engine.daemon.start_again();
        assert_eq!(engine.code("CHECK", "vm1", &own, json!({})), 0);
        assert_eq!(engine.code("GC", "", "", json!({"cniVersion": "1.1.0"})), 0);
        eventually("nothing is left", || engine.is_clean() && taps() == 0);
        // Without a daemon, DEL deletes the tap, also if it comes without a namespace, or with the
        // path of a process that has ended. Whoever deletes the tap ends the VM.
        let [with, without, ended, by_hand] = ["c1", "c2", "c5", "c3"];
        for vm in [with, without, ended, by_hand] {
            assert_eq!(engine.code("ADD", vm, &own, json!({})), 0);
        }
        engine.daemon.crash();
        assert_eq!(engine.code("DEL", with, &own, json!({})), 0);
        assert_eq!(engine.code("DEL", without, "", json!({})), 0);
        assert_eq!(engine.code("DEL", ended, "/proc/1/ns/none", json!({})), 0);
        assert_eq!(engine.code("ADD", "c4", &own, json!({})), 11);
        // A container of the same name is another one by another daemon, which does not run either,
        // and by another configuration.
        let socket = engine.conf["socket"].take();
        engine.conf["socket"] = json!(engine.daemon.folder.join("other/volnet.sock"));
        assert_eq!(engine.code("DEL", by_hand, &own, json!({})), 0);
        engine.conf["socket"] = socket;
        let name = engine.conf["name"].clone();
        engine.conf["name"] = json!("other");
        assert_eq!(engine.code("DEL", by_hand, &own, json!({})), 0);
        assert_eq!(engine.code("DEL", by_hand, "", json!({})), 0);
        engine.conf["name"] = name;
        assert_eq!(taps(), 1);
        engine.daemon.start_again();
        assert_eq!((engine.attached(), engine.leased()), (1, 1));
        let vm = engine.daemon.call("Get", json!({"name": "c3.eth0"}));
        run(&format!("ip link delete {}", vm["parameters"]["vm"]["tap"].as_str().expect("a tap")));
        eventually("nothing is left", || engine.is_clean() && taps() == 0);
        assert_eq!(engine.code("DEL", by_hand, &own, json!({})), 0);
    });
}

/// How many taps the host has.
fn taps() -> usize {
    run("ip -o link show type tun").lines().count()
}
