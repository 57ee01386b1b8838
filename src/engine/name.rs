//! Names that are safe to hand to a file system and to the kernel.
//!
//! A [`VmName`] is checked where data enters and from then on is a file name, a host name and a
//! part of an interface alias without another look. A [`TapName`] fits `IFNAMSIZ`; the kernel cuts
//! longer ones without a word and so hits another link.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Refusal;

/// The longest VM name in bytes: what one label of a host name may have (RFC 1035, 2.3.4).
pub const VM_NAME_MAX: usize = 63;
/// The longest link name in bytes: `IFNAMSIZ` less the terminator (linux/if.h).
pub const LINK_NAME_MAX: usize = 15;
/// What every tap of ours begins with.
pub const TAP_PREFIX: &str = "vttap-";

/// The name of a VM: 1 to 63 of `[A-Za-z0-9._-]`, the first a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(Box<str>);

/// The name of a tap: `vttap-` and 1 to 9 of `[a-z0-9]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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
    /// Chooses the tap of a VM: its name where that fits and is plain; else three readable
    /// characters and six hexadecimal digits of a hash of the full name, the next hash as long as
    /// `taken` says so.
    pub fn choose(vm: &VmName, taken: impl Fn(&TapName) -> bool) -> TapName {
        let name = vm.as_str();
        let room = LINK_NAME_MAX - TAP_PREFIX.len();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if name.len() <= room && name.bytes().all(plain) {
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

/// Checks the name of a link that people choose, such as a bridge's.
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

impl From<VmName> for String {
    fn from(name: VmName) -> Self {
        name.0.into()
    }
}

impl TryFrom<String> for TapName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        check_link_name(&name)?;
        match name.strip_prefix(TAP_PREFIX) {
            Some(rest) if !rest.is_empty() => Ok(TapName(name.into())),
            _ => Err(format!("{name:?} is not a tap of volnet")),
        }
    }
}

impl From<TapName> for String {
    fn from(name: TapName) -> Self {
        name.0.into()
    }
}
