//! Attachments: VMs whose network is in a namespace of others.
//!
//! Nobody but the owner of a namespace has a way into it, so volnet cannot make the link of an
//! attachment anew. The end of the link is the end of the attachment: its address, its elements and
//! its ports are released at once, whether its engine says so or not. That is safe even if the
//! namespace lives on, because nobody can send from that address any more.
//!
//! The same holds for a tap in the host's own namespace that was attached. It could be made anew,
//! but its guest would not have that one open. So whoever cannot reach volnet ends such a VM by the
//! end of its tap, too.

use std::collections::BTreeMap;

use crate::engine::decide::{Answer, Decision, Engine, Step};
use crate::engine::lifecycle::FollowUp;
use crate::engine::vm::Vm;
use crate::model::attachment::AttachmentId;
use crate::model::clock::Now;
use crate::model::error::{Error, Refusal};
use crate::model::name::VmName;
use crate::model::nic::Nic;
use crate::model::record::Record;
use crate::model::request::{Reply, Ticket};
use crate::model::spec::{NetworkSpec, VmSpec};
use crate::model::view::EventKind;
use crate::plan::reconcile::Link;

impl Engine {
    /// Attaches a namespace. What is attached already is refused, because its caller has another
    /// link in mind.
    pub(super) fn attach(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        spec: &VmSpec,
        now: Now,
    ) -> Result<Step, Error> {
        if let Some(known) = self.state.vms.get(name) {
            return Err(taken(known, spec).into());
        }
        let mut step = self.create(ticket, name, spec, false, false, now)?;
        if let Step::Do(decision) = &mut step {
            decision.answers = vec![(ticket, Answer::Attached)];
        }
        Ok(step)
    }

    /// Releases an attachment.
    pub(super) fn detach(&mut self, ticket: Ticket, id: &AttachmentId) -> Step {
        match self.attachment(id).map(|vm| vm.record.name.clone()) {
            // Nobody starts its process, so there is none to end.
            Ok(name) => {
                Step::Do(Box::new(self.begin_delete(&name, vec![(ticket, Answer::Detached)])))
            }
            Err(_) => Step::reply(Reply::Detached { released: false }),
        }
    }

    /// An attachment.
    pub fn attachment(&self, id: &AttachmentId) -> Result<&Vm, Refusal> {
        let is_it =
            |vm: &&Vm| vm.record.spec.attachment.as_ref().is_some_and(|known| known.id == *id);
        self.state.vms.get(&id.vm_name()).filter(is_it).ok_or_else(|| {
            let AttachmentId { container, ifname, .. } = id.clone();
            Refusal::AttachmentNotFound { container, ifname }
        })
    }

    /// The answer to whoever attached it.
    pub(super) fn attached(&self, vm: &Vm) -> Result<Reply, Refusal> {
        let lost = || Refusal::VmNotFound { name: vm.record.name.to_string() };
        let nic = vm.record.nics.first().ok_or_else(lost)?;
        let network = self.network_of(nic).ok_or_else(lost)?;
        Ok(Reply::Attached {
            vm: Box::new(self.show(vm)),
            bridge: network.bridge.clone(),
            bridge_mac: network.managed.then_some(network.mac),
            host_mac: nic.mac.highest(),
            gateway6: network.ipv6.map(|ipv6| ipv6.host),
        })
    }

    /// Why nothing that wants this of a network can be attached, if that is so. A network that was
    /// added has a use until now.
    pub fn unready(&mut self, wanted: &NetworkSpec, now: Now) -> Result<Option<String>, Refusal> {
        let (network, reason) = self.state.ledger.room(wanted)?;
        self.network_used(&network, now);
        Ok(reason)
    }

    /// A link is gone. If it was that of an attachment, the attachment is over.
    pub(super) fn end_with(&mut self, link: &Link) {
        let vms = &self.state.vms;
        let owner = self.state.ledger.owner_of_tap(&link.name).and_then(|name| vms.get(name));
        let had = |nic: &Nic| nic.tap.as_str() == link.name && nic.ifindex == Some(link.index);
        if let Some(vm) = owner.filter(|vm| is_attachment(vm) && vm.record.nics.iter().any(had)) {
            self.agenda.follow_ups.push_back(end_of(vm));
        }
    }

    /// Ends the attachments whose links are not among those of the host.
    pub(super) fn end_missing(&mut self, links: &[Link]) {
        let mut attachments = self.state.vms.values().filter(|vm| is_attachment(vm)).peekable();
        if attachments.peek().is_none() {
            return;
        }
        let links: BTreeMap<&str, &Link> =
            links.iter().map(|link| (link.name.as_str(), link)).collect();
        let is_missing = |nic: &Nic| {
            let link = links.get(nic.tap.as_str());
            link.is_none_or(|link| !link.is_of_nic() && nic.ifindex != Some(link.index))
        };
        let ended = attachments.filter(|vm| vm.record.nics.iter().any(is_missing));
        self.agenda.follow_ups.extend(ended.map(end_of));
    }

    /// The decision that releases an attachment whose link is gone. There is none if the attachment
    /// is gone, too: another one of its name has another link.
    pub(super) fn begin_end(&mut self, name: &VmName, link: Option<u32>) -> Option<Decision> {
        self.state.vms.get(name).filter(|vm| is_attachment(vm) && link_of(vm) == link)?;
        let message = format!("VM {name} was deleted: its link is gone, or its network namespace");
        let events = vec![(EventKind::VmDeleted, message)];
        Some(Decision { events, ..self.begin_delete(name, Vec::new()) })
    }
}

/// What is to be done about an attachment whose link is gone.
fn end_of(vm: &Vm) -> FollowUp {
    FollowUp::Ended { name: vm.record.name.clone(), link: link_of(vm) }
}

/// The index of the link of an attachment. The kernel gives no other link that index.
fn link_of(vm: &Vm) -> Option<u32> {
    vm.record.nics.first().and_then(|nic| nic.ifindex)
}

fn is_attachment(vm: &Vm) -> bool {
    vm.record.spec.attachment.is_some()
}

/// Why something cannot be attached: its name is that of this VM.
fn taken(known: &Vm, wanted: &VmSpec) -> Refusal {
    let id = |spec: &VmSpec| spec.attachment.as_ref().map(|attachment| attachment.id.clone());
    match id(&known.record.spec) {
        Some(AttachmentId { container, ifname, .. }) if id(&known.record.spec) == id(wanted) => {
            Refusal::AttachmentExists { container, ifname }
        }
        Some(_) | None => Refusal::VmExists { name: known.record.name.to_string() },
    }
}

/// Refuses what needs a tap that a hypervisor here opens.
pub fn refuse_attachment(record: &Record) -> Result<(), Refusal> {
    match &record.spec.attachment {
        None => Ok(()),
        Some(attachment) if attachment.host => Ok(()),
        Some(attachment) => {
            let (field, netns) = ("attachment".into(), &attachment.netns);
            let reason =
                format!("the network of {} is in {netns}, not a hypervisor's", record.name);
            Err(Refusal::InvalidConfig { field, reason })
        }
    }
}
