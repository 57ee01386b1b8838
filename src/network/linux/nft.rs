//! Our nf_tables objects in the kernel.
//!
//! There is one socket for the life of [`Nft`]: with OWNER a table belongs to the socket that made
//! it, and closing a netlink socket after a deletion waits for an RCU grace period. With PERSIST
//! the table outlives the socket. The next [`Nft`] adopts it by making it again with the same
//! flags, so rules hold without a gap between two daemons. If the kernel has neither (before 5.12,
//! 6.9), tables are made without them: the kernel is asked once.
//!
//! Every change is one batch. [`crate::nftables`] writes and reads the messages. [`observe`] asks
//! the kernel for what is ours, and [`others`] for firewalls of other programs.

mod observe;
mod others;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::conntrack::{Conntrack, FlowSelector};
use super::socket::{Error, NetlinkFamily, Socket};
use super::tracing;
use crate::model::error::Failure;
use crate::netlink::nft::object::{self, NewChain, NewTable, TableMessage};
use crate::netlink::nft::{FAMILY_BRIDGE, FAMILY_IP, FAMILY_IP6, batch, element};
use crate::netlink::writer::{Sequence, Writer};
use crate::nftables::{accept, encode, number};
use crate::plan::firewall::{Barrier, Firewall, Hindrance};
use crate::plan::reconcile::ObservedTable;
use crate::plan::ruleset::{Accept, ChainKind, Element, Family, Hook, TABLE, TRACE_TABLE, Table};
use crate::trace::book::{Chains, Rules};

/// The families in which we have tables, and the names of these.
const FAMILIES: [Family; 3] = [Family::Ip, Family::Ip6, Family::Bridge];
const NAMES: [&str; 2] = [TABLE, TRACE_TABLE];
/// A table for the probe. It is never made.
const PROBE: &str = "volnet-probe";
/// A table that does not exist.
const ABSENT: &str = "volnet-absent";
/// An address that nobody has and no group gets (RFC 1112, section 4).
const NOBODY: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 0);

/// The nf_tables side of the kernel.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
    /// The port by which the kernel knows the owner of our tables.
    port: u32,
    /// Whether the kernel knows OWNER and PERSIST.
    ownable: bool,
}

/// Our observed objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedRules {
    /// Our tables.
    pub tables: Vec<ObservedTable>,
    /// Our accept rules in other programs' chains.
    pub accepts: Vec<Accept>,
    /// The chains for these rules, by the family of their table.
    pub chains: BTreeMap<Family, String>,
}

/// The owner of a table with our name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    /// Nobody owns it.
    Open,
    /// We do.
    Ours,
    /// Its owner is gone, and it persists.
    Orphan,
    /// Another socket does.
    Foreign,
}

impl Nft {
    /// Opens the socket and adopts the tables that an earlier one left.
    pub fn new() -> Result<Nft, Failure> {
        let failed = |error: std::io::Error| Failure::kernel("open", "nf_tables", &error);
        let socket = Socket::open(NetlinkFamily::Netfilter).map_err(failed)?;
        let port = socket.port().map_err(failed)?;
        let mut nft = Nft { socket, port, ownable: false };
        let asked = |error: Error| error.failure("ask for", "nf_tables tables that are owned");
        // The kernel needs some 10 ms to undo the probe. If a table persists, no probe is needed.
        nft.ownable =
            nft.has_orphan().map_err(asked)? || nft.ask_for_owned_tables().map_err(asked)?;
        if !nft.ownable {
            log::info!("this kernel has no owned tables that persist; ours can be changed");
        }
        nft.adopt().map_err(|error| error.failure("adopt", "nf_tables tables"))?;
        Ok(nft)
    }

    /// The port of the socket by which rules are changed.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Makes a table; EEXIST when it exists.
    pub fn create_table(&mut self, table: &Table) -> Result<(), Error> {
        self.make(table, |_, _| {})
    }

    /// Replaces a table, in one batch.
    pub fn replace_table(&mut self, table: &Table) -> Result<(), Error> {
        let family = number(table.family);
        match self.ownership(table.family, table.name)? {
            None => self.create_table(table),
            Some(Ownership::Open | Ownership::Ours) => self.make(table, |writer, sequence| {
                object::delete_table(writer, sequence.take(), family, table.name);
            }),
            Some(Ownership::Orphan) => self.make(table, |writer, sequence| {
                let adopt = NewTable::Adopt;
                object::new_table(writer, sequence.take(), family, table.name, true, adopt);
                object::delete_table(writer, sequence.take(), family, table.name);
            }),
            Some(Ownership::Foreign) => Err(foreign(table.name)),
        }
    }

    /// Removes a table. If it is gone, that is success.
    pub fn remove_table(&mut self, family: Family, name: &str) -> Result<(), Error> {
        let removed = self.batch(|writer, sequence| {
            object::delete_table(writer, sequence.take(), number(family), name);
        });
        absent_is_done(removed)
    }

    /// Adds elements to sets.
    pub fn add_elements(&mut self, elements: &[Element]) -> Result<(), Error> {
        self.batch(|writer, sequence| {
            encode::elements(writer, sequence, elements, &[element::add]);
        })
    }

