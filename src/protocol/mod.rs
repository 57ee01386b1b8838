//! The wire: Varlink over a Unix socket, with a newline allowed in place of NUL.
//!
//! [`frame`] finds messages in bytes. [`request`] decodes a message to a
//! [`crate::model::request::Request`], and [`reply`] encodes the answer, [`vms`] one with all VMs.
//! [`service`] answers `org.varlink.service`. [`client`] is the other side.
//!
//! Metrics are text ([`exposition`]), for scrapers over HTTP ([`http`]).
//!
//! No module here does I/O: bytes in, bytes out. `fuzz` has the bodies of the fuzz targets.

pub mod client;
pub mod exposition;
pub mod frame;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod http;
pub mod reply;
pub mod request;
pub mod service;
pub mod text;
pub mod vms;
