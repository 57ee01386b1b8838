//! Network namespaces of others that have a place on a network. The kernel is read back with `ip`
//! inside and outside of them, and packets are sent from within. Each test has a fresh network
//! namespace as its host.

mod common;

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use volnet::network::linux::socket::NetlinkFamily;
use volnet_ffi::tun;

use common::daemon::Daemon;
use common::guest::{behind_tap, open_tap};
use common::room::Room;
use common::{eventually, in_namespace, json, run, try_run};

/// A client of the daemon.
fn client(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(&daemon.program);
    command.args(args).arg("--socket").arg(daemon.socket());
    command
}

/// Whether what a client asks for is done.
fn done(daemon: &Daemon, args: &[&str]) -> bool {
    client(daemon, args).stdout(Stdio::null()).status().expect("volnet runs").success()
}

fn attach(daemon: &Daemon, name: &str, room: &Room, flags: &[&str]) -> Value {
    let netns = room.netns();
    let args = [&["attach", name, "--netns", &netns, "--json"][..], flags].concat();
    let output = client(daemon, &args).output().expect("volnet runs");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    let reply: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    reply["vm"].clone()
}

fn vms(daemon: &Daemon) -> Vec<String> {
    let list = daemon.call("List", json!({}));
    let vms = list["parameters"]["vms"].as_array().expect("a list").iter();
    vms.map(|vm| vm["name"].as_str().expect("a name").to_string()).collect()
}

fn leased(daemon: &Daemon) -> u64 {
    let networks = daemon.call("Networks", json!({}));
    networks["parameters"]["networks"][0]["leased"].as_u64().expect("a number")
}

/// Whether a packet comes through, with no trace of earlier ones.
fn reaches(room: &Room, address: &str) -> bool {
    room.run("ip neighbour flush all");
    room.can(&format!("ping -c 1 -W 1 -q {address}"))
}

