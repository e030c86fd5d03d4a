//! The lines of an answer as a table, as lines with tabs, as CSV, or as JSON.

use std::io::stdout;

use rustix::termios::tcgetwinsize;
use serde_json::Value;

use super::brief_report;
use super::csv;
use super::json;
use super::output;
use super::phrases;
use super::table::Table;
use crate::peep::{
    BanLine, Command, DayLine, DeletionLine, EventLine, ExpiryLine, FaultLine, Form, Malformed, NameValue, ReportLine,
    SessionLine,
};
use crate::printable::printable;

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// JSON.
    Json,
    /// Tables with headings, for a person.
    Table,
    /// Fields with a tab between them, for a program.
    Tabs,
    /// CSV with headings, for a spreadsheet.
    Csv,
}

/// The form of the lines of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Text without fields.
    Text,
    /// Settings that a reload could not change.
    Restarts,
    Sessions,
    Bans,
    Expired,
    Deletions,
    Report,
    Days,
    Faults,
    /// What a transform does.
    Comparison,
    /// Names and values, each name once.
    Pairs,
    /// Events. They come without an end, so in JSON each is an object of its own and not part of an array.
    Events,
}

impl Layout {
    fn of(command: &Command) -> Self {
        match command {
            Command::Sessions => Self::Sessions,
            Command::Bans => Self::Bans,
            Command::Expire | Command::WouldExpire => Self::Expired,
            Command::Deletions { .. } => Self::Deletions,
            Command::TestTransform { .. } => Self::Comparison,
            Command::Report { .. } => Self::Report,
            Command::ReportByDay { .. } => Self::Days,
            Command::Faults => Self::Faults,
            Command::Statistics | Command::AboutUser { .. } => Self::Pairs,
            Command::Reload => Self::Restarts,
            command if command.form() == Form::Events => Self::Events,
            _ => Self::Text,
        }
    }

    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Sessions => SessionLine::NAMES,
            Self::Bans => BanLine::NAMES,
            Self::Expired => ExpiryLine::NAMES,
            Self::Deletions => DeletionLine::NAMES,
            Self::Report => ReportLine::NAMES,
            Self::Days => DayLine::NAMES,
            Self::Faults => FaultLine::NAMES,
            Self::Pairs | Self::Comparison => NameValue::NAMES,
            Self::Events => &["event"],
            Self::Text | Self::Restarts => &["line"],
        }
    }

    fn has_fields(self) -> bool {
        !matches!(self, Self::Text | Self::Restarts | Self::Events)
    }

    fn is_pairs(self) -> bool {
        matches!(self, Self::Pairs | Self::Comparison)
    }

    fn values(self, line: &str) -> Result<Vec<Value>, Malformed> {
        Ok(match self {
            Self::Sessions => line.parse::<SessionLine>()?.values(),
            Self::Bans => line.parse::<BanLine>()?.values(),
            Self::Expired => line.parse::<ExpiryLine>()?.values(),
            Self::Deletions => line.parse::<DeletionLine>()?.values(),
            Self::Report => line.parse::<ReportLine>()?.values(),
            Self::Days => line.parse::<DayLine>()?.values(),
            Self::Faults => line.parse::<FaultLine>()?.values(),
            Self::Pairs | Self::Comparison => line.parse::<NameValue>()?.values(),
            Self::Text | Self::Restarts | Self::Events => vec![line.into()],
        })
    }
}

/// Prints the lines of one answer. Each function returns the text to print.
pub(super) struct Listing {
    layout: Layout,
    style: Style,
    table: Option<Table>,
    /// What is printed before the next element of a JSON array or object.
    separator: &'static str,
    /// The headings, if the lines have any.
    headings: Option<Vec<String>>,
}

impl Listing {
    /// The lines that answer `command`.
    pub(super) fn new(command: &Command, style: Style) -> Self {
        Self::with(command, style, false, terminal_columns())
    }

    /// The lines that answer `command`, of several servers.
    pub(super) fn of_servers(command: &Command, style: Style) -> Self {
        Self::with(command, style, true, terminal_columns())
    }

    fn with(command: &Command, style: Style, of_servers: bool, columns: Option<usize>) -> Self {
        let layout = Layout::of(command);
        let has_headings = of_servers || style == Style::Csv || layout.has_fields();
        let server: &[_] = if of_servers { &["server"] } else { &[] };
        let is_brief = layout == Layout::Report && style == Style::Table;
        let names = || match layout.has_fields() {
            _ if is_brief => [server, brief_report::HEADINGS].concat().into_iter().map(str::to_owned).collect(),
            true => [server, layout.names()].concat().into_iter().map(str::to_owned).collect(),
            false => server.iter().copied().map(str::to_owned).chain([phrases::key(command)]).collect(),
        };
        let headings: Option<Vec<_>> = (has_headings && layout != Layout::Events).then(names);
        let fit = columns.filter(|_| is_brief).map(|columns| brief_report::fit(columns, server.len()));
        // The values of names are of different kinds, so that numbers do not form a column.
        let new: fn(&[String]) -> Table = if layout.is_pairs() { Table::of_text } else { Table::new };
        let table = headings.as_ref().filter(|_| style == Style::Table).map(|headings| new(headings).fitting(fit));
        Self { layout, style, table, separator: "", headings }
    }

