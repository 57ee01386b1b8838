//! The addresses of one network, and which one is leased next.
//!
//! A [`AddressPool`] is a bitmap of two levels: one bit per address, and above that one bit per
//! word, which says that the word is full. So a search reads few words however full the pool is.
//! The network, broadcast and host addresses are always excluded. A /24 takes 40 bytes. A /8 takes
//! 2 MiB and 32 KiB of zeroed address space, and memory is used only for pages with used addresses.
//!
//! Leases are next-fit: the search starts after the last lease. A released address *rests*: it is
//! leased only after all free ones, the longest rested first, because a switch, a neighbour cache
//! or a conntrack entry somewhere may still connect it with its former guest. The last
//! [`RESTING_MAX`] released addresses rest. Older ones are free like any other.
//!
//! The pool does not know the owner of a lease; the records do. After a restart it is rebuilt from
//! the records with [`AddressPool::lease_exactly`].

use std::collections::VecDeque;
use std::fmt;
use std::net::Ipv4Addr;

use crate::model::net::AddressRange;
use crate::model::prefix::Prefix;

/// The shortest prefix of a pool, that is the largest network.
pub const PREFIX_MIN: u8 = 8;
/// The longest prefix: it has four addresses, and one can be leased.
pub const PREFIX_MAX: u8 = 30;
/// How many released addresses rest.
pub const RESTING_MAX: usize = 64;

/// Bits in a word of the map.
const WORD: u32 = u64::BITS;

/// The addresses of one prefix.
#[derive(Clone, Debug)]
pub struct AddressPool {
    prefix: Prefix,
    host: Ipv4Addr,
    /// One bit per address: set if it is leased, resting, excluded, or after the prefix's end.
    words: Vec<u64>,
    /// One bit per word: set if all bits of the word are set, and after the last word.
    full: Vec<u64>,
    /// Released addresses by position, the longest rested first. Their bits are set.
    resting: VecDeque<u32>,
    /// Positions that are only leased to those who name them, from one to another.
    passed_over: Vec<(u32, u32)>,
    /// Where the next search starts.
    cursor: u32,
    leased: u32,
    /// How many of these are passed over.
    leased_aside: u32,
}

/// Why one address cannot be leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is not in the prefix.
    Outside,
    /// It is the prefix's first address, which names the network itself.
    Network,
    /// It is the prefix's last address.
    Broadcast,
    /// It is the host's own.
    Host,
    /// It is leased.
    Leased,
}

impl AddressPool {
    /// A pool for `prefix` without leases. `host` is the host's own address in it. The error says
    /// which of the two is not possible, and why.
    pub fn new(prefix: Prefix, host: Ipv4Addr) -> Result<AddressPool, String> {
        if !(PREFIX_MIN..=PREFIX_MAX).contains(&prefix.length()) {
            return Err(format!("{prefix} is not a /{PREFIX_MIN} to a /{PREFIX_MAX}"));
        }
        if !prefix.contains(host) || host == prefix.network() || host == prefix.broadcast() {
            return Err(format!("{host} is not an address that a host can have in {prefix}"));
        }
        let size = 1_u32 << (32 - prefix.length());
        let words = size.div_ceil(WORD) as usize;
        let mut pool = AddressPool {
            prefix,
            host,
            words: vec![0; words],
            full: vec![0; words.div_ceil(WORD as usize)],
            resting: VecDeque::new(),
            passed_over: Vec::new(),
            cursor: 0,
            leased: 0,
            leased_aside: 0,
        };
        close_tail(&mut pool.full, words as u32);
        close_tail(&mut pool.words, size);
        for address in [prefix.network(), prefix.broadcast(), host] {
            pool.set(pool.position(address));
        }
        Ok(pool)
    }

    /// The pool of a network without IPv4: every address is outside.
    pub fn empty() -> AddressPool {
        let none = Ipv4Addr::UNSPECIFIED;
        AddressPool {
            prefix: Prefix::containing(none, 32).expect("a length of 32"),
            host: none,
            words: Vec::new(),
            full: Vec::new(),
            resting: VecDeque::new(),
            passed_over: Vec::new(),
            cursor: 0,
            leased: 0,
            leased_aside: 0,
        }
    }

