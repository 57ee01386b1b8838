//! News of links and addresses, as the kernel sends them to everyone who subscribes.
//!
//! The daemon waits for the socket to become readable, and then reads until nothing is left: its
//! event loop tells of a change only. When news come faster than they are read the kernel drops
//! some and says so once ([`News::Overrun`]); what was missed can only be observed anew.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};

use crate::error::Failure;
use crate::netlink::message::Messages;
use crate::netlink::rtnl::{GROUP_ADDRESS, GROUP_LINK, Notice};

use super::socket::{DATAGRAM_MAX, Error, Protocol, open, receive};

/// Bytes of the receive queue: news of some thousand links in one turn of the loop.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// A subscription to news of links and IPv4 addresses.
#[derive(Debug)]
pub struct Monitor {
    fd: OwnedFd,
    buffer: Box<[u8]>,
}

/// What one reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// One datagram was read; there may be more.
    Some,
    /// Nothing is left.
    Drained,
    /// News were lost: observe everything anew, then read on.
    Overrun,
}

impl Monitor {
    /// Subscribes in the network namespace of the calling thread.
    pub fn open() -> Result<Monitor, Failure> {
        let opened = || {
            let fd = open(Protocol::Route)?;
            setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
            for group in [GROUP_LINK, GROUP_ADDRESS] {
                volnet_ffi::socket::join(fd.as_fd(), group)?;
            }
            Ok(Monitor { fd, buffer: vec![0; DATAGRAM_MAX].into() })
        };
        opened().map_err(|error| Failure::kernel("subscribe to", "links", &error))
    }

    /// Reads one datagram, if there is one, and hands `each` what is in it.
    pub fn read(&mut self, mut each: impl FnMut(&Notice<'_>)) -> Result<News, Failure> {
        let datagram = match receive(&self.fd, &mut self.buffer) {
            Ok(Some(datagram)) => datagram,
            Ok(None) => return Ok(News::Drained),
            // Cut or dropped, it is news that are lost.
            Err(Error::Truncated | Error::Silent) => return Ok(News::Overrun),
            Err(error) if error.errno() == Some(libc::ENOBUFS) => return Ok(News::Overrun),
            Err(error) => return Err(error.failure("read", "news of links")),
        };
        for message in Messages::new(datagram) {
            let Ok(notice) = message.and_then(|message| Notice::read(&message)) else {
                return Ok(News::Overrun);
            };
            if let Some(notice) = notice {
                each(&notice);
            }
        }
        Ok(News::Some)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
