//! The shaping of links: the token bucket at the root of a tap.
//!
//! We recognise our qdisc by its handle. Without a volnet limit a foreign qdisc is left alone; with
//! one it is replaced.
//!
//! A bucket is changed in place, and its waiting packets stay, unless its burst becomes smaller. A
//! waiting packet could be larger than the new burst (one that is not segmented yet). The kernel
//! would never send it, nor the packets behind it. So a new bucket replaces the old one, in one
//! request.

use crate::model::limits::Shaping;
use crate::netlink::rtnl::qdisc::{self, Bucket, OURS, QdiscMessage, ROOT};

use super::links;
use super::socket::{Error, Socket};

const KIB: u32 = 1024;
/// A link that always exists.
const LOOPBACK: &str = "lo";

/// Sets or removes the limit of a link's sending; `former` is the previous limit. If the link is
/// gone, or has no qdisc of ours, there is nothing to remove.
pub fn shape(
    socket: &mut Socket,
    link: &str,
    to: Option<Shaping>,
    former: Option<Shaping>,
) -> Result<(), Error> {
    let Some(shaping) = to else { return free(socket, link) };
    let index = links::index_of(socket, link)?;
    let mut handle = OURS[0];
    if let Some(former) = former {
        let is = ours_of(socket, index)?.unwrap_or(handle);
        let shrinks = shaping.burst_kb < former.burst_kb;
        handle = OURS.into_iter().find(|other| (*other == is) != shrinks).unwrap_or(is);
    }
    let Shaping { rate, burst_kb, queue } = shaping;
    let bucket = Bucket { rate, burst: burst_kb.saturating_mul(KIB), queue };
    socket.request(1, |writer, sequence| {
        qdisc::set(writer, sequence.take(), index, handle, &bucket);
    })
}

fn free(socket: &mut Socket, link: &str) -> Result<(), Error> {
    let freed = links::index_of(socket, link).and_then(|index| match ours_of(socket, index)? {
        Some(handle) => socket.request(1, |writer, sequence| {
            qdisc::delete(writer, sequence.take(), index, handle);
        }),
        None => Ok(()),
    });
    match freed {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        freed => freed,
    }
}

/// The handle of our qdisc at the root of a link.
fn ours_of(socket: &mut Socket, index: u32) -> Result<Option<u32>, Error> {
    let mut found = None;
    let asked = socket.request_and(
        1,
        |writer, sequence| qdisc::get(writer, sequence.take(), index),
        |message| {
            found = Some(QdiscMessage::read(message.payload)?.handle);
            Ok(())
        },
    );
    match asked {
        // There is only the default qdisc of the link.
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
        asked => asked.map(|()| found.filter(|handle| OURS.contains(handle))),
    }
}

/// Whether the kernel has token buckets.
pub fn is_possible(socket: &mut Socket) -> bool {
    let probed = links::index_of(socket, LOOPBACK).and_then(|index| {
        socket.request(1, |writer, sequence| qdisc::probe(writer, sequence.take(), index))
    });
    !matches!(probed, Err(error) if error.errno() == Some(libc::ENOENT))
}

/// Reads the limits of links, by index.
pub fn observe(socket: &mut Socket) -> Result<Vec<(u32, Shaping)>, Error> {
    socket.dump(qdisc::dump, |message| {
        let told = QdiscMessage::read(message.payload)?;
        Ok(Some(told.index).zip(shaping(&told)))
    })
}

/// Reads how many packets each limit has held back, by the index of its link.
pub fn dropped(socket: &mut Socket) -> Result<Vec<(u32, u32)>, Error> {
    let dumped = socket.dump_or_last(qdisc::dump, |message| {
        let told = QdiscMessage::read(message.payload)?;
        let ours = told.parent == ROOT && OURS.contains(&told.handle);
        Ok(Some(told.index).zip(told.dropped.filter(|_| ours)))
    })?;
    Ok(dumped.items)
}

/// Our qdisc among those that the kernel reported.
pub(super) fn shaping(told: &QdiscMessage<'_>) -> Option<Shaping> {
    let ours = told.parent == ROOT && OURS.contains(&told.handle);
    let bucket = told.bucket.filter(|_| ours)?;
    // The kernel reports the burst less exactly than it was set.
    let burst_kb = bucket.burst.saturating_add(KIB / 2) / KIB;
    Some(Shaping { rate: bucket.rate, burst_kb, queue: bucket.queue })
}
