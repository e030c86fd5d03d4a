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

/// A word of an answer as an integer if it is one, or else as a string.
pub(super) fn typed(word: &str) -> Value {
    match word.parse::<i64>() {
        Ok(number) if number.to_string() == word => number.into(),
        _ => word
            .parse::<u64>()
            .ok()
            .filter(|number| number.to_string() == word)
            .map_or_else(|| word.into(), Value::from),
    }
}

/// The same for fields of events, among which decimal fractions are numbers too.
pub(super) fn typed_in_event(word: &str) -> Value {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    let is_decimal = word.split_once('.').is_some_and(|(whole, part)| digits(whole) && digits(part));
    match word.parse::<f64>() {
        Ok(number) if is_decimal => number.into(),
        _ => typed(word),
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
                _ => typed(value),
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
                Command::TestLogin { name: Encoded("ana".into()), password: Hidden("x".into()) },
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
            assert_eq!(text(&typed(word)), json);
        }
    }

    #[test]
    fn fractions_in_events_are_numbers() {
        for (word, json) in
            [("0.884233", "0.884233"), ("0", "0"), ("0.1.0", "\"0.1.0\""), ("1e5", "\"1e5\""), (".5", "\".5\"")]
        {
            assert_eq!(text(&typed_in_event(word)), json);
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
