//! Running a plan on something.
//!
//! Three backends: [`linux`] is the kernel; [`noop`] touches nothing and stands in on other systems
//! and for dry runs; [`fake`] is a kernel in memory that fails on command, for tests and
//! simulation. [`execute`] is the only caller of [`Network::apply`]; [`exercise`]
//! holds the bodies of the fuzz targets.

pub mod execute;
pub mod exercise;
pub mod fake;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod noop;

use std::os::fd::OwnedFd;

use std::net::Ipv4Addr;

use crate::model::error::Failure;
use crate::plan::firewall::Surroundings;
use crate::plan::op::Op;
use crate::plan::reconcile::{DesiredPort, Observed};

/// Something that a plan can be run on.
pub trait Network {
    /// The backend's name as `Version` shows it.
    fn backend(&self) -> &'static str;

    /// Reads everything that volnet could own or collide with. One bounded round of dumps.
    fn observe(&mut self) -> Result<Observed, Failure>;

    /// Looks at what others have in the way of packets, for people to be told of.
    fn surroundings(&mut self) -> Result<Surroundings, Failure> {
        Ok(Surroundings::default())
    }

    /// Whether it can hold back what links send.
    fn can_shape(&mut self) -> bool {
        true
    }

    /// What was allowed and denied of each address that has a policy, since its table was made.
    fn counted(&mut self) -> Result<Vec<Counted>, Failure> {
        Ok(Vec::new())
    }

    /// Applies one Op, whole or not at all; but see [`Op::SetLink`].
    fn apply(&mut self, op: &Op) -> Result<Applied, Failure>;

    /// Opens one queue of a VM's tap, which stands. Nothing is made where it is missing.
    fn open_tap(&mut self, port: &DesiredPort<'_>) -> Result<OwnedFd, Failure>;

    /// Whether there is something to prepare that nobody waits for yet.
    fn has_spare_work(&self) -> bool {
        false
    }

    /// Does some of it: half a millisecond's worth.
    fn do_spare_work(&mut self) {}

    /// Gives up what was prepared, and waits until links that were removed are gone for everybody to
    /// see.
    fn flush(&mut self) {}
}

/// What an Op gave that only the kernel could know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The index of the link that it made.
    pub ifindex: Option<u32>,
}

/// What a guest sent beyond its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Whether it was allowed.
    pub allowed: bool,
    /// How many packets that was.
    pub packets: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Network for Box<dyn Network> {
    fn counted(&mut self) -> Result<Vec<Counted>, Failure> {
        self.as_mut().counted()
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

    fn can_shape(&mut self) -> bool {
        self.as_mut().can_shape()
    }

    fn apply(&mut self, op: &Op) -> Result<Applied, Failure> {
        self.as_mut().apply(op)
    }

    fn open_tap(&mut self, port: &DesiredPort<'_>) -> Result<OwnedFd, Failure> {
        self.as_mut().open_tap(port)
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
