//! What VMs receive, send and use a second: the difference of two replies, as a table.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::{Map, Value};

use super::verbs::{SORTS, Sort};
use crate::model::name::VmName;
use crate::model::view::UsageView;

/// What VMs had done at one time.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    at_ms: u64,
    vms: Vec<UsageView>,
}

/// A VM and what it does a second.
#[derive(Clone, Debug)]
pub(super) struct Row {
    name: VmName,
    status: String,
    ip: String,
    /// In the order of [`COLUMNS`]; `None` where it is not known.
    rates: [Option<f64>; COLUMNS.len()],
}

/// A column of numbers: its heading and its width.
type Column = (&'static str, usize);

/// The columns behind name, status and address, in the order of [`SORTS`] behind the name.
const COLUMNS: [Column; SORTS.len() - 1] = [
    ("RX/s", 6),
    ("TX/s", 6),
    ("PKT/s", 6),
    ("DENY/s", 6),
    ("LIM/s", 5),
    (PROCESSOR, 5),
    ("MEM", 5),
];
/// The heading of the column whose numbers have a place behind the point.
const PROCESSOR: &str = "CPU%";
const STATUS: usize = 8;
const ADDRESS: usize = 15;
/// Columns of a name on the narrowest terminal.
const NAME_MIN: usize = 8;

impl Sort {
    /// By its key.
    pub(super) fn of_key(key: u8) -> Option<Sort> {
        SORTS.iter().position(|sort| sort.as_bytes()[0] == key).map(Sort)
    }
}

impl Sample {
    /// A reply of `Usage`.
    pub(super) fn read(reply: &Map<String, Value>) -> Option<Sample> {
        let at_ms = reply.get("at_ms")?.as_u64()?;
        let vms = serde_json::from_value(reply.get("vms")?.clone()).ok()?;
        Some(Sample { at_ms, vms })
    }

    /// Adds what the daemon does not know, by process: those without a control group.
    pub(super) fn complete(&mut self, used: impl Fn(u32) -> Option<(u64, u64)>) {
        let without = self.vms.iter_mut().filter(|vm| vm.cpu_us.is_none());
        for (vm, pid) in without.filter_map(|vm| vm.pid.map(|pid| (vm, pid))) {
            if let Some((cpu_us, memory)) = used(pid) {
                (vm.cpu_us, vm.memory_bytes) = (Some(cpu_us), Some(memory));
            }
        }
    }

    /// What the VMs have done a second since an earlier sample.
    pub(super) fn rows(&self, before: &Sample) -> Vec<Row> {
        let seconds = self.at_ms.saturating_sub(before.at_ms).max(1) as f64 / 1000.0;
        let former: HashMap<&VmName, &UsageView> =
            before.vms.iter().map(|vm| (&vm.name, vm)).collect();
        let row = |vm: &UsageView| {
            let was = former.get(&vm.name);
            let rate = |of: fn(&UsageView) -> u64| {
                // A counter that is less than it was began anew.
                was.map(|was| of(vm).saturating_sub(of(was)) as f64 / seconds)
            };
            let cpu = vm.cpu_us.zip(was.filter(|was| was.pid == vm.pid).and_then(|it| it.cpu_us));
            Row {
                name: vm.name.clone(),
                status: vm.status.to_string(),
                ip: vm.ip.map_or_else(|| "-".into(), |ip| ip.to_string()),
                rates: [
                    rate(|vm| vm.rx_bytes),
                    rate(|vm| vm.tx_bytes),
                    rate(|vm| vm.rx_packets + vm.tx_packets),
                    rate(|vm| vm.denied),
                    rate(|vm| vm.limited + vm.overrun),
                    cpu.map(|(is, was)| is.saturating_sub(was) as f64 / seconds / 10_000.0),
                    vm.memory_bytes.map(|bytes| bytes as f64),
                ],
            }
        };
        self.vms.iter().map(row).collect()
    }
}

/// Sorts rows: the largest first, and VMs that are equal in the order of their names.
pub(super) fn sort(rows: &mut [Row], by: Sort) {
    match by.0.checked_sub(1) {
        None => rows.sort_by(|a, b| a.name.cmp(&b.name)),
        Some(at) => {
            let rank = |row: &Row| row.rates[at].map_or(0, |rate| (rate * 100.0) as u64 + 1);
            rows.sort_by(|a, b| (Reverse(rank(a)), &a.name).cmp(&(Reverse(rank(b)), &b.name)));
        }
    }
}

/// The table, its heading first, no line longer than `width`.
pub(super) fn table<'a>(rows: impl IntoIterator<Item = &'a Row>, width: usize) -> Vec<String> {
    let numbers: usize = COLUMNS.iter().map(|(_, width)| width + 1).sum();
    let name = width.saturating_sub(STATUS + ADDRESS + 2 + numbers).max(NAME_MIN);
    let cut = |line: String| line.chars().take(width).collect();
    lines(rows, name).into_iter().map(cut).collect()
}

/// The same with nothing cut, and no wider than the names need it.
pub(super) fn whole_table(rows: &[Row]) -> Vec<String> {
    let longest = rows.iter().map(|row| row.name.as_str().len()).max().unwrap_or_default();
    lines(rows, longest.max(NAME_MIN))
}

