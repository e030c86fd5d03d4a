//! The text of an account source: a table of TOML. Its key `kind` selects the struct whose fields the other keys are.

use std::str::FromStr;

use clap::{Arg, Command, CommandFactory, Parser};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Kind;
use crate::config::file::{arguments, check, find, keys, nearest};
use crate::config::{command_line, show};

/// The key that selects the kind.
const KIND: &str = "kind";

/// The kinds as subcommands, for clap.
#[derive(Debug, Parser)]
#[command(name = "accounts", disable_help_flag = true, disable_help_subcommand = true)]
struct Source {
    #[command(subcommand)]
    kind: Kind,
}

/// The table of one account source.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct Table {
    pub(super) kind: Kind,
    /// The keys and values, as between the braces of an inline table of TOML.
    text: String,
}

/// Does not show the text, which may have a password in it.
impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kind.fmt(f)
    }
}

impl Table {
    /// The table as a configuration file has it, on one line.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl FromStr for Table {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let document = format!("table = {{ {text} }}");
        let parsed = DeTable::parse(&document).map_err(|error| error.message().to_owned())?;
        match parsed.get_ref().get("table").map(Spanned::get_ref) {
            Some(DeValue::Table(table)) => match read(table) {
                Ok(kind) => Ok(Self { kind, text: text.to_owned() }),
                Err(faults) => Err(faults.into_iter().map(|(what, _)| what).collect::<Vec<_>>().join("; ")),
            },
            _ => Err("it has to be keys and values, as in kind = \"users-file\", file = \"users\"".to_owned()),
        }
    }
}

/// Checks a table of a configuration file, and returns it as the value of `--accounts`.
///
/// # Errors
/// All faults, each with its place in the file, if that is not the table itself.
pub(in crate::config) fn in_file(table: &DeTable<'_>) -> Result<String, Vec<(String, Option<usize>)>> {
    read(table).map(|_| inline(table))
}

fn read(table: &DeTable<'_>) -> Result<Kind, Vec<(String, Option<usize>)>> {
    let mut command = Source::command();
    command.build();
    let kind = kind(&command, table).map_err(|fault| vec![fault])?;
    let (mut words, mut faults) = (vec!["accounts".to_owned(), kind.get_name().to_owned()], Vec::new());
    for (key, value) in table.iter().filter(|(key, _)| key.get_ref() != KIND) {
        match values(kind, key.get_ref(), value) {
            Ok(arguments) => words.extend(arguments),
            Err((what, at)) => faults.push((what, Some(at.unwrap_or(key.span().start)))),
        }
    }
    let missing = keys(kind).filter(|key| key.is_required_set()).filter_map(Arg::get_long);
    let missing = missing.filter(|key| !table.contains_key(*key));
    faults
        .extend(missing.map(|key| (format!("an account source of the kind {} needs {key:?}", kind.get_name()), None)));
    if !faults.is_empty() {
        return Err(faults);
    }
    let parsed = Source::try_parse_from(words).map(|source| source.kind);
    parsed.map_err(|error| vec![(command_line::of_a_value(&error), None)])
}

/// Returns the command with the keys of the table's kind.
fn kind<'c>(command: &'c Command, table: &DeTable<'_>) -> Result<&'c Command, (String, Option<usize>)> {
    let names = || command.get_subcommands().map(Command::get_name).collect::<Vec<_>>().join(", ");
    let Some(kind) = table.get(KIND) else {
        return Err((format!("an account source needs its {KIND:?}, which is one of {}", names()), None));
    };
    let named = kind.get_ref().as_str().and_then(|name| command.find_subcommand(name));
    named.ok_or_else(|| {
        (format!("{KIND}: there are these kinds of account sources: {}", names()), Some(kind.span().start))
    })
}

/// Returns a key and its value as flags. The error says what is wrong, and where if it is not the key.
fn values(kind: &Command, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, (String, Option<usize>)> {
    let Some(flag) = find(kind, key) else {
        let name = kind.get_name();
        let near = nearest(kind, key).map(|near| format!("; there is {near:?}")).unwrap_or_default();
        return Err((format!("an account source of the kind {name} has no {key:?}{near}"), None));
    };
    let wrong = |what: String, at| (format!("{key}: {what}"), Some(at));
    let arguments = arguments(flag, value).map_err(|(what, at)| wrong(what, at))?;
    for (argument, at) in &arguments {
        check(kind, argument).map_err(|what| wrong(what, *at))?;
    }
    Ok(arguments.into_iter().map(|(argument, _)| argument).collect())
}

/// Writes the keys and values of a table on one line.
fn inline(table: &DeTable<'_>) -> String {
    let pairs = table.iter().map(|(key, value)| format!("{} = {}", key.get_ref(), inline_value(value.get_ref())));
    pairs.collect::<Vec<_>>().join(", ")
}

fn inline_value(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()).to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Array(values) => {
            format!("[{}]", values.iter().map(|value| inline_value(value.get_ref())).collect::<Vec<_>>().join(", "))
        }
        _ => String::new(), // no key has such a value
    }
}

/// Returns a list of tables for people to read, in TOML, and whether something is hidden in it.
pub(in crate::config) fn shown<'t>(texts: impl Iterator<Item = &'t str>) -> (String, bool) {
    let mut is_hidden = false;
    let tables: String = texts
        .map(|text| {
            let document = format!("table = {{ {text} }}");
            let parsed = DeTable::parse(&document);
            let table = match parsed.as_ref().ok().and_then(|parsed| parsed.get_ref().get("table")) {
                Some(value) => hide_passwords(value.get_ref(), &mut is_hidden),
                None => String::new(),
            };
            format!("\n    {{ {table} }},")
        })
        .collect();
    let end = if tables.is_empty() { "" } else { "\n" };
    (format!("[{tables}{end}]"), is_hidden)
}

fn hide_passwords(table: &DeValue<'_>, is_hidden: &mut bool) -> String {
    let DeValue::Table(table) = table else { return String::new() };
    let command = Source::command();
    let kind = kind(&command, table).ok();
    let pair = |key: &str, value: &DeValue<'_>| {
        let hides = kind.and_then(|kind| find(kind, key)).is_some_and(show::has_password);
        *is_hidden |= hides;
        let value = if hides { format!("{:?}", show::HIDDEN) } else { inline_value(value) };
        format!("{key} = {value}")
    };
    let pairs = table.iter().map(|(key, value)| (key.get_ref(), value.get_ref()));
    let mut pair = pair;
    pairs.map(|(key, value)| pair(key, value)).collect::<Vec<_>>().join(", ")
}

/// The kinds with their keys, for the manual.
#[must_use]
pub fn kinds() -> Command {
    let mut command = Source::command();
    command.build();
    command
}
