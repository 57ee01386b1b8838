//! Noise: arbitrary bytes, and golden bytes that are changed, cut or repeated.

use proptest::prelude::*;
use volnet::netlink::attr::Attrs;
use volnet::netlink::fuzz;
use volnet::netlink::message::Messages;

use crate::golden;

/// One change to a datagram. Places are fractions of its length, in 65536ths.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Set a byte.
    Set(u16, u8),
    /// Set the 16-bit word that begins at a multiple of four, where lengths are.
    SetLength(u16, u16),
    /// Drop everything after this place.
    Cut(u16),
    /// Say it all twice.
    Repeat,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<u16>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        4 => (any::<u16>(), any::<u16>()).prop_map(|(at, word)| Damage::SetLength(at, word)),
        4 => (any::<u16>(), 0_u16..64).prop_map(|(at, word)| Damage::SetLength(at, word)),
        1 => any::<u16>().prop_map(Damage::Cut),
        1 => Just(Damage::Repeat),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: Damage) {
    let place = |at: u16| usize::from(at) * bytes.len() / 65536;
    match damage {
        Damage::Set(at, byte) => {
            let place = place(at);
            if let Some(slot) = bytes.get_mut(place) {
                *slot = byte;
            }
        }
        Damage::SetLength(at, word) => {
            let place = place(at) & !3;
            if let Some(slot) = bytes.get_mut(place..place + 2) {
                slot.copy_from_slice(&word.to_ne_bytes());
            }
        }
        Damage::Cut(at) => bytes.truncate(place(at)),
        Damage::Repeat => bytes.extend_from_within(..),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        fuzz::datagram(&bytes);
        // Each turn takes at least a header, and an error is the last turn.
        prop_assert!(Messages::new(&bytes).count() <= bytes.len() / 16 + 1);
        prop_assert!(Attrs::new(&bytes).count() <= bytes.len() / 4 + 1);
        let errors = Attrs::new(&bytes).position(|attr| attr.is_err());
        prop_assert!(errors.is_none_or(|at| at + 1 == Attrs::new(&bytes).count()));
    }

    #[test]
    fn damaged_datagrams_do_no_harm(
        pick in any::<prop::sample::Index>(),
        damages in proptest::collection::vec(damage(), 1..8),
    ) {
        let goldens = golden::datagrams();
        let mut bytes = goldens[pick.index(goldens.len())].clone();
        for damage in damages {
            apply(&mut bytes, damage);
        }
        fuzz::datagram(&bytes);
    }
}

#[test]
fn whole_datagrams_do_no_harm() {
    for bytes in golden::datagrams() {
        fuzz::datagram(bytes);
    }
}