    /// The same pool, which chooses none of these addresses by itself. Those outside of the prefix
    /// do not matter.
    pub fn passing_over(mut self, addresses: &[AddressRange]) -> AddressPool {
        let (network, broadcast) = (self.prefix.network(), self.prefix.broadcast());
        let inside = addresses.iter().filter(|it| it.first <= broadcast && it.last >= network);
        let positions = inside.map(|it| {
            (self.position(it.first.max(network)), self.position(it.last.min(broadcast)))
        });
        self.passed_over = positions.collect();
        self.passed_over.sort_unstable();
        self
    }

    /// The address that [`AddressPool::lease`] would give, if these others were not free.
    pub fn peek(&self, others: &[Ipv4Addr]) -> Option<Ipv4Addr> {
        let chosen = |start| self.chosen_from(start, others);
        let clear = chosen(self.cursor).or_else(|| chosen(0));
        let free = |&at: &u32| !self.is_passed_over(at) && !others.contains(&self.address(at));
        let rested = || self.resting.iter().copied().find(free);
        clear.or_else(rested).map(|position| self.address(position))
    }

    /// The first clear position at or after `start` that is neither passed over nor among `others`.
    fn chosen_from(&self, mut start: u32, others: &[Ipv4Addr]) -> Option<u32> {
        loop {
            let clear = self.clear_from(start)?;
            start = self.behind(clear);
            if start == clear && !others.contains(&self.address(clear)) {
                return Some(clear);
            }
            start = start.max(clear + 1);
        }
    }

    /// The first position at or after this one that is not passed over.
    fn behind(&self, position: u32) -> u32 {
        let passed = self.passed_over.iter();
        passed.fold(
            position,
            |at, &(first, last)| {
                if (first..=last).contains(&at) { last + 1 } else { at }
            },
        )
    }

    fn is_passed_over(&self, position: u32) -> bool {
        self.behind(position) != position
    }

    /// Leases the next address, but none of these others. `None` if there is no such.
    pub fn lease(&mut self, others: &[Ipv4Addr]) -> Option<Ipv4Addr> {
        let address = self.peek(others)?;
        self.lease_exactly(address).ok()?;
        Some(address)
    }

    /// Leases this address. The next search starts after it. So a pool that is rebuilt from records
    /// in the order of their creation continues where it was.
    pub fn lease_exactly(&mut self, address: Ipv4Addr) -> Result<(), Why> {
        self.set_aside(address)?;
        self.cursor = self.position(address) + 1;
        Ok(())
    }

    /// Leases this address, and leaves alone where the next search starts.
    pub fn set_aside(&mut self, address: Ipv4Addr) -> Result<(), Why> {
        if let Some(why) = self.never_leased(address) {
            return Err(why);
        }
        let position = self.position(address);
        if self.is_set(position) {
            let resting = self.resting.iter().position(|&at| at == position);
            self.resting.remove(resting.ok_or(Why::Leased)?);
        }
        self.set(position);
        self.leased += 1;
        self.leased_aside += u32::from(self.is_passed_over(position));
        Ok(())
    }

    /// Releases an address. False if it was not leased.
    pub fn release(&mut self, address: Ipv4Addr) -> bool {
        if !self.is_leased(address) {
            return false;
        }
        if self.resting.len() == RESTING_MAX {
            if let Some(rested) = self.resting.pop_front() {
                self.clear(rested);
            }
        }
        let position = self.position(address);
        self.resting.push_back(position);
        self.leased -= 1;
        self.leased_aside -= u32::from(self.is_passed_over(position));
        true
    }

    /// Whether this address could be leased to somebody who does not insist on it.
    pub fn is_free(&self, address: Ipv4Addr) -> bool {
        self.never_leased(address).is_none()
            && !self.is_leased(address)
            && !self.is_passed_over(self.position(address))
    }

    /// Why this address cannot be leased now.
    pub fn why_not(&self, address: Ipv4Addr) -> Option<Why> {
        let leased = || self.is_leased(address).then_some(Why::Leased);
        self.never_leased(address).or_else(leased)
    }

