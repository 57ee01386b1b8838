//! What was measured, and the file that it goes into.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::Others;

/// Rows of one run, in the order of their making.
#[derive(Debug, Default)]
pub(crate) struct Record {
    rows: Vec<Row>,
}

/// One line of the tables.
#[derive(Debug)]
struct Row {
    what: String,
    who: String,
    /// VMs that are there when it begins, where that matters.
    vms: Option<usize>,
    unit: &'static str,
    /// Sorted. Empty where `missing` says why.
    samples: Vec<f64>,
    missing: Option<String>,
}

impl Record {
    /// Keeps times.
    pub(crate) fn times(&mut self, what: &str, who: &str, vms: usize, times: &[Duration]) {
        let micros = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
        self.push(what, who, Some(vms), "us", micros);
    }

    /// Keeps one value in any unit.
    pub(crate) fn value(
        &mut self,
        what: &str,
        who: &str,
        vms: Option<usize>,
        value: f64,
        unit: &'static str,
    ) {
        self.push(what, who, vms, unit, vec![value]);
    }

    /// Says why there is nothing to keep.
    pub(crate) fn missing(&mut self, what: &str, who: &str, why: &str) {
        self.push(what, who, None, "us", Vec::new());
        self.rows.last_mut().expect("the row above").missing = Some(why.into());
    }

    fn push(
        &mut self,
        what: &str,
        who: &str,
        vms: Option<usize>,
        unit: &'static str,
        mut samples: Vec<f64>,
    ) {
        samples.sort_by(f64::total_cmp);
        let row = Row { what: what.into(), who: who.into(), vms, unit, samples, missing: None };
        eprintln!("  {}", row.line());
        self.rows.push(row);
    }

    /// Writes the file.
    pub(crate) fn write(&self, path: &str, quick: bool, others: &Others) {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let document = json!({
            "machine": machine(), "quick": quick, "others": others.percent(), "rows": rows
        });
        let text = serde_json::to_string_pretty(&document).expect("text from values");
        fs::write(path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

impl Row {
    /// The sample below which this share of them lies.
    fn quantile(&self, share: f64) -> f64 {
        let last = self.samples.len().saturating_sub(1);
        self.samples.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
    }

    fn line(&self) -> String {
        let Row { what, who, unit, missing, .. } = self;
        let vms = self.vms.map_or_else(String::new, |vms| format!(", {vms} VMs"));
        match missing {
            Some(why) => format!("{what}, {who}: {why}"),
            None => format!(
                "{what}, {who}{vms}: p50 {:.1} {unit}, p99 {:.1}",
                self.quantile(0.5),
                self.quantile(0.99)
            ),
        }
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what, "who": self.who, "vms": self.vms, "unit": self.unit,
            "samples": self.samples.len(), "missing": self.missing,
            "p50": self.quantile(0.5), "p99": self.quantile(0.99), "max": self.quantile(1.0),
        })
    }
}

/// On what it was measured, and with what.
fn machine() -> Value {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> =
        cpus.lines().filter_map(|line| line.strip_prefix("model name\t: ")).collect();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    json!({
        "date": said_by("date -u +%F"),
        "commit": said_by("git describe --always --dirty"),
        "kernel": said_by("uname -srm"),
        "processors": format!("{} x {}", models.len(), models.first().unwrap_or(&"unknown")),
        "memory": memory.lines().next().unwrap_or_default().replace("MemTotal:", "").trim(),
        "disk": said_by("stat -f -c %T build"),
        "ip": said_by("ip -V"),
        "nft": said_by("nft -v"),
        "CNI plugins": said_by("dpkg-query -W -f ${Version} containernetworking-plugins"),
    })
}

/// The first line that a command says, if it can be run.
fn said_by(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let output = Command::new(words.next().unwrap_or_default()).args(words).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or("unknown".into())
}
