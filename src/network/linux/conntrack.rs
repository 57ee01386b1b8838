//! Deletes tracked connections: those of an address, so that its next owner gets no packets of the
//! last one, and those by a port of the host that is no longer exposed.
//!
//! The kernel has no index by address. It walks its table twice, once for each end of a connection,
//! unless the namespace tracks nothing. It does so in one send. Linux before 6.12 cannot delete by
//! a filter: there the connections are read and deleted one by one. Without ctnetlink nobody can
//! delete connections. The first request shows which case it is. The result is kept, because each
//! further try would make the kernel look for a module.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::netlink::conntrack::{self, End, FlowId, FlowMessage, Flows};
use crate::netlink::message::ACK;
use crate::netlink::writer::Writer;

use super::socket::{ACKS_MAX, Error, Socket};

/// The most connections that are read before they are deleted, about half a megabyte. If there are
/// more, the rest is read again.
const FLOWS_MAX: usize = 4096;
/// How often this is repeated: enough for a million connections, four times the default size of the
/// table.
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

/// [`FlowId`], kept.
struct Flow {
    family: u8,
    tuple: Box<[u8]>,
    id: u32,
    zone: Option<u16>,
}

/// A selection of connections to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowSelector {
    /// Every connection that this address began or answered.
    Of(IpAddr),
    /// Every connection from a port of the host to a port of a guest.
    Led { protocol: u8, host_port: u16, address: IpAddr, port: u16 },
}

impl FlowSelector {
    /// The address, if these are all its connections.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            FlowSelector::Of(address) => Some(address),
            FlowSelector::Led { .. } => None,
        }
    }

    /// Whether it is of IPv4 connections. The kernel's filter is wrong for others.
    fn is_ipv4(self) -> bool {
        let (FlowSelector::Of(address) | FlowSelector::Led { address, .. }) = self;
        address.is_ipv4()
    }

    /// The selection, for ctnetlink.
    fn flows(self) -> Vec<Flows> {
        match self {
            FlowSelector::Of(address) => End::BOTH.map(|end| Flows::At(end, address)).into(),
            FlowSelector::Led { protocol, host_port, address, port } => {
                vec![Flows::Led { protocol, to: host_port, from: (address, port) }]
            }
        }
    }
}

impl fmt::Display for FlowSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlowSelector::Of(address) => write!(f, "of {address}"),
            FlowSelector::Led { host_port, address, port, .. } => {
                write!(f, "from port {host_port} to {address}:{port}")
            }
        }
    }
}

impl Conntrack {
    /// Deletes connections. `socket` is one of nfnetlink.
    pub fn forget(&mut self, socket: &mut Socket, selector: FlowSelector) -> Result<(), Error> {
        loop {
            let (deleted, else_try) = match self {
                Conntrack::Filter if selector.is_ipv4() => {
                    (by_filter(socket, selector), Conntrack::Single)
                }
                Conntrack::Filter | Conntrack::Single => {
                    (one_by_one(socket, selector), Conntrack::Never)
                }
                Conntrack::Never => return Ok(()),
            };
            match deleted {
                // The errors of nfnetlink for an unknown message or subsystem.
                Err(error) if error.errno() == Some(libc::EINVAL) => *self = else_try,
                deleted => return deleted,
            }
            if *self == Conntrack::Never {
                log::warn!("this kernel has no ctnetlink: it keeps the connections of deleted VMs");
            }
        }
    }

    /// Those of these addresses for which [`Conntrack::forget_all`] is faster than to delete the
    /// connections of each: where the table is read anyway, and where there are more of them than
    /// `walks`.
    pub fn together(self, mut addresses: BTreeSet<IpAddr>, walks: usize) -> BTreeSet<IpAddr> {
        match self {
            Conntrack::Filter if addresses.len() <= walks => {
                addresses.retain(IpAddr::is_ipv6);
                addresses
            }
            Conntrack::Filter => addresses,
            Conntrack::Single if addresses.len() > 1 => addresses,
            Conntrack::Single | Conntrack::Never => BTreeSet::new(),
        }
    }

    /// Deletes all connections of these addresses. The table is read once, however many they are.
    /// To read it takes longer than the walks of a kernel that has a filter: it locks each bucket.
    pub fn forget_all(
        &self,
        socket: &mut Socket,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<(), Error> {
        if *self == Conntrack::Never {
            return Ok(());
        }
        let all_ipv6 = addresses.iter().all(IpAddr::is_ipv6);
        let dump = if all_ipv6 { conntrack::dump_ipv6 } else { conntrack::dump_all };
        delete_wanted(socket, dump, |flow| {
            addresses.contains(&flow.began) || addresses.contains(&flow.answers)
        })
    }
}

fn by_filter(socket: &mut Socket, selector: FlowSelector) -> Result<(), Error> {
    socket.request(1, |writer, sequence| {
        for flows in selector.flows() {
            conntrack::delete_all(writer, sequence.take(), flows);
        }
        writer.add_flags(ACK);
    })
}

fn one_by_one(socket: &mut Socket, selector: FlowSelector) -> Result<(), Error> {
    for flows in selector.flows() {
        // Linux before 5.8 does not know the filter.
        let dump = |writer: &mut Writer, sequence| conntrack::dump(writer, sequence, flows);
        delete_wanted(socket, dump, |flow| flow.is_of(flows))?;
    }
    Ok(())
}

/// Reads connections and deletes those that are wanted, until no more are there.
fn delete_wanted(
    socket: &mut Socket,
    dump: impl Fn(&mut Writer, u32),
    is_wanted: impl Fn(&FlowMessage<'_>) -> bool,
) -> Result<(), Error> {
    for _ in 0..=ROUNDS_MAX {
        if !delete_some(socket, &dump, &is_wanted)? {
            return Ok(());
        }
    }
    Err(Error::Unsettled)
}

/// Deletes these connections, up to [`FLOWS_MAX`]. Returns whether there may be more.
fn delete_some(
    socket: &mut Socket,
    dump: &dyn Fn(&mut Writer, u32),
    is_wanted: &dyn Fn(&FlowMessage<'_>) -> bool,
) -> Result<bool, Error> {
    let left = Cell::new(FLOWS_MAX);
    let flows = socket.dump(dump, |message| {
        let flow = FlowMessage::read(message.payload)?;
        if !is_wanted(&flow) || left.get() == 0 {
            return Ok(None);
        }
        left.set(left.get() - 1);
        let FlowId { family, tuple, id, zone } = flow.id;
        Ok(Some(Flow { family, tuple: tuple.into(), id, zone }))
    })?;
    for some in flows.chunks(ACKS_MAX as usize) {
        delete(socket, some)?;
    }
    Ok(left.get() == 0)
}

/// Deletes connections. If one has ended already, that is success.
fn delete(socket: &mut Socket, flows: &[Flow]) -> Result<(), Error> {
    let deleted = socket.request(1, |writer, sequence| {
        for &Flow { family, ref tuple, id, zone } in flows {
            let flow = FlowId { family, tuple, id, zone };
            conntrack::delete(writer, sequence.take(), flow);
        }
        writer.add_flags(ACK);
    });
    match deleted {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
        deleted => deleted,
    }
}
