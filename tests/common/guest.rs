//! A guest that the test plays: it has a VM's tap open, as a hypervisor would, and sends and
//! receives whole frames.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{read, write};
use serde_json::Value;

use volnet::dhcp::message::{Head, Kind, Message, Writer, option};
use volnet::model::mac::Mac;
use volnet::packet::v4::{self as frame, CLIENT_PORT, Datagram, Endpoints, SERVER_PORT};
use volnet_ffi::tun::{NO_PI, TAP, Tun, VNET_HDR, open};

use super::{PATIENCE, eventually, run};

/// Bytes of `struct virtio_net_hdr` before each frame, all zero: nothing is left to the card.
const VNET_HEADER: usize = 10;
/// The longest frame that a test expects.
const FRAME_MAX: usize = 4096;

/// A guest.
pub(crate) struct Guest {
    tun: Tun,
    /// Its Ethernet address.
    pub(crate) mac: Mac,
}

/// What a DHCP server told a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) kind: Kind,
    pub(crate) ip: Ipv4Addr,
    /// Seconds of the lease.
    pub(crate) seconds: Option<u32>,
    pub(crate) dns: Vec<u8>,
    pub(crate) mtu: Vec<u8>,
    pub(crate) host_name: String,
    pub(crate) domain: String,
}

/// Opens a device of this name as hypervisors do. While another thread of this program starts a
/// process, that has a copy of all descriptors: a tap that was closed is busy until it is executed.
pub(crate) fn open_tap(name: &str) -> Tun {
    let mut tap = None;
    eventually("nobody else has the tap open", || {
        match Tun::attach(open().unwrap(), name, TAP | NO_PI | VNET_HDR) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {}
            opened => tap = Some(opened.unwrap()),
        }
        tap.is_some()
    });
    tap.unwrap()
}

impl Guest {
    /// The guest of a VM, as the interface shows it.
    pub(crate) fn of(vm: &Value) -> Guest {
        let mac = vm["mac"].as_str().expect("an address").parse().unwrap();
        Guest::on(vm["tap"].as_str().expect("a tap"), mac)
    }

    /// A guest on this tap, which is on a bridge and up.
    pub(crate) fn on(tap: &str, mac: Mac) -> Guest {
        let tun = open_tap(tap);
        // The kernel takes note of the carrier in its own time, and drops what is sent before.
        eventually("the link is up", || {
            run(&format!("ip -o link show dev {tap}")).contains("state UP")
        });
        Guest { tun, mac }
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: &[u8]) {
        let bytes = [&[0; VNET_HEADER], frame].concat();
        assert_eq!(write(&self.tun, &bytes), Ok(bytes.len()));
    }

