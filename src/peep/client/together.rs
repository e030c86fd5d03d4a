//! The answers of several servers to one command, as one table or one JSON array, with sums.

use std::collections::BTreeMap;

use serde_json::Value;

use super::listing::{Listing, Style};
use super::output::bare;
use super::table::Table;
use super::{csv, json, phrases};
use crate::peep::{Answer, Command, ErrorCode, NameValue, TestedLogin};

/// A whole answer.
pub(super) type Answered = (Answer, Vec<String>);

/// What a server has answered, or why it has not.
pub(super) type Outcome = Result<Answered, String>;

/// What a row of sums has in the server's column.
pub(super) const SUM: &str = "sum";

/// The columns of tables that have a sum.
const SUMMED: [&str; 7] =
    ["retrieved", "octets", "marked", "messages", "never_retrieved", "octets_today", "octets_30_days"];

/// Integers of `s?` and `i?` whose sum means nothing, by the end of their names.
const NOT_SUMMED: [&str; 13] = [
    "pid",
    "per_address",
    "peep_viewers",
    "uptime",
    "timeout",
    "draining",
    "transform",
    "tls",
    "cleartext",
    "session",
    "_seconds",
    "min_rate_octets",
    "version",
];

/// The answers as text. Servers that have not answered, and those that answered with an error, are left out; in JSON they
/// have an error. If a line does not have the form of the command's answers, that line is the error.
pub(super) fn text(command: &Command, answers: &[(String, Outcome)], style: Style) -> Result<String, String> {
    if style == Style::Json {
        return as_json(command, answers);
    }
    let good: Vec<_> = answers
        .iter()
        .filter_map(|(name, answer)| Some((name.as_str(), answer.as_ref().ok()?)))
        .filter(|(_, (answer, _))| !matches!(answer, Answer::Error(_)))
        .collect();
    if good.iter().all(|(_, (answer, _))| !matches!(answer, Answer::Lines(_))) {
        return Ok(values(command, &good, style));
    }
    let mut listing = Listing::of_servers(command, style);
    let mut text = listing.begin();
    for (name, (_, lines)) in &good {
        for line in lines {
            text += &listing.row(Some(name), line).map_err(|_| line.clone())?;
        }
    }
    let lines = good.iter().flat_map(|(_, (_, lines))| lines.iter().map(String::as_str));
    if style != Style::Csv {
        sums(command, &listing, lines).into_iter().for_each(|row| text += &listing.cells(row));
    }
    Ok(text + &listing.end())
}

/// A row for each server with its value, and their sum if it means something.
fn values(command: &Command, answers: &[(&str, &Answered)], style: Style) -> String {
    let shown = |answer: &Answer| match (command, answer) {
        (Command::TestLogin { .. }, Answer::Value(value)) => TestedLogin::read(value).reason,
        (_, answer) => bare(answer).trim_end().to_owned(),
    };
    let row = |(name, (answer, _)): &(&str, &Answered)| match &*shown(answer) {
        "" => vec![(*name).to_owned(), "OK".to_owned()],
        value => vec![(*name).to_owned(), value.to_owned()],
    };
    let mut rows: Vec<_> = answers.iter().map(row).collect();
    let is_amount = !matches!(
        command,
        Command::Timeout | Command::LogLevel | Command::Draining | Command::Maildir | Command::TestLogin { .. }
    );
    let numbers: Option<Vec<u128>> = rows.iter().map(|row| row[1].parse().ok()).collect();
    if let Some(numbers) = numbers.filter(|numbers| is_amount && style != Style::Csv && !numbers.is_empty()) {
        rows.push(vec![SUM.to_owned(), numbers.iter().sum::<u128>().to_string()]);
    }
    let names = ["server".to_owned(), phrases::key(command)];
    match style {
        Style::Tabs => return rows.iter().map(|row| row.join("\t") + "\n").collect(),
        Style::Csv => return csv::row(&names) + &rows.iter().map(|row| csv::row(row)).collect::<String>(),
        Style::Table | Style::Json => {}
    }
    let mut table = Table::new(&names.each_ref().map(String::as_str));
    let text: String = rows.into_iter().map(|row| table.row(row)).collect();
    text + &table.finish()
}

/// The rows of sums for the lines of all servers.
fn sums<'a>(command: &Command, listing: &Listing, lines: impl Iterator<Item = &'a str>) -> Vec<Vec<String>> {
    if !matches!(command, Command::Statistics | Command::AboutUser { .. }) {
        return column_sums(listing, lines).into_iter().collect();
    }
    let mut sums = BTreeMap::<String, u128>::new();
    for pair in lines.filter_map(|line| line.parse::<NameValue>().ok()) {
        let amount = pair.value.and_then(|value| value.parse::<u64>().ok());
        if let Some(amount) = amount.filter(|_| !NOT_SUMMED.iter().any(|end| pair.name.ends_with(end))) {
            *sums.entry(pair.name).or_default() += u128::from(amount);
        }
    }
    sums.into_iter().map(|(name, sum)| vec![SUM.to_owned(), name, sum.to_string()]).collect()
}

/// The row with the sum of each column of amounts, if there are any.
fn column_sums<'a>(listing: &Listing, lines: impl Iterator<Item = &'a str>) -> Option<Vec<String>> {
    let names = listing.names();
    if !names.iter().any(|name| SUMMED.contains(name)) {
        return None;
    }
    let mut sums = vec![0_u128; names.len()];
    for values in lines.filter_map(|line| listing.values(line).ok()) {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += u128::from(value.as_u64().unwrap_or_default());
        }
    }
    let cell = |(name, sum): (&&str, u128)| if SUMMED.contains(name) { sum.to_string() } else { "-".to_owned() };
    Some([SUM.to_owned()].into_iter().chain(names.iter().zip(sums).map(cell)).collect())
}

