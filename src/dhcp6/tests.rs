//! Whole conversations.

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::Dhcp6Query;
use super::fuzz::{ask, conversation, hear, message};
use super::message::{Association, Kind, Message, Writer, address, option};
use super::respond::server_id;
use crate::dhcp::fuzz::Host;
use crate::model::lease::ADDRESS6_S;
use crate::model::mac::Mac;
use crate::model::net::Told;
use crate::model::spec::NetworkSpec;
use crate::ndp::fuzz::{SERVER, domains, host};
use crate::packet::Malformed;
use crate::packet::v6::{self, ALL_SERVERS, Content, Endpoints, Packet};

const CLIENT: [u8; 6] = [0, 2, 7, 7, 7, 7];
const LEASED: [u32; 2] = [ADDRESS6_S, ADDRESS6_S];

struct Client {
    host: Host,
    mac: Mac,
    own: Ipv6Addr,
}

impl Client {
    fn new() -> Client {
        let mut host = host(Told::default());
        let mac = host.create("a", NetworkSpec::default());
        let own = host.engine.guest("default", mac, None).unwrap().nic.ip6.unwrap();
        Client { host, mac, own }
    }

    /// The identifier of its server.
    fn server(&self) -> [u8; 10] {
        server_id(self.host.engine.configured().next().unwrap().mac)
    }

    /// The answer to a message that names client and server, and has these options.
    fn say(
        &self,
        kind: Kind,
        server: Option<&[u8]>,
        more: &dyn Fn(&mut Writer),
    ) -> Option<Vec<u8>> {
        let mut writer = Writer::new(kind, [1, 2, 3]);
        writer.option(option::CLIENT_ID, &CLIENT);
        if let Some(server) = server {
            writer.option(option::SERVER_ID, server);
        }
        more(&mut writer);
        hear(&self.host, &ask(self.mac, &writer.finish()))
    }

    /// The same about one association with these addresses.
    fn about(&self, kind: Kind, server: bool, addresses: &[Ipv6Addr]) -> Option<Vec<u8>> {
        let server = server.then(|| self.server());
        let options: Vec<_> = addresses.iter().map(|ip| address(*ip, [9, 9])).collect();
        self.say(kind, server.as_ref().map(|id| &id[..]), &|writer| {
            writer.association(option::IA_NA, [7; 4], [0, 0], &options);
        })
    }
}

/// The associations of an answer, each with its kind, its addresses and its status.
type Outcome = (u16, Vec<(Ipv6Addr, [u32; 2])>, Option<u8>);

fn outcomes(message: &Message<'_>) -> Vec<Outcome> {
    let status = |it: &Association<'_>| it.option(option::STATUS).map(|value| value[1]);
    message.associations().map(|it| (it.code, it.addresses().collect(), status(&it))).collect()
}

fn status(frame: &[u8]) -> u8 {
    let (message, _) = message(frame);
    assert_eq!(message.kind, Kind::Reply);
    message.option(option::STATUS).expect("a status")[1]
}

#[test]
fn a_guest_gets_renews_confirms_and_gives_back() {
    let client = Client::new();
    let leased = vec![(option::IA_NA, vec![(client.own, LEASED)], None)];
    let offer = client.about(Kind::Solicit, false, &[]).unwrap();
    let (offer, _) = message(&offer);
    assert_eq!((offer.kind, outcomes(&offer)), (Kind::Advertise, leased.clone()));
    assert_eq!(offer.option(option::PREFERENCE), Some(&[255][..]));
    assert_eq!(offer.option(option::DNS), Some(&SERVER.octets()[..]));
    for (kind, chosen) in [(Kind::Request, true), (Kind::Renew, true), (Kind::Rebind, false)] {
        let reply = client.about(kind, chosen, &[client.own]).unwrap();
        let (reply, _) = message(&reply);
        assert_eq!((reply.kind, outcomes(&reply)), (Kind::Reply, leased.clone()));
    }
    assert_eq!(status(&client.about(Kind::Confirm, false, &[client.own]).unwrap()), 0);
    for kind in [Kind::Release, Kind::Decline] {
        assert_eq!(status(&client.about(kind, true, &[client.own]).unwrap()), 0);
    }
    let again = client.about(Kind::Rebind, false, &[client.own]).unwrap();
    assert_eq!(outcomes(&message(&again).0), leased, "the address stays the VM's");
}

#[test]
fn rapid_commit_leases_at_once() {
    let client = Client::new();
    let reply = client.say(Kind::Solicit, None, &|writer| {
        writer.option(option::RAPID_COMMIT, &[]);
        writer.association(option::IA_NA, [7; 4], [0, 0], &[]);
    });
    let reply = reply.unwrap();
    let (reply, _) = message(&reply);
    assert_eq!(outcomes(&reply), [(option::IA_NA, vec![(client.own, LEASED)], None)]);
    assert_eq!((reply.kind, reply.option(option::RAPID_COMMIT)), (Kind::Reply, Some(&[][..])));
}

