//! The English phrase for each PEEP command: one [`table`] for parsing, completion and [`help`]. Letter case does not matter.

mod help;
mod table;

pub(super) use self::help::{all, help_line, help_table};
pub(super) use self::table::Phrase;
use self::table::{HELP, PHRASES};
use crate::faults::What;
use crate::net::parse_network;
use crate::peep::text::sparingly_encoded;
use crate::peep::{Command, MORE, VERSION_1_1, is_argument};
use crate::span::{span, span_or_zero};

/// Other words for a phrase. The report's list does not have them.
const ALIASES: [(&str, &str); 2] = [("exit", "quit"), ("?", "help")];

/// The error for words that are not a phrase.
const UNKNOWN: &str = "Unknown client command, see available commands with 'help'";

/// The rest of the error for an argument that the protocol cannot carry.
pub(super) const ARGUMENT_RULE: &str = "have 1 to 128 octets, no space and no control character";

/// The levels of the log.
pub(super) const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// What a person asks for with a phrase.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// The list of all commands.
    Help,
    /// What the commands that begin with these words do.
    HelpAbout(String),
    Send(Command),
}

/// Splits a line into words.
pub(super) fn words(line: &str) -> Vec<&str> {
    line.split_ascii_whitespace().collect()
}

/// Parses the words of a phrase. The error says what is wrong with them.
pub(super) fn parse(said: &[&str]) -> Result<Request, String> {
    let said = without_alias(said);
    let meant = PHRASES.iter().filter_map(|phrase| {
        let arguments = without_words_between(phrase.text, arguments(&said, phrase.text)?);
        Some((phrase, arguments))
    });
    // Of two phrases that begin alike the one with more words is meant, or the one whose arguments are complete.
    let meant = meant.max_by_key(|(phrase, arguments)| {
        (words(fixed_words(phrase.text)).len(), names(phrase.text).count() == arguments.len())
    });
    let Some((phrase, arguments)) = meant else {
        return Err(match said.first().and_then(|first| help::shell_command(first)) {
            Some(text) => format!("This is a command for the shell: peepclient {text}"),
            None => UNKNOWN.to_owned(),
        });
    };
    if phrase.wire == HELP {
        return help_about(&arguments);
    }
    if names(phrase.text).count() != arguments.len() {
        return Err(format!("Wrong number of arguments, the command is: {}", phrase.text));
    }
    let is_newer = VERSION_1_1.contains(&phrase.wire);
    let mut line = phrase.wire.to_owned();
    for (name, &argument) in names(phrase.text).zip(&arguments) {
        if let Some(rule) = broken_rule(name, argument) {
            return Err(format!("Invalid {name}, it must {rule}"));
        }
        line.push(' ');
        match name {
            "<username>" | "<session>" | "<who>" if is_newer => line.push_str(&sparingly_encoded(argument)),
            "<on|off>" => line.push_str(if argument.eq_ignore_ascii_case("on") { "1" } else { "0" }),
            "<span>" => line.push_str(&span(argument).map_or(0, |span| span.as_secs()).to_string()),
            "<seconds>" => line.push_str(&seconds(argument).unwrap_or_default().to_string()),
            _ => line.push_str(argument),
        }
    }
    if phrase.wire == "at" {
        // A server that does not know the word ignores it.
        line = format!("{line} {MORE}");
    }
    Command::parse(line.as_bytes(), true).map(Request::Send).map_err(|_| UNKNOWN.to_owned())
}

/// The names of a phrase's arguments, such as `<username>`.
fn names(phrase: &str) -> impl Iterator<Item = &str> {
    phrase.split(' ').filter(|word| word.starts_with('<'))
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}

/// Returns true if the words are a whole command, also one of the shell.
pub(super) fn is_whole(said: &[&str]) -> bool {
    parse(said).is_ok() || matches!(said, [word] if word.eq_ignore_ascii_case("top"))
}

/// Seconds, or a span such as `1h`, as whole seconds.
fn seconds(text: &str) -> Option<u32> {
    let seconds = span_or_zero(text).ok()?;
    if seconds.subsec_millis() == 0 { u32::try_from(seconds.as_secs()).ok() } else { None }
}

/// The rule that an argument of this name breaks, behind "it must".
fn broken_rule(name: &str, argument: &str) -> Option<&'static str> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    let (is_good, rule) = match name {
        _ if !is_argument(argument) => (false, ARGUMENT_RULE),
        "<value>" => (digits(argument.strip_prefix('-').unwrap_or(argument)), "be an integer"),
        "<id>" => (digits(argument), "be the number of a connection, which sessions lists"),
        "<seconds>" => (seconds(argument).is_some(), "be a number of seconds up to 4294967295, or a span, as 1h"),
        "<what>" => (argument.parse::<What>().is_ok(), "be a fault, such as no-uidl or delay=500"),
        "<count>" => (digits(argument), "be a number"),
        "<fault>" => (digits(argument), "be the number of a fault, which faults lists"),
        "<n>" => (digits(argument), "be the number of a message"),
        "<on|off>" => (argument.eq_ignore_ascii_case("on") || argument.eq_ignore_ascii_case("off"), "be on or off"),
        "<span>" => (span(argument).is_ok(), "be a span, as 30m, 2h or 1d"),
        "<net>" => (parse_network(argument).is_some(), "be an address or a network, as 192.0.2.0/24"),
        "<level>" => (LEVELS.contains(&argument), "be error, warn, info, debug or trace"),
        _ => (true, ""),
    };
    (!is_good).then_some(rule)
}

