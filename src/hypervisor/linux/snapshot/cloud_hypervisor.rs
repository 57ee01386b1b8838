//! Saves a guest of Cloud Hypervisor.
//!
//! It saves a guest that is paused, into a folder in which it makes all files itself: those that
//! are there already are an error (docs/snapshot_restore.md, `Transportable for Vm` in
//! vmm/src/vm.rs). The request cannot be called off, and all later ones wait for its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::api;
use crate::hypervisor::CLOUD_HYPERVISOR;
use crate::hypervisor::cloud_hypervisor::saved;

const INFO: &str = "GET /api/v1/vm.info";
const PING: &str = "GET /api/v1/vmm.ping";

/// A Cloud Hypervisor that is asked on its API.
pub(super) struct CloudHypervisor {
    socket: PathBuf,
    /// How long an answer may take.
    answer_max: Duration,
}

impl CloudHypervisor {
    /// Sees whether the guest can be saved.
    pub(super) fn connect(socket: &Path, answer_max: Duration) -> Result<CloudHypervisor, String> {
        let hypervisor = CloudHypervisor { socket: socket.into(), answer_max };
        let info = hypervisor.info()?;
        match saved::foreign(&info["config"]) {
            None => Ok(hypervisor),
            Some(part) => Err(format!("volnet wakes no guest with what its {part} says")),
        }
    }

    /// Its version, as `--version` says it (src/main.rs of Cloud Hypervisor; `VmmPingResponse` in
    /// vmm/src/api/openapi/cloud-hypervisor.yaml).
    pub(super) fn version(&self) -> Result<String, String> {
        match self.get(PING)?["build_version"].as_str() {
            Some(version) => Ok(format!("{CLOUD_HYPERVISOR} {version}")),
            None => Err(format!("it does not say its version ({PING})")),
        }
    }

    /// Saves the guest, which stands still from then on.
    pub(super) fn save(&self, part: &Path, is_over: &impl Fn() -> bool) -> Result<(), String> {
        // It refuses to pause a guest that is paused.
        if self.info()?["state"] != "Paused" {
            self.ask("PUT /api/v1/vm.pause", None)?;
        }
        let part = part.to_str().ok_or("the path of the snapshot is not UTF-8")?;
        let place = json!({ "destination_url": format!("file://{part}") });
        api::ask_to_the_end(&self.socket, "PUT /api/v1/vm.snapshot", &place, is_over)
    }

    /// Lets the guest go on.
    pub(super) fn go_on(&self) -> Result<(), String> {
        let Err(refused) = self.ask("PUT /api/v1/vm.resume", None) else { return Ok(()) };
        // It refuses that to a guest that was not paused, too.
        match self.info()?["state"] == "Running" {
            true => Ok(()),
            false => Err(refused),
        }
    }

    fn info(&self) -> Result<Value, String> {
        self.get(INFO)
    }

    fn get(&self, request: &str) -> Result<Value, String> {
        let told = self.ask(request, None)?;
        serde_json::from_str(&told).map_err(|error| format!("{request}: {error}"))
    }

    fn ask(&self, request: &str, body: Option<&Value>) -> Result<String, String> {
        api::ask(&self.socket, request, body, |passed| passed > self.answer_max)
    }
}
