//! Reads golden files: the command that made them, and the datagrams (see `golden/capture.sh`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What a command and the kernel said to each other.
pub(crate) struct Golden {
    /// Datagrams from the command to the kernel.
    pub(crate) sent: Vec<Vec<u8>>,
    /// Datagrams from the kernel to the command.
    pub(crate) received: Vec<Vec<u8>>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Reads `tests/golden/NAME.hex`.
pub(crate) fn read(name: &str) -> Golden {
    parse(&fs::read_to_string(root().join(name).with_extension("hex")).unwrap())
}

/// The datagrams of all golden files, in both directions.
pub(crate) fn datagrams() -> &'static [Vec<u8>] {
    static ALL: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut files = Vec::new();
        for folder in fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()) {
            if folder.is_dir() {
                files.extend(fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        files.sort();
        let hex =
            files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "hex"));
        let goldens = hex.map(|path| parse(&fs::read_to_string(path).unwrap()));
        goldens.flat_map(|golden| golden.sent.into_iter().chain(golden.received)).collect()
    })
}

fn parse(text: &str) -> Golden {
    let mut lines = text.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with("# ")), "no command in golden file");
    let mut golden = Golden { sent: Vec::new(), received: Vec::new() };
    let mut side = &mut golden.sent;
    for line in lines {
        match line {
            ">" | "<" => {
                side = if line == ">" { &mut golden.sent } else { &mut golden.received };
                side.push(Vec::new());
            }
            bytes => side.last_mut().unwrap().extend(hex(bytes)),
        }
    }
    golden
}

fn hex(line: &str) -> impl Iterator<Item = u8> {
    assert!(line.len() % 2 == 0, "half a byte in {line:?}");
    (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap())
}
