//! Chooses the answer to a query. It is pure: it takes the guest as the engine knows it, and the
//! query.
//!
//! The rules are those of RFC 8415, 18.3. A guest gets one address, in the first association of its
//! message. It gets no temporary address and no prefix, and is told so.

use std::net::Ipv6Addr;

use super::Dhcp6Query;
use super::message::{Kind, option};
use super::reply::{Dhcp6Reply, Status};
use crate::model::lease::Guest;
use crate::model::mac::Mac;

/// The most associations of a message that are answered, and the most other addresses in them.
pub(super) const ASSOCIATIONS_MAX: usize = 8;
pub(super) const OTHERS_MAX: usize = 8;

/// An answer to an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Associated {
    /// What it is for.
    pub code: u16,
    /// The client's number for it.
    pub id: [u8; 4],
    /// The guest's address, if it is leased in it.
    pub leased: Option<Ipv6Addr>,
    /// Addresses that it names and that are not the guest's.
    pub others: Vec<Ipv6Addr>,
}

/// Decides. An error is why there is no answer.
pub fn respond(guest: &Guest<'_>, query: &Dhcp6Query<'_>) -> Result<Dhcp6Reply, &'static str> {
    let own = guest.nic.ip6.ok_or("its network has no IPv6")?;
    if query.server().is_some_and(|server| server != server_id(guest.network.mac)) {
        return Err("it is a message to another server");
    }
    let kind = query.message.kind;
    let mut reply = Dhcp6Reply::of(Kind::Reply);
    match kind {
        Kind::Solicit => {
            reply.is_rapid = query.message.option(option::RAPID_COMMIT).is_some();
            if !reply.is_rapid {
                reply.kind = Kind::Advertise;
            }
            reply.associated = associate(query, own, false);
        }
        Kind::Request => reply.associated = associate(query, own, false),
        Kind::Renew | Kind::Rebind => reply.associated = associate(query, own, true),
        Kind::Confirm => {
            let named = || query.message.associations().flat_map(|it| it.addresses());
            named().next().ok_or("it names no address")?;
            let is_well = named().all(|(address, _)| address == own);
            reply.status = Some(if is_well { Status::Success } else { Status::NotOnLink });
        }
        // The address stays the VM's.
        Kind::Release | Kind::Decline => reply.status = Some(Status::Success),
        Kind::InformationRequest => {}
        Kind::Advertise | Kind::Reply => return Err("it is a message of a server"),
    }
    Ok(reply)
}

/// The identifier of the server on the network whose bridge has this Ethernet address (RFC 8415,
/// 11.4: an identifier by link-layer address, of Ethernet).
pub fn server_id(mac: Mac) -> [u8; 10] {
    let Mac([a, b, c, d, e, f]) = mac;
    [0, 3, 0, 1, a, b, c, d, e, f]
}

/// The answers to the associations of a query. If the client has had addresses, it is told which of
/// them are not its own.
fn associate(query: &Dhcp6Query<'_>, own: Ipv6Addr, had: bool) -> Vec<Associated> {
    let (mut leased, mut room) = (Some(own), if had { OTHERS_MAX } else { 0 });
    let mut answers = Vec::new();
    for wanted in query.message.associations().take(ASSOCIATIONS_MAX) {
        let others = wanted.addresses().map(|(address, _)| address);
        let others: Vec<_> = others.filter(|address| *address != own).take(room).collect();
        room -= others.len();
        let leased = if wanted.code == option::IA_NA { leased.take() } else { None };
        answers.push(Associated { code: wanted.code, id: wanted.id, leased, others });
    }
    answers
}
