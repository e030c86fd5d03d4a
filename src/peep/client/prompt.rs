//! The prompt on a terminal: an iterator over the lines that the admin types, with editing, completion and history.

use std::env;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::{FileHistory, History};
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::phrases::{self, Phrase, Request};
use crate::peep::Command;

/// Yields lines until Ctrl-D. Ctrl-C discards the line being typed.
pub(super) struct Prompt {
    editor: Editor<PhraseHelper, FileHistory>,
    history_file: Option<PathBuf>,
}

impl Prompt {
    pub(super) fn new() -> io::Result<Self> {
        // With bracketed paste several pasted lines would be taken for one command.
        let config = Config::builder().completion_type(CompletionType::List).bracketed_paste(false).build();
        let mut editor = Editor::with_config(config).map_err(into_io)?;
        editor.set_helper(Some(PhraseHelper));
        let history_file = history_file();
        if let Some(file) = &history_file {
            let _ = editor.load_history(file); // the prompt works without a history
        }
        Ok(Self { editor, history_file })
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

impl Iterator for Prompt {
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
        Ok(Request::Send(command)) => !matches!(command, Command::AddUser { .. }),
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

/// Phrases are completed behind this word too.
const HELP: &str = "help ";

/// The helper that rustyline calls while a line is edited. It completes phrases and does nothing else.
struct PhraseHelper;

impl Completer for PhraseHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, cursor: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        Ok((0, candidates(&line[..cursor])))
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

impl Helper for PhraseHelper {}
impl Highlighter for PhraseHelper {}
impl Hinter for PhraseHelper {
    type Hint = String;
}
impl Validator for PhraseHelper {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_may_hold_a_password_are_not_kept() {
        for kept in ["users", "SET timeout 5", "delete user bob", "help", "help add", "?", "exit"] {
            assert!(is_fit_to_keep(kept), "{kept}");
        }
        for left_out in
            ["add user bob secret", "Add  User bob secret", "ad user bob secret", "add user bob my secret", ""]
        {
            assert!(!is_fit_to_keep(left_out), "{left_out}");
        }
    }
    #[test]
    fn phrases_are_completed_behind_help_too() {
        let replaced = |typed| candidates(typed).into_iter().map(|pair| pair.replacement).collect::<Vec<_>>();
        assert_eq!(replaced("set t"), ["set timeout "]);
        assert_eq!(replaced("HELP set t"), ["help set timeout "]);
        assert_eq!(replaced("he"), ["help"]);
        assert_eq!(replaced("help ").len(), replaced("").len());
        assert!(replaced("help x").is_empty() && replaced("é").is_empty());
    }
}