    /// The names of the fields of a line.
    pub(super) fn names(&self) -> &'static [&'static str] {
        self.layout.names()
    }

    /// The fields of a line.
    pub(super) fn values(&self, line: &str) -> Result<Vec<Value>, Malformed> {
        self.layout.values(line)
    }

    /// What is printed before the lines.
    pub(super) fn begin(&self) -> String {
        match (self.style, self.layout) {
            (Style::Json, Layout::Events) | (Style::Table | Style::Tabs, _) => String::new(),
            (Style::Json, Layout::Pairs) => "{".to_owned(),
            (Style::Json, _) => "[".to_owned(),
            (Style::Csv, _) => self.headings.as_ref().map(|headings| csv::row(headings)).unwrap_or_default(),
        }
    }

    /// A line.
    pub(super) fn line(&mut self, line: &str) -> Result<String, Malformed> {
        self.row(None, line)
    }

    /// A line of a server.
    pub(super) fn row(&mut self, server: Option<&str>, line: &str) -> Result<String, Malformed> {
        let values = self.layout.values(line)?;
        match (self.style, self.layout) {
            (_, Layout::Events) => return Ok(event(server, line, self.style)),
            (Style::Json, _) => return Ok(self.json(&values)),
            (Style::Table | Style::Tabs | Style::Csv, _) => {}
        }
        if self.layout == Layout::Restarts && self.style != Style::Csv {
            let text = format!("needs a restart: {line}");
            return Ok(
                self.cells(server.map(str::to_owned).into_iter().chain([printable(&text).into_owned()]).collect())
            );
        }
        let cell = |(column, value): (usize, &Value)| match (self.style, self.layout) {
            (Style::Csv, _) if value.is_null() => String::new(),
            (Style::Table, Layout::Report) => brief_report::cell(column, value),
            _ => cell(value),
        };
        let server = server.map(|server| printable(server).into_owned());
        Ok(self.cells(server.into_iter().chain(values.iter().enumerate().map(cell)).collect()))
    }

    /// A row of text, for example of sums.
    pub(super) fn cells(&mut self, cells: Vec<String>) -> String {
        match &mut self.table {
            Some(table) => table.row(cells),
            None if self.style == Style::Csv => csv::row(&cells),
            None => cells.join("\t") + "\n",
        }
    }

    fn json(&mut self, values: &[Value]) -> String {
        let names = self.layout.names().iter().copied();
        let element = match (self.layout, values) {
            (Layout::Text | Layout::Restarts, [line, ..]) => json::text(line),
            (Layout::Pairs, [Value::String(name), value]) => {
                let value = value.as_str().map_or(Value::Null, |word| json::named(name, word));
                json::member(name, &value)
            }
            _ => json::object(names.zip(values.iter().cloned())),
        };
        std::mem::replace(&mut self.separator, ",\n ").to_owned() + &element
    }

    /// What is printed behind the lines that have come, if the answer breaks off for this reason. JSON stays whole, and tells
    /// the reason.
    pub(super) fn broken_off(&mut self, reason: &str) -> String {
        let reason = ("error", Value::from(reason));
        let last = match (self.style, self.layout) {
            (Style::Json, Layout::Pairs) => json::member(reason.0, &reason.1),
            (Style::Json, _) => json::object([reason]),
            _ => return self.end(),
        };
        self.separator.to_owned() + &last + &self.end()
    }

    /// What is printed behind the lines.
    pub(super) fn end(&mut self) -> String {
        match (self.style, self.layout) {
            (Style::Json, Layout::Events) => String::new(),
            (Style::Json, Layout::Pairs) => "}\n".to_owned(),
            (Style::Json, _) => "]\n".to_owned(),
            (Style::Table | Style::Tabs | Style::Csv, _) => self.table.as_mut().map(Table::finish).unwrap_or_default(),
        }
    }
}

/// The columns of the terminal, if standard output is one that tells.
fn terminal_columns() -> Option<usize> {
    tcgetwinsize(stdout()).map(|size| size.ws_col.into()).ok().filter(|&columns| columns > 0)
}

