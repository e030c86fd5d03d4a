//! Answers as JSON. All characters that could steer a terminal are written as `\uXXXX`.

use serde_json::Value;

use crate::peep::{Answer, Command, Form, TestedLogin};
use crate::printable::is_unsafe;

/// A value as text.
pub(super) fn text(value: &Value) -> String {
    // Outside its strings JSON has no characters that are unsafe.
    value.to_string().chars().fold(String::new(), |mut text, c| {
        match is_unsafe(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}"))),
            false => text.push(c),
        }
        text
    })
}

/// An object as text, with its members in the given order.
pub(super) fn object<'a>(members: impl IntoIterator<Item = (&'a str, Value)>) -> String {
    let members: Vec<_> = members.into_iter().map(|(name, value)| member(name, &value)).collect();
    format!("{{{}}}", members.join(","))
}

/// A member of an object.
pub(super) fn member(name: &str, value: &Value) -> String {
    format!("{}:{}", text(&name.into()), text(value))
}

/// The names of values and of events' fields that are text, even if one looks like a number, as a user's name may.
const TEXTS: [&str; 28] = [
    "address",
    "busy",
    "change",
    "client",
    "deletes",
    "holder_host",
    "last_login",
    "last_login_address",
    "layout",
    "log_level",
    "maildir",
    "mechanism",
    "peep_socket",
    "problem",
    "protocol",
    "proxy",
    "reason",
    "result",
    "session_address",
    "started",
    "state",
    "state_directory",
    "tls_version",
    "user",
    "users_file",
    "version",
    "what",
    "who",
];

/// The names of values that are 1 for yes and 0 for no.
const SWITCHES: [&str; 5] = ["allow_cleartext", "draining", "peep_tls", "tls", "transform"];

/// The value of this name: text, true or false, or an integer if it is one. The type depends on the name alone, unless the
/// name is one of a newer server.
pub(super) fn named(name: &str, word: &str) -> Value {
    match word {
        _ if TEXTS.contains(&name) => word.into(),
        "0" | "1" if SWITCHES.contains(&name) => (word == "1").into(),
        _ => integer_or_text(word),
    }
}

/// The same for fields of events, among which decimal fractions are numbers too.
pub(super) fn named_in_event(name: &str, word: &str) -> Value {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    let is_decimal = word.split_once('.').is_some_and(|(whole, part)| digits(whole) && digits(part));
    match word.parse::<f64>() {
        Ok(number) if is_decimal && !TEXTS.contains(&name) => number.into(),
        _ => named(name, word),
    }
}

/// A word as an integer if it is one, or else as a string.
fn integer_or_text(word: &str) -> Value {
    match word.parse::<i64>() {
        Ok(number) if number.to_string() == word => number.into(),
        _ => word
            .parse::<u64>()
            .ok()
            .filter(|number| number.to_string() == word)
            .map_or_else(|| word.into(), Value::from),
    }
}

/// An answer of one line. `key` is the name of its value.
pub(super) fn answer(command: &Command, key: &str, answer: &Answer) -> String {
    match answer {
        // The answer of a command that may have lines is always an array.
        Answer::Done if command.form() == Form::PerhapsLines => "[]".to_owned(),
        Answer::Done | Answer::Lines(_) => object([("ok", true.into())]),
        Answer::Error(code) => object([("error", code.to_string().into()), ("code", code.number().into())]),
        Answer::Value(value) if matches!(command, Command::TestLogin { .. }) => {
            let tested = TestedLogin::read(value);
            let mut members = vec![(key, tested.reason.as_str().into())];
            members.extend(tested.json());
            object(members)
        }
        Answer::Value(value) => {
            let value = match command {
                Command::Maildir | Command::LogLevel => value.as_str().into(),
                Command::Draining if value == "0" || value == "1" => (value == "1").into(),
                _ => integer_or_text(value),
            };
            object([(key, value)])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Hidden;
    use crate::peep::{Encoded, ErrorCode};

    #[test]
    fn one_line_is_an_object() {
        for (command, key, given, json) in [
            (Command::RetrievedBytes, "retrieved_bytes", Answer::Value("395".into()), r#"{"retrieved_bytes":395}"#),
            (Command::Maildir, "maildir", Answer::Value("395".into()), r#"{"maildir":"395"}"#),
            (Command::Draining, "draining", Answer::Value("1".into()), r#"{"draining":true}"#),
            (Command::SetDraining { on: true }, "drain", Answer::Done, r#"{"ok":true}"#),
            (Command::Reload, "reload", Answer::Done, "[]"),
            (
                Command::TestLogin { name: Encoded("ana".into()), password: Hidden("x".into()), more: None },
                "test_login",
                Answer::Value(
                    "wrong password seconds=0.5 source=command%20line said=wrong%20password took=0.25".into(),
                ),
                r#"{"test_login":"wrong password","seconds":0.5,"sources":[{"said":"wrong password","seconds":0.25,"source":"command line"}]}"#,
            ),
            (
                Command::DeleteUser { name: "x".into() },
                "delete_user",
                Answer::Error(ErrorCode::NoSuchUser),
                r#"{"error":"Invalid username, does not exist","code":4}"#,
            ),
        ] {
            assert_eq!(answer(&command, key, &given), json);
        }
    }

    #[test]
    fn only_what_looks_like_an_integer_of_a_program_is_a_number() {
        for (word, json) in [
            ("17", "17"),
            ("-1", "-1"),
            ("18446744073709551615", "18446744073709551615"),
            ("007", "\"007\""),
            ("1.5", "\"1.5\""),
            ("+1", "\"+1\""),
            ("", "\"\""),
        ] {
            assert_eq!(text(&integer_or_text(word)), json);
        }
    }

    #[test]
    fn fractions_in_events_are_numbers() {
        for (word, json) in
            [("0.884233", "0.884233"), ("0", "0"), ("0.1.0", "\"0.1.0\""), ("1e5", "\"1e5\""), (".5", "\".5\"")]
        {
            assert_eq!(text(&named_in_event("seconds", word)), json);
        }
    }

    #[test]
    fn the_type_depends_on_the_name() {
        for (name, word, json) in [
            ("user", "123", "\"123\""),
            ("maildir", "1.5", "\"1.5\""),
            ("messages", "123", "123"),
            ("draining", "0", "false"),
            ("tls", "TLSv1.3", "\"TLSv1.3\""),
        ] {
            assert_eq!((text(&named(name, word)), text(&named_in_event(name, word))), (json.into(), json.into()));
        }
    }

    #[test]
    fn no_unsafe_character_is_left_and_none_is_lost() {
        let unsafe_text = "a\u{1b}[2J\u{9b}\u{7f}\u{202e}\u{e0001}\"\\é";
        let json = text(&unsafe_text.into());
        assert!(json.chars().all(|c| c == 'é' || c.is_ascii_graphic()), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), unsafe_text);
    }
}
