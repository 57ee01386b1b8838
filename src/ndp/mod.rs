//! Router advertisements (RFC 4861, RFC 8106), and claims of addresses ([`claim`]). It is pure: it
//! turns the question of a guest into the frame of the answer.
//!
//! ```text
//! frame ─ packet::v6 ─▶ packet ─ Solicitation::read ─▶ Solicitation ─ who is that? ─▶ Guest
//!                                                                                      │
//!                              frame ◀─ Advertisement::frame ─ Advertisement::of ◀─────┘
//! ```
//!
//! A guest is told its router, its prefix, its MTU, and who answers for names. It makes its address
//! of the prefix (RFC 4862), or asks for it by [`crate::dhcp6`]: the flags say that it may.
//!
//! Advertisements go to the taps of guests, not to the bridge, as the answers of DHCP do. So each
//! guest is told what is true for it, its own MTU for example, and the table `bridge volnet` drops
//! what says that it is a router. Who is told when is decided by [`crate::engine::advertise`].

pub mod advertisement;
pub mod claim;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod solicitation;

pub use advertisement::Advertisement;
pub use claim::Claim;
pub use solicitation::Solicitation;

use crate::packet::Malformed;

/// The hop limit of neighbour discovery: a packet that has it comes from the link itself (RFC 4861,
/// 11.2).
const HOP_LIMIT: u8 = 255;
/// Types of options (RFC 4861, 4.6): the sender's Ethernet address.
const SOURCE_LINK_LAYER: u8 = 1;
/// Bytes that the length of an option counts by.
const UNIT: usize = 8;

/// The options of a message, each with its type and what follows its length. It ends after an
/// error.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u8, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, length) = match *self.0 {
            [] => return None,
            [kind, length, ..] => (kind, usize::from(length) * UNIT),
            [_] => (0, 0),
        };
        // A length of zero would not end (RFC 4861, 4.6).
        let option = self.0.split_at_checked(length).filter(|(option, _)| !option.is_empty());
        let Some((option, rest)) = option else {
            self.0 = &[];
            return Some(Err(Malformed::Cut));
        };
        self.0 = rest;
        Some(Ok((kind, &option[2..])))
    }
}

#[cfg(test)]
mod tests;
