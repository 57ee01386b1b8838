//! Gives VMs their users, as [`crate::model::run_as`] describes them.
//!
//! The engine reads no list of users: the caller looks a name up before it asks for a VM
//! ([`Engine::know_user`]).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::engine::decide::Engine;
use crate::model::error::Refusal;
use crate::model::name::VmName;
use crate::model::record::Record;
use crate::model::run_as::{RunAs, VmUser};
use crate::model::spec::VmSpec;

/// The field of a configuration.
pub const FIELD: &str = "run_as";

impl Engine {
    /// The same engine, which takes the users of VMs from this range, and gives one to each VM that
    /// says nothing of its user, or to none of them.
    pub fn with_users(mut self, range: RangeInclusive<u32>, run_as: RunAs) -> Engine {
        self.state.ledger.keep_uids(range);
        self.host.run_as = run_as;
        self
    }

    /// Takes the user that the request at hand names, if the host has it.
    pub fn know_user(&mut self, user: Option<VmUser>) {
        self.known.user = user;
    }

    /// The user of a VM that exists, or the one that a new VM would get; `None`: that of all
    /// hypervisors.
    pub fn user_for(&self, name: &VmName, spec: &VmSpec) -> Result<Option<VmUser>, Refusal> {
        if let Some(vm) = self.state.vms.get(name) {
            return Ok(vm.record.user);
        }
        if spec.machine.is_none() {
            return Ok(None);
        }
        let uids = self.state.ledger.uids();
        match spec.run_as.as_ref().unwrap_or(&self.host.run_as) {
            RunAs::Shared => Ok(None),
            RunAs::Own => {
                let none = || refuse("every user of vm_uids has a VM".into());
                Ok(Some(VmUser::own(uids.peek().ok_or_else(none)?)))
            }
            RunAs::User(name) => match self.known.user {
                None => Err(refuse(format!("the host has no user {name:?}"))),
                Some(VmUser { uid: 0, .. }) => {
                    Err(refuse("a VM of root would have the host".into()))
                }
                Some(VmUser { uid, .. }) if uids.is_kept(uid) => {
                    Err(refuse(format!("user {uid} is one of vm_uids, which VMs have alone")))
                }
                Some(user) => Ok(Some(user)),
            },
        }
    }

    /// The users of VMs that do not have the one of all hypervisors.
    pub fn users(&self) -> BTreeMap<VmName, u32> {
        let users = self.state.vms.values().filter_map(|vm| {
            let user = vm.record.user?;
            Some((vm.record.name.clone(), user.uid))
        });
        users.collect()
    }

    /// Gives a new VM its user.
    pub(super) fn claim_user(&mut self, record: &mut Record) -> Result<(), Refusal> {
        record.user = self.user_for(&record.name, &record.spec)?;
        if record.own_uid().is_some() {
            self.state.ledger.claim_uid();
        }
        Ok(())
    }
}

fn refuse(reason: String) -> Refusal {
    Refusal::InvalidConfig { field: FIELD.into(), reason }
}
