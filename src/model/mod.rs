//! Words and values: what the other rooms speak of. Nothing here decides, reads or writes, and
//! nothing is imported from another room.
//!
//! In reading order: the words, each checked where it is made ([`name`], [`mac`], [`prefix`],
//! [`mode`]), what a VM is written down as ([`record`]), what is asked and answered ([`request`],
//! [`view`]), and what can go wrong ([`error`]).

pub mod error;
pub mod kernel_args;
pub mod mac;
pub mod mode;
pub mod name;
pub mod prefix;
pub mod record;
pub mod request;
pub mod view;
