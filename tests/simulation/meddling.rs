//! What others do to the kernel behind the daemon's back, and what the kernel tells of it.

use volnet::model::limits::Shaping;
use volnet::model::mac::Mac;
use volnet::model::request::NOBODY;
use volnet::network::execute::execute_all;
use volnet::network::fake::Fake;
use volnet::plan::news::{Culprit, News};
use volnet::plan::op::{Op, Switch};
use volnet::plan::reconcile::{Desired, Link, LinkKind, Observed, reconcile};
use volnet::plan::ruleset::Value;

use crate::world::docker_user;

/// Something that others do. A number picks among the links that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meddling {
    Delete(usize),
    Down(usize),
    Mtu(usize),
    Mac(usize),
    Alias(usize),
    Detach(usize),
    /// A port is isolated, or not. A bridge looks at who listens.
    Isolate(usize),
    /// Its bridge or port does with frames what it should not.
    Frames(usize),
    /// Its queueing discipline goes, or is another one.
    Shape(usize),
    Address(usize, u8),
    NoAddresses,
    NoForwarding,
    NoTable(usize),
    ChangedTable(usize),
    OpenTable(usize),
    NoElements,
    Element,
    NoAccepts,
    Accepts,
    Chain,
    /// Docker comes, or goes.
    NoChain,
}

