//! The desired state of the kernel as values, and the plan that leads to it from the observed
//! state.
//!
//! In reading order: one change of the kernel ([`op`]), our tables ([`ruleset`]), the plan from the
//! observed to the desired state ([`reconcile`]), news from the kernel about changes ([`news`]),
//! repairs in words ([`drift`]), and other programs' firewalls ([`firewall`]).
//!
//! Pure: no file, clock or socket. The engine decides with it, the network executes it.

pub mod drift;
pub mod firewall;
pub mod news;
pub mod op;
pub mod reconcile;
pub mod ruleset;