#[test]
fn a_namespace_is_on_the_network_like_a_guest() {
    in_namespace(|| {
        run("ip link set lo up");
        let daemon = Daemon::start(&[]);
        let (a, b) = (Room::new(), Room::new());
        let vm = attach(&daemon, "a", &a, &["--expose", "8080:80", "--rx", "50"]);
        attach(&daemon, "b", &b, &["--isolated"]);
        assert_eq!(vm["name"], "a.eth0");
        let (ip, tap) = (vm["ip"].as_str().unwrap(), vm["tap"].as_str().unwrap());
        let inside = &a.json("ip -j address show dev eth0")[0];
        assert_eq!((&inside["address"], &inside["operstate"]), (&vm["mac"], &json!("UP")));
        assert_eq!(inside["addr_info"].as_array().map(Vec::len), Some(1), "{inside}");
        assert_eq!(inside["addr_info"][0]["local"], vm["ip"]);
        assert_eq!(a.json("ip -j route show default")[0]["gateway"], vm["gateway"]);
        let outer = common::ip_link(tap);
        assert_eq!(
            (&outer["master"], &outer["ifalias"]),
            (&json!("vbr0"), &json!("volnet:a.eth0"))
        );
        assert_eq!(outer["linkinfo"]["info_slave_data"]["isolated"], false);
        let addresses = &json(&format!("ip -j address show dev {tap}"))[0]["addr_info"];
        assert_eq!(*addresses, json!([]));
        assert_eq!(outer["qdisc"], "tbf");
        assert!(reaches(&a, "192.168.127.1") && reaches(&b, "192.168.127.1"));
        // A port of the host leads into the namespace.
        let listener = a.opened(|| TcpListener::bind("0.0.0.0:80").expect("port 80"));
        let mut caller = TcpStream::connect("192.168.127.1:8080").expect("the port leads to it");
        let (mut called, _) = listener.accept().expect("a caller");
        called.write_all(b"x").expect("it is open");
        caller.read_exact(&mut [0]).expect("it is open");
        // Its packets are counted as those of any VM, and its policy is changed as that of any.
        let metrics = daemon.call("Metrics", json!({}));
        let text = metrics["parameters"]["text"].as_str().unwrap();
        assert!(text.contains("volnet_leases") && text.contains("vm=\"a.eth0\""), "{text}");
        assert!(done(&daemon, &["policy", "a.eth0", "none"]));
        let id = json!({"cni": "volnet", "container": "a", "ifname": "eth0"});
        let verified = daemon.call("Verify", id.clone());
        assert_eq!(verified["parameters"]["differences"], json!([]), "{verified}");
        assert_eq!(verified["parameters"]["vm"]["ip"], ip);
        // Its namespace is looked over as a guest is.
        let looked = || daemon.call("Doctor", json!({"name": "a.eth0"}))["parameters"].take();
        let well = looked();
        let found = |check: &str| {
            let findings = well["findings"].as_array().expect("findings");
            let finding = findings.iter().find(|finding| finding["check"] == check);
            finding.expect(check)["level"].clone()
        };
        for check in ["namespace", "tap", "guest", "address"] {
            assert_eq!(found(check), "ok", "{well}");
        }
        a.run("ip link set eth0 down");
        let first = &looked()["findings"][0];
        assert_eq!(first["level"], "error", "{first}");
        run(first["hint"].as_str().expect("a command"));
        a.run("ip route add default via 192.168.127.1");
        assert_eq!(looked()["findings"][0]["level"], "ok");
        // What needs a hypervisor is refused.
        for (method, parameters) in [
            ("OpenTap", json!({"name": "a.eth0"})),
            ("Args", json!({"name": "a.eth0", "hypervisor": "qemu"})),
            ("Start", json!({"name": "a.eth0"})),
        ] {
            let refused = daemon.call(method, parameters);
            assert_eq!(refused["error"], "io.volnet.InvalidConfig", "{method}: {refused}");
        }
        // Its link has its own addresses, so it can believe in no others, and it is on one network.
        let netns = b.netns();
        for (flags, words) in [
            (&["--inner", "02:00:00:00:00:05,10.0.0.2"][..], "unknown option --inner"),
            (&["--network", "default", "--network", "default"], "on one network"),
        ] {
            let args = [&["attach", "c", "--netns", &netns][..], flags].concat();
            let refused = client(&daemon, &args).output().expect("volnet runs");
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && said.contains(words), "{said}");
        }
        // A port of the host that a program has is taken if the caller insists.
        let program = TcpListener::bind("0.0.0.0:8090").expect("a port");
        let expose = ["attach", "c", "--netns", &netns, "--ifname", "eth1", "--expose", "8090:80"];
        let refused = client(&daemon, &expose).output().expect("volnet runs");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("tcp port 8090 of the host belongs to"), "{said}");
        assert!(done(&daemon, &[&expose[..], &["--force"]].concat()));
        assert!(done(&daemon, &["detach", "c", "--ifname", "eth1"]));
        drop(program);
        // What is attached is not attached again; detached, its name is free at once.
        let again = client(&daemon, &["attach", "a", "--netns", &a.netns()]).output();
        let said = String::from_utf8_lossy(&again.expect("volnet runs").stderr).into_owned();
        assert!(said.contains("eth0 of container a is attached already"), "{said}");
        for _ in 0..3 {
            let netns = a.netns();
            assert!(done(&daemon, &["detach", "a", "--netns", &netns]));
            attach(&daemon, "a", &a, &[]);
        }
        assert!(done(&daemon, &["detach", "a"]));
        assert!(done(&daemon, &["detach", "a"]), "that it is gone is no error");
        assert!(done(&daemon, &["delete", "b.eth0"]));
        assert_eq!((vms(&daemon), leased(&daemon)), (Vec::new(), 0));
        let gone = daemon.call("Verify", id);
        assert_eq!(gone["error"], "io.volnet.AttachmentNotFound");
        eventually("no link of theirs", || run("ip -o link show type veth").is_empty());
    });
}

