//! The nf_tables rules of volnet as values.
//!
//! The number of rules is constant; VMs are elements of sets. A table is compared, replaced and
//! printed as a whole. So there is one description of it for every reader (the kernel, `nft`, a
//! person).

mod ours;
pub mod text;
pub mod words;

pub use ours::{
    ALLOWED, ARRIVING, DENIED, FORGED, GuestPort, InnerPort, LEAVING, OVERRUN,
    PRIORITY_DESTINATION_NAT, SPOOFED, TABLE, TRACE_TABLE, TracedPort, elements, exposed, itself,
    key, keys, policy, tables, traced, tracing,
};

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};

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
    /// Whether our socket owns it, and it persists without the socket (OWNER|PERSIST).
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

/// A table without its elements, as it can be read back from the kernel. Rules are recognised by
/// their tags, which the kernel stores with each rule. A rule of another program has no tag, or
/// another one.
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
    /// Its type.
    pub kind: ChainKind,
    /// Its hook.
    pub hook: Hook,
    /// The order among the chains of a hook.
    pub priority: i32,
    /// The tags of its rules, first to last.
    pub rules: Vec<u64>,
}

impl Shape {
    /// The same number for the same shape, in whatever order its parts were read. It is valid only
    /// in this process, and is not stored.
    pub fn fingerprint(mut self) -> u64 {
        self.sets.sort();
        self.chains.sort();
        let mut hasher = DefaultHasher::new();
        (self.sets, self.chains).hash(&mut hasher);
        hasher.finish()
    }
}

impl Rule {
    /// A number for the content of the rule: the beginning of a hash of its text. The kernel stores
    /// it, and a later binary reads it, so it must not depend on the compiler.
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
    /// The fields of its keys, concatenated in this order.
    pub key: &'static [Field],
    /// How it is filled.
    pub kind: SetKind,
    /// Whether elements that packets added are kept when the table is replaced.
    pub kept: bool,
    /// Its elements.
    pub elements: Vec<Key>,
}

impl Set {
    /// Whether it is a map.
    pub fn is_map(&self) -> bool {
        self.key.last().is_some_and(|last| last.is_target())
    }
}

/// How a set is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// By us, with single values.
    Values,
    /// By us, with prefixes.
    Prefixes,
    /// By us, with single values that count their packets.
    Counting,
    /// By us, with single values that each have a rate ([`Field::Rate`]) and match packets over it.
    Limiting,
    /// By packets, with [`Match::Faster`] and [`Match::Put`]. The kernel decides about its
    /// elements: they are neither desired nor foreign. An element expires after this many seconds
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
    /// An IPv6 address, 16 bytes.
    Ipv6,
    /// A protocol of IP, 1 byte.
    Protocol,
    /// A port, 2 bytes.
    Port,
    /// Bytes of a packet, without a meaning.
    Bytes(Bytes),
    /// An IPv4 address and a port, the value of the other fields: a set with this last field is a
    /// map.
    Target,
    /// The same with an IPv6 address.
    Target6,
    /// An Ethernet address, as the value of the other fields.
    TargetEther,
    /// An IPv4 address, as the value of the other fields.
    TargetIpv4,
    /// Bytes of a packet, as the value of the other fields.
    TargetBytes(Bytes),
    /// A rate in this unit: the last field of a set that limits.
    Rate(Unit),
}

impl Field {
    /// Whether it is the value of a map.
    pub fn is_target(self) -> bool {
        match self {
            Field::Target
            | Field::Target6
            | Field::TargetEther
            | Field::TargetIpv4
            | Field::TargetBytes(_) => true,
            Field::Link
            | Field::Ether
            | Field::Ipv4
            | Field::Ipv6
            | Field::Protocol
            | Field::Port
            | Field::Bytes(_)
            | Field::Rate(_) => false,
        }
    }
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// Packets. If the guest leaves segmentation to the host, a packet may have 64 KiB.
    Packets,
    /// Their bytes, without the Ethernet header.
    Bytes,
}

/// Bytes of a packet. nft identifies them by their offset, and compares them only with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bytes {
    /// The header at which the offset begins.
    pub layer: Layer,
    /// The offset in bytes.
    pub offset: u8,
    /// The length, 1 to 8 bytes.
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

/// The key of one element: the fields of the set, in their order.
pub type Key = Vec<Value>;

/// A value of one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// A link name.
    Link(String),
    /// An Ethernet address.
    Ether(Mac),
    /// One address, of the family of its field.
    Address(IpAddr),
    /// All addresses of a prefix; only in sets of prefixes.
    Prefix(Prefix<IpAddr>),
    /// A protocol of IP.
    Protocol(u8),
    /// A port.
    Port(u16),
    /// Bytes.
    Bytes(Vec<u8>),
    /// The value of the key; only in maps.
    Target(IpAddr, u16),
    /// An Ethernet address that is the value of the key; only in maps.
    TargetEther(Mac),
    /// An IPv4 address that is the value of the key; only in maps.
    TargetIpv4(Ipv4Addr),
    /// Bytes that are the value of the key; only in maps.
    TargetBytes(Vec<u8>),
    /// A rate; only in sets that limit.
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

