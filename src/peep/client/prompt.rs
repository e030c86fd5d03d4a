//! The prompt on a terminal: an iterator over the lines that the admin types, with editing, completion and history.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;
use std::fs::DirBuilder;
use std::io::{self, BufRead};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::{FileHistory, History};
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use signal_hook::consts::SIGINT;
use signal_hook::flag;

use super::connection::Connection;
use super::input::{Input, is_ready};
use super::phrases::Phrase;
use super::phrases::{self, Request};
use crate::faults::What;
use crate::peep::{Command, FaultLine, SessionLine, is_argument};
use crate::printable::printable;

/// Yields lines until Ctrl-D. Ctrl-C discards the line being typed.
pub(super) struct Prompt<'a> {
    editor: Editor<PhraseHelper<'a>, FileHistory>,
    history_file: Option<PathBuf>,
    /// Set by Ctrl-C while events are shown.
    is_interrupted: Arc<AtomicBool>,
    /// While this is true Ctrl-C ends the program.
    may_be_ended: Arc<AtomicBool>,
}

impl<'a> Prompt<'a> {
    pub(super) fn new(server: Option<&'a RefCell<Connection>>) -> io::Result<Self> {
        // With bracketed paste several pasted lines would be taken for one command.
        let config = Config::builder().completion_type(CompletionType::List).bracketed_paste(false).build();
        let mut editor = Editor::with_config(config).map_err(into_io)?;
        editor.set_helper(Some(PhraseHelper { server }));
        let (is_interrupted, may_be_ended) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        flag::register_conditional_default(SIGINT, Arc::clone(&may_be_ended))?;
        flag::register(SIGINT, Arc::clone(&is_interrupted))?;
        let history_file = history_file();
        if let Some(file) = &history_file {
            let _ = editor.load_history(file); // the prompt works without a history
        }
        Ok(Self { editor, history_file, is_interrupted, may_be_ended })
    }

    /// Adds the line to the history of this session, and to the file unless it may hold a password.
    fn remember(&mut self, line: &str) -> rustyline::Result<()> {
        self.editor.add_history_entry(line)?;
        if let Some(file) = self.history_file.as_ref().filter(|_| is_fit_to_keep(line)) {
            let mut one_line = FileHistory::new();
            one_line.add(line)?;
            one_line.append(file)?;
        }
        Ok(())
    }
}

impl Iterator for Prompt<'_> {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.editor.readline("> ") {
                Ok(line) => {
                    let _ = self.remember(&line); // the prompt works without a history
                    return Some(Ok(line));
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return None,
                Err(error) => return Some(Err(into_io(error))),
            }
        }
    }
}

impl Input for Prompt<'_> {
    fn events_begin(&mut self) {
        self.is_interrupted.store(false, Ordering::Relaxed);
        self.may_be_ended.store(false, Ordering::Relaxed);
    }

    fn events_end(&mut self) {
        self.may_be_ended.store(true, Ordering::Relaxed);
    }

    /// The line that a person enters is read, as it is not a command. Ctrl-C ends the events too, and not the program.
    fn ends_events(&mut self) -> bool {
        if self.is_interrupted.swap(false, Ordering::Relaxed) {
            return true;
        }
        let stdin = io::stdin();
        let is_ready = is_ready(&stdin);
        if is_ready {
            let _ = stdin.lock().read_line(&mut String::new()); // at the end of the input events end too
        }
        is_ready
    }
}

fn into_io(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        error => io::Error::other(error),
    }
}

/// Returns true if a line may be written to the history file. A line with a password may not, and neither may a line
/// that the client does not understand: it may be a mistyped `add user`.
fn is_fit_to_keep(line: &str) -> bool {
    match phrases::parse(&phrases::words(line)) {
        Ok(Request::Help | Request::HelpAbout(_)) => true,
        Ok(Request::Send(command)) => !command.has_password(),
        Err(_) => false,
    }
}

/// The path of the history file by the XDG base directory specification. Creates the folder if it is missing.
fn history_file() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    let folder = state.join("peepclient");
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
    Some(folder.join("history"))
}

/// The most lines of an answer that completions are taken from.
const MOST_OFFERED: u64 = 100_000;

/// Phrases are completed behind this word too.
const HELP: &str = "help ";

/// The helper that rustyline calls while a line is edited. It completes phrases and their arguments, and does nothing
/// else.
struct PhraseHelper<'a> {
    /// The server that is asked for arguments.
    server: Option<&'a RefCell<Connection>>,
}