#[test]
fn an_attachment_ends_with_its_namespace_whether_a_daemon_runs_or_not() {
    in_namespace(|| {
        let mut daemon = Daemon::start(&[]);
        let (a, b, c) = (Room::new(), Room::new(), Room::new());
        for (name, room) in [("a", &a), ("b", &b), ("c", &c)] {
            attach(&daemon, name, room, &["--expose", "0:80"]);
        }
        a.end();
        eventually("a is gone", || vms(&daemon) == ["b.eth0", "c.eth0"] && leased(&daemon) == 2);
        // Somebody deletes the link: nobody can send from the address any more.
        b.run("ip link delete eth0");
        eventually("b is gone", || vms(&daemon) == ["c.eth0"] && leased(&daemon) == 1);
        daemon.crash();
        c.end();
        eventually("no link of theirs", || run("ip -o link show type veth").is_empty());
        daemon.start_again();
        assert_eq!((vms(&daemon), leased(&daemon)), (Vec::new(), 0));
        let elements = json("nft -j list set ip volnet allowed");
        assert!(elements.to_string().find("192.168.127.").is_none(), "{elements}");
        assert!(daemon.log().contains("its link is gone, or its network namespace"));
    });
}

#[test]
fn a_daemon_that_comes_back_has_its_attachments_and_puts_their_links_right() {
    in_namespace(|| {
        let mut daemon = Daemon::start(&[]);
        let room = Room::new();
        let vm = attach(&daemon, "a", &room, &[]);
        let tap = vm["tap"].as_str().unwrap().to_string();
        daemon.crash();
        run(&format!("ip link set {tap} down nomaster"));
        daemon.start_again();
        assert_eq!(vms(&daemon), ["a.eth0"]);
        assert!(reaches(&room, "192.168.127.1"));
        for damage in ["down", "nomaster", "mtu 1400"] {
            run(&format!("ip link set {tap} {damage}"));
            eventually("it is as before", || reaches(&room, "192.168.127.1"));
        }
        // A veth with our mark that no record has is left of an attach that was cut short.
        run("ip link add cut type veth peer name other");
        // The kernel tells of links that are up.
        run("ip link set cut up alias volnet:nobody.eth0");
        eventually("it is removed", || !common::link_exists("other"));
        // So is one that has no mark yet, and is in our group.
        run("ip link add cut group 1987013376 type veth peer name other");
        eventually("it is removed", || !common::link_exists("other"));
    });
}

#[test]
fn a_namespace_is_held_to_its_addresses() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let (a, b) = (Room::new(), Room::new());
        let vm = attach(&daemon, "a", &a, &[]);
        let other = attach(&daemon, "b", &b, &[]);
        let (ip, mac) = (vm["ip"].as_str().unwrap(), vm["mac"].as_str().unwrap());
        let address = |mac: &str, ip: &str| {
            a.run("ip address flush dev eth0");
            a.run(&format!("ip link set eth0 address {mac}"));
            a.run(&format!("ip address add {ip}/24 dev eth0"));
        };
        assert!(reaches(&a, "192.168.127.1"));
        address(mac, "192.168.127.77");
        assert!(!reaches(&a, "192.168.127.1"), "another address");
        address(mac, other["ip"].as_str().unwrap());
        assert!(!reaches(&a, "192.168.127.1"), "the address of b");
        address("02:00:00:00:00:07", ip);
        assert!(!reaches(&a, "192.168.127.1"), "another Ethernet address");
        address(mac, ip);
        assert!(reaches(&a, "192.168.127.1"));
        // Renamed and down, it is still what it was; deleted, it is over.
        a.run("ip link set eth0 down");
        a.run("ip link set eth0 name mine up");
        assert!(reaches(&a, "192.168.127.1"));
        assert_eq!(vms(&daemon).len(), 2);
    });
}

