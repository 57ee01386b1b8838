//! The imperative shell: wait, decode, decide, execute, store, reply.
//!
//! [`shell`] carries out decisions, and knows neither sockets nor clocks. Its parts are `conduct`
//! for the order of the steps, `host`, `heal`, `inspect`, `doubt` and `strays` for the host as a
//! whole, `networks` for those that come and go, `doctor` and `trace` for what packets meet,
//! `guests` for DHCP, `names` for DNS, `report` for events and their lines in the log, `troubles`
//! for events about guests, `group_commit` for requests that arrive together, `saving` for
//! snapshots, and [`launch`] for hypervisors. `event_loop` with its sources ([`sources`], `source`,
//! `client`) and `workers` drives it, and knows by `tickets` who waits for what.
//! [`serve()`] is the daemon, and [`offline`] the same shell for one request without a daemon. On
//! systems other than Linux both are in `not_linux`.

#[cfg(target_os = "linux")]
mod client;
mod conduct;
mod doctor;
mod doubt;
#[cfg(target_os = "linux")]
mod event_loop;
#[cfg(all(target_os = "linux", any(test, feature = "testing")))]
pub mod fuzz;
mod group_commit;
mod guests;
mod heal;
mod host;
mod inspect;
pub mod launch;
#[cfg(target_os = "linux")]
mod listen;
#[cfg(target_os = "linux")]
mod names;
mod networks;
#[cfg(not(target_os = "linux"))]
mod not_linux;
#[cfg(target_os = "linux")]
mod notify;
mod numbers;
#[cfg(target_os = "linux")]
pub mod peer;
mod probe;
#[cfg(target_os = "linux")]
mod refusals;
mod report;
pub mod saving;
#[cfg(target_os = "linux")]
mod serve;
pub mod shell;
#[cfg(target_os = "linux")]
mod source;
pub mod sources;
mod strays;
#[cfg(target_os = "linux")]
mod tickets;
mod trace;
mod troubles;
#[cfg(target_os = "linux")]
mod workers;

use std::time::{Instant, SystemTime};

#[cfg(not(target_os = "linux"))]
pub use not_linux::{offline, serve};
#[cfg(target_os = "linux")]
pub use serve::{offline, serve};

use crate::model::clock::Now;

/// Reads the clocks.
fn now(started: Instant) -> Now {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mono = started.elapsed().as_millis() as u64;
    Now { wall: since_epoch.as_millis() as u64, mono, boot: since_boot().unwrap_or(mono) }
}

#[cfg(target_os = "linux")]
fn since_boot() -> Option<u64> {
    use nix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    Some(time.tv_sec() as u64 * 1000 + time.tv_nsec() as u64 / 1_000_000)
}

/// Leases do not outlive the daemon there.
#[cfg(not(target_os = "linux"))]
fn since_boot() -> Option<u64> {
    None
}
