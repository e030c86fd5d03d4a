//! Two servers measured in turn, A B A B, so that changes of the machine's speed affect both alike.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::options::{Plan, Target};
use super::report::Report;
use super::workload;

/// The runs of both servers, round by round.
#[derive(Debug)]
pub(super) struct Comparison {
    rounds: Vec<(Report, Report)>,
}

/// The median and the extremes of the rounds' ratios.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Comparison {
    /// Runs the workload against both servers in turn. If a run was stopped, the error says why.
    pub(super) fn run(plan: &Plan, a: &Target, b: &Target) -> Result<Comparison, String> {
        let round = |number| {
            let label = |server| format!("{server} {number}/{} ", plan.rounds);
            Ok((workload::run(plan, a, &label("A"))?, workload::run(plan, b, &label("B"))?))
        };
        Ok(Comparison { rounds: (1..=plan.rounds).map(round).collect::<Result<_, String>>()? })
    }

    /// The reports of all runs, oldest first.
    pub(super) fn reports(&self) -> Vec<&Report> {
        self.rounds.iter().flat_map(|(a, b)| [a, b]).collect()
    }

    /// The number of messages whose content differs between the servers.
    pub(super) fn differing_messages(&self) -> usize {
        let (a, b) = match self.rounds.first() {
            Some((a, b)) => (&a.tally.hashes, &b.tally.hashes),
            None => return 0,
        };
        a.iter().filter(|(message, hash)| b.get(message).is_some_and(|other| other != *hash)).count()
    }

    /// The errors of all rounds by server and kind: the count, and the first error in full.
    fn errors(&self) -> BTreeMap<(&'static str, &str), (u64, &str)> {
        let mut all = BTreeMap::new();
        for (name, report) in self.rounds.iter().flat_map(|(a, b)| [("A", a), ("B", b)]) {
            for (kind, errors) in &report.tally.errors {
                all.entry((name, &**kind)).or_insert((0, &*errors.example)).0 += errors.count;
            }
        }
        all
    }

    fn ratios(&self) -> Vec<f64> {
        self.rounds.iter().map(|(a, b)| a.figure().ratio(b.figure())).collect()
    }

    pub(super) fn json(&self) -> Value {
        let side = |pick: fn(&(Report, Report)) -> &Report| -> Vec<Value> {
            self.rounds.iter().map(|round| pick(round).json()).collect()
        };
        json!({
            "a": side(|(a, _)| a),
            "b": side(|(_, b)| b),
            "ratio": spread(self.ratios())
                .map(|ratio| json!({ "median": ratio.median, "min": ratio.min, "max": ratio.max })),
            "differing_messages": self.differing_messages(),
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first_a, first_b)) = self.rounds.first() else {
            return Ok(());
        };
        writeln!(f, "{}: A {}, B {}\n", first_a.workload, first_a.address, first_b.address)?;
        for (name, report) in [("A", first_a), ("B", first_b)] {
            for outcome in report.handshakes() {
                writeln!(f, "  {name}: {outcome}")?;
            }
        }
        writeln!(f, "  round{:>20}{:>20}{:>10}  errors A, B", "A", "B", "ratio")?;
        for (number, (a, b)) in (1..).zip(&self.rounds) {
            let (figure_a, figure_b) = (a.figure(), b.figure());
            writeln!(
                f,
                "  {number:<5}{:>20}{:>20}{:>10.3}  {}, {}",
                figure_a.to_string(),
                figure_b.to_string(),
                figure_a.ratio(figure_b),
                a.tally.failed(),
                b.tally.failed()
            )?;
        }
        if let Some(Spread { median, min, max }) = spread(self.ratios()) {
            let unit = first_a.figure().unit;
            writeln!(f, "\nIn {unit} A is {median:.3} times as good as B (from {min:.3} to {max:.3}).")?;
        }
        for ((name, kind), (count, example)) in self.errors() {
            writeln!(f, "{name}: {count} × {kind}; the first: {example}")?;
        }
        match self.differing_messages() {
            0 => Ok(()),
            count => writeln!(f, "{count} messages differ in content between A and B."),
        }
    }
}

/// Returns `None` if a round has no ratio, for example because a server did nothing.
fn spread(mut ratios: Vec<f64>) -> Option<Spread> {
    if ratios.is_empty() || !ratios.iter().all(|ratio| ratio.is_normal()) {
        return None;
    }
    ratios.sort_by(f64::total_cmp);
    let middle = ratios.len() / 2;
    let median = if ratios.len() % 2 == 1 { ratios[middle] } else { (ratios[middle - 1] + ratios[middle]) / 2.0 };
    Some(Spread { median, min: ratios[0], max: ratios[ratios.len() - 1] })
}

#[cfg(test)]
mod tests {
    use super::super::options::Workload;
    use super::super::report::tests::example;
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        let of = |ratios: &[f64]| spread(ratios.to_vec());
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(of(&[1.0, f64::INFINITY]), None);
        assert_eq!(of(&[0.0, 1.0]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn errors_of_all_rounds_are_one_line_for_each_server() {
        let round = || (example(Workload::Retr), example(Workload::Retr));
        let text = Comparison { rounds: vec![round(), round()] }.to_string();
        let errors: Vec<_> = text.lines().filter(|line| line.contains("hang-up")).collect();
        assert_eq!(errors, ["A: 2 × hang-up; the first: the first", "B: 2 × hang-up; the first: the first"]);
    }

    #[test]
    fn a_message_that_differs_between_servers_is_reported() {
        let (a, mut b) = (example(Workload::Retr), example(Workload::Retr));
        b.tally.hashes.insert((0, 1), 8);
        b.tally.hashes.insert((5, 1), 9);
        let comparison = Comparison { rounds: vec![(a, b)] };
        assert_eq!(comparison.differing_messages(), 1);
        assert_eq!(comparison.json()["ratio"]["median"], 1.0);
        assert!(comparison.to_string().contains("1 messages differ"));
    }
}
