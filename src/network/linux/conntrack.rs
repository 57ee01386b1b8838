//! Tracked connections: those of an address are forgotten, so that nothing of its last owner
//! meets the next, and those that were led by a port of the host that leads nowhere any more.
//!
//! The kernel has no index by address. It walks its table twice, once for each end of a connection,
//! unless the namespace tracks nothing at all; that is in the kernel, in one send. Linux before 6.12
//! cannot delete by a filter: there the connections are read and deleted one by one. Where ctnetlink
//! is missing nobody can delete any. Which of these it is shows at the first request and is
//! remembered: asking again would have the kernel look for a module each time.

use std::cell::Cell;
use std::fmt;
use std::net::Ipv4Addr;

use crate::netlink::conntrack::{self, End, FlowMessage, Flows};
use crate::netlink::message::ACK;

use super::socket::{ACKS_MAX, Error, Socket};

/// The most connections that are read before they are deleted, about half a megabyte. Of more, the
/// rest is read again.
const FLOWS_MAX: usize = 4096;
/// How often that is done: for a million connections, four times what a table holds by default.
const ROUNDS_MAX: usize = 256;

/// How tracked connections are deleted on this kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conntrack {
    /// By the kernel, with a filter.
    #[default]
    Filter,
    /// One by one.
    Single,
    /// Not at all.
    Never,
}

/// What names a connection to the kernel.
struct Flow {
    tuple: Box<[u8]>,
    id: u32,
    zone: Option<u16>,
}

/// What is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Every connection that this address began or answers.
    Of(Ipv4Addr),
    /// Every connection that a port of the host led to one of a guest.
    Led { protocol: u8, host_port: u16, address: Ipv4Addr, port: u16 },
}

impl Past {
    /// The connections that are meant.
    fn flows(self) -> Vec<Flows> {
        match self {
            Past::Of(address) => End::BOTH.map(|end| Flows::At(end, address)).into(),
            Past::Led { protocol, host_port, address, port } => {
                vec![Flows::Led { protocol, to: host_port, from: (address, port) }]
            }
        }
    }
}

impl fmt::Display for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Past::Of(address) => write!(f, "of {address}"),
            Past::Led { host_port, address, port, .. } => {
                write!(f, "from port {host_port} to {address}:{port}")
            }
        }
    }
}

impl Conntrack {
    /// Deletes connections. `socket` is one of nfnetlink.
    pub fn forget(&mut self, socket: &mut Socket, past: Past) -> Result<(), Error> {
        loop {
            let (deleted, else_try) = match self {
                Conntrack::Filter => (by_filter(socket, past), Conntrack::Single),
                Conntrack::Single => (one_by_one(socket, past), Conntrack::Never),
                Conntrack::Never => return Ok(()),
            };
            match deleted {
                // What nfnetlink says of a message, or of a subsystem, that it does not know.
                Err(error) if error.errno() == Some(libc::EINVAL) => *self = else_try,
                deleted => return deleted,
            }
            if *self == Conntrack::Never {
                log::warn!("this kernel has no ctnetlink: it keeps the connections of deleted VMs");
            }
        }
    }
}

fn by_filter(socket: &mut Socket, past: Past) -> Result<(), Error> {
    socket.request(1, |writer, sequence| {
        for flows in past.flows() {
            conntrack::delete_all(writer, sequence.take(), flows);
        }
        writer.add_flags(ACK);
    })
}

fn one_by_one(socket: &mut Socket, past: Past) -> Result<(), Error> {
    for flows in past.flows() {
        let mut rounds = 0..ROUNDS_MAX;
        while delete_some(socket, flows)? {
            rounds.next().ok_or(Error::Unsettled)?;
        }
    }
    Ok(())
}

/// Deletes these connections, up to [`FLOWS_MAX`]. Gives whether
/// there may be more.
fn delete_some(socket: &mut Socket, wanted: Flows) -> Result<bool, Error> {
    let left = Cell::new(FLOWS_MAX);
    let flows = socket.dump(
        |writer, sequence| conntrack::dump(writer, sequence, wanted),
        |message| {
            let flow = FlowMessage::read(message.payload)?;
            // Linux before 5.8 has not heard of the filter.
            if !flow.is_of(wanted) || left.get() == 0 {
                return Ok(None);
            }
            left.set(left.get() - 1);
            Ok(Some(Flow { tuple: flow.tuple.into(), id: flow.id, zone: flow.zone }))
        },
    )?;
    for some in flows.chunks(ACKS_MAX as usize) {
        delete(socket, some)?;
    }
    Ok(left.get() == 0)
}

/// Deletes connections. One that ended by itself is as good as deleted.
fn delete(socket: &mut Socket, flows: &[Flow]) -> Result<(), Error> {
    let deleted = socket.request(1, |writer, sequence| {
        for Flow { tuple, id, zone } in flows {
            conntrack::delete(writer, sequence.take(), tuple, *id, *zone);
        }
        writer.add_flags(ACK);
    });
    match deleted {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
        deleted => deleted,
    }
}
