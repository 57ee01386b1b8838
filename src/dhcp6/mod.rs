//! The built-in DHCPv6 server (RFC 8415). It is pure: it turns the frame of a guest into the frame
//! of the answer.
//!
//! ```text
//! frame ─ packet::v6 ─▶ datagram ─ Message::read ─▶ message ─▶ Dhcp6Query ─ who is that? ─▶ Guest
//!                                                                                            │
//!                                     frame ◀─ Dhcp6Reply::frame ─ respond(guest, query) ◀───┘
//! ```
//!
//! - [`crate::packet::v6`] and [`message`] are the codec. They borrow, are bounded, and trust no
//!   length.
//! - [`query`] accepts a message as a query of a guest if it goes to all servers of the link and
//!   has the identifiers that its kind must have.
//! - [`respond()`] chooses the answer, and [`reply`] writes it.
//!
//! **It has no state.** The address of a guest follows from its network and its Ethernet address,
//! and it has the address as long as the VM exists. So nothing is leased, written or taken back: a
//! guest always gets the same address, and a release or a restart of the daemon changes nothing.
//!
//! The answers go to the guest's own tap, as those of [`crate::dhcp`] do.

#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod message;
pub mod query;
pub mod reply;
pub mod respond;

pub use query::Dhcp6Query;
pub use reply::Dhcp6Reply;
pub use respond::respond;

#[cfg(test)]
mod tests;
