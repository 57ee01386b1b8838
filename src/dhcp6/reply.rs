//! Writes the frame that answers a query.

use std::net::{IpAddr, Ipv6Addr};

use super::Dhcp6Query;
use super::message::{Kind, Writer, address, option};
use super::respond::{Associated, server_id};
use crate::model::lease::{ADDRESS6_S, Guest};
use crate::packet::domain_list;
use crate::packet::v6::{self, CLIENT_PORT, Content, Endpoints, Packet, SERVER_PORT};

/// A client that has this offer waits for no other (RFC 8415, 18.2.1).
const BEST: u8 = 255;
/// Routers that the packet may go through: it goes through none.
const HOPS: u8 = 64;
/// When a client is to renew its address and when to ask any server, in seconds: after a half and
/// four fifths of the time, as RFC 8415, 21.4, has it.
const TIMES: [u32; 2] = [ADDRESS6_S / 2, ADDRESS6_S / 5 * 4];

/// The outcome of a query (RFC 8415, 21.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Success = 0,
    NoAddress = 2,
    NotOnLink = 4,
    NoPrefix = 6,
}

/// The content of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dhcp6Reply {
    /// An offer or an answer.
    pub kind: Kind,
    /// Whether it answers the first message at once (rapid commit).
    pub is_rapid: bool,
    /// The outcome of the whole.
    pub status: Option<Status>,
    /// The outcome of each association.
    pub associated: Vec<Associated>,
}

impl Dhcp6Reply {
    /// One that says nothing yet.
    pub(super) fn of(kind: Kind) -> Dhcp6Reply {
        Dhcp6Reply { kind, is_rapid: false, status: None, associated: Vec::new() }
    }

    /// The frame. `servers` are the name servers for the guest.
    pub fn frame(&self, guest: &Guest<'_>, query: &Dhcp6Query<'_>, servers: &[IpAddr]) -> Vec<u8> {
        let mac = guest.network.mac;
        v6::build(&Packet {
            addresses: Endpoints {
                from: mac,
                to: query.mac,
                source: mac.link_local(),
                destination: query.source,
            },
            hop_limit: HOPS,
            content: Content::Udp {
                source_port: SERVER_PORT,
                destination_port: CLIENT_PORT,
                payload: &self.message(guest, query, servers),
            },
        })
    }

    fn message(&self, guest: &Guest<'_>, query: &Dhcp6Query<'_>, servers: &[IpAddr]) -> Vec<u8> {
        let mut writer = Writer::new(self.kind, query.message.xid);
        if let Some(client) = query.client() {
            writer.option(option::CLIENT_ID, client);
        }
        writer.option(option::SERVER_ID, &server_id(guest.network.mac));
        if self.kind == Kind::Advertise {
            writer.option(option::PREFERENCE, &[BEST]);
        }
        if self.is_rapid {
            writer.option(option::RAPID_COMMIT, &[]);
        }
        if let Some(status) = self.status {
            writer.option(option::STATUS, &(status as u16).to_be_bytes());
        }
        for answer in &self.associated {
            associate(&mut writer, answer);
        }
        let six = |server: &IpAddr| match server {
            IpAddr::V6(ip) => Some(ip.octets()),
            IpAddr::V4(_) => None,
        };
        let servers: Vec<u8> = servers.iter().filter_map(six).flatten().collect();
        for (code, value) in
            [(option::DNS, servers), (option::SEARCH, domain_list(guest.network.search()))]
        {
            if !value.is_empty() {
                writer.option(code, &value);
            }
        }
        writer.finish()
    }
}

fn associate(writer: &mut Writer, answer: &Associated) {
    let none = |ip: &Ipv6Addr| address(*ip, [0, 0]);
    let mut options: Vec<_> = answer.others.iter().map(none).collect();
    let times = match answer.leased {
        Some(own) => {
            options.insert(0, address(own, [ADDRESS6_S, ADDRESS6_S]));
            TIMES
        }
        None => {
            let status = match answer.code {
                option::IA_PD => Status::NoPrefix,
                _ => Status::NoAddress,
            };
            options.push((option::STATUS, (status as u16).to_be_bytes().to_vec()));
            [0, 0]
        }
    };
    writer.association(answer.code, answer.id, times, &options);
}
