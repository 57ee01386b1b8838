//! Names that are safe for a file system and for the kernel.
//!
//! A [`VmName`] is checked where data enters. After that it is used as a file name, a host name and
//! a part of a link's alias without another check. A [`TapName`] fits `IFNAMSIZ`: the kernel
//! silently cuts a longer name and so hits another link.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::nic::NicName;
use crate::model::error::Refusal;

/// The longest VM name in bytes: the longest label of a host name (RFC 1035, 2.3.4).
pub const VM_NAME_MAX: usize = 63;
/// The longest link name in bytes: `IFNAMSIZ` less the terminator (linux/if.h).
pub const LINK_NAME_MAX: usize = 15;
/// The prefix of the names of our taps.
pub const TAP_PREFIX: &str = "vttap-";

/// The name of a VM: 1 to 63 of `[A-Za-z0-9._-]`. The first is a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct VmName(Box<str>);

/// The name of a tap: `vttap-` and 1 to 9 of `[a-z0-9]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct TapName(Box<str>);

impl VmName {
    /// Checks a name.
    pub fn new(name: &str) -> Result<VmName, Refusal> {
        let refuse = |reason: &str| {
            let name: String = name.chars().take(VM_NAME_MAX + 1).collect();
            Err(Refusal::InvalidName { name, reason: reason.into() })
        };
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        match name.as_bytes() {
            [] => refuse("it is empty"),
            bytes if bytes.len() > VM_NAME_MAX => refuse("it is longer than 63 bytes"),
            [first, ..] if !first.is_ascii_alphanumeric() => {
                refuse("it must begin with a letter or a digit")
            }
            bytes if !bytes.iter().copied().all(legal) => {
                refuse("it may hold only letters, digits, '.', '_' and '-'")
            }
            _ => Ok(VmName(name.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TapName {
    /// Chooses the tap of an interface: its name where that fits and is plain; else three readable
    /// characters and six hexadecimal digits of a hash of the full name, the next hash as long as
    /// `taken` says so.
    pub fn choose(nic: NicName<'_>, taken: impl Fn(&TapName) -> bool) -> TapName {
        let name = &*nic.to_string();
        if fits_behind_prefix(name) {
            let tap = TapName(format!("{TAP_PREFIX}{name}").into());
            if !taken(&tap) {
                return tap;
            }
        }
        let readable: String = name
            .bytes()
            .filter(u8::is_ascii_alphanumeric)
            .map(|b| char::from(b.to_ascii_lowercase()))
            .take(3)
            .collect();
        let mut round = 0_u32;
        loop {
            let digest =
                Sha256::new().chain_update(round.to_be_bytes()).chain_update(name).finalize();
            let tap = format!(
                "{TAP_PREFIX}{readable}{:02x}{:02x}{:02x}",
                digest[0], digest[1], digest[2]
            );
            let tap = TapName(tap.into());
            if !taken(&tap) {
                return tap;
            }
            round += 1;
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether this is 1 to 9 of `[a-z0-9]`, the VM's part of a tap's name.
fn fits_behind_prefix(rest: &str) -> bool {
    let room = LINK_NAME_MAX - TAP_PREFIX.len();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=room).contains(&rest.len()) && rest.bytes().all(plain)
}

/// Checks a link name from the settings, such as a bridge's.
pub fn check_link_name(name: &str) -> Result<(), String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > LINK_NAME_MAX {
        return Err(format!("{name:?} is not 1 to {LINK_NAME_MAX} bytes long"));
    }
    if name == "." || name == ".." || !name.bytes().all(legal) {
        return Err(format!("{name:?} may hold only letters, digits, '.', '_' and '-'"));
    }
    Ok(())
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for VmName {
    type Error = Refusal;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        VmName::new(&name)
    }
}

impl Serialize for VmName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Borrow<str> for TapName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TapName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.strip_prefix(TAP_PREFIX) {
            Some(rest) if fits_behind_prefix(rest) => Ok(TapName(name.into())),
            Some(_) | None => Err(format!("{name:?} is not a tap of volnet")),
        }
    }
}

impl Serialize for TapName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(vm: &VmName) -> NicName<'_> {
        NicName { vm, index: 0 }
    }

    fn tap(name: &str) -> TapName {
        TapName::choose(first(&VmName::new(name).unwrap()), |_| false)
    }

    #[test]
    fn names_that_look_alike_have_taps_of_their_own() {
        let long = "a".repeat(59);
        let names = ["web-1", "web1", "WEB_1", &format!("{long}b"), &format!("{long}c")];
        let mut taken: Vec<TapName> = Vec::new();
        for name in names {
            let tap =
                TapName::choose(first(&VmName::new(name).unwrap()), |tap| taken.contains(tap));
            assert!(!taken.contains(&tap) && tap == super::tests::tap(name), "without probing");
            assert!(tap.as_str().len() <= LINK_NAME_MAX && tap.as_str().starts_with(TAP_PREFIX));
            taken.push(tap);
        }
    }

    #[test]
    fn a_plain_short_name_is_kept_and_the_choice_is_stable() {
        for (name, expected) in [
            ("web1", "vttap-web1"),
            ("123456789", "vttap-123456789"),
            ("1234567890", "vttap-123c61eca"),
            ("web-1", "vttap-web117c87"),
            ("x", "vttap-x"),
        ] {
            assert_eq!(tap(name).as_str(), expected);
        }
    }

    #[test]
    fn probes_on_while_names_are_taken() {
        let vm = VmName::new("web1").unwrap();
        let mut taken = Vec::new();
        for _ in 0..100 {
            let tap = TapName::choose(first(&vm), |tap| taken.contains(tap));
            assert!(!taken.contains(&tap) && TapName::try_from(tap.to_string()).is_ok());
            taken.push(tap);
        }
    }

    #[test]
    fn refuses_vm_names_that_are_no_file_or_host_name() {
        let (longest, longer) = ("a".repeat(63), "a".repeat(64));
        for name in ["a", "0", "A.b_c-D", "v1.2", &longest] {
            assert_eq!(VmName::new(name).unwrap().as_str(), name);
        }
        let bad = [
            ("", "it is empty"),
            (&longer, "it is longer than 63 bytes"),
            (".", "it must begin with a letter or a digit"),
            ("..", "it must begin with a letter or a digit"),
            ("../x", "it must begin with a letter or a digit"),
            ("-x", "it must begin with a letter or a digit"),
            ("_x", "it must begin with a letter or a digit"),
            (" x", "it must begin with a letter or a digit"),
            ("a/b", "it may hold only letters, digits, '.', '_' and '-'"),
            ("a b", "it may hold only letters, digits, '.', '_' and '-'"),
            ("a\n", "it may hold only letters, digits, '.', '_' and '-'"),
            ("a\0", "it may hold only letters, digits, '.', '_' and '-'"),
            ("vm%d", "it may hold only letters, digits, '.', '_' and '-'"),
            ("aé", "it may hold only letters, digits, '.', '_' and '-'"),
        ];
        for (name, expected) in bad {
            let Err(Refusal::InvalidName { name: shown, reason }) = VmName::new(name) else {
                panic!("{name:?}")
            };
            assert_eq!((shown.as_str(), reason.as_str()), (name, expected));
        }
    }

    #[test]
    fn a_refused_name_is_shown_cut() {
        let Err(Refusal::InvalidName { name, .. }) = VmName::new(&"é".repeat(1000)) else {
            panic!()
        };
        assert_eq!(name.chars().count(), VM_NAME_MAX + 1);
    }

    #[test]
    fn reads_back_only_taps_of_ours() {
        assert!(TapName::try_from("vttap-web1".to_string()).is_ok());
        for name in ["vttap-", "tap0", "vttap-0123456789", "vttap-a/b", "vttap-A", ""] {
            assert!(TapName::try_from(name.to_string()).is_err(), "{name}");
        }
    }

    #[test]
    fn link_names_are_what_the_kernel_takes_as_they_are() {
        for name in ["vbr0", "br-lan.1", "a_b", "123456789012345"] {
            assert_eq!(check_link_name(name), Ok(()));
        }
        for name in ["", ".", "..", "1234567890123456", "a/b", "a b", "vm%d", "a:b", "é"] {
            assert!(check_link_name(name).is_err(), "{name}");
        }
    }
}
