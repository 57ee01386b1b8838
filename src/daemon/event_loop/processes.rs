//! The ends of processes: a pidfd for each, and a FIFO where a hypervisor outlives its guest.

use mio::Interest;
use mio::unix::SourceFd;

use super::EventLoop;
use crate::daemon::source::Source;
use crate::daemon::sources::Key;
use crate::hypervisor::process::Processes;
use crate::model::name::VmName;
use crate::network::Network;
use crate::store::storage::Storage;

impl<N: Network, D: Storage, P: Processes> EventLoop<N, D, P> {
    /// The turn of a process that has ended.
    pub(super) fn process_ended(&mut self, key: Key) {
        let Some(Source::Process(name)) = self.sources.get_mut(key) else { return };
        let name = name.clone();
        self.unwatch(&name);
        self.shell.exited(&name, self.now());
    }

    /// Registers the pidfds of new processes. If one cannot be registered, the shell checks the
    /// process, and it comes here again.
    pub(super) fn watch_processes(&mut self) {
        for name in self.shell.take_started() {
            self.unwatch(&name);
            let Some(pidfd) = self.shell.processes().pidfd(&name) else { continue };
            match self.add(pidfd, Interest::READABLE, Source::Process(name.clone())) {
                Ok(key) => {
                    self.hear_of(&name);
                    self.watched.insert(name, key);
                }
                Err(error) => {
                    log::warn!(vm:% = name; "the end of its process cannot be waited for: {error}");
                    self.shell.watch_later(&name, self.now());
                }
            }
        }
    }

    /// Registers what a hypervisor writes about its guest. Without it the VM runs all the same.
    fn hear_of(&mut self, name: &VmName) {
        let Some(fifo) = self.shell.processes().events(name) else { return };
        match self.add(fifo, Interest::READABLE, Source::Hypervisor(name.clone())) {
            Ok(key) => drop(self.heard.insert(name.clone(), key)),
            Err(error) => {
                log::warn!(vm:% = name; "what its hypervisor says is not heard: {error}");
            }
        }
        if self.shell.heard_of(name, self.now()) {
            let key = self.heard.get(name).copied();
            key.into_iter().for_each(|key| self.come_back(key));
        }
    }

    /// The turn of a hypervisor that has written about its guest.
    pub(super) fn hear_hypervisor(&mut self, key: Key) {
        let Some(Source::Hypervisor(name)) = self.sources.get_mut(key) else { return };
        let name = name.clone();
        if self.shell.heard_of(&name, self.now()) {
            self.come_back(key);
        }
    }

    fn unwatch(&mut self, name: &VmName) {
        if let Some(key) = self.heard.remove(name) {
            self.sources.remove(key);
            if let Some(fifo) = self.shell.processes().events(name) {
                let _ = self.poll.registry().deregister(&mut SourceFd(&fifo));
            }
        }
        if let Some(key) = self.watched.remove(name) {
            self.sources.remove(key);
            if let Some(pidfd) = self.shell.processes().pidfd(name) {
                // Closing the pidfd also removes it from the poll. This is for a pidfd that stays
                // open.
                let _ = self.poll.registry().deregister(&mut SourceFd(&pidfd));
            }
        }
    }
}