    /// The next frame that has come, if there is one.
    pub(crate) fn try_receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; FRAME_MAX];
        match read(&self.tun, &mut frame) {
            Ok(length) => Some(frame[VNET_HEADER..length].to_vec()),
            Err(nix::Error::EAGAIN) => None,
            Err(error) => panic!("the tap: {error}"),
        }
    }

    /// Asks for an address.
    pub(crate) fn discover(&self) {
        self.say(self.mac, self.mac, Kind::Discover, &[]);
    }

    /// Asks for this one, which was offered by this server.
    pub(crate) fn select(&self, ip: Ipv4Addr, server: Ipv4Addr) {
        let options =
            [(option::REQUESTED_IP, &ip.octets()[..]), (option::SERVER_ID, &server.octets())];
        self.say(self.mac, self.mac, Kind::Request, &options);
    }

    /// Says something to whoever serves: `from` one Ethernet address, in the name of another.
    pub(crate) fn say(&self, from: Mac, chaddr: Mac, kind: Kind, options: &[(u8, &[u8])]) {
        let none = Ipv4Addr::UNSPECIFIED;
        self.say_with(from, &Head { chaddr, ..head(none) }, kind, options);
    }

    /// Says something with an address of its own.
    pub(crate) fn say_as(&self, own: Ipv4Addr, kind: Kind) {
        self.say_for(self.mac, own, kind);
    }

    /// Says something with the addresses of somebody, be it itself.
    pub(crate) fn say_for(&self, mac: Mac, ip: Ipv4Addr, kind: Kind) {
        self.say_with(mac, &Head { chaddr: mac, ..head(ip) }, kind, &[]);
    }

    fn say_with(&self, from: Mac, head: &Head, kind: Kind, options: &[(u8, &[u8])]) {
        let mut writer = Writer::new(head, kind);
        for (code, value) in options {
            writer.option(*code, value);
        }
        self.send(&frame::build(&Datagram {
            addresses: Endpoints {
                from,
                to: Mac([0xff; 6]),
                source: head.ciaddr,
                destination: Ipv4Addr::BROADCAST,
            },
            source_port: CLIENT_PORT,
            destination_port: SERVER_PORT,
            payload: &writer.finish(),
        }));
    }

    /// What a server says next on this tap, whoever it is meant for; fails the test when it does
    /// not.
    pub(crate) fn hear(&self) -> Told {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(told) = self.try_hear() {
                return told;
            }
            assert!(Instant::now() < end, "no server said anything");
            let mut fds = [PollFd::new(self.tun.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(1000_u16)).unwrap();
        }
    }

    /// What a server has said, if it has.
    pub(crate) fn try_hear(&self) -> Option<Told> {
        loop {
            let frame = self.try_receive()?;
            let Ok(datagram) = frame::parse(&frame) else { continue };
            if datagram.destination_port != CLIENT_PORT {
                continue;
            }
            let message = Message::read(datagram.payload).expect("a message");
            let option = |code| message.option(code).unwrap_or_default().to_vec();
            return Some(Told {
                kind: message.kind,
                ip: message.head.yiaddr,
                seconds: message.number(option::LEASE_TIME),
                dns: option(option::DNS),
                mtu: option(option::MTU),
                host_name: String::from_utf8(option(option::HOST_NAME)).expect("text"),
                domain: String::from_utf8(option(option::DOMAIN)).expect("text"),
            });
        }
    }

    /// Gets a lease, from the first word to the last.
    pub(crate) fn get_lease(&self, server: Ipv4Addr) -> Ipv4Addr {
        self.discover();
        let offer = self.hear();
        assert_eq!(offer.kind, Kind::Offer, "{offer:?}");
        self.select(offer.ip, server);
        let ack = self.hear();
        assert_eq!((ack.kind, ack.ip), (Kind::Ack, offer.ip), "{ack:?}");
        ack.ip
    }
}

fn head(ciaddr: Ipv4Addr) -> Head {
    let none = Ipv4Addr::UNSPECIFIED;
    Head {
        reply: false,
        xid: 7,
        broadcast: false,
        ciaddr,
        yiaddr: none,
        giaddr: none,
        chaddr: Mac([0; 6]),
    }
}

/// Carries frames between two devices until `ended` says that it is enough.
pub(crate) fn join(one: &Tun, other: &Tun, ended: impl Fn() -> bool) {
    let mut frame = vec![0; FRAME_MAX];
    while !ended() {
        for (from, to) in [(one, other), (other, one)] {
            while let Ok(length) = read(from, &mut frame) {
                // A device that is still down takes nothing.
                let _ = write(to, &frame[..length]);
            }
        }
        let mut both = [one, other].map(|tun| PollFd::new(tun.as_fd(), PollFlags::POLLIN));
        poll(&mut both, PollTimeout::from(20_u8)).unwrap();
    }
}

/// Runs `body` as the guest of a VM: in a network namespace of its own, with a device `eth0` that
/// is joined to the VM's tap, so that whatever speaks there comes through the very port that volnet
/// knows.
pub(crate) fn as_guest<T: Send>(vm: &Value, body: impl FnOnce() -> T + Send) -> T {
    let tap = open_tap(vm["tap"].as_str().unwrap());
    behind_tap(&tap, vm["mac"].as_str().unwrap(), body)
}

/// The same behind a tap that is open.
pub(crate) fn behind_tap<T: Send>(tap: &Tun, mac: &str, body: impl FnOnce() -> T + Send) -> T {
    let (give, take) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            give.send(open_tap("eth0")).unwrap();
            run(&format!("ip link set eth0 address {mac} up"));
            body()
        });
        let device = take.recv().unwrap();
        join(tap, &device, || inside.is_finished());
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
