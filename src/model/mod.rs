//! Words and values that the other rooms use. Nothing here decides or does I/O, and nothing is
//! imported from another room.
//!
//! In reading order: the words, each checked where it is made ([`name`], [`mac`], [`prefix`],
//! [`mode`], [`kernel_args`]), the networks of the host ([`net`]), what was asked for of a VM
//! ([`spec`], [`attachment`], [`document`], [`run_as`], [`budget`]) and what it may do with its
//! network ([`traffic`], [`policy`], [`limits`], [`expose`]), what is written of it ([`record`],
//! [`nic`]), what its guest believes ([`inner`]), what guests that ask for their address get
//! ([`lease`]), the time ([`clock`]), what is asked and answered ([`request`], [`view`]), and what
//! can go wrong ([`error`]).

pub mod attachment;
pub mod budget;
pub mod clock;
pub mod document;
pub mod error;
pub mod expose;
pub mod inner;
pub mod kernel_args;
pub mod lease;
pub mod limits;
pub mod mac;
pub mod mode;
pub mod name;
pub mod net;
pub mod nic;
pub mod policy;
pub mod prefix;
pub mod record;
pub mod request;
pub mod run_as;
pub mod spec;
pub mod traffic;
pub mod view;
