//! Tables for people: aligned columns that fit a terminal of 80.

use std::fmt::Write;

/// Columns of a terminal.
pub(super) const WIDTH: usize = 80;
/// Between two columns.
const GAP: &str = "  ";

/// Rows under a heading. If a first cell makes its row longer than [`WIDTH`], it gets a line of its
/// own, so nothing is cut.
pub(super) fn rows(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| length(cell)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row).skip(1) {
            *width = (*width).max(length(cell));
        }
    }
    let others: usize = widths[1..].iter().map(|width| width + GAP.len()).sum();
    let room = WIDTH.saturating_sub(others).max(widths[0]);
    let firsts = rows.iter().filter_map(|row| row.first()).map(|cell| length(cell));
    widths[0] = firsts.filter(|length| *length <= room).fold(widths[0], usize::max);

    let mut out = String::new();
    line(&mut out, heading.iter().copied(), &widths);
    for row in rows {
        let cells = row.iter().map(String::as_str);
        match row.first() {
            Some(first) if length(first) > room => {
                out.push_str(first);
                out.push('\n');
                line(&mut out, std::iter::once("").chain(cells.skip(1)), &widths);
            }
            Some(_) | None => line(&mut out, cells, &widths),
        }
    }
    out
}

/// Names and values, one per line. A value that is too long continues below itself.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| length(name)).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in pairs {
        let _ = write!(out, "{name:width$}{GAP}");
        paragraph(&mut out, value, width + GAP.len());
    }
    out
}

/// Adds a text to a line that has `indent` columns already, and continues below that column.
pub(super) fn paragraph(out: &mut String, text: &str, indent: usize) {
    let mut at = indent;
    for (index, word) in text.split(' ').enumerate() {
        let next = at + length(word) + usize::from(index > 0);
        if index > 0 && next > WIDTH {
            let _ = write!(out, "\n{:indent$}", "");
            at = indent;
        } else if index > 0 {
            out.push(' ');
            at += 1;
        }
        out.push_str(word);
        at += length(word);
    }
    out.push('\n');
}

/// One line without spaces at its end.
fn line<'a>(out: &mut String, cells: impl Iterator<Item = &'a str>, widths: &[usize]) {
    let begin = out.len();
    for (index, (cell, width)) in cells.zip(widths).enumerate() {
        let gap = if index > 0 { GAP } else { "" };
        let _ = write!(out, "{gap}{cell:width$}");
    }
    let end = out[begin..].trim_end_matches(' ').len();
    out.truncate(begin + end);
    out.push('\n');
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).into()).collect()
    }

    #[test]
    fn columns_are_aligned() {
        let table = rows(
            &["NAME", "MODE", "IP"],
            &[row(&["a", "bridged", "-"]), row(&["database", "dhcp", ""])],
        );
        assert_eq!(
            table,
            "NAME      MODE     IP\n\
             a         bridged  -\n\
             database  dhcp\n"
        );
        assert_eq!(rows(&["NAME", "IP"], &[]), "NAME  IP\n");
    }

    #[test]
    fn a_long_first_cell_stands_alone() {
        let long = "x".repeat(63);
        let table = rows(&["NAME", "REST"], &[row(&[&long, &"y".repeat(40)]), row(&["web", "z"])]);
        let expected = format!("NAME  REST\n{long}\n      {}\nweb   z\n", "y".repeat(40));
        assert_eq!(table, expected);
        assert!(table.lines().all(|line| line.len() <= WIDTH));
    }

    #[test]
    fn pairs_go_on_below_themselves() {
        let text = format!("{} {}", "a".repeat(60), "b".repeat(20));
        let out = pairs(&[("name", "web".into()), ("kernel_args", text)]);
        let expected = format!(
            "name         web\nkernel_args  {}\n             {}\n",
            "a".repeat(60),
            "b".repeat(20)
        );
        assert_eq!(out, expected);
    }
}
