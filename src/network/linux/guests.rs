//! Where the guests of one network are heard when they ask for addresses or for their router.

use std::io;
use std::os::fd::RawFd;

use super::packets::{FRAME_MAX, Packets, Questions};
use crate::model::net::NetworkConfig;

/// Frames that are answered in one turn of the loop.
const FRAMES_PER_TURN: usize = 64;

/// A socket for what guests of a network ask.
#[derive(Debug)]
pub struct GuestSocket {
    /// The network's name.
    pub network: String,
    packets: Packets,
}

impl GuestSocket {
    /// Listens on the bridge of a network, which has to be there.
    pub fn open(network: &NetworkConfig, questions: Questions) -> io::Result<GuestSocket> {
        let packets = Packets::open(&network.bridge, questions)?;
        Ok(GuestSocket { network: network.name.clone(), packets })
    }

    /// What is to be waited for.
    pub fn descriptor(&self) -> RawFd {
        self.packets.descriptor()
    }

    /// One turn: `answer` gives the frame that answers a frame, and the index of the link that it
    /// goes out of. Says whether there may be more.
    pub fn turn(&mut self, mut answer: impl FnMut(&str, &[u8]) -> Option<(u32, Vec<u8>)>) -> bool {
        let mut buffer = [0; FRAME_MAX];
        for _ in 0..FRAMES_PER_TURN {
            match self.packets.receive(&mut buffer) {
                Ok(None) => return false,
                Ok(Some(frame)) => {
                    let Some((link, frame)) = answer(&self.network, frame) else { continue };
                    if let Err(error) = self.packets.send(link, &frame) {
                        // The guest has gone, or does not read; it will ask again.
                        log::debug!("network {}: cannot answer: {error}", self.network);
                    }
                }
                // The bridge is down, or gone; see there.
                Err(error) => log::debug!("network {}: {error}", self.network),
            }
        }
        true
    }
}