/// An event, perhaps of one of several servers.
pub(super) fn event(server: Option<&str>, line: &str, style: Style) -> String {
    let text = match style {
        Style::Json => return event_as_json(server, line) + "\n",
        Style::Table => event_for_a_person(line),
        Style::Tabs | Style::Csv => line.to_owned(),
    };
    server.map(|server| format!("{}\t", printable(server))).unwrap_or_default() + &output::line(&text)
}

/// An event with its values decoded. Those that have a space in them are quoted.
fn event_for_a_person(line: &str) -> String {
    let Ok(EventLine { time, name, fields }) = line.parse() else { return line.to_owned() };
    fields.iter().fold(format!("{time} {name}"), |text, (key, value)| match value.as_deref() {
        Some(value) if value.contains([' ', '"']) || value == "-" => format!("{text} {key}={value:?}"),
        value => format!("{text} {key}={}", value.unwrap_or("-")),
    })
}

/// An event as one object. A line that has no fields is an event without a time.
fn event_as_json(server: Option<&str>, line: &str) -> String {
    let server = server.map(|server| ("server", server.into()));
    let Ok(EventLine { time, name, fields }) = line.parse() else {
        return json::object(server.into_iter().chain([("event", line.into())]));
    };
    let value = |key: &str, word: Option<&str>| word.map_or(Value::Null, |word| json::named_in_event(key, word));
    let fields = fields.iter().map(|(key, word)| (key.as_str(), value(key, word.as_deref())));
    json::object(server.into_iter().chain([("time", time.into()), ("event", name.into())]).chain(fields))
}