/// An array with an object for each server, whose `answer` is what a single server's answer is in JSON.
fn as_json(command: &Command, answers: &[(String, Outcome)]) -> Result<String, String> {
    let mut objects = Vec::new();
    for (name, answer) in answers {
        let server = json::member("server", &name.as_str().into());
        let rest = match answer {
            Err(why) => json::member("error", &why.as_str().into()),
            Ok((Answer::Error(code), _)) => error_members(*code),
            Ok((Answer::Lines(_), lines)) => {
                let mut listing = Listing::new(command, Style::Json);
                let mut text = listing.begin();
                for line in lines {
                    text += &listing.line(line).map_err(|_| line.clone())?;
                }
                format!("\"answer\":{}{}", text, listing.end().trim_end())
            }
            Ok((answer, _)) => format!("\"answer\":{}", json::answer(command, &phrases::key(command), answer)),
        };
        objects.push(format!("{{{server},{rest}}}"));
    }
    Ok(format!("[{}]\n", objects.join(",\n ")))
}

fn error_members(code: ErrorCode) -> String {
    json::member("error", &code.to_string().into()) + "," + &json::member("code", &Value::from(code.number()))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Given<'a> = (Answer, &'a [&'a str]);

    fn answers(given: &[(&str, Option<Given<'_>>)]) -> Vec<(String, Outcome)> {
        let whole = |(answer, lines): &Given<'_>| (answer.clone(), lines.iter().map(ToString::to_string).collect());
        let outcome = |answer: &Option<Given<'_>>| answer.as_ref().map(whole).ok_or_else(|| "it is down".to_owned());
        given.iter().map(|(name, answer)| ((*name).to_owned(), outcome(answer))).collect()
    }

    #[test]
    fn values_have_a_sum_where_it_means_something() {
        let both = answers(&[
            ("a:1", Some((Answer::Value("10".into()), &[]))),
            ("b:1", Some((Answer::Value("5".into()), &[]))),
            ("c:1", None),
        ]);
        let text = |command: &Command| text(command, &both, Style::Tabs).unwrap();
        assert_eq!(text(&Command::AllLogins), "a:1\t10\nb:1\t5\nsum\t15\n");
        assert_eq!(text(&Command::Timeout), "a:1\t10\nb:1\t5\n");
        let table = super::text(&Command::AllLogins, &both, Style::Table).unwrap();
        assert_eq!(
            table,
            "SERVER  ALL TIME LOGGED AMOUNT\na:1                         10\nb:1                          5\n\
                           sum                         15\n"
        );
    }

    #[test]
    fn lines_have_their_server_in_front() {
        let session = "17 pop3 ::1 transaction ana 9 4 3 1000 1 -";
        let both = answers(&[
            ("a:1", Some((Answer::Lines(1), &[session]))),
            ("b:1", Some((Answer::Lines(2), &[session, session]))),
        ]);
        let tabs = text(&Command::Sessions, &both, Style::Tabs).unwrap();
        assert!(tabs.starts_with("a:1\t17\tpop3\t"), "{tabs}");
        assert!(tabs.ends_with("sum\t-\t-\t-\t-\t-\t-\t-\t9\t3000\t3\t-\n"), "{tabs}");
        let report = "ana - - - 2 10 30 -";
        let both = answers(&[
            ("a:1", Some((Answer::Lines(1), &[report]))),
            ("b:1", Some((Answer::Lines(1), &["bob - - - - 5 7 -"]))),
        ]);
        let tabs = text(&Command::Report { name: None }, &both, Style::Tabs).unwrap();
        assert!(tabs.ends_with("\nsum\t-\t-\t-\t-\t2\t15\t37\t-\n"), "{tabs}");
        let pairs = answers(&[
            ("a:1", Some((Answer::Lines(2), &["logins 3", "uptime 9"]))),
            ("b:1", Some((Answer::Lines(2), &["logins 4", "uptime 9"]))),
        ]);
        let tabs = text(&Command::Statistics, &pairs, Style::Tabs).unwrap();
        assert_eq!(tabs, "a:1\tlogins\t3\na:1\tuptime\t9\nb:1\tlogins\t4\nb:1\tuptime\t9\nsum\tlogins\t7\n");
    }

    #[test]
    fn json_tells_of_every_server() {
        let all = answers(&[
            ("a:1", Some((Answer::Lines(1), &["ana"]))),
            ("b:1", Some((Answer::Error(ErrorCode::UnknownCommand), &[]))),
            ("c:1", None),
            ("d:1", Some((Answer::Lines(0), &[]))),
        ]);
        let json: Value = serde_json::from_str(&text(&Command::Users, &all, Style::Json).unwrap()).unwrap();
        assert_eq!(
            json,
            serde_json::json!([
                {"server": "a:1", "answer": ["ana"]},
                {"server": "b:1", "error": "Unknown server command", "code": 0},
                {"server": "c:1", "error": "it is down"},
                {"server": "d:1", "answer": []},
            ])
        );
    }

    #[test]
    fn a_line_that_is_malformed_is_told() {
        let wrong = answers(&[("a:1", Some((Answer::Lines(1), &["x"])))]);
        assert_eq!(text(&Command::Sessions, &wrong, Style::Tabs), Err("x".to_owned()));
    }
}
