//! Questions of guests for names: the sockets of [`crate::resolver`], as one source.

use super::EventLoop;
use crate::daemon::names::Knowledge;
use crate::daemon::sources::Key;
use crate::engine::names::Unheard;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::net::NetworkConfig;
use crate::network::Network;
use crate::store::storage::Storage;

impl<N: Network, D: Storage, P: Processes> EventLoop<N, D, P> {
    /// Their turn: each socket that is ready takes a bounded step.
    pub(super) fn hear_names(&mut self, key: Key) {
        let now = self.now();
        let mut knowledge = Knowledge { shell: &mut self.shell, now };
        if self.names.turn(&mut knowledge, now.mono) {
            self.come_back(key);
        }
    }

    /// Does what is due about questions that were passed on.
    pub(super) fn tick_names(&mut self, now: Now) {
        let mut knowledge = Knowledge { shell: &mut self.shell, now };
        self.names.tick(&mut knowledge, now.mono);
    }

    /// Hears the guests of a network, whose bridge is new or gone.
    pub(super) fn listen_for_names(&mut self, network: &NetworkConfig) {
        let name = &network.name;
        let problem = match self.names.listen(network) {
            Ok(()) => self.shell.kept_from_host(network).map(Unheard::Firewall),
            // The bridge is gone, and so are its guests.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => None,
            Err(error) => {
                let own: Vec<String> = network.host_addresses().map(|ip| ip.to_string()).collect();
                Some(Unheard::Port(format!("port 53 of {}: {error}", own.join(" and "))))
            }
        };
        if let Some(Unheard::Port(problem) | Unheard::Firewall(problem)) = &problem {
            log::error!("network {name}: cannot answer names to its guests: {problem}");
        }
        self.shell.names_unheard(name, problem);
    }
}
