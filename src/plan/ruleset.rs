//! The nf_tables rules of volnet as values.
//!
//! The number of rules is constant; VMs are elements of sets. A table is compared, replaced and
//! printed as a whole, so there is one description of it and every reader (the kernel, `nft`, a
//! person) is served from that.

mod ours;
pub mod text;

pub use ours::{ALLOWED, DENIED, Guest, TABLE, elements, exposed, key, keys, policy, tables};

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use crate::model::limits::Rate;
use crate::model::mac::Mac;
use crate::model::prefix::Prefix;

/// The address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
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
    /// The table without its elements.
    pub fn shape(&self) -> Shape {
        let sets = self.sets.iter().map(|set| (set.name.to_string(), set.key.into(), set.kind));
        let chains = self.chains.iter().map(|chain| ChainShape {
            name: chain.name.into(),
            kind: chain.kind,
            hook: chain.hook,
            priority: chain.priority,
            rules: chain.rules.iter().map(Rule::tag).collect(),
        });
        Shape { sets: sets.collect(), chains: chains.collect() }
    }

    /// A number for everything but the elements; see [`Shape::fingerprint`].
    pub fn fingerprint(&self) -> u64 {
        self.shape().fingerprint()
    }
}

/// A table without its elements, as it can be read back from the kernel. Rules are known by their
/// tags: the kernel keeps with each what we wrote there, and a rule that others add, or put in the
/// place of one of ours, has none or another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Name, key and kind of every set.
    pub sets: Vec<(String, Vec<Field>, SetKind)>,
    /// Every chain with the tags of its rules.
    pub chains: Vec<ChainShape>,
}

/// A chain of a [`Shape`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainShape {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: ChainKind,
    /// Where packets meet it.
    pub hook: Hook,
    /// The order among the chains of a hook.
    pub priority: i32,
    /// The tags of its rules, first to last.
    pub rules: Vec<u64>,
}

impl Shape {
    /// The same number for the same shape, in whatever order its parts were read. It holds for as
    /// long as this process runs, and is kept nowhere.
    pub fn fingerprint(mut self) -> u64 {
        self.sets.sort();
        self.chains.sort();
        let mut hasher = DefaultHasher::new();
        (self.sets, self.chains).hash(&mut hasher);
        hasher.finish()
    }
}

impl Rule {
    /// A number for what the rule says: the beginning of a hash of its text. The kernel keeps it for
    /// whichever binary comes next, so it depends on nothing that a compiler may change.
    pub fn tag(&self) -> u64 {
        let hash = Sha256::digest(text::rule(self));
        hash.iter().take(8).fold(0, |tag, byte| tag << 8 | u64::from(*byte))
    }
}

/// A named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What its keys are, concatenated in this order.
    pub key: &'static [Field],
    /// How it is filled.
    pub kind: SetKind,
    /// Whether what packets put into it is taken along when the table is put there anew.
    pub kept: bool,
    /// What is in it.
    pub elements: Vec<Key>,
}

impl Set {
    /// Whether its keys lead somewhere.
    pub fn is_map(&self) -> bool {
        self.key.last() == Some(&Field::Target)
    }
}

/// How a set is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// By us, with single values.
    Values,
    /// By us, with prefixes.
    Prefixes,
    /// By us, with single values, each of which counts the packets that it was found for.
    Counting,
    /// By us, with single values, each of which has a rate ([`Field::Rate`]) and is found for what is
    /// over that.
    Limiting,
    /// By packets, as [`Match::Faster`] and [`Match::Put`] say. What is in it is the kernel's to say:
    /// it is neither desired nor foreign. An element goes by itself after so many seconds
    /// without such a packet.
    Learned { timeout_s: u32 },
}

/// The most elements that packets can put into a set.
pub const LEARNED_MAX: u32 = 65_535;

/// One field of a set's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// A link name, 16 bytes.
    Link,
    /// An Ethernet address, 6 bytes.
    Ether,
    /// An IPv4 address, 4 bytes.
    Ipv4,
    /// A protocol of IP, 1 byte.
    Protocol,
    /// A port, 2 bytes.
    Port,
    /// Bytes such as stand there in a packet, whatever they mean.
    Bytes(Bytes),
    /// An IPv4 address and a port that the rest of the key leads to: a set whose last field this is,
    /// is a map.
    Target,
    /// How much may come, in this unit: the last field of a set that limits.
    Rate(Unit),
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// Packets; one of a guest that segments nothing itself may be of 64 KiB.
    Packets,
    /// Their bytes, without the Ethernet header.
    Bytes,
}

/// Bytes of a packet. nft knows them by where they stand, and compares them only with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bytes {
    /// The header that the offset counts from.
    pub layer: Layer,
    /// How many bytes stand before them.
    pub offset: u8,
    /// How many they are, 1 to 8.
    pub length: u8,
}

