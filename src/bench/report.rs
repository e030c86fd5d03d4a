//! A run's figures: as a table for people, as JSON, as CSV.

use std::fmt;
use std::hash::Hasher;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use siphasher::sip::SipHasher13;

use super::options::Workload;
use super::tally::{Step, Tally};

/// The percentiles reported of each step.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];

/// The results of one run.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) workload: Workload,
    pub(super) address: String,
    pub(super) clients: usize,
    pub(super) pipeline: usize,
    /// From the start until the last session ended.
    pub(super) elapsed: Duration,
    /// CPU time of this program in the run.
    pub(super) cpu: Duration,
    /// The server's memory in octets, if --pid was given.
    pub(super) pss: Option<u64>,
    pub(super) hashed: bool,
    pub(super) tally: Tally,
}

/// The main number of a workload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) value: f64,
    pub(super) unit: &'static str,
    pub(super) more_is_better: bool,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.unit == "s" { 3 } else { 1 };
        write!(f, "{:.digits$} {}", self.value, self.unit)
    }
}

impl Figure {
    /// How many times better than `other` this is.
    pub(super) fn ratio(self, other: Figure) -> f64 {
        if self.more_is_better { self.value / other.value } else { other.value / self.value }
    }
}

impl Report {
    pub(super) fn figure(&self) -> Figure {
        let (value, unit, more_is_better) = match (self.workload, self.pss) {
            (Workload::Retr, _) => (self.megabytes_per_second(), "MB/s", true),
            (Workload::Sessions, _) => (self.sessions_per_second(), "sessions/s", true),
            (Workload::Logins, _) => (self.sessions_per_second(), "logins/s", true),
            (Workload::Maildrop | Workload::Delete, _) => {
                (milliseconds(self.tally.step(Step::Session), 0.5), "ms/session", false)
            }
            (Workload::Storm, _) => (self.elapsed.as_secs_f64(), "s", false),
            (Workload::Idle, Some(pss)) => (pss as f64 / 1e6, "MB", false),
            (Workload::Idle, None) => (self.tally.sessions as f64, "sessions", true),
        };
        Figure { value, unit, more_is_better }
    }

    fn sessions_per_second(&self) -> f64 {
        per_second(self.tally.sessions as f64, self.elapsed)
    }

    fn megabytes_per_second(&self) -> f64 {
        per_second(self.tally.octets as f64 / 1e6, self.elapsed)
    }

    /// A line for each combination of TLS version, cipher and kind of handshake.
    pub(super) fn handshakes(&self) -> impl Iterator<Item = String> {
        self.tally.handshakes.iter().map(|(agreed, count)| {
            let handshake = if agreed.resumed { "resumed" } else { "full handshake" };
            format!("{} {}, {} × {handshake}", agreed.version(), agreed.cipher(), grouped(*count))
        })
    }

    /// The steps that occurred, with their names and times.
    fn steps(&self) -> impl Iterator<Item = (&'static str, &Histogram<u64>)> {
        let times = |(step, name)| (name, self.tally.step(step));
        Step::ALL.into_iter().map(times).filter(|(_, times)| !times.is_empty())
    }

    /// One hash over the hashes of all messages, the same for the same messages in any order.
    fn digest(&self) -> Option<String> {
        self.hashed.then(|| {
            let mut hasher = SipHasher13::new();
            for hash in self.tally.hashes.values() {
                hasher.write_u64(*hash);
            }
            format!("{:016x}", hasher.finish())
        })
    }

