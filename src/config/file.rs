//! `--config FILE`: a TOML file whose keys are flags.
//!
//! A key is the long name of a flag. A table's name is the beginning of its keys' names, so `cert` in `[tls]` is
//! `--tls-cert`; the key `command` in `[transform]` is `--transform`. `[[tls]]` is for several certificates, and a table of
//! `[[accounts]]` is one `--accounts`. The file is converted to command-line flags, so that settings are declared and checked only once, by the command line.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::accounts::in_file;

/// The similarity, from 0 to 1, from which on a name is suggested instead of an unknown one.
const ALIKE: f64 = 0.75;

/// The tables of certificates, and the keys of each. Those with `names` are lists.
const CERTIFICATES: &str = "tls";
const CERTIFICATE_KEYS: [&str; 3] = ["cert", "key", NAMES];
const NAMES: &str = "names";

/// The tables of account sources, and the flag that they become.
const ACCOUNTS: &str = "accounts";

/// A configuration file that cannot be used.
#[derive(Debug)]
pub enum FileError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// All faults of the file, in the order of the lines.
    Faults(PathBuf, Vec<Fault>),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(f, "cannot read the configuration file {}: {error}", path.display())
            }
            Self::Faults(path, faults) => {
                for (index, fault) in faults.iter().enumerate() {
                    let line_end = if index > 0 { "\n" } else { "" };
                    write!(f, "{line_end}{}:{}: {}", path.display(), fault.at, fault.what)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for FileError {}

/// A fault in a configuration file.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    at: Position,
    what: String,
}

/// A line and a column of the file, both counted from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    line: usize,
    column: usize,
}

impl Position {
    fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One setting of a configuration file.
#[derive(Debug)]
pub(super) struct Setting {
    /// The flag's long name.
    pub(super) name: String,
    /// The flag as on the command line; empty for a switch that is off.
    pub(super) arguments: Vec<String>,
    at: Position,
}

/// A configuration file that has been read. Each setting has an existing flag and a valid value.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    pub(super) settings: Vec<Setting>,
}

impl ConfigFile {
    /// Reads a file whose keys are flags of `command`.
    pub(super) fn read(path: &Path, command: &Command) -> Result<Self, FileError> {
        let text = fs::read_to_string(path).map_err(|error| FileError::Unreadable(path.to_owned(), error))?;
        let (table, syntax_errors) = DeTable::parse_recoverable(&text);
        let mut faults: Vec<_> = syntax_errors
            .iter()
            .map(|error| Fault {
                at: Position::of(&text, error.span().map_or(0, |span| span.start)),
                what: error.message().to_owned(),
            })
            .collect();
        // After an error the parser often reports more errors in the same line, which are dropped.
        faults.dedup_by_key(|fault| fault.at.line);
        let mut reader = Reader { command, text: &text, settings: BTreeMap::new(), faults: Vec::new() };
        // After a syntax error the rest of the file may be misread, so only syntax errors are reported then.
        if faults.is_empty() {
            reader.read_table(table.get_ref(), "");
        }
        faults.append(&mut reader.faults);
        faults.sort_by_key(|fault| fault.at);
        if faults.is_empty() {
            Ok(Self { path: path.to_owned(), settings: reader.settings.into_values().collect() })
        } else {
            Err(FileError::Faults(path.to_owned(), faults))
        }
    }

    /// Makes the error for settings that conflict with each other or with the command line. Its position is that of the
    /// setting that the error names, or else the beginning of the file.
    pub(super) fn fault(&self, error: &clap::Error) -> FileError {
        // If a flag is missing that another one needs, the usage at the end of the text names the other one.
        let text = error.to_string();
        let is_named = |setting: &&Setting| {
            text.split([' ', '=', ',', '\'', '\n']).any(|word| word.strip_prefix("--") == Some(&setting.name))
        };
        let at = self.settings.iter().find(is_named).map_or(Position { line: 1, column: 1 }, |setting| setting.at);
        FileError::Faults(self.path.clone(), vec![Fault { at, what: super::command_line::without_passwords(error) }])
    }
}

