//! Queueing disciplines, of which the one at the root of a link says how fast it sends: `struct
//! tcmsg` and `TCA_*` (linux/rtnetlink.h, linux/pkt_sched.h).
//!
//! volnet sets a token bucket (`tbf`). The kernel keeps its burst as a time, in ticks of 64 ns, and
//! reports only that. So the bytes that are read back can be off by up to 300 at the highest rate.

use neli::consts::rtnl::{Rtm, Tca};

use super::AF_UNSPEC;
use crate::netlink::Error;
use crate::netlink::attr::{Attr, Attrs};
use crate::netlink::message::{ACK, CREATE, DUMP, ECHO, EXCL, REPLACE, REQUEST, array_at, u32_at};
use crate::netlink::writer::{Open, Writer};

/// Bytes of `struct tcmsg`: family, padding, index, handle, parent, info.
const HEADER: usize = 20;
/// `TC_H_ROOT`: in the place of a parent.
pub const ROOT: u32 = u32::MAX;
/// The handles that identify our queueing disciplines: `766f:`, for "vo", and the next. There are
/// two, so that one can replace the other.
pub const OURS: [u32; 2] = [0x766f_0000, 0x7670_0000];

/// `TCA_STATS_QUEUE` (linux/gen_stats.h), and where `struct gnet_stats_queue` has its drops.
const STATS_QUEUE: u16 = 3;
const DROPS_AT: usize = 8;

// TCA_TBF_*: linux/pkt_sched.h.
const TBF_PARMS: u16 = 1;
const TBF_BURST: u16 = 6;
const KIND_TBF: &str = "tbf";
/// The discipline that has the filters of what a link receives.
const KIND_INGRESS: &str = "ingress";
/// `TC_H_INGRESS` (linux/pkt_sched.h): where it is attached.
const INGRESS_AT: u32 = 0xffff_fff1;

/// Bytes of `struct tc_tbf_qopt`: two rates of 12 bytes each, limit, buffer, mtu.
const TBF_BYTES: usize = 36;
/// The offset of the rate in bytes a second, and of the other two fields that we use.
const TBF_RATE_AT: usize = 8;
const TBF_LIMIT_AT: usize = 24;
const TBF_BUFFER_AT: usize = 28;
/// `TC_LINKLAYER_ETHERNET`: the kernel computes by itself and needs no table.
const ETHERNET: u8 = 1;
/// Nanoseconds of a tick (include/net/pkt_sched.h, `PSCHED_SHIFT`).
const TICK_NS: u64 = 64;
const SECOND_NS: u64 = 1_000_000_000;

/// A queueing discipline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QdiscMessage<'a> {
    /// Index of its link.
    pub index: u32,
    /// Its handle; 0 for the default one of a link.
    pub handle: u32,
    /// What it is attached to.
    pub parent: u32,
    /// Its kind.
    pub kind: &'a [u8],
    /// Its settings, if it is a token bucket.
    pub bucket: Option<Bucket>,
    /// How many packets it has dropped, if the message says it; it begins anew after the largest
    /// number.
    pub dropped: Option<u32>,
}

/// A token bucket, in bytes of whole frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The rate: bytes a second.
    pub rate: u32,
    /// The burst. A larger packet is segmented, or dropped if that is not possible.
    pub burst: u32,
    /// How many bytes may wait.
    pub queue: u32,
}

