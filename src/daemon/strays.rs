//! Processes of ours whose VM has no record.
//!
//! Processes carry marks in their environment, so they are found whatever became of the files. One
//! whose VM has no record may have its disk and its tap. It is not ours to end: the state directory
//! may not be mounted. So `check` names it, and no VM of its name is created while it runs.

use std::collections::BTreeMap;

use super::shell::Shell;
use crate::hypervisor::process::Processes;
use crate::model::error::Failure;
use crate::model::name::VmName;
use crate::model::record::ProcessId;
use crate::model::view::{Finding, Level};
use crate::network::Network;
use crate::store::storage::Storage;

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// A process was found whose VM has no record.
    pub(super) fn keep_stray(&mut self, name: VmName, id: ProcessId) {
        log::error!("{}", describe(&name, &id));
        self.strays.insert(name, id);
    }

    /// While such a process runs, no VM of its name is created.
    pub(super) fn refuse_stray(&mut self, name: &VmName) -> Result<(), Failure> {
        let Some(id) = self.strays.get(name) else { return Ok(()) };
        if self.processes.find(name).as_ref() == Some(id) {
            let (name, reason) = (name.to_string(), describe(name, id));
            return Err(Failure::Hypervisor { name, reason, log: None });
        }
        self.strays.remove(name);
        Ok(())
    }

    /// What `check` says of them.
    pub(super) fn stray_findings(&mut self) -> Vec<Finding> {
        let found = if self.strays.is_empty() {
            Default::default()
        } else {
            self.processes.find_all(&BTreeMap::new())
        };
        self.strays.retain(|name, id| found.get(name) == Some(id));
        let finding = |(name, id): (&VmName, &ProcessId)| Finding {
            check: "processes".into(),
            level: Level::Error,
            message: describe(name, id),
            hint: Some(format!(
                "end it, or put the record of VM {name} back and start volnet again"
            )),
        };
        self.strays.iter().map(finding).collect()
    }
}

fn describe(name: &VmName, id: &ProcessId) -> String {
    format!("process {} runs for VM {name}, of which there is no record", id.pid)
}