fn lines<'a>(rows: impl IntoIterator<Item = &'a Row>, name: usize) -> Vec<String> {
    let heading = COLUMNS.iter().map(|(heading, width)| format!(" {heading:>width$}"));
    let mut lines = vec![line("NAME", "STATUS", "ADDRESS", &heading.collect::<String>(), name)];
    lines.extend(rows.into_iter().map(|row| {
        let cells = COLUMNS.iter().zip(row.rates).map(|((heading, width), rate)| {
            let text = match rate {
                None => "-".into(),
                Some(percent) if *heading == PROCESSOR => format!("{percent:.1}"),
                Some(rate) => short(rate),
            };
            format!(" {text:>width$}")
        });
        line(row.name.as_str(), &row.status, &row.ip, &cells.collect::<String>(), name)
    }));
    lines
}

fn line(first: &str, status: &str, ip: &str, cells: &str, name_width: usize) -> String {
    let name = match first.chars().count() > name_width {
        true => first.chars().take(name_width - 1).chain(['~']).collect(),
        false => first.to_owned(),
    };
    format!("{name:name_width$} {status:STATUS$} {ip:ADDRESS$}{cells}")
}

/// What all VMs do together.
pub(super) fn summary(rows: &[Row]) -> String {
    let sum = |at: usize| short(rows.iter().filter_map(|row| row.rates[at]).sum());
    let running = rows.iter().filter(|row| row.status == "running").count();
    format!(
        "{} VMs, {running} running; received {}/s, sent {}/s, {} packets/s, {} denied/s, \
         {} limited/s",
        rows.len(),
        sum(0),
        sum(1),
        sum(2),
        sum(3),
        sum(4)
    )
}

/// The keys.
pub(super) fn keys(sort: Sort) -> String {
    let keys: Vec<String> = SORTS.iter().map(|word| format!("{}:{word}", &word[..1])).collect();
    format!("by {}  {}  q:quit", SORTS[sort.0], keys.join(" "))
}

/// A number with at most three digits before its unit.
fn short(number: f64) -> String {
    let mut number = number;
    for unit in ["", "K", "M", "G", "T"] {
        if number < 999.5 {
            return match number {
                small if small < 9.95 && !unit.is_empty() => format!("{small:.1}{unit}"),
                number => format!("{number:.0}{unit}"),
            };
        }
        number /= 1000.0;
    }
    "many".into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample(at_ms: u64, vms: Value) -> Sample {
        let mut reply = Map::new();
        reply.insert("at_ms".into(), at_ms.into());
        reply.insert("vms".into(), vms);
        Sample::read(&reply).unwrap()
    }

    fn vm(name: &str, bytes: u64, cpu_us: Option<u64>) -> Value {
        json!({
            "name": name, "status": "running", "ip": "192.168.127.2", "pid": 7,
            "rx_bytes": bytes, "rx_packets": 1, "tx_bytes": 0, "tx_packets": 1, "denied": 0,
            "limited": 0, "unread": 0, "cpu_us": cpu_us, "memory_bytes": 4_200_000
        })
    }

    #[test]
    fn rates_are_differences_over_time() {
        let before = sample(1_000, json!([vm("a", 1_000, Some(0)), vm("b", 0, None)]));
        let list =
            json!([vm("a", 3_500, Some(500_000)), vm("b", 9_000_000, None), vm("c", 7, None)]);
        let mut rows = sample(3_000, list).rows(&before);
        sort(&mut rows, Sort::of("received").unwrap());
        let lines = table(&rows, 80);
        let expected = "\
NAME      STATUS   ADDRESS           RX/s   TX/s  PKT/s DENY/s LIM/s  CPU%   MEM
b         running  192.168.127.2     4.5M      0      0      0     0     -  4.2M
a         running  192.168.127.2     1.2K      0      0      0     0  25.0  4.2M
c         running  192.168.127.2        -      -      -      -     -     -  4.2M";
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn counters_that_began_anew_give_no_rate_below_zero() {
        let before = sample(0, json!([vm("a", 1_000, Some(9))]));
        let rows = sample(1_000, json!([vm("a", 5, Some(1))])).rows(&before);
        assert_eq!((rows[0].rates[0], rows[0].rates[5]), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn what_the_daemon_does_not_know_is_asked_for_by_process() {
        let mut sample = sample(0, json!([vm("a", 0, None), vm("b", 0, Some(1))]));
        sample.complete(|pid| (pid == 7).then_some((5, 6)));
        assert_eq!(sample.vms[0].cpu_us, Some(5));
        assert_eq!(sample.vms[0].memory_bytes, Some(6));
        assert_eq!(sample.vms[1].cpu_us, Some(1));
    }

    #[test]
    fn numbers_are_short_and_lines_fit() {
        for (number, text) in
            [(0.0, "0"), (999.4, "999"), (999.5, "1.0K"), (12_345.0, "12K"), (2.5e9, "2.5G")]
        {
            assert_eq!(short(number), text);
        }
        let rows = sample(0, json!([vm(&"x".repeat(60), 1, None)]));
        let rows = rows.rows(&rows);
        for width in [1, 10, 79, 80, 200] {
            assert!(table(&rows, width).iter().all(|line| line.chars().count() <= width));
        }
        let whole = whole_table(&rows);
        assert!(whole[1].starts_with(&format!("{} running ", "x".repeat(60))), "{whole:?}");
        assert_eq!(whole[0].len(), whole[1].len());
    }

    #[test]
    fn each_key_sorts_by_another_column_and_none_of_them_quits() {
        for (at, word) in SORTS.iter().enumerate() {
            let key = word.as_bytes()[0];
            assert_eq!((Sort::of(word), Sort::of_key(key)), (Some(Sort(at)), Some(Sort(at))));
            assert_ne!(key, b'q');
        }
        assert_eq!((Sort::of("ip"), Sort::of_key(b'x')), (None, None));
    }
}
