//! The built-in DHCPv4 server (RFC 2131). It is pure: it turns the frame of a guest into the frame
//! of the answer.
//!
//! ```text
//! frame ─ v4::parse ────▶ datagram ─ Message::read ─▶ message ─▶ DhcpQuery
//!                                                                  │ who is that? ─▶ engine: Guest
//!                                                      respond(guest, query, now)
//!                                                                  │
//!            Handled { decision ─▶ carried out, then  reply ─▶ DhcpReply::frame ─▶ frame }
//! ```
//!
//! - [`crate::packet::v4`] and [`message`] are the codec. They borrow, are bounded, and trust no
//!   length.
//! - [`query`] accepts a message as a query of a guest if it comes from the Ethernet address that
//!   it names, and through no relay.
//! - [`respond`] chooses the reply. The engine knows the lease of a guest and the free addresses
//!   ([`crate::engine::lease`]). [`handle()`] turns a change of the lease into a decision of the
//!   engine, which is on the disk before the reply goes out.
//! - [`reply`] writes the answer.
//!
//! An answer goes to the tap of the guest with that Ethernet address, not to the bridge. So a guest
//! that asks in another's name gets no answer, and a broadcast reaches nobody else. The table
//! `bridge volnet` drops frames with a wrong source address before the bridge, so nobody can
//! *release* in another's name either.

#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod handle;
pub mod message;
pub mod query;
pub mod reply;
pub mod respond;

pub use handle::{Handled, handle};
pub use query::DhcpQuery;
pub use reply::DhcpReply;

#[cfg(test)]
mod tests;
