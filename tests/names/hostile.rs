//! Guests that ask without end or for what is not theirs, forgers of answers, and machines that are
//! no guests: by IPv4 and by IPv6, and with resolvers of the host of either family.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use simple_dns::TYPE;

use crate::ask::{
    SILENCE, ask, ask_for, ask_of, ask_tcp_of, create, inside, ip, question, receive, reverse,
    socket_to,
};
use crate::common::daemon::Daemon;
use crate::common::{PATIENCE, eventually, in_namespace, json as tool, run, try_run};
use crate::stub::{STUB, Stub, on_a_host};

/// A daemon whose default network has both families, and these more.
fn of_both(more: &[Value]) -> Daemon {
    let mut networks = vec![json!({ "ipv6": true })];
    networks.extend_from_slice(more);
    on_a_host("nameserver 127.0.0.53\n", &json!({ "networks": networks }))
}

/// The host on a network, by its place in the settings: its addresses of both families.
fn host_on(daemon: &Daemon, at: usize) -> [IpAddr; 2] {
    let network = daemon.call("Networks", json!({}))["parameters"]["networks"][at].take();
    ["host_ip", "host_ip6"].map(|field| network[field].as_str().expect(field).parse().unwrap())
}

fn ip6(vm: &Value) -> &str {
    vm["ip6"].as_str().expect("an IPv6 address")
}

#[test]
fn who_forges_answers_is_not_believed() {
    in_namespace(|| {
        let daemon = of_both(&[]);
        let servers = host_on(&daemon, 0);
        let resolvers = [STUB, "::1"].map(|at| (at, Stub::at(at)));
        let (web, db) = (create(&daemon, "web", json!({})), create(&daemon, "db", json!({})));
        inside(&web, || {
            for (at, stub) in &resolvers {
                std::fs::write("/etc/resolv.conf", format!("nameserver {at}\n")).unwrap();
                eventually("it is asked", || {
                    ask("www.example", TYPE::A);
                    !stub.asked().is_empty()
                });
                for server in servers {
                    forge(server, stub, &db);
                }
            }
        });
    });
}

/// Asks this server, whose resolver behaves as the names say.
fn forge(server: IpAddr, stub: &Stub, db: &Value) {
    let ask = |name: &str| ask_of(server, name, TYPE::A);
    for name in ["wrong-number.example", "wrong-question.example", "wrong-server.example"] {
        assert_eq!(ask(name), "203.0.113.5", "{name}");
    }
    stub.asked();
    assert_eq!(ask("guessed.example"), "203.0.113.7", "who guesses loses");
    assert_eq!(stub.asked(), ["udp guessed.example", "tcp guessed.example"]);
    assert_eq!(ask("poisoned.example"), "203.0.113.5");
    assert_eq!(ask("about-us.example"), "ServerFailure");
    assert_eq!(ask("db.volnet"), ip(db), "it is what it was");
    assert_eq!(ask_of(server, "db.volnet", TYPE::AAAA), ip6(db));
    assert_eq!(ask("refused.example"), "Refused");
    assert_eq!(ask("cut.example"), "203.0.113.7");
    assert_eq!(ask("cut.long.example"), "cut", "it does not fit");
    let whole = ask_tcp_of(server, &["cut.long.example"]);
    assert_eq!(whole[0].split(' ').count(), 61, "{whole:?}");
}