impl Completer for PhraseHelper<'_> {
    type Candidate = Pair;

    fn complete(&self, line: &str, cursor: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..cursor];
        let mut phrases = candidates(typed);
        let is_longer = |phrase: &Pair| phrase.replacement.len() > typed.len();
        if phrases.iter().any(is_longer) {
            // Where an argument is possible too, as behind `kick `, the server is asked for it.
            let is_whole = |phrase: &Pair| phrase.display.contains('<') && phrase.replacement.len() == typed.len();
            if phrases.iter().any(is_whole)
                && let Some(mut server) = self.server.and_then(|server| server.try_borrow_mut().ok())
            {
                let behind = |pair: Pair| Pair { replacement: typed.to_owned() + &pair.replacement, ..pair };
                phrases.extend(arguments(typed, "", &mut server).into_iter().map(behind));
            }
            return Ok((0, phrases));
        }
        // No command is using the connection at this moment. If it is lost, the next command reports that.
        let Some(mut server) = self.server.and_then(|server| server.try_borrow_mut().ok()) else {
            return Ok((0, Vec::new()));
        };
        let begun = typed.rfind(' ').map_or(0, |at| at + 1);
        Ok((begun, arguments(&typed[..begun], &typed[begun..], &mut server)))
    }
}

/// The completions of `typed`: phrases, or `help` and phrases.
fn candidates(typed: &str) -> Vec<Pair> {
    let (before, typed) = match typed.split_at_checked(HELP.len()) {
        Some((help, rest)) if help.eq_ignore_ascii_case(HELP) => (HELP, rest),
        _ => ("", typed),
    };
    let pair = |phrase: &Phrase| Pair {
        display: phrase.text.into(),
        replacement: before.to_owned() + phrases::fixed_words(phrase.text),
    };
    phrases::completions(typed).map(pair).collect()
}

/// The arguments that the server knows and that begin with `begun`, for the phrase `before` them.
fn arguments(before: &str, begun: &str, server: &mut Connection) -> Vec<Pair> {
    let values = match phrases::argument_behind(before) {
        Some("<username>" | "<who>") => first_fields(server, &Command::Users, |line| Some(line.to_owned())),
        Some("<id>") => {
            first_fields(server, &Command::Sessions, |line| Some(line.parse::<SessionLine>().ok()?.id.to_string()))
        }
        Some("<net>") if before.trim_start().starts_with("unban") => {
            first_fields(server, &Command::Bans, |line| line.split(' ').next().map(str::to_owned))
        }
        Some("<net>") => first_fields(server, &Command::Sessions, |line| {
            line.parse::<SessionLine>().ok()?.address.map(|it| it.to_string())
        }),
        Some("<fault>") => {
            first_fields(server, &Command::Faults, |line| Some(line.parse::<FaultLine>().ok()?.id.to_string()))
        }
        Some("<what>") => What::names().map(str::to_owned).collect(),
        Some("<level>") => phrases::LEVELS.iter().map(ToString::to_string).collect(),
        _ => return Vec::new(),
    };
    // The value becomes part of the line on the terminal as it is.
    let is_safe = |value: &String| printable(value) == *value;
    let fitting = values.into_iter().filter(|value| value.starts_with(begun) && is_argument(value) && is_safe(value));
    fitting.map(|value| Pair { display: value.clone(), replacement: value }).collect()
}

/// A field of each line that the server answers, without duplicates. A server that does not know the command offers
/// nothing.
fn first_fields(server: &mut Connection, command: &Command, field: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let lines = server.ask(command, MOST_OFFERED).map(|(_, lines)| lines).unwrap_or_default();
    let fields: BTreeSet<_> = lines.iter().filter_map(|line| field(line)).collect();
    fields.into_iter().collect()
}

impl Helper for PhraseHelper<'_> {}
impl Highlighter for PhraseHelper<'_> {}
impl Hinter for PhraseHelper<'_> {
    type Hint = String;
}
impl Validator for PhraseHelper<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_may_hold_a_password_are_not_kept() {
        for kept in ["users", "SET timeout 5", "delete user bob", "help", "help add", "?", "exit"] {
            assert!(is_fit_to_keep(kept), "{kept}");
        }
        for left_out in [
            "add user bob secret",
            "test login bob secret",
            "Add  User bob secret",
            "ad user bob secret",
            "add user bob my secret",
            "",
        ] {
            assert!(!is_fit_to_keep(left_out), "{left_out}");
        }
    }
    #[test]
    fn phrases_are_completed_behind_help_too() {
        let replaced = |typed| candidates(typed).into_iter().map(|pair| pair.replacement).collect::<Vec<_>>();
        assert_eq!(replaced("set ti"), ["set timeout "]);
        assert_eq!(replaced("HELP set ti"), ["help set timeout "]);
        assert_eq!(replaced("he"), ["help"]);
        assert_eq!(replaced("help ").len(), replaced("").len());
        assert!(replaced("help x").is_empty() && replaced("é").is_empty());
    }
}