#[test]
fn both_families_where_the_network_has_them() {
    in_namespace(|| {
        let daemon = Daemon::configured(&json!({"networks": [
            {"name": "default", "bridge": "vbr0", "subnet": "192.168.127.0/24",
             "ipv6": {"prefix": "fd00:7::/64"}}
        ]}));
        let (a, b) = (Room::new(), Room::new());
        attach(&daemon, "a", &a, &[]);
        let other = attach(&daemon, "b", &b, &[]);
        let gateways = a.json("ip -6 -j route show default");
        assert_eq!(gateways[0]["gateway"], "fd00:7::1", "{gateways}");
        assert!(reaches(&a, "fd00:7::1"));
        assert!(reaches(&a, other["ip6"].as_str().expect("an address")));
        assert!(reaches(&a, "192.168.127.1"));
    });
}

#[test]
fn ipv6_alone_where_the_network_has_that() {
    in_namespace(|| {
        let daemon = Daemon::configured(&json!({"networks": [
            {"subnet": null, "ipv6": {"prefix": "fd00:7::/64"}}
        ]}));
        let (a, b) = (Room::new(), Room::new());
        attach(&daemon, "a", &a, &[]);
        let other = attach(&daemon, "b", &b, &[]);
        assert!(other["ip"].is_null());
        assert_eq!(a.json("ip -4 -j address show dev eth0"), json!([]));
        assert_eq!(a.json("ip -6 -j route show default")[0]["gateway"], "fd00:7::1");
        assert!(reaches(&a, other["ip6"].as_str().expect("an address")));
        assert!(done(&daemon, &["detach", "a"]));
    });
}

#[test]
fn a_vm_in_a_namespace_has_the_network_by_a_tap() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let room = Room::new();
        let flags = ["--tap", "tap7", "--owner", "65534", "--mtu", "1400"];
        let vm = attach(&daemon, "a", &room, &flags);
        assert_eq!(vm["attachment"]["tap"], "tap7", "{vm}");
        let ip = vm["ip"].as_str().unwrap();
        let args = vm["kernel_args"].as_str().unwrap();
        assert!(args.contains(&format!("ip={ip}::192.168.127.1:")), "{args}");
        let tap = &room.json("ip -d -j link show dev tap7")[0];
        let tun = &tap["linkinfo"]["info_data"];
        assert_eq!((&tun["vnet_hdr"], &tun["persist"]), (&json!(true), &json!(true)), "{tap}");
        assert_eq!((&tap["mtu"], &tap["ifalias"]), (&json!(1400), &json!("volnet:a.eth0")));
        assert!(tun["user"] == "nobody" || tun["user"] == 65534, "{tap}");
        assert_eq!(room.json("ip -j address show dev eth0")[0]["addr_info"], json!([]));
        // The frames of a guest behind the tap pass the rules of its port, and no others do.
        let others = Room::new();
        let other = attach(&daemon, "b", &others, &[]);
        let other = other["ip"].as_str().unwrap();
        let (own, mac) = (format!("{ip}/24"), vm["mac"].as_str().unwrap());
        let behind = |mac: &str, address: &str, to: &str| {
            let tap = room.opened(|| open_tap("tap7"));
            behind_tap(&tap, mac, || {
                run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
                run(&format!("ip address add {address} dev eth0"));
                try_run(&format!("ping -c 2 -i 0.2 -W 2 -q {to}")).0
            })
        };
        assert!(behind(mac, &own, "192.168.127.1"), "the host");
        assert!(behind(mac, &own, other), "another on the network");
        assert!(!behind(mac, "192.168.127.77/24", "192.168.127.1"), "another address");
        assert!(!behind("02:00:00:00:00:07", &own, "192.168.127.1"), "another Ethernet address");
        let id = json!({"cni": "volnet", "container": "a", "ifname": "eth0"});
        assert_eq!(daemon.call("Verify", id)["parameters"]["differences"], json!([]));
        // Detached, both names are free at once.
        let netns = room.netns();
        for _ in 0..2 {
            assert!(done(&daemon, &["detach", "a", "--netns", &netns]));
            assert!(!room.can("ip link show dev tap7"));
            attach(&daemon, "a", &room, &flags);
        }
        // A tap whose link was deleted leads nowhere. The next attach replaces it.
        room.run("ip link delete eth0");
        eventually("it is over", || vms(&daemon) == ["b.eth0"]);
        assert!(room.can("ip link show dev tap7"));
        let vm = attach(&daemon, "a", &room, &flags);
        let own = format!("{}/24", vm["ip"].as_str().unwrap());
        assert!(behind(mac, &own, "192.168.127.1"));
        // A failure leaves nothing inside: not the link, and not the tap.
        let taken = Room::new();
        taken.run("ip link add tap7 type bridge");
        let netns = taken.netns();
        assert!(!done(&daemon, &["attach", "c", "--netns", &netns, "--tap", "tap7"]));
        assert!(!taken.can("ip link show dev eth0"));
        assert_eq!(vms(&daemon), ["a.eth0", "b.eth0"]);
        room.end();
        eventually("it is over with its namespace", || vms(&daemon) == ["b.eth0"]);
    });
}

