//! The documents of a VM: the Volant plugin manifest (schema version 1) and the configuration.
//!
//! `manifest` and `config` read the two documents, and [`mod@resolve`] makes one
//! [`crate::model::spec::VmSpec`] of them: the configuration wins over the manifest, the `network`
//! section field by field. Fields that volnet does not use are checked for form and kept in the
//! record; [`mod@notes`] says of which that matters. [`mod@attach`] does the same for an
//! attachment, and [`mod@snapshot`] for a guest that wakes from a snapshot. `fuzz` has the bodies
//! of the fuzz targets.

mod attach;
mod cloud_init;
mod config;
pub(crate) mod fields;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod manifest;
mod notes;
mod resolve;
mod sections;
pub mod snapshot;
pub(crate) mod text;

pub use attach::{attach, wanted};
pub use cloud_init::{CloudInit, MetaData, cloud_init};
pub use config::content_mut;
pub use notes::notes;
pub use resolve::{CPUS_DEFAULT, HUGE_PAGE_MB, MEMORY_MB_DEFAULT, resolve};
pub use sections::{
    CPUS_MAX, DISKS_MAX, MEMORY_MB_MAX, MEMORY_MB_MIN, MTU_MAX, MTU_MIN, QUEUES_MAX,
};
pub(crate) use sections::{extra_args, inner, traffic};
pub use text::{CMDLINE_BYTES_MAX, PATH_BYTES_MAX};
