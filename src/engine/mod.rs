//! The decisions. `(state, input, now) → Decision`, with no file, clock, socket or random source.
//!
//! In reading order: what is handed out ([`ipam`], [`cid`], [`uids`], [`ledger`]), what is known of
//! a VM ([`vm`]), what the kernel should hold for it ([`desire`]), the life of a hypervisor process
//! ([`supervise`], [`lifecycle`], `pause`, `saving`, [`recover`], [`stranded`]), the addresses that
//! guests ask for ([`lease`]), those that they make for themselves ([`claim`]), when they are told
//! of their router ([`advertise`]), addresses that move between VMs (`movable`), their names
//! ([`names`]), the ports of the host that lead to guests ([`expose`]), namespaces of others
//! ([`attachment`]), networks that come and go ([`added`]), what guests may send and how much
//! ([`traffic`], [`policy`], [`limits`]), the users of VMs ([`run_as`]), what guests do again and
//! again ([`trouble`]), what others change and what becomes of that ([`news`], [`watch`],
//! [`patience`]), and [`decide`], where a request becomes a [`decide::Decision`]. [`state`] has the
//! parts of the engine that all of these work on.

pub mod added;
pub mod advertise;
pub mod attachment;
pub mod cid;
pub mod claim;
pub mod create;
pub mod crowd;
pub mod decide;
pub mod desire;
pub mod expose;
pub mod ipam;
pub mod lease;
pub mod ledger;
pub mod lifecycle;
pub mod limits;
mod movable;
pub mod names;
pub mod news;
pub mod patience;
mod pause;
pub mod policy;
pub mod probe;
pub mod recover;
pub mod run_as;
mod saving;
mod show;
mod state;
pub mod stranded;
pub mod supervise;
mod trace;
mod traffic;
pub mod trouble;
pub mod uids;
pub mod vm;
pub mod watch;

#[cfg(test)]
mod tests;
