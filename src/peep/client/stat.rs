//! `--stat`: prints a line of rates at each interval, as `redis-cli --stat` does. The counters are those of version 1.0, so
//! that every server has them.

use std::io::{self, Write};
use std::thread;
use std::time::Instant;

use super::connection::Connection;
use super::listing::Style;
use super::target::Target;
use super::together::SUM;
use super::{Failure, Options, csv, json, print};
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

/// A server that is asked again and again.
struct Watched {
    name: String,
    connection: Connection,
    before: Counters,
    asked: Instant,
}

impl Watched {
    fn open(target: &Target, options: &Options) -> Result<Self, Failure> {
        let mut connection = Connection::to(target, options)?;
        let before = counters(&mut connection)?;
        Ok(Self { name: target.to_string(), connection, before, asked: Instant::now() })
    }

    /// The rates since the last time.
    fn rates(&mut self) -> Result<Counters, Failure> {
        let now = counters(&mut self.connection)?;
        let rates = rates(&self.before, &now, self.asked.elapsed().as_secs_f64());
        (self.before, self.asked) = (now, Instant::now());
        Ok(rates)
    }
}

/// Prints lines until `--repeat` is reached or the program is interrupted. Of several servers each has its line, and one
/// that is lost is reported and left out.
pub(super) fn run(options: &Options, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    let targets = options.targets();
    if let [target] = &targets[..] {
        let mut server = Watched::open(target, options)?;
        return again_and_again(options, style, None, out, || Ok(vec![(None, server.rates()?)]));
    }
    let mut worst = 0;
    let mut reported = |failure: Failure| {
        let _ = writeln!(io::stderr(), "{failure}"); // the exit status still tells
        worst = failure.exit_code().max(worst);
    };
    let open = |target: &Target| Watched::open(target, options).map_err(&mut reported).ok();
    let mut servers: Vec<_> = targets.iter().filter_map(open).collect();
    let width = targets.iter().map(|target| target.to_string().len()).max();
    again_and_again(options, style, width, out, || {
        let mut rows = Vec::new();
        servers.retain_mut(|server| match server.rates() {
            Ok(rates) => {
                rows.push((Some(server.name.clone()), rates));
                true
            }
            Err(failure) => {
                reported(failure);
                false
            }
        });
        if rows.is_empty() {
            return Err(Failure::Printed(3));
        }
        if matches!(style, Style::Table | Style::Tabs) {
            let sum = |column: usize| rows.iter().map(|(_, rates)| rates[column]).fold(0, u64::saturating_add);
            let sums = (0..COLUMNS.len()).map(sum).collect();
            rows.push((Some(SUM.to_owned()), sums));
        }
        Ok(rows)
    })?;
    if worst == 0 { Ok(()) } else { Err(Failure::Printed(worst)) }
}

/// A line's server, if there are several, and its values.
type Row = (Option<String>, Counters);

/// Prints the rows that `next` returns, `--repeat` times. `width` is that of the servers' names.
fn again_and_again(
    options: &Options,
    style: Style,
    width: Option<usize>,
    out: &mut impl Write,
    mut next: impl FnMut() -> Result<Vec<Row>, Failure>,
) -> Result<(), Failure> {
    let count = options.repeat.filter(|&count| count > 0).unwrap_or(u64::MAX);
    for printed in 0..count {
        thread::sleep(options.interval);
        let rows = next()?;
        match style {
            Style::Table if printed.is_multiple_of(LINES_PER_HEADING) => print(out, &headings(width))?,
            Style::Csv if printed == 0 => {
                let server = width.map(|_| "server");
                let names = server.into_iter().chain(COLUMNS.iter().map(|(name, _)| *name));
                print(out, &csv::row(&names.map(str::to_owned).collect::<Vec<_>>()))?;
            }
            _ => {}
        }
        let text: String = rows.iter().map(|(server, values)| line(server.as_deref(), values, width, style)).collect();
        print(out, &text)?;
    }
    Ok(())
}

fn headings(width: Option<usize>) -> String {
    width.map(|width| format!("{:<width$}  ", "server")).unwrap_or_default() + HEADINGS
}

fn line(server: Option<&str>, values: &[u64], width: Option<usize>, style: Style) -> String {
    let cells = || server.map(str::to_owned).into_iter().chain(values.iter().map(u64::to_string)).collect::<Vec<_>>();
    match style {
        Style::Json => {
            let server = server.map(|server| ("server", server.into()));
            let values = COLUMNS.iter().map(|(name, _)| *name).zip(values.iter().map(|&value| value.into()));
            json::object(server.into_iter().chain(values)) + "\n"
        }
        Style::Tabs => cells().join("\t") + "\n",
        Style::Csv => csv::row(&cells()),
        Style::Table => {
            let server = server.zip(width).map(|(server, width)| format!("{server:<width$}  ")).unwrap_or_default();
            format!(
                "{server}{:>11}  {:>11}  {:>8}  {:>11}  {:>9}  {:>10}\n",
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

/// Asks for the counters of all columns.
pub(super) fn counters(server: &mut Connection) -> Result<Counters, Failure> {
    COLUMNS.iter().map(|(_, command)| counter(server, command)).collect()
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

    fn printed(server: Option<&str>, style: Style) -> String {
        line(server, &rates(&BEFORE, &NOW, 2.0), server.map(|_| 8), style)
    }

    #[test]
    fn a_line_has_rates() {
        assert_eq!(printed(None, Style::Tabs), "4\t10\t5\t1\t0\t5000000\n");
        assert_eq!(printed(None, Style::Csv), "4,10,5,1,0,5000000\n");
        assert_eq!(printed(Some("a:1"), Style::Tabs), "a:1\t4\t10\t5\t1\t0\t5000000\n");
        let json: serde_json::Value = serde_json::from_str(&printed(Some("a:1"), Style::Json)).unwrap();
        assert_eq!(
            (&json["server"], &json["connections"], &json["octets_per_second"]),
            (&"a:1".into(), &4.into(), &5_000_000.into())
        );
    }

    #[test]
    fn values_stand_under_their_headings() {
        let line = printed(None, Style::Table);
        assert_eq!(line.len(), HEADINGS.len());
        assert_eq!(printed(Some("a:1"), Style::Table), format!("a:1       {line}"));
        assert_eq!(headings(Some(8)), format!("server    {HEADINGS}"));
        let ends = |text: &str| {
            let octets = text.trim_end().as_bytes();
            (1..=octets.len())
                .filter(|&at| octets.get(at).is_none_or(|&it| it == b' ') && octets[at - 1] != b' ')
                .collect::<Vec<_>>()
        };
        assert_eq!(ends(&line), ends(HEADINGS));
    }
}