/// A base chain: each of our chains has a hook.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Its type: `filter` or `nat`.
    pub kind: ChainKind,
    /// Its hook.
    pub hook: Hook,
    /// The order among the chains of a hook.
    pub priority: i32,
    /// Its rules, first to last. The policy is always accept. Only rules drop packets, so that a
    /// reader sees which packets are dropped.
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
    /// All packets that come in.
    Prerouting,
    /// Packets to the host itself.
    Input,
    /// Packets that are forwarded.
    Forward,
    /// Packets that the host itself sends or passes on.
    Output,
    /// All packets that go out.
    Postrouting,
}

/// A rule: if all conditions hold, the verdict applies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The conditions, in their order.
    pub matches: Vec<Match>,
    /// The verdict.
    pub verdict: Verdict,
}

/// A condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// The concatenated fields of the packet are (or are not) in the set. If the set limits, the
    /// packets of this element exceed its rate.
    InSet { fields: &'static [PacketField], set: Cow<'static, str>, negated: bool },
    /// The field of the packet has (or has not) this value. If there is a `mask`, only its bits
    /// count.
    Is { field: PacketField, mask: Option<u64>, value: u64, negated: bool },
    /// The address in the field is of this prefix.
    Within { field: PacketField, prefix: Prefix<IpAddr> },
    /// Matches packets above `rate` per second, counted separately for each value of `fields` in
    /// `set`.
    Faster { fields: &'static [PacketField], set: &'static str, rate: Rate },
    /// Always matches. Puts the concatenated fields of the packet into the set.
    Put { fields: &'static [PacketField], set: &'static str },
    /// The connection is established or related.
    Established,
    /// The destination of the connection was translated.
    Translated,
    /// The packet is a reply in its connection.
    Answer,
    /// The packet is for an address of the host.
    Local,
}

/// A field of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketField {
    /// The link it came in by.
    InLink,
    /// The type of that link (`ARPHRD_*`, linux/if_arp.h).
    InType,
    /// The link it leaves by.
    OutLink,
    /// The priority that a rule gave it; 0 if none did.
    Priority,
    /// The protocol that the IP packet carries, behind all extension headers.
    Protocol,
    /// EtherType. If the frame has a tag, the tag's; in frames of IEEE 802.3 it is a length.
    EtherType,
    /// Ethernet destination address.
    EtherDestination,
    /// Ethernet source address.
    EtherSource,
    /// IPv4 address of who began the connection that the packet is of.
    Beginner,
    /// IPv6 address of who did.
    Beginner6,
    /// Flags and offset of an IPv4 fragment.
    IpFragment,
    /// IPv4 source address.
    IpSource,
    /// IPv4 destination address.
    IpDestination,
    /// IPv6 source address.
    Ip6Source,
    /// IPv6 destination address.
    Ip6Destination,
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
    /// ARP target IPv4 address.
    ArpTargetIp,
    /// ARP target Ethernet address.
    ArpTargetEther,
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
    /// IPv4 source address of the packet that an error of ICMP quotes.
    QuotedSource,
    /// Its destination address.
    QuotedDestination,
    /// Bytes, whatever they mean.
    Bytes(Bytes),
}

/// The action of a rule. After an action that is not a verdict of the kernel, the next rule is
/// tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Let it pass this chain.
    Accept,
    /// Drop it.
    Drop,
    /// Source NAT to the address of the outgoing link.
    Masquerade,
    /// Have the kernel tell of the packet from here on, rule by rule.
    Trace,
    /// Give it a priority, which later chains can see.
    SetPriority(u32),
    /// Give it a priority and let it pass this chain.
    Admit(u32),
    /// Destination NAT to the value of the concatenated fields in the map, an address of this
    /// family. If the map does not have them, the next rule is tried.
    Translate { family: Family, fields: &'static [PacketField], map: &'static str },
    /// Write the value of the link and the field in the map into the field, and mend the checksums.
    /// If the map does not have them, the frame stays as it is.
    Rewrite { link: PacketField, field: PacketField, map: &'static str },
    /// The same with the Ethernet destination of a frame that came in, which is for the host then.
    Deliver { map: &'static str },
}

/// A plain accept rule in the table `filter` of iptables or ip6tables, where Docker and others drop
/// forwarded packets. It has the comment `volnet`, and these programs can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The family of the table.
    pub family: Family,
    /// The chain: `DOCKER-USER` or `FORWARD`.
    pub chain: String,
    /// The bridge.
    pub bridge: String,
    /// Whether it is for packets that come in by the bridge, or for those that leave by it.
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
        assert_eq!(key(Family::Ip6, "policy_web"), Some(&[Field::Ipv6][..]));
        assert_eq!(key(Family::Bridge, "policy_web"), None);
    }
}
