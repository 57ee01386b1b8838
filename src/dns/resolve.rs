//! Decides on a question: answered from what the engine knows, or passed on.
//!
//! - Names of our domain are answered here and nowhere else. What the asker does not know of does
//!   not exist.
//! - A name of one label may be a VM's, too. If it is not, others may know it.
//! - The addresses of the network are the VMs', and nobody else is asked about them.
//! - A name of another network does not exist. It is not passed on, because the resolvers of the
//!   host may ask volnet for it, and the host is told all names.
//! - All else is passed on if the policy of the guest allows it ([`Passed`]).

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::name::DomainName;
use super::query::{DnsQuery, RecordData, ResponseCode};
use super::wire::{A, AAAA, ANY, AXFR, IN, IXFR, PTR};
use crate::engine::decide::Engine;
use crate::engine::names::{Asker, GATEWAY, Owner, shown};
use crate::model::net::{Dns, NetworkConfig};
use crate::model::policy::{Passed, is_not_internet};

/// What becomes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// It is answered.
    Answer(Vec<u8>),
    /// The resolvers of the host are asked.
    PassOn,
}

/// The first 16 bits of IPv6 addresses of the internet: 2000::/3 (RFC 4291, 2.4).
const GLOBAL: RangeInclusive<u16> = 0x2000..=0x3fff;
/// The domains of names of addresses (RFC 1035, 3.5; RFC 3596, 2.5).
const REVERSE: [&str; 2] = ["in-addr.arpa", "ip6.arpa"];
/// Domains of networks that are not the internet (IANA, Special-Use Domain Names; RFC 6762,
/// appendix G; ICANN resolution 2024.07.29.06).
const PRIVATE: [&str; 15] = [
    "alt",
    "corp",
    "home",
    "home.arpa",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "onion",
    "private",
    "resolver.arpa",
    "test",
];

/// Decides on a question that came from `asker` on a network.
pub fn resolve(
    engine: &Engine,
    network: &NetworkConfig,
    asker: Asker<'_>,
    query: &DnsQuery,
) -> Course {
    let question = &query.question;
    if question.class != IN {
        return Course::Answer(query.fail(ResponseCode::Refused));
    }
    let domain = domain(network);
    let answer = own(engine, network, asker, query, &domain);
    answer.map_or_else(|| pass_on(engine, asker, query), Course::Answer)
}

/// The domain of a network.
pub fn domain(network: &NetworkConfig) -> DomainName {
    DomainName::of_text(&network.domain).expect("checked where it is read")
}

/// The answer if nobody else has it.
fn own(
    engine: &Engine,
    network: &NetworkConfig,
    asker: Asker<'_>,
    query: &DnsQuery,
    domain: &DomainName,
) -> Option<Vec<u8>> {
    let question = &query.question;
    let says = |data: &[RecordData]| query.answer(true, ResponseCode::Answered, data);
    if let Some(labels) = question.name.below(domain) {
        if labels.is_empty() {
            return Some(says(&[]));
        }
        let called = text(&labels).and_then(|it| engine.addresses_of(network, asker, &it));
        return Some(match called {
            Some(addresses) => says(&of_kind(&addresses, question.kind)),
            None => query.answer(true, ResponseCode::NoName, &[]),
        });
    }
    let labels: Vec<&[u8]> = question.name.labels().collect();
    if let ([_], A | AAAA) = (&labels[..], question.kind) {
        let addresses = engine.addresses_of(network, asker, &text(&labels)?)?;
        return Some(says(&of_kind(&addresses, question.kind)));
    }
    let name = match engine.owner_of_address(network, asker, question.name.address()?) {
        Owner::Elsewhere => return None,
        Owner::Nobody => return Some(query.answer(true, ResponseCode::NoName, &[])),
        Owner::Host => GATEWAY.to_string(),
        Owner::Vm(name) => shown(name),
    };
    let name = DomainName::of_text(&format!("{name}.{}", network.domain));
    let wanted = matches!(question.kind, PTR | ANY);
    let name = name.filter(|_| wanted).map(RecordData::Name);
    Some(says(name.as_slice()))
}

/// Labels as they are written in a name of ours; `None` if it is not one.
fn text(labels: &[&[u8]]) -> Option<String> {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !labels.iter().copied().flatten().all(legal) {
        return None;
    }
    String::from_utf8(labels.join(&b'.')).ok()
}

/// The addresses that are asked for.
fn of_kind(addresses: &[IpAddr], kind: u16) -> Vec<RecordData> {
    let wanted = |address: &&IpAddr| match kind {
        A => address.is_ipv4(),
        AAAA => address.is_ipv6(),
        ANY => true,
        _ => false,
    };
    addresses.iter().filter(wanted).copied().map(RecordData::Address).collect()
}

/// Passes a question on, if its guest may ask it.
fn pass_on(engine: &Engine, asker: Asker<'_>, query: &DnsQuery) -> Course {
    // A resolver may give its zones to the host, and nobody means its guests by that.
    if matches!(query.question.kind, AXFR | IXFR) {
        return Course::Answer(query.fail(ResponseCode::Refused));
    }
    if !matches!(asker, Asker::Host) && is_of_a_network(engine, &query.question.name) {
        return Course::Answer(query.answer(true, ResponseCode::NoName, &[]));
    }
    let passed = match asker {
        // The host has its own resolvers, which may ask us what they do not know.
        Asker::Host | Asker::Guest { policy: None, .. } => Passed::Nothing,
        Asker::Guest { policy: Some(policy), .. } => engine.passed(policy),
    };
    match passed {
        Passed::All => Course::PassOn,
        Passed::Internet if !is_private(&query.question.name) => Course::PassOn,
        Passed::Internet => Course::Answer(query.answer(false, ResponseCode::NoName, &[])),
        Passed::Nothing => Course::Answer(query.fail(ResponseCode::Refused)),
    }
}

/// Whether volnet is who knows the names of this domain, on one network or another.
fn is_of_a_network(engine: &Engine, name: &DomainName) -> bool {
    let mut named = engine.configured().filter(|network| network.dns == Dns::Builtin);
    named.any(|network| name.below(&domain(network)).is_some())
}

/// Whether a name is one of another network than the internet.
fn is_private(name: &DomainName) -> bool {
    let below = |domain: &str| {
        DomainName::of_text(domain).is_some_and(|domain| name.below(&domain).is_some())
    };
    let special = name.address().is_some_and(|address| match address {
        IpAddr::V6(ip) if !GLOBAL.contains(&ip.segments()[0]) => true,
        address => is_not_internet(address),
    });
    // Which network a name below these belongs to is known only if it is that of an address.
    let part = name.address().is_none() && REVERSE.iter().any(|domain| below(domain));
    let one_label = name.labels().count() == 1;
    one_label || special || part || PRIVATE.iter().any(|domain| below(domain))
}
