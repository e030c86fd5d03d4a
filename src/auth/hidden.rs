//! A wrapper for passwords and other secrets, so that they do not get into logs with the values that contain them.

use std::fmt;

/// A value that `Debug` prints as `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hidden<T>(pub T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use crate::auth::sasl::{Exchange, Mechanism};
    use crate::auth::{Credentials, Users};
    use crate::{peep, pop3};

    #[test]
    fn no_debug_text_has_a_password_in_it() {
        let users = Users::default();
        users.add_own("ana".parse().unwrap(), b"hunter2");
        let plain = b"AGFuYQBodW50ZXIy"; // NUL ana NUL hunter2
        let pop3 = |line: &[u8]| format!("{:?}", pop3::Command::parse(line));
        let peep = |line: &[u8], authenticated| format!("{:?}", peep::Command::parse(line, authenticated));
        for (text, has_name) in [
            (pop3(b"PASS hunter2"), false),
            (pop3(b"APOP ana hunter2"), true),
            (pop3(&[b"AUTH PLAIN ", &plain[..]].concat()), false),
            (peep(b"a ana hunter2", false), true),
            (peep(b"u+ ana hunter2", true), true),
            (format!("{:?}", Exchange::new(Mechanism::Plain, &users).respond(plain)), true),
            (format!("{:?}", Credentials::new("ana", "hunter2").unwrap()), true),
            (format!("{users:?}"), true),
        ] {
            // `Debug` prints octets as numbers, so the text is searched for these, too.
            let is_shown = |what: &str| {
                let numbers = format!("{:?}", what.as_bytes());
                text.contains(what) || text.contains(numbers.trim_matches(['[', ']']))
            };
            assert!(text.contains("***") && !is_shown("hunter2") && !is_shown("AGFuYQBodW50ZXIy"), "{text}");
            assert_eq!(is_shown("ana"), has_name, "{text}");
        }
    }
}
