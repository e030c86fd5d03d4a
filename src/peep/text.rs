//! How values of version 1.1 are written, in commands and in answers.

use std::fmt;
use std::time::SystemTime;

use log::Level;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The ASCII characters that are encoded. All other characters are encoded too.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// Encodes a text so that it has no space and no control character (RFC 3986, section 2.1).
pub(super) fn encoded(text: &str) -> impl fmt::Display {
    utf8_percent_encode(text, ENCODED)
}

/// Encodes only what [`decoded`] would not read as it stands. An argument of a command is written so, because its length
/// is limited.
pub(super) fn sparingly_encoded(text: &str) -> String {
    let begins_code =
        |at: usize| text.as_bytes().get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    let write = |(at, c): (usize, char)| match c {
        ' ' => "%20".to_owned(),
        '%' if begins_code(at) => "%25".to_owned(),
        c if c.is_control() => encoded(c.encode_utf8(&mut [0; 4])).to_string(),
        c => c.to_string(),
    };
    text.char_indices().map(write).collect()
}

/// Decodes a text. A `%` without two digits behind it stands for itself, since a person may type it so. Returns `None`
/// if the result is not UTF-8.
pub(super) fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// The name of a log level.
pub(super) fn level(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// A time in UTC, to the second (RFC 3339).
#[must_use]
pub fn time(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time).replace_nanosecond(0);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "-".to_owned())
}

/// A time in seconds since 1970, as [`time()`] writes it.
#[must_use]
pub fn time_of(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn only_what_needs_it_is_encoded() {
        for (text, wire) in
            [("ana@example.org", "ana@example.org"), ("a b", "a%20b"), ("50%", "50%25"), ("zoë\n", "zo%C3%AB%0A")]
        {
            assert_eq!(encoded(text).to_string(), wire);
            assert_eq!(decoded(wire).as_deref(), Some(text));
        }
        assert_eq!(decoded("50%off zoë").as_deref(), Some("50%off zoë"));
        assert_eq!(decoded("%ff"), None);
    }

    #[test]
    fn an_argument_is_not_longer_than_the_word_that_it_was_read_from() {
        for (word, written) in [("%2541", "%2541"), ("%%341", "%2541"), ("%C2%85%", "%C2%85%"), ("zo%c3%ab", "zoë")] {
            assert_eq!(sparingly_encoded(&decoded(word).unwrap()), written);
        }
    }

    #[test]
    fn times_are_in_utc() {
        assert_eq!(time(SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_831_201_500)), "2026-11-28T02:00:01Z");
        assert_eq!([1_795_831_201, u64::MAX].map(time_of), ["2026-11-28T02:00:01Z", "-"]);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in any::<String>()) {
            let wire = encoded(&text).to_string();
            prop_assert!(!wire.contains(|c: char| c == ' ' || c.is_control()));
            prop_assert_eq!(decoded(&wire), Some(text.clone()));
            prop_assert_eq!(decoded(&sparingly_encoded(&text)), Some(text));
        }
    }
}