#[test]
fn a_guest_has_no_address_but_its_own() {
    let client = Client::new();
    let other: Ipv6Addr = "fd00:1:2:3::77".parse().unwrap();
    let renewed = client.about(Kind::Renew, true, &[other]).unwrap();
    let addresses = vec![(client.own, LEASED), (other, [0, 0])];
    assert_eq!(outcomes(&message(&renewed).0), [(option::IA_NA, addresses, None)]);
    assert_eq!(status(&client.about(Kind::Confirm, false, &[client.own, other]).unwrap()), 4);
    assert_eq!(client.about(Kind::Confirm, false, &[]), None, "nothing is asked");

    let reply = client.say(Kind::Request, Some(&client.server()), &|writer| {
        for code in [option::IA_PD, option::IA_TA, option::IA_NA, option::IA_NA] {
            writer.association(code, [7; 4], [0, 0], &[]);
        }
    });
    let (none, leased) = (Vec::new(), vec![(client.own, LEASED)]);
    let expected = [
        (option::IA_PD, none.clone(), Some(6)),
        (option::IA_TA, none.clone(), Some(2)),
        (option::IA_NA, leased, None),
        (option::IA_NA, none, Some(2)),
    ];
    assert_eq!(outcomes(&message(&reply.unwrap()).0), expected);
}

#[test]
fn whoever_has_an_address_is_told_the_rest() {
    let mut client = Client::new();
    client.host = host(Told { search: vec!["lan".into(), "a.example".into()], ..Told::default() });
    client.mac = client.host.create("b", NetworkSpec::default());
    let anonymous = Writer::new(Kind::InformationRequest, [4, 5, 6]).finish();
    let reply = hear(&client.host, &ask(client.mac, &anonymous)).unwrap();
    let (reply, _) = message(&reply);
    assert_eq!((reply.kind, reply.xid, outcomes(&reply)), (Kind::Reply, [4, 5, 6], vec![]));
    assert_eq!(reply.option(option::DNS), Some(&SERVER.octets()[..]));
    assert_eq!(domains(reply.option(option::SEARCH).unwrap()), ["lan", "a.example"]);
}

#[test]
fn messages_to_others_and_of_others_are_not_answered() {
    let client = Client::new();
    assert_eq!(client.say(Kind::Request, Some(&[9; 10]), &|_| {}), None, "another server");
    assert!(client.say(Kind::Request, Some(&client.server()), &|_| {}).is_some());
    assert_eq!(client.say(Kind::Request, None, &|_| {}), None, "none is chosen");
    for kind in [Kind::Solicit, Kind::Rebind, Kind::Confirm] {
        assert_eq!(client.about(kind, true, &[client.own]), None, "{kind:?} with a server");
    }
    for kind in [Kind::Advertise, Kind::Reply] {
        assert_eq!(client.about(kind, false, &[client.own]), None, "{kind:?}");
    }
    assert_eq!(client.about(Kind::InformationRequest, false, &[]), None, "with an association");
    let solicit = |length: usize| {
        let mut writer = Writer::new(Kind::Solicit, [1, 2, 3]);
        writer.option(option::CLIENT_ID, &vec![7; length]);
        writer.finish()
    };
    let heard = |mac, length| hear(&client.host, &ask(mac, &solicit(length))).is_some();
    assert!(heard(client.mac, 1) && heard(client.mac, 130));
    assert!(!heard(client.mac, 0) && !heard(client.mac, 131));
    assert!(!heard(Mac([2, 0, 0, 0, 0, 9]), 6), "no VM has this Ethernet address");

    let own = client.mac.link_local();
    for (source, destination, port, expected) in [
        (own, ALL_SERVERS, 547, None),
        (own, own, 547, Some(Malformed::NotOurs)),
        (client.own, ALL_SERVERS, 547, Some(Malformed::NotOurs)),
        (own, ALL_SERVERS, 546, Some(Malformed::NotOurs)),
    ] {
        let addresses = Endpoints { from: client.mac, to: client.mac, source, destination };
        let payload = &solicit(6)[..];
        let content = Content::Udp { source_port: 546, destination_port: port, payload };
        let frame = v6::build(&Packet { addresses, hop_limit: 1, content });
        assert_eq!(Dhcp6Query::read(&frame).err(), expected, "{source} {destination} {port}");
    }
}

#[test]
fn a_message_that_is_cut_within_an_option_is_an_error() {
    let mut writer = Writer::new(Kind::Renew, [1, 2, 3]);
    writer.option(option::CLIENT_ID, &CLIENT);
    let first = writer.clone().finish().len();
    let own = address(Ipv6Addr::LOCALHOST, [1, 2]);
    writer.association(option::IA_NA, [7; 4], [3, 4], &[own]);
    let whole = writer.finish();
    assert!(Message::read(&whole).is_ok());
    let whole_options = [4, first, whole.len()];
    for length in 0..whole.len() {
        let read = Message::read(&whole[..length]);
        assert_eq!(read.is_ok(), whole_options.contains(&length), "{length}");
    }
    // The lengths of inner options, and of an address that is too short.
    for (at, length) in [(first + 3, 11), (first + 19, 25), (first + 19, 23), (first + 19, 0)] {
        let mut changed = whole.clone();
        changed[at] = length;
        assert_eq!(Message::read(&changed), Err(Malformed::Cut), "{at} {length}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered_well_or_not_at_all(
        kind in 0_u8..14,
        options in proptest::collection::vec(
            (0_u16..28, proptest::collection::vec(any::<u8>(), 0..60)), 0..20
        ),
    ) {
        let mut payload = vec![kind, 1, 2, 3];
        for (code, value) in options {
            payload.extend(code.to_be_bytes());
            payload.extend((value.len() as u16).to_be_bytes());
            payload.extend(value);
        }
        let length = (payload.len() as u16).to_be_bytes();
        conversation(&[&[0][..], &length, &payload].concat());
    }
}