#[test]
fn nobody_but_the_guests_of_the_network_is_answered() {
    in_namespace(|| {
        let daemon = of_both(&[
            json!({ "name": "lab", "bridge": "vbr1", "subnet": "10.9.0.0/24", "ipv6": true }),
            json!({ "name": "off", "bridge": "vbr2", "subnet": "10.10.0.0/24", "ipv6": true,
                "dns": "off" }),
        ]);
        let _stub = Stub::at(STUB);
        let web = create(&daemon, "web", json!({}));
        let alone = create(&daemon, "alone", json!({ "isolated": true }));
        let lab = create(&daemon, "lab", json!({ "name": "lab" }));
        let off = create(&daemon, "off", json!({ "name": "off" }));
        let [own, of_lab, of_off] = [0, 1, 2].map(|at| host_on(&daemon, at));
        inside(&web, || {
            for server in own {
                let ask = |name: &str, kind| ask_of(server, name, kind);
                assert_eq!(ask("lab.volnet", TYPE::AAAA), "no name", "it is on another network");
                // The owner of another network's address is nobody here.
                for address in [&*ip(&lab), ip6(&lab)] {
                    assert_eq!(ask(&reverse(address), TYPE::PTR), "203.0.113.5");
                }
            }
            for server in of_lab {
                assert_eq!(ask_for(SILENCE, server, "lab.volnet", TYPE::A), None);
            }
        });
        inside(&alone, || {
            for server in own {
                let ask = |name: &str, kind| ask_of(server, name, kind);
                assert_eq!(ask("web.volnet", TYPE::AAAA), "no name");
                for address in [&*ip(&web), ip6(&web)] {
                    assert_eq!(ask(&reverse(address), TYPE::PTR), "no name");
                }
                assert_eq!(ask("alone.volnet", TYPE::AAAA), ip6(&alone));
            }
        });
        inside(&lab, || {
            for server in of_lab {
                assert_eq!(ask_of(server, "lab.volnet", TYPE::A), ip(&lab));
                assert_eq!(ask_of(server, "web.volnet", TYPE::A), "no name");
            }
        });
        inside(&off, || {
            for server in of_off {
                assert_eq!(ask_for(SILENCE, server, "off.volnet", TYPE::A), None);
            }
        });
        strangers_are_not_answered(own, ip6(&web));
        assert_eq!(
            daemon.call("List", json!({}))["parameters"]["vms"].as_array().unwrap().len(),
            4
        );
    });
}

/// A machine of the world that routes to the network by the host, and one on the bridge.
fn strangers_are_not_answered(servers: [IpAddr; 2], guest: &str) {
    let prefix = guest.parse::<Ipv6Addr>().unwrap().to_bits() >> 64 << 64;
    let absent = Ipv6Addr::from_bits(prefix | 0x0123_4567_89ab_cdef);
    run("ip link add world type veth peer name outside");
    run("ip addr add 198.51.100.1/24 dev world");
    run("ip addr add 2001:db8:51::1/64 dev world nodad");
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
            run("ip addr add 2001:db8:51::2/64 dev outside nodad");
            run("ip link set outside up");
            run("ip route add default via 198.51.100.1");
            run("ip -6 route add default via 2001:db8:51::1");
            let silent = || {
                for server in servers {
                    assert_eq!(ask_for(SILENCE, server, "web.volnet", TYPE::A), None);
                    // Whoever is on the bridge has a connection, which ends at once.
                    let at: SocketAddr = (server, 53).into();
                    if let Ok(mut stream) = TcpStream::connect_timeout(&at, SILENCE) {
                        stream.set_read_timeout(Some(PATIENCE)).unwrap();
                        let heard = receive(&mut stream).map_err(|error| error.kind());
                        assert!(heard.is_err_and(|it| it != ErrorKind::WouldBlock));
                    }
                }
            };
            for own in ["198.51.100.1", "2001:db8:51::1"] {
                eventually("the way to the host", || ping(own));
            }
            silent();
            run("ip addr add 192.168.127.200/24 dev plugged");
            run(&format!("ip addr add {absent}/64 dev plugged nodad"));
            run("ip link set plugged up");
            for server in servers {
                eventually("the host on the bridge", || ping(&server.to_string()));
            }
            silent();
        });
        let namespace = take.recv().unwrap();
        let tid = namespace.split('/').nth(4).unwrap();
        for link in ["outside", "plugged"] {
            run(&format!("ip link set {link} netns {tid}"));
        }
        ready.send(()).unwrap();
    });
}

