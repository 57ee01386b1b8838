//! What went through links: `struct if_stats_msg`, `IFLA_STATS_*` (linux/if_link.h), Linux 4.7.

use super::AF_UNSPEC;
use crate::netlink::Error;
use crate::netlink::attr::Attrs;
use crate::netlink::message::{DUMP, REQUEST, array_at, u32_at};
use crate::netlink::writer::Writer;

// linux/rtnetlink.h; neli does not have it.
const GET_STATS: u16 = 94;
/// Bytes of `struct if_stats_msg`: family, padding, index, filter.
const HEADER: usize = 12;
/// `IFLA_STATS_LINK_64`, and the filter that asks for it alone.
const LINK_64: u16 = 1;
const ONLY_LINK_64: u32 = 1 << (LINK_64 - 1);
/// Bytes of a counter of `struct rtnl_link_stats64`.
const COUNTER: usize = 8;

/// What went through a link, as the kernel sees it: what it received came from a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatsMessage {
    /// Index of the link.
    pub index: u32,
    /// Packets that it received and sent.
    pub packets: [u64; 2],
    /// Bytes that it received and sent.
    pub bytes: [u64; 2],
    /// Packets that it could not send.
    pub unsent: u64,
}

impl StatsMessage {
    /// Reads the payload of `RTM_NEWSTATS`.
    pub fn read(payload: &[u8]) -> Result<StatsMessage, Error> {
        array_at::<HEADER>(payload, 0)?;
        let index = u32_at(payload, 4)?;
        for attr in Attrs::new(&payload[HEADER..]) {
            let attr = attr?;
            if attr.kind == LINK_64 {
                // In the order of the structure: packets, bytes, errors, dropped, each received and
                // sent.
                let counter = |at: usize| {
                    array_at::<COUNTER>(attr.value, at * COUNTER).map(u64::from_ne_bytes)
                };
                return Ok(StatsMessage {
                    index,
                    packets: [counter(0)?, counter(1)?],
                    bytes: [counter(2)?, counter(3)?],
                    unsent: counter(7)?,
                });
            }
        }
        Err(Error::Missing)
    }
}

/// Asks for what went through all links.
pub fn dump(writer: &mut Writer, sequence: u32) {
    let open = writer.message(GET_STATS, REQUEST | DUMP, sequence);
    writer.raw(&[AF_UNSPEC, 0, 0, 0]);
    writer.raw(&0_u32.to_ne_bytes());
    writer.raw(&ONLY_LINK_64.to_ne_bytes());
    writer.close_message(open);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::same;

    #[test]
    fn numbers_are_the_kernels() {
        use linux_raw_sys::netlink as kernel;
        use std::mem::offset_of;
        type Stats = kernel::rtnl_link_stats64;
        same! {
            GET_STATS => kernel::RTM_GETSTATS as u32,
            LINK_64 => kernel::IFLA_STATS_LINK_64 as u32,
            COUNTER => offset_of!(Stats, tx_packets),
            2 * COUNTER => offset_of!(Stats, rx_bytes),
            7 * COUNTER => offset_of!(Stats, tx_dropped),
        }
    }

    #[test]
    fn counters_are_read_in_the_kernels_order() {
        let mut writer = Writer::new();
        writer.raw(&[0; 4]);
        writer.raw(&7_u32.to_ne_bytes());
        writer.raw(&0_u32.to_ne_bytes());
        let counters: Vec<u8> = (1..=24_u64).flat_map(u64::to_ne_bytes).collect();
        writer.attr(LINK_64, &counters);
        let message = writer.finish().unwrap();
        let stats = StatsMessage { index: 7, packets: [1, 2], bytes: [3, 4], unsent: 8 };
        assert_eq!(StatsMessage::read(message), Ok(stats));
        assert_eq!(StatsMessage::read(&message[..12]), Err(Error::Missing));
        assert_eq!(StatsMessage::read(&message[..11]), Err(Error::Truncated));
    }
}
