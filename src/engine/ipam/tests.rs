use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn pool(prefix: &str, host: &str) -> AddressPool {
    AddressPool::new(prefix.parse().unwrap(), host.parse().unwrap()).unwrap()
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

#[test]
fn the_smallest_prefix_has_one_address() {
    let mut pool = pool("10.0.0.4/30", "10.0.0.5");
    assert_eq!((pool.leased(), pool.free()), (0, 1));
    assert_eq!(pool.lease(&[]), Some(ip("10.0.0.6")));
    assert_eq!(pool.lease(&[]), None);
    assert!(pool.release(ip("10.0.0.6")) && !pool.release(ip("10.0.0.6")));
    assert_eq!(pool.lease(&[]), Some(ip("10.0.0.6")));
    assert_eq!((pool.leased(), pool.free()), (1, 0));
}

#[test]
fn a_network_without_ipv4_has_none() {
    let mut pool = AddressPool::empty();
    assert_eq!((pool.leased(), pool.free(), pool.lease(&[])), (0, 0, None));
    for address in ["0.0.0.0", "10.0.0.1", "255.255.255.255"].map(ip) {
        assert_eq!(pool.lease_exactly(address), Err(Why::Outside));
        assert!(!pool.release(address) && !pool.is_free(address) && !pool.is_leased(address));
        assert_eq!(pool.why_not(address), Some(Why::Outside));
    }
}

#[test]
fn the_largest_prefix_hands_out_every_address_once() {
    let mut pool = pool("10.0.0.0/8", "10.0.0.1");
    let all = (1_u32 << 24) - 3;
    assert_eq!(pool.free(), all);
    for n in 0..all {
        assert_eq!(pool.lease(&[]).unwrap().to_bits(), 0x0a00_0002 + n);
    }
    assert_eq!((pool.lease(&[]), pool.free()), (None, 0));
    assert!(pool.release(ip("10.255.255.254")));
    assert_eq!(pool.lease(&[]), Some(ip("10.255.255.254")));
}

#[test]
fn says_why_an_address_cannot_be_had() {
    let mut pool = pool("192.168.127.0/24", "192.168.127.1");
    assert_eq!(pool.lease_exactly(ip("192.168.127.9")), Ok(()));
    for (address, why) in [
        ("192.168.126.9", Why::Outside),
        ("192.168.127.0", Why::Network),
        ("192.168.127.255", Why::Broadcast),
        ("192.168.127.1", Why::Host),
        ("192.168.127.9", Why::Leased),
    ] {
        assert_eq!(pool.lease_exactly(ip(address)), Err(why));
        assert_eq!(pool.is_leased(ip(address)), why == Why::Leased);
        assert_eq!(pool.release(ip(address)), why == Why::Leased);
    }
    assert_eq!(pool.lease_exactly(ip("192.168.127.9")), Ok(()), "a resting one can be named");
}

#[test]
fn refuses_prefixes_and_hosts_that_cannot_be() {
    for (prefix, host) in [
        ("10.0.0.0/31", "10.0.0.1"),
        ("10.0.0.0/7", "10.0.0.1"),
        ("10.0.0.0/24", "10.0.1.1"),
        ("10.0.0.0/24", "10.0.0.0"),
        ("10.0.0.0/24", "10.0.0.255"),
    ] {
        let prefix = prefix.parse().unwrap();
        assert!(AddressPool::new(prefix, ip(host)).is_err(), "{prefix} {host}");
    }
}

#[test]
fn releases_rest_in_order_behind_what_is_free() {
    let mut pool = pool("10.0.0.0/28", "10.0.0.1");
    let all: Vec<_> = std::iter::from_fn(|| pool.lease(&[])).collect();
    assert_eq!(all.len(), 13);
    for n in [7, 3, 12] {
        pool.release(all[n]);
    }
    let again: Vec<_> = std::iter::from_fn(|| pool.lease(&[])).collect();
    assert_eq!(again, [all[7], all[3], all[12]]);
}

/// What a pool is, said plainly.
struct Model {
    free: BTreeSet<u32>,
    resting: Vec<u32>,
    leased: BTreeSet<u32>,
    cursor: u32,
}

impl Model {
    fn lease(&mut self) -> Option<u32> {
        let next = self.free.range(self.cursor..).next().or(self.free.first()).copied();
        let next = next.or((!self.resting.is_empty()).then(|| self.resting[0]))?;
        self.give(next);
        Some(next)
    }

    fn give(&mut self, address: u32) {
        self.free.remove(&address);
        self.resting.retain(|&resting| resting != address);
        self.leased.insert(address);
        self.cursor = address + 1;
    }

    fn release(&mut self, address: u32) -> bool {
        let held = self.leased.remove(&address);
        if held {
            self.resting.push(address);
        }
        if self.resting.len() > RESTING_MAX {
            self.free.insert(self.resting.remove(0));
        }
        held
    }
}

#[derive(Clone, Debug)]
enum Act {
    Lease,
    LeaseExactly(u32),
    Release(u32),
    ReleaseOldest,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => Just(Act::Lease),
        1 => (0_u32..1100).prop_map(Act::LeaseExactly),
        2 => (0_u32..1100).prop_map(Act::Release),
        2 => Just(Act::ReleaseOldest),
    ];
    prop::collection::vec(act, 0..600)
}

