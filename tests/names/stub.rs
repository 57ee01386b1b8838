//! The host, whose resolvers the test plays.

use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use serde_json::Value;
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use std::io::Write;

use crate::ask::receive;
use crate::common::daemon::Daemon;
use crate::common::{PATIENCE, run};

/// The resolver of the host, as systemd-resolved has it.
pub(crate) const STUB: &str = "127.0.0.53";
/// What a forger says.
const FORGED: [u8; 4] = [6, 6, 6, 6];
/// More addresses of the host on loopback, from which a forger sends.
const FORGERS: [&str; 2] = ["127.0.0.54", "fd00::54"];

/// A daemon on a host whose resolv.conf is this, and which can be changed.
pub(crate) fn on_a_host(resolv_conf: &str, configuration: &Value) -> Daemon {
    run("ip link set lo up");
    run(&format!("ip addr add {}/128 dev lo", FORGERS[1]));
    let mut daemon = Daemon::without(&[]);
    let file = daemon.folder.join("resolv.conf");
    std::fs::write(&file, resolv_conf).unwrap();
    run(&format!("mount --bind {} /etc/resolv.conf", file.display()));
    std::fs::write(daemon.folder.join("config.json"), configuration.to_string()).unwrap();
    daemon.start_again();
    daemon
}

/// A resolver of the host. The name says how it behaves.
pub(crate) struct Stub {
    asked: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stub {
    /// One at this address, as resolv.conf has it.
    pub(crate) fn at(address: &str) -> Stub {
        run("ip link set lo up");
        let address: SocketAddr = match address.split_once('%') {
            Some((ip, link)) => {
                let scope = if_nametoindex(link).expect("a link");
                SocketAddrV6::new(ip.parse().unwrap(), 53, 0, scope).into()
            }
            None => (address.parse::<IpAddr>().unwrap(), 53).into(),
        };
        let (asked, ended) = (Arc::default(), Arc::<AtomicBool>::default());
        let udp = UdpSocket::bind(address).unwrap();
        let tcp = TcpListener::bind(address).unwrap();
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
    pub(crate) fn asked(&self) -> Vec<String> {
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
                let own = socket.local_addr().unwrap().ip();
                let other: IpAddr = FORGERS[usize::from(own.is_ipv6())].parse().unwrap();
                for at in [(other, 53), (own, 5353)] {
                    let forger = UdpSocket::bind(at).unwrap();
                    forger.send_to(&forged(&|_| {}), from).unwrap();
                }
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