#[test]
fn a_device_for_a_tap_is_new_and_of_the_same_namespace() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let room = Room::new();
        let door = open(NetlinkFamily::Route, &room);
        let device = || room.opened(|| tun::open().expect("a device"));
        let used = room.opened(|| open_tap("other"));
        let wrong: [(&str, OwnedFd); 4] = [
            ("a file", File::open("/dev/null").unwrap().into()),
            ("our own", tun::open().unwrap().into()),
            ("used", used.into()),
            ("a socket", open(NetlinkFamily::Route, &room)),
        ];
        let attach = |descriptors: &[RawFd], places: Value| {
            attach_with(&daemon, descriptors, &json!({"tap": "tap0"}), places)
        };
        let before = run("ip -o link");
        for (what, device) in &wrong {
            let both = [door.as_raw_fd(), device.as_raw_fd()];
            let refused = attach(&both, json!({"door": 0, "tun": 1}));
            assert_eq!(refused["error"], "io.volnet.InvalidConfig", "{what}: {refused}");
            assert_eq!(refused["parameters"]["field"], "tun", "{what}: {refused}");
        }
        let refused = attach(&[door.as_raw_fd()], json!({"door": 0}));
        assert_eq!(refused["error"], "org.varlink.service.InvalidParameter", "{refused}");
        let new = device();
        let both = [door.as_raw_fd(), new.as_raw_fd()];
        let without = attach_with(&daemon, &both, &json!({}), json!({"door": 0, "tun": 1}));
        assert_eq!(without["error"], "org.varlink.service.InvalidParameter", "{without}");
        assert_eq!((vms(&daemon), run("ip -o link")), (Vec::new(), before));
        let attached = attach(&both, json!({"door": 0, "tun": 1}));
        assert_eq!(attached["parameters"]["bridge"], "vbr0", "{attached}");
        drop((door, new, wrong));
        room.end();
        eventually("no descriptor is kept", || vms(&daemon).is_empty());
    });
}

/// A call of Attach with these descriptors, and its answer.
fn attach_by(daemon: &Daemon, descriptors: &[RawFd], door: usize) -> Value {
    attach_with(daemon, descriptors, &json!({}), json!({"door": door}))
}

