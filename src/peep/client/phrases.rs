//! The English phrase for each PEEP command: one table for parsing, help and completion. Letter case does not matter.

use crate::peep::Command;
use crate::peep::is_argument;

/// The phrase for one command.
pub(super) struct Phrase {
    /// The fixed words, then the names of the arguments.
    pub(super) text: &'static str,
    /// How the command begins on the wire; [`HELP`] for the phrase that is not sent.
    commencement: &'static str,
    /// What the command does, in a few words for `help`.
    meaning: &'static str,
}

/// All phrases, in the order of `help` in the report.
const PHRASES: [Phrase; 19] = [
    phrase("capa", "cap?", "list the server's extensions and limits"),
    phrase("quit", "q", "end the session (also: exit)"),
    phrase("maildir", "m?", "show the mail directory"),
    phrase("timeout", "t?", "show the idle timeout in seconds, 0 is none"),
    phrase("users", "u?", "list the accounts"),
    phrase("help", HELP, "list the commands, or: help <command>"),
    phrase("retrieved bytes", "rb?", "octets sent to POP3 clients"),
    phrase("retrieved emails", "re?", "messages retrieved"),
    phrase("max connections", "c?", "show the limit of open connections"),
    phrase("set maildir <path>", "m=", "change the mail directory"),
    phrase("set timeout <value>", "t=", "change the idle timeout in seconds"),
    phrase("delete user <username>", "u-", "remove an account, its mail stays"),
    phrase("current connections amount", "cc?", "POP3 connections that are open now"),
    phrase("current logged users", "cu?", "list the users who are logged in now"),
    phrase("removed emails amount", "xe?", "messages removed"),
    phrase("add user <username> <password>", "u+", "add an account"),
    phrase("set max connections <value>", "c=", "change the limit of open connections"),
    phrase("all time connection amount", "hc?", "POP3 connections since the start"),
    phrase("all time logged amount", "hu?", "logins since the start"),
];

const fn phrase(text: &'static str, commencement: &'static str, meaning: &'static str) -> Phrase {
    Phrase { text, commencement, meaning }
}

/// Other words for a phrase. The report's list does not have them.
const ALIASES: [(&str, &str); 2] = [("exit", "quit"), ("?", "help")];

/// The commencement in the table of the one phrase that is not sent to the server.
const HELP: &str = "";

/// The error for words that are not a phrase.
const UNKNOWN: &str = "Unknown client command, see available commands with 'help'";

/// The rest of the error for an argument that the protocol cannot carry.
pub(super) const ARGUMENT_RULE: &str = "it must have 1 to 128 octets, no space and no control character";

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
    let (phrase, arguments) =
        PHRASES.iter().find_map(|phrase| Some((phrase, arguments(&said, phrase.text)?))).ok_or(UNKNOWN)?;
    if phrase.commencement == HELP {
        return help_about(arguments);
    }
    let names: Vec<_> = phrase.text.split(' ').filter(|word| word.starts_with('<')).collect();
    if names.len() != arguments.len() {
        return Err(format!("Wrong number of arguments, the command is: {}", phrase.text));
    }
    if let Some((name, _)) = names.iter().zip(arguments).find(|(_, argument)| !is_argument(argument)) {
        return Err(format!("Invalid {name}, {ARGUMENT_RULE}"));
    }
    let line = [&[phrase.commencement], arguments].concat().join(" ");
    // The arguments are complete and well-formed, so the only error left is an argument that is not a number.
    Command::parse(line.as_bytes(), true)
        .map(Request::Send)
        .map_err(|_| format!("Invalid {}, it must be an integer", names.concat()))
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
    if completions(&beginning).next().is_none() {
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

/// The phrase up to its first argument. It ends with a space if the phrase has arguments.
pub(super) fn fixed_words(phrase: &str) -> &str {
    phrase.split_once('<').map_or(phrase, |(fixed, _)| fixed)
}

/// All phrases in one line, as in the report, for a program that reads the answer.
pub(super) fn help_line() -> String {
    PHRASES.each_ref().map(|phrase| phrase.text).join(" | ") + "\n"
}

/// One line for each phrase that begins with `typed`, with its meaning, for a person.
pub(super) fn help_table(typed: &str) -> String {
    completions(typed).map(|Phrase { text, meaning, .. }| format!("  {text:<30}  {meaning}\n")).collect()
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
        ]
    }

    #[test]
    fn every_command_has_one_phrase_and_every_phrase_its_command() {
        for (phrase, command) in spoken() {
            let phrases = PHRASES.iter().filter(|known| known.commencement == command.commencement());
            assert_eq!(phrases.count(), 1, "{phrase}");
            assert_eq!(said(phrase), Ok(Request::Send(command)));
        }
        assert_eq!(said("help"), Ok(Request::Help));
        assert_eq!(PHRASES.len(), spoken().len() + 1);
    }

    #[test]
    fn no_phrase_is_the_beginning_of_another() {
        for phrase in &PHRASES {
            let begins = |other: &&Phrase| arguments(&words(other.text), phrase.text).is_some();
            assert_eq!(PHRASES.iter().filter(begins).count(), 1, "{}", phrase.text);
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
            "help me",
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
        assert_eq!(table.lines().count(), PHRASES.len());
        for (line, phrase) in table.lines().zip(&PHRASES) {
            assert!(line.len() < 80 && line.starts_with(&format!("  {} ", phrase.text)), "{line}");
            assert!(!phrase.meaning.is_empty());
        }
    }

    #[test]
    fn help_tells_of_one_command() {
        let about = |line: &str| match said(line) {
            Ok(Request::HelpAbout(typed)) => help_table(&typed),
            other => panic!("{other:?}"),
        };
        assert_eq!(about("help add"), "  add user <username> <password>  add an account\n");
        assert_eq!(about("HELP  Add   User"), about("? add"));
        assert_eq!(about("help set").lines().count(), 3);
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
    fn completion_offers_the_phrases_that_begin_with_the_typed_text() {
        let offered = |typed| completions(typed).map(|phrase| phrase.text).collect::<Vec<_>>();
        assert_eq!(offered("CUR"), ["current connections amount", "current logged users"]);
        assert_eq!(offered(" set t"), ["set timeout <value>"]);
        assert_eq!(offered("").len(), PHRASES.len());
        assert!(offered("set timeout 5").is_empty() && offered("set timeout <").is_empty());
    }
}
