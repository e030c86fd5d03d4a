//! The English phrase for each PEEP command: one table for parsing, help and completion. Letter case does not matter.

use super::phrase_table::{ERRORS, EXAMPLES, HELP, OF_VERSION_1_0, PHRASES, Phrase};
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
        let of_the_shell = |text: &str| said.first().is_some_and(|first| first.eq_ignore_ascii_case(first_word(text)));
        let found = OF_THE_SHELL.iter().find(|(text, ..)| of_the_shell(text));
        return Err(match found {
            Some((text, ..)) => format!("This is a command for the shell: peepclient {text}"),
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

/// All phrases with their meanings.
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let of_the_server = PHRASES.iter().map(|phrase| (phrase.text, phrase.meaning));
    of_the_server.chain(OF_THE_SHELL.iter().map(|(text, meaning, _)| (*text, *meaning)))
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
    if completions(&beginning).next().is_none() && of_the_shell(&beginning).next().is_none() {
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

/// The phrases of version 1.0 in one line, as in the report, for a program that reads the answer.
pub(super) fn help_line() -> String {
    let texts: Vec<_> = PHRASES[..OF_VERSION_1_0].iter().map(|phrase| phrase.text).collect();
    texts.join(" | ") + "\n"
}

/// A line for each phrase that begins with `typed`, with its meaning, for a person. If `typed` is the whole name of a
/// command, an example and its errors follow.
pub(super) fn help_table(typed: &str) -> String {
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

/// The phrases whose fixed words begin with `typed`, in any letter case.
pub(super) fn completions(typed: &str) -> impl Iterator<Item = &'static Phrase> + use<> {
    let typed = typed.trim_ascii_start().to_ascii_lowercase();
    PHRASES.iter().filter(move |phrase| fixed_words(phrase.text).starts_with(&typed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Hidden;
    use crate::peep::Encoded;

    fn said(line: &str) -> Result<Request, String> {
        parse(&words(line))
    }

    /// The phrase of each command, except for the login, which the client sends by itself.
    fn spoken() -> Vec<(&'static str, Command)> {
        vec![
            ("capa", Command::Capabilities),
            ("quit", Command::Quit),
            ("users", Command::Users),
            ("add user Bob secret", Command::AddUser { name: "Bob".into(), password: Hidden("secret".into()) }),
            ("delete user Bob", Command::DeleteUser { name: "Bob".into() }),
            ("set max connections 15", Command::SetMaxConnections { limit: 15 }),
            ("max connections", Command::MaxConnections),
            ("set maildir ../Mail", Command::SetMaildir { path: "../Mail".into() }),
            ("maildir", Command::Maildir),
            ("set timeout 10", Command::SetTimeout { seconds: 10 }),
            ("timeout", Command::Timeout),
            ("retrieved bytes", Command::RetrievedBytes),
            ("retrieved emails", Command::RetrievedEmails),
            ("removed emails amount", Command::RemovedEmails),
            ("current connections amount", Command::CurrentConnections),
            ("current logged users", Command::CurrentUsers),
            ("all time connection amount", Command::AllConnections),
            ("all time logged amount", Command::AllLogins),
            ("sessions", Command::Sessions),
            ("kick 17", Command::Kick { id: 17 }),
            ("kick user Bob", Command::KickUser { name: Encoded("Bob".into()) }),
            ("kick address ::1", Command::KickAddress { network: "::1/128".parse().unwrap() }),
            ("ban 192.0.2.0/24 60", Command::Ban { network: "192.0.2.0/24".parse().unwrap(), seconds: 60 }),
            ("ban 192.0.2.0/24 1h", Command::Ban { network: "192.0.2.0/24".parse().unwrap(), seconds: 3600 }),
            ("unban ::1", Command::Unban { network: "::1/128".parse().unwrap() }),
            ("bans", Command::Bans),
            ("stats", Command::Statistics),
            ("user 50%41", Command::AboutUser { name: Encoded("50%41".into()) }),
            (
                "test login Bob 1%20",
                Command::TestLogin {
                    name: Encoded("Bob".into()),
                    password: Hidden("1%20".into()),
                    more: Some(Encoded(MORE.into())),
                },
            ),
            ("errors", Command::Errors),
            ("log level", Command::LogLevel),
            ("set log level debug", Command::SetLogLevel { level: log::Level::Debug }),
            ("drain", Command::SetDraining { on: true }),
            ("resume", Command::SetDraining { on: false }),
            ("draining", Command::Draining),
            ("reload", Command::Reload),
            ("follow", Command::Follow { name: None }),
            ("follow Bob", Command::Follow { name: Some(Encoded("Bob".into())) }),
            ("metrics", Command::Metrics),
            ("expire", Command::Expire),
            ("expire --dry-run", Command::WouldExpire),
            ("deletes Bob", Command::Deletions { name: Encoded("Bob".into()) }),
            ("undelete Bob:1795831201.17", Command::Undelete { id: Encoded("Bob:1795831201.17".into()) }),
            (
                "fault add Bob no-uidl 1 60",
                Command::AddFault {
                    who: Encoded("Bob".into()),
                    what: "no-uidl".parse().unwrap(),
                    count: 1,
                    seconds: 60,
                },
            ),
            ("fault clear", Command::ClearFaults { id: None }),
            ("fault clear 3", Command::ClearFaults { id: Some(3) }),
            ("faults", Command::Faults),
            ("undelete Bob since 2h", Command::UndeleteSince { name: Encoded("Bob".into()), seconds: 7200 }),
            ("set transform Bob OFF", Command::SetTransform { name: Encoded("Bob".into()), on: false }),
            ("transform exceptions", Command::Untransformed),
            ("transform test Bob 3", Command::TestTransform { name: Encoded("Bob".into()), number: 3 }),
            ("report", Command::Report { name: None }),
            ("report Bob", Command::Report { name: Some(Encoded("Bob".into())) }),
            ("report --days", Command::ReportByDay { name: None }),
            ("report --days Bob", Command::ReportByDay { name: Some(Encoded("Bob".into())) }),
        ]
    }

    #[test]
    fn every_command_has_one_phrase_and_every_phrase_its_command() {
        for (phrase, command) in spoken() {
            assert_eq!(said(phrase), Ok(Request::Send(command)), "{phrase}");
        }
        assert_eq!(said("help"), Ok(Request::Help));
        assert_eq!(PHRASES.len(), spoken().len(), "help is one, and ban is there twice");
        let begins = |wire: &str| PHRASES.iter().any(|phrase| phrase.wire.split(' ').next() == Some(wire));
        assert!(VERSION_1_1.iter().all(|wire| begins(wire)));
    }

    #[test]
    fn arguments_of_version_1_1_have_their_rules() {
        for (line, error) in [
            ("kick bob", "Invalid <id>, it must be the number of a connection, which sessions lists"),
            ("kick -1", "Invalid <id>, it must be the number of a connection, which sessions lists"),
            ("ban here 5", "Invalid <net>, it must be an address or a network, as 192.0.2.0/24"),
            ("ban ::1 soon", "Invalid <seconds>, it must be a number of seconds up to 4294967295, or a span, as 1h"),
            (
                "ban ::1 99999999999",
                "Invalid <seconds>, it must be a number of seconds up to 4294967295, or a span, as 1h",
            ),
            ("ban ::1 500ms", "Invalid <seconds>, it must be a number of seconds up to 4294967295, or a span, as 1h"),
            ("top", "This is a command for the shell: peepclient top"),
            ("Wait sessions ==0", "This is a command for the shell: peepclient wait <what> <condition>"),
            ("set log level loud", "Invalid <level>, it must be error, warn, info, debug or trace"),
            ("fault add * slow 1 1", "Invalid <what>, it must be a fault, such as no-uidl or delay=500"),
            ("fault add * auth x 1", "Invalid <count>, it must be a number"),
            ("fault clear all", "Invalid <fault>, it must be the number of a fault, which faults lists"),
            ("set transform Bob maybe", "Invalid <on|off>, it must be on or off"),
            ("transform test Bob one", "Invalid <n>, it must be the number of a message"),
            ("kick", "Wrong number of arguments, the command is: kick <id>"),
            ("kick user", "Wrong number of arguments, the command is: kick user <username>"),
            ("kick address", "Wrong number of arguments, the command is: kick address <net>"),
        ] {
            assert_eq!(said(line), Err(error.to_owned()), "{line}");
        }
    }

    #[test]
    fn a_command_is_spoken_without_its_password() {
        for (line, text) in [
            ("add user bob secret", "add user bob …"),
            ("Resume", "resume"),
            ("drain", "drain"),
            ("kick address ::1", "kick address ::1"),
            ("fault clear", "fault clear"),
            ("fault clear 3", "fault clear 3"),
            ("undelete bob since 2h", "undelete bob since 7200"),
            ("set transform bob off", "set transform bob off"),
        ] {
            let Ok(Request::Send(command)) = said(line) else { panic!("{line}") };
            assert_eq!(in_words(&command), text);
        }
    }

    #[test]
    fn names_in_json_are_the_words_of_the_phrases() {
        for (line, name) in
            [("retrieved bytes", "retrieved_bytes"), ("kick user bob", "kick_user"), ("log level", "log_level")]
        {
            let Ok(Request::Send(command)) = said(line) else { panic!("{line}") };
            assert_eq!(key(&command), name);
        }
    }

    #[test]
    fn letter_case_and_blanks_matter_only_in_arguments() {
        let add = Command::AddUser { name: "Bob".into(), password: Hidden("pAss".into()) };
        assert_eq!(said("  ADD\tUser   Bob pAss \r"), Ok(Request::Send(add)));
        assert_eq!(said("QUIT"), Ok(Request::Send(Command::Quit)));
    }

    #[test]
    fn an_unknown_phrase_points_to_help() {
        for line in [
            "",
            "foo",
            "retrieved",
            "set",
            "set timeoutt 5",
            "u?",
            "max connection",
            "añadir user x y",
            "help you",
            "? x",
        ] {
            assert_eq!(said(line), Err("Unknown client command, see available commands with 'help'".into()), "{line}");
        }
    }

    #[test]
    fn the_error_for_a_wrong_number_of_arguments_names_the_phrase() {
        for (line, phrase) in [
            ("set timeout", "set timeout <value>"),
            ("timeout 5", "timeout"),
            ("add user bob", "add user <username> <password>"),
            ("add user bob my secret", "add user <username> <password>"),
            ("exit now", "quit"),
        ] {
            assert_eq!(said(line), Err(format!("Wrong number of arguments, the command is: {phrase}")), "{line}");
        }
    }

    #[test]
    fn an_argument_that_the_protocol_cannot_carry_is_refused() {
        let long = "x".repeat(129);
        for path in ["/my mail", "", "a\u{7f}", "a\u{85}", "a\r\nq", &long, &"é".repeat(65)] {
            let error = parse(&["set", "maildir", path]).unwrap_err();
            assert!(error.starts_with("Invalid <path>, it must have 1 to 128 octets"), "{path:?}: {error}");
        }
        assert!(parse(&["set", "maildir", &long[1..]]).is_ok());
        let error = parse(&["add", "user", "bob", "my secret"]).unwrap_err();
        assert!(error.starts_with("Invalid <password>"), "{error}");
    }

    #[test]
    fn an_integer_out_of_range_is_sent_and_other_text_is_refused() {
        assert_eq!(said("set timeout -1"), Ok(Request::Send(Command::SetTimeout { seconds: -1 })));
        let huge = format!("set max connections {}", "9".repeat(99));
        assert_eq!(said(&huge), Ok(Request::Send(Command::SetMaxConnections { limit: i64::MAX })));
        assert_eq!(said("set timeout soon"), Err("Invalid <value>, it must be an integer".into()));
    }

    #[test]
    fn help_for_a_program_is_the_reports_line() {
        assert_eq!(
            help_line(),
            "capa | quit | maildir | timeout | users | help | retrieved bytes | retrieved emails | max connections | \
             set maildir <path> | set timeout <value> | delete user <username> | current connections amount | \
             current logged users | removed emails amount | add user <username> <password> | \
             set max connections <value> | all time connection amount | all time logged amount\n"
        );
    }

    #[test]
    fn help_for_a_person_has_a_line_for_each_phrase_that_fits_a_terminal() {
        let table = help_table("");
        assert!(table.lines().all(|line| line.len() < 80), "{table}");
        let has_column = |line: &str| line.get(..36).is_some_and(|start| start.ends_with("  "));
        assert!(
            table.lines().all(|line| has_column(line) || line.len() > 34 && !line.contains("  ".repeat(2).as_str()))
        );
        for (text, meaning) in all() {
            assert!(table.contains(&format!("  {text}")) && table.contains(meaning) && !meaning.is_empty(), "{text}");
        }
    }

    #[test]
    fn help_tells_of_one_command() {
        let about = |line: &str| match said(line) {
            Ok(Request::HelpAbout(typed)) => help_table(&typed),
            other => panic!("{other:?}"),
        };
        assert_eq!(about("help add"), "  add user <username> <password>    add an account\n");
        assert_eq!(
            about("help ban"),
            "  ban <net> <seconds>               refuse clients of a network; 0: without end\n      \
             Example: ban 192.0.2.0/24 1h\n  \
             bans                              list the bans and penalties\n"
        );
        assert!(
            about("help delete user").ends_with(
                "      Error: Invalid username, does not exist\n      \
             Error: The users file cannot be written, nothing was changed\n"
            ),
            "{}",
            about("help delete user")
        );
        assert!(about("help fault add").contains(" no-uidl "), "{}", about("help fault add"));
        assert!(
            about("help wait").contains("wait user bob messages '>=3'") && about("help top").contains("--interval")
        );
        for (command, example) in EXAMPLES {
            let Ok(Request::Send(command_of_example)) = said(example) else { panic!("{example}") };
            assert!(in_words(&command_of_example).starts_with(fixed_words(command)), "{example}");
        }
        assert_eq!(about("HELP  Add   User"), about("? add user"));
        assert_eq!(about("help set").lines().count(), 6, "one has two lines");
        assert_eq!(about("help exit"), about("help quit"));
        for phrase in &PHRASES {
            assert!(about(&format!("help {}", fixed_words(phrase.text))).contains(phrase.meaning));
        }
    }

    #[test]
    fn exit_and_a_question_mark_are_understood() {
        assert_eq!(said("Exit"), Ok(Request::Send(Command::Quit)));
        assert_eq!(said("?"), Ok(Request::Help));
    }

    #[test]
    fn the_next_argument_is_known() {
        for (before, name) in [
            ("kick ", Some("<id>")),
            ("Kick User ", Some("<username>")),
            ("follow ", Some("<username>")),
            ("ban ", Some("<net>")),
            ("ban ::1 ", Some("<seconds>")),
            ("ban ::1 5 ", None),
            ("users ", None),
            ("", None),
        ] {
            assert_eq!(argument_behind(before), name, "{before}");
        }
    }

    #[test]
    fn completion_offers_the_phrases_that_begin_with_the_typed_text() {
        let offered = |typed| completions(typed).map(|phrase| phrase.text).collect::<Vec<_>>();
        assert_eq!(offered("CUR"), ["current connections amount", "current logged users"]);
        assert_eq!(offered(" set t"), ["set timeout <value>", "set transform <username> <on|off>"]);
        assert_eq!(offered("foll"), ["follow", "follow <username>"]);
        assert_eq!(offered("").len(), PHRASES.len());
        assert!(offered("set timeout 5").is_empty() && offered("set timeout <").is_empty());
    }
}