/// A header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// Ethernet.
    Link,
    /// IP or ARP.
    Network,
    /// UDP and the like.
    Transport,
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
    /// All the addresses of a prefix; only in sets of prefixes.
    Prefix(Prefix),
    /// A protocol of IP.
    Protocol(u8),
    /// A port.
    Port(u16),
    /// Bytes.
    Bytes(Vec<u8>),
    /// What the values before it lead to; only in maps.
    Target(Ipv4Addr, u16),
    /// How much may come; only in sets that limit.
    Rate(Unit, Rate),
}

/// An element and the set it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The table's family.
    pub family: Family,
    /// The table's name.
    pub table: &'static str,
    /// The set's name.
    pub set: Cow<'static, str>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChainKind {
    /// Accepts and drops.
    Filter,
    /// Rewrites addresses on the first packet of a connection.
    Nat,
}

/// A netfilter hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Everything that comes in.
    Prerouting,
    /// What is for the host itself.
    Input,
    /// What goes through.
    Forward,
    /// What the host sends, or passes on itself.
    Output,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// The fields of the packet, concatenated, are (or are not) in the set; in one that limits: there
    /// comes more like it than the element's rate.
    InSet { fields: &'static [PacketField], set: Cow<'static, str>, negated: bool },
    /// The field of the packet, of which only the bits of `mask` count if there is one, has (or has
    /// not) this value.
    Is { field: PacketField, mask: Option<u64>, value: u64, negated: bool },
    /// There are more packets like this one than so many a second. Like this one are those whose
    /// fields are the same; the set keeps count of each kind.
    Faster { fields: &'static [PacketField], set: &'static str, rate: Rate },
    /// Always; the fields of the packet, concatenated, are in the set from now on, or still.
    Put { fields: &'static [PacketField], set: &'static str },
    /// The connection is established or related.
    Established,
    /// The destination of the connection was translated.
    Translated,
    /// The packet answers, on a connection that another side began.
    Answer,
    /// The packet is for an address of the host's own.
    Local,
}

/// A field of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketField {
    /// The link it came in by.
    InLink,
    /// The link it leaves by.
    OutLink,
    /// The priority that a rule gave it; 0 if none did.
    Priority,
    /// The protocol that the IP packet carries, behind all extension headers.
    Protocol,
    /// EtherType; that of the tag where there is one, and a length in frames of IEEE 802.3.
    EtherType,
    /// Ethernet destination address.
    EtherDestination,
    /// Ethernet source address.
    EtherSource,
    /// Flags and offset of an IPv4 fragment.
    IpFragment,
    /// IPv4 source address.
    IpSource,
    /// IPv4 destination address.
    IpDestination,
    /// ARP hardware type (RFC 826).
    ArpHardware,
    /// ARP protocol type.
    ArpProtocol,
    /// Bytes of a hardware address of ARP.
    ArpHardwareLength,
    /// Bytes of a protocol address of ARP.
    ArpProtocolLength,
    /// ARP sender IPv4 address.
    ArpSenderIp,
    /// ARP sender Ethernet address.
    ArpSenderEther,
    /// Source port.
    SourcePort,
    /// Destination port.
    DestinationPort,
    /// Type of an ICMP message.
    IcmpType,
    /// Type of an ICMPv6 message.
    Icmp6Type,
    /// Type of an IGMP message.
    IgmpType,
    /// Bytes, whatever they mean.
    Bytes(Bytes),
}

/// What a rule does. After what is no verdict in the kernel's sense, the next rule is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Let it pass this chain.
    Accept,
    /// Drop it.
    Drop,
    /// Source NAT to the address of the outgoing link.
    Masquerade,
    /// Give it a priority, which later chains can see.
    SetPriority(u32),
    /// Destination NAT to what the fields of the packet, concatenated, lead to by the map; if they
    /// lead nowhere, the next rule is tried.
    Translate { fields: &'static [PacketField], map: &'static str },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_of_a_rule_is_the_same_in_every_build() {
        let rule =
            Rule { matches: vec![Match::Established, Match::Answer], verdict: Verdict::Accept };
        assert_eq!(text::rule(&rule), "ct state established,related ct direction reply accept");
        // printf '%s' 'ct state ... accept' | sha256sum | cut -c1-16
        assert_eq!(format!("{:016x}", rule.tag()), "3b7a2700d3c636c9");
    }

    #[test]
    fn every_set_of_ours_is_known_by_its_name_and_no_other() {
        assert_eq!(key(Family::Ip, "bridges"), Some(&[Field::Link][..]));
        assert_eq!(key(Family::Ip, "policy_web"), Some(&[Field::Ipv4][..]));
        assert_eq!(key(Family::Bridge, "bridges"), None);
        assert_eq!(key(Family::Ip6, "policy_web"), None);
    }
}
