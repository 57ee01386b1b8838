//! Writes a small FAT12 file system with some files in its root directory.
//!
//! Source of the format: Microsoft's "FAT: General Overview of On-Disk Format", version 1.03. It
//! has clusters of one sector, two tables, and a root directory of one sector. The label is in the
//! boot sector and in the root directory, because readers differ in where they look. Each name is a
//! long name, before an entry with a short alias. All times are the first one that FAT knows, so
//! the same files make the same image.
//!
//! It is written here because volnet needs so little of it: the crate `fatfs` would make the binary
//! larger by 57 KB, and this does by 4. The tests read the images with that crate.

/// Bytes of a sector, and of a cluster.
const SECTOR: usize = 512;
/// Clusters of data: with 4085 or more it would be FAT16.
const CLUSTERS_MAX: usize = 4084;
/// Entries of the root directory, which is one sector.
const ENTRIES: usize = SECTOR / ENTRY;
/// Bytes of an entry.
const ENTRY: usize = 32;
/// Characters of a long name in one entry.
const LONG: usize = 13;
/// The first cluster of data: the table's first two entries are taken.
const FIRST: usize = 2;
/// The table's first two entries: the type of the medium, a fixed disk.
const MEDIA: u8 = 0xf8;
/// A table's entry: the last cluster of a file.
const END: u16 = 0xfff;
/// 1 January 1980.
const DATE: u16 = 1 << 5 | 1;
/// Attributes of an entry: a file that is read only.
const READ_ONLY: u8 = 0x01;
/// The label of the volume.
const LABEL: u8 = 0x08;
/// A part of a long name.
const LONG_NAME: u8 = 0x0f;
/// The first byte of the last part of a long name has this bit, too.
const LAST_PART: u8 = 0x40;
/// The image is as long as a multiple of this, for disks with large blocks.
const BLOCK: usize = 4096;

/// A file: its name, which has ASCII characters only, and what it holds.
pub type FatFile<'a> = (&'a str, &'a [u8]);

/// The image of a file system with this label and these files; `None` if they do not fit. The label
/// is padded with spaces.
pub fn image(label: &[u8; 11], files: &[FatFile]) -> Option<Vec<u8>> {
    let clusters: usize = files.iter().map(|(_, content)| content.len().div_ceil(SECTOR)).sum();
    let entries = 1 + files.iter().map(|(name, _)| 1 + name.len().div_ceil(LONG)).sum::<usize>();
    if clusters > CLUSTERS_MAX || entries > ENTRIES {
        return None;
    }
    // There is no file system without a cluster.
    let clusters = clusters.max(1);
    let table_sectors = ((FIRST + clusters) * 3).div_ceil(2).div_ceil(SECTOR);
    // Before the data are this sector, both tables and the root directory.
    let data = SECTOR * (1 + 2 * table_sectors + 1);
    let size = data + SECTOR * clusters;
    let mut image = vec![0; size.next_multiple_of(BLOCK)];
    image[..SECTOR].copy_from_slice(&boot_sector(label, size / SECTOR, table_sectors));
    let mut table = vec![0; table_sectors * SECTOR];
    set(&mut table, 0, 0xf00 | u16::from(MEDIA));
    set(&mut table, 1, END);
    let mut root = entry(label, LABEL, 0, 0).to_vec();
    let mut next = FIRST;
    for (index, (name, content)) in files.iter().enumerate() {
        let count = content.len().div_ceil(SECTOR);
        let first = if count == 0 { 0 } else { next };
        for cluster in next..next + count {
            let follower = if cluster + 1 == next + count { END } else { cluster as u16 + 1 };
            set(&mut table, cluster, follower);
        }
        let at = data + (next - FIRST) * SECTOR;
        image[at..at + content.len()].copy_from_slice(content);
        next += count;
        let alias = alias(name, index);
        root.extend(long_name(name, &alias));
        root.extend(entry(&alias, READ_ONLY, first as u16, content.len() as u32));
    }
    for copy in 0..2 {
        let at = SECTOR + copy * table.len();
        image[at..at + table.len()].copy_from_slice(&table);
    }
    image[data - SECTOR..data - SECTOR + root.len()].copy_from_slice(&root);
    Some(image)
}

