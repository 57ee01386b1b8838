//! Tracked connections: those of an address are forgotten, so that nothing of its last owner
//! meets the next.
//!
//! The kernel has no index by address. It walks its table twice, once for each end of a connection,
//! unless the namespace tracks nothing at all; that is in the kernel, in one send. Linux before 6.12
//! cannot delete by a filter: there the connections are read and deleted one by one. Where ctnetlink
//! is missing nobody can delete any. Which of these it is shows at the first request and is
//! remembered: asking again would have the kernel look for a module each time.

use std::cell::Cell;
use std::net::Ipv4Addr;

use crate::netlink::conntrack::{self, End, FlowMessage};
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

impl Conntrack {
    /// Deletes every connection that this address began or answers. `socket` is one of nfnetlink.
    pub fn forget(&mut self, socket: &mut Socket, address: Ipv4Addr) -> Result<(), Error> {
        loop {
            let (deleted, else_try) = match self {
                Conntrack::Filter => (by_filter(socket, address), Conntrack::Single),
                Conntrack::Single => (one_by_one(socket, address), Conntrack::Never),
                Conntrack::Never => return Ok(()),
            };
            match deleted {
                // What nfnetlink says of a message, or of a subsystem, that it does not know.
                Err(error) if error.errno() == Some(libc::EINVAL) => *self = else_try,
                deleted => return deleted,
            }
            if *self == Conntrack::Never {
                log::warn!("this kernel has no ctnetlink; connections outlive their VMs in it");
            }
        }
    }
}

fn by_filter(socket: &mut Socket, address: Ipv4Addr) -> Result<(), Error> {
    socket.request(1, |writer, sequence| {
        for end in End::BOTH {
            conntrack::delete_all(writer, sequence.take(), end, address);
        }
        writer.add_flags(ACK);
    })
}

fn one_by_one(socket: &mut Socket, address: Ipv4Addr) -> Result<(), Error> {
    for end in End::BOTH {
        let mut rounds = 0..ROUNDS_MAX;
        while delete_some(socket, end, address)? {
            rounds.next().ok_or(Error::Unsettled)?;
        }
    }
    Ok(())
}

/// Deletes the connections that have this address at this end, up to [`FLOWS_MAX`]. Gives whether
/// there may be more.
fn delete_some(socket: &mut Socket, end: End, address: Ipv4Addr) -> Result<bool, Error> {
    let left = Cell::new(FLOWS_MAX);
    let flows = socket.dump(
        |writer, sequence| conntrack::dump(writer, sequence, end, address),
        |message| {
            let flow = FlowMessage::read(message.payload)?;
            // Linux before 5.8 has not heard of the filter.
            if flow.at(end) != address || left.get() == 0 {
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
