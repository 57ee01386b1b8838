//! What the guests of a network ask: a packet socket on its bridge.

use std::io;

use mio::Interest;

use super::EventLoop;
use crate::daemon::dhcp_socket::DhcpSocket;
use crate::daemon::source::Source;
use crate::daemon::sources::Key;
use crate::hypervisor::process::Processes;
use crate::model::net::{Dhcp, Dns, NetworkConfig};
use crate::network::Network;
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

    /// Opens the sockets for DHCP and names on new bridges. It does so only if the kernel is
    /// watched: a single request serves no guests, and a backend without a kernel has none.
    pub(super) fn listen_to_guests(&mut self) {
        for bridge in self.shell.take_bridges() {
            let network = self.shell.engine().configured().find(|it| it.bridge == bridge).cloned();
            let Some(network) = network.filter(|_| self.kernel.is_watched()) else { continue };
            if network.dns == Dns::Builtin {
                self.listen_for_names(&network);
            }
            if network.dhcp != Dhcp::Builtin {
                continue;
            }
            if let Some(key) = self.sources.guests_of(&network.name) {
                // Closing it also removes it from the poll.
                self.sources.remove(key);
            }
            match self.listen_to(&network) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => {
                    let name = &network.name;
                    log::error!("network {name}: cannot receive DHCP from its guests: {error}");
                }
            }
        }
    }

    fn listen_to(&mut self, network: &NetworkConfig) -> io::Result<()> {
        let socket = DhcpSocket::open(network)?;
        self.add(socket.descriptor(), Interest::READABLE, Source::Guests(Box::new(socket)))?;
        Ok(())
    }
}
