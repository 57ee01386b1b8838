//! The wire: Varlink over a Unix socket, with a newline allowed in place of NUL.
//!
//! [`frame`] finds messages in bytes, [`request`] makes a [`crate::engine::request::Request`] of
//! one, [`reply`] makes bytes of the answer, [`service`] answers `org.varlink.service`.

pub mod frame;
