//! The lists of the manual and the files of completion in `packaging/` are those of the table.
//!
//! `VOLNET_REGENERATE=1 cargo test --lib cli::manual` writes them anew.

use std::fs;

use super::completion;
use super::verbs::{Flag, SETTINGS, VERBS, Verb};
use crate::config::{KEYS, WITHOUT_FLAG};

/// What stands in the manual before and after a list.
const BEGIN: &str = ".\\\" begin: ";
const END: &str = ".\\\" end\n";

/// Compares a file with what it should hold, or writes it.
fn same(path: &str, should: &str) {
    if std::env::var_os("VOLNET_REGENERATE").is_some() {
        fs::write(path, should).unwrap();
    }
    let is = fs::read_to_string(path).unwrap_or_default();
    assert!(is == should, "{path}: run VOLNET_REGENERATE=1 cargo test --lib cli::manual");
}

/// Text as roff has it: a hyphen of ours is a minus sign, for it is typed.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// One sentence a line, as manuals are written, and a space between paragraphs.
fn sentences(text: &str) -> String {
    roff(text).replace('\n', "\n.sp\n").replace(". ", ".\n")
}

fn verbs() -> String {
    let entry = |verb: &Verb| {
        let words = roff(verb.words);
        format!(".TP\n\\fB{}\\fR {words}\n{}\n", verb.name, sentences(verb.text))
    };
    VERBS.iter().map(entry).collect()
}

fn flag(flag: &Flag) -> String {
    let value = flag.value.map(|value| format!(" \\fI{}\\fR", roff(value))).unwrap_or_default();
    format!(".TP\n\\fB\\-\\-{}\\fR{value}\n{}.\n", roff(flag.name), roff(flag.help))
}

/// The flags, under the verbs that have them.
fn flags() -> String {
    let mut out =
        String::from(".SS Settings: of serve, setup and teardown; the first four of all verbs\n");
    out.extend(SETTINGS.iter().map(flag));
    let mut above = String::new();
    let mut seen: Vec<*const Flag> = Vec::new();
    for of_verb in VERBS.iter().flat_map(Verb::flags) {
        if seen.contains(&std::ptr::from_ref(of_verb)) {
            continue;
        }
        seen.push(of_verb);
        let has = |verb: &&Verb| verb.flags().any(|flag| std::ptr::eq(flag, of_verb));
        let verbs: Vec<&str> = VERBS.iter().filter(has).map(|verb| verb.name).collect();
        let heading = format!(".SS Of {}\n", verbs.join(", "));
        if heading != above {
            out.push_str(&heading);
            above = heading;
        }
        out.push_str(&flag(of_verb));
    }
    let json = VERBS.iter().filter(|verb| verb.json.is_none()).map(|verb| verb.name);
    let without = json.collect::<Vec<_>>().join(", ");
    out + &format!(
        ".SS Of all verbs but {without}\n.TP\n\\fB\\-\\-json\\fR\nPrint JSON instead of tables.\n"
    )
}

fn variables() -> String {
    let with_flag = KEYS.iter().map(|key| {
        let flag = roff(key.flag.unwrap_or_default());
        format!(".TP\n\\fB{}\\fR\nAs \\fB\\-\\-{flag}\\fR.\n", key.variable)
    });
    let without = WITHOUT_FLAG.iter().map(|key| {
        format!(".TP\n\\fB{}\\fR\nThe setting \\fB{}\\fR.\n", key.variable, roff(key.field))
    });
    with_flag.chain(without).collect()
}

/// The manual with its lists as they should be.
fn manual(is: &str) -> String {
    let mut out = String::new();
    let mut parts = is.split(BEGIN);
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (name, rest) = part.split_once('\n').unwrap_or_default();
        let (_, after) = rest.split_once(END).unwrap_or_default();
        let list = match name {
            "verbs" => verbs(),
            "flags" => flags(),
            "variables" => variables(),
            other => panic!("there is no list {other:?}"),
        };
        out.push_str(&format!("{BEGIN}{name}\n{list}{END}{after}"));
    }
    out
}

#[test]
fn the_manual_has_every_verb_flag_and_variable() {
    let path = "packaging/volnet.8";
    let should = manual(&fs::read_to_string(path).unwrap());
    assert_eq!(should.matches(BEGIN).count(), 3);
    same(path, &should);
}

#[test]
fn the_files_of_completion_are_what_the_command_prints() {
    for shell in ["bash", "zsh", "fish"] {
        same(&format!("packaging/volnet.{shell}"), &completion::of(shell).unwrap());
    }
}
