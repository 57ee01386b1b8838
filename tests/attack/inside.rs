//! Whoever has all rights in an attached namespace, and what becomes of the others: links that are
//! changed, moved, looped and flapped, and an attach that is raced.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::common::daemon::Daemon;
use crate::common::room::Room;
use crate::common::{eventually, in_namespace, ip_link, run};
use crate::end::attach;

/// How often the link inside goes down and up, and how often an attach is raced.
const FLAPS: usize = 300;
const RACES: usize = 30;
/// The exit status of a client that finds no daemon.
const UNREACHABLE: i32 = 3;
/// Frames that may come of a question that is asked three times, where nothing goes round.
const FRAMES_MAX: u64 = 500;

/// Whether a namespace reaches the host, with no trace of earlier packets.
fn reaches(room: &Room) -> bool {
    room.run("ip neighbour flush all");
    room.can("ping -c 1 -W 2 -q 192.168.127.1")
}

/// The names of all VMs.
fn vms(daemon: &Daemon) -> Vec<String> {
    let list = daemon.call("List", json!({}));
    let vms = list["parameters"]["vms"].as_array().expect("a list").iter();
    vms.map(|vm| vm["name"].as_str().expect("a name").to_string()).collect()
}

/// The frames that a link of the host has sent.
fn sent(link: &str) -> u64 {
    let file = format!("/sys/class/net/{link}/statistics/tx_packets");
    std::fs::read_to_string(file).expect("a link").trim().parse().expect("a number")
}

#[test]
fn what_is_done_to_a_link_inside_harms_nobody_else() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let (hostile, other) = (Room::new(), Room::new());
        let vm = attach(&daemon, "hostile", &hostile, &[]);
        attach(&daemon, "other", &other, &[]);
        let tap = vm["tap"].as_str().expect("a link");
        for damage in [
            "ip link set eth0 down",
            "ip link set eth0 name lan0 up",
            "ip link set lan0 mtu 65535",
            "ip link set lan0 mtu 68",
            "ip link set lan0 mtu 1500 promisc on allmulticast on",
            // The marks of volnet mean nothing there: that of another VM, of links that are over
            // (`volnet:`), and the group of links that are not finished.
            "ip link set lan0 alias volnet:other.eth0",
            "ip link set lan0 alias volnet:",
            "ip link set lan0 group 1987013376",
            "ip link set lan0 address 02:00:00:00:00:99",
            "ip link add bridge type bridge",
            "ip link set lan0 master bridge",
            "ip link set bridge up",
        ] {
            hostile.run(damage);
            assert!(reaches(&other), "after {damage}");
            eventually("the port is as it was", || {
                let link = ip_link(tap);
                (&link["master"], &link["mtu"], &link["ifalias"])
                    == (&json!("vbr0"), &json!(1500), &json!("volnet:hostile.eth0"))
            });
        }
        assert_eq!(vms(&daemon), ["hostile.eth0", "other.eth0"]);
        // In another namespace it is the same link, and ends with that.
        let elsewhere = Room::new();
        let pid = elsewhere.netns().replace("/proc/", "").replace("/ns/net", "");
        hostile.run("ip link set lan0 nomaster down");
        hostile.run(&format!("ip link set lan0 netns {pid}"));
        hostile.end();
        assert!(reaches(&other));
        assert_eq!(vms(&daemon).len(), 2);
        elsewhere.end();
        eventually("it is over", || vms(&daemon) == ["other.eth0"]);
        assert!(reaches(&other));
    });
}

#[test]
fn two_links_of_a_namespace_make_no_loop() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let (hostile, other) = (Room::new(), Room::new());
        for ifname in ["eth0", "eth1"] {
            attach(&daemon, "hostile", &hostile, &["--ifname".into(), ifname.into()]);
        }
        let vm = attach(&daemon, "other", &other, &[]);
        hostile.run("ip link add loop type bridge");
        for link in ["eth0", "eth1"] {
            hostile.run(&format!("ip link set {link} master loop promisc on"));
        }
        hostile.run("ip link set loop up");
        let tap = vm["tap"].as_str().expect("a link");
        let before = sent(tap);
        // Each question goes to everybody.
        assert!(!other.can("ping -c 3 -i 0.2 -W 1 -q 192.168.127.99"));
        assert!(reaches(&other));
        let frames = sent(tap) - before;
        assert!(frames < FRAMES_MAX, "{frames}");
    });
}

#[test]
fn a_link_that_flaps_keeps_nobody_waiting() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let (hostile, other) = (Room::new(), Room::new());
        let vm = attach(&daemon, "hostile", &hostile, &[]);
        attach(&daemon, "other", &other, &[]);
        let batch = daemon.folder.join("batch");
        let flap = "link set eth0 down\nlink set eth0 up\n";
        std::fs::write(&batch, flap.repeat(FLAPS)).expect("a file");
        let mut flapping = Command::new("nsenter")
            .arg(format!("--net={}", hostile.netns()))
            .args(["ip", "-batch"])
            .arg(batch)
            .spawn()
            .expect("nsenter runs");
        while flapping.try_wait().expect("it is ours").is_none() {
            assert_eq!(vms(&daemon).len(), 2);
            assert!(reaches(&other));
        }
        // A default route goes with its link.
        hostile.run("ip route replace default via 192.168.127.1");
        eventually("it is reached again", || reaches(&hostile));
        let tap = vm["tap"].as_str().expect("a link");
        assert_eq!(ip_link(tap)["master"], "vbr0");
    });
}

#[test]
fn an_attach_that_is_raced_inside_is_whole_or_nothing() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let (room, elsewhere) = (Room::new(), Room::new());
        let pid = elsewhere.netns().replace("/proc/", "").replace("/ns/net", "");
        let moved = format!("ip link set eth0 netns {pid}");
        for damage in ["ip link delete eth0", "ip link set eth0 name mine", &moved] {
            let script = format!("while :; do {damage}; ip link delete mine; done 2>/dev/null");
            let mut racing = Command::new("nsenter")
                .arg(format!("--net={}", room.netns()))
                .args(["sh", "-c", &script])
                .stdin(Stdio::null())
                .spawn()
                .expect("nsenter runs");
            for _ in 0..RACES {
                // It is refused, or done and soon over.
                let asked = Command::new(&daemon.program)
                    .args(["attach", "raced", "--netns", &room.netns(), "--socket"])
                    .arg(daemon.socket())
                    .output()
                    .expect("volnet runs");
                assert_ne!(asked.status.code(), Some(UNREACHABLE), "{asked:?}");
            }
            racing.kill().expect("it is ours");
            racing.wait().expect("it is ours");
            daemon.call("Detach", json!({"cni": "volnet", "container": "raced", "ifname": "eth0"}));
            assert_eq!(vms(&daemon), [""; 0]);
            eventually("no link is left", || run("ip -o link show type veth").is_empty());
        }
        let networks = daemon.call("Networks", json!({}));
        assert_eq!(networks["parameters"]["networks"][0]["leased"], 0);
        attach(&daemon, "raced", &room, &[]);
        assert!(reaches(&room));
    });
}
