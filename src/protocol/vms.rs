//! A reply with all VMs, written in parts.
//!
//! However many VMs there are, the reply needs no more memory than a part, and others have their
//! turns between two parts. Each VM is as it is when its part is written. VMs are in the order of
//! their names, so one that comes or goes meanwhile moves no other.

use super::frame::Terminator;
use crate::model::name::VmName;
use crate::model::view::VmView;

/// Such a reply, as far as it is written.
#[derive(Debug, Default)]
pub struct VmsReply {
    last: Option<VmName>,
}

impl VmsReply {
    /// The VM after which the next part begins; `None`: it is the first part.
    pub fn last(&self) -> Option<&VmName> {
        self.last.as_ref()
    }

    /// Appends a VM, and more until there are no more or `out` has this many bytes. Whether there
    /// are no more.
    pub fn part(
        &mut self,
        out: &mut Vec<u8>,
        vms: impl IntoIterator<Item = VmView>,
        bytes: usize,
    ) -> bool {
        if self.last.is_none() {
            out.extend_from_slice(b"{\"parameters\":{\"vms\":[");
        }
        for vm in vms {
            if self.last.is_some() {
                out.push(b',');
            }
            serde_json::to_writer(&mut *out, &vm).expect("a reply is made of what JSON has");
            self.last = Some(vm.name);
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
    pub fn whole(
        mut self,
        out: &mut Vec<u8>,
        vms: impl IntoIterator<Item = VmView>,
        continues: bool,
        end: Terminator,
    ) {
        self.part(out, vms, usize::MAX);
        self.end(out, continues, end);
    }
}
