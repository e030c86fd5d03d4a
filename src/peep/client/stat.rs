//! `--stat`: prints a line of rates at each interval, as `redis-cli --stat` does. The counters are those of version 1.0, so
//! that every server has them.

use std::io::Write;
use std::thread;
use std::time::Instant;

use super::connection::Connection;
use super::listing::Style;
use super::{Failure, Options, json, print};
use crate::peep::{Answer, Command};

/// The columns, each with the command whose answer it has.
pub(super) const COLUMNS: [(&str, Command); 6] = [
    ("connections", Command::CurrentConnections),
    ("connected_per_second", Command::AllConnections),
    ("logins_per_second", Command::AllLogins),
    ("retrieved_per_second", Command::RetrievedEmails),
    ("removed_per_second", Command::RemovedEmails),
    ("octets_per_second", Command::RetrievedBytes),
];

/// A value for each column.
pub(super) type Counters = Vec<u64>;

/// The columns' headings on a terminal.
const HEADINGS: &str = "connections  connected/s  logins/s  retrieved/s  removed/s    octets/s\n";

/// The headings are printed again after so many lines.
const LINES_PER_HEADING: u64 = 20;

/// Prints lines until `--repeat` is reached or the program is interrupted.
pub(super) fn run(
    mut servers: Vec<Connection>,
    options: &Options,
    style: Style,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut before = counters(&mut servers)?;
    let mut asked = Instant::now();
    let count = options.repeat.filter(|&count| count > 0).unwrap_or(u64::MAX);
    for printed in 0..count {
        thread::sleep(options.interval);
        let now = counters(&mut servers)?;
        let elapsed = asked.elapsed().as_secs_f64();
        asked = Instant::now();
        if style == Style::Table && printed.is_multiple_of(LINES_PER_HEADING) {
            print(out, HEADINGS)?;
        }
        print(out, &line(&before, &now, elapsed, style))?;
        before = now;
    }
    Ok(())
}

fn line(before: &[u64], now: &[u64], elapsed: f64, style: Style) -> String {
    let values = rates(before, now, elapsed);
    match style {
        Style::Json => {
            json::object(COLUMNS.iter().map(|(name, _)| *name).zip(values.into_iter().map(Into::into))) + "\n"
        }
        Style::Tabs | Style::Csv => values.iter().map(u64::to_string).collect::<Vec<_>>().join("\t") + "\n",
        Style::Table => {
            format!(
                "{:>11}  {:>11}  {:>8}  {:>11}  {:>9}  {:>10}\n",
                values[0], values[1], values[2], values[3], values[4], values[5]
            )
        }
    }
}

/// The values of a line. A counter that starts again, as after a restart of the server, has no rate in that line.
pub(super) fn rates(before: &[u64], now: &[u64], elapsed: f64) -> Counters {
    let rates = before.iter().zip(now).skip(1).map(|(before, now)| per_second(now.saturating_sub(*before), elapsed));
    now.iter().copied().take(1).chain(rates).collect()
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn per_second(count: u64, elapsed: f64) -> u64 {
    (count as f64 / elapsed.max(1e-3)).round() as u64
}

/// The sums of all servers.
pub(super) fn counters(servers: &mut [Connection]) -> Result<Counters, Failure> {
    let sum = |command| servers.iter_mut().map(|server| counter(server, command)).sum();
    COLUMNS.iter().map(|(_, command)| command).map(sum).collect()
}

/// Asks for one counter.
pub(super) fn counter(server: &mut Connection, command: &Command) -> Result<u64, Failure> {
    match server.call(command)? {
        Answer::Value(value) => value.parse().map_err(|_| server.nonsense(format!("+{value}"))),
        Answer::Error(code) => Err(Failure::Answer(code)),
        Answer::Done | Answer::Lines(_) => Err(server.nonsense("+".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: [u64; 6] = [3, 10, 10, 100, 5, 1_000_000];
    const NOW: [u64; 6] = [4, 30, 20, 101, 0, 11_000_000];

    #[test]
    fn a_line_has_rates() {
        assert_eq!(line(&BEFORE, &NOW, 2.0, Style::Tabs), "4\t10\t5\t1\t0\t5000000\n");
        let json: serde_json::Value = serde_json::from_str(&line(&BEFORE, &NOW, 2.0, Style::Json)).unwrap();
        assert_eq!((&json["connections"], &json["octets_per_second"]), (&4.into(), &5_000_000.into()));
    }

    #[test]
    fn values_stand_under_their_headings() {
        let line = line(&BEFORE, &NOW, 2.0, Style::Table);
        assert_eq!(line.len(), HEADINGS.len());
        let ends = |text: &str| {
            let octets = text.trim_end().as_bytes();
            (1..=octets.len())
                .filter(|&at| octets.get(at).is_none_or(|&it| it == b' ') && octets[at - 1] != b' ')
                .collect::<Vec<_>>()
        };
        assert_eq!(ends(&line), ends(HEADINGS));
    }
}
