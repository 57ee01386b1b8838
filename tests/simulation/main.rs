//! The daemon in a world in memory that fails, forgets and changes on command.
//!
//! What runs is the daemon's own shell with the engine, the execution of plans, the store and the
//! supervision; only the kernel, the disk and the processes under it are in memory ([`world`]), and
//! the clock goes on when it is told to ([`sim`]). Everything by which the daemon reaches out is an
//! *effect* with a number, at which a [`fault`] can be put: an error, a lost answer, half a write,
//! or the end of the daemon.
//!
//! Whenever the daemon has come to rest, [`check`] compares kernel, files, processes and what the
//! daemon thinks with each other, and with what its callers were told ([`promise`]).
//!
//! Two drivers: [`exhaustive`] puts every fault at every effect of written scenarios; [`random`]
//! makes scripts of seeds, in which others meddle with the kernel ([`meddling`]), too. [`lan`] has
//! the machines behind an uplink, which answer by ARP, [`saving`] the thread that takes a snapshot.
//! In [`misplaced`] a daemon comes up beside another one, or without its files.

mod check;
mod exhaustive;
mod fault;
mod known;
mod lan;
mod lease;
mod meddling;
mod misplaced;
mod promise;
mod random;
mod saving;
mod script;
mod sim;
mod talk;
mod world;
