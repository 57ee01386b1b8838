//! What the loop waits for.

use super::client::Client;
use super::ear::Ear;
use super::sources::{Key, Sources};
use crate::model::name::VmName;

/// Something that can become ready.
#[derive(Debug)]
pub(super) enum Source {
    /// The socket that clients connect to.
    Listener,
    /// The pipe that signal handlers write to.
    Signals,
    /// One of the sockets with news of the kernel.
    Monitor,
    /// A connection.
    Client(Box<Client>),
    /// What the guests of a network ask.
    Guests(Box<Ear>),
    /// Requests whose files were compared.
    Comparisons,
    /// The pidfd of a VM's process.
    Process(VmName),
}

impl Sources<Source> {
    /// All clients with their keys.
    pub(super) fn clients(&mut self) -> impl Iterator<Item = (Key, &mut Client)> {
        self.iter_mut().filter_map(|(key, source)| match source {
            Source::Client(client) => Some((key, client.as_mut())),
            Source::Listener
            | Source::Signals
            | Source::Monitor
            | Source::Comparisons
            | Source::Guests(_)
            | Source::Process(_) => None,
        })
    }

    /// The client with this key, if it is one and has not gone.
    pub(super) fn client(&mut self, key: Key) -> Option<&mut Client> {
        match self.get_mut(key) {
            Some(Source::Client(client)) => Some(client),
            _ => None,
        }
    }

    /// The key under which the guests of a network are heard.
    pub(super) fn guests_of(&self, network: &str) -> Option<Key> {
        let here =
            |source: &Source| matches!(source, Source::Guests(ear) if ear.network == network);
        self.iter().find(|(_, source)| here(source)).map(|(key, _)| key)
    }
}
