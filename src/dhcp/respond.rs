//! What is said and done about a query. Pure: the guest as the engine knows it, the query and the
//! time in, an [`Outcome`] out.
//!
//! The rules are those of RFC 2131, 4.3. Where it leaves a choice: we are the only server of the
//! network and know every guest on it, so a guest that asks for an address that it cannot have is
//! told so (NAK) and not left waiting. A lease that was renewed just now is confirmed with what is
//! left of it, so a guest that asks again and again is no burden on the disk.

use std::net::Ipv4Addr;

use super::Query;
use super::message::{Kind, option};
use super::reply::Reply;
use crate::model::lease::{Change, Claim, Guest};
use crate::model::record::Lease;

/// Milliseconds for which an address is lent.
pub const LEASE_MS: u64 = 3_600_000;
/// Milliseconds for which an offer stands.
pub const OFFER_MS: u64 = 60_000;

/// What comes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing; why not.
    Ignore(&'static str),
    /// Nothing, for want of a free address. Another try is due when one was reclaimed.
    Exhausted,
    /// First the lease is changed, then the guest is answered.
    Do { change: Option<Change>, reply: Option<Reply> },
}

/// Decides. `now` is in milliseconds since the epoch.
pub fn respond(guest: &Guest<'_>, query: &Query<'_>, now: u64) -> Outcome {
    let ours = query.server().is_none_or(|server| server == guest.network.host_ip);
    match query.kind() {
        _ if !ours => Outcome::Ignore("it is a message to another server"),
        Kind::Discover => discover(guest, now),
        Kind::Request => request(guest, query, now),
        Kind::Inform if query.message.head.ciaddr.is_unspecified() => {
            Outcome::Ignore("it has no address")
        }
        Kind::Inform => answer(None, Reply::Inform),
        Kind::Release => give_back(guest, query.message.head.ciaddr, Change::Release),
        Kind::Decline => match query.message.address(option::REQUESTED_IP) {
            Some(address) => give_back(guest, address, Change::Decline),
            None => Outcome::Ignore("it has no address"),
        },
        Kind::Offer | Kind::Ack | Kind::Nak => Outcome::Ignore("it is a message of a server"),
    }
}

fn discover(guest: &Guest<'_>, now: u64) -> Outcome {
    let (change, address) = match guest.claim {
        Claim::Reserved(address) => (None, address),
        Claim::Leased(lease) => {
            let stands = lease.until >= now.saturating_add(OFFER_MS / 2);
            let offer = Lease { until: now.saturating_add(OFFER_MS), ..lease };
            ((!stands).then_some(Change::Lease(offer)), lease.ip)
        }
        Claim::Free(ip) => {
            let offer = Lease { ip, until: now.saturating_add(OFFER_MS), given: false };
            (Some(Change::Lease(offer)), ip)
        }
        Claim::Nothing => return Outcome::Exhausted,
    };
    answer(change, Reply::Offer { address, seconds: seconds(LEASE_MS) })
}

fn request(guest: &Guest<'_>, query: &Query<'_>, now: u64) -> Outcome {
    let Some(wanted) = query.wanted() else {
        return Outcome::Ignore("it has no address");
    };
    let whole = Lease { ip: wanted, until: now.saturating_add(LEASE_MS), given: true };
    let (change, left) = match guest.claim {
        Claim::Reserved(address) if address == wanted => (None, LEASE_MS),
        Claim::Leased(lease) if lease.ip == wanted && is_fresh(&lease, now) => {
            (None, lease.until - now)
        }
        Claim::Leased(lease) if lease.ip == wanted => (Some(Change::Lease(whole)), LEASE_MS),
        Claim::Free(address) if address == wanted => (Some(Change::Lease(whole)), LEASE_MS),
        Claim::Reserved(_) | Claim::Leased(_) | Claim::Free(_) | Claim::Nothing => {
            return answer(None, Reply::Nak);
        }
    };
    answer(change, Reply::Ack { address: wanted, seconds: seconds(left) })
}

/// Whether a lease needs no renewal yet: an eighth of its time has not gone by. One that ends later
/// than any that is given now was written by a clock that has been set back since.
fn is_fresh(lease: &Lease, now: u64) -> bool {
    let longest = now.saturating_add(LEASE_MS);
    lease.given && lease.until <= longest && lease.until >= longest - LEASE_MS / 8
}

/// What a guest gives back has to be what it was lent.
fn give_back(guest: &Guest<'_>, address: Ipv4Addr, change: Change) -> Outcome {
    match guest.claim {
        Claim::Leased(lease) if lease.ip == address => {
            Outcome::Do { change: Some(change), reply: None }
        }
        Claim::Leased(_) | Claim::Reserved(_) | Claim::Free(_) | Claim::Nothing => {
            Outcome::Ignore("it releases an address that the guest does not have")
        }
    }
}

fn answer(change: Option<Change>, reply: Reply) -> Outcome {
    Outcome::Do { change, reply: Some(reply) }
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms / 1000).unwrap_or(u32::MAX)
}
