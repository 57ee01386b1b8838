//! Runs plans on a backend.
//!
//! There are three backends. [`linux`] is the kernel. [`noop`] changes nothing, for other systems
//! and for dry runs. [`fake`] is a kernel in memory that fails on command, for tests and
//! simulation. [`execute`] is the only caller of [`Network::apply`].

pub mod execute;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod features;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod noop;
pub mod tally;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use std::net::{IpAddr, Ipv4Addr};

use self::features::Features;
use self::tally::Tally;
use crate::doctor::host::{Bounds, Way};
use crate::model::error::{Failure, Refusal};
use crate::model::expose::{HostPort, Listener};
use crate::model::mac::Mac;
use crate::plan::firewall::{Hindrance, Surroundings};
use crate::plan::op::Op;
use crate::plan::reconcile::{DesiredPort, Observed};
use crate::trace::Told;
use crate::trace::book::{Chains, Rules};

/// A backend for plans.
pub trait Network {
    /// The backend's name in `Version`.
    fn backend(&self) -> &'static str;

    /// Reads everything that volnet could own or collide with, in one bounded round of dumps.
    fn observe(&mut self) -> Result<Observed, Failure>;

    /// Looks for other programs' firewalls, for the findings of Check.
    fn surroundings(&mut self) -> Result<Surroundings, Failure> {
        Ok(Surroundings::default())
    }

    /// The programs of the host that listen on ports, not by loopback alone. Who it is, is looked
    /// up for those that meet one of `wanted`.
    fn listeners(&mut self, wanted: &[HostPort]) -> Vec<Listener> {
        let _ = wanted;
        Vec::new()
    }

    /// What the kernel can do, asked by requests that change nothing.
    fn features(&mut self) -> Result<Features, Failure> {
        Ok(Features::ALL)
    }

    /// The allowed and denied traffic of each address with a policy, since its table was made.
    fn counted(&mut self) -> Result<Vec<Counted>, Failure> {
        Ok(Vec::new())
    }

    /// Frames of guests that were dropped, since the sets that count them were made.
    fn dropped(&mut self) -> Result<Vec<Dropped>, Failure> {
        Ok(Vec::new())
    }

    /// What the kernel has room for.
    fn bounds(&mut self) -> Bounds {
        Bounds::default()
    }

    /// The way of packets from a guest, which come in by this bridge, to an address.
    fn way(&mut self, bridge: &str, from: IpAddr, to: IpAddr) -> Result<Way, Failure> {
        let _ = (bridge, from, to);
        Ok(Way::Unknown)
    }

    /// Single rules of others that could be in the way.
    fn hindrances(&mut self) -> Result<Vec<Hindrance>, Failure> {
        Ok(Vec::new())
    }

    /// Takes frames of the guest of the tap with this index from now on, if there is room for them.
    fn overhear(&mut self, ifindex: u32, side: Side) -> io::Result<()> {
        let _ = (ifindex, side);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The beginnings of these frames that came since.
    fn overheard(&mut self, ifindex: u32, side: Side) -> Vec<Vec<u8>> {
        let _ = (ifindex, side);
        Vec::new()
    }

    /// Takes none of these frames any more.
    fn end_overhearing(&mut self, ifindex: u32, side: Side) {
        let _ = (ifindex, side);
    }

    /// What went through each link since it was made.
    fn passed(&mut self) -> Result<Vec<Passed>, Failure> {
        Ok(Vec::new())
    }

    /// How often the kernel was asked for what, and what it refused; `None` where there is none.
    fn tally(&self) -> Option<&Tally> {
        None
    }

    /// Has the kernel tell of packets that are traced.
    fn begin_tracing(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// The book of all rules.
    fn book(&mut self) -> Result<(Chains, Rules), Failure> {
        Ok((Chains::new(), Rules::new()))
    }

    /// What was told since, and whether some of it was lost.
    fn traced(&mut self) -> (Vec<Told>, bool) {
        (Vec::new(), false)
    }

    /// Nobody is told any more.
    fn end_tracing(&mut self) {}

    /// Applies one Op completely or not at all, except [`Op::SetLink`].
    fn apply(&mut self, op: &Op) -> Result<Applied, Failure>;

    /// Takes a door to a network namespace of others: an rtnetlink socket that root opened there.
    /// The inner ends of links are made there until [`Network::leave`], and a tap, if
    /// `/dev/net/tun` was opened there, too. A descriptor that is not such a socket or device, and
    /// one of our own namespace, is refused.
    fn enter(&mut self, door: BorrowedFd<'_>, tun: Option<BorrowedFd<'_>>) -> Result<(), Refusal> {
        let _ = (door, tun);
        Ok(())
    }

    /// Refuses a door that does not lead to our own namespace.
    fn check_own(&mut self, door: BorrowedFd<'_>) -> Result<(), Refusal> {
        let _ = door;
        Ok(())
    }

    /// Closes the door. A door that is open keeps the namespace alive.
    fn leave(&mut self) {}

    /// Opens one queue of a VM's tap. If the tap is missing, none is made.
    fn open_tap(&mut self, port: &DesiredPort<'_>) -> Result<OwnedFd, Failure>;

    /// Asks all on a bridge who has this address, as one who has none (RFC 5227).
    fn ask_arp(&mut self, bridge: &str, ip: Ipv4Addr) -> io::Result<()> {
        let _ = (bridge, ip);
        Ok(())
    }

    /// Who has said on a bridge since it was first asked there that it has which address.
    fn hear_arp(&mut self, bridge: &str) -> Vec<(Ipv4Addr, Mac)> {
        let _ = bridge;
        Vec::new()
    }

    /// Nobody is asked any more.
    fn end_arp(&mut self) {}

    /// Sends a frame by the link of this index.
    fn send_frame(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let _ = (ifindex, frame);
        Ok(())
    }

    /// All requests of a turn have their replies: what they left to do for others may begin.
    fn settle(&mut self) {}

    /// Whether there is work to do ahead, for which nobody waits yet.
    fn has_spare_work(&self) -> bool {
        false
    }

    /// Does a part of that work, for half a millisecond.
    fn do_spare_work(&mut self) {}

    /// Drops the work that was done ahead, and waits until removed links are gone.
    fn flush(&mut self) {}
}

/// Which frames of a guest are overheard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Those that it sends.
    Sent,
    /// Those that it receives.
    Received,
}

/// The result of an Op that only the kernel knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The index of the link that it made.
    pub ifindex: Option<u32>,
}

/// A counter of a guest's traffic beyond its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The guest's address.
    pub address: IpAddr,
    /// Whether it was allowed.
    pub allowed: bool,
    /// The number of packets.
    pub packets: u64,
    /// The number of bytes.
    pub bytes: u64,
}