    /// Removes elements. If an element or its set is absent, that is success: each element is added
    /// before it is deleted, so that a missing one does not fail the batch. (Linux 6.3 has a
    /// message for this, but older kernels are still in use.)
    pub fn remove_elements(&mut self, elements: &[Element]) -> Result<(), Error> {
        let both: [encode::Begin; 2] = [element::add, element::remove];
        let removed =
            self.batch(|writer, sequence| encode::elements(writer, sequence, elements, &both));
        let several_sets = || elements.windows(2).any(|pair| !encode::same_set(&pair[0], &pair[1]));
        match removed {
            Err(error) if error.errno() == Some(libc::ENOENT) && several_sets() => {
                for set in elements.chunk_by(encode::same_set) {
                    self.remove_elements(set)?;
                }
                Ok(())
            }
            removed => absent_is_done(removed),
        }
    }

    /// Removes elements and adds others, in one batch. Their sets must exist.
    pub fn exchange_elements(&mut self, gone: &[Element], new: &[Element]) -> Result<(), Error> {
        self.batch(|writer, sequence| {
            encode::elements(writer, sequence, gone, &[element::add, element::remove]);
            encode::elements(writer, sequence, new, &[element::add]);
        })
    }

    /// The counters of addresses in one of our sets: address, packets and bytes.
    pub fn counted(&mut self, set: &str) -> Result<Vec<(IpAddr, u64, u64)>, Error> {
        let mut counted = self.counters(FAMILY_IP, set, element::address)?;
        counted.extend(self.counters(FAMILY_IP6, set, element::address)?);
        Ok(counted)
    }

    /// The counters of ports in one of our sets: name of the link, and packets.
    pub fn counted_by_port(&mut self, set: &str) -> Result<Vec<(String, u64)>, Error> {
        let counted = self.counters(FAMILY_BRIDGE, set, element::link)?;
        Ok(counted.into_iter().map(|(link, packets, _)| (link, packets)).collect())
    }

    fn counters<K>(
        &mut self,
        family: u8,
        set: &str,
        key: fn(&[u8]) -> Result<K, crate::netlink::Error>,
    ) -> Result<Vec<(K, u64, u64)>, Error> {
        let of = element::Of { family, table: TABLE, set };
        let dumped = self.socket.dump(
            |writer, sequence| element::dump(writer, sequence, of),
            |message| Ok(Some(element::read_counters(message.payload, key)?)),
        );
        match dumped {
            // There is no such table, or it has no such set.
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
            dumped => Ok(dumped?.into_iter().flatten().collect()),
        }
    }

    /// Puts an accept rule at the head of its chain.
    pub fn add_accept(&mut self, accept: &Accept) -> Result<(), Error> {
        self.batch(|writer, sequence| accept::write(writer, sequence.take(), accept))
    }

    /// Removes all equal accept rules.
    pub fn remove_accept(&mut self, accept: &Accept) -> Result<(), Error> {
        let handles = observe::accept_handles(&mut self.socket, accept)?;
        if handles.is_empty() {
            return Ok(());
        }
        let removed = self.batch(|writer, sequence| {
            for handle in handles {
                accept::delete(writer, sequence.take(), accept, handle);
            }
        });
        absent_is_done(removed)
    }

    /// Reads our tables, our accept rules, and the names of the chains for these rules.
    pub fn observe(&mut self) -> Result<ObservedRules, Error> {
        let mut tables = Vec::new();
        for (family, name, ownership) in self.ownerships()? {
            let owned = self.ownable.then_some(ownership == Ownership::Ours);
            tables.push(observe::table(&mut self.socket, family, name, owned)?);
        }
        let (accepts, chains) = observe::accepts(&mut self.socket)?;
        Ok(ObservedRules { tables, accepts, chains })
    }

    /// The firewalls of other programs.
    pub fn firewalls(&mut self) -> Result<Vec<Firewall>, Error> {
        others::observe(&mut self.socket)
    }

    /// Other people's tables with source NAT.
    pub fn translators(&mut self) -> Result<Vec<String>, Error> {
        others::translators(&mut self.socket)
    }

    /// The chains of the host, and our rules, for who wants to know which one decided.
    pub fn book(&mut self) -> Result<(Chains, Rules), Error> {
        tracing::book(&mut self.socket)
    }

    /// Single rules of others that could be in the way.
    pub fn hindrances(&mut self) -> Result<Vec<Hindrance>, Error> {
        others::hindrances(&mut self.socket)
    }

    /// Chains of others that drop. `name_of` returns the name of a link by its index.
    pub fn barriers(
        &mut self,
        name_of: impl Fn(u32) -> Option<String>,
    ) -> Result<Vec<Barrier>, Error> {
        others::barriers(&mut self.socket, name_of)
    }

    /// Makes a table with its content. `first` writes the first messages of the batch.
    fn make(
        &mut self,
        table: &Table,
        first: impl Fn(&mut Writer, &mut Sequence),
    ) -> Result<(), Error> {
        let owned = table.owned && self.ownable;
        self.batch(|writer, sequence| {
            first(writer, sequence);
            encode::table(writer, sequence, table, owned);
        })
    }