    pub(super) fn json(&self) -> Value {
        let errors = self.tally.errors.iter();
        let figure = self.figure();
        json!({
            "workload": self.workload.to_string(),
            "address": self.address,
            "clients": self.clients,
            "pipeline": self.pipeline,
            "figure": { "value": figure.value, "unit": figure.unit, "more_is_better": figure.more_is_better },
            "seconds": self.elapsed.as_secs_f64(),
            "sessions": self.tally.sessions,
            "sessions_per_second": self.sessions_per_second(),
            "connections": self.tally.connections,
            "logins": self.tally.step(Step::Login).len(),
            "messages": self.tally.messages,
            "octets": self.tally.octets,
            "megabytes_per_second": self.megabytes_per_second(),
            "latency_ms": self.steps().map(|(name, times)| (name.to_owned(), latency(times))).collect::<Map<_, _>>(),
            "tls": self.tally.handshakes.iter()
                .map(|(agreed, count)| json!({
                    "version": agreed.version(),
                    "cipher": agreed.cipher(),
                    "resumed": agreed.resumed,
                    "handshakes": count,
                }))
                .collect::<Vec<_>>(),
            "errors": errors
                .map(|(kind, errors)| json!({ "kind": kind, "count": errors.count, "example": errors.example }))
                .collect::<Vec<_>>(),
            "server_pss_octets": self.pss,
            "hash": self.digest(),
            "popbench_cpu_seconds": self.cpu.as_secs_f64(),
        })
    }
}

fn latency(times: &Histogram<u64>) -> Value {
    let mut values = Map::from_iter([("count".to_owned(), times.len().into())]);
    values.extend(QUANTILES.map(|(name, quantile)| (name.to_owned(), milliseconds(times, quantile).into())));
    Value::Object(values)
}

fn milliseconds(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1e3
}

fn per_second(amount: f64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { amount / elapsed.as_secs_f64() }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on {}: {}", self.workload, self.address, self.figure())?;
        writeln!(f)?;
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<12}{value:>16}");
        row("clients", grouped(self.clients as u64))?;
        row("seconds", format!("{:.3}", self.elapsed.as_secs_f64()))?;
        row("sessions", grouped(self.tally.sessions))?;
        row("sessions/s", format!("{:.1}", self.sessions_per_second()))?;
        if self.workload == Workload::Idle {
            row("logged in", grouped(self.tally.step(Step::Login).len()))?;
        }
        if self.tally.messages > 0 {
            row("messages", grouped(self.tally.messages))?;
        }
        if self.tally.octets > 0 {
            row("octets", grouped(self.tally.octets))?;
            row("MB/s", format!("{:.1}", self.megabytes_per_second()))?;
        }
        if let Some(pss) = self.pss {
            row("server PSS", format!("{:.1} MB", pss as f64 / 1e6))?;
        }
        if let Some(digest) = self.digest() {
            row("hash", digest)?;
        }
        row("own CPU", format!("{:.3} s", self.cpu.as_secs_f64()))?;

        for outcome in self.handshakes() {
            writeln!(f, "  {outcome}")?;
        }

        writeln!(f, "\n  {:<12}{:>10}{:>10}{:>10}{:>10}{:>10}", "ms", "count", "p50", "p90", "p99", "max")?;
        for (name, times) in self.steps() {
            write!(f, "  {name:<12}{:>10}", times.len())?;
            for (_, quantile) in QUANTILES {
                write!(f, "{:>10.3}", milliseconds(times, quantile))?;
            }
            writeln!(f)?;
        }

        writeln!(f, "\n  {:<12}{:>16}", "errors", grouped(self.tally.failed()))?;
        for (kind, errors) in &self.tally.errors {
            writeln!(f, "    {} × {kind}; the first: {}", grouped(errors.count), errors.example)?;
        }
        Ok(())
    }
}

/// A heading and a line for each run. The fields of a step that did not occur are empty.
pub(super) fn csv(reports: &[&Report]) -> String {
    let mut heading = "workload,address,clients,pipeline,figure,unit,seconds,sessions,messages,octets,errors,\
                       server_pss_octets,hash,popbench_cpu_seconds,tls_version,tls_cipher"
        .to_owned();
    for (_, step) in Step::ALL {
        for (quantile, _) in QUANTILES {
            heading += &format!(",{step}_{quantile}_ms");
        }
    }
    let mut text = heading + "\n";
    for report in reports {
        text += &csv_line(report);
        text += "\n";
    }
    text
}

