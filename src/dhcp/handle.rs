//! Decides on a query: the engine's decision, and the reply to send after it is carried out.

use super::respond::{Response, respond};
use super::{DhcpQuery, DhcpReply};
use crate::engine::decide::{Decision, Engine};
use crate::engine::trouble::Trouble;
use crate::model::clock::Now;

/// The outcome of a query.
#[derive(Debug)]
pub enum Handled {
    /// Nothing.
    Nothing,
    /// Carry this decision out, which frees an address. Then decide on the query again.
    MakeRoom(Decision),
    /// Carry the decision out. If that succeeds, send the reply.
    Do { decision: Option<Decision>, reply: Option<DhcpReply> },
}

/// Decides on a query from this network.
pub fn handle(engine: &mut Engine, network: &str, query: &DhcpQuery<'_>, now: Now) -> Handled {
    let Some(guest) = engine.guest(network, query.mac(), query.wanted()) else {
        log::debug!("network {network}: no VM has the Ethernet address {}", query.mac());
        return Handled::Nothing;
    };
    let (name, nic) = (guest.vm.clone(), guest.index);
    let outcome = respond(&guest, query, now.boot);
    if let Response::Ignore(reason) = outcome {
        log::debug!(vm:% = name; "{:?} is not answered: {reason}", query.kind());
        return Handled::Nothing;
    }
    if !engine.may_answer(&name, now) {
        log::debug!(vm:% = name; "the guest sends too many DHCP messages");
        return Handled::Nothing;
    }
    match outcome {
        Response::Ignore(_) => Handled::Nothing,
        Response::Exhausted => match engine.reclaim(network, now) {
            Some(decision) => Handled::MakeRoom(decision),
            None => {
                if engine.is_news(&name, Trouble::NoAddress, now) {
                    log::warn!(vm:% = name; "network {network} has no free address for its guest");
                }
                Handled::Nothing
            }
        },
        Response::Do { change: None, reply } => Handled::Do { decision: None, reply },
        Response::Do { change: Some(change), reply } => {
            match engine.change_lease(&name, nic, change, now) {
                Some(decision) => Handled::Do { decision: Some(decision), reply },
                None => Handled::Nothing,
            }
        }
    }
}