/// A value as a field of a line.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => output::line(text).trim_end_matches('\n').to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSIONS: [&str; 2] =
        ["17 pop3s 192.0.2.4 transaction ana 312 4 3 10240 1 TLSv1.3", "2 peep - admin - 0 0 0 0 0 - newer"];

    fn printed(command: &Command, style: Style, lines: &[&str]) -> String {
        let mut listing = Listing::new(command, style);
        let begin = listing.begin();
        lines.iter().fold(begin, |text, line| text + &listing.line(line).unwrap()) + &listing.end()
    }

    #[test]
    fn sessions_are_a_table_tabs_or_objects() {
        assert_eq!(
            printed(&Command::Sessions, Style::Table, &SESSIONS),
            "ID  PROTOCOL  ADDRESS    STATE        USER  AGE  IDLE  RETRIEVED  OCTETS  MARKED  TLS\n\
             17  pop3s     192.0.2.4  transaction  ana   312     4          3   10240       1  TLSv1.3\n \
             2  peep      -          admin        -       0     0          0       0       0  -\n"
        );
        assert_eq!(
            printed(&Command::Sessions, Style::Tabs, &SESSIONS[1..]),
            "2\tpeep\t-\tadmin\t-\t0\t0\t0\t0\t0\t-\n"
        );
        let json = printed(&Command::Sessions, Style::Json, &SESSIONS);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&json[0]["user"], &json[0]["octets"], &json[1]["tls"]),
            (&"ana".into(), &10_240.into(), &Value::Null)
        );
    }

    #[test]
    fn pairs_are_one_object() {
        let lines = ["uptime 17", "version 7", "draining 0", "mail%20directory a%09b", "owner -"];
        let json: Value = serde_json::from_str(&printed(&Command::Statistics, Style::Json, &lines)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"uptime": 17, "version": "7", "draining": false, "mail directory": "a\tb", "owner": null})
        );
        assert_eq!(printed(&Command::Statistics, Style::Tabs, &lines[3..]), "mail directory\ta\\u{9}b\nowner\t-\n");
    }

    #[test]
    fn csv_has_headings_and_quotes() {
        let line = "=a,%22b%22%0A 2026-11-28T02:00:01Z ::1 - - 5 10 CAPA%20USER%20PASS";
        assert_eq!(
            printed(&Command::Report { name: None }, Style::Csv, &[line]),
            "user,last_login,address,last_complete_fetch,never_retrieved,octets_today,octets_30_days,client\n\
             \"=a,\"\"b\"\"\\u{a}\",2026-11-28T02:00:01Z,::1,,,5,10,CAPA USER PASS\n"
        );
        assert_eq!(printed(&Command::Users, Style::Csv, &["ana", "b,c"]), "users\nana\n\"b,c\"\n");
        let mut listing = Listing::of_servers(&Command::ReportByDay { name: None }, Style::Csv);
        let text = listing.begin() + &listing.row(Some("a:1"), "ana 2026-11-28 5").unwrap() + &listing.end();
        assert_eq!(text, "server,user,day,octets\na:1,ana,2026-11-28,5\n");
    }

    /// An account with the longest of usual values, at the widths of usual terminals.
    #[test]
    fn the_report_fits_a_terminal() {
        let line = "ana@example.com 2026-11-28T02:00:01Z 192.0.2.117 2026-11-28T02:00:07Z 1234 123456 98765432109 \
                    CAPA%20USER%20PASS%20STAT";
        let table = |of_servers: bool, columns: usize| {
            let mut listing = Listing::with(&Command::Report { name: None }, Style::Table, of_servers, Some(columns));
            let text = listing.row(of_servers.then_some("mx1:1101"), line).unwrap() + &listing.end();
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{text}");
            text
        };
        assert_eq!(
            table(false, 120),
            "USER             LAST LOGIN        ADDRESS      COMPLETE FETCH    UNFETCHED  TODAY  30 DAYS  CLIENT\n\
             ana@example.com  2026-11-28 02:00  192.0.2.117  2026-11-28 02:00       1234   123k    98.7G  CAPA USER PASS STAT\n"
        );
        assert_eq!(
            table(false, 80),
            "USER             LAST LOGIN        COMPLETE FETCH    UNFETCHED  TODAY  30 DAYS\n\
             ana@example.com  2026-11-28 02:00  2026-11-28 02:00       1234   123k    98.7G\n"
        );
        for columns in [100, 90, 70, 62] {
            table(false, columns);
        }
        assert!(table(true, 100).contains("mx1:1101") && table(true, 120).contains("192.0.2.117"));
    }

    #[test]
    fn text_is_an_array_and_an_empty_answer_too() {
        assert_eq!(printed(&Command::Users, Style::Json, &["ana", "b"]), "[\"ana\",\n \"b\"]\n");
        assert_eq!(printed(&Command::Users, Style::Json, &[]), "[]\n");
        assert_eq!(printed(&Command::Users, Style::Table, &["ana"]), "ana\n");
        assert_eq!(
            printed(&Command::Follow { name: None }, Style::Json, &["x", "now login session=17 user=123 tls=-"]),
            "{\"event\":\"x\"}\n\
             {\"time\":\"now\",\"event\":\"login\",\"session\":17,\"user\":\"123\",\"tls\":null}\n"
        );
    }

    #[test]
    fn names_and_values_are_all_on_the_left() {
        let table = printed(&Command::Statistics, Style::Table, &["uptime 17", "version 0.1.0"]);
        assert_eq!(table, "NAME     VALUE\nuptime   17\nversion  0.1.0\n");
    }

    #[test]
    fn a_reload_says_what_its_lines_are() {
        assert_eq!(printed(&Command::Reload, Style::Tabs, &["peep-socket"]), "needs a restart: peep-socket\n");
        assert_eq!(printed(&Command::Reload, Style::Json, &["peep-socket"]), "[\"peep-socket\"]\n");
    }

    #[test]
    fn json_is_whole_even_if_the_answer_breaks_off() {
        for (command, line, json) in [
            (Command::Users, None, "[{\"error\":\"lost\"}]\n"),
            (Command::Users, Some("ana"), "[\"ana\",\n {\"error\":\"lost\"}]\n"),
            (Command::Statistics, Some("uptime 7"), "{\"uptime\":7,\n \"error\":\"lost\"}\n"),
        ] {
            let mut listing = Listing::new(&command, Style::Json);
            let lines: String = line.iter().map(|line| listing.line(line).unwrap()).collect();
            assert_eq!(listing.begin() + &lines + &listing.broken_off("lost"), json);
        }
    }

    #[test]
    fn events_are_decoded_for_a_person() {
        let follow = Command::Follow { name: None };
        let line = "now login-refused user=a%1Bb reason=wrong%20password tls=-";
        assert_eq!(
            printed(&follow, Style::Table, &[line, "x%20"]),
            "now login-refused user=a\\u{1b}b reason=\"wrong password\" tls=-\nx%20\n"
        );
        assert_eq!(printed(&follow, Style::Tabs, &[line]), format!("{line}\n"));
        assert_eq!(event(Some("a:1"), "now end", Style::Tabs), "a:1\tnow end\n");
        assert_eq!(
            event(Some("a:1"), "now end", Style::Json),
            "{\"server\":\"a:1\",\"time\":\"now\",\"event\":\"end\"}\n"
        );
    }

    #[test]
    fn fields_cannot_steer_a_terminal_or_add_columns() {
        let lines = ["1 pop3 ::1 transaction a%1B[2J%09%E2%80%AE 0 0 0 0 0 -"];
        for style in [Style::Json, Style::Table, Style::Tabs] {
            let text = printed(&Command::Sessions, style, &lines);
            assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
            assert!(text.matches('\t').count() <= 10, "{text:?}");
        }
    }

    #[test]
    fn a_line_that_is_malformed_is_refused() {
        assert_eq!(Listing::new(&Command::Sessions, Style::Json).line("x"), Err(Malformed));
    }
}
