//! Whether the state directory is the right one.
//!
//! A link of ours whose VM has no record is left over, and is removed at the start. If the file
//! system of the state directory is not mounted, this would be the links of all VMs. So the
//! directory is in doubt if it has no record at all, if the host has links of VMs without a record,
//! and if one of these is true:
//!
//! - it is new, or not the directory that the runtime directory remembers;
//! - a process holds one of these links open. A change that was cut short leaves no such link: its
//!   VM is named by an intent, or its process has ended.
//!
//! While the directory is in doubt, the host is left as it is: nothing is set up, repaired or
//! removed, no VM is created, and `check` says why. The doubt ends with the next daemon, which
//! finds the records, or with the links, or when somebody insists (`setup --force`,
//! `teardown --force`).

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::shell::Shell;
use crate::hypervisor::process::Processes;
use crate::model::error::Refusal;
use crate::model::name::VmName;
use crate::model::nic::NicName;
use crate::model::record::DirectoryId;
use crate::network::Network;
use crate::plan::reconcile::{Link, Observed};
use crate::store::Loaded;
use crate::store::storage::Storage;

/// What to do about a state directory that is in doubt.
pub(super) const REMEDY: &str = "mount its file system and start volnet again, or begin anew with \
    volnet setup --force or volnet teardown --force";

/// What is known of the state directory.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// It was not compared with the host yet, or it is in doubt: then the second says why.
    Open(Evidence, Option<String>),
    /// It is the right one.
    Trusted,
}

/// What was found in the directories.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// There is a record of a durable VM.
    has_durable: bool,
    /// The VMs of which there is a record or an intent.
    named: BTreeSet<VmName>,
    /// The directory of the records is the one that the last daemon had, as far as is known.
    is_same: bool,
}

impl Default for State {
    fn default() -> State {
        State::Open(Evidence::default(), None)
    }
}

impl State {
    /// Why the directory is in doubt, if it is.
    pub(super) fn doubt(&self) -> Option<&str> {
        match self {
            State::Open(_, doubt) => doubt.as_deref(),
            State::Trusted => None,
        }
    }
}

impl Evidence {
    /// What was read, with the directory of the records.
    pub(super) fn new(loaded: &Loaded, durable: Option<DirectoryId>) -> Evidence {
        // What cannot be read says nothing against the directory.
        let is_of_host = |(path, _): &(PathBuf, String)| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("host.json"))
        };
        let unreadable = loaded.set_aside.iter().any(is_of_host);
        let remembered = loaded.host.as_ref().and_then(|host| host.records);
        let records = loaded.records.iter().map(|record| &record.name);
        let intents = loaded.intents.iter().map(|(name, _)| name);
        Evidence {
            has_durable: loaded.records.iter().any(|record| !record.spec.ephemeral),
            named: records.chain(intents).cloned().collect(),
            is_same: durable.is_some() && (unreadable || remembered == durable),
        }
    }

    /// Why this cannot be all that belongs to the links of the host.
    fn doubt(&self, observed: &Observed) -> Option<String> {
        let unknown = |link: &&Link| {
            let vm = link.nic().and_then(NicName::vm_of);
            link.is_of_nic() && vm.is_none_or(|vm| !self.named.contains(&vm))
        };
        let links: Vec<&Link> = observed.links.iter().filter(unknown).collect();
        let held = links.iter().any(|link| link.is_open());
        let first = links.first().filter(|_| !self.has_durable && (!self.is_same || held))?;
        Some(format!(
            "the state directory has no record, and the host has {} links of VMs that are not in \
             it, such as {}",
            links.len(),
            first.name
        ))
    }
}

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Compares the state directory with the host, and says whether it is in doubt.
    pub(super) fn is_in_doubt(&mut self, observed: &Observed) -> bool {
        if let State::Open(found, told) = &mut self.state {
            let doubt = found.doubt(observed);
            if let Some(doubt) = doubt.as_ref().filter(|doubt| told.as_ref() != Some(doubt)) {
                log::error!("{doubt}: nothing is changed; {REMEDY}");
            }
            match doubt {
                None => self.state = State::Trusted,
                doubt => *told = doubt,
            }
        }
        self.state.doubt().is_some()
    }

    /// While the state directory is in doubt, nothing on the host is changed.
    pub(super) fn refuse_in_doubt(&self) -> Result<(), Refusal> {
        match self.state.doubt() {
            None => Ok(()),
            Some(doubt) => {
                let (field, reason) = ("state_dir".into(), format!("{doubt}; {REMEDY}"));
                Err(Refusal::InvalidConfig { field, reason })
            }
        }
    }
}
