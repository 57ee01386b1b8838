//! Texts with a meaning of their own: files, checksums, command lines, names.

use std::path::PathBuf;

use crate::model::spec::{DiskCache, DiskFormat, RestartPolicy, SHARE_TAG_BYTES_MAX};

/// The longest path in bytes: `PATH_MAX` less the terminator (linux/limits.h).
pub const PATH_BYTES_MAX: usize = 4095;
/// The longest kernel command line in bytes: `COMMAND_LINE_SIZE` on x86 and arm64
/// (asm/setup.h) less the terminator.
pub const CMDLINE_BYTES_MAX: usize = 2047;
/// The longest name of a hypervisor or of a network in bytes.
pub(super) const NAME_BYTES_MAX: usize = 63;

/// Names of file systems that are accepted as the format of a disk image. Such an image is a raw
/// disk without a partition table.
const FILE_SYSTEMS: [&str; 7] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "squashfs", "erofs"];

/// Reads the place of a file: an absolute path, or `file://` and an absolute path. volnet opens no
/// connection, so a file elsewhere must be fetched first.
pub(crate) fn location(text: &str) -> Result<PathBuf, String> {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    let path = match scheme.as_deref() {
        Some("http" | "https") => {
            return Err(format!(
                "{text} is not on this host: fetch it first, then give the path of the file"
            ));
        }
        Some("file") => &text["file://".len()..],
        _ => text,
    };
    if !path.starts_with('/') {
        return Err(format!(
            "{text:?} is neither an absolute path nor file:// with an absolute path"
        ));
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("the path is longer than {PATH_BYTES_MAX} bytes"));
    }
    if path.chars().any(char::is_control) {
        return Err(format!("{text:?} holds a control character"));
    }
    Ok(path.into())
}

/// Reads an argument of a program.
pub(super) fn argument(text: &str) -> Result<String, String> {
    if text.len() > PATH_BYTES_MAX {
        return Err(format!("it is longer than {PATH_BYTES_MAX} bytes"));
    }
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(format!("{text:?} is empty or holds a control character"));
    }
    Ok(text.into())
}

/// Reads a SHA-256, with or without `sha256:` before it, into 64 lower-case digits.
pub(super) fn checksum(text: &str) -> Result<String, String> {
    let (algorithm, digits) = text.split_once(':').unwrap_or(("sha256", text));
    if !algorithm.eq_ignore_ascii_case("sha256") {
        return Err(format!("volnet does not know the algorithm {algorithm:?}; use sha256"));
    }
    let digits = digits.trim();
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("{digits:?} is not the 64 hexadecimal digits of a SHA-256"));
    }
    Ok(digits.to_ascii_lowercase())
}

/// Reads what becomes of what a guest writes to a disk.
pub(super) fn disk_cache(text: &str) -> Result<DiskCache, String> {
    let all = [DiskCache::Writeback, DiskCache::None, DiskCache::Unsafe];
    let found = all.into_iter().find(|cache| cache.as_str() == text);
    found.ok_or_else(|| format!("{text:?} is not one of writeback, none, unsafe"))
}

/// Reads the tag of a directory that the guest sees, which no hypervisor has to quote.
pub(super) fn tag(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match text.len() <= SHARE_TAG_BYTES_MAX && text.bytes().all(plain) {
        true => Ok(text.into()),
        false => Err(format!(
            "{text:?} is not 1 to {SHARE_TAG_BYTES_MAX} letters, digits, dashes, underscores and \
             full stops"
        )),
    }
}

/// Reads the format of a disk image.
pub(super) fn disk_format(text: &str) -> Result<DiskFormat, String> {
    let word = text.to_ascii_lowercase();
    match word.as_str() {
        "raw" => Ok(DiskFormat::Raw),
        "qcow2" => Ok(DiskFormat::Qcow2),
        file_system if FILE_SYSTEMS.contains(&file_system) => Ok(DiskFormat::Raw),
        _ => Err(format!("{text:?} is not a disk format; the formats are raw and qcow2")),
    }
}

/// Reads a kernel command line.
pub(super) fn cmdline(text: &str) -> Result<String, String> {
    if text.len() > CMDLINE_BYTES_MAX {
        return Err(format!("it is longer than {CMDLINE_BYTES_MAX} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("it holds a control character".into());
    }
    Ok(text.into())
}

/// Reads the restart policy: what to do if a hypervisor ends by itself.
pub(super) fn restart(text: &str) -> Result<RestartPolicy, String> {
    match text.to_ascii_lowercase().as_str() {
        "no" => Ok(RestartPolicy::No),
        "on-failure" => Ok(RestartPolicy::OnFailure),
        "always" => Ok(RestartPolicy::Always),
        _ => Err(format!("{text:?} is not a policy; the policies are no, on-failure and always")),
    }
}

/// Reads the name of a hypervisor or of a network.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if text.len() > NAME_BYTES_MAX || !text.bytes().all(legal) {
        return Err(format!(
            "{text:?} is not 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' and '-'"
        ));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_path_on_this_host() {
        for (text, path) in [("/a/b c", "/a/b c"), ("file:///a", "/a"), ("FILE:///a", "/a")] {
            assert_eq!(location(text).unwrap(), PathBuf::from(path), "{text}");
        }
        assert!(location("https://example.com/x.img").unwrap_err().contains("fetch it first"));
        let long = format!("/{}", "x".repeat(PATH_BYTES_MAX));
        for text in ["a/b", "./a", "~/a", "file://a/b", "ftp://h/a", "/a\nb", "/a\0", &long] {
            assert!(location(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn checksums_become_64_lower_case_digits() {
        let digits = "AB".repeat(32);
        for text in [digits.clone(), format!("sha256:{digits}"), format!("SHA256:{digits}")] {
            assert_eq!(checksum(&text).unwrap(), "ab".repeat(32), "{text}");
        }
        let short = "a".repeat(63);
        for text in ["sha256:abc123...", "sha256:", "md5:00", &short, &format!("sha512:{digits}")] {
            assert!(checksum(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_system_image_is_a_raw_disk() {
        assert_eq!(disk_format("ext4"), Ok(DiskFormat::Raw));
        assert_eq!(disk_format("QCOW2"), Ok(DiskFormat::Qcow2));
        assert!(disk_format("vmdk").is_err());
    }
}
