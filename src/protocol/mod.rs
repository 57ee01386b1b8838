//! The wire: Varlink over a Unix socket, with a newline allowed in place of NUL.
//!
//! [`frame`] finds messages in bytes, [`request`] makes a [`crate::model::request::Request`] of
//! one, [`reply`] makes bytes of the answer, [`service`] answers `org.varlink.service`. [`client`]
//! is the other side. None of them reads or writes anything: bytes in, bytes out. [`exercise`] holds
//! the bodies of the fuzz targets.

pub mod client;
pub mod exercise;
pub mod frame;
pub mod reply;
pub mod request;
pub mod service;
