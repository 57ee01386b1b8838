//! From a query to a decision of the engine's and the answer that follows when it is carried out.

use super::respond::{Outcome, respond};
use super::{Query, Reply};
use crate::engine::decide::{Decision, Engine};
use crate::model::clock::Now;

/// What a query comes to.
#[derive(Debug)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// This is to be carried out, which frees an address, and then the query decided anew.
    MakeRoom(Decision),
    /// The decision is to be carried out, and when that has worked, the guest answered.
    Do { decision: Option<Decision>, reply: Option<Reply> },
}

/// Decides on a query that came in on this network.
pub fn decide(engine: &mut Engine, network: &str, query: &Query<'_>, now: Now) -> Step {
    let Some(guest) = engine.guest(network, query.mac(), query.wanted()) else {
        log::debug!("network {network}: no VM has the Ethernet address {}", query.mac());
        return Step::Nothing;
    };
    let name = guest.vm.clone();
    match respond(&guest, query, now.wall) {
        Outcome::Ignore(reason) => {
            log::debug!("VM {name}: {:?} is not answered: {reason}", query.kind());
            Step::Nothing
        }
        Outcome::Exhausted => match engine.reclaim(network, now) {
            Some(decision) => Step::MakeRoom(decision),
            None => {
                log::info!("VM {name}: network {network} has no free address for its guest");
                Step::Nothing
            }
        },
        Outcome::Do { change: None, reply } => Step::Do { decision: None, reply },
        Outcome::Do { change: Some(change), reply } => {
            match engine.change_lease(&name, change, now) {
                Some(decision) => Step::Do { decision: Some(decision), reply },
                None => Step::Nothing,
            }
        }
    }
}
