//! Guests that ask for their address, and what they were told.
//!
//! An acknowledgement is a promise like any other reply: until its time is over the address is that
//! guest's, whatever happens to the daemon, to the host and to its clock. As long as the guest runs
//! its time is not over.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use volnet::dhcp::message::{Head, Kind, Message, Writer, option};
use volnet::dhcp6;
use volnet::model::mac::Mac;
use volnet::model::name::VmName;
use volnet::model::view::NicView;
use volnet::model::view::VmView;
use volnet::ndp;
use volnet::packet::v4::{self as frame, CLIENT_PORT, Datagram, Endpoints, SERVER_PORT};

/// What a guest does about its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It asks for one, and takes what is offered.
    Get,
    /// It wants to keep the one it has.
    Renew,
    /// It gives it back.
    Release,
    /// It asks for its router.
    Router,
    /// It asks for its IPv6 address.
    Ipv6,
    /// It makes itself the address with this number. Numbers are few, so that guests want the same.
    Claim(u8),
}

/// A NIC: its VM's name, when that was made, and its Ethernet address.
pub(crate) type Whose = (VmName, u64, Mac);

/// What guests were told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leases(BTreeMap<Whose, Told>);

/// What one guest was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The guest asks for its router.
pub(crate) fn solicit_router(mac: Mac) -> Vec<u8> {
    ndp::fuzz::ask(mac, mac.link_local(), &[0; 4])
}

/// The guest asks for its IPv6 address, at once.
pub(crate) fn solicit_address(mac: Mac) -> Vec<u8> {
    let mut writer = dhcp6::message::Writer::new(dhcp6::message::Kind::Solicit, [1, 2, 3]);
    writer.option(dhcp6::message::option::CLIENT_ID, &mac.0);
    writer.option(dhcp6::message::option::RAPID_COMMIT, &[]);
    writer.association(dhcp6::message::option::IA_NA, [1; 4], [0, 0], &[]);
    dhcp6::fuzz::ask(mac, &writer.finish())
}

/// The guest makes itself an address of the prefix in which it has this one.
pub(crate) fn claim(mac: Mac, of: Ipv6Addr, number: u8) -> Vec<u8> {
    let id = u128::from(number) << 32 | 7;
    ndp::fuzz::claim(mac, Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(of.to_bits() >> 64 << 64 | id))
}

/// What is wrong with a frame that a guest got about its router.
pub(crate) fn wrong_router(nic: &NicView, frame: &[u8]) -> Option<String> {
    let (told, addresses) = ndp::fuzz::read(frame);
    let own = nic.ip6.is_some_and(|ip6| told.prefix.contains(ip6));
    let lost = told.prefix_s == 0 && (told.router_s > 0) == nic.ip6.is_some();
    let well = addresses.to == nic.mac && (own && told.router_s > 0 && told.prefix_s > 0 || lost);
    (!well).then(|| format!("the guest with {:?} was told {told:?}", nic.ip6))
}

/// What is wrong with a frame that a guest got about its IPv6 address.
pub(crate) fn wrong_address(nic: &NicView, frame: &[u8]) -> Option<String> {
    let (message, addresses) = dhcp6::fuzz::message(frame);
    let leased: Vec<_> =
        message.associations().flat_map(|it| it.addresses()).map(|(ip, _)| ip).collect();
    let well = addresses.to == nic.mac && leased == nic.ip6.into_iter().collect::<Vec<_>>();
    (!well).then(|| format!("the guest with {:?} was leased {leased:?}", nic.ip6))
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
