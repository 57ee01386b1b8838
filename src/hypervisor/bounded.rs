//! A log of bounded size, of which the newest part is kept.
//!
//! When the log would grow beyond its bound, its newer half moves to the front of the file, and the
//! rest is cut off. The file stays the same, so nobody needs the right to make or rename another
//! one, and the log of a VM that was deleted does not come back. Its first line then says how much
//! is gone ([`dropped`]), for people and for those who follow the log.
//!
//! If the file system is nearly full, the log does not grow: its bound is then the size that it
//! has. Other files may still grow, so at the end only little of each log is left.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The size that is left to a log on a full disk, in bytes.
const FLOOR: u64 = 64 << 10;
/// How much is moved at a time, in bytes.
const CHUNK: usize = 16 << 10;
/// How far to look for the end of a line, in bytes.
const LINE_MAX: usize = 4 << 10;

/// The words around the number of bytes that are gone.
const BEFORE: &str = "--- volnet dropped ";
const AFTER: &str = " bytes before this line\n";
/// Digits of the largest number of bytes.
const DIGITS: usize = 20;
/// The length of the first line of a log of which something is gone, in bytes.
pub const DROPPED_BYTES: usize = BEFORE.len() + DIGITS + AFTER.len();

/// How many bytes are gone from a log, as its beginning says: at least the first
/// [`DROPPED_BYTES`] of it. `None` if it is whole.
pub fn dropped(beginning: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(beginning.get(..DROPPED_BYTES)?).ok()?;
    line.strip_prefix(BEFORE)?.strip_suffix(AFTER)?.parse().ok()
}

fn line(dropped: u64) -> String {
    format!("{BEFORE}{dropped:020}{AFTER}")
}

/// A log that is open for reading and writing, and not for appending.
#[derive(Debug)]
pub struct BoundedLog {
    file: File,
    bound: u64,
}

impl BoundedLog {
    /// A log that may have so many bytes.
    pub fn new(file: File, bound: u64) -> BoundedLog {
        BoundedLog { file, bound: bound.max(FLOOR) }
    }

