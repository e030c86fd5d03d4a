//! `pop3d show`: prints the settings as a configuration file.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory};

use super::file::{is_number, keys};
use super::{Args, NEEDS_RESTART, accounts};

/// The text that replaces a password.
pub(super) const HIDDEN: &str = "(hidden)";

/// Returns the settings of these flags as TOML. Defaults are comments. Settings with a password are comments too, with the
/// password hidden. With `explain`, each setting has a comment on what it does.
pub(super) fn settings(flags: &ArgMatches, explain: bool) -> String {
    let (command, fixed) = (Args::command(), fixed());
    let mut text = String::new();
    let mut heading = None;
    for flag in keys(&command) {
        if heading != flag.get_help_heading() {
            heading = flag.get_help_heading();
            let _ = write!(text, "\n## {}\n", heading.unwrap_or_default());
        }
        if explain {
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            let restart = if flag.get_long().is_some_and(|name| fixed.contains(name)) {
                "; a change needs a restart"
            } else {
                ""
            };
            let _ = write!(text, "\n{}", comment(&(help + restart)));
        }
        let (value, is_hidden) = value(flag, flags);
        let line = format!("{} = {value}", flag.get_long().unwrap_or_default());
        let is_set = flags.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine);
        let start = if is_set && !is_hidden { "" } else { "# " };
        let _ = writeln!(text, "{start}{}", line.replace('\n', &format!("\n{start}")));
    }
    text
}

/// Returns the names of the settings that only a restart can change; a reload changes all others.
#[must_use]
pub fn fixed() -> BTreeSet<String> {
    let mut command = Args::command();
    command.build(); // puts flags into their groups
    let group = command.get_groups().find(|group| group.get_id() == NEEDS_RESTART);
    let is_in = |flag: &&Arg| group.is_some_and(|group| group.get_args().any(|id| id == flag.get_id()));
    keys(&command).filter(is_in).filter_map(Arg::get_long).map(str::to_owned).collect()
}

/// Formats a text as comments of at most 100 columns.
fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < 100 => *line = format!("{line} {word}"),
            _ => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n") + "\n"
}

pub(super) fn has_password(flag: &Arg) -> bool {
    flag.get_value_names().unwrap_or_default().iter().any(|name| name.contains("PASSWORD"))
}

/// Returns the value of a flag, or its default, in TOML, and whether a password is hidden in it.
fn value(flag: &Arg, flags: &ArgMatches) -> (String, bool) {
    if flag.get_long() == Some("accounts") {
        let tables = flags.get_raw(flag.get_id().as_str()).into_iter().flatten();
        return accounts::shown(tables.filter_map(OsStr::to_str));
    }
    (plain_value(flag, flags), has_password(flag))
}

fn plain_value(flag: &Arg, flags: &ArgMatches) -> String {
    let id = flag.get_id().as_str();
    let values = || flags.get_raw(id).into_iter().flatten().map(|value| scalar(flag, value));
    match flag.get_action() {
        ArgAction::SetTrue => flags.get_flag(id).to_string(),
        ArgAction::Count => flags.get_count(id).to_string(),
        ArgAction::Append => format!("[{}]", values().collect::<Vec<_>>().join(", ")),
        // This flag can have a value, but was given without one.
        _ if flags.value_source(id).is_some() => values().next().unwrap_or_else(|| "true".to_owned()),
        _ if is_number(flag) => "0".to_owned(),
        _ => "\"\"".to_owned(),
    }
}

fn scalar(flag: &Arg, value: &OsStr) -> String {
    let shown = without_password(flag, value);
    if is_number(flag) { shown } else { toml::Value::String(shown).to_string() }
}

fn without_password(flag: &Arg, value: &OsStr) -> String {
    let value = value.to_string_lossy();
    match value.split_once(':') {
        Some((name, _)) if has_password(flag) => format!("{name}:{HIDDEN}"),
        _ => value.into_owned(),
    }
}

/// Returns the values or defaults of a flag, with passwords hidden; `None` if it has none.
pub(super) fn values(flag: &Arg, flags: &ArgMatches) -> Option<Vec<String>> {
    let values = flags.get_raw(flag.get_id().as_str())?;
    if flag.get_long() == Some("accounts") {
        let (tables, _) = accounts::shown(values.filter_map(OsStr::to_str));
        let in_one_line = tables.split_whitespace().collect::<Vec<_>>().join(" ");
        return (in_one_line != "[]").then(|| vec![in_one_line]);
    }
    Some(values.map(|value| without_password(flag, value)).collect())
}
