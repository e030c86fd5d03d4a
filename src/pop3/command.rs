//! A POP3 command line as a value. A line is understood to its end or refused.

use std::fmt;

use crate::auth::Hidden;
use crate::maildrop::MessageNumber;

/// The most octets of a command line, CRLF included. RFC 2449 section 4 asks for 255; clients with long passwords are
/// known to send more.
pub const LINE_LIMIT: usize = 512;

/// One command of RFC 1939, RFC 2449, RFC 2595 or RFC 5034.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the RFCs describe each
pub enum Command {
    User(Vec<u8>),
    Pass(Hidden<Vec<u8>>),
    Apop { name: Vec<u8>, digest: Hidden<Vec<u8>> },
    Auth(Option<Auth>),
    Quit,
    Capa,
    Stls,
    Stat,
    List(Option<MessageNumber>),
    Retr(MessageNumber),
    Dele(MessageNumber),
    Noop,
    Rset,
    Top { message: MessageNumber, lines: u32 },
    Uidl(Option<MessageNumber>),
}

impl Command {
    /// The command's keyword.
    #[must_use]
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::User(_) => "USER",
            Self::Pass(_) => "PASS",
            Self::Apop { .. } => "APOP",
            Self::Auth(_) => "AUTH",
            Self::Quit => "QUIT",
            Self::Capa => "CAPA",
            Self::Stls => "STLS",
            Self::Stat => "STAT",
            Self::List(_) => "LIST",
            Self::Retr(_) => "RETR",
            Self::Dele(_) => "DELE",
            Self::Noop => "NOOP",
            Self::Rset => "RSET",
            Self::Top { .. } => "TOP",
            Self::Uidl(_) => "UIDL",
        }
    }
}

/// A SASL mechanism, and the response that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// As the client wrote it.
    pub mechanism: Vec<u8>,
    /// In base64, or `=` for an empty one.
    pub initial: Option<Hidden<Vec<u8>>>,
}

/// The line as the log shows it: names are quoted and passwords are left out.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.keyword())?;
        match self {
            Self::User(name) => write!(f, " {:?}", String::from_utf8_lossy(name)),
            Self::Pass(_) => f.write_str(" ***"),
            Self::Apop { name, .. } => write!(f, " {:?} ***", String::from_utf8_lossy(name)),
            Self::Auth(Some(Auth { mechanism, initial })) => {
                let initial = if initial.is_some() { " ***" } else { "" };
                write!(f, " {:?}{initial}", String::from_utf8_lossy(mechanism))
            }
            Self::Retr(number) | Self::Dele(number) | Self::List(Some(number)) | Self::Uidl(Some(number)) => {
                write!(f, " {number}")
            }
            Self::Top { message, lines } => write!(f, " {message} {lines}"),
            Self::Auth(None)
            | Self::Quit
            | Self::Capa
            | Self::Stls
            | Self::Stat
            | Self::Noop
            | Self::Rset
            | Self::List(None)
            | Self::Uidl(None) => Ok(()),
        }
    }
}

/// Why a line is not a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    /// No such keyword.
    UnknownCommand,
    /// The keyword needs another argument.
    MissingArgument,
    /// The keyword takes fewer arguments.
    ExtraArgument,
    /// Message numbers are decimal, from 1 to 4294967295.
    BadMessageNumber,
    /// TOP's count of lines is decimal, from 0 to 4294967295.
    BadLineCount,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownCommand => "unknown command",
            Self::MissingArgument => "missing argument",
            Self::ExtraArgument => "unexpected argument",
            Self::BadMessageNumber => "invalid message number",
            Self::BadLineCount => "invalid number of lines",
        })
    }
}

impl Command {
    /// Reads a line without its line end. Keywords are in any letter case; one space separates; spaces at the
    /// end are dropped, but for PASS, whose argument is all the rest of the line (RFC 1939 section 7).
    ///
    /// # Errors
    /// [`ParseError`]; each is answered by -ERR and changes nothing.
    pub fn parse(line: &[u8]) -> Result<Self, ParseError> {
        let (keyword, rest) = match line.iter().position(|&octet| octet == b' ') {
            Some(at) => (&line[..at], Some(&line[at + 1..])),
            None => (line, None),
        };
        let is = |name: &str| keyword.eq_ignore_ascii_case(name.as_bytes());
        if is("PASS") {
            return rest.map(|rest| Self::Pass(Hidden(rest.to_vec()))).ok_or(ParseError::MissingArgument);
        }

        let rest = rest.map(without_spaces_at_the_end).filter(|rest| !rest.is_empty());
        let mut arguments = rest.into_iter().flat_map(|rest| rest.split(|&octet| octet == b' '));
        let mut next = || arguments.next();
        let command = if is("USER") {
            Self::User(required(next())?.to_vec())
        } else if is("APOP") {
            let name = required(next())?.to_vec();
            Self::Apop { name, digest: Hidden(required(next())?.to_vec()) }
        } else if is("AUTH") {
            let mechanism = next().map(|mechanism| required(Some(mechanism))).transpose()?;
            let mut initial = || next().map(|initial| Hidden(initial.to_vec()));
            Self::Auth(mechanism.map(|mechanism| Auth { mechanism: mechanism.to_vec(), initial: initial() }))
        } else if is("QUIT") {
            Self::Quit
        } else if is("CAPA") {
            Self::Capa
        } else if is("STLS") {
            Self::Stls
        } else if is("STAT") {
            Self::Stat
        } else if is("LIST") {
            Self::List(next().map(message_number).transpose()?)
        } else if is("RETR") {
            Self::Retr(message_number(required(next())?)?)
        } else if is("DELE") {
            Self::Dele(message_number(required(next())?)?)
        } else if is("NOOP") {
            Self::Noop
        } else if is("RSET") {
            Self::Rset
        } else if is("TOP") {
            let message = message_number(required(next())?)?;
            Self::Top { message, lines: decimal(required(next())?).ok_or(ParseError::BadLineCount)? }
        } else if is("UIDL") {
            Self::Uidl(next().map(message_number).transpose()?)
        } else {
            return Err(ParseError::UnknownCommand);
        };
        match arguments.next() {
            Some(_) => Err(ParseError::ExtraArgument),
            None => Ok(command),
        }
    }
}