/// Converts tables to settings.
struct Reader<'a> {
    command: &'a Command,
    text: &'a str,
    /// The settings by the name of their flag.
    settings: BTreeMap<String, Setting>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn read_table(&mut self, table: &DeTable<'_>, prefix: &str) {
        for (key, value) in table {
            let name =
                if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}-{}", key.get_ref()) };
            match value.get_ref() {
                DeValue::Table(_) if name == ACCOUNTS => {
                    let what = format!("{ACCOUNTS}: it has to be a list, as in [[{ACCOUNTS}]]");
                    self.faults.push(Fault { at: Position::of(self.text, key.span().start), what });
                }
                DeValue::Table(inner) if name == CERTIFICATES && inner.contains_key("names") => {
                    self.read_certificates(key.span().start, std::slice::from_ref(value));
                }
                DeValue::Table(inner) if self.is_beginning(&name) => self.read_table(inner, &name),
                DeValue::Array(tables) if name == ACCOUNTS => self.read_accounts(key.span().start, tables),
                DeValue::Array(tables) if name == CERTIFICATES => self.read_certificates(key.span().start, tables),
                _ => self.read_key(&name, key.span().start, value),
            }
        }
    }

    /// Reads `[[tls]]`: a table for each certificate, with its `cert`, its `key` and optionally its `names`. Each becomes
    /// one `--tls-cert`, `--tls-key` and `--tls-names`.
    fn read_certificates(&mut self, offset: usize, tables: &[Spanned<DeValue<'_>>]) {
        let mut arguments = CERTIFICATE_KEYS.map(|_| Vec::new());
        for table in tables {
            let DeValue::Table(table_of_one) = table.get_ref() else {
                let what = format!("{CERTIFICATES}: it has to be a list of tables");
                self.faults.push(Fault { at: Position::of(self.text, table.span().start), what });
                continue;
            };
            for key in table_of_one.keys().filter(|key| !CERTIFICATE_KEYS.contains(&&**key.get_ref())) {
                let what = format!("a certificate has no {:?}; it has {}", key.get_ref(), CERTIFICATE_KEYS.join(", "));
                self.faults.push(Fault { at: Position::of(self.text, key.span().start), what });
            }
            for (key, arguments) in CERTIFICATE_KEYS.iter().zip(&mut arguments) {
                match table_of_one.get(*key) {
                    Some(value) => self.read_key_of_certificate(key, value, arguments),
                    None if *key == NAMES => arguments.push(format!("--{CERTIFICATES}-{NAMES}=")),
                    None => {
                        let what = format!("the certificate has no {key:?}");
                        self.faults.push(Fault { at: Position::of(self.text, table.span().start), what });
                    }
                }
            }
        }
        let at = Position::of(self.text, offset);
        for (key, arguments) in CERTIFICATE_KEYS.iter().zip(arguments) {
            let name = format!("{CERTIFICATES}-{key}");
            self.settings.insert(name.clone(), Setting { name, arguments, at });
        }
    }

    fn read_key_of_certificate(&mut self, key: &str, value: &Spanned<DeValue<'_>>, arguments: &mut Vec<String>) {
        let name = format!("{CERTIFICATES}-{key}");
        let Some(flag) = find(self.command, &name) else { return };
        let values = match value.get_ref() {
            DeValue::Array(values) if key == NAMES => values.iter().map(|value| argument(flag, value)).collect(),
            _ => argument(flag, value).map(|argument| vec![argument]),
        };
        let prefix = format!("--{name}=");
        let checked = values.and_then(|values| {
            let values: Vec<_> = values.iter().map(|value| value.strip_prefix(&prefix).unwrap_or(value)).collect();
            let argument = prefix.clone() + &values.join(",");
            check(self.command, &argument).map(|()| argument).map_err(|what| (what, value.span().start))
        });
        match checked {
            Ok(argument) => arguments.push(argument),
            Err((what, offset)) => {
                self.faults.push(Fault { at: Position::of(self.text, offset), what: format!("{name}: {what}") });
            }
        }
    }

    /// Reads `[[accounts]]`: a table for each account source. Each becomes one `--accounts`.
    fn read_accounts(&mut self, offset: usize, tables: &[Spanned<DeValue<'_>>]) {
        let mut arguments = Vec::new();
        for table in tables {
            let read = match table.get_ref() {
                DeValue::Table(of_one) => in_file(of_one),
                _ => Err(vec![("it has to be a list of tables".to_owned(), None)]),
            };
            match read {
                Ok(text) => arguments.push(format!("--{ACCOUNTS}={text}")),
                Err(faults) => self.faults.extend(faults.into_iter().map(|(what, at)| {
                    let at = Position::of(self.text, at.unwrap_or(table.span().start));
                    Fault { at, what: format!("{ACCOUNTS}: {what}") }
                })),
            }
        }
        let at = Position::of(self.text, offset);
        self.settings.insert(ACCOUNTS.to_owned(), Setting { name: ACCOUNTS.to_owned(), arguments, at });
    }

    /// Returns true if `name` is the beginning of a flag's name.
    fn is_beginning(&self, name: &str) -> bool {
        keys(self.command).any(|flag| long(flag) == name || long(flag).starts_with(&format!("{name}-")))
    }

    fn read_key(&mut self, name: &str, offset: usize, value: &Spanned<DeValue<'_>>) {
        let at = Position::of(self.text, offset);
        let Some(flag) = find(self.command, name) else {
            let what = match nearest(self.command, name) {
                Some(near) => format!("there is no setting {name:?}; there is {near:?}"),
                None => {
                    format!("there is no setting {name:?}: see pop3d --help for the flags; keys have the same names")
                }
            };
            return self.faults.push(Fault { at, what });
        };
        match arguments(flag, value) {
            Ok(arguments) => {
                for (argument, offset) in &arguments {
                    if let Err(what) = check(self.command, argument) {
                        self.faults
                            .push(Fault { at: Position::of(self.text, *offset), what: format!("{name}: {what}") });
                    }
                }
                let arguments = arguments.into_iter().map(|(argument, _)| argument).collect();
                let setting = Setting { name: long(flag).to_owned(), arguments, at };
                if self.settings.insert(long(flag).to_owned(), setting).is_some() {
                    self.faults.push(Fault { at, what: format!("{name} is set twice, under two of its names") });
                }
            }
            Err((what, offset)) => {
                self.faults.push(Fault { at: Position::of(self.text, offset), what: format!("{name}: {what}") });
            }
        }
    }
}

/// Returns the flags that can be keys of a configuration file.
pub fn keys(command: &Command) -> impl Iterator<Item = &Arg> {
    let only_typed = ["config", "explain", "help", "version"];
    command.get_arguments().filter(move |flag| flag.get_long().is_some_and(|long| !only_typed.contains(&long)))
}

/// Returns a flag's long name, which all [`keys`] have.
fn long(flag: &Arg) -> &str {
    flag.get_long().unwrap_or_default()
}

pub(super) fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let name = name.strip_suffix("-command").unwrap_or(name);
    keys(command).find(|flag| long(flag) == name || flag.get_all_aliases().unwrap_or_default().contains(&name))
}

