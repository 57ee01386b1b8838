//! A kernel in memory, for tests and simulation.
//!
//! It keeps the state that [`Network::observe`] reports, and answers every Op as Linux would: names
//! that are taken, links that are gone, bridges that are full, tables that another process owns. It
//! also fails on command ([`Fake::fail`]), and others can change it behind volnet's back
//! ([`Fake::add_link`], [`Fake::delete_link`], [`Fake::own_table`]).
//!
//! A [`Kernel`] can be cloned and compared, so a test can say that nothing changed.

mod links;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::features::Features;
use super::{Applied, Network};
use crate::model::error::{Failure, KernelOutcome, Reason, Refusal};
use crate::plan::op::{InnerLink, Op, Switch};
use crate::plan::reconcile::{ACCEPT_RA, DesiredPort, Link, LinkKind, Observed, ObservedTable};
use crate::plan::ruleset::Family;

/// Ports of one bridge: `BR_MAX_PORTS` less the reserved one (net/bridge/br_private.h).
pub const BRIDGE_PORTS_MAX: usize = 1023;

/// The state of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// The observable state.
    pub observed: Observed,
    /// Tables of our names that another process owns.
    pub foreign_tables: Vec<(Family, String)>,
    /// The neighbour entries: index of the link, address.
    pub neighbours: BTreeSet<(u32, IpAddr)>,
    /// The tracked connections: the side that began it, the side that answers.
    pub flows: BTreeSet<(IpAddr, IpAddr)>,
    /// The inner ends of links, by the index of the outer end.
    pub inner: BTreeMap<u32, InnerLink>,
    /// What it can do.
    pub features: Features,
}

/// What can go wrong with an Op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFault {
    /// It is refused, for this reason.
    Refused(Reason),
    /// It is done, and the answer is lost.
    Done,
    /// It is not done, and that cannot be known: the answer is lost.
    Lost,
    /// A bridge or veth is made and its making cut short before it has its alias. Any other Op is
    /// not done.
    CutShort,
}

/// A kernel, its faults, and a log of all Ops.
#[derive(Clone, Debug, Default)]
pub struct Fake {
    /// Its state. Tests may change it.
    pub kernel: Kernel,
    /// Every applied Op, also the failed ones.
    pub log: Vec<Op>,
    /// What goes wrong by the number of the call of [`Network::apply`], the first being 0.
    faults: BTreeMap<usize, KernelFault>,
    /// The highest index of a link so far. An index is never reused.
    last_index: u32,
    /// Whether a namespace of others was entered, and whether a tap can be made there.
    entered: Option<bool>,
}

impl Fake {
    /// An empty kernel, which does not forward.
    pub fn new() -> Fake {
        let mut fake = Fake::default();
        fake.kernel.observed.switches.insert(Switch::Forwarding, 0);
        fake
    }

    /// Lets the `nth` call of `apply` from now on go wrong, 0 being the next.
    pub fn fail(&mut self, nth: usize, fault: KernelFault) {
        self.faults.insert(self.log.len() + nth, fault);
    }

    /// Whether nobody can tell one from the other, whatever is done to both.
    pub fn is_like(&self, other: &Fake) -> bool {
        let Fake { kernel, log: _, faults, last_index, entered } = self;
        (last_index, entered) == (&other.last_index, &other.entered)
            && faults.is_empty()
            && other.faults.is_empty()
            && *kernel == other.kernel
    }

    /// Lets nothing fail any more.
    pub fn heal(&mut self) {
        self.faults.clear();
    }

    /// Adds a link as another program would. Returns its index.
    pub fn add_link(&mut self, name: &str, kind: LinkKind) -> u32 {
        self.kernel.observed.links.push(links::new(self.last_index + 1, name, kind));
        self.kernel.observed.switches.insert(Switch::AcceptRa(name.into()), ACCEPT_RA);
        self.last_index += 1;
        self.last_index
    }

    /// Removes a link as another program would.
    pub fn delete_link(&mut self, name: &str) {
        self.kernel.delete_link(name, None);
    }

    /// A link by name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.kernel.observed.links.iter().find(|link| link.name == name)
    }

    /// A link by name, to change it as another program would.
    pub fn link_mut(&mut self, name: &str) -> Option<&mut Link> {
        self.kernel.observed.links.iter_mut().find(|link| link.name == name)
    }

    /// Gives a table to another process. Then only that process may change it.
    pub fn own_table(&mut self, family: Family, name: &str) {
        self.kernel.foreign_tables.push((family, name.to_string()));
    }

    /// A table by family and name.
    pub fn table_mut(&mut self, family: Family, name: &str) -> Option<&mut ObservedTable> {
        self.kernel.table_mut(family, name)
    }
}

