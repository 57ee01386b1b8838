//! What the guests of a network ask: packet sockets on its bridge.

use std::collections::BTreeSet;
use std::io;

use mio::Interest;

use super::EventLoop;
use crate::daemon::source::Source;
use crate::daemon::sources::Key;
use crate::hypervisor::process::Processes;
use crate::model::net::{Dhcp, Dns, NetworkConfig};
use crate::network::Network;
use crate::network::linux::guests::GuestSocket;
use crate::network::linux::packets::Questions;
use crate::store::storage::Storage;

impl<N: Network, D: Storage, P: Processes> EventLoop<N, D, P> {
    /// Their turn: they are answered as far as one turn goes.
    pub(super) fn hear_guests(&mut self, key: Key) {
        let now = self.now();
        let Some(Source::Guests(socket)) = self.sources.get_mut(key) else { return };
        let shell = &mut self.shell;
        if socket.turn(|network, frame| shell.guest_asks(network, frame, now)) {
            self.come_back(key);
        }
    }

    /// Opens the sockets for what guests ask on new bridges. It does so only if the kernel is
    /// watched: a single request serves no guests, and a backend without a kernel has none.
    pub(super) fn listen_to_guests(&mut self) {
        let bridges = self.shell.take_bridges();
        if !bridges.is_empty() {
            self.forget_networks();
        }
        for bridge in bridges {
            let network = self.shell.engine().configured().find(|it| it.bridge == bridge).cloned();
            let Some(network) = network.filter(|_| self.kernel.is_watched()) else { continue };
            match network.dns == Dns::Builtin {
                true => self.listen_for_names(&network),
                false => self.names.close(&network.name),
            }
            for key in self.sources.guests_of(|name| name == network.name) {
                // Closing it also removes it from the poll.
                self.sources.remove(key);
            }
            let dhcp = (network.dhcp == Dhcp::Builtin).then_some(Questions::Dhcp);
            let six = network.ipv6.map(|_| Questions::Ipv6);
            for questions in dhcp.into_iter().chain(six) {
                match self.listen_to(&network, questions) {
                    Ok(()) => {}
                    Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                    Err(error) => {
                        let name = &network.name;
                        let asked = match questions {
                            Questions::Dhcp => "DHCP",
                            Questions::Ipv6 => "questions of IPv6",
                        };
                        log::error!("network {name}: cannot receive {asked} from guests: {error}");
                    }
                }
            }
        }
    }

    /// Closes the sockets of networks that are gone.
    fn forget_networks(&mut self) {
        let names = self.shell.engine().configured().map(|network| network.name.clone());
        let names: BTreeSet<String> = names.collect();
        for key in self.sources.guests_of(|name| !names.contains(name)) {
            self.sources.remove(key);
        }
        self.names.keep(|name| names.contains(name));
    }

    fn listen_to(&mut self, network: &NetworkConfig, questions: Questions) -> io::Result<()> {
        let socket = GuestSocket::open(network, questions)?;
        self.add(socket.descriptor(), Interest::READABLE, Source::Guests(Box::new(socket)))?;
        Ok(())
    }
}