pub(super) fn nearest<'a>(command: &'a Command, name: &str) -> Option<&'a str> {
    let likeness = |flag: &&str| strsim::jaro_winkler(flag, name);
    keys(command).map(long).filter(|flag| likeness(flag) >= ALIKE).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// Returns the command-line arguments for a value, each with its position in the file. The error says what is wrong with
/// the value's type, and where.
pub(super) fn arguments(flag: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Vec<(String, usize)>, (String, usize)> {
    let (long, at) = (long(flag), value.span().start);
    let wrong = |expected: &str| Err((format!("it has to be {expected}, not {}", article(value.get_ref())), at));
    match (flag.get_action(), value.get_ref()) {
        (ArgAction::SetTrue, DeValue::Boolean(true)) => Ok(vec![(format!("--{long}"), at)]),
        (ArgAction::SetTrue, DeValue::Boolean(false)) => Ok(Vec::new()),
        (ArgAction::SetTrue, _) => wrong("true or false"),
        (ArgAction::Count, DeValue::Integer(number)) => {
            // No flag may be given more than twice, so every larger number is an error.
            let times = number.as_str().parse::<u8>().map_or(u8::MAX, |times| times);
            Ok((0..times).map(|_| (format!("--{long}"), at)).collect())
        }
        (ArgAction::Count, _) => wrong("a number"),
        (ArgAction::Append, DeValue::Array(values)) => {
            values.iter().map(|value| Ok((argument(flag, value)?, value.span().start))).collect()
        }
        (_, DeValue::Boolean(true)) if takes_no_value(flag) => Ok(vec![(format!("--{long}"), at)]),
        (_, DeValue::Boolean(false)) if takes_no_value(flag) => Ok(Vec::new()),
        _ => Ok(vec![(argument(flag, value)?, at)]),
    }
}

/// Returns true if the flag's value is a plain number.
#[must_use]
pub fn is_number(flag: &Arg) -> bool {
    [TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>()]
        .iter()
        .any(|id| flag.get_value_parser().type_id() == *id)
}

/// Returns true if the flag can be given without its value.
fn takes_no_value(flag: &Arg) -> bool {
    flag.get_num_args().is_some_and(|range| range.min_values() == 0)
}

/// Returns `--FLAG=VALUE` for a single value.
fn argument(flag: &Arg, value: &Spanned<DeValue<'_>>) -> Result<String, (String, usize)> {
    let text = match value.get_ref() {
        DeValue::Integer(number) if is_number(flag) && number.radix() == 10 => number.as_str().to_owned(),
        DeValue::String(text) if !is_number(flag) => text.to_string(),
        other => {
            let expected = if is_number(flag) { "a number" } else { "a string" };
            return Err((format!("it has to be {expected}, not {}", article(other)), value.span().start));
        }
    };
    Ok(format!("--{}={text}", long(flag)))
}

/// Returns the type of a value for people to read.
fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(number) if number.radix() == 10 => "a number",
        DeValue::Integer(_) => "a number in hexadecimal, octal or binary",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Checks that the value of a flag is valid. Whether the flag needs other flags is checked later.
pub(super) fn check(command: &Command, argument: &str) -> Result<(), String> {
    match command.clone().try_get_matches_from(["pop3d", argument]) {
        Err(error) if !matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict) => {
            Err(super::command_line::of_a_value(&error))
        }
        _ => Ok(()),
    }
}