    /// Whether this address is leased.
    pub fn is_leased(&self, address: Ipv4Addr) -> bool {
        self.never_leased(address).is_none() && {
            let position = self.position(address);
            self.is_set(position) && !self.resting.contains(&position)
        }
    }

    /// How many addresses are leased.
    pub fn leased(&self) -> u32 {
        self.leased
    }

    /// How many more can be leased, leaving out those that are passed over.
    pub fn free(&self) -> u32 {
        if self.words.is_empty() {
            return 0;
        }
        let mut passed = 0;
        let mut next = 1;
        let last = (1_u32 << (32 - self.prefix.length())) - 2;
        for &(first, until) in &self.passed_over {
            let (first, until) = (first.max(next), until.min(last));
            let host = self.position(self.host);
            passed += (until + 1).saturating_sub(first);
            passed -= u32::from((first..=until).contains(&host));
            next = next.max(until + 1);
        }
        (last - 1).saturating_sub(passed).saturating_sub(self.leased - self.leased_aside)
    }

    /// Why this pool can never hand out an address.
    fn never_leased(&self, address: Ipv4Addr) -> Option<Why> {
        if !self.prefix.contains(address) || self.words.is_empty() {
            Some(Why::Outside)
        } else if address == self.prefix.network() {
            Some(Why::Network)
        } else if address == self.prefix.broadcast() {
            Some(Why::Broadcast)
        } else if address == self.host {
            Some(Why::Host)
        } else {
            None
        }
    }

    /// The first clear position at or after `start`.
    fn clear_from(&self, start: u32) -> Option<u32> {
        let first = start / WORD;
        let word = self.words.get(first as usize)?;
        if let Some(position) = first_clear(*word, start % WORD) {
            return Some(first * WORD + position);
        }
        let open = self.open_word_from(first + 1)?;
        let position = first_clear(self.words[open as usize], 0)?;
        Some(open * WORD + position)
    }

    /// The first word at or after `start` that is not full.
    fn open_word_from(&self, start: u32) -> Option<u32> {
        let (mut at, mut skip) = (start / WORD, start % WORD);
        loop {
            let word = self.full.get(at as usize)?;
            if let Some(position) = first_clear(*word, skip) {
                return Some(at * WORD + position);
            }
            (at, skip) = (at + 1, 0);
        }
    }

    fn is_set(&self, position: u32) -> bool {
        self.words[(position / WORD) as usize] & bit(position) != 0
    }

    fn set(&mut self, position: u32) {
        let at = position / WORD;
        let word = &mut self.words[at as usize];
        *word |= bit(position);
        if *word == u64::MAX {
            self.full[(at / WORD) as usize] |= bit(at);
        }
    }

    fn clear(&mut self, position: u32) {
        let at = position / WORD;
        self.words[at as usize] &= !bit(position);
        self.full[(at / WORD) as usize] &= !bit(at);
    }

    fn position(&self, address: Ipv4Addr) -> u32 {
        address.to_bits() - self.prefix.network().to_bits()
    }

    fn address(&self, position: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.prefix.network().to_bits() + position)
    }
}

/// The mask of a position in its word.
fn bit(position: u32) -> u64 {
    1 << (position % WORD)
}

/// The lowest clear bit of a word at or above `from`, which is below [`WORD`].
fn first_clear(word: u64, from: u32) -> Option<u32> {
    let clear = !word & (u64::MAX << from);
    (clear != 0).then(|| clear.trailing_zeros())
}

/// Sets the bits of the last word after the first `size` bits of a map.
fn close_tail(map: &mut [u64], size: u32) {
    let used = size % WORD;
    if let Some(last) = map.last_mut().filter(|_| used != 0) {
        *last |= u64::MAX << used;
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Why::Outside => "it is not in the network's prefix",
            Why::Network => "it is the network address",
            Why::Broadcast => "it is the broadcast address",
            Why::Host => "it is the host's own address",
            Why::Leased => "it is leased",
        })
    }
}

#[cfg(test)]
mod tests;
