//! The network that changes nothing.
//!
//! It is used without a Linux kernel, and with `--backend noop`. Decisions are made as always, and
//! names and addresses are handed out, but nothing is executed.

use std::io;
use std::os::fd::OwnedFd;

use log::warn;

use super::{Applied, Network};
use crate::model::error::Failure;
use crate::plan::op::Op;
use crate::plan::reconcile::{DesiredPort, Observed};

/// A backend without a kernel.
#[derive(Debug)]
pub struct Noop(());

impl Noop {
    /// The backend. It warns once that it changes nothing.
    pub fn new() -> Noop {
        warn!("backend noop: no link, address or rule is made; VMs have no network");
        Noop(())
    }
}

impl Default for Noop {
    fn default() -> Noop {
        Noop::new()
    }
}

impl Network for Noop {
    fn backend(&self) -> &'static str {
        "noop"
    }

    fn observe(&mut self) -> Result<Observed, Failure> {
        Ok(Observed::default())
    }

    fn apply(&mut self, _op: &Op) -> Result<Applied, Failure> {
        Ok(Applied::default())
    }

    fn open_tap(&mut self, port: &DesiredPort<'_>) -> Result<OwnedFd, Failure> {
        let error = io::Error::new(io::ErrorKind::Unsupported, "the backend noop has no taps");
        Err(Failure::kernel("open tap", port.tap.as_str(), &error))
    }
}
