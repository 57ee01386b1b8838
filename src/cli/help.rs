//! The text of `volnet help`, made of the table of verbs. Every line fits 80 columns.

use super::verbs::{Flag, SETTINGS, Settings, VERBS, Verb};
use crate::config::CLIENT_KEYS;

/// Columns of a line.
const WIDTH: usize = 80;
/// The column in which the help of a flag begins.
const FLAG_COLUMN: usize = 24;
/// The column in which the line on a verb begins.
const VERB_COLUMN: usize = 15;

/// `volnet help`.
pub(super) fn overview() -> String {
    let mut out = String::from(
        "volnet gives the microVMs of one host their network and runs their hypervisors.\n\n\
         Usage: volnet [OPTION]... VERB [ARGUMENT]...\n\nVerbs\n",
    );
    for verb in &VERBS {
        entry(&mut out, &format!("  {}", verb.name), verb.brief, VERB_COLUMN);
    }
    out.push_str("\nOptions\n");
    entry(&mut out, "  --json", "print JSON instead of tables", FLAG_COLUMN);
    settings(&mut out, Settings::Client);
    entry(&mut out, "  -h, --help", "explain the verb", FLAG_COLUMN);
    out.push('\n');
    paragraph(
        &mut out,
        "A flag wins over the environment (VOLNET_SOCKET and so on), the environment over the \
         file. Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 the daemon cannot be \
         reached.",
    );
    out
}

/// The help of a verb.
pub(super) fn of(verb: &Verb) -> String {
    let mut out = format!("Usage: volnet {}", verb.name);
    if !verb.words.is_empty() {
        out.push_str(&format!(" {}", verb.words));
    }
    let has_flags = verb.flags().next().is_some() || verb.settings == Settings::All;
    out.push_str(if has_flags { " [OPTION]...\n" } else { "\n" });
    out.push('\n');
    for (index, text) in verb.text.lines().enumerate() {
        out.push_str(if index > 0 { "\n" } else { "" });
        paragraph(&mut out, text);
    }
    if has_flags || verb.json.is_some() {
        out.push('\n');
    }
    verb.flags().for_each(|flag| flag_entry(&mut out, flag));
    if verb.settings == Settings::All {
        settings(&mut out, Settings::All);
    }
    if let Some(json) = verb.json {
        entry(&mut out, "  --json", json, FLAG_COLUMN);
    }
    if !verb.examples.is_empty() {
        out.push('\n');
    }
    verb.examples.lines().for_each(|line| out.push_str(&format!("  {line}\n")));
    out
}

fn settings(out: &mut String, which: Settings) {
    let of_client = |flag: &Flag| CLIENT_KEYS.iter().any(|key| key.flag == Some(flag.name));
    for flag in SETTINGS.iter().filter(|flag| which == Settings::All || of_client(flag)) {
        flag_entry(out, flag);
    }
}

fn flag_entry(out: &mut String, flag: &Flag) {
    let value = flag.value.map(|value| format!(" {value}")).unwrap_or_default();
    entry(out, &format!("  --{}{value}", flag.name), flag.help, FLAG_COLUMN);
}

/// Words, and beside them from a column on what they mean.
fn entry(out: &mut String, words: &str, meaning: &str, column: usize) {
    let mut line = format!("{words:column$}");
    if words.len() >= column {
        out.push_str(&format!("{words}\n"));
        line = " ".repeat(column);
    }
    fill(out, line, meaning, column);
}

fn paragraph(out: &mut String, text: &str) {
    fill(out, String::new(), text, 0);
}

/// Words after what stands in the line already; further lines begin at a column.
fn fill(out: &mut String, mut line: String, text: &str, column: usize) {
    let mut begins = true;
    for word in text.split_whitespace() {
        if !begins && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&format!("{line}\n"));
            (line, begins) = (" ".repeat(column), true);
        }
        if !begins {
            line.push(' ');
        }
        line.push_str(word);
        begins = false;
    }
    out.push_str(&format!("{}\n", line.trim_end()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;

    #[test]
    fn every_line_fits() {
        for text in VERBS.iter().map(of).chain([overview()]) {
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
                assert_eq!(line.trim_end(), line);
            }
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
        }
    }

    #[test]
    fn every_setting_that_has_a_flag_is_in_the_table() {
        let known: Vec<&str> = SETTINGS.iter().map(|flag| flag.name).collect();
        let flags: Vec<&str> = KEYS.iter().filter_map(|key| key.flag).collect();
        assert!(flags.iter().all(|flag| known.contains(flag)), "{flags:?}");
        assert_eq!(known.len(), flags.len());
    }

    #[test]
    fn no_verb_has_two_flags_of_one_name() {
        for verb in &VERBS {
            let mut names: Vec<&str> = verb.flags().map(|flag| flag.name).collect();
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count, "{}", verb.name);
        }
    }
}
