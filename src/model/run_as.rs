//! The user of a VM's processes.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// The users that VMs have for themselves, if the settings name none. No program hands these
/// numbers out: they are above those of containers (524288 to 1879048191) and below those of files
/// of other hosts (2147352576 and more), see <https://systemd.io/UIDS-GIDS/>.
pub const UIDS_DEFAULT: RangeInclusive<u32> = 1_900_000_000..=1_900_065_535;

/// The word for [`RunAs::Shared`].
const SHARED: &str = "shared";
/// The word for [`RunAs::Own`].
const OWN: &str = "own";
/// The longest name of a user in bytes (useradd(8)).
const NAME_BYTES_MAX: usize = 32;

/// As whom the processes of a VM run, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RunAs {
    /// As the user of all hypervisors.
    Shared,
    /// As a user that no other VM has, from the range of the settings.
    Own,
    /// As this user, by name or number.
    User(String),
}

/// The user that a VM has instead of the one of all hypervisors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmUser {
    /// Its number.
    pub uid: u32,
    /// Its main group.
    pub gid: u32,
    /// Whether no other VM has it. Then the VM is given the disks that it writes to.
    pub own: bool,
}

impl VmUser {
    /// The user of a VM that has it alone. The group has the same number.
    pub fn own(uid: u32) -> VmUser {
        VmUser { uid, gid: uid, own: true }
    }
}

impl TryFrom<String> for RunAs {
    type Error = String;

    fn try_from(text: String) -> Result<RunAs, String> {
        text.parse()
    }
}

impl std::str::FromStr for RunAs {
    type Err = String;

    /// Reads `shared`, `own`, or the name or number of a user.
    fn from_str(text: &str) -> Result<RunAs, String> {
        let is_ok = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-$".contains(&byte);
        match text {
            SHARED => Ok(RunAs::Shared),
            OWN => Ok(RunAs::Own),
            "" => Err("it is empty".into()),
            name if name.len() > NAME_BYTES_MAX || !name.bytes().all(is_ok) => {
                Err(format!("{name:?} is neither {SHARED} nor {OWN}, nor a user"))
            }
            name => Ok(RunAs::User(name.into())),
        }
    }
}

impl From<RunAs> for String {
    fn from(run_as: RunAs) -> String {
        match run_as {
            RunAs::Shared => SHARED.into(),
            RunAs::Own => OWN.into(),
            RunAs::User(name) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_word() {
        assert_eq!("own".parse(), Ok(RunAs::Own));
        assert_eq!("shared".parse(), Ok(RunAs::Shared));
        assert_eq!("990".parse(), Ok(RunAs::User("990".into())));
        for wrong in ["", "a b", "a:b", "a/b", &"a".repeat(33)] {
            assert!(wrong.parse::<RunAs>().is_err(), "{wrong:?}");
        }
    }
}