/// The boot sector, which describes the rest.
fn boot_sector(label: &[u8; 11], sectors: usize, table_sectors: usize) -> [u8; SECTOR] {
    let mut boot = [0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| boot[at..at + bytes.len()].copy_from_slice(bytes);
    // A jump to itself: nobody boots from this.
    put(0, &[0xeb, 0xfe, 0x90]);
    put(3, b"volnet  ");
    put(11, &(SECTOR as u16).to_le_bytes());
    // Sectors of a cluster, reserved sectors (this one), tables, entries of the root directory.
    put(13, &[1, 1, 0, 2]);
    put(17, &(ENTRIES as u16).to_le_bytes());
    put(19, &(sectors as u16).to_le_bytes());
    put(21, &[MEDIA]);
    put(22, &(table_sectors as u16).to_le_bytes());
    // Sectors of a track and heads, as of a disk without any geometry.
    put(24, &[1, 0, 1, 0]);
    // The drive's number, and that a serial number, a label and the type follow.
    put(36, &[0x80, 0, 0x29]);
    put(39, &[0x56, 0x4f, 0x4c, 0x4e]);
    put(43, label);
    put(54, b"FAT12   ");
    put(510, &[0x55, 0xaa]);
    boot
}

/// Sets an entry of the table. Two entries of twelve bits have three bytes.
fn set(table: &mut [u8], cluster: usize, value: u16) {
    let at = cluster / 2 * 3;
    let [low, high] = value.to_le_bytes();
    if cluster % 2 == 0 {
        table[at] = low;
        table[at + 1] |= high;
    } else {
        table[at + 1] |= low << 4;
        table[at + 2] = low >> 4 | high << 4;
    }
}

/// An entry with a short name of eight and three characters.
fn entry(name: &[u8; 11], attributes: u8, cluster: u16, size: u32) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..11].copy_from_slice(name);
    entry[11] = attributes;
    // Made, last read, last written.
    for at in [16, 18, 24] {
        entry[at..at + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    entry[26..28].copy_from_slice(&cluster.to_le_bytes());
    entry[28..].copy_from_slice(&size.to_le_bytes());
    entry
}

/// A short name for a file: no two files have the same.
fn alias(name: &str, index: usize) -> [u8; 11] {
    let mut alias = *b"           ";
    let letters = name.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_uppercase());
    for (to, from) in alias.iter_mut().zip(letters.take(6)) {
        *to = from;
    }
    let end = alias.iter().position(|b| *b == b' ').unwrap_or(6);
    alias[end] = b'~';
    alias[end + 1] = b'1' + index as u8;
    alias
}

/// The entries of a long name: its parts, the last one first.
fn long_name(name: &str, alias: &[u8; 11]) -> Vec<u8> {
    // Where the thirteen characters of a part are.
    const PLACES: [usize; LONG] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
    let sum = alias.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let parts: Vec<&[u8]> = name.as_bytes().chunks(LONG).collect();
    let mut entries = Vec::with_capacity(parts.len() * ENTRY);
    for (index, part) in parts.iter().enumerate().rev() {
        let mut entry = [0; ENTRY];
        let last = if index + 1 == parts.len() { LAST_PART } else { 0 };
        entry[0] = (index as u8 + 1) | last;
        entry[11] = LONG_NAME;
        entry[13] = sum;
        for (at, place) in PLACES.iter().enumerate() {
            let character = match at.cmp(&part.len()) {
                std::cmp::Ordering::Less => u16::from(part[at]),
                std::cmp::Ordering::Equal => 0,
                std::cmp::Ordering::Greater => 0xffff,
            };
            entry[*place..place + 2].copy_from_slice(&character.to_le_bytes());
        }
        entries.extend(entry);
    }
    entries
}

#[cfg(test)]
mod tests;
