//! Answers as text. Characters of the server's text that could steer a terminal are escaped: see
//! [`mod@crate::printable`].

use crate::peep::{Answer, TestedLogin};
use crate::printable::printable;

/// The first line of an answer for a person: `OK!`, `OK! VALUE`, `OK! lines: n` or `ERROR! TEXT`.
pub(super) fn labelled(answer: &Answer) -> String {
    match answer {
        Answer::Done | Answer::Lines(0) => line("OK!"),
        Answer::Value(value) => line(&format!("OK! {value}")),
        Answer::Lines(count) => line(&format!("OK! lines: {count}")),
        Answer::Error(code) => error(&code.to_string()),
    }
}

/// The first line of an answer for a script: the value if there is one, otherwise nothing.
pub(super) fn bare(answer: &Answer) -> String {
    match answer {
        Answer::Done | Answer::Lines(_) => String::new(),
        Answer::Value(value) => line(value),
        Answer::Error(code) => line(&code.to_string()),
    }
}

/// The answer to a test of a login: the reason, and a line for each thing that has been found out.
pub(super) fn tested(value: &str, is_labelled: bool) -> String {
    let tested = TestedLogin::read(value);
    let reason = if is_labelled { format!("OK! {}", tested.reason) } else { tested.reason.clone() };
    line(&reason) + &tested.details().iter().map(|text| line(text)).collect::<String>()
}

/// An error, the server's or the client's own.
pub(super) fn error(text: &str) -> String {
    line(&format!("ERROR! {text}"))
}

/// One line of an answer.
pub(super) fn line(text: &str) -> String {
    printable(text).into_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peep::ErrorCode;

    #[test]
    fn each_shape_has_its_text() {
        for (answer, for_a_person, for_a_script) in [
            (Answer::Done, "OK!\n", ""),
            (Answer::Value("395".into()), "OK! 395\n", "395\n"),
            (Answer::Lines(0), "OK!\n", ""),
            (Answer::Lines(2), "OK! lines: 2\n", ""),
            (
                Answer::Error(ErrorCode::NoSuchUser),
                "ERROR! Invalid username, does not exist\n",
                "Invalid username, does not exist\n",
            ),
        ] {
            assert_eq!(labelled(&answer), for_a_person);
            assert_eq!(bare(&answer), for_a_script);
        }
    }

    #[test]
    fn a_server_cannot_steer_the_terminal() {
        assert_eq!(labelled(&Answer::Value("\x1b[2Jx".into())), "OK! \\u{1b}[2Jx\n");
        assert_eq!(bare(&Answer::Value("\u{202e}x".into())), "\\u{202e}x\n");
        assert_eq!(line("a\rb\u{200b}"), "a\\u{d}b\\u{200b}\n");
    }
}
