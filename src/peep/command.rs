//! A PEEP command as a value. The server parses it and the client writes it, so both have the same grammar.

use std::fmt;

use super::ErrorCode;
use crate::auth::Hidden;

/// The most octets of a line, CRLF included: a commencement of 8 and two arguments of 128, each after a space.
pub const LINE_LIMIT: usize = 268;

/// The most octets of an argument.
const ARGUMENT_LIMIT: usize = 128;

/// One command of the protocol. Integers may have any value (larger ones saturate): the session checks their range,
/// because each command has its own error code for that.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the table in the module's documentation describes each
pub enum Command {
    Authenticate { name: String, password: Hidden<String> },
    Capabilities,
    Quit,
    AddUser { name: String, password: Hidden<String> },
    DeleteUser { name: String },
    Users,
    SetMaxConnections(i64),
    MaxConnections,
    SetMaildir(String),
    Maildir,
    SetTimeout(i64),
    Timeout,
    RetrievedBytes,
    RetrievedEmails,
    RemovedEmails,
    CurrentConnections,
    CurrentUsers,
    AllConnections,
    AllLogins,
}

impl Command {
    /// Parses a line without its line end, in the state before (`authenticated == false`) or after `a`.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownCommand`] when this state has no such commencement,
    /// [`ErrorCode::BadSyntax`] when an argument is missing or malformed.
    pub fn parse(line: &[u8], authenticated: bool) -> Result<Self, ErrorCode> {
        let mut words = line.split(|&octet| octet == b' ');
        let commencement = words.next().unwrap_or_default();
        if !authenticated && !matches!(commencement, b"a" | b"cap?" | b"q") {
            return Err(ErrorCode::UnknownCommand);
        }
        let arguments = || {
            let words = words.map(argument).collect::<Result<Vec<_>, _>>()?;
            Ok(words.into_iter())
        };
        Ok(match commencement {
            b"a" if !authenticated => {
                let mut arguments = arguments()?;
                Self::Authenticate { name: required(&mut arguments)?, password: Hidden(required(&mut arguments)?) }
            }
            b"u+" | b"+a" => {
                let mut arguments = arguments()?;
                Self::AddUser { name: required(&mut arguments)?, password: Hidden(required(&mut arguments)?) }
            }
            b"u-" => Self::DeleteUser { name: required(&mut arguments()?)? },
            b"c=" => Self::SetMaxConnections(integer(&required(&mut arguments()?)?)?),
            b"m=" => Self::SetMaildir(required(&mut arguments()?)?),
            b"t=" => Self::SetTimeout(integer(&required(&mut arguments()?)?)?),
            _ => {
                let command = Self::without_arguments(commencement).ok_or(ErrorCode::UnknownCommand)?;
                arguments()?; // further arguments are ignored, but have to be well-formed
                command
            }
        })
    }

    fn without_arguments(commencement: &[u8]) -> Option<Self> {
        Some(match commencement {
            b"cap?" => Self::Capabilities,
            b"q" => Self::Quit,
            b"u?" => Self::Users,
            b"c?" => Self::MaxConnections,
            b"m?" => Self::Maildir,
            b"t?" => Self::Timeout,
            b"rb?" => Self::RetrievedBytes,
            b"re?" => Self::RetrievedEmails,
            b"xe?" => Self::RemovedEmails,
            b"cc?" => Self::CurrentConnections,
            b"cu?" => Self::CurrentUsers,
            b"hc?" => Self::AllConnections,
            b"hu?" => Self::AllLogins,
            _ => return None,
        })
    }

    /// Returns true if the answer is `+n` and n lines, rather than `+` or `+VALUE`.
    #[must_use]
    pub fn answers_lines(&self) -> bool {
        matches!(self, Self::Capabilities | Self::Users | Self::CurrentUsers)
    }
}

/// The line that [`Command::parse`] parses, without a line end.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authenticate { name, password } => write!(f, "a {name} {}", password.0),
            Self::AddUser { name, password } => write!(f, "u+ {name} {}", password.0),
            Self::DeleteUser { name } => write!(f, "u- {name}"),
            Self::SetMaxConnections(limit) => write!(f, "c= {limit}"),
            Self::SetMaildir(path) => write!(f, "m= {path}"),
            Self::SetTimeout(seconds) => write!(f, "t= {seconds}"),
            Self::Capabilities => f.write_str("cap?"),
            Self::Quit => f.write_str("q"),
            Self::Users => f.write_str("u?"),
            Self::MaxConnections => f.write_str("c?"),
            Self::Maildir => f.write_str("m?"),
            Self::Timeout => f.write_str("t?"),
            Self::RetrievedBytes => f.write_str("rb?"),
            Self::RetrievedEmails => f.write_str("re?"),
            Self::RemovedEmails => f.write_str("xe?"),
            Self::CurrentConnections => f.write_str("cc?"),
            Self::CurrentUsers => f.write_str("cu?"),
            Self::AllConnections => f.write_str("hc?"),
            Self::AllLogins => f.write_str("hu?"),
        }
    }
}