    /// Whether a table of ours is there that persists.
    fn has_orphan(&mut self) -> Result<bool, Error> {
        Ok(self.ownerships()?.iter().any(|(.., ownership)| *ownership == Ownership::Orphan))
    }

    /// Asks the kernel for a table that is owned and persists. The last message of the batch always
    /// fails, so the kernel undoes it. Linux before 5.12 knows neither flag, and before 6.9 it does
    /// not know PERSIST.
    fn ask_for_owned_tables(&mut self) -> Result<bool, Error> {
        self.ask(|writer, sequence| {
            let how = NewTable::Create;
            object::new_table(writer, sequence.take(), FAMILY_IP, PROBE, true, how);
        })
    }

    /// Whether the kernel knows the messages of `build`, which make one object each. They are sent
    /// in a batch that the kernel undoes because its last message cannot be done.
    fn ask(&mut self, build: impl FnOnce(&mut Writer, &mut Sequence)) -> Result<bool, Error> {
        let mut last = 0;
        let asked = self.batch(|writer, sequence| {
            let first = sequence.clone();
            build(writer, sequence);
            // The first of the batch is its beginning.
            last = sequence.since(&first) + 1;
            object::delete_table(writer, sequence.take(), FAMILY_IP, ABSENT);
        });
        match asked {
            Err(Error::Refused { index, errno: libc::ENOENT, .. }) if index == last => Ok(true),
            Err(Error::Refused {
                index,
                errno: libc::EOPNOTSUPP | libc::EINVAL | libc::ENOENT | libc::EAFNOSUPPORT,
                ..
            }) if (1..last).contains(&index) => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Err(Error::Silent),
        }
    }

    /// Whether tables can be owned and persist.
    pub fn has_owned_tables(&self) -> bool {
        self.ownable
    }

    /// Whether there can be rules for bridged frames.
    pub fn has_bridge_rules(&mut self) -> Result<bool, Error> {
        // Our table is there, so the kernel need not be asked.
        if self.ownership(Family::Bridge, TABLE)?.is_some() {
            return Ok(true);
        }
        self.ask(|writer, sequence| {
            let (family, how) = (FAMILY_BRIDGE, NewTable::Create);
            object::new_table(writer, sequence.take(), family, PROBE, false, how);
            let chain = NewChain {
                family,
                table: PROBE,
                name: "prerouting",
                kind: encode::kind_name(ChainKind::Filter),
                hook: encode::hook_number(Hook::Prerouting),
                priority: 0,
            };
            object::new_chain(writer, sequence.take(), &chain);
        })
    }

    /// The ways in which this kernel can delete connections.
    pub fn connections(&mut self) -> Result<Conntrack, Error> {
        let mut how = Conntrack::default();
        how.forget(&mut self.socket, FlowSelector::Of(NOBODY.into()))?;
        Ok(how)
    }

    /// Adopts the tables whose owner is gone.
    fn adopt(&mut self) -> Result<(), Error> {
        let all = self.ownerships()?;
        for (family, name, _) in all.iter().filter(|(.., of)| *of == Ownership::Orphan) {
            self.batch(|writer, sequence| {
                let (family, how) = (number(*family), NewTable::Adopt);
                object::new_table(writer, sequence.take(), family, name, true, how);
            })?;
        }
        Ok(())
    }

    fn ownership(&mut self, family: Family, name: &str) -> Result<Option<Ownership>, Error> {
        let all = self.ownerships()?;
        Ok(all.into_iter().find(|seen| (seen.0, seen.1) == (family, name)).map(|seen| seen.2))
    }

    /// The tables with our names, in the order of the families.
    fn ownerships(&mut self) -> Result<Vec<(Family, &'static str, Ownership)>, Error> {
        let port = self.port;
        let mut all = self.socket.dump(object::dump_tables, |message| {
            let table = TableMessage::read(message.payload)?;
            let family = FAMILIES.into_iter().find(|family| number(*family) == table.family);
            let name = NAMES.into_iter().find(|name| name.as_bytes() == table.name);
            let ownership = match table.owner {
                Some(owner) if owner == port => Ownership::Ours,
                Some(_) => Ownership::Foreign,
                None if table.persistent => Ownership::Orphan,
                None => Ownership::Open,
            };
            Ok(family.zip(name).map(|(family, name)| (family, name, ownership)))
        })?;
        all.sort_by_key(|(family, name, _)| (*family, *name));
        Ok(all)
    }

    fn batch(&mut self, build: impl FnOnce(&mut Writer, &mut Sequence)) -> Result<(), Error> {
        self.socket.request(1, |writer, sequence| {
            batch::begin(writer, sequence.take());
            build(writer, sequence);
            batch::end(writer, sequence.take());
        })
    }
}

fn foreign(table: &str) -> Error {
    let words = format!("the table {table} is owned by another program");
    Error::refused(libc::EPERM, words)
}

fn absent_is_done(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}
