//! How much may pass in a second: the expression `limit`, in an element of a set or in a rule.
//!
//! It is a token bucket. A packet that finds too few tokens is over the limit and takes none. A
//! bucket that counts packets holds the burst. A bucket that counts bytes holds the burst and one
//! second's worth of tokens (net/netfilter/nft_limit.c, `nft_limit_init`).

use super::super::Error;
use super::super::attr::Attr;
use super::super::writer::Writer;

// NFTA_EXPR_*.
const NAME: u16 = 1;
const DATA: u16 = 2;
// NFTA_LIMIT_*.
const RATE: u16 = 1;
const UNIT: u16 = 2;
const BURST: u16 = 3;
const TYPE: u16 = 4;
const FLAGS: u16 = 5;
/// The expression's name.
const LIMIT: &str = "limit";
/// Of a rate: seconds.
const SECOND: u64 = 1;
/// `NFT_LIMIT_F_INV`: what is over the limit matches.
const OVER: u32 = 1;

/// A limit that matches packets over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is counted.
    pub unit: Unit,
    /// How many a second.
    pub per_second: u32,
    /// How many more at once.
    pub burst: u32,
}

/// `NFT_LIMIT_*`: what a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Unit {
    /// Packets.
    Packets = 0,
    /// Their bytes; on a bridge without the Ethernet header.
    Bytes = 1,
}

/// Writes name and data into an open expression.
pub fn write(writer: &mut Writer, limit: &Limit) {
    writer.attr_text(NAME, LIMIT);
    let nest = writer.nest(DATA);
    writer.attr(RATE, &u64::from(limit.per_second).to_be_bytes());
    writer.attr(UNIT, &SECOND.to_be_bytes());
    writer.attr_be32(BURST, limit.burst);
    writer.attr_be32(TYPE, limit.unit as u32);
    writer.attr_be32(FLAGS, OVER);
    writer.close(nest);
}

/// Reads an expression. `None` if it is not a limit, or not one that [`write()`] can write.
pub fn read(expression: Attr<'_>) -> Result<Option<Limit>, Error> {
    let (mut is_limit, mut data) = (false, None);
    for attr in expression.nested()? {
        let attr = attr?;
        match attr.kind {
            NAME => is_limit = attr.string() == LIMIT.as_bytes(),
            DATA => data = Some(attr),
            _ => {}
        }
    }
    data.filter(|_| is_limit).map_or(Ok(None), read_data)
}

fn read_data(data: Attr<'_>) -> Result<Option<Limit>, Error> {
    let (mut rate, mut second, mut burst, mut kind, mut flags) = (None, None, 0, 0, 0);
    for attr in data.nested()? {
        let attr = attr?;
        match attr.kind {
            RATE => rate = Some(attr.be64()?),
            UNIT => second = Some(attr.be64()?),
            BURST => burst = attr.be32()?,
            TYPE => kind = attr.be32()?,
            FLAGS => flags = attr.be32()?,
            _ => {}
        }
    }
    let unit = [Unit::Packets, Unit::Bytes].into_iter().find(|unit| *unit as u32 == kind);
    let per_second = rate.and_then(|rate| u32::try_from(rate).ok());
    Ok(unit
        .zip(per_second)
        .filter(|_| (second, flags) == (Some(SECOND), OVER))
        .map(|(unit, per_second)| Limit { unit, per_second, burst }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::same;

    #[test]
    fn numbers_are_the_kernels() {
        same! {
            OVER => libc::NFT_LIMIT_F_INV,
            Unit::Packets => libc::NFT_LIMIT_PKTS,
            Unit::Bytes => libc::NFT_LIMIT_PKT_BYTES,
        }
    }
}