    /// Appends to the log. `has_room` says whether so many bytes more may be written. What finds no
    /// room is dropped, and so is what an error hits.
    pub fn append(&self, bytes: &[u8], has_room: impl Fn(&File, u64) -> bool) -> io::Result<()> {
        let more = bytes.len() as u64;
        let mut size = self.file.metadata()?.len();
        let bound = match has_room(&self.file, more) {
            true => self.bound,
            false => self.bound.min(size).max(FLOOR),
        };
        if size + more > bound {
            size = self.shrink(size, bound / 2)?;
        }
        match self.file.write_all_at(bytes, size) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // Others were faster. A part may have been written.
                let size = self.file.metadata()?.len();
                self.shrink(size, size.min(bound) / 2)?;
                Err(error)
            }
            written => written,
        }
    }

    /// Keeps the newest bytes, `most` of them. Gives the new size.
    fn shrink(&self, size: u64, most: u64) -> io::Result<u64> {
        let from = size.saturating_sub(most);
        let former = self.former()?;
        let header = if former.is_some() { DROPPED_BYTES as u64 } else { 0 };
        if from <= DROPPED_BYTES as u64 {
            return Ok(size);
        }
        let from = self.next_line(from, size)?;
        // On a full disk the first words of a log may be those of a guest, who can write anything.
        let gone = former.unwrap_or_default().saturating_add(from - header);
        self.file.write_all_at(line(gone).as_bytes(), 0)?;
        let mut to = DROPPED_BYTES as u64;
        let mut at = from;
        let mut chunk = [0; CHUNK];
        while at < size {
            let length = self.file.read_at(&mut chunk, at)?;
            if length == 0 {
                break;
            }
            self.file.write_all_at(&chunk[..length], to)?;
            (at, to) = (at + length as u64, to + length as u64);
        }
        self.file.set_len(to)?;
        Ok(to)
    }

    /// How much was gone before.
    fn former(&self) -> io::Result<Option<u64>> {
        let mut beginning = [0; DROPPED_BYTES];
        let length = self.file.read_at(&mut beginning, 0)?;
        Ok(dropped(&beginning[..length]))
    }

    /// The place behind the next end of a line, if there is one near.
    fn next_line(&self, from: u64, size: u64) -> io::Result<u64> {
        let mut bytes = [0; LINE_MAX];
        let length = self.file.read_at(&mut bytes, from)?;
        let end = bytes[..length].iter().position(|byte| *byte == b'\n');
        Ok(end.map_or(from, |end| from + end as u64 + 1).min(size))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::store::tests::Scratch;

    const ROOM: fn(&File, u64) -> bool = |_, _| true;
    const FULL: fn(&File, u64) -> bool = |_, _| false;

    fn log(scratch: &Scratch, bound: u64) -> BoundedLog {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false);
        BoundedLog::new(file.open(scratch.path().join("log")).unwrap(), bound)
    }

    fn contents(scratch: &Scratch) -> Vec<u8> {
        fs::read(scratch.path().join("log")).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is written in whatever pieces, the log is the end of it, and says how much is
        /// gone.
        #[test]
        fn the_newest_is_kept(
            pieces in prop::collection::vec((1_usize..20_000, 1_usize..200), 1..60),
            full in prop::collection::vec(any::<bool>(), 60),
        ) {
            let scratch = Scratch::new();
            let bound = 2 * FLOOR;
            let log = log(&scratch, bound);
            let mut all: Vec<u8> = Vec::new();
            for (n, (length, line)) in pieces.into_iter().enumerate() {
                let piece: Vec<u8> = (0..length)
                    .map(|at| if at % line == 0 { b'\n' } else { b'a' + (n % 26) as u8 })
                    .collect();
                all.extend(&piece);
                let room = if full[n] { FULL } else { ROOM };
                log.append(&piece, room).unwrap();
                let found = contents(&scratch);
                prop_assert!(found.len() as u64 <= bound);
                let (gone, rest) = match dropped(&found) {
                    Some(gone) => (gone, &found[DROPPED_BYTES..]),
                    None => (0, &found[..]),
                };
                prop_assert_eq!(gone as usize + rest.len(), all.len());
                prop_assert!(rest == &all[gone as usize..]);
                prop_assert!(all.len() < bound as usize / 4 || rest.len() >= FLOOR as usize / 4);
                prop_assert!(gone == 0 || rest[0] == b'\n' || all[gone as usize - 1] == b'\n');
            }
        }
    }

    #[test]
    fn a_log_that_is_too_long_already_is_cut() {
        let scratch = Scratch::new();
        fs::write(scratch.path().join("log"), vec![b'x'; 1 << 20]).unwrap();
        log(&scratch, FLOOR).append(b"new\n", ROOM).unwrap();
        let found = contents(&scratch);
        assert!(found.len() as u64 <= FLOOR && found.ends_with(b"xnew\n"));
        assert!(dropped(&found).is_some_and(|gone| gone > 900_000));
    }

    #[test]
    fn on_a_full_disk_a_log_does_not_grow() {
        let scratch = Scratch::new();
        let log = log(&scratch, 1 << 20);
        for _ in 0..3 * FLOOR / 1000 {
            log.append(&[b'a'; 1000], ROOM).unwrap();
        }
        let before = contents(&scratch).len();
        for _ in 0..1000 {
            log.append(&[b'b'; 1000], FULL).unwrap();
            assert!(contents(&scratch).len() <= before);
        }
        assert!(contents(&scratch).ends_with(b"bbb"));
    }

    #[test]
    fn a_guest_that_says_how_much_is_gone_does_no_harm() {
        let scratch = Scratch::new();
        let log = log(&scratch, FLOOR);
        log.append(line(u64::MAX).as_bytes(), ROOM).unwrap();
        for _ in 0..3 {
            log.append(&vec![b'x'; FLOOR as usize / 2], ROOM).unwrap();
        }
        assert_eq!(dropped(&contents(&scratch)), Some(u64::MAX));
    }

    #[test]
    fn what_is_not_our_line_says_nothing() {
        assert_eq!(dropped(line(7).as_bytes()), Some(7));
        assert_eq!(dropped(line(u64::MAX).as_bytes()), Some(u64::MAX));
        for other in ["", "--- volnet dropped 7 bytes before this line\n", "--- volnet starts qemu"]
        {
            assert_eq!(dropped(other.as_bytes()), None);
        }
    }
}
