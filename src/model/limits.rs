//! How much guests may receive and send.
//!
//! Packets to a guest wait at its tap until the rate allows them ([`Shaping`]). Packets from a
//! guest cannot wait: they are dropped where they come in if they exceed the rate. This is an
//! element of a set whose elements have rates. So TCP finds the rate in both directions, with or
//! without losses. A rate of bytes allows one second's worth more at once. TCP needs this to reach
//! the rate on average after it lost packets and waited for its timer.
//!
//! A limit that a VM does not set is its network's; 0 is no limit.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// The highest rate in Mbit/s: in bytes a second it fits a 32-bit integer.
pub const MBIT_MAX: u64 = 32_000;
/// The least burst in KiB: the longest frame of a guest that leaves segmentation to the host.
pub const BURST_KB_MIN: u64 = 64;
/// The largest burst in KiB. At 1 Mbit/s it just fits the kernel's representation as a time.
pub const BURST_KB_MAX: u64 = 32 * 1024;
/// The most packets a second.
pub const PPS_MAX: u64 = 10_000_000;

/// Bytes a second of 1 Mbit/s.
const MBIT: u32 = 125_000;
const KIB: u32 = 1024;
/// The default burst is what the rate gives in a hundredth of a second.
const BURSTS_PER_SECOND: u32 = 100;
/// Packets to a guest wait at most a twentieth of a second, if the queue is not at its minimum.
const QUEUES_PER_SECOND: u32 = 20;
/// The shortest queue in bytes.
const QUEUE_MIN: u32 = 64 * KIB;
/// The burst of packets is what the rate gives in a tenth of a second, and at least the minimum.
const PACKET_BURSTS_PER_SECOND: u32 = 10;
const PACKET_BURST_MIN: u32 = 64;

/// The requested limits of a guest; `None`: the network's, or the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The rate for receiving, in Mbit/s (10^6 bits) of whole frames; 0: no limit.
    pub rx_mbit: Option<u32>,
    /// The rate for sending, in Mbit/s of frames without their Ethernet header; 0: no limit.
    pub tx_mbit: Option<u32>,
    /// The burst beyond these rates, in KiB.
    pub burst_kb: Option<u32>,
    /// The most packets a second that it sends; 0: no limit.
    pub pps: Option<u32>,
}

/// The rate at which a link sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shaping {
    /// Bytes of frames a second.
    pub rate: u32,
    /// The burst, in KiB.
    pub burst_kb: u32,
    /// How many bytes may wait. Further packets are dropped.
    pub queue: u32,
}

/// A rate of packets or bytes. For bytes, the kernel adds one second's worth to the burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rate {
    /// The rate a second.
    pub per_second: u32,
    /// The burst.
    pub burst: u32,
}

impl Limits {
    /// Reads the limits. `number` returns the value of a field, within bounds.
    pub fn read<E>(
        mut number: impl FnMut(&'static str, RangeInclusive<u64>) -> Result<Option<u64>, E>,
    ) -> Result<Limits, E> {
        let mut field = |name, bounds| Ok(number(name, bounds)?.map(|number| number as u32));
        Ok(Limits {
            rx_mbit: field("rx_mbit", 0..=MBIT_MAX)?,
            tx_mbit: field("tx_mbit", 0..=MBIT_MAX)?,
            burst_kb: field("burst_kb", BURST_KB_MIN..=BURST_KB_MAX)?,
            pps: field("pps", 0..=PPS_MAX)?,
        })
    }

    /// Whether no limit is set.
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// These limits, and `those` where they are not set.
    pub fn or(self, those: Limits) -> Limits {
        Limits {
            rx_mbit: self.rx_mbit.or(those.rx_mbit),
            tx_mbit: self.tx_mbit.or(those.tx_mbit),
            burst_kb: self.burst_kb.or(those.burst_kb),
            pps: self.pps.or(those.pps),
        }
    }

    /// The limits in force: 0 becomes no limit.
    pub fn in_force(self) -> Limits {
        let limit = |limit: Option<u32>| limit.filter(|limit| *limit != 0);
        Limits {
            rx_mbit: limit(self.rx_mbit),
            tx_mbit: limit(self.tx_mbit),
            pps: limit(self.pps),
            ..self
        }
    }

    /// The shaping of the tap.
    pub fn shaping(&self) -> Option<Shaping> {
        let rate = self.in_force().rx_mbit? * MBIT;
        let queue = (rate / QUEUES_PER_SECOND).max(QUEUE_MIN);
        Some(Shaping { rate, burst_kb: self.burst_kb(rate), queue })
    }

    /// The rate of bytes for sending.
    pub fn bytes(&self) -> Option<Rate> {
        let per_second = self.in_force().tx_mbit? * MBIT;
        Some(Rate { per_second, burst: self.burst_kb(per_second) * KIB })
    }

    /// The rate of packets for sending.
    pub fn packets(&self) -> Option<Rate> {
        let per_second = self.in_force().pps?;
        Some(Rate {
            per_second,
            burst: (per_second / PACKET_BURSTS_PER_SECOND).max(PACKET_BURST_MIN),
        })
    }

    /// The path of a limit for sending, if there is one.
    pub fn of_sending(&self) -> Option<&'static str> {
        let limits = self.in_force();
        limits.tx_mbit.map(|_| "limits.tx_mbit").or(limits.pps.map(|_| "limits.pps"))
    }

    fn burst_kb(&self, rate: u32) -> u32 {
        let fit = rate / BURSTS_PER_SECOND / KIB;
        self.burst_kb.unwrap_or(fit.clamp(BURST_KB_MIN as u32, BURST_KB_MAX as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_the_networks_and_nothing_is_no_limit() {
        let network = Limits { rx_mbit: Some(100), tx_mbit: Some(50), ..Limits::default() };
        let vm = Limits { tx_mbit: Some(0), pps: Some(1000), ..Limits::default() };
        let both = vm.or(network);
        assert_eq!(both.shaping().unwrap().rate, 12_500_000);
        assert_eq!(both.bytes(), None);
        assert_eq!(both.packets(), Some(Rate { per_second: 1000, burst: 100 }));
        assert_eq!(both.of_sending(), Some("limits.pps"));
        let nothing = Limits { rx_mbit: Some(0), ..Limits::default() };
        assert_eq!((nothing.shaping(), nothing.of_sending()), (None, None));
    }

    #[test]
    fn the_burst_grows_with_the_rate_within_its_bounds() {
        let of = |rx_mbit, burst_kb| {
            let limits = Limits { rx_mbit: Some(rx_mbit), burst_kb, ..Limits::default() };
            limits.shaping().unwrap().burst_kb
        };
        assert_eq!([of(1, None), of(200, None), of(32_000, None)], [64, 244, 32_768]);
        assert_eq!(of(200, Some(1000)), 1000);
        // In bytes and in bytes a second, both fit a 32-bit integer.
        let most = Limits {
            tx_mbit: Some(MBIT_MAX as u32),
            burst_kb: Some(BURST_KB_MAX as u32),
            ..Limits::default()
        };
        assert_eq!(most.bytes(), Some(Rate { per_second: 4_000_000_000, burst: 32 << 20 }));
    }
}
