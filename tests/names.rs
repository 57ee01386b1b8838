//! Names on the real kernel: guests in namespaces behind their taps, resolvers of the host that the
//! test plays, and machines that are no guests.

#![cfg(target_os = "linux")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use common::daemon::Daemon;
use common::guest::{Guest, as_guest};
use common::{PATIENCE, eventually, in_namespace, run};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 1);
/// The resolver of the host, as systemd-resolved has it.
const STUB: &str = "127.0.0.53";
/// How long nobody has to say anything for it to be nothing.
const SILENCE: Duration = Duration::from_millis(300);
/// What a forger says.
const FORGED: [u8; 4] = [6, 6, 6, 6];

/// Makes a VM and gives it as the interface shows it.
fn create(daemon: &Daemon, name: &str, network: Value) -> Value {
    let config = json!({ "network": network });
    daemon.create(json!({ "name": name, "config": config }))
}

fn ip(vm: &Value) -> String {
    vm["ip"].as_str().expect("an address").to_string()
}

/// Runs `body` as the guest of a bridged VM.
fn inside<T: Send>(vm: &Value, body: impl FnOnce() -> T + Send) -> T {
    let (ip, gateway) = (ip(vm), vm["gateway"].as_str().unwrap().to_string());
    as_guest(vm, || {
        run(&format!("ip addr add {ip}/24 dev eth0"));
        run(&format!("ip route add default via {gateway}"));
        run("ip link set lo up");
        body()
    })
}

fn question(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(0x2a2a);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).unwrap();
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().unwrap()
}

/// An answer in words: its code if it failed, otherwise its records.
fn words(answer: &[u8]) -> String {
    let packet = Packet::parse(answer).expect("a message");
    assert_eq!(packet.id(), 0x2a2a);
    let record = |record: &ResourceRecord| match &record.rdata {
        RData::A(a) => Ipv4Addr::from(a.address).to_string(),
        RData::AAAA(a) => std::net::Ipv6Addr::from(a.address).to_string(),
        RData::PTR(name) => name.0.to_string(),
        other => format!("{other:?}"),
    };
    let records: Vec<String> = packet.answers.iter().map(record).collect();
    assert!(packet.additional_records.is_empty(), "{:?}", packet.additional_records);
    match packet.rcode() {
        RCODE::NoError if packet.has_flags(PacketFlag::TRUNCATION) => "cut".into(),
        RCODE::NoError => records.join(" "),
        RCODE::NameError => "no name".into(),
        other => format!("{other:?}"),
    }
}

