//! Guests and the host ask for names.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use simple_dns::rdata::RData;
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use crate::common::daemon::Daemon;
use crate::common::guest::as_guest;
use crate::common::{PATIENCE, eventually, run};

/// The host on the default network.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 1);
/// How long nobody has to say anything for it to be nothing.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// Makes a VM and gives it as the interface shows it.
pub(crate) fn create(daemon: &Daemon, name: &str, network: Value) -> Value {
    let config = json!({ "network": network });
    daemon.create(json!({ "name": name, "config": config }))
}

pub(crate) fn ip(vm: &Value) -> String {
    vm["ip"].as_str().expect("an address").to_string()
}

/// Runs `body` as the guest of a bridged VM, which has its addresses.
pub(crate) fn inside<T: Send>(vm: &Value, body: impl FnOnce() -> T + Send) -> T {
    let (ip, gateway) = (ip(vm), vm["gateway"].as_str().unwrap().to_string());
    as_guest(vm, || {
        run(&format!("ip addr add {ip}/24 dev eth0"));
        run(&format!("ip route add default via {gateway}"));
        run("ip link set lo up");
        if let Some(own) = vm["ip6"].as_str() {
            eventually("an IPv6 address", || {
                let addresses = run("ip -6 addr show dev eth0");
                addresses.contains(own) && !addresses.contains("tentative")
            });
        }
        body()
    })
}

pub(crate) fn question(name: &str, kind: TYPE) -> Vec<u8> {
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
        RData::AAAA(a) => Ipv6Addr::from(a.address).to_string(),
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

/// A socket by which a server is asked.
pub(crate) fn socket_to(server: IpAddr) -> UdpSocket {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.connect((server, 53)).unwrap();
    socket
}

/// Asks a server by UDP; `None` if it says nothing for this long.
pub(crate) fn ask_for(
    patience: Duration,
    server: IpAddr,
    name: &str,
    kind: TYPE,
) -> Option<String> {
    let socket = socket_to(server);
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

/// Asks a server by UDP, which answers.
pub(crate) fn ask_of(server: IpAddr, name: &str, kind: TYPE) -> String {
    ask_for(PATIENCE, server, name, kind).expect("an answer")
}

/// Asks the gateway by UDP.
pub(crate) fn ask(name: &str, kind: TYPE) -> String {
    ask_of(GATEWAY.into(), name, kind)
}

/// Asks a server by TCP for addresses, all names on one connection.
pub(crate) fn ask_tcp_of(server: IpAddr, names: &[&str]) -> Vec<String> {
    let mut stream = TcpStream::connect((server, 53)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for name in names {
        let message = question(name, TYPE::A);
        stream.write_all(&(message.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&message).unwrap();
    }
    names.iter().map(|_| words(&receive(&mut stream).unwrap())).collect()
}

/// Asks the gateway by TCP.
pub(crate) fn ask_tcp(names: &[&str]) -> Vec<String> {
    ask_tcp_of(GATEWAY.into(), names)
}

/// A message after its length.
pub(crate) fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// The name by which the owner of an address is asked for.
pub(crate) fn reverse(ip: &str) -> String {
    match ip.parse::<IpAddr>().expect("an address") {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let digits = format!("{:032x}", ip.to_bits());
            let labels: Vec<String> = digits.chars().rev().map(String::from).collect();
            format!("{}.ip6.arpa", labels.join("."))
        }
    }
}
