use std::collections::BTreeMap;
use std::fmt::Write;

use super::*;
use crate::metrics::tally::{Outcome, Tally};
use crate::model::budget::Usage;
use crate::model::name::VmName;
use crate::network::{Passed, tally};

/// Numbers in which every metric has samples.
fn numbers(vms: usize) -> Rc<Snapshot> {
    let vm = |at: usize| VmNumbers {
        name: VmName::new(&format!("vm-{at}")).unwrap(),
        status: Status::Running,
        ip: None,
        pid: None,
        restarts: 2,
        leases: 1,
        nics: vec![NicNumbers {
            passed: Some(Passed { index: 7, packets: [1, 2], bytes: [3, 4], unread: 5, shaped: 6 }),
            allowed: Some((7, 8)),
            denied: Some((9, 10)),
            spoofed: Some(11),
            forged: Some(12),
            overrun: Some(13),
        }],
        usage: Some(Usage { cpu_us: 1_500_000, memory: Some(4096) }),
    };
    let mut tally = Tally::default();
    tally.answered("Get", Outcome::Done, 700);
    tally.planned(5);
    tally.repaired("create tap");
    let errors = BTreeMap::from([(("create tap", 16), 1), (("read", 0), 1)]);
    let changes = BTreeMap::from([("create tap", 3)]);
    let kernel = tally::Tally { changes, errors, observations: 2, observing_us: 30 };
    let engine = crate::engine::decide::Engine::new(
        crate::config::resolve(&Default::default(), &Default::default(), Some("{}"), "host")
            .unwrap()
            .networks,
        "qemu".into(),
        true,
    );
    let networks = engine.unwrap().networks();
    let vms = (0..vms).map(vm).collect();
    Rc::new(Snapshot { vms, networks, events: 11, tally, kernel })
}

/// What a reader sees of a family in `docs/METRICS.md`.
fn row(metric: &Metric) -> String {
    let Family { name, kind, help, .. } = metric.family;
    let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>();
    let suffix = metric.family.suffix();
    format!("| `{name}{suffix}` | {} | {} | {help} |\n", kind.as_str(), labels.join(", "))
}

#[test]
fn the_documentation_lists_every_metric() {
    let path = "docs/METRICS.md";
    let is = std::fs::read_to_string(path).unwrap();
    let rows = is.split_inclusive('\n').filter(|line| line.starts_with("| `volnet_"));
    let should: String = METRICS.iter().map(row).collect();
    assert_eq!(rows.collect::<String>(), should, "{path} lists other metrics");
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let dashboard = std::fs::read_to_string("docs/grafana.json").unwrap();
    let mut shown = 0;
    for (at, _) in dashboard.match_indices("volnet_") {
        let name: String = dashboard[at..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let is = |metric: &Metric| {
            let whole = format!("{}{}", metric.family.name, metric.family.suffix());
            let histogram = metric.family.kind == Kind::Histogram;
            name == whole
                || histogram
                    && ["_bucket", "_sum", "_count"].map(|it| whole.clone() + it).contains(&name)
        };
        assert!(METRICS.iter().any(is), "{name}");
        shown += 1;
    }
    assert!(shown > 10, "{shown}");
}

#[test]
fn names_and_labels_are_as_the_formats_want_them() {
    let text = Text::new(numbers(1), Format::OpenMetrics).whole();
    assert!(text.ends_with("# EOF\n"));
    for metric in &METRICS {
        let Family { name, kind, unit, help } = metric.family;
        assert!(name.starts_with("volnet_") && help.ends_with('.'), "{name}");
        assert!(!name.ends_with("_total"), "{name}");
        assert!(unit.is_none_or(|unit| name.ends_with(&format!("_{unit}"))), "{name}");
        assert!(text.contains(&format!("# TYPE {name} {}\n", kind.as_str())), "{name}");
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| {
                let suffix = rest.split(['{', ' ']).next().unwrap();
                match kind {
                    Kind::Histogram => ["_bucket", "_sum", "_count"].contains(&suffix),
                    Kind::Counter | Kind::Gauge => suffix == metric.family.suffix(),
                }
            })
        });
        let mut some = 0;
        for sample in samples {
            let labels =
                sample.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap());
            let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0));
            let names: Vec<&str> = names.filter(|label| *label != "le").collect();
            assert_eq!(names, metric.labels, "{sample}");
            some += 1;
        }
        assert!(some > 0, "{name} has no sample");
    }
}

#[test]
fn a_text_in_parts_is_the_same_text() {
    for format in [Format::OpenMetrics, Format::Prometheus] {
        for vms in [0, 1, 40] {
            let whole = Text::new(numbers(vms), format).whole();
            for most in [1, 100, 1000] {
                let (mut text, mut parts) = (Text::new(numbers(vms), format), String::new());
                loop {
                    let mut part = Vec::new();
                    let last = text.part(&mut part, most);
                    assert!(part.len() < most + 8192, "{}", part.len());
                    let _ = write!(parts, "{}", String::from_utf8(part).unwrap());
                    if last {
                        break;
                    }
                }
                assert_eq!(parts, whole);
            }
        }
    }
}
