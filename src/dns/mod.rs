//! The names of guests (RFC 1035), which volnet answers on the gateway's address. It is pure: it
//! takes messages and returns messages.
//!
//! ```text
//! question of a guest ─ DnsQuery::read ─▶ DnsQuery
//! answer of a resolver ─ Response::read ─▶ Response ─ for_guest ─▶ message to the guest
//! ```
//!
//! - [`name`] is the codec of domain names, [`query`] that of questions and of our own answers, and
//!   [`response`] that of the answers of others. All are bounded and trust no length.
//!
//! **Nothing is passed on as it came.** A question is read as a whole and written anew: one
//! question, its flags, and the EDNS options (RFC 6891). An answer is passed on with its answer and
//! authority sections. Of its additional section only EDNS is kept: a resolver adds to it what
//! nobody asked for. An answer with a record of our own domain is not passed on.

pub mod forward;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod name;
pub mod query;
pub mod resolve;
pub mod resolvers;
pub mod response;
pub mod wire;

pub use name::DomainName;
pub use query::{DnsQuery, RecordData, ResponseCode};
pub use response::Response;

use std::fmt;

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A length goes beyond the end of the received bytes.
    Cut,
    /// A name is longer than 255 bytes, a label is of no known type, or a pointer does not lead
    /// back.
    Name,
    /// It is a question where an answer is expected, or the reverse.
    Direction,
    /// The sections have other records than they should.
    Sections,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Cut => "the message is cut short",
            Malformed::Name => "a name is not one",
            Malformed::Direction => "it goes the other way",
            Malformed::Sections => "its sections do not fit its kind",
        })
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests;
