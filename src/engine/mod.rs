//! The decisions. `(state, input, now) → Decision`, with no file, clock, socket or random source.
//!
//! What is here, in reading order: the words ([`name`], [`mac`], [`prefix`], [`mode`]), what is
//! handed out ([`ipam`], [`cid`], [`ledger`], [`kernel_args`]), what is known ([`state`], [`vm`]),
//! what is to be done about it ([`ruleset`], [`desire`], [`plan`], [`reconcile`]), the life of a
//! hypervisor process ([`supervise`], [`lifecycle`], [`recover`]), what the kernel tells ([`news`],
//! [`drift`]), what others have in the way ([`firewall`]), the addresses that guests ask for ([`lease`]), the ports of the host
//! that lead to guests ([`expose`]), what guests may send ([`policy`]), what is asked and answered
//! ([`request`], [`view`]), and [`decide`], where a request becomes a [`decide::Decision`].

pub mod cid;
pub mod decide;
pub mod desire;
pub mod drift;
pub mod expose;
pub mod firewall;
pub mod ipam;
pub mod kernel_args;
pub mod lease;
pub mod ledger;
pub mod lifecycle;
pub mod limits;
pub mod mac;
pub mod mode;
pub mod name;
pub mod news;
pub mod plan;
pub mod policy;
pub mod prefix;
pub mod reconcile;
pub mod recover;
pub mod request;
pub mod ruleset;
pub mod state;
pub mod supervise;
pub mod view;
pub mod vm;

#[cfg(test)]
mod tests;