impl<'a> QdiscMessage<'a> {
    /// Reads the payload of `RTM_NEWQDISC` or `RTM_DELQDISC`.
    pub fn read(payload: &'a [u8]) -> Result<QdiscMessage<'a>, Error> {
        array_at::<HEADER>(payload, 0)?;
        let (mut kind, mut options, mut dropped) = (None, None, None);
        for attr in Attrs::new(&payload[HEADER..]) {
            let attr = attr?;
            match attr.kind {
                _ if attr.is(Tca::Kind) => kind = Some(attr.string()),
                _ if attr.is(Tca::Options) => options = Some(attr),
                _ if attr.is(Tca::Stats2) => dropped = drops(attr)?,
                _ => {}
            }
        }
        let kind = kind.ok_or(Error::Missing)?;
        let options = options.filter(|_| kind == KIND_TBF.as_bytes());
        Ok(QdiscMessage {
            index: u32_at(payload, 4)?,
            handle: u32_at(payload, 8)?,
            parent: u32_at(payload, 12)?,
            kind,
            bucket: options.map_or(Ok(None), Bucket::read)?,
            dropped,
        })
    }
}

/// The drops in the statistics of a queueing discipline.
fn drops(stats: Attr<'_>) -> Result<Option<u32>, Error> {
    for attr in stats.nested()? {
        let attr = attr?;
        if attr.kind == STATS_QUEUE {
            return u32_at(attr.value, DROPS_AT).map(Some);
        }
    }
    Ok(None)
}

impl Bucket {
    fn read(options: Attr<'_>) -> Result<Option<Bucket>, Error> {
        for attr in options.nested()? {
            let attr = attr?;
            if attr.kind == TBF_PARMS {
                array_at::<TBF_BYTES>(attr.value, 0)?;
                let rate = u32_at(attr.value, TBF_RATE_AT)?;
                let ticks = u32_at(attr.value, TBF_BUFFER_AT)?;
                let burst = u128::from(ticks) * u128::from(TICK_NS) * u128::from(rate);
                return Ok(Some(Bucket {
                    rate,
                    burst: u32::try_from(burst / u128::from(SECOND_NS)).unwrap_or(u32::MAX),
                    queue: u32_at(attr.value, TBF_LIMIT_AT)?,
                }));
            }
        }
        Ok(None)
    }

