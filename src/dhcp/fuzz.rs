//! A host without a kernel that answers guests, for fuzzing and tests.

use std::net::{IpAddr, Ipv4Addr};

use super::DhcpQuery;
use super::handle::{Handled, handle};
use super::message::{Kind, Message, option};
use crate::engine::decide::{Engine, Outcome, Step as Requested};
use crate::model::clock::Now;
use crate::model::mac::Mac;
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::net::{NetworkConfig, Told};
use crate::model::request::Change;
use crate::model::spec::{NetworkSpec, VmSpec};
use crate::packet::v4::{self, CLIENT_PORT, Datagram, Endpoints, SERVER_PORT};

/// The name servers of the host.
const RESOLVERS: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53))];

/// An engine whose decisions always succeed.
pub(crate) struct Host {
    pub(crate) engine: Engine,
}

impl Host {
    /// A host with one network and no VM.
    pub(super) fn new(subnet: &str) -> Host {
        Host::with(subnet, Told::default())
    }

    /// The same, whose network tells guests this besides.
    #[cfg(test)]
    pub(super) fn telling(told: Told) -> Host {
        Host::with("192.168.127.0/24", told)
    }

    fn with(subnet: &str, told: Told) -> Host {
        let sample = NetworkConfig::sample("default", "vbr0", subnet, "192.168.127.1");
        Host::on(NetworkConfig { told, ..sample })
    }

    /// A host with this network, which is called `default`, and no VM.
    pub(crate) fn on(network: NetworkConfig) -> Host {
        let engine = Engine::new(vec![network], "qemu".into(), true).expect("one network");
        Host { engine }
    }

    /// Makes a VM and gives its Ethernet address.
    pub(crate) fn create(&mut self, name: &str, network: NetworkSpec) -> Mac {
        let name = VmName::new(name).expect("a name");
        let spec = Box::new(VmSpec { networks: vec![network], ..VmSpec::default() });
        let (start, dry_run, notes) = (false, false, Vec::new());
        let request = Change::Create { name: name.clone(), spec, start, dry_run, notes };
        let Ok(Requested::Do(decision)) = self.engine.request(1, &request, Now::default()) else {
            panic!("a VM can be made");
        };
        self.engine.commit(*decision, &Outcome::default(), Now::default());
        self.engine.vm(&name).ok().and_then(|vm| Some(vm.record.nics.first()?.mac)).expect("a NIC")
    }

    /// Takes a frame from a guest and returns the frame that answers it.
    pub(super) fn hear(&mut self, frame: &[u8], now: Now) -> Option<Vec<u8>> {
        let query = DhcpQuery::read(frame).ok()?;
        let reply = loop {
            match handle(&mut self.engine, "default", &query, now) {
                Handled::Nothing => return None,
                Handled::MakeRoom(decision) => {
                    self.engine.commit(decision, &Outcome::default(), now);
                }
                Handled::Do { decision, reply } => {
                    if let Some(decision) = decision {
                        self.engine.commit(decision, &Outcome::default(), now);
                    }
                    break reply?;
                }
            }
        };
        let guest = self.engine.guest("default", query.mac(), None)?;
        reply.frame(&guest, &query, &RESOLVERS)
    }
}

/// Takes any bytes as frames of guests: first as one frame, then as messages of four guests. Each
/// message has a header: a byte for its guest and its delay, and two bytes for its length. An
/// answer must be a valid answer, and no two guests may have one address. The fuzzer and the test
/// of its corpus call this.
pub fn conversation(bytes: &[u8]) {
    // The pool has one address too few.
    let mut host = Host::new("192.168.127.0/29");
    let own = ["a", "b", "c"].map(|name| host.create(name, NetworkSpec::default()));
    let asks = NetworkSpec { mode: Mode::Dhcp, ..NetworkSpec::default() };
    let asking = ["d", "e", "f"].map(|name| host.create(name, asks.clone()));
    let macs = [own[0], asking[0], asking[1], asking[2]];
    let mut now = Now { wall: 1_700_000_000_000, ..Now::default() };
    check(&mut host, bytes, now);
    let mut rest = bytes;
    while let Some((&[who, high, low], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(behind.len());
        let (payload, behind) = behind.split_at(length);
        rest = behind;
        let later = 1000 << (who >> 3);
        now = Now { wall: now.wall + later, mono: now.mono + later, boot: now.boot + later };
        let mac = macs[usize::from(who) % macs.len()];
        // Otherwise most inputs of a fuzzer would fail because of the Ethernet address.
        let mut payload = payload.to_vec();
        if let Some(chaddr) = payload.get_mut(28..34) {
            chaddr.copy_from_slice(&mac.0);
        }
        check(&mut host, &ask(mac, &payload), now);
    }
}

/// The broadcast frame with this message, from a guest without an address.
pub(super) fn ask(mac: Mac, payload: &[u8]) -> Vec<u8> {
    v4::build(&Datagram {
        addresses: Endpoints {
            from: mac,
            to: Mac([0xff; 6]),
            source: Ipv4Addr::UNSPECIFIED,
            destination: Ipv4Addr::BROADCAST,
        },
        source_port: CLIENT_PORT,
        destination_port: SERVER_PORT,
        payload,
    })
}

fn check(host: &mut Host, frame: &[u8], now: Now) {
    let asked = DhcpQuery::read(frame).ok();
    let answer = host.hear(frame, now);
    let networks = host.engine.networks();
    let held = host.engine.vms().filter_map(|vm| {
        let port = vm.record.nics.first()?;
        port.ip.or(port.lease.map(|lease| lease.ip))
    });
    let mut held: Vec<Ipv4Addr> = held.collect();
    assert_eq!(held.len(), networks[0].leased as usize, "every address is somebody's");
    held.sort();
    held.dedup();
    assert_eq!(held.len(), networks[0].leased as usize, "and nobody else's");

    let (Some(asked), Some(answer)) = (asked, answer) else { return };
    let datagram = v4::parse(&answer).expect("an answer is a frame");
    let message = Message::read(datagram.payload).expect("with a message in it");
    assert!(message.head.reply && message.head.chaddr == asked.named());
    assert_eq!(message.head.xid, asked.message.head.xid);
    assert_eq!(message.address(option::SERVER_ID), networks[0].host_ip);
    let lent = message.head.yiaddr;
    match message.kind {
        Kind::Offer | Kind::Ack if message.number(option::LEASE_TIME).is_some() => {
            assert!(held.contains(&lent), "what is lent is the guest's");
        }
        Kind::Ack | Kind::Nak => assert!(lent.is_unspecified()),
        other => panic!("{other:?} is no answer"),
    }
}
