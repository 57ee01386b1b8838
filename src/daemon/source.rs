//! The sources of the event loop. Each source has its turn in a file of its own in `event_loop`.

use mio::net::{UnixListener, UnixStream};
use socket2::Socket;

use super::client::Client;
use super::sources::{Key, Sources};
use crate::metrics::scraper::Scraper;
use crate::model::name::VmName;
use crate::network::linux::guests::GuestSocket;

/// A source that can become ready.
#[derive(Debug)]
pub(super) enum Source {
    /// The socket that clients connect to.
    Listener(UnixListener),
    /// The pipe that signal handlers write to. Kept, because the poll only borrows it.
    Signals(#[expect(dead_code)] UnixStream),
    /// One of the sockets with news from the kernel.
    Monitor,
    /// A connection.
    Client(Box<Client>),
    /// The socket that scrapers of metrics connect to.
    Metrics(Socket),
    /// One of these.
    Scraper(Box<Scraper>),
    /// A socket for what guests of a network ask beside names.
    Guests(Box<GuestSocket>),
    /// The sockets for names of all networks.
    Names,
    /// Requests whose files were compared.
    Workers,
    /// The pidfd of a VM's process.
    Process(VmName),
    /// What a VM's hypervisor writes about its guest.
    Hypervisor(VmName),
}

impl Source {
    fn client(&mut self) -> Option<&mut Client> {
        if let Source::Client(client) = self { Some(client) } else { None }
    }
}

impl Sources<Source> {
    /// All clients, with their keys.
    pub(super) fn clients(&mut self) -> impl Iterator<Item = (Key, &mut Client)> {
        self.iter_mut().filter_map(|(key, source)| Some((key, source.client()?)))
    }

    /// The client with this key, if it still exists.
    pub(super) fn client(&mut self, key: Key) -> Option<&mut Client> {
        self.get_mut(key)?.client()
    }

    /// All scrapers, the one that connected first before the others.
    pub(super) fn scrapers(&self) -> impl Iterator<Item = (Key, &Scraper)> {
        self.iter().filter_map(|(key, source)| match source {
            Source::Scraper(scraper) => Some((key, &**scraper)),
            _ => None,
        })
    }

    /// The keys of these sockets of networks, by name.
    pub(super) fn guests_of(&self, is_it: impl Fn(&str) -> bool) -> Vec<Key> {
        let here =
            |source: &Source| matches!(source, Source::Guests(socket) if is_it(&socket.network));
        self.iter().filter(|(_, source)| here(source)).map(|(key, _)| key).collect()
    }
}