impl Network for Fake {
    fn backend(&self) -> &'static str {
        "fake"
    }

    fn features(&mut self) -> Result<Features, Failure> {
        Ok(self.kernel.features)
    }

    fn observe(&mut self) -> Result<Observed, Failure> {
        Ok(self.kernel.observed.clone())
    }

    fn enter(&mut self, _: BorrowedFd<'_>, tun: Option<BorrowedFd<'_>>) -> Result<(), Refusal> {
        self.entered = Some(tun.is_some());
        Ok(())
    }

    fn leave(&mut self) {
        self.entered = None;
    }

    /// Applies an Op. A refusal that hits a [`Op::SetLink`] strikes when all its settings are made:
    /// the worst of the moments at which the kernel can give up.
    fn apply(&mut self, op: &Op) -> Result<Applied, Failure> {
        let fault = self.faults.remove(&self.log.len());
        self.log.push(op.clone());
        let refused = |reason| refused(op, reason);
        match (fault, op) {
            (None, _) => self.perform(op).map_err(refused),
            (Some(KernelFault::Refused(reason)), Op::SetLink { .. }) => {
                self.perform(op).map_err(refused)?;
                Err(refused(reason))
            }
            (Some(KernelFault::Refused(reason)), _) => Err(refused(reason)),
            (Some(KernelFault::Done), _) => {
                self.perform(op).map_err(refused)?;
                Err(unknown(op))
            }
            (
                Some(KernelFault::CutShort),
                Op::CreateBridge { name, .. } | Op::CreateVeth { name, .. },
            ) => {
                self.perform(op).map_err(refused)?;
                if let Some(link) = self.link_mut(name) {
                    (link.alias, link.unfinished) = (None, true);
                }
                Err(unknown(op))
            }
            (Some(KernelFault::Lost | KernelFault::CutShort), _) => Err(unknown(op)),
        }
    }

    /// Another open file instead of a tap.
    fn open_tap(&mut self, port: &DesiredPort<'_>) -> Result<OwnedFd, Failure> {
        let name = port.tap.as_str();
        match self.link(name) {
            Some(link) if Some(link.index) == port.index => File::open("/dev/null")
                .map(OwnedFd::from)
                .map_err(|error| Failure::kernel("open tap", name, &error)),
            Some(_) | None => Err(failure("open tap", name.into(), Reason::NoLink)),
        }
    }
}

impl Fake {
    fn perform(&mut self, op: &Op) -> Result<Applied, Reason> {
        if let Op::CreateVeth { inner, .. } = op {
            let device = self.entered.as_mut().ok_or(Reason::Missing)?;
            // A device makes one tap.
            if inner.tap.is_some() && !std::mem::take(device) {
                return Err(Reason::Missing);
            }
        }
        let applied = self.kernel.apply(op, self.last_index + 1)?;
        self.last_index = applied.ifindex.unwrap_or(self.last_index);
        Ok(applied)
    }
}

impl Kernel {
    /// Applies an Op; a link that it makes gets the index `next`.
    fn apply(&mut self, op: &Op, next: u32) -> Result<Applied, Reason> {
        let mut applied = Applied::default();
        match op {
            Op::CreateBridge { name, mac, mtu, alias } => {
                self.add_bridge(next, name, *mac, *mtu, alias)?;
                applied.ifindex = Some(next);
            }
            Op::CreateTap { name, owner, multi_queue, alias } => {
                self.add_tap(next, name, *owner, *multi_queue, alias)?;
                applied.ifindex = Some(next);
            }
            Op::CreateVeth { name, mac, mtu, alias, inner } => {
                self.add_veth(next, name, *mac, *mtu, alias, inner)?;
                applied.ifindex = Some(next);
            }
            Op::SetLink { name, set, .. } => self.set_link(name, set)?,
            Op::ShapeLink { to: Some(_), .. } if !self.features.token_buckets => {
                return Err(Reason::Missing);
            }
            Op::CreateTable(table) | Op::ReplaceTable(table)
                if table.family == Family::Bridge && !self.features.bridge_rules =>
            {
                return Err(Reason::Unsupported);
            }
            Op::ShapeLink { name, to, .. } => self.shape_link(name, *to)?,
            Op::DeleteLink { name, index } => self.delete_link(name, *index),
            Op::AddAddress { link, address, length } => {
                self.add_address(link, *address, *length)?;
            }
            Op::RemoveAddress { link, address, length } => {
                self.remove_address(link, *address, *length)?;
            }
            Op::AddRoute(route) => self.add_route(route)?,
            Op::RemoveRoute(route) => self.remove_route(route),
            Op::SetForwarding { on } => self.observed.forwarding = *on,
            Op::SetSwitch { switch, to, .. } => {
                if let Some(value) = self.observed.switches.get_mut(switch) {
                    *value = *to;
                }
            }
            Op::CreateTable(table) => self.create_table(table)?,
            Op::ReplaceTable(table) => self.replace_table(table)?,
            Op::RemoveTable { family, name } => self.remove_table(*family, name)?,
            Op::AddElements(elements) => self.add_elements(elements)?,
            Op::ExchangeElements { gone, new } => {
                let there: Vec<_> = self.observed.tables.clone();
                self.remove_elements(gone)?;
                if let Err(reason) = self.add_elements(new) {
                    self.observed.tables = there;
                    return Err(reason);
                }
            }
            Op::RemoveElements(elements) => self.remove_elements(elements)?,
            Op::AddAccept(accept) => self.add_accept(accept)?,
            Op::RemoveAccept(accept) => {
                self.observed.accepts.retain(|present| present != accept);
            }
            Op::ForgetAddress { link, address, .. } => self.forget_address(link, *address),
            Op::ForgetFlows { address, .. } => {
                self.flows.retain(|(_, answers)| answers != address);
            }
        }
        Ok(applied)
    }
}

/// An Op that was refused.
fn refused(op: &Op, reason: Reason) -> Failure {
    let (operation, object) = op.describe();
    failure(operation, object, reason)
}

fn failure(operation: &'static str, object: String, reason: Reason) -> Failure {
    let (outcome, message) = (KernelOutcome::Refused(reason), format!("refused: {reason:?}"));
    Failure::Kernel { operation, object, outcome, errno: 0, message }
}

/// An Op whose answer was lost.
fn unknown(op: &Op) -> Failure {
    let (operation, object) = op.describe();
    let (outcome, message) = (KernelOutcome::Unknown, "no answer".into());
    Failure::Kernel { operation, object, outcome, errno: 0, message }
}

#[cfg(test)]
mod tests;
