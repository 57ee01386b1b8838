//! The decisions. `(state, input, now) → Decision`, with no file, clock, socket or random source.
//!
//! What is here, in reading order: the words ([`name`], [`mac`], [`prefix`], [`mode`]), what is
//! handed out ([`ipam`], [`cid`], [`kernel_args`]), what is known ([`state`]), what is to be done about it
//! ([`ruleset`], [`plan`], [`reconcile`]), the life of a hypervisor process (`supervise`), what
//! is asked and answered ([`request`], [`view`]), and `decide`, where a request becomes a
//! decision.

pub mod cid;
pub mod ipam;
pub mod kernel_args;
pub mod mac;
pub mod mode;
pub mod name;
pub mod plan;
pub mod prefix;
pub mod reconcile;
pub mod request;
pub mod ruleset;
pub mod state;
pub mod view;
