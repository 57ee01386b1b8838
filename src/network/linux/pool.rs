//! Taps made ahead, in moments when nobody waits.
//!
//! What costs most of a tap's making is to attach it. So a few are kept ready that are such as the
//! last one was: of the same owner and queues, on the same bridge, up, with the same settings. A VM
//! that needs such a one gets it by a new name and its alias; one that needs another has it made.
//! Only taps that nobody ever opened are here: of one that was used the kernel keeps more than can be
//! taken back (filters, offloads, buffer sizes: drivers/net/tun.c).
//!
//! In the kernel they look like retired links, because they have no VM's name: whatever a daemon that
//! dies leaves is removed by the next. Until then they are not among what is observed.

use std::collections::VecDeque;

use crate::netlink::rtnl::link::{self, LinkChange, Target};
use crate::plan::op::LinkSettings;
use crate::plan::reconcile::ALIAS;

use super::links;
use super::socket::{Error, Socket};
use super::tap::{self, Spec};

/// What the kernel makes names of.
const NAMES: &str = "vtnew%d";

/// The taps.
#[derive(Debug, Default)]
pub struct Pool {
    /// How many there are to be.
    size: usize,
    /// What the next VM is likely to need: what the last one did.
    model: Option<Model>,
    /// Those that are ready, by index.
    ready: VecDeque<u32>,
    /// The one that was given away last, by name, while nothing was changed of it.
    given: Option<String>,
}

/// What a tap is besides its name and its alias.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    owner: Option<u32>,
    multi_queue: bool,
    set: LinkSettings,
}

impl Pool {
    /// A pool that keeps so many taps; none at all with 0.
    pub fn new(size: usize) -> Pool {
        Pool { size, ..Pool::default() }
    }

    /// Gives a tap away: its index, if there is one such.
    pub fn take(&mut self, socket: &mut Socket, spec: &Spec<'_>) -> Option<u32> {
        let model = self.model.as_ref()?;
        if (model.owner, model.multi_queue) != (spec.owner, spec.multi_queue) {
            return None;
        }
        let change =
            LinkChange { name: Some(spec.name), alias: Some(spec.alias), ..LinkChange::default() };
        let index = self.ready.pop_front()?;
        let named = socket.request(1, |writer, sequence| {
            link::set(writer, sequence.take(), Target::Index(index), &change);
        });
        match named {
            Ok(()) => {
                self.given = Some(spec.name.to_owned());
                Some(index)
            }
            Err(error) => {
                if error.errno() == Some(libc::EBUSY) {
                    log::info!(
                        "this kernel cannot rename a link that is up: volnet makes no taps ahead"
                    );
                    self.size = 0;
                }
                // Whatever is wrong with it, or with the name, making one will tell.
                self.ready.push_back(index);
                None
            }
        }
    }

    /// Whether a link that is to be changed is such already, because it was given away just now.
    pub fn is_done(&mut self, name: &str, set: &LinkSettings) -> bool {
        let given = self.given.take();
        given.as_deref() == Some(name) && self.model.as_ref().is_some_and(|model| model.set == *set)
    }

    /// Learns from a tap that was attached what the next is likely to be. Gives the taps that are
    /// of no more use.
    pub fn learn(&mut self, spec: Option<(Option<u32>, bool)>, set: &LinkSettings) -> Vec<u32> {
        let Some((owner, multi_queue)) = spec else { return Vec::new() };
        let model = Model { owner, multi_queue, set: set.clone() };
        if self.size == 0 || self.model.as_ref() == Some(&model) {
            return Vec::new();
        }
        self.model = Some(model);
        self.ready.drain(..).collect()
    }

    /// Whether there is a tap to be made.
    pub fn is_wanting(&self) -> bool {
        self.model.is_some() && self.ready.len() < self.size
    }

    /// Makes one tap. One that cannot be made is none that is missed: nothing more is made until
    /// a VM has shown that it can be.
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

    /// Gives all taps up, and makes no more until a VM has shown how.
    pub fn empty(&mut self) -> Vec<u32> {
        self.model = None;
        self.ready.drain(..).collect()
    }
}
