//! Chooses the reply to a query. It is pure: it takes the guest as the engine knows it, the query
//! and the time, and returns a [`Response`].
//!
//! The rules are those of RFC 2131, 4.3. It leaves one choice: a guest may ask for an address that
//! it cannot have. volnet is the only server of the network and knows every guest on it, so it
//! sends a NAK and does not let the guest wait. A lease that was renewed a moment ago is confirmed
//! with its remaining time. So a guest that asks again and again causes no writes.

use std::net::Ipv4Addr;

use super::DhcpQuery;
use super::message::{Kind, option};
use super::reply::DhcpReply;
use crate::model::lease::{Claim, Guest, LEASE_MS, LeaseChange, OFFER_MS};
use crate::model::nic::Lease;

/// The response to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// No reply; this is why.
    Ignore(&'static str),
    /// No reply, because no address is free. Try again after one is reclaimed.
    Exhausted,
    /// Change the lease, then reply.
    Do { change: Option<LeaseChange>, reply: Option<DhcpReply> },
}

/// Decides. `now` is in milliseconds since the boot of the host.
pub fn respond(guest: &Guest<'_>, query: &DhcpQuery<'_>, now: u64) -> Response {
    let Some(ipv4) = guest.identity.ipv4 else {
        return Response::Ignore("its network has IPv6 alone");
    };
    let ours = query.server().is_none_or(|server| server == ipv4.host);
    match query.kind() {
        _ if query.named() != guest.identity.mac => {
            Response::Ignore("it names another Ethernet address than the guest's")
        }
        _ if !ours => Response::Ignore("it is a message to another server"),
        Kind::Discover => discover(guest, now),
        Kind::Request => request(guest, query, now),
        Kind::Inform if query.message.head.ciaddr.is_unspecified() => {
            Response::Ignore("it has no address")
        }
        Kind::Inform => answer(None, DhcpReply::Inform),
        Kind::Release => give_back(guest, query.message.head.ciaddr, LeaseChange::Release),
        Kind::Decline => match query.message.address(option::REQUESTED_IP) {
            Some(address) => give_back(guest, address, LeaseChange::Decline),
            None => Response::Ignore("it has no address"),
        },
        Kind::Offer | Kind::Ack | Kind::Nak => Response::Ignore("it is a message of a server"),
    }
}

fn discover(guest: &Guest<'_>, now: u64) -> Response {
    let (change, address) = match guest.claim {
        Claim::Reserved(address) => (None, address),
        Claim::Leased(lease) => {
            let stands = lease.until >= now.saturating_add(OFFER_MS / 2);
            let offer = Lease { until: now.saturating_add(OFFER_MS), ..lease };
            ((!stands).then_some(LeaseChange::Lease(offer)), lease.ip)
        }
        Claim::Free(ip) => {
            let offer = Lease { ip, until: now.saturating_add(OFFER_MS), given: false };
            (Some(LeaseChange::Lease(offer)), ip)
        }
        Claim::Nothing => return Response::Exhausted,
    };
    answer(change, DhcpReply::Offer { address, seconds: seconds(LEASE_MS) })
}

fn request(guest: &Guest<'_>, query: &DhcpQuery<'_>, now: u64) -> Response {
    let Some(wanted) = query.wanted() else {
        return Response::Ignore("it has no address");
    };
    let whole = Lease { ip: wanted, until: now.saturating_add(LEASE_MS), given: true };
    let (change, left) = match guest.claim {
        Claim::Reserved(address) if address == wanted => (None, LEASE_MS),
        Claim::Leased(lease) if lease.ip == wanted && is_fresh(&lease, now) => {
            (None, lease.until - now)
        }
        Claim::Leased(lease) if lease.ip == wanted => (Some(LeaseChange::Lease(whole)), LEASE_MS),
        Claim::Free(address) if address == wanted => (Some(LeaseChange::Lease(whole)), LEASE_MS),
        Claim::Reserved(_) | Claim::Leased(_) | Claim::Free(_) | Claim::Nothing => {
            return answer(None, DhcpReply::Nak);
        }
    };
    answer(change, DhcpReply::Ack { address: wanted, seconds: seconds(left) })
}

/// Whether a lease needs no renewal yet: less than an eighth of its time has passed. A lease that
/// ends later than a new one is not one that this server gave.
fn is_fresh(lease: &Lease, now: u64) -> bool {
    let longest = now.saturating_add(LEASE_MS);
    lease.given && lease.until <= longest && lease.until >= longest - LEASE_MS / 8
}

/// A guest can release only the address of its own lease.
fn give_back(guest: &Guest<'_>, address: Ipv4Addr, change: LeaseChange) -> Response {
    match guest.claim {
        Claim::Leased(lease) if lease.ip == address => {
            Response::Do { change: Some(change), reply: None }
        }
        Claim::Leased(_) | Claim::Reserved(_) | Claim::Free(_) | Claim::Nothing => {
            Response::Ignore("it releases an address that the guest does not have")
        }
    }
}

fn answer(change: Option<LeaseChange>, reply: DhcpReply) -> Response {
    Response::Do { change, reply: Some(reply) }
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms / 1000).unwrap_or(u32::MAX)
}