/// Asks a server by UDP; `None` if it says nothing for this long.
fn ask_for(patience: Duration, server: IpAddr, name: &str, kind: TYPE) -> Option<String> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.connect((server, 53)).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send(&question(name, kind)).unwrap();
    let mut buffer = [0; 4096];
    match socket.recv(&mut buffer) {
        Ok(length) => Some(words(&buffer[..length])),
        // Nobody listens there, or nobody answers.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => None,
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// Asks the gateway by UDP.
fn ask(name: &str, kind: TYPE) -> String {
    ask_for(PATIENCE, GATEWAY.into(), name, kind).expect("an answer")
}

/// Asks the gateway by TCP, all names on one connection.
fn ask_tcp(names: &[&str]) -> Vec<String> {
    ask_tcp_of(GATEWAY.into(), names)
}

/// The same of another server.
fn ask_tcp_of(server: IpAddr, names: &[&str]) -> Vec<String> {
    let mut stream = TcpStream::connect((server, 53)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for name in names {
        let message = question(name, TYPE::A);
        stream.write_all(&(message.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&message).unwrap();
    }
    names.iter().map(|_| words(&receive(&mut stream).unwrap())).collect()
}

/// A message after its length.
fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// A resolver of the host. The name says how it behaves.
struct Stub {
    asked: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stub {
    fn at(address: &str) -> Stub {
        run("ip link set lo up");
        let address: IpAddr = address.parse().unwrap();
        let (asked, ended) = (Arc::default(), Arc::<AtomicBool>::default());
        let udp = UdpSocket::bind((address, 53)).unwrap();
        let tcp = TcpListener::bind((address, 53)).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let by_udp = {
            let (asked, ended) = (Arc::clone(&asked), Arc::clone(&ended));
            std::thread::spawn(move || serve_udp(&udp, &asked, &ended))
        };
        let by_tcp = {
            let (asked, ended) = (Arc::clone(&asked), Arc::clone(&ended));
            std::thread::spawn(move || serve_tcp(&tcp, &asked, &ended))
        };
        Stub { asked, ended, threads: vec![by_udp, by_tcp] }
    }

    /// What it was asked since this was last called.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn address(owner: &str, ip: [u8; 4]) -> ResourceRecord<'static> {
    let data = RData::A(A { address: u32::from_be_bytes(ip) });
    ResourceRecord::new(Name::new(owner).unwrap().into_owned(), CLASS::IN, 60, data)
}

/// The honest answer to a question.
fn honest(message: &[u8], ip: [u8; 4]) -> Packet<'_> {
    let asked = Packet::parse(message).unwrap();
    let edns = asked.opt().cloned();
    let mut answer = asked.into_reply();
    *answer.opt_mut() = edns;
    answer.set_flags(PacketFlag::RECURSION_AVAILABLE);
    let question = answer.questions[0].clone();
    let name = question.qname.to_string();
    match question.qtype {
        QTYPE::TYPE(TYPE::AAAA) => {
            let data = RData::AAAA(AAAA { address: 0x2001_0db8_u128 << 96 | 5 });
            answer.answers.push(ResourceRecord::new(question.qname, CLASS::IN, 60, data));
        }
        _ => answer.answers.push(address(&name, ip)),
    }
    answer
}

fn serve_udp(socket: &UdpSocket, asked: &Mutex<Vec<String>>, ended: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !ended.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let message = &buffer[..length];
        let name = Packet::parse(message).unwrap().questions[0].qname.to_string();
        asked.lock().unwrap().push(format!("udp {name}"));
        let send = |packet: &Packet| {
            let _ = socket.send_to(&packet.build_bytes_vec_compressed().unwrap(), from);
        };
        let mut answer = honest(message, [203, 0, 113, 5]);
        let forged = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = honest(message, FORGED).build_bytes_vec_compressed().unwrap();
            change(&mut bytes);
            bytes
        };
        match name.split('.').next().unwrap() {
            "silent" => {}
            "cut" => {
                answer.answers.clear();
                answer.set_flags(PacketFlag::TRUNCATION);
                send(&answer);
            }
            "wrong-number" => {
                let _ = socket.send_to(&forged(&|bytes| bytes[0] ^= 1), from);
                send(&answer);
            }
            "wrong-question" => {
                let _ = socket.send_to(&forged(&|bytes| bytes[13] = b'X'), from);
                send(&answer);
            }
            "wrong-server" => {
                let other = UdpSocket::bind(("127.0.0.54", 53)).unwrap();
                other.send_to(&forged(&|_| {}), from).unwrap();
                let elsewhere = UdpSocket::bind(("127.0.0.53", 5353)).unwrap();
                elsewhere.send_to(&forged(&|_| {}), from).unwrap();
                send(&answer);
            }
            "guessed" => {
                for n in 0..200_u8 {
                    let _ = socket.send_to(&forged(&|bytes| bytes[1] ^= n | 1), from);
                }
            }
            "poisoned" => {
                answer.additional_records.push(address("db.volnet", FORGED));
                answer.additional_records.push(address("www.bank.example", FORGED));
                answer.name_servers.push(address("example", FORGED));
                send(&answer);
            }
            "about-us" => {
                answer.answers.clear();
                let owner = Name::new(&name).unwrap().into_owned();
                let ours = RData::CNAME(CNAME(Name::new("db.volnet").unwrap()));
                answer.answers.push(ResourceRecord::new(owner, CLASS::IN, 60, ours));
                answer.answers.push(address("db.volnet", FORGED));
                send(&answer);
            }
            "refused" => {
                answer.answers.clear();
                *answer.rcode_mut() = RCODE::Refused;
                send(&answer);
            }
            _ => send(&answer),
        }
    }
}

fn serve_tcp(listener: &TcpListener, asked: &Mutex<Vec<String>>, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::park_timeout(Duration::from_millis(5));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let Ok(message) = receive(&mut stream) else { continue };
        let name = Packet::parse(&message).unwrap().questions[0].qname.to_string();
        asked.lock().unwrap().push(format!("tcp {name}"));
        let mut answer = honest(&message, [203, 0, 113, 7]);
        if name.contains("long") {
            answer.answers.extend((0..60).map(|n| address(&name, [203, 0, 113, 100 + n])));
        }
        let bytes = answer.build_bytes_vec_compressed().unwrap();
        // In two pieces.
        let whole = [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
        let (first, second) = whole.split_at(1);
        stream.write_all(first).unwrap();
        stream.write_all(second).unwrap();
    }
}

/// A daemon on a host whose resolv.conf is this, and which can be changed.
fn on_a_host(resolv_conf: &str, configuration: &Value) -> Daemon {
    run("ip link set lo up");
    let mut daemon = Daemon::without(&[]);
    let file = daemon.folder.join("resolv.conf");
    std::fs::write(&file, resolv_conf).unwrap();
    run(&format!("mount --bind {} /etc/resolv.conf", file.display()));
    std::fs::write(daemon.folder.join("config.json"), configuration.to_string()).unwrap();
    daemon.start_again();
    daemon
}

fn reverse(ip: &str) -> String {
    let octets: Vec<&str> = ip.split('.').rev().collect();
    format!("{}.in-addr.arpa", octets.join("."))
}

#[test]
fn guests_find_each_other_as_they_come_and_go() {
    in_namespace(|| {
        let mut daemon = on_a_host("nameserver 127.0.0.53\n", &json!({}));
        let stub = Stub::at(STUB);
        let web = create(&daemon, "web", json!({}));
        assert!(web["kernel_args"].as_str().unwrap().ends_with(":off:192.168.127.1"), "{web}");
        let db = create(&daemon, "Db.1_x", json!({}));
        let asks = create(&daemon, "asks", json!({ "mode": "dhcp" }));
        let before = inside(&web, || ask("asks.volnet", TYPE::A));
        assert_eq!(before, "", "it has no address yet");
        let lease = Guest::of(&asks).get_lease(GATEWAY);
        let again = inside(&web, || {
            for name in ["Db.1_x.volnet", "db.1_x.VOLNET", "db-1-x.volnet", "db-1-x"] {
                assert_eq!(ask(name, TYPE::A), ip(&db), "{name}");
            }
            assert_eq!(ask("db-1-x.volnet", TYPE::AAAA), "");
            assert_eq!(ask(&reverse(&ip(&db)), TYPE::PTR), "Db.1_x.volnet");
            assert_eq!(ask("gateway.volnet", TYPE::A), GATEWAY.to_string());
            assert_eq!(ask(&reverse(&GATEWAY.to_string()), TYPE::PTR), "gateway.volnet");
            assert_eq!(ask("nobody.volnet", TYPE::A), "no name");
            assert_eq!(ask("asks.volnet", TYPE::A), lease.to_string());
            let names = ["web.volnet", "nobody.volnet", "gateway", "db-1-x"];
            assert_eq!(ask_tcp(&names), [&ip(&web), "no name", &GATEWAY.to_string(), &ip(&db)]);
            daemon.call("Delete", json!({ "name": "Db.1_x" }));
            assert_eq!(ask("db-1-x.volnet", TYPE::A), "no name");
            assert_eq!(ask(&reverse(&ip(&db)), TYPE::PTR), "no name");
            let again = create(&daemon, "db-1-x", json!({}));
            assert_eq!(ask("db-1-x.volnet", TYPE::A), ip(&again));
            again
        });
        daemon.crash();
        daemon.start_again();
        inside(&web, || {
            assert_eq!(ask("db-1-x.volnet", TYPE::A), ip(&again), "after a restart");
            assert_eq!(ask_tcp(&["asks.volnet"]), [lease.to_string()]);
        });
        let host = |name| ask_for(PATIENCE, GATEWAY.into(), name, TYPE::A);
        assert_eq!(host("web.volnet"), Some(ip(&web)), "the host asks");
        assert_eq!(host("www.example.com"), Some("Refused".into()), "it has its own resolver");
        assert_eq!(stub.asked(), [""; 0], "nothing of this left the host");
        daemon.call("Teardown", json!({ "force": true }));
        daemon.call("Setup", json!({}));
        let web = create(&daemon, "web", json!({}));
        inside(&web, || assert_eq!(ask("web.volnet", TYPE::A), ip(&web), "on the new bridge"));
    });
}

#[test]
fn names_are_answered_by_ipv6() {
    in_namespace(|| {
        let daemon = on_a_host(
            "nameserver 127.0.0.53\n",
            &json!({ "networks": [{ "ipv6": true },
                { "name": "other", "bridge": "vbr1", "subnet": "10.9.0.0/24", "ipv6": true }] }),
        );
        let stub = Stub::at(STUB);
        let networks = daemon.call("Networks", json!({}))["parameters"]["networks"].take();
        let host = |at: usize| networks[at]["host_ip6"].as_str().expect("an address").to_string();
        assert_eq!(networks[0]["name_servers"], json!([GATEWAY.to_string(), host(0)]));
        let [server, elsewhere] = [0, 1].map(|at| host(at).parse::<IpAddr>().unwrap());
        let (web, db) = (create(&daemon, "web", json!({})), create(&daemon, "db", json!({})));
        let ask = |name: &str, kind| ask_for(PATIENCE, server, name, kind).expect("an answer");
        inside(&web, || {
            eventually("an address and a router", || {
                let addresses = run("ip -6 addr show dev eth0");
                let own = web["ip6"].as_str().expect("an address");
                addresses.contains(own) && !addresses.contains("tentative")
            });
            assert_eq!(ask("db.volnet", TYPE::A), ip(&db));
            assert_eq!(ask("db.volnet", TYPE::AAAA), db["ip6"]);
            assert_eq!(ask("gateway.volnet", TYPE::AAAA), server.to_string());
            assert_eq!(ask("nobody.volnet", TYPE::AAAA), "no name");
            assert_eq!(stub.asked(), [""; 0]);
            assert_eq!(ask("www.example", TYPE::A), "203.0.113.5");
            assert_eq!(ask_tcp_of(server, &["db.volnet", "nobody.volnet"]), [&ip(&db), "no name"]);
            let nothing = ask_for(SILENCE, elsewhere, "db.volnet", TYPE::A);
            assert_eq!(nothing, None, "the host answers on its address in the network alone");
        });
        // The host itself.
        assert_eq!(ask("db.volnet", TYPE::AAAA), db["ip6"]);
        assert_eq!(
            ask_tcp_of(elsewhere, &["db.volnet", "gateway.volnet"]),
            ["no name", "10.9.0.1"]
        );
    });
}

#[test]
fn a_question_from_an_address_that_moves_is_answered_if_it_does_not_matter_who_asks() {
    in_namespace(|| {
        let daemon = on_a_host("nameserver 127.0.0.53\n", &json!({}));
        let moves = "192.168.127.200";
        let one = create(&daemon, "one", json!({ "addresses": [moves] }));
        create(&daemon, "two", json!({ "addresses": [moves] }));
        as_guest(&one, || {
            run(&format!("ip addr add {moves}/24 dev eth0"));
            assert_eq!(ask("one.volnet", TYPE::A), ip(&one));
            daemon.call("SetPolicy", json!({ "name": "two", "policy": "none" }));
            assert_eq!(ask_for(SILENCE, GATEWAY.into(), "one.volnet", TYPE::A), None);
            daemon.call("Delete", json!({ "name": "two" }));
            assert_eq!(ask("one.volnet", TYPE::A), ip(&one));
        });
    });
}

#[test]
fn nobody_but_the_guests_of_the_network_is_answered() {
    in_namespace(|| {
        let daemon = on_a_host(
            "nameserver 127.0.0.53\n",
            &json!({ "networks": [{}, { "name": "lab", "bridge": "vbr1",
                "subnet": "10.9.0.0/24" }, { "name": "off", "bridge": "vbr2",
                "subnet": "10.10.0.0/24", "dns": "off" }] }),
        );
        let _stub = Stub::at(STUB);
        let web = create(&daemon, "web", json!({}));
        let alone = create(&daemon, "alone", json!({ "isolated": true }));
        let lab = create(&daemon, "lab", json!({ "name": "lab" }));
        let off = create(&daemon, "off", json!({ "name": "off" }));
        inside(&web, || {
            assert_eq!(ask("lab.volnet", TYPE::A), "no name", "it is on another network");
            let other = Ipv4Addr::new(10, 9, 0, 1);
            assert_eq!(ask_for(SILENCE, other.into(), "lab.volnet", TYPE::A), None);
        });
        inside(&alone, || {
            assert_eq!(ask("web.volnet", TYPE::A), "no name");
            assert_eq!(ask(&reverse(&ip(&web)), TYPE::PTR), "no name");
            assert_eq!(ask("alone.volnet", TYPE::A), ip(&alone));
        });
        inside(&lab, || {
            let own = Ipv4Addr::new(10, 9, 0, 1).into();
            assert_eq!(ask_for(PATIENCE, own, "lab.volnet", TYPE::A), Some(ip(&lab)));
            assert_eq!(ask_for(PATIENCE, own, "web.volnet", TYPE::A), Some("no name".into()));
        });
        inside(&off, || {
            let own = Ipv4Addr::new(10, 10, 0, 1).into();
            assert_eq!(ask_for(SILENCE, own, "off.volnet", TYPE::A), None);
        });
        // A machine of the world that routes to the network by the host, and one on the bridge.
        run("ip link add world type veth peer name outside");
        run("ip addr add 198.51.100.1/24 dev world");
        run("ip link set world up");
        run("ip link add cable type veth peer name plugged");
        run("ip link set cable master vbr0 up");
        let (give, take) = std::sync::mpsc::channel();
        let (ready, go) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                give.send(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid())).unwrap();
                go.recv().unwrap();
                run("ip addr add 198.51.100.2/24 dev outside");
                run("ip link set outside up");
                run("ip route add default via 198.51.100.1");
                assert_eq!(ask_for(SILENCE, GATEWAY.into(), "web.volnet", TYPE::A), None);
                let at: SocketAddr = (GATEWAY, 53).into();
                assert!(TcpStream::connect_timeout(&at, SILENCE).is_err());
                run("ip addr add 192.168.127.200/24 dev plugged");
                run("ip link set plugged up");
                assert!(run("ping -c 1 -W 5 192.168.127.1").contains("1 received"));
                assert_eq!(ask_for(SILENCE, GATEWAY.into(), "web.volnet", TYPE::A), None);
            });
            let namespace = take.recv().unwrap();
            let tid = namespace.split('/').nth(4).unwrap();
            for link in ["outside", "plugged"] {
                run(&format!("ip link set {link} netns {tid}"));
            }
            ready.send(()).unwrap();
        });
        assert_eq!(
            daemon.call("List", json!({}))["parameters"]["vms"].as_array().unwrap().len(),
            4
        );
    });
}