impl Meddling {
    /// Does it. True if it was done to rules, of which the kernel says who did it.
    pub(crate) fn apply(self, kernel: &mut Fake) -> bool {
        let mut names: Vec<String> = links(kernel).map(|link| link.name.clone()).collect();
        // A link that was deleted and made anew is the same one to whoever goes for it again.
        names.sort();
        let pick = |number: usize| names[number % names.len()].clone();
        if names.is_empty() && self.picks() {
            return false;
        }
        let mut change = |number: usize, change: &dyn Fn(&mut Link)| {
            let link = kernel.link_mut(&pick(number));
            link.into_iter().for_each(change);
        };
        match self {
            Meddling::Delete(number) => kernel.delete_link(&pick(number)),
            Meddling::Down(number) => {
                change(number, &|link| link.up = false);
                let index = kernel.link(&pick(number)).map(|link| link.index);
                kernel.kernel.drop_routes(index.unwrap_or_default(), |_| true);
            }
            Meddling::Mtu(number) => change(number, &|link| link.mtu = 1280),
            Meddling::Mac(number) => change(number, &|link| link.mac = Mac([6; 6])),
            // The kernel tells taps without an alias from foreign ones by their index alone.
            Meddling::Alias(number) => change(number, &|link| {
                if link.kind != LinkKind::Bridge {
                    link.alias = Some("volnet:somebody".into());
                }
            }),
            Meddling::Detach(number) => change(number, &|link| link.leave()),
            Meddling::Isolate(number) => change(number, &|link| {
                link.snooping = link.kind == LinkKind::Bridge && !link.snooping;
                link.port.isolated = link.master.is_some() && !link.port.isolated;
            }),
            Meddling::Frames(number) => change(number, &|link| {
                link.port.hairpin = link.master.is_some() && !link.port.hairpin;
                let filtered = link.filtered.iter_mut();
                filtered.for_each(|filtered| filtered.ipv4 = !filtered.ipv4);
            }),
            Meddling::Shape(number) => change(number, &|link| {
                link.shaping = match link.shaping {
                    Some(_) => None,
                    None => Some(Shaping { rate: 1, burst_kb: 64, queue: 1 }),
                };
            }),
            Meddling::Address(number, host) => {
                let index = kernel.link(&pick(number)).map(|link| link.index);
                let address = (index.unwrap_or_default(), [10, 1, 0, host % 8].into(), 29);
                let addresses = &mut kernel.kernel.observed.addresses;
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            Meddling::NoAddresses => {
                kernel.kernel.observed.addresses.clear();
                kernel.kernel.observed.guest_routes.clear();
            }
            Meddling::NoForwarding => {
                let observed = &mut kernel.kernel.observed;
                observed.forwarding = false;
                observed.switches.insert(Switch::Forwarding, 0);
            }
            _ => return self.apply_to_rules(&mut kernel.kernel.observed),
        }
        false
    }

    fn apply_to_rules(self, observed: &mut Observed) -> bool {
        let count = observed.tables.len().max(1);
        let mut tables = observed.tables.iter_mut();
        match self {
            Meddling::NoTable(number) if tables.len() > 0 => {
                observed.tables.remove(number % count);
            }
            Meddling::ChangedTable(number) => {
                tables.nth(number % count).into_iter().for_each(|table| table.fingerprint = None);
            }
            Meddling::OpenTable(number) => {
                tables.nth(number % count).into_iter().for_each(|table| {
                    // Where tables cannot be owned, nobody can open them.
                    table.owned = table.owned.map(|_| false);
                });
            }
            Meddling::NoElements => {
                tables.flat_map(|table| &mut table.sets).for_each(|(_, keys)| keys.clear());
            }
            Meddling::Element => {
                let ports = tables.flat_map(|table| &mut table.sets);
                for (_, keys) in ports.filter(|(name, _)| name == "ports") {
                    let key = vec![Value::Link("vttap-foreign".into())];
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
            }
            Meddling::NoAccepts => observed.accepts.clear(),
            Meddling::Accepts => observed.accepts.extend_from_within(..),
            Meddling::Chain => observed.accept_chains = docker_user(),
            Meddling::NoChain => {
                observed.accept_chains.clear();
                observed.accepts.clear();
            }
            _ => {}
        }
        true
    }

    fn picks(self) -> bool {
        use Meddling::{Address, Alias, Delete, Detach, Down, Frames, Isolate, Mac, Mtu, Shape};
        matches!(
            self,
            Delete(_)
                | Down(_)
                | Mtu(_)
                | Mac(_)
                | Alias(_)
                | Detach(_)
                | Isolate(_)
                | Frames(_)
                | Shape(_)
                | Address(..)
        )
    }
}

/// Somebody puts right by hand what is not as the daemon wants it, but for taps: those only the
/// daemon makes. True if he changed rules.
pub(crate) fn put_right(desired: &Desired<'_>, kernel: &mut Fake) -> bool {
    let mut plan = reconcile(desired, &kernel.kernel.observed).plan;
    plan.retain(|op| !matches!(op, Op::CreateTap { .. }));
    let rules = |observed: &Observed| (observed.tables.clone(), observed.accepts.clone());
    let before = rules(&kernel.kernel.observed);
    // What needs a tap that is not there fails.
    let _ = execute_all(kernel, &plan, NOBODY);
    rules(&kernel.kernel.observed) != before
}

/// The links that are volnet's.
fn links(kernel: &Fake) -> impl Iterator<Item = &Link> {
    let ours = |link: &&Link| link.name.starts_with("vbr") || link.name.starts_with("vttap");
    kernel.kernel.observed.links.iter().filter(ours)
}

/// What the monitors of the kernel tell of what lies between two moments. `rules` says that
/// others changed rules in between: of what the daemon itself does to them nothing is told.
pub(crate) fn news(before: &Observed, after: &Observed, rules: bool) -> News {
    let mut news = News::default();
    for link in &after.links {
        let old = before.links.iter().find(|old| old.index == link.index);
        if old.is_some_and(|old| old.shaping != link.shaping) {
            news.shapings.insert(link.index, link.shaping);
        }
        // Of a link that is new, too, the kernel tells apart.
        let link = &Link { shaping: old.and_then(|old| old.shaping), ..link.clone() };
        match before.links.iter().find(|old| old.index == link.index) {
            Some(old) if old == link => {}
            Some(old) if *old == (Link { port: old.port, ..link.clone() }) => {
                news.ports.insert(link.index, (link.name.clone(), link.port));
            }
            Some(_) | None => {
                news.links.insert(link.index, (link.clone(), true));
            }
        }
    }
    let gone = |old: &&Link| !after.links.iter().any(|link| link.index == old.index);
    news.links
        .extend(before.links.iter().filter(gone).map(|old| (old.index, (old.clone(), false))));
    let of = |from: &Observed, other: &Observed, present| {
        let new = from.addresses.iter().filter(|address| !other.addresses.contains(address));
        new.map(|address| (*address, present)).collect::<Vec<_>>()
    };
    news.addresses.extend(of(before, after, false));
    news.addresses.extend(of(after, before, true));
    news.forwarding = (before.forwarding != after.forwarding).then_some(after.forwarding);
    let forwarding6 = |of: &Observed| of.switches.get(&Switch::Forwarding).copied();
    let turned = forwarding6(after).filter(|_| forwarding6(before) != forwarding6(after));
    news.forwarding6 = turned.map(|value| value == 1);
    news.rules = rules.then(|| Culprit { pid: 4711, name: "nft".into() });
    news
}
