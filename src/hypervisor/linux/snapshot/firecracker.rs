//! Saves a guest of Firecracker.
//!
//! It writes two files by itself, whose paths it is told (docs/snapshotting/snapshot-support.md of
//! Firecracker): it truncates and overwrites those that are there. The guest has to be paused, and
//! all of its memory is written before the answer comes. That cannot be called off. Whoever calls
//! it off waits for its end, with a bound.
//!
//! In the file for the devices are the paths of the disks and of the vsock's socket. They have to
//! be relative ([`crate::hypervisor::firecracker`]): a guest that woke with others would write to
//! the disks of this one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::api;
use crate::hypervisor::snapshot::{MEMORY, STATE};

const CONFIGURATION: &str = "GET /vm/config";
const VERSION: &str = "GET /version";

/// A Firecracker that is asked on its API.
pub(super) struct Firecracker {
    socket: PathBuf,
    /// How long an answer may take.
    answer_max: Duration,
}

impl Firecracker {
    /// Sees whether the guest can be saved.
    pub(super) fn connect(socket: &Path, answer_max: Duration) -> Result<Firecracker, String> {
        let firecracker = Firecracker { socket: socket.into(), answer_max };
        match absolute(&firecracker.get(CONFIGURATION)?) {
            None => Ok(firecracker),
            Some(path) => Err(format!(
                "what wakes from its snapshot would use {path}, too: an older volnet started it, \
                 so stop it and start it again"
            )),
        }
    }

    /// Its version, as `--version` says it (src/firecracker/src/main.rs of Firecracker;
    /// `FirecrackerVersion` in src/firecracker/swagger/firecracker.yaml).
    pub(super) fn version(&self) -> Result<String, String> {
        match self.get(VERSION)?["firecracker_version"].as_str() {
            Some(version) => Ok(format!("Firecracker v{version}")),
            None => Err(format!("it does not say its version ({VERSION})")),
        }
    }

    /// Saves the guest, which stands still from then on.
    pub(super) fn save(&self, part: &Path, is_over: &impl Fn() -> bool) -> Result<(), String> {
        self.ask("PATCH /vm", Some(&json!({ "state": "Paused" })))?;
        let files = json!({
            "snapshot_path": part.join(STATE),
            "mem_file_path": part.join(MEMORY),
        });
        api::ask_to_the_end(&self.socket, "PUT /snapshot/create", &files, is_over)
    }

    /// Lets the guest go on.
    pub(super) fn go_on(&self) -> Result<(), String> {
        self.ask("PATCH /vm", Some(&json!({ "state": "Resumed" }))).map(drop)
    }

    fn get(&self, request: &str) -> Result<Value, String> {
        let told = self.ask(request, None)?;
        serde_json::from_str(&told).map_err(|error| format!("{request}: {error}"))
    }

    fn ask(&self, request: &str, body: Option<&Value>) -> Result<String, String> {
        api::ask(&self.socket, request, body, |passed| passed > self.answer_max)
    }
}

/// A path in a configuration that is the same for whoever wakes from a snapshot.
fn absolute(config: &Value) -> Option<&str> {
    let drives = config["drives"].as_array().into_iter().flatten();
    let paths = drives.map(|drive| &drive["path_on_host"]).chain([&config["vsock"]["uds_path"]]);
    paths.filter_map(Value::as_str).find(|path| path.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_clones_would_share_is_found() {
        let config = |disk: &str, socket: &str| {
            json!({
                "drives": [{ "path_on_host": "disk0" }, { "path_on_host": disk }],
                "vsock": { "uds_path": socket },
            })
        };
        assert_eq!(absolute(&config("disk1", "vsock.sock")), None);
        assert_eq!(absolute(&json!({ "drives": [], "vsock": null })), None);
        assert_eq!(absolute(&config("/srv/a.img", "vsock.sock")), Some("/srv/a.img"));
        assert_eq!(absolute(&config("disk1", "/run/v.sock")), Some("/run/v.sock"));
    }
}
