//! Answers as text. Control characters never reach the terminal: a server's text is not to be trusted with it.

use crate::peep::Reply;

/// An answer for a person: `OK!`, `OK! VALUE`, `OK! lines: n` and the lines, or `ERROR! TEXT`.
pub(super) fn labelled(reply: &Reply) -> String {
    match reply {
        Reply::Done => line("OK!"),
        Reply::Value(value) => line(&format!("OK! {value}")),
        Reply::Lines(lines) if lines.is_empty() => line("OK!"),
        Reply::Lines(lines) => line(&format!("OK! lines: {}", lines.len())) + &bare(reply),
        Reply::Error(code) => error(&code.to_string()),
    }
}

/// An answer for a script: the value or the lines, nothing else.
pub(super) fn bare(reply: &Reply) -> String {
    match reply {
        Reply::Done => String::new(),
        Reply::Value(value) => line(value),
        Reply::Lines(lines) => lines.iter().map(|text| line(text)).collect(),
        Reply::Error(code) => line(&code.to_string()),
    }
}

/// An error, the server's or our own.
pub(super) fn error(text: &str) -> String {
    line(&format!("ERROR! {text}"))
}

fn line(text: &str) -> String {
    text.replace(char::is_control, "?") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peep::ErrorCode;

    #[test]
    fn each_shape_has_its_text() {
        let names = |names: &[&str]| Reply::Lines(names.iter().map(|&name| name.to_owned()).collect());
        for (reply, for_a_person, for_a_script) in [
            (Reply::Done, "OK!\n", ""),
            (Reply::Value("395".into()), "OK! 395\n", "395\n"),
            (names(&[]), "OK!\n", ""),
            (names(&["one", "two"]), "OK! lines: 2\none\ntwo\n", "one\ntwo\n"),
            (
                Reply::Error(ErrorCode::NoSuchUser),
                "ERROR! Invalid username, does not exist\n",
                "Invalid username, does not exist\n",
            ),
        ] {
            assert_eq!(labelled(&reply), for_a_person);
            assert_eq!(bare(&reply), for_a_script);
        }
    }

    #[test]
    fn a_server_cannot_steer_the_terminal() {
        assert_eq!(labelled(&Reply::Value("\x1b[2Jx".into())), "OK! ?[2Jx\n");
        assert_eq!(bare(&Reply::Lines(vec!["a\rb".into()])), "a?b\n");
    }
}