fn without_spaces_at_the_end(rest: &[u8]) -> &[u8] {
    let end = rest.iter().rposition(|&octet| octet != b' ').map_or(0, |last| last + 1);
    &rest[..end]
}

fn required(argument: Option<&[u8]>) -> Result<&[u8], ParseError> {
    argument.filter(|argument| !argument.is_empty()).ok_or(ParseError::MissingArgument)
}

fn message_number(argument: &[u8]) -> Result<MessageNumber, ParseError> {
    decimal(argument).and_then(MessageNumber::new).ok_or(ParseError::BadMessageNumber)
}

/// Digits only, and they fit: no sign, no space, nothing behind.
fn decimal(argument: &[u8]) -> Option<u32> {
    if !argument.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(argument).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(n: u32) -> MessageNumber {
        MessageNumber::new(n).unwrap()
    }

    #[test]
    fn keywords_are_case_insensitive() {
        assert_eq!(Command::parse(b"rEtR 1"), Ok(Command::Retr(number(1))));
        assert_eq!(Command::parse(b"noop"), Ok(Command::Noop));
    }

    #[test]
    fn the_argument_of_pass_is_the_rest_of_the_line_with_its_spaces() {
        assert_eq!(Command::parse(b"PASS  a b "), Ok(Command::Pass(Hidden(b" a b ".to_vec()))));
        assert_eq!(Command::parse(b"pass "), Ok(Command::Pass(Hidden(Vec::new()))));
        assert_eq!(Command::parse(b"PASS"), Err(ParseError::MissingArgument));
    }

    #[test]
    fn spaces_at_the_end_are_ignored_and_a_single_space_separates() {
        assert_eq!(Command::parse(b"STAT  "), Ok(Command::Stat));
        assert_eq!(Command::parse(b"LIST 2 "), Ok(Command::List(Some(number(2)))));
        assert_eq!(Command::parse(b"LIST "), Ok(Command::List(None)));
        assert_eq!(Command::parse(b"RETR  1"), Err(ParseError::MissingArgument));
        assert_eq!(Command::parse(b"TOP 1  2"), Err(ParseError::MissingArgument));
        assert_eq!(Command::parse(b" STAT"), Err(ParseError::UnknownCommand));
        assert_eq!(Command::parse(b"STAT\t1"), Err(ParseError::UnknownCommand));
        assert_eq!(Command::parse(b"DELE 1\t"), Err(ParseError::BadMessageNumber));
    }

    #[test]
    fn numbers_are_decimal_and_fit_into_32_bits() {
        for bad in
            ["0", "-1", "+1", "1abc", "abc", "4294967296", "4294967297", "99999999999999999999", "1.0", "\u{661}"]
        {
            let line = format!("RETR {bad}");
            assert_eq!(Command::parse(line.as_bytes()), Err(ParseError::BadMessageNumber), "{bad}");
        }
        assert_eq!(Command::parse(b"DELE 4294967295"), Ok(Command::Dele(number(u32::MAX))));
        assert_eq!(Command::parse(b"DELE 007"), Ok(Command::Dele(number(7))));
        assert_eq!(Command::parse(b"TOP 1 0"), Ok(Command::Top { message: number(1), lines: 0 }));
        assert_eq!(Command::parse(b"TOP 1 -1"), Err(ParseError::BadLineCount));
        assert_eq!(Command::parse(b"TOP 1"), Err(ParseError::MissingArgument));
    }

    #[test]
    fn an_argument_too_many_is_refused() {
        for line in [
            "STAT x",
            "NOOP x",
            "QUIT x",
            "CAPA x",
            "STLS x",
            "RSET x",
            "LIST 1 2",
            "DELE 1 2",
            "TOP 1 2 3",
            "USER a b",
            "APOP a b c",
            "AUTH PLAIN a b",
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Err(ParseError::ExtraArgument), "{line}");
        }
    }

    #[test]
    fn the_log_shows_no_password_and_no_line_end() {
        let shown = |line: &[u8]| Command::parse(line).unwrap().to_string();
        assert_eq!(shown(b"pass hunter2"), "PASS ***");
        assert_eq!(shown(b"USER a\rb\x1b[31m\xff"), "USER \"a\\rb\\u{1b}[31m\u{fffd}\"");
        assert_eq!(shown(b"APOP ana c4c9334bac560ecc979e58001b3e22fb"), "APOP \"ana\" ***");
        assert_eq!(shown(b"auth plain AGFuYQBzZWNyZXQ="), "AUTH \"plain\" ***");
        assert_eq!(shown(b"AUTH SCRAM-SHA-256"), "AUTH \"SCRAM-SHA-256\"");
        for line in ["AUTH", "LIST 2", "UIDL", "TOP 1 20", "DELE 3", "CAPA"] {
            assert_eq!(shown(line.as_bytes()), line);
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic(line in proptest::collection::vec(any::<u8>(), 0..LINE_LIMIT)) {
            let _ = Command::parse(&line);
        }
    }
}