/// Returns true if `text` can be sent as an argument: 1 to 128 octets, no space, no control character.
#[must_use]
pub(crate) fn is_argument(text: &str) -> bool {
    (1..=ARGUMENT_LIMIT).contains(&text.len()) && !text.chars().any(|c| c == ' ' || c.is_control())
}

fn argument(word: &[u8]) -> Result<&str, ErrorCode> {
    std::str::from_utf8(word).ok().filter(|text| is_argument(text)).ok_or(ErrorCode::BadSyntax)
}

fn required<'a>(arguments: &mut impl Iterator<Item = &'a str>) -> Result<String, ErrorCode> {
    arguments.next().map(str::to_owned).ok_or(ErrorCode::BadSyntax)
}

/// Parses a decimal integer, perhaps negative. One that is too large for the type is out of every range anyway, so it
/// saturates.
fn integer(text: &str) -> Result<i64, ErrorCode> {
    let (digits, bound) = match text.strip_prefix('-') {
        Some(digits) => (digits, i64::MIN),
        None => (text, i64::MAX),
    };
    if digits.is_empty() || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(ErrorCode::BadSyntax);
    }
    Ok(text.parse().unwrap_or(bound))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<Command, ErrorCode> {
        Command::parse(line.as_bytes(), true)
    }

    #[test]
    fn before_authentication_only_a_cap_and_q_are_known() {
        for line in ["u?", "u+ x y", "u+", "c= 5", "rb?", "", "A b c", "nonsense"] {
            assert_eq!(Command::parse(line.as_bytes(), false), Err(ErrorCode::UnknownCommand), "{line}");
        }
        for line in ["a b c", "cap?", "q"] {
            assert!(Command::parse(line.as_bytes(), false).is_ok(), "{line}");
        }
        assert_eq!(parse("a b c"), Err(ErrorCode::UnknownCommand));
    }

    #[test]
    fn what_is_missing_or_malformed_is_bad_syntax() {
        let long = "x".repeat(129);
        for line in [
            "u+ x",
            "u-",
            "u- ",
            "u-  x",
            "u+ x  y",
            "c=",
            "c= x",
            "c= 1.5",
            "c= +5",
            "c= -",
            "t= 1x",
            "u? ",
            "cap?  x",
            "m= a\tb",
            "m= \u{7f}",
            &format!("u- {long}"),
        ] {
            assert_eq!(parse(line), Err(ErrorCode::BadSyntax), "{line:?}");
        }
        assert_eq!(Command::parse(b"u- \xff", true), Err(ErrorCode::BadSyntax));
    }

    #[test]
    fn an_unknown_commencement_is_unknown_whatever_follows() {
        for line in ["", " c?", "C?", "c", "c=5", "cc", "u+x y", "foo  bar"] {
            assert_eq!(parse(line), Err(ErrorCode::UnknownCommand), "{line:?}");
        }
    }

    #[test]
    fn extra_arguments_are_ignored() {
        assert_eq!(parse("c? more words"), Ok(Command::MaxConnections));
        assert_eq!(parse("u- x y z"), Ok(Command::DeleteUser { name: "x".into() }));
    }

    #[test]
    fn adding_a_user_has_two_spellings() {
        assert_eq!(parse("+a x y"), parse("u+ x y"));
    }

    #[test]
    fn integers_saturate() {
        assert_eq!(parse("c= 99999999999999999999"), Ok(Command::SetMaxConnections(i64::MAX)));
        assert_eq!(parse("t= -99999999999999999999"), Ok(Command::SetTimeout(i64::MIN)));
        assert_eq!(parse("t= -1"), Ok(Command::SetTimeout(-1)));
        assert_eq!(parse("c= 007"), Ok(Command::SetMaxConnections(7)));
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let word = || "[!-~é]{1,64}".prop_filter("an argument", |text| is_argument(text));
        prop_oneof![
            (word(), word()).prop_map(|(name, password)| Command::AddUser { name, password: Hidden(password) }),
            word().prop_map(|name| Command::DeleteUser { name }),
            word().prop_map(Command::SetMaildir),
            any::<i64>().prop_map(Command::SetMaxConnections),
            any::<i64>().prop_map(Command::SetTimeout),
            prop::sample::select(vec![
                Command::Capabilities,
                Command::Quit,
                Command::Users,
                Command::MaxConnections,
                Command::Maildir,
                Command::Timeout,
                Command::RetrievedBytes,
                Command::RetrievedEmails,
                Command::RemovedEmails,
                Command::CurrentConnections,
                Command::CurrentUsers,
                Command::AllConnections,
                Command::AllLogins,
            ]),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(command in any_command()) {
            let line = command.to_string();
            prop_assert!(line.len() + 2 <= LINE_LIMIT);
            prop_assert_eq!(parse(&line), Ok(command));
        }

        #[test]
        fn no_octets_panic(line in proptest::collection::vec(any::<u8>(), 0..300), authenticated: bool) {
            let _ = Command::parse(&line, authenticated);
        }
    }
}
