//! What the kernel should hold, as values; and how the difference to what it holds becomes a plan.
//!
//! In reading order: one change of the kernel ([`op`]), our tables ([`ruleset`]), from what should
//! be and what is to what is to be done ([`reconcile`]),
//! a repair in words ([`drift`]), and what others have in the way ([`firewall`]).
//!
//! Pure: no file, clock or socket. The engine decides with it, the network executes it.

pub mod drift;
pub mod firewall;
pub mod op;
pub mod reconcile;
pub mod ruleset;