#[test]
fn names_of_the_world_come_from_the_resolvers_of_the_host() {
    in_namespace(|| {
        let daemon = on_a_host("nameserver 127.0.0.53\n", &json!({}));
        let (stub, six) = (Stub::at(STUB), Stub::at("::1"));
        let web = create(&daemon, "web", json!({}));
        create(&daemon, "db", json!({}));
        inside(&web, || {
            assert_eq!(ask("www.world.example", TYPE::A), "203.0.113.5");
            assert_eq!(ask("www.world.example", TYPE::AAAA), "2001:db8::5");
            assert_eq!(stub.asked(), ["udp www.world.example"; 2]);
            assert_eq!(ask("cut.world.example", TYPE::A), "203.0.113.7", "by TCP");
            assert_eq!(stub.asked(), ["udp cut.world.example", "tcp cut.world.example"]);
            assert_eq!(ask("cut.long.example", TYPE::A), "cut", "it does not fit");
            let by_tcp = ask_tcp(&["cut.long.example", "www.world.example"]);
            assert!(by_tcp.iter().any(|it| it.split(' ').count() == 61), "{by_tcp:?}");
            assert!(by_tcp.contains(&"203.0.113.5".into()), "{by_tcp:?}");
            stub.asked();
            for name in ["wrong-number.example", "wrong-question.example", "wrong-server.example"] {
                assert_eq!(ask(name, TYPE::A), "203.0.113.5", "{name}");
            }
            stub.asked();
            assert_eq!(ask("guessed.example", TYPE::A), "203.0.113.7", "who guesses loses");
            assert_eq!(stub.asked(), ["udp guessed.example", "tcp guessed.example"]);
            let own = ask("db.volnet", TYPE::A);
            assert_eq!(ask("poisoned.example", TYPE::A), "203.0.113.5");
            assert_eq!(ask("about-us.example", TYPE::A), "ServerFailure");
            assert_eq!(ask("db.volnet", TYPE::A), own, "it is what it was");
            assert_eq!(ask("refused.example", TYPE::A), "Refused");
            // The host gets another resolver.
            std::fs::write("/etc/resolv.conf", "nameserver ::1\n").unwrap();
            eventually("the new one is asked", || {
                ask("www.world.example", TYPE::A) == "203.0.113.5" && !six.asked().is_empty()
            });
            std::fs::write("/etc/resolv.conf", "nameserver 127.0.0.77\nnameserver ::1\n").unwrap();
            eventually("one that is not there is passed over", || {
                ask("www.world.example", TYPE::A) == "203.0.113.5"
            });
            std::fs::write("/etc/resolv.conf", "nameserver 192.168.127.1\n").unwrap();
            eventually("we do not ask ourselves", || {
                ask("www.world.example", TYPE::A) == "ServerFailure"
            });
        });
    });
}

