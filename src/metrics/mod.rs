//! Metrics: what is counted, its text, and those who read it.
//!
//! [`tally`] counts what the daemon does, and [`numbers`] has what it reads of VMs and kernel when
//! somebody asks. [`text`] has the table of all metrics and makes a text of the numbers.
//! [`scraper`] is a connection that asks for it by HTTP; the event loop of the daemon gives it its
//! turns.

pub mod counters;
pub mod numbers;
#[cfg(target_os = "linux")]
pub mod scraper;
pub mod tally;
pub mod text;