fn ping(address: &str) -> bool {
    try_run(&format!("ping -q -c 1 -W 1 {address}")).0
}

#[test]
fn one_who_asks_without_end_takes_nothing_from_others() {
    in_namespace(|| {
        let daemon = of_both(&[]);
        let (servers, _stub) = (host_on(&daemon, 0), Stub::at(STUB));
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
            let flood = scope.spawn(|| inside(&greedy, || flood(servers, &done)));
            inside(&web, || {
                eventually("the flood is there", || descriptors() >= before + 64);
                // On a machine that is busy with other things, a question may be lost.
                let ask = |server, name: &str| {
                    let ask = |_| ask_for(PATIENCE, server, name, TYPE::A);
                    (0..ATTEMPTS).find_map(ask).expect("an answer")
                };
                for server in servers {
                    for _ in 0..50 {
                        assert_eq!(ask(server, "web.volnet"), ip(&web));
                        assert_eq!(ask(server, "www.example"), "203.0.113.5");
                    }
                    assert_eq!(ask_tcp_of(server, &["web.volnet"]), [ip(&web)]);
                }
                let most = before + 64 + 8 + 16;
                assert!(descriptors() <= most, "{} of {most}", descriptors());
                let vms = daemon.call("List", json!({}));
                assert_eq!(vms["parameters"]["vms"].as_array().unwrap().len(), 2);
                // A resolver that never answers: the guest is told so.
                for server in servers {
                    assert_eq!(ask(server, "silent.example"), "ServerFailure");
                }
            });
            done.store(true, Ordering::Relaxed);
            assert!(flood.join().unwrap() > 1000);
        });
        eventually("all sockets are closed", || descriptors() <= before + 4);
    });
}

/// Asks both servers, and says how often, until it is done.
fn flood(servers: [IpAddr; 2], done: &AtomicBool) -> u64 {
    let connect = |n: usize| TcpStream::connect((servers[n % 2], 53)).unwrap();
    let idle: Vec<_> = (0..40).map(connect).collect();
    let sockets = servers.map(socket_to);
    let mut sent = 0_u64;
    while !done.load(Ordering::Relaxed) {
        for socket in &sockets {
            let name = format!("silent.{sent}.example");
            let _ = socket.send(&question(&name, TYPE::A));
            let _ = socket.send(&[0xff; 40]);
            let _ = socket.send(&question("greedy.volnet", TYPE::A));
            sent += 1;
        }
    }
    drop(idle);
    sent
}

/// How often a resolver asks (`attempts`, resolv.conf(5)).
const ATTEMPTS: usize = 2;

/// Ends a flood, also if the test fails.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many questions a guest may ask at once, and a second, by each family.
const BURST: usize = 1000;
/// Names that one guest asks for, each once.
const NAMES: usize = 10_000;

#[test]
fn a_guest_asks_a_thousand_a_second_whatever_its_addresses() {
    in_namespace(|| {
        let daemon = of_both(&[]);
        let servers = host_on(&daemon, 0);
        let more = ["192.168.127.200", "192.168.127.201", "192.168.127.202"];
        let vm = create(&daemon, "web", json!({ "addresses": more }));
        let prefix = ip6(&vm).parse::<Ipv6Addr>().unwrap().to_bits() >> 64 << 64;
        let made = [1, 2, 3].map(|n| Ipv6Addr::from_bits(prefix + 0x1234_5678_9abc_def0 + n));
        inside(&vm, || {
            for ip in more {
                run(&format!("ip addr add {ip}/24 dev eth0"));
            }
            for ip in made {
                run(&format!("ip addr add {ip}/64 dev eth0"));
            }
            let own = |of: [String; 4]| of.map(|ip| ip.parse::<IpAddr>().unwrap());
            let [a, b, c] = more.map(String::from);
            let [d, e, f] = made.map(|ip| ip.to_string());
            let sources = [own([ip(&vm), a, b, c]), own([ip6(&vm).into(), d, e, f])];
            eventually("it has them", || {
                let addresses = run("ip -6 addr show dev eth0");
                let all = made.iter().all(|ip| addresses.contains(&ip.to_string()));
                all && !addresses.contains("tentative")
            });
            for (server, sources) in servers.into_iter().zip(sources) {
                assert_rate(server, &sources);
            }
        });
        // Each family counts for itself, and all addresses of a guest together.
        for family in ["ip", "ip6"] {
            let set = tool(&format!("nft -j list set {family} volnet questions"));
            let counted = set["nftables"][1]["set"]["elem"].as_array().map_or(0, Vec::len);
            assert_eq!(counted, 1, "{set}");
        }
    });
}

