//! The order of the rooms in `src/`: which room may import from which.
//!
//! A room is a module of the crate's root. [`ROOMS`] has the allowed imports of each room. No room
//! may import from a later one there, so there is no circle. Tests, the bodies of fuzz targets and
//! the fakes do not count: they may import everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room with the rooms that it may import from, from the bottom to the top.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("rights", &[]),
    ("netlink", &[]),
    ("packet", &["model"]),
    ("plan", &["model"]),
    ("doctor", &["model", "packet", "plan"]),
    ("trace", &["model", "packet", "plan"]),
    ("nftables", &["model", "netlink", "plan"]),
    ("engine", &["model", "plan"]),
    ("spec", &["model"]),
    ("store", &["model"]),
    ("dhcp", &["model", "packet", "engine"]),
    ("dhcp6", &["model", "packet"]),
    ("ndp", &["model", "packet"]),
    ("dns", &["model", "engine"]),
    ("protocol", &["model", "spec"]),
    ("hypervisor", &["model", "rights", "spec", "store"]),
    ("network", &["model", "rights", "netlink", "packet", "plan", "doctor", "trace", "nftables"]),
    ("resolver", &["model", "dns"]),
    ("config", &["model", "spec", "hypervisor"]),
    ("metrics", &["model", "protocol", "network"]),
    (
        "daemon",
        &[
            "model",
            "rights",
            "packet",
            "plan",
            "doctor",
            "trace",
            "engine",
            "spec",
            "store",
            "dhcp",
            "dhcp6",
            "ndp",
            "dns",
            "resolver",
            "protocol",
            "hypervisor",
            "network",
            "config",
            "metrics",
        ],
    ),
    ("cli", &["model", "spec", "store", "protocol", "hypervisor", "network", "config"]),
];

/// Files and folders that only tests and fuzz targets use.
const TEST_SUPPORT: &[&str] = &["tests", "fuzz", "fake", "memory"];

/// The rooms without I/O.
const PURE: &[&str] = &[
    "model", "packet", "plan", "doctor", "trace", "engine", "spec", "protocol", "dhcp", "dhcp6",
    "ndp", "dns", "netlink", "nftables",
];

/// What pure rooms may not use.
const IMPURE: &[&str] = &["mio::", "nix::", "std::fs", "std::process", "UnixStream", "TcpStream"];

/// The biggest room is at most this part of all the lines.
const BIGGEST: usize = 8;

/// The room of a source file; `None` for the files that tie the rooms together.
fn room(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("src").unwrap();
    let first = inside.components().next()?.as_os_str().to_str()?.trim_end_matches(".rs");
    (!["lib", "main", "fuzz"].contains(&first)).then(|| first.to_string())
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The code of each room that is built into volnet, without comments and tests.
fn rooms() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut rooms: BTreeMap<String, Vec<(PathBuf, String)>> = BTreeMap::new();
    for path in files {
        let is_test = |part: &str| TEST_SUPPORT.contains(&part.trim_end_matches(".rs"));
        if path.iter().any(|part| is_test(part.to_str().unwrap())) {
            continue;
        }
        let Some(room) = room(&path) else { continue };
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        rooms.entry(room).or_default().push((path, code.collect::<Vec<_>>().join("\n")));
    }
    rooms
}

/// The rooms that a piece of code names.
fn imports(code: &str) -> BTreeSet<String> {
    let after = code.split("crate::").skip(1);
    let name = |rest: &str| {
        rest.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()))
            .next()
            .unwrap()
            .to_string()
    };
    after.map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn a_room_imports_from_those_below_it_alone() {
    let rooms = rooms();
    let known: BTreeSet<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    let found: BTreeSet<&str> = rooms.keys().map(String::as_str).collect();
    assert_eq!(known, found, "the rooms of the table and the rooms of src/");
    for (at, (room, allowed)) in ROOMS.iter().enumerate() {
        let below: BTreeSet<&str> = ROOMS[..at].iter().map(|(room, _)| *room).collect();
        assert!(allowed.iter().all(|other| below.contains(other)), "{room} imports from above");
        let mut used = BTreeSet::new();
        for (path, code) in &rooms[*room] {
            for other in imports(code).into_iter().filter(|other| other != room) {
                assert!(allowed.contains(&&*other), "{}: imports {other}", path.display());
                used.insert(other);
            }
        }
        let unused: Vec<_> = allowed.iter().filter(|other| !used.contains(**other)).collect();
        assert!(unused.is_empty(), "{room} may import {unused:?} and does not");
    }
}

#[test]
fn the_pure_rooms_read_and_write_nothing() {
    let rooms = rooms();
    for room in PURE {
        for (path, code) in &rooms[*room] {
            let impure = IMPURE.iter().find(|word| code.contains(**word));
            assert_eq!(impure, None, "{}", path.display());
        }
    }
}

#[test]
fn no_room_outgrows_the_others() {
    let lines = |files: &Vec<(PathBuf, String)>| -> usize {
        files.iter().map(|(_, code)| code.lines().count()).sum()
    };
    let sizes: BTreeMap<String, usize> =
        rooms().iter().map(|(room, files)| (room.clone(), lines(files))).collect();
    let all: usize = sizes.values().sum();
    let (room, biggest) = sizes.iter().max_by_key(|(_, lines)| **lines).unwrap();
    assert!(biggest * BIGGEST <= all, "{room} has {biggest} of {all} lines: {sizes:?}");
}
