//! What the kernel tells of packets that are traced, by multicast, and the book of all rules, which
//! has whose they are.
//!
//! The kernel drops what does not fit into the receive queue, and reports that once. So a guest
//! that sends without end costs a bounded amount of memory, and the daemon reads a bounded number
//! of messages at a time.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};

use super::links;
use super::socket::{DATAGRAM_MAX, Error, NetlinkFamily, Socket, open, receive};
use crate::netlink::message::Messages;
use crate::netlink::nft::object::{self, ChainMessage, RuleMessage};
use crate::netlink::nft::trace::{self, TraceMessage};
use crate::netlink::nft::{FAMILY_ANY, FAMILY_BRIDGE, FAMILY_IP, FAMILY_IP6};
use crate::nftables::filters::{PREROUTING, family_name};
use crate::plan::ruleset::TABLE;
use crate::trace::book::{Chains, Rules};
use crate::trace::flow::Flow;
use crate::trace::{Outcome, Place, Told};

/// Bytes of the receive queue: some thousand messages.
const RECEIVE_BUFFER: usize = 2 * 1024 * 1024;
/// Datagrams that are read at a time. Each has one message.
const DATAGRAMS_MAX: usize = 2048;

/// A subscription.
#[derive(Debug)]
pub struct Tracing {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

impl Tracing {
    /// Subscribes in the network namespace of the calling thread.
    pub fn open() -> std::io::Result<Tracing> {
        let socket = open(NetlinkFamily::Netfilter)?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        volnet_ffi::socket::join(socket.as_fd(), trace::GROUP)?;
        Ok(Tracing { socket, buffer: vec![0; DATAGRAM_MAX].into() })
    }

    /// What was told since, and whether some of it was lost. `route` knows the names of links.
    pub fn take(&mut self, route: &Socket) -> (Vec<Told>, bool) {
        let (mut all, mut lost) = (Vec::new(), false);
        let mut names: BTreeMap<u32, Option<String>> = BTreeMap::new();
        for _ in 0..DATAGRAMS_MAX {
            match receive(&self.socket, &mut self.buffer) {
                Ok(None) => return (all, lost),
                Ok(Some(datagram)) => {
                    let read = Messages::new(datagram).flatten().map(|it| TraceMessage::read(&it));
                    for told in read {
                        match told {
                            Ok(Some(told)) => all.push(owned(&told, |index| {
                                let name = || links::name_of(route, index);
                                names.entry(index).or_insert_with(name).clone()
                            })),
                            Ok(None) => {}
                            Err(_) => lost = true,
                        }
                    }
                }
                Err(_) => lost = true,
            }
        }
        (all, lost)
    }
}

fn owned(told: &TraceMessage<'_>, name_of: impl FnOnce(u32) -> Option<String>) -> Told {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Told {
        place: Place {
            family: family_name(told.family),
            table: text(told.table),
            chain: text(told.chain),
            rule: told.rule,
        },
        outcome: match told.outcome {
            trace::Outcome::Drop => Outcome::Drop,
            trace::Outcome::Accept => Outcome::Accept,
            trace::Outcome::Continue => Outcome::Continue,
        },
        id: told.id,
        in_link: told.in_link,
        out_link: told.out_link.and_then(name_of),
        flow: Flow::of_headers(told.headers),
    }
}

/// The base chains of the host, and the tags of the rules in our tables.
pub(super) fn book(socket: &mut Socket) -> Result<(Chains, Rules), Error> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let chains = socket.dump(
        |writer, sequence| object::dump_chains(writer, sequence, FAMILY_ANY),
        |message| {
            let chain = ChainMessage::read(message.payload)?;
            let Some((_, hook, _)) = chain.base else { return Ok(None) };
            let key = (family_name(chain.family), text(chain.table), text(chain.name));
            Ok(Some((key, hook == PREROUTING)))
        },
    )?;
    let mut rules = Rules::new();
    // A dump of all families ends with the first table of the name.
    for family in [FAMILY_BRIDGE, FAMILY_IP, FAMILY_IP6] {
        let dumped = socket.dump(
            |writer, sequence| object::dump_rules(writer, sequence, family, TABLE),
            |message| {
                let rule = RuleMessage::read(message.payload)?;
                let place = Place {
                    family: family_name(rule.family),
                    table: text(rule.table),
                    chain: text(rule.chain),
                    rule: Some(rule.handle),
                };
                Ok(rule.tag().map(|tag| (place, tag)))
            },
        );
        match dumped {
            // The kernel speaks no IPv6, or has no such rules.
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            dumped => rules.extend(dumped?),
        }
    }
    Ok((chains.into_iter().collect(), rules))
}
