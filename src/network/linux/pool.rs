//! A pool of taps that are made ahead, when nobody waits.
//!
//! Most of the cost of a tap is to attach it. So the pool keeps a few taps like the last one: with
//! the same owner and queues, on the same bridge, up, with the same settings. If a VM needs such a
//! tap, the tap gets a new name and alias. If it needs another one, a new tap is made. The pool has
//! only taps that nobody ever opened: the kernel keeps state of a used tap that cannot be reset
//! (filters, offloads, buffer sizes: drivers/net/tun.c).
//!
//! In the kernel they look like retired links, because their alias has no VM. So if a daemon dies,
//! the next one removes them. Until then an observation leaves them out.

use std::collections::VecDeque;

use crate::netlink::rtnl::link::{self, LinkChange, Target};
use crate::plan::op::LinkSettings;
use crate::plan::reconcile::ALIAS;

use super::links;
use super::socket::{Error, Socket};
use super::tap::{self, Spec};

/// The pattern for the kernel's names.
const NAMES: &str = "vtnew%d";

/// The taps.
#[derive(Debug, Default)]
pub struct TapPool {
    /// How many taps to keep.
    size: usize,
    /// The kind of the last tap, which the next VM probably needs, too.
    model: Option<Model>,
    /// The ready taps, by index.
    ready: VecDeque<u32>,
    /// The name of the last tap that was taken, until its settings change.
    given: Option<String>,
}

/// The properties of a tap except its name and alias.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    owner: Option<u32>,
    multi_queue: bool,
    set: LinkSettings,
}

impl TapPool {
    /// A pool with this many taps; 0 switches it off.
    pub fn new(size: usize) -> TapPool {
        TapPool { size, ..TapPool::default() }
    }

    /// Takes a tap of this kind, and returns its index, if there is one. The error has the taps
    /// that must be removed: one that could not be named may have the VM's name all the same.
    pub fn take(&mut self, socket: &mut Socket, spec: &Spec<'_>) -> Result<Option<u32>, Vec<u32>> {
        let fits =
            |model: &Model| (model.owner, model.multi_queue) == (spec.owner, spec.multi_queue);
        if !self.model.as_ref().is_some_and(fits) {
            return Ok(None);
        }
        let change =
            LinkChange { name: Some(spec.name), alias: Some(spec.alias), ..LinkChange::default() };
        let Some(index) = self.ready.pop_front() else { return Ok(None) };
        let named = socket.request(1, |writer, sequence| {
            link::set(writer, sequence.take(), Target::Index(index), &change);
        });
        match named {
            Ok(()) => {
                self.given = Some(spec.name.to_owned());
                Ok(Some(index))
            }
            // If the name is wrong, making a new tap reports it.
            Err(error) if error.errno() != Some(libc::EBUSY) => Err(vec![index]),
            Err(_) => {
                log::info!(
                    "this kernel cannot rename a link that is up: volnet makes no taps ahead"
                );
                self.size = 0;
                self.ready.push_back(index);
                Err(self.empty())
            }
        }
    }

    /// Whether a link has these settings already, because it was just taken.
    pub fn is_done(&mut self, name: &str, set: &LinkSettings) -> bool {
        let given = self.given.take();
        given.as_deref() == Some(name) && self.model.as_ref().is_some_and(|model| model.set == *set)
    }

    /// Learns the kind of the next tap from one that was attached. Returns the taps that are no
    /// longer useful.
    pub fn learn(&mut self, spec: Option<(Option<u32>, bool)>, set: &LinkSettings) -> Vec<u32> {
        let Some((owner, multi_queue)) = spec else { return Vec::new() };
        let model = Model { owner, multi_queue, set: set.clone() };
        if self.size == 0 || self.model.as_ref() == Some(&model) {
            return Vec::new();
        }
        self.model = Some(model);
        self.ready.drain(..).collect()
    }

    /// Whether a tap should be made.
    pub fn is_wanting(&self) -> bool {
        self.model.is_some() && self.ready.len() < self.size
    }

    /// Makes one tap. Failure is harmless: no taps are made ahead until the next VM has been
    /// attached.
    pub fn make(&mut self, socket: &mut Socket) -> Result<(), Error> {
        let Some(model) = &self.model else { return Ok(()) };
        let Model { owner, multi_queue, set } = model.clone();
        let spec = Spec { name: NAMES, owner, multi_queue, alias: ALIAS };
        let made = tap::create_any(socket, &spec).and_then(|(index, name)| {
            self.ready.push_back(index);
            links::set(socket, &name, &set)
        });
        if made.is_err() {
            self.model = None;
        }
        made
    }

    /// The taps, by index.
    pub fn ready(&self) -> impl Iterator<Item = u32> + '_ {
        self.ready.iter().copied()
    }

    /// Drops all taps, and makes no more until the next VM has been attached.
    pub fn empty(&mut self) -> Vec<u32> {
        self.model = None;
        self.ready.drain(..).collect()
    }
}
