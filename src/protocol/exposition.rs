//! Metrics as text: OpenMetrics 1.0 (openmetrics.io), and the older format of Prometheus (0.0.4).
//!
//! A *family* has a name, a kind and its meaning, which come first; its *samples* follow, each with
//! labels and a value. The two formats differ in the name that a family of counters has in its
//! head, in the line about units, and in the last line.

use std::fmt::{self, Display, Write};

/// The format of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4, which every scraper reads.
    Prometheus,
}

impl Format {
    /// The media type of a text.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Writes what comes after the last family.
    pub fn end(self, out: &mut Vec<u8>) {
        match self {
            Format::OpenMetrics => out.extend_from_slice(b"# EOF\n"),
            Format::Prometheus => {}
        }
    }
}

/// The kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until whoever counts begins anew.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many values were not above each of some bounds, and their sum.
    Histogram,
}

impl Kind {
    /// The kind as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A family of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name; that of a counter without `_total`.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The unit of its values, with which its name ends.
    pub unit: Option<&'static str>,
    /// Its meaning, in a sentence.
    pub help: &'static str,
}

impl Family {
    /// What stands behind the name of its samples.
    pub fn suffix(&self) -> &'static str {
        match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge | Kind::Histogram => "",
        }
    }

    /// Writes what comes before its samples.
    pub fn head(&self, out: &mut Vec<u8>, format: Format) {
        let Family { name, kind, unit, help } = self;
        let suffix = if format == Format::Prometheus { self.suffix() } else { "" };
        put(out, format_args!("# HELP {name}{suffix} {help}\n"));
        put(out, format_args!("# TYPE {name}{suffix} {}\n", kind.as_str()));
        if let (Format::OpenMetrics, Some(unit)) = (format, unit) {
            put(out, format_args!("# UNIT {name} {unit}\n"));
        }
    }

    /// Writes a sample.
    pub fn sample(&self, out: &mut Vec<u8>, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.part(out, self.suffix(), labels, &value);
    }

    /// Writes a histogram: `buckets` has how many values were not above each bound and above the
    /// one before it, and then how many were above all.
    pub fn histogram(
        &self,
        out: &mut Vec<u8>,
        labels: &[(&str, &dyn Display)],
        buckets: &[(&dyn Display, u64)],
        sum: impl Display,
    ) {
        let mut below = 0;
        for (bound, count) in buckets {
            below += count;
            let labels: Vec<_> = labels.iter().copied().chain([("le", *bound)]).collect();
            self.part(out, "_bucket", &labels, &below);
        }
        self.part(out, "_sum", labels, &sum);
        self.part(out, "_count", labels, &below);
    }

    fn part(
        &self,
        out: &mut Vec<u8>,
        suffix: &str,
        labels: &[(&str, &dyn Display)],
        value: &dyn Display,
    ) {
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(suffix.as_bytes());
        for (at, (label, text)) in labels.iter().enumerate() {
            put(out, format_args!("{}{label}=\"", if at == 0 { '{' } else { ',' }));
            let _ = write!(Escaped(out), "{text}");
            out.push(b'"');
        }
        put(out, format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
    }
}

/// Microseconds, written as seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Appends a text.
fn put(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    let _ = Plain(out).write_fmt(text);
}

struct Plain<'a>(&'a mut Vec<u8>);

impl Write for Plain<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The value of a label: a backslash, a quote and the end of a line are escaped.
struct Escaped<'a>(&'a mut Vec<u8>);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match byte {
                b'\\' => self.0.extend_from_slice(b"\\\\"),
                b'"' => self.0.extend_from_slice(b"\\\""),
                b'\n' => self.0.extend_from_slice(b"\\n"),
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Family = Family {
        name: "a_sent_bytes",
        kind: Kind::Counter,
        unit: Some("bytes"),
        help: "Bytes that were sent.",
    };

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_head_of_a_counter_has_its_suffix_in_one_format_alone() {
        let help = "Bytes that were sent.";
        assert_eq!(
            text(|out| SENT.head(out, Format::OpenMetrics)),
            format!(
                "# HELP a_sent_bytes {help}\n# TYPE a_sent_bytes counter\n\
                 # UNIT a_sent_bytes bytes\n"
            )
        );
        assert_eq!(
            text(|out| SENT.head(out, Format::Prometheus)),
            format!("# HELP a_sent_bytes_total {help}\n# TYPE a_sent_bytes_total counter\n")
        );
    }

    #[test]
    fn labels_are_escaped() {
        let labels: [(&str, &dyn Display); 2] = [("vm", &"a\"b\\c\nd"), ("nic", &0)];
        assert_eq!(
            text(|out| SENT.sample(out, &labels, 7)),
            "a_sent_bytes_total{vm=\"a\\\"b\\\\c\\nd\",nic=\"0\"} 7\n"
        );
        assert_eq!(text(|out| SENT.sample(out, &[], 7)), "a_sent_bytes_total 7\n");
    }

    #[test]
    fn a_histogram_counts_up() {
        let family = Family { kind: Kind::Histogram, name: "a_seconds", ..SENT };
        let buckets: [(&dyn Display, u64); 3] = [(&"0.001", 2), (&"1", 0), (&"+Inf", 1)];
        assert_eq!(
            text(|out| family.histogram(out, &[("m", &"x")], &buckets, Seconds(2_500_000))),
            "a_seconds_bucket{m=\"x\",le=\"0.001\"} 2\na_seconds_bucket{m=\"x\",le=\"1\"} 2\n\
             a_seconds_bucket{m=\"x\",le=\"+Inf\"} 3\na_seconds_sum{m=\"x\"} 2.500000\n\
             a_seconds_count{m=\"x\"} 3\n"
        );
    }
}
