//! What the kernel should hold, as values; and how the difference to what it holds becomes a plan.
//!
//! In reading order: one change of the kernel ([`op`]), our tables ([`ruleset`]), the plan that
//! takes the kernel from what it holds to what it should hold ([`reconcile`]), what the kernel
//! tells of others' changes ([`news`]), a repair in words ([`drift`]), and what others have in the
//! way of packets ([`firewall`]).
//!
//! Pure: no file, clock or socket. The engine decides with it, the network executes it.

pub mod drift;
pub mod firewall;
pub mod news;
pub mod op;
pub mod reconcile;
pub mod ruleset;