/// Addresses by their last byte.
fn range(first: u8, last: u8) -> AddressRange {
    let at = |last: u8| Ipv4Addr::new(10, 1, 0, last);
    AddressRange { first: at(first), last: at(last) }
}

#[test]
fn addresses_that_are_passed_over_go_to_those_who_name_them() {
    let pool = AddressPool::new("10.1.0.0/24".parse().unwrap(), ip("10.1.0.1")).unwrap();
    let far = AddressRange { first: ip("10.2.0.0"), last: ip("10.2.0.9") };
    // All but 10 to 15 and 13, and some twice.
    let passed = [range(0, 9), range(16, 255), range(13, 13), range(100, 200), far];
    let mut pool = pool.passing_over(&passed);
    assert_eq!(pool.free(), 5);
    assert!(!pool.is_free(ip("10.1.0.13")) && pool.is_free(ip("10.1.0.15")));
    let mut given: Vec<Ipv4Addr> = std::iter::from_fn(|| pool.lease(&[])).collect();
    given.sort();
    assert_eq!(given, [10, 11, 12, 14, 15].map(|last| Ipv4Addr::new(10, 1, 0, last)));
    assert_eq!(pool.free(), 0);
    pool.lease_exactly(ip("10.1.0.200")).unwrap();
    assert!(pool.release(ip("10.1.0.200")));
    assert_eq!(pool.lease(&[]), None, "nor is it chosen when it has rested");
    assert!(pool.release(ip("10.1.0.11")));
    assert_eq!(pool.lease(&[]), Some(ip("10.1.0.11")));
}

proptest! {
    #[test]
    fn agrees_with_a_plain_set(acts in acts(), length in 22_u8..=30, host in 1_u32..=2) {
        let base = ip("10.1.0.0").to_bits();
        let size = 1_u32 << (32 - length);
        let prefix = Prefix::containing(Ipv4Addr::from_bits(base), length).unwrap();
        let mut pool = AddressPool::new(prefix, Ipv4Addr::from_bits(base + host)).unwrap();
        let free = (base + 1..base + size - 1).filter(|&at| at != base + host).collect();
        let mut model =
            Model { free, resting: vec![], leased: BTreeSet::new(), cursor: base };
        let capacity = model.free.len();
        for act in acts {
            match act {
                Act::Lease => {
                    prop_assert_eq!(pool.lease(&[]).map(Ipv4Addr::to_bits), model.lease());
                }
                Act::LeaseExactly(n) => {
                    let possible = model.free.contains(&(base + n))
                        || model.resting.contains(&(base + n));
                    let given = pool.lease_exactly(Ipv4Addr::from_bits(base + n));
                    prop_assert_eq!(given.is_ok(), possible);
                    if possible {
                        model.give(base + n);
                    }
                }
                Act::Release(n) => {
                    let released = pool.release(Ipv4Addr::from_bits(base + n));
                    prop_assert_eq!(released, model.release(base + n));
                }
                Act::ReleaseOldest => {
                    if let Some(&address) = model.leased.first() {
                        prop_assert!(pool.release(Ipv4Addr::from_bits(address)));
                        model.release(address);
                    }
                }
            }
            prop_assert_eq!(pool.leased() as usize, model.leased.len());
            prop_assert_eq!(pool.free() as usize, capacity - model.leased.len());
        }
        for at in base..base + size {
            let leased = pool.is_leased(Ipv4Addr::from_bits(at));
            prop_assert_eq!(leased, model.leased.contains(&at));
        }
    }

    #[test]
    fn what_was_released_last_is_given_out_last(
        length in 22_u8..=30, leased in 1_usize..300, released in any::<prop::sample::Index>()
    ) {
        let base = ip("10.1.0.0");
        let prefix = Prefix::containing(base, length).unwrap();
        let mut pool = AddressPool::new(prefix, Ipv4Addr::from_bits(base.to_bits() + 1)).unwrap();
        let given: Vec<_> = (0..leased).map_while(|_| pool.lease(&[])).collect();
        let address = *released.get(&given);
        pool.release(address);
        let rest: Vec<_> = std::iter::from_fn(|| pool.lease(&[])).collect();
        prop_assert_eq!(rest.last(), Some(&address));
    }
}
