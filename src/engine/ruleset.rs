//! The nf_tables rules of volnet as values.
//!
//! The number of rules is constant; VMs are elements of sets. A table is compared, replaced and
//! printed as a whole, so there is one description of it and every reader (the kernel, `nft`, a
//! person) is served from that.

mod ours;
pub mod text;

pub use ours::{TABLE, elements, tables};

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;

use super::mac::Mac;
use super::prefix::Prefix;

/// The address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ip,
    /// Frames on a bridge.
    Bridge,
}

/// A table of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: &'static str,
    /// Whether it is owned by our socket and persists without it (OWNER|PERSIST).
    pub owned: bool,
    /// Its sets, with their elements.
    pub sets: Vec<Set>,
    /// Its chains, with their rules.
    pub chains: Vec<Chain>,
}

impl Table {
    /// A number for everything but the elements: the same for the same chains, rules and sets, in
    /// this binary.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.family, self.name, self.sets.len()).hash(&mut hasher);
        for set in &self.sets {
            (set.name, set.key, set.interval).hash(&mut hasher);
        }
        self.chains.hash(&mut hasher);
        hasher.finish()
    }
}

/// A named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// What its keys are, concatenated in this order.
    pub key: &'static [Field],
    /// Whether its elements are prefixes rather than single values.
    pub interval: bool,
    /// What is in it.
    pub elements: Vec<Key>,
}

/// One field of a set's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// A link name, 16 bytes.
    Link,
    /// An Ethernet address, 6 bytes.
    Ether,
    /// An IPv4 address, 4 bytes.
    Ipv4,
}

/// The key of one element: its fields are those of the set, in their order.
pub type Key = Vec<Value>;

/// A value of one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// A link name.
    Link(String),
    /// An Ethernet address.
    Ether(Mac),
    /// One IPv4 address.
    Ipv4(Ipv4Addr),
    /// All the addresses of a prefix; only in interval sets.
    Prefix(Prefix),
}

/// An element and the set it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The table's family.
    pub family: Family,
    /// The table's name.
    pub table: &'static str,
    /// The set's name.
    pub set: &'static str,
    /// The element itself.
    pub key: Key,
}

/// A base chain: every chain of ours hangs on a hook.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// What it does: `filter` or `nat`.
    pub kind: ChainKind,
    /// Where packets meet it.
    pub hook: Hook,
    /// The order among the chains of a hook.
    pub priority: i32,
    /// Its rules, first to last. The policy is always accept: we drop by rule, so that what is
    /// dropped can be read.
    pub rules: Vec<Rule>,
}

/// The type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Accepts and drops.
    Filter,
    /// Rewrites addresses on the first packet of a connection.
    Nat,
}

/// A netfilter hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Everything that comes in.
    Prerouting,
    /// What goes through.
    Forward,
    /// Everything that goes out.
    Postrouting,
}

/// Conditions, all of which must hold, and what happens then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The conditions, in the order in which they are tried.
    pub matches: Vec<Match>,
    /// What happens.
    pub verdict: Verdict,
}

/// A condition of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// The fields of the packet, concatenated, are (or are not) in the set.
    InSet { fields: &'static [PacketField], set: &'static str, negated: bool },
    /// The EtherType is this one; only in the bridge family.
    EtherType(u16),
    /// The connection is established or related.
    Established,
}

/// A field of a packet that a set is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketField {
    /// The link it came in by.
    InLink,
    /// The link it leaves by.
    OutLink,
    /// Ethernet source address.
    EtherSource,
    /// IPv4 source address.
    IpSource,
    /// IPv4 destination address.
    IpDestination,
    /// ARP sender IPv4 address (RFC 826).
    ArpSenderIp,
    /// ARP sender Ethernet address.
    ArpSenderEther,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Let it pass this chain.
    Accept,
    /// Drop it.
    Drop,
    /// Source NAT to the address of the outgoing link.
    Masquerade,
}

/// A plain accept rule in `ip filter`, where Docker and others drop what is forwarded. It carries
/// the comment `volnet` and nothing that iptables could not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The chain: `DOCKER-USER` or `FORWARD`.
    pub chain: String,
    /// The bridge.
    pub bridge: String,
    /// Whether packets that come in by the bridge are meant, or those that leave by it.
    pub direction: Direction,
}

/// A direction as seen from the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `iifname`.
    In,
    /// `oifname`.
    Out,
}