/// The name of a command's answer in JSON: the fixed words of its phrase.
pub(super) fn key(command: &Command) -> String {
    let of_it = |phrase: &&Phrase| phrase.wire.split(' ').next() == Some(command.commencement());
    let phrase = PHRASES.iter().find(of_it).map_or("login", |phrase| phrase.text);
    words(fixed_words(phrase)).join("_").replace("--", "").replace('-', "_")
}

/// A command as a person says it, but without its password.
pub(super) fn in_words(command: &Command) -> String {
    let mut command = command.clone();
    if let Command::TestLogin { more, .. } = &mut command {
        *more = None; // the program asks for it
    }
    let wire = command.to_string();
    let arguments: Vec<_> = wire.split(' ').skip(1).collect();
    let is_it = |phrase: &&Phrase| {
        phrase.wire == wire || (phrase.wire == command.commencement() && names(phrase.text).count() == arguments.len())
    };
    let phrase = PHRASES.iter().find(is_it).map_or("login", |phrase| phrase.text);
    let mut arguments = arguments.into_iter();
    let said = phrase.split(' ').map(|word| match word {
        "<password>" => "…".to_owned(),
        "<on|off>" => if arguments.next() == Some("1") { "on" } else { "off" }.to_owned(),
        _ if word.starts_with('<') => arguments.next().unwrap_or_default().to_owned(),
        _ => word.to_owned(),
    });
    said.collect::<Vec<_>>().join(" ")
}

/// Replaces a first word that is an alias.
fn without_alias<'a>(said: &[&'a str]) -> Vec<&'a str> {
    let mut said = said.to_vec();
    if let Some(first) = said.first_mut()
        && let Some((_, meant)) = ALIASES.iter().find(|(alias, _)| first.eq_ignore_ascii_case(alias))
    {
        *first = meant;
    }
    said
}

/// Parses the words behind `help`.
fn help_about(words: &[&str]) -> Result<Request, String> {
    if words.is_empty() {
        return Ok(Request::Help);
    }
    let beginning = without_alias(words).join(" ");
    if !help::knows(&beginning) {
        return Err(UNKNOWN.to_owned());
    }
    Ok(Request::HelpAbout(beginning))
}

/// Returns the words behind the fixed words of `phrase`; `None` if `said` does not begin with the fixed words.
fn arguments<'a, 'b>(said: &'a [&'b str], phrase: &str) -> Option<&'a [&'b str]> {
    let fixed = words(fixed_words(phrase));
    let (start, rest) = said.split_at_checked(fixed.len())?;
    start.iter().zip(fixed).all(|(said, word)| said.eq_ignore_ascii_case(word)).then_some(rest)
}

/// Leaves out the words that a phrase has between its arguments, such as `since`.
fn without_words_between<'a>(phrase: &str, said: &[&'a str]) -> Vec<&'a str> {
    let pattern = words(&phrase[fixed_words(phrase).len()..]);
    let is_between = |at: usize, word: &str| {
        pattern.get(at).is_some_and(|expected| !expected.starts_with('<') && expected.eq_ignore_ascii_case(word))
    };
    said.iter().enumerate().filter(|&(at, word)| !is_between(at, word)).map(|(_, word)| *word).collect()
}

/// The name of the argument that comes next behind `before`, which ends with a space.
pub(super) fn argument_behind(before: &str) -> Option<&'static str> {
    let said = words(before);
    let next = |phrase: &'static Phrase| names(phrase.text).nth(arguments(&said, phrase.text)?.len());
    let longest = |phrase: &&Phrase| words(fixed_words(phrase.text)).len();
    let mut meant: Vec<_> = PHRASES.iter().filter(|phrase| arguments(&said, phrase.text).is_some()).collect();
    meant.sort_by_key(|phrase| std::cmp::Reverse(longest(phrase)));
    meant.into_iter().find_map(next)
}

/// The phrase up to its first argument. It ends with a space if the phrase has arguments.
pub(super) fn fixed_words(phrase: &str) -> &str {
    phrase.split_once('<').map_or(phrase, |(fixed, _)| fixed)
}

/// The phrases whose fixed words begin with `typed`, in any letter case.
pub(super) fn completions(typed: &str) -> impl Iterator<Item = &'static Phrase> + use<> {
    let typed = typed.trim_ascii_start().to_ascii_lowercase();
    PHRASES.iter().filter(move |phrase| fixed_words(phrase.text).starts_with(&typed))
}

#[cfg(test)]
mod tests;