fn csv_line(report: &Report) -> String {
    let Report { workload, address, clients, pipeline, tally, .. } = report;
    let Figure { value, unit, .. } = report.figure();
    let agreed = tally.handshakes.keys().next();
    let mut line = format!(
        "{workload},{address},{clients},{pipeline},{value},{unit},{},{},{},{},{},{},{},{},{},{}",
        report.elapsed.as_secs_f64(),
        tally.sessions,
        tally.messages,
        tally.octets,
        tally.failed(),
        report.pss.map_or(String::new(), |pss| pss.to_string()),
        report.digest().unwrap_or_default(),
        report.cpu.as_secs_f64(),
        agreed.map_or_else(String::new, |agreed| agreed.version()),
        agreed.map_or_else(String::new, |agreed| agreed.cipher()),
    );
    for (step, _) in Step::ALL {
        let times = tally.step(step);
        for (_, quantile) in QUANTILES {
            line += ",";
            if !times.is_empty() {
                line += &milliseconds(times, quantile).to_string();
            }
        }
    }
    line
}

/// 1234567 as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tally::Record;
    use super::*;

    /// Two sessions in half a second, 3 MB in all, and one hang-up.
    pub(in super::super) fn example(workload: Workload) -> Report {
        let mut tally = Tally::new();
        let record = Record {
            connected: true,
            times: vec![(Step::Login, Duration::from_millis(2)), (Step::Session, Duration::from_millis(20))],
            agreed: None,
            messages: 1,
            octets: 1_500_000,
            hashes: vec![((0, 1), 7)],
        };
        tally.add(&record, Ok(()));
        tally.add(&record, Ok(()));
        tally.fail("hang-up", || "the first".to_owned());
        Report {
            workload,
            address: "[::1]:110".to_owned(),
            clients: 2,
            pipeline: 1,
            elapsed: Duration::from_millis(500),
            cpu: Duration::from_millis(125),
            pss: None,
            hashed: false,
            tally,
        }
    }

    #[test]
    fn each_workload_has_one_figure() {
        let figure = |workload| example(workload).figure();
        assert_eq!(figure(Workload::Retr).value, 6.0);
        assert_eq!(figure(Workload::Sessions).value, 4.0);
        assert_eq!(figure(Workload::Logins).value, 4.0);
        assert_eq!(figure(Workload::Storm).value, 0.5);
        assert_eq!(figure(Workload::Idle).value, 2.0);
        assert!((figure(Workload::Maildrop).value - 20.0).abs() < 0.1);
    }

    #[test]
    fn a_ratio_says_how_many_times_better() {
        let figure = |value, more_is_better| Figure { value, unit: "", more_is_better };
        assert_eq!(figure(10.0, true).ratio(figure(5.0, true)), 2.0);
        assert_eq!(figure(5.0, false).ratio(figure(10.0, false)), 2.0);
    }

    #[test]
    fn every_csv_line_has_the_fields_of_the_heading() {
        let text = csv(&[&example(Workload::Retr), &example(Workload::Idle)]);
        let fields: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(fields, [16 + 28; 3]);
    }

    #[test]
    fn json_leaves_out_steps_that_did_not_happen() {
        let json = example(Workload::Retr).json();
        assert_eq!(json["latency_ms"]["login"]["count"], 2);
        assert!(json["latency_ms"].get("uidl").is_none());
        assert_eq!(json["errors"][0]["kind"], "hang-up");
        assert_eq!(json["hash"], Value::Null);
    }

    #[test]
    fn a_digest_is_printed_when_it_was_asked_for() {
        let report = Report { hashed: true, ..example(Workload::Retr) };
        assert!(report.to_string().contains(&report.digest().unwrap()));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        assert!(cases.iter().all(|&(number, text)| grouped(number) == text));
    }

    #[test]
    fn a_run_without_sessions_does_not_divide_by_zero() {
        let report = Report { elapsed: Duration::ZERO, tally: Tally::new(), ..example(Workload::Sessions) };
        assert_eq!(report.figure().value, 0.0);
        assert!(report.json()["sessions_per_second"] == 0.0);
    }
}
