use super::table::EXAMPLES;
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
            Command::AddFault { who: Encoded("Bob".into()), what: "no-uidl".parse().unwrap(), count: 1, seconds: 60 },
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
        ("ban ::1 99999999999", "Invalid <seconds>, it must be a number of seconds up to 4294967295, or a span, as 1h"),
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
    for line in
        ["", "foo", "retrieved", "set", "set timeoutt 5", "u?", "max connection", "añadir user x y", "help you", "? x"]
    {
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
    assert!(table.lines().all(|line| has_column(line) || line.len() > 34 && !line.contains("  ".repeat(2).as_str())));
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
    assert!(about("help wait").contains("wait user bob messages '>=3'") && about("help top").contains("--interval"));
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
