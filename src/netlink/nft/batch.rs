//! The frame of a batch, and the generation that it makes.
//!
//! The kernel applies all messages between begin and end, or none. It answers each message that it
//! refuses. It answers the message that asks for an acknowledgement when all is done.

use super::super::Error;
use super::super::attr::Attrs;
use super::super::message::{ACK, REQUEST};
use super::super::writer::Writer;
use super::{SUBSYSTEM, split};

/// `NFNL_MSG_BATCH_BEGIN`.
const BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
const END: u16 = 0x11;

// NFTA_GEN_*.
const GEN_ID: u16 = 1;
const GEN_PROC_PID: u16 = 2;
const GEN_PROC_NAME: u16 = 3;

/// Begins a batch.
pub fn begin(writer: &mut Writer, sequence: u32) {
    bracket(writer, BEGIN, sequence);
}

/// Ends a batch. The last message before the end asks for the acknowledgement: the end itself can
/// do so only since Linux 6.10.
pub fn end(writer: &mut Writer, sequence: u32) {
    writer.add_flags(ACK);
    bracket(writer, END, sequence);
}

/// The resource id of both is the subsystem, in network order.
fn bracket(writer: &mut Writer, kind: u16, sequence: u32) {
    let open = writer.message(kind, REQUEST, sequence);
    let [high, low] = SUBSYSTEM.to_be_bytes();
    writer.raw(&[0, 0, high, low]);
    writer.close_message(open);
}

/// `NFT_MSG_NEWGEN`: the ruleset has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation<'a> {
    /// The number of the generation.
    pub id: u32,
    /// The process that made the change.
    pub pid: Option<u32>,
    /// Its name, as in `/proc/PID/comm`.
    pub name: Option<&'a str>,
}

impl<'a> Generation<'a> {
    /// Reads the payload.
    pub fn read(payload: &'a [u8]) -> Result<Generation<'a>, Error> {
        let (mut id, mut pid, mut name) = (None, None, None);
        for attr in Attrs::new(split(payload)?.1) {
            let attr = attr?;
            match attr.kind {
                GEN_ID => id = Some(attr.be32()?),
                GEN_PROC_PID => pid = Some(attr.be32()?),
                GEN_PROC_NAME => name = attr.text().ok(),
                _ => {}
            }
        }
        Ok(Generation { id: id.ok_or(Error::Missing)?, pid, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::same;

    #[test]
    fn numbers_are_the_kernels() {
        same! {
            BEGIN => libc::NFNL_MSG_BATCH_BEGIN,
            END => libc::NFNL_MSG_BATCH_END,
        }
    }
}
