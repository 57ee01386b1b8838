//! A reply with all VMs, written in parts.
//!
//! However many VMs there are, the reply needs no more memory than a part, and others have their
//! turns between two parts. Each VM is as it is when its part is written. VMs are in the order of
//! their names, so one that comes or goes meanwhile moves no other. Usage is as it was read.

use serde::Serialize;

use super::frame::Terminator;
use crate::model::name::VmName;
use crate::model::view::{UsageView, VmView};

/// Such a reply, as far as it is written.
#[derive(Debug, Default)]
pub struct VmsReply {
    /// When what VMs used was read, if it is a reply with that.
    at_ms: Option<u64>,
    last: Option<VmName>,
}

/// What such a reply has of each VM.
pub trait OfVm: Serialize {
    /// The name of the VM.
    fn name(self) -> VmName;
}

impl OfVm for VmView {
    fn name(self) -> VmName {
        self.name
    }
}

impl OfVm for UsageView {
    fn name(self) -> VmName {
        self.name
    }
}

impl VmsReply {
    /// The reply with what all VMs had used at this time.
    pub fn usage(at_ms: u64) -> VmsReply {
        VmsReply { at_ms: Some(at_ms), last: None }
    }

    /// The VM after which the next part begins; `None`: it is the first part.
    pub fn last(&self) -> Option<&VmName> {
        self.last.as_ref()
    }

    /// Appends a VM, and more until there are no more or `out` has this many bytes. Whether there
    /// are no more.
    pub fn part<V: OfVm>(
        &mut self,
        out: &mut Vec<u8>,
        vms: impl IntoIterator<Item = V>,
        bytes: usize,
    ) -> bool {
        if self.last.is_none() {
            let at = self.at_ms.map(|at| format!("\"at_ms\":{at},")).unwrap_or_default();
            out.extend_from_slice(format!("{{\"parameters\":{{{at}\"vms\":[").as_bytes());
        }
        for vm in vms {
            if self.last.is_some() {
                out.push(b',');
            }
            serde_json::to_writer(&mut *out, &vm).expect("a reply is made of what JSON has");
            self.last = Some(vm.name());
            if out.len() >= bytes {
                return false;
            }
        }
        true
    }

    /// Appends the end. `continues`: more replies to the same call follow.
    pub fn end(self, out: &mut Vec<u8>, continues: bool, end: Terminator) {
        out.extend_from_slice(if continues { b"]},\"continues\":true}" } else { b"]}}" });
        out.push(end.byte());
    }

    /// Appends all of it at once.
    pub fn whole<V: OfVm>(
        mut self,
        out: &mut Vec<u8>,
        vms: impl IntoIterator<Item = V>,
        continues: bool,
        end: Terminator,
    ) {
        self.part(out, vms, usize::MAX);
        self.end(out, continues, end);
    }
}