/// The same with more about the attachment, and the places of descriptors.
fn attach_with(daemon: &Daemon, descriptors: &[RawFd], more: &Value, places: Value) -> Value {
    let mut stream = UnixStream::connect(daemon.socket()).expect("the daemon listens");
    let mut receive = |call: Value, descriptors: &[RawFd]| {
        let message = format!("{call}\n");
        let rights = [ControlMessage::ScmRights(descriptors)];
        let rights = if descriptors.is_empty() { &[][..] } else { &rights };
        let (bytes, flags) = ([IoSlice::new(message.as_bytes())], MsgFlags::empty());
        sendmsg::<()>(stream.as_raw_fd(), &bytes, rights, flags, None).expect("it is sent");
        let mut reply = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|length| length == 1) && byte != *b"\n" {
            reply.push(byte[0]);
        }
        serde_json::from_slice::<Value>(&reply).expect("JSON")
    };
    receive(json!({"method": "org.varlink.service.GetInfo"}), &[]);
    let mut attachment = json!({"cni": "x", "container": "c", "ifname": "eth0", "netns": "/run/c"});
    attachment.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut parameters = places;
    parameters["attachment"] = attachment;
    receive(json!({"method": "io.volnet.Attach", "parameters": parameters}), descriptors)
}

#[test]
fn a_door_is_a_socket_of_rtnetlink_in_a_namespace_of_others() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let room = Room::new();
        // The first one opens what is kept for all.
        attach(&daemon, "first", &room, &[]);
        assert!(done(&daemon, &["detach", "first", "--netns", &room.netns()]));
        let before = descriptors_of(&daemon);
        let wrong: [(&str, OwnedFd); 5] = [
            ("a file", File::open("/dev/null").unwrap().into()),
            ("a namespace", File::open(room.netns()).unwrap().into()),
            ("a socket of UDP", room.opened(|| UdpSocket::bind("0.0.0.0:0").unwrap()).into()),
            ("netfilter", open(NetlinkFamily::Netfilter, &room)),
            ("our own", volnet::network::linux::socket::open(NetlinkFamily::Route).unwrap()),
        ];
        for (what, door) in &wrong {
            let refused = attach_by(&daemon, &[door.as_raw_fd()], 0);
            assert_eq!(refused["error"], "io.volnet.InvalidConfig", "{what}: {refused}");
            assert_eq!(refused["parameters"]["field"], "door", "{what}: {refused}");
        }
        let good = open(NetlinkFamily::Route, &room);
        for (descriptors, place) in [(&[][..], 0), (&[good.as_raw_fd()], 1)] {
            let refused = attach_by(&daemon, descriptors, place);
            assert_eq!(refused["error"], "org.varlink.service.InvalidParameter", "{refused}");
        }
        // What is said to be the namespace of the host has to be that.
        let of_host = |door: &OwnedFd| {
            attach_with(&daemon, &[door.as_raw_fd()], &json!({"host": true}), json!({"door": 0}))
        };
        for door in [&good, &wrong[0].1] {
            let refused = of_host(door);
            assert_eq!(refused["parameters"]["field"], "door", "{refused}");
        }
        assert_eq!(vms(&daemon), [""; 0]);
        let own = of_host(&wrong[4].1);
        let tap = own["parameters"]["vm"]["tap"].as_str().expect("a tap");
        assert_eq!(common::ip_link(tap)["address"], own["parameters"]["host_mac"]);
        assert_eq!(own["parameters"]["vm"]["attachment"]["host"], true, "{own}");
        assert!(done(&daemon, &["delete", "c.eth0"]));
        let null = wrong[0].1.as_raw_fd();
        let attached = attach_by(&daemon, &[null, null, good.as_raw_fd()], 2);
        assert_eq!(attached["parameters"]["bridge"], "vbr0", "{attached}");
        assert_eq!(room.json("ip -j link show dev eth0")[0]["operstate"], "UP");
        // No descriptor stays, so the namespace can end.
        drop((good, wrong));
        eventually("descriptors are closed", || descriptors_of(&daemon) <= before);
        room.end();
        eventually("it is over", || vms(&daemon).is_empty());
        // The link that has the name in the namespace stays as it is.
        let room = Room::new();
        room.run("ip link add eth0 type bridge");
        let refused = attach_by(&daemon, &[open(NetlinkFamily::Route, &room).as_raw_fd()], 0);
        assert_eq!(refused["error"], "io.volnet.KernelRefused", "{refused}");
        assert!(refused["parameters"]["message"].as_str().unwrap().contains("eth0 already"));
        assert_eq!((vms(&daemon), leased(&daemon)), (Vec::new(), 0));
        assert!(run("ip -o link show type veth").is_empty());
    });
}