/// Questions that a socket keeps while the daemon has no processor. A socket that got no other
/// size keeps 212,992 bytes (socket(7), `rmem_default`), and a short datagram takes 768 of them.
const PIECE: usize = 100;
/// How long a piece waits for its next answer before it is taken as dropped.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks from each of these addresses, and counts the answers.
fn assert_rate(server: IpAddr, sources: &[IpAddr]) {
    let open = |source: &IpAddr| {
        let socket = UdpSocket::bind((*source, 0)).unwrap();
        socket.connect((server, 53)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let sockets: Vec<_> = sources.iter().map(open).collect();
    let (began, mut answered, mut buffer) = (Instant::now(), vec![0; sockets.len()], [0; 512]);
    let mut hear = |answered: &mut [usize]| {
        let mut more = 0;
        for (socket, count) in sockets.iter().zip(answered) {
            while socket.recv(&mut buffer).is_ok() {
                *count += 1;
                more += 1;
            }
        }
        more
    };
    for begin in (0..2 * BURST * sockets.len()).step_by(PIECE) {
        for number in begin..begin + PIECE {
            let socket = &sockets[number % sockets.len()];
            let _ = socket.send(&question("web.volnet", TYPE::A));
        }
        let (mut count, mut heard) = (0, Instant::now());
        while count < PIECE && heard.elapsed() < PAUSE {
            match hear(&mut answered) {
                0 => thread::sleep(PAUSE / 20),
                more => (count, heard) = (count + more, Instant::now()),
            }
        }
    }
    // What is asked last is answered last.
    eventually("it may ask again", || {
        let told = ask_for(SILENCE, server, "web.volnet", TYPE::A).is_some();
        hear(&mut answered);
        told
    });
    let elapsed = began.elapsed();
    let most = BURST + (elapsed.as_secs_f64() * BURST as f64) as usize + 10;
    let all: usize = answered.iter().sum();
    assert!((BURST / 2..=most).contains(&all), "{server}: {answered:?}, at most {most}");
    assert!(answered.iter().all(|count| *count > 0), "{answered:?}");
}

#[test]
fn ten_thousand_names_leave_nothing_behind() {
    in_namespace(|| {
        let daemon = of_both(&[]);
        let (servers, _stub) = (host_on(&daemon, 0), Stub::at(STUB));
        let vm = create(&daemon, "web", json!({}));
        let resident = || -> usize {
            let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it runs");
            line.split_whitespace().nth(1).expect("a number").parse().unwrap()
        };
        inside(&vm, || {
            let round = |begin: usize| {
                for number in begin..begin + NAMES {
                    let server = servers[number % 2];
                    let name = match number % 3 {
                        0 => format!("n{number}.volnet"),
                        1 => format!("n{number}.example"),
                        _ => format!("silent.n{number}.example"),
                    };
                    let _ = socket_to(server).send(&question(&name, TYPE::A));
                }
                eventually("it is asked and answers", || {
                    servers
                        .iter()
                        .all(|server| ask_for(SILENCE, *server, "web.volnet", TYPE::A).is_some())
                });
            };
            round(0);
            let before = resident();
            round(NAMES);
            let after = resident();
            assert!(after < before + 1024, "{before} KiB, then {after}");
        });
    });
}
