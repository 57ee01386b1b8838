//! The built-in DHCPv4 server (RFC 2131): pure, from the frame of a guest to the frame of the answer.
//!
//! ```text
//! frame ─ frame::parse ─▶ datagram ─ Message::read ─▶ message ─▶ Query
//!                                                                  │ who is that? ─▶ engine: Guest
//!                                                          respond(guest, query, now)
//!                                                                  │
//!                       Step { decision ─▶ carried out, then  reply ─▶ Reply::frame ─▶ frame }
//! ```
//!
//! - [`frame`] and [`message`] are the codec. They borrow, are bounded, and trust no length.
//! - [`query`] is what makes a message a question of one of our guests: it comes from the Ethernet
//!   address that it speaks of, and through no relay.
//! - [`respond`] decides. What a guest has, and could have, is the engine's to say
//!   ([`crate::engine::lease`]); [`decide()`] makes a decision of the engine's of what is to become
//!   of it. That is on the disk before the reply goes out.
//! - [`reply`] makes the answer.
//!
//! An answer goes out of the tap of the guest whose Ethernet address was asked for, not onto the
//! bridge: whoever asks in another's name is answered with silence, and a broadcast reaches nobody
//! else. So that nobody *releases* in another's name either, frames with a foreign source address
//! are dropped before the bridge (the table `bridge volnet`).

pub mod decide;
pub mod exercise;
pub mod frame;
pub mod message;
pub mod query;
pub mod reply;
pub mod resolvers;
pub mod respond;

pub use decide::{Step, decide};
pub use query::Query;
pub use reply::Reply;

use std::fmt;

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A length reaches past the end of what was received.
    Cut,
    /// A checksum is wrong.
    Checksum,
    /// It is something else: another protocol, a fragment, another hardware, no DHCP.
    NotOurs,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Cut => "the frame is cut short",
            Malformed::Checksum => "the checksum is wrong",
            Malformed::NotOurs => "it is not a DHCP message to a server",
        })
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests;