#[test]
fn an_attach_that_is_undone_frees_the_name_inside_at_once() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let room = Room::new();
        let records = daemon.folder.join("run").display().to_string();
        run(&format!("mount --bind {records} {records}"));
        for _ in 0..5 {
            // The record is the last that is written, when the link is there.
            run(&format!("mount -o remount,bind,ro {records}"));
            let refused = attach_by(&daemon, &[open(NetlinkFamily::Route, &room).as_raw_fd()], 0);
            assert_eq!(refused["error"], "io.volnet.StateNotWritten", "{refused}");
            assert!(!room.can("ip link show dev eth0"));
            run(&format!("mount -o remount,bind,rw {records}"));
            attach(&daemon, "a", &room, &[]);
            assert!(done(&daemon, &["detach", "a", "--netns", &room.netns()]));
        }
        run(&format!("umount {records}"));
        assert_eq!((vms(&daemon), leased(&daemon)), (Vec::new(), 0));
        eventually("no link of theirs", || run("ip -o link show type veth").is_empty());
    });
}

fn open(family: NetlinkFamily, room: &Room) -> OwnedFd {
    room.opened(|| volnet::network::linux::socket::open(family).expect("a socket"))
}

fn descriptors_of(daemon: &Daemon) -> usize {
    let folder = format!("/proc/{}/fd", daemon.pid());
    std::fs::read_dir(Path::new(&folder)).expect("it runs").count()
}

#[test]
fn who_is_not_root_attaches_nothing() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let room = Room::new();
        run(&format!("chmod 777 {}", daemon.socket().display()));
        run(&format!("chmod 755 {}", daemon.folder.display()));
        let call = r#"
import array, json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
f = s.makefile("r")
s.sendall(b'{"method":"org.varlink.service.GetInfo"}\n')
f.readline()
door = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
call = {"method": "io.volnet.Attach", "parameters": {"door": 0, "attachment":
    {"cni": "x", "container": "c", "ifname": "eth0", "netns": "/run/c"}}}
message = (json.dumps(call) + "\n").encode()
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [door.fileno()]))]
try:
    s.sendmsg([message], rights)
except PermissionError:
    print("refused")
else:
    print(f.readline())
"#;
        let output = Command::new("nsenter")
            .arg(format!("--net={}", room.netns()))
            .args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["/usr/bin/python3", "-c", call])
            .arg(daemon.socket())
            .output()
            .expect("nsenter runs");
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        // The kernel refuses to pass it on, or it is closed while the message is read.
        let is_refused = answer.trim() == "refused"
            || answer.contains("PermissionDenied")
            || answer.contains("InvalidParameter");
        assert!(is_refused, "{answer} {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(vms(&daemon), [""; 0]);
    });
}

#[test]
fn fifty_come_at_once_and_go_at_once() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let rooms: Vec<Room> = (0..50).map(|_| Room::new()).collect();
        let attaching: Vec<Child> = rooms
            .iter()
            .enumerate()
            .map(|(number, room)| {
                let name = format!("pod{number}");
                client(&daemon, &["attach", &name, "--netns", &room.netns()])
                    .stdout(Stdio::null())
                    .spawn()
                    .expect("volnet runs")
            })
            .collect();
        for mut child in attaching {
            assert!(child.wait().expect("it is ours").success());
        }
        assert_eq!((vms(&daemon).len(), leased(&daemon)), (50, 50));
        assert!(rooms.iter().all(|room| room.can("ping -c 1 -W 5 -q 192.168.127.1")));
        rooms.into_iter().for_each(Room::end);
        eventually("all are over", || vms(&daemon).is_empty() && leased(&daemon) == 0);
        eventually("no link of theirs", || run("ip -o link show type veth").is_empty());
    });
}