    /// As `struct tc_tbf_qopt`, without a peak rate.
    fn parameters(&self) -> [u8; TBF_BYTES] {
        let time = u64::from(self.burst) * SECOND_NS / u64::from(self.rate).max(1);
        let ticks = u32::try_from(time / TICK_NS).unwrap_or(u32::MAX);
        let mut bytes = [0; TBF_BYTES];
        // `struct tc_ratespec` begins with the size of a cell, then says the link layer.
        bytes[1] = ETHERNET;
        for (at, value) in
            [(TBF_RATE_AT, self.rate), (TBF_LIMIT_AT, self.queue), (TBF_BUFFER_AT, ticks)]
        {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }
}

/// Asks for the queueing disciplines of all links.
pub fn dump(writer: &mut Writer, sequence: u32) {
    let open = begin(writer, Rtm::Getqdisc, REQUEST | DUMP, sequence, 0, [0, 0, 0]);
    writer.close_message(open);
}

/// Asks for the queueing discipline at the root of a link. The kernel may not report the default
/// one. It sends the answer to all listeners for news, and to the caller only as an echo.
pub fn get(writer: &mut Writer, sequence: u32, index: u32) {
    let open = begin(writer, Rtm::Getqdisc, REQUEST | ECHO | ACK, sequence, index, [0, ROOT, 0]);
    writer.close_message(open);
}

/// Puts a token bucket with this handle at the root of a link. It replaces the present one and
/// drops its waiting packets. If the present one has the same handle, it is changed and its packets
/// go on waiting. Then a packet larger than the new burst waits for ever, and so do all behind it.
pub fn set(writer: &mut Writer, sequence: u32, index: u32, handle: u32, bucket: &Bucket) {
    let flags = REQUEST | CREATE | REPLACE | ACK;
    let open = begin(writer, Rtm::Newqdisc, flags, sequence, index, [handle, ROOT, 0]);
    writer.attr_text(Tca::Kind.into(), KIND_TBF);
    let options = writer.nest(Tca::Options.into());
    writer.attr(TBF_PARMS, &bucket.parameters());
    writer.attr_u32(TBF_BURST, bucket.burst);
    writer.close(options);
    writer.close_message(open);
}

/// Asks for a token bucket without options: EINVAL if the kernel has token buckets, ENOENT if not.
/// It changes nothing.
pub fn probe(writer: &mut Writer, sequence: u32, index: u32) {
    let flags = REQUEST | CREATE | EXCL | ACK;
    let open = begin(writer, Rtm::Newqdisc, flags, sequence, index, [OURS[0], ROOT, 0]);
    writer.attr_text(Tca::Kind.into(), KIND_TBF);
    writer.close_message(open);
}

/// Gives a link a place for filters of what it receives ([`super::filter`]). EEXIST if it has one.
pub fn ingress(writer: &mut Writer, sequence: u32, index: u32) {
    let flags = REQUEST | CREATE | EXCL | ACK;
    let at = [super::filter::INGRESS, INGRESS_AT, 0];
    let open = begin(writer, Rtm::Newqdisc, flags, sequence, index, at);
    writer.attr_text(Tca::Kind.into(), KIND_INGRESS);
    writer.close_message(open);
}

/// Removes the queueing discipline at the root of a link if it has this handle. EINVAL if it has
/// not.
pub fn delete(writer: &mut Writer, sequence: u32, index: u32, handle: u32) {
    let open = begin(writer, Rtm::Delqdisc, REQUEST | ACK, sequence, index, [handle, ROOT, 0]);
    writer.close_message(open);
}

/// Begins a message with `struct tcmsg` (linux/rtnetlink.h), which filters have, too: the index of
/// the link; handle, parent and info.
pub(super) fn begin(
    writer: &mut Writer,
    kind: Rtm,
    flags: u16,
    sequence: u32,
    index: u32,
    [handle, parent, info]: [u32; 3],
) -> Open {
    let open = writer.message(kind.into(), flags, sequence);
    writer.raw(&[AF_UNSPEC, 0, 0, 0]);
    for word in [index, handle, parent, info] {
        writer.raw(&word.to_ne_bytes());
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::Messages;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        write(&mut writer);
        let message = Messages::new(writer.finish().unwrap()).next().unwrap().unwrap();
        message.payload.to_vec()
    }

    #[test]
    fn a_bucket_is_read_as_it_was_written() {
        for (rate, burst, queue) in [
            (125_000, 64 << 10, 64 << 10),
            (125_000, 32 << 20, 64 << 10),
            (12_500_000, 128 << 10, 625_000),
            (4_000_000_000, 32 << 20, 200_000_000),
        ] {
            let bucket = Bucket { rate, burst, queue };
            let payload = written(|writer| set(writer, 1, 7, OURS[1], &bucket));
            let read = QdiscMessage::read(&payload).unwrap();
            assert_eq!((read.index, read.handle, read.parent), (7, OURS[1], ROOT));
            let Bucket { rate: as_rate, burst: as_burst, queue: as_queue } = read.bucket.unwrap();
            assert_eq!((as_rate, as_queue), (rate, queue));
            assert!(burst - as_burst < 300, "{burst} {as_burst}");
        }
    }

    #[test]
    fn drops_are_those_of_the_queue() {
        let mut writer = Writer::new();
        let open = begin(&mut writer, Rtm::Newqdisc, 0, 1, 7, [1, ROOT, 0]);
        writer.attr_text(Tca::Kind.into(), "fq");
        let stats = writer.nest(Tca::Stats2.into());
        writer.attr(1, &[1; 12]);
        let queue: Vec<u8> = [1_u32, 2, 3, 4, 5].into_iter().flat_map(u32::to_ne_bytes).collect();
        writer.attr(STATS_QUEUE, &queue);
        writer.close(stats);
        writer.close_message(open);
        let message = Messages::new(writer.finish().unwrap()).next().unwrap().unwrap();
        assert_eq!(QdiscMessage::read(message.payload).unwrap().dropped, Some(3));
    }

    #[test]
    fn options_may_stand_before_their_kind_and_be_of_any_other() {
        let of = |kind: &'static str, options: &'static [u8]| {
            written(|writer| {
                let open = begin(writer, Rtm::Newqdisc, 0, 1, 7, [1, ROOT, 0]);
                writer.attr(Tca::Options.into(), options);
                writer.attr_text(Tca::Kind.into(), kind);
                writer.close_message(open);
            })
        };
        assert_eq!(QdiscMessage::read(&of("fq", &[1, 2, 3])).unwrap().bucket, None);
        assert_eq!(QdiscMessage::read(&of("tbf", &[])).unwrap().bucket, None);
        assert_eq!(QdiscMessage::read(&of("tbf", &[1, 2, 3])), Err(Error::Truncated));
        assert_eq!(QdiscMessage::read(&of("tbf", &[4, 0, 1, 0])), Err(Error::Truncated));
        assert_eq!(QdiscMessage::read(&[0; 19]), Err(Error::Truncated));
        assert_eq!(QdiscMessage::read(&[0; 20]), Err(Error::Missing));
    }
}