/// A counter of frames that a guest sent and that were dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its tap.
    pub tap: String,
    /// Why they were.
    pub cause: Cause,
    /// How many.
    pub packets: u64,
}

/// Why a frame of a guest was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A guest may not send it: it does not come from its own addresses, for example.
    Spoofed,
    /// It is ARP that does not state them.
    Forged,
    /// It was over a limit for sending.
    Overrun,
}

/// What went through a link since it was made. If it is a guest's tap, then the guest has sent what
/// the link received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Index of the link.
    pub index: u32,
    /// Packets that it received and sent.
    pub packets: [u64; 2],
    /// Bytes that it received and sent.
    pub bytes: [u64; 2],
    /// Packets that it could not send, because the guest does not read them fast enough.
    pub unread: u64,
    /// Packets that it did not send, because they were over a limit.
    pub shaped: u64,
}

impl Network for Box<dyn Network> {
    fn passed(&mut self) -> Result<Vec<Passed>, Failure> {
        self.as_mut().passed()
    }

    fn tally(&self) -> Option<&Tally> {
        self.as_ref().tally()
    }

    fn counted(&mut self) -> Result<Vec<Counted>, Failure> {
        self.as_mut().counted()
    }

    fn dropped(&mut self) -> Result<Vec<Dropped>, Failure> {
        self.as_mut().dropped()
    }

    fn backend(&self) -> &'static str {
        self.as_ref().backend()
    }

    fn observe(&mut self) -> Result<Observed, Failure> {
        self.as_mut().observe()
    }

    fn surroundings(&mut self) -> Result<Surroundings, Failure> {
        self.as_mut().surroundings()
    }

    fn listeners(&mut self, wanted: &[HostPort]) -> Vec<Listener> {
        self.as_mut().listeners(wanted)
    }

    fn features(&mut self) -> Result<Features, Failure> {
        self.as_mut().features()
    }

    fn bounds(&mut self) -> Bounds {
        self.as_mut().bounds()
    }

    fn way(&mut self, bridge: &str, from: IpAddr, to: IpAddr) -> Result<Way, Failure> {
        self.as_mut().way(bridge, from, to)
    }

    fn hindrances(&mut self) -> Result<Vec<Hindrance>, Failure> {
        self.as_mut().hindrances()
    }

    fn overhear(&mut self, ifindex: u32, side: Side) -> io::Result<()> {
        self.as_mut().overhear(ifindex, side)
    }

    fn overheard(&mut self, ifindex: u32, side: Side) -> Vec<Vec<u8>> {
        self.as_mut().overheard(ifindex, side)
    }

    fn end_overhearing(&mut self, ifindex: u32, side: Side) {
        self.as_mut().end_overhearing(ifindex, side);
    }

    fn begin_tracing(&mut self) -> Result<(), Failure> {
        self.as_mut().begin_tracing()
    }

    fn book(&mut self) -> Result<(Chains, Rules), Failure> {
        self.as_mut().book()
    }

    fn traced(&mut self) -> (Vec<Told>, bool) {
        self.as_mut().traced()
    }

    fn end_tracing(&mut self) {
        self.as_mut().end_tracing();
    }

    fn apply(&mut self, op: &Op) -> Result<Applied, Failure> {
        self.as_mut().apply(op)
    }

    fn enter(&mut self, door: BorrowedFd<'_>, tun: Option<BorrowedFd<'_>>) -> Result<(), Refusal> {
        self.as_mut().enter(door, tun)
    }

    fn check_own(&mut self, door: BorrowedFd<'_>) -> Result<(), Refusal> {
        self.as_mut().check_own(door)
    }

    fn leave(&mut self) {
        self.as_mut().leave();
    }

    fn open_tap(&mut self, port: &DesiredPort<'_>) -> Result<OwnedFd, Failure> {
        self.as_mut().open_tap(port)
    }

    fn ask_arp(&mut self, bridge: &str, ip: Ipv4Addr) -> io::Result<()> {
        self.as_mut().ask_arp(bridge, ip)
    }

    fn hear_arp(&mut self, bridge: &str) -> Vec<(Ipv4Addr, Mac)> {
        self.as_mut().hear_arp(bridge)
    }

    fn end_arp(&mut self) {
        self.as_mut().end_arp();
    }

    fn send_frame(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        self.as_mut().send_frame(ifindex, frame)
    }

    fn settle(&mut self) {
        self.as_mut().settle();
    }

    fn has_spare_work(&self) -> bool {
        self.as_ref().has_spare_work()
    }

    fn do_spare_work(&mut self) {
        self.as_mut().do_spare_work();
    }

    fn flush(&mut self) {
        self.as_mut().flush();
    }
}