#[test]
fn a_policy_decides_what_names_leave_the_host() {
    in_namespace(|| {
        let daemon = on_a_host("nameserver 127.0.0.53\n", &json!({}));
        let stub = Stub::at(STUB);
        let web = create(&daemon, "web", json!({ "policy": "none" }));
        inside(&web, || {
            assert_eq!(ask("web.volnet", TYPE::A), ip(&web));
            assert_eq!(ask("www.world.example", TYPE::A), "Refused");
            assert_eq!(stub.asked(), [""; 0]);
            daemon.call("SetPolicy", json!({ "name": "web", "policy": "internet" }));
            assert_eq!(ask("www.world.example", TYPE::A), "203.0.113.5");
            assert_eq!(ask("db.corp.internal", TYPE::A), "no name");
            assert_eq!(stub.asked(), ["udp www.world.example"]);
            daemon.call("SetPolicy", json!({ "name": "web", "policy": "open" }));
            assert_eq!(ask("db.corp.internal", TYPE::A), "203.0.113.5");
        });
    });
}

#[test]
fn one_who_asks_without_end_takes_nothing_from_others() {
    in_namespace(|| {
        let daemon = on_a_host("nameserver 127.0.0.53\n", &json!({}));
        let _stub = Stub::at(STUB);
        let (greedy, web) =
            (create(&daemon, "greedy", json!({})), create(&daemon, "web", json!({})));
        let done = AtomicBool::new(false);
        let descriptors = || {
            let folder = format!("/proc/{}/fd", daemon.pid());
            std::fs::read_dir(folder).unwrap().count()
        };
        let before = descriptors();
        std::thread::scope(|scope| {
            let _ended = Ended(&done);
            let flood = scope.spawn(|| {
                inside(&greedy, || {
                    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
                    socket.connect((GATEWAY, 53)).unwrap();
                    let idle: Vec<_> =
                        (0..40).map(|_| TcpStream::connect((GATEWAY, 53)).unwrap()).collect();
                    let mut sent = 0_u64;
                    while !done.load(Ordering::Relaxed) {
                        let name = format!("silent.{sent}.example");
                        let _ = socket.send(&question(&name, TYPE::A));
                        let _ = socket.send(&[0xff; 40]);
                        let _ = socket.send(&question("greedy.volnet", TYPE::A));
                        sent += 1;
                    }
                    drop(idle);
                    sent
                })
            });
            inside(&web, || {
                eventually("the flood is there", || descriptors() >= before + 64);
                for _ in 0..50 {
                    assert_eq!(ask("web.volnet", TYPE::A), ip(&web));
                    assert_eq!(ask("www.world.example", TYPE::A), "203.0.113.5");
                }
                assert_eq!(ask_tcp(&["web.volnet"]), [ip(&web)]);
                let most = before + 64 + 8 + 16;
                assert!(descriptors() <= most, "{} of {most}", descriptors());
                let vms = daemon.call("List", json!({}));
                assert_eq!(vms["parameters"]["vms"].as_array().unwrap().len(), 2);
                // A resolver that never answers: the guest is told so.
                assert_eq!(ask("silent.example", TYPE::A), "ServerFailure");
            });
            done.store(true, Ordering::Relaxed);
            assert!(flood.join().unwrap() > 1000);
        });
        eventually("all sockets are closed", || descriptors() <= before + 4);
    });
}

