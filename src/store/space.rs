//! How much room a file system has.
//!
//! The records need little room, but they need it at once: a create that finds none fails. So
//! whatever else volnet writes (the logs of VMs) leaves a reserve, and `check` says so before the
//! reserve is used up.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::statvfs::{Statvfs, fstatvfs, statvfs};

/// The most room that is left free, in bytes.
const RESERVE_MAX: u64 = 64 << 20;
/// The part of a small file system that is left free.
const RESERVE_PART: u64 = 16;
/// The fewest inodes that are left free.
const INODES_MIN: u64 = 1024;

/// The room of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that everybody can use.
    pub available: u64,
    /// Its size in bytes.
    pub total: u64,
    /// Whether it has a number of inodes, and few of them are free.
    pub lacks_inodes: bool,
}

impl Space {
    /// The room of the file system that a file is on.
    pub fn of_file(file: impl AsFd) -> io::Result<Space> {
        Ok(Space::new(&fstatvfs(file)?))
    }

    /// The room of the file system that a path is on.
    pub fn of_path(path: &Path) -> io::Result<Space> {
        Ok(Space::new(&statvfs(path)?))
    }

    // The numbers of a statvfs have the size of the machine's words.
    #[allow(clippy::useless_conversion)]
    fn new(found: &Statvfs) -> Space {
        let unit = u64::from(found.fragment_size());
        let bytes = |blocks| u64::from(blocks).saturating_mul(unit);
        let (inodes, free) = (u64::from(found.files()), u64::from(found.files_available()));
        Space {
            available: bytes(found.blocks_available()),
            total: bytes(found.blocks()),
            lacks_inodes: inodes > 0 && free < INODES_MIN.min(inodes / RESERVE_PART),
        }
    }

    /// The room that logs leave free, in bytes.
    pub fn reserve(self) -> u64 {
        RESERVE_MAX.min(self.total / RESERVE_PART)
    }

    /// Whether `more` bytes can be written and the reserve stays.
    pub fn has_room_for(self, more: u64) -> bool {
        self.available >= self.reserve().saturating_add(more)
    }

    /// Whether it is nearly full.
    pub fn is_short(self) -> bool {
        !self.has_room_for(self.reserve() / 2) || self.lacks_inodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_system_has_a_small_reserve() {
        let space = |available, total| Space { available, total, lacks_inodes: false };
        assert_eq!(space(0, 48 << 20).reserve(), 3 << 20);
        assert_eq!(space(0, 1 << 40).reserve(), RESERVE_MAX);
        assert!(space(4 << 20, 48 << 20).has_room_for(1 << 20));
        assert!(!space(4 << 20, 48 << 20).has_room_for((1 << 20) + 1));
        assert!(space(4 << 20, 48 << 20).is_short() && !space(5 << 20, 48 << 20).is_short());
        assert!(Space { lacks_inodes: true, ..space(1 << 39, 1 << 40) }.is_short());
    }

    #[test]
    fn a_real_file_system_has_some() {
        let here = Space::of_path(Path::new("/")).unwrap();
        assert!(here.total > 0 && here.available <= here.total);
    }
}
