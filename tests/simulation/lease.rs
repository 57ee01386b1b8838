//! Guests that ask for their address, and what they were told.
//!
//! An acknowledgement is a promise like any other reply: until its time is over the address is that
//! guest's, whatever happens to the daemon, to the host and to its clock. As long as the guest runs
//! its time is not over.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use volnet::dhcp::frame::{self, CLIENT_PORT, Datagram, Endpoints, SERVER_PORT};
use volnet::dhcp::message::{Head, Kind, Message, Writer, option};
use volnet::model::mac::Mac;
use volnet::model::name::VmName;
use volnet::model::view::VmView;

/// What a guest does about its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It asks for one, and takes what is offered.
    Get,
    /// It wants to keep the one it has.
    Renew,
    /// It gives it back.
    Release,
}

/// A NIC: its VM's name, when that was made, and its Ethernet address.
pub(crate) type Whose = (VmName, u64, Mac);

/// What guests were told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases(BTreeMap<Whose, Told>);

/// What one guest was told.
#[derive(Clone, Copy, Debug)]
struct Told {
    ip: Ipv4Addr,
    /// When that is over, by the time that nobody can set, in milliseconds.
    until: u64,
    /// When its hypervisor had been started, if one ran.
    started: Option<u64>,
}

impl Leases {
    /// A guest is answered.
    pub(crate) fn told(
        &mut self,
        whose: &Whose,
        answer: &DhcpAnswer,
        started: Option<u64>,
        now: u64,
    ) {
        match answer.kind {
            Kind::Ack => {
                let until = now + u64::from(answer.seconds) * 1000;
                self.0.insert(whose.clone(), Told { ip: answer.ip, until, started });
            }
            Kind::Nak => drop(self.0.remove(whose)),
            _ => {}
        }
    }

    /// A guest gives back what it has.
    pub(crate) fn given_back(&mut self, whose: &Whose) {
        self.0.remove(whose);
    }

    /// Finds what is not as guests were told.
    pub(crate) fn check(&self, views: &[VmView], now: u64, wrong: &mut Vec<String>) {
        for vm in views {
            for nic in &vm.nics {
                let told = self.0.get(&(vm.name.clone(), vm.created_at, nic.mac));
                let Some(Told { ip, until, started }) = told else { continue };
                let runs = vm.pid.is_some() && started.is_some() && *started == vm.started_at;
                if (*until > now || runs) && nic.ip != Some(*ip) {
                    let name = &vm.name;
                    wrong.push(format!("the guest of {name} was told {ip}, it has {:?}", nic.ip));
                }
            }
        }
    }
}

/// What a guest is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DhcpAnswer {
    kind: Kind,
    /// The address.
    pub(crate) ip: Ipv4Addr,
    seconds: u32,
}

impl DhcpAnswer {
    /// Reads the frame that a guest gets.
    pub(crate) fn read(frame: &[u8]) -> DhcpAnswer {
        let datagram = frame::parse(frame).expect("a datagram");
        let message = Message::read(datagram.payload).expect("a message");
        let seconds = message.number(option::LEASE_TIME).unwrap_or_default();
        DhcpAnswer { kind: message.kind, ip: message.head.yiaddr, seconds }
    }
}

/// The guest asks for any address.
pub(crate) fn discover(mac: Mac) -> Vec<u8> {
    say(mac, Ipv4Addr::UNSPECIFIED, Kind::Discover, None)
}

/// The guest asks for this one.
pub(crate) fn request(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    say(mac, Ipv4Addr::UNSPECIFIED, Kind::Request, Some(ip))
}

/// The guest wants to keep what it has.
pub(crate) fn renew(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    say(mac, ip, Kind::Request, None)
}

/// The guest gives it back.
pub(crate) fn release(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    say(mac, ip, Kind::Release, None)
}

fn say(mac: Mac, has: Ipv4Addr, kind: Kind, wants: Option<Ipv4Addr>) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let (ciaddr, yiaddr, giaddr, chaddr) = (has, none, none, mac);
    let head = Head { reply: false, xid: 1, broadcast: false, ciaddr, yiaddr, giaddr, chaddr };
    let mut writer = Writer::new(&head, kind);
    if let Some(wants) = wants {
        writer.address(option::REQUESTED_IP, wants);
    }
    frame::build(&Datagram {
        addresses: Endpoints {
            from: mac,
            to: Mac([0xff; 6]),
            source: has,
            destination: Ipv4Addr::BROADCAST,
        },
        source_port: CLIENT_PORT,
        destination_port: SERVER_PORT,
        payload: &writer.finish(),
    })
}