/// Ends a flood, also if the test fails.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn guests_are_told_who_answers() {
    in_namespace(|| {
        let mut daemon = on_a_host(
            "nameserver 127.0.0.53\nnameserver 192.0.2.7\n",
            &json!({ "networks": [{ "domain": "vm.example" },
                { "name": "list", "bridge": "vbr1", "subnet": "10.9.0.0/24",
                  "dns": ["192.0.2.53", "2001:db8::53"] },
                { "name": "own", "bridge": "vbr2", "subnet": "10.10.0.0/24",
                  "host_services": ["udp/53"] }] }),
        );
        let args = |vm: Value| vm["kernel_args"].as_str().unwrap().to_string();
        let told = |daemon: &Daemon, network: &str| {
            let guest = Guest::of(&create(daemon, "x", json!({ "name": network, "mode": "dhcp" })));
            guest.discover();
            let told = guest.hear();
            daemon.call("Delete", json!({ "name": "x" }));
            (told.dns, told.domain)
        };
        assert_eq!(told(&daemon, "default"), (vec![192, 168, 127, 1], "vm.example".into()));
        assert_eq!(told(&daemon, "list"), (vec![192, 0, 2, 53], String::new()));
        assert_eq!(told(&daemon, "own"), (vec![192, 0, 2, 7], String::new()));
        let list = args(create(&daemon, "list", json!({ "name": "list" })));
        assert!(list.ends_with(":off:192.0.2.53"), "{list}");
        let networks = daemon.call("Networks", json!({}))["parameters"]["networks"].take();
        let shown =
            |at: usize| (networks[at]["name_servers"].clone(), networks[at]["domain"].clone());
        assert_eq!(shown(0), (json!(["192.168.127.1"]), json!("vm.example")));
        assert_eq!(shown(1), (json!(["192.0.2.53", "2001:db8::53"]), Value::Null));
        assert_eq!(shown(2), (json!(["192.0.2.7"]), Value::Null));
        daemon.stop();
        // A name server of the host has the port.
        let taken = UdpSocket::bind(("0.0.0.0", 53)).unwrap();
        daemon.start_again();
        let findings = daemon.call("Check", json!({}))["parameters"]["findings"].to_string();
        assert!(findings.contains("its guests cannot ask volnet for names: port 53"), "{findings}");
        assert_eq!(told(&daemon, "default").0, [192, 0, 2, 7], "they are told what works");
        drop(taken);
    });
}
