//! Text from the other side of a connection, made safe for a terminal.
//!
//! `peepclient` and `popbench` show text that a server sent. Raw, such text could move the cursor, change the order in
//! which a terminal shows the characters of a line, or hide some of them. The server's log has no need of this module:
//! it writes text from clients with `{:?}`, which escapes the same characters and more.

use std::borrow::Cow;

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Returns `text` with each unsafe character replaced by its number, as in `\u{202e}`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(is_unsafe) { Cow::Owned(text.chars().map(escaped).collect()) } else { Cow::Borrowed(text) }
}

fn escaped(c: char) -> String {
    if is_unsafe(c) { c.escape_unicode().to_string() } else { c.to_string() }
}

/// Returns true for characters that control the terminal (Cc), are invisible or change the order of others (Cf: the
/// bidirectional controls and zero-width characters are among them), or end a line or paragraph (Zl, Zp).
pub(crate) fn is_unsafe(c: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    // The question for the category is a search in a table, and most text is ASCII.
    match c.is_ascii() {
        true => c.is_ascii_control(),
        false => matches!(c.general_category(), Control | Format | LineSeparator | ParagraphSeparator),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSAFE: &str = "\0\t\n\r\u{1b}\u{7f}\u{85}\u{9b}\u{ad}\u{61c}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\
                          \u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2060}\u{2066}\u{2067}\u{2068}\
                          \u{2069}\u{feff}\u{fff9}\u{e0001}\u{e0041}";

    #[test]
    fn control_and_format_characters_are_escaped() {
        for c in UNSAFE.chars() {
            let code = u32::from(c);
            assert_eq!(printable(&format!("a{c}b")), format!("a\\u{{{code:x}}}b"));
        }
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in
            ["", "u1@mail.example", "~/Mail \\ \"x\" 'y'", "Zoë, Zoe\u{308}", "אב", "日本\u{3000}語", "🙂", "a\u{a0}b"]
        {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn the_quotes_of_the_log_escape_whatever_is_escaped_here() {
        for c in ('\0'..=char::MAX).filter(|&c| is_unsafe(c)) {
            assert!(!format!("{:?}", format!("a{c}b")).contains(c), "{c:?}");
        }
    }
}
