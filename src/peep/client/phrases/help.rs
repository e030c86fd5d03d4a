//! What help tells of the phrases, and the commands of the shell, which only help knows.

use super::table::{ERRORS, EXAMPLES, OF_VERSION_1_0, PHRASES, Phrase};
use super::{completions, first_word, fixed_words, words};
use crate::faults::What;

/// The commands that are not sent to the server as they are. They are for the shell, and not for the prompt.
const OF_THE_SHELL: [(&str, &str, &str); 2] = [
    (
        "wait <what> <condition>",
        "wait until it is so, for scripts",
        "      <what> is sessions, user <username> <name>, stats <name>, or a command that\n      \
         shows a value or a list, whose lines are counted. <condition> is one of\n      \
         == != < <= > >= with a value. Behind them there may be --timeout <time>.\n      \
         Example: peepclient wait user bob messages '>=3' --timeout 30s\n",
    ),
    (
        "top",
        "rates, sessions and events on a terminal",
        "      The h key lists the keys. Example: peepclient top --interval 1s\n",
    ),
];

/// All phrases with their meanings.
pub(in crate::peep::client) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let of_the_server = PHRASES.iter().map(|phrase| (phrase.text, phrase.meaning));
    of_the_server.chain(OF_THE_SHELL.iter().map(|(text, meaning, _)| (*text, *meaning)))
}

/// Returns true if there is help about commands that begin with `typed`.
pub(super) fn knows(typed: &str) -> bool {
    completions(typed).next().is_some() || of_the_shell(typed).next().is_some()
}

/// The command of the shell with this first word, as a person types it.
pub(super) fn shell_command(first: &str) -> Option<&'static str> {
    OF_THE_SHELL.iter().map(|(text, ..)| *text).find(|text| first.eq_ignore_ascii_case(first_word(text)))
}

/// The phrases of version 1.0 in one line, as in the report, for a program that reads the answer.
pub(in crate::peep::client) fn help_line() -> String {
    let texts: Vec<_> = PHRASES[..OF_VERSION_1_0].iter().map(|phrase| phrase.text).collect();
    texts.join(" | ") + "\n"
}

/// A line for each phrase that begins with `typed`, with its meaning, for a person. If `typed` is the whole name of a
/// command, an example and its errors follow.
pub(in crate::peep::client) fn help_table(typed: &str) -> String {
    let name = words(typed).join(" ").to_ascii_lowercase();
    let is_named = |text: &str| fixed_words(text).trim_end() == name;
    let of_the_server = completions(typed).map(|phrase| {
        let more = if is_named(phrase.text) { details(phrase) } else { String::new() };
        help_line_of(phrase.text, phrase.meaning) + &more
    });
    let of_the_shell = of_the_shell(typed)
        .map(|(text, meaning, more)| help_line_of(text, meaning) + if is_named(text) { more } else { "" });
    of_the_server.chain(of_the_shell).collect()
}

/// The width of the column of phrases. The meaning of a longer phrase has a line of its own.
const PHRASE_WIDTH: usize = 32;

fn help_line_of(text: &str, meaning: &str) -> String {
    let gap = if text.len() > PHRASE_WIDTH { format!("\n{:PHRASE_WIDTH$}  ", "") } else { String::new() };
    format!("  {text:<PHRASE_WIDTH$}{gap}  {meaning}\n")
}

/// The commands of the shell that begin with `typed`.
fn of_the_shell(typed: &str) -> impl Iterator<Item = &'static (&'static str, &'static str, &'static str)> + use<> {
    let typed = typed.trim_ascii_start().to_ascii_lowercase();
    OF_THE_SHELL.iter().filter(move |(text, ..)| fixed_words(text).starts_with(&typed))
}

/// An example and the errors of a command.
fn details(phrase: &Phrase) -> String {
    let mut text = String::new();
    if phrase.text.contains("<what>") {
        text += &format!("      <what> is one of: {}\n", What::names().collect::<Vec<_>>().join(" "));
    }
    if let Some((_, example)) = EXAMPLES.iter().find(|(command, _)| *command == phrase.text) {
        text += &format!("      Example: {example}\n");
    }
    let errors = ERRORS.iter().find(|(wire, _)| phrase.wire.split(' ').next() == Some(*wire));
    for code in errors.map_or(&[][..], |(_, codes)| *codes) {
        text += &format!("      Error: {code}\n");
    }
    text
}
