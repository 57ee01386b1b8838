//! What this host has for hypervisors, as its kernel tells it: the processor, devices and huge
//! pages.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// The huge pages of the size that VMs get, in sysfs
/// (Documentation/admin-guide/mm/hugetlbpage.rst).
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
/// For how many seconds after its start a host is one that has just booted.
const BOOT_SECONDS: f64 = 300.0;

/// What proc(5) shows of the processors; empty if it does not.
pub fn cpuinfo() -> String {
    fs::read_to_string("/proc/cpuinfo").unwrap_or_default()
}

/// The frequency of the first processor as proc(5) shows it, which is that of the TSC where it is
/// constant.
pub fn tsc_khz(cpuinfo: &str) -> Option<u64> {
    let line = cpuinfo.lines().find(|line| line.starts_with("cpu MHz"))?;
    let mhz: f64 = line.split(':').nth(1)?.trim().parse().ok()?;
    Some((mhz * 1000.0) as u64)
}

/// Whether a processor has hardware virtualisation, as proc(5) shows its flags.
pub fn virtualises(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| line.split(' ').any(|flag| flag == "vmx" || flag == "svm"))
}

/// Whether this host has just booted.
pub fn has_just_booted() -> bool {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split(' ').next().and_then(|text| text.parse().ok());
    seconds.is_some_and(|seconds: f64| seconds < BOOT_SECONDS)
}

/// Whether volnet can open a device, with the rights that it has now.
pub fn can_open(device: &str) -> io::Result<()> {
    File::options().read(true).write(true).open(device).map(drop)
}

/// How many huge pages the host has to give: those that nobody has or has reserved, and those that
/// it may make when they are wanted.
pub fn huge_pages() -> u64 {
    huge_pages_of(Path::new(HUGE_PAGES))
}

fn huge_pages_of(directory: &Path) -> u64 {
    let number = |name: &str| {
        let text = fs::read_to_string(directory.join(name)).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or_default()
    };
    let free = number("free_hugepages").saturating_sub(number("resv_hugepages"));
    let surplus = number("nr_overcommit_hugepages").saturating_sub(number("surplus_hugepages"));
    free.saturating_add(surplus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Scratch;

    #[test]
    fn the_frequency_is_read_from_cpuinfo() {
        assert_eq!(tsc_khz("processor\t: 0\ncpu MHz\t\t: 2595.124\n"), Some(2_595_124));
        assert_eq!(tsc_khz("processor\t: 0\n"), None);
    }

    #[test]
    fn virtualisation_is_read_from_cpuinfo() {
        assert!(virtualises("processor\t: 0\nflags\t\t: fpu svm sse\n"));
        assert!(virtualises("flags\t\t: fpu vmx\n"));
        assert!(!virtualises("flags\t\t: fpu sse\nbugs\t\t: vmx\n"));
    }

    #[test]
    fn huge_pages_are_those_that_nobody_has_reserved_and_those_that_may_be_made() {
        let scratch = Scratch::new();
        assert_eq!(huge_pages_of(scratch.path()), 0, "a kernel without them");
        for (name, text) in [
            ("free_hugepages", "10\n"),
            ("resv_hugepages", "4\n"),
            ("nr_overcommit_hugepages", "7\n"),
            ("surplus_hugepages", "2\n"),
        ] {
            fs::write(scratch.path().join(name), text).unwrap();
        }
        assert_eq!(huge_pages_of(scratch.path()), 6 + 5);
    }
}
