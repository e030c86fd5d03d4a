//! A PEEP answer as a value: written by the server, read by the client.

use std::fmt;
use std::io::{self, BufRead, Read};

/// An answer line's most octets, CRLF included.
const LINE_LIMIT: usize = 512;

/// One answer of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+`
    Done,
    /// `+VALUE`
    Value(String),
    /// `+n`, then n lines.
    Lines(Vec<String>),
    /// `-N`
    Error(ErrorCode),
}

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// -0: no such command, or not in this state.
    UnknownCommand,
    /// -1: an argument is missing or malformed, or the line is too long.
    BadSyntax,
    /// -2: wrong admin name or password.
    WrongCredentials,
    /// -3: the user exists already.
    UserExists,
    /// -4: there is no such user.
    NoSuchUser,
    /// -5: outside the range of `c=`.
    BadMaxConnections,
    /// -6: not usable as mail directory.
    BadMaildir,
    /// -7: outside the range of `t=`.
    BadTimeout,
    /// -8, beyond the protocol's table: the users file cannot be written.
    UsersNotWritten,
    /// -9, beyond the protocol's table: too many connections, commands or failed logins; the connection is closed.
    TooMany,
    /// A code that a newer server may send.
    Other(u32),
}

impl ErrorCode {
    const KNOWN: [Self; 10] = [
        Self::UnknownCommand,
        Self::BadSyntax,
        Self::WrongCredentials,
        Self::UserExists,
        Self::NoSuchUser,
        Self::BadMaxConnections,
        Self::BadMaildir,
        Self::BadTimeout,
        Self::UsersNotWritten,
        Self::TooMany,
    ];

    fn from_number(number: u32) -> Self {
        let known = usize::try_from(number).ok().and_then(|index| Self::KNOWN.get(index));
        known.copied().unwrap_or(Self::Other(number))
    }

    fn number(self) -> u32 {
        match self {
            Self::UnknownCommand => 0,
            Self::BadSyntax => 1,
            Self::WrongCredentials => 2,
            Self::UserExists => 3,
            Self::NoSuchUser => 4,
            Self::BadMaxConnections => 5,
            Self::BadMaildir => 6,
            Self::BadTimeout => 7,
            Self::UsersNotWritten => 8,
            Self::TooMany => 9,
            Self::Other(number) => number,
        }
    }
}

/// The text that the client shows a person.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCommand => f.write_str("Unknown server command"),
            Self::BadSyntax => f.write_str("Invalid command syntax"),
            Self::WrongCredentials => f.write_str("Incorrect username or password"),
            Self::UserExists => f.write_str("Invalid username, already in use"),
            Self::NoSuchUser => f.write_str("Invalid username, does not exist"),
            Self::BadMaxConnections => f.write_str("Invalid maximum connections count"),
            Self::BadMaildir => f.write_str("Invalid path format"),
            Self::BadTimeout => f.write_str("Invalid timeout amount"),
            Self::UsersNotWritten => f.write_str("The users file cannot be written, nothing was changed"),
            Self::TooMany => f.write_str("Too many connections or failed logins, try again later"),
            Self::Other(number) => write!(f, "Unknown error code {number}"),
        }
    }
}

impl Reply {
    /// Appends the answer's lines to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Done => out.extend_from_slice(b"+\r\n"),
            Self::Value(value) => line(out, "+", value),
            Self::Lines(lines) => {
                line(out, "+", &lines.len().to_string());
                lines.iter().for_each(|text| line(out, "", text));
            }
            Self::Error(code) => line(out, "-", &code.number().to_string()),
        }
    }

    /// Reads one answer; `with_lines` says whether the command is one that [answers lines].
    ///
    /// [answers lines]: super::Command::answers_lines
    ///
    /// # Errors
    /// [`UnreadableReply`] when the connection ends or fails, or what came is no answer.
    pub fn read(source: &mut impl BufRead, with_lines: bool) -> Result<Self, UnreadableReply> {
        let first = read_line(source)?;
        let nonsense = || UnreadableReply::Nonsense(first.clone());
        if let Some(code) = first.strip_prefix('-') {
            return Ok(Self::Error(ErrorCode::from_number(code.parse().map_err(|_| nonsense())?)));
        }
        let value = first.strip_prefix('+').ok_or_else(nonsense)?;
        if with_lines {
            let count: usize = value.parse().map_err(|_| nonsense())?;
            return (0..count).map(|_| read_line(source)).collect::<Result<_, _>>().map(Self::Lines);
        }
        Ok(if value.is_empty() { Self::Done } else { Self::Value(value.to_owned()) })
    }
}

/// Why no answer could be read.
#[derive(Debug)]
pub enum UnreadableReply {
    /// The server closed the connection.
    Closed,
    /// The connection failed.
    Failed(io::Error),
    /// The server speaks TLS and we do not.
    ByTls,
    /// The line is not of the protocol.
    Nonsense(String),
}

impl fmt::Display for UnreadableReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match self {
            Self::Closed => f.write_str("the server closed the connection"),
            // The same, of a server that closed it with our command unread, or without TLS's farewell.
            Self::Failed(error) if matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof) => {
                f.write_str("the server closed the connection")
            }
            Self::Failed(error) if error.kind() == io::ErrorKind::WouldBlock => {
                f.write_str("the server does not answer")
            }
            Self::Failed(error) => write!(f, "the connection failed: {error}"),
            Self::ByTls => f.write_str("the server speaks TLS here (see --tls)"),
            Self::Nonsense(line) => write!(f, "the server's answer is not PEEP: {line:?}"),
        }
    }
}

impl std::error::Error for UnreadableReply {}

/// Appends one answer line, its text made safe: no control characters, cut to the line limit.
fn line(out: &mut Vec<u8>, sign: &str, text: &str) {
    let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let room = text.floor_char_boundary(LINE_LIMIT - sign.len() - 2);
    out.extend_from_slice(sign.as_bytes());
    out.extend_from_slice(&text.as_bytes()[..room]);
    out.extend_from_slice(b"\r\n");
}

/// How TLS answers what is not TLS: an alert record (RFC 8446 section 5.1).
const TLS_ALERT: [u8; 2] = [21, 3];

/// One line without its line end. A line over the limit is nonsense, so a wrong server cannot fill our memory.
fn read_line(source: &mut impl BufRead) -> Result<String, UnreadableReply> {
    let mut line = Vec::new();
    source.take(LINE_LIMIT as u64).read_until(b'\n', &mut line).map_err(UnreadableReply::Failed)?;
    let whole = line.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    match whole {
        Some(whole) => match std::str::from_utf8(whole) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(UnreadableReply::Nonsense(String::from_utf8_lossy(whole).into_owned())),
        },
        None if line.starts_with(&TLS_ALERT) => Err(UnreadableReply::ByTls),
        None if line.len() < LINE_LIMIT => Err(UnreadableReply::Closed),
        None => Err(UnreadableReply::Nonsense(String::from_utf8_lossy(&line).into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(reply: &Reply) -> Vec<u8> {
        let mut out = Vec::new();
        reply.write(&mut out);
        out
    }

    #[test]
    fn each_shape_has_its_line() {
        assert_eq!(written(&Reply::Done), b"+\r\n");
        assert_eq!(written(&Reply::Value("395".into())), b"+395\r\n");
        assert_eq!(written(&Reply::Lines(vec![])), b"+0\r\n");
        assert_eq!(written(&Reply::Lines(vec!["a".into(), "b".into()])), b"+2\r\na\r\nb\r\n");
        assert_eq!(written(&Reply::Error(ErrorCode::BadTimeout)), b"-7\r\n");
        assert_eq!(written(&Reply::Error(ErrorCode::Other(99))), b"-99\r\n");
    }

    #[test]
    fn a_value_cannot_break_its_line() {
        let long = written(&Reply::Value("é".repeat(600)));
        assert!(long.len() <= LINE_LIMIT && long.ends_with(b"\r\n"));
        assert_eq!(written(&Reply::Value("a\r\n-1".into())), b"+a??-1\r\n");
    }

    #[test]
    fn what_is_no_answer_is_told_from_a_lost_connection() {
        let read = |octets: &[u8], lines| Reply::read(&mut &octets[..], lines);
        assert!(matches!(read(b"", false), Err(UnreadableReply::Closed)));
        assert!(matches!(read(b"+39", false), Err(UnreadableReply::Closed)));
        assert!(matches!(read(b"+2\r\na\r\n", true), Err(UnreadableReply::Closed)));
        for nonsense in [&b"HTTP/1.1 400\r\n"[..], b"\r\n", b"-x\r\n", b"-\r\n", b"+\xff\r\n", &[b'+'; 2000]] {
            assert!(matches!(read(nonsense, false), Err(UnreadableReply::Nonsense(_))), "{nonsense:?}");
        }
        assert!(matches!(read(b"\x15\x03\x03\x00\x02\x02\x16", false), Err(UnreadableReply::ByTls)));
        assert!(matches!(read(b"+many\r\n", true), Err(UnreadableReply::Nonsense(_))));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            reply in prop_oneof![
                Just(Reply::Done),
                "[ -~é]{1,200}".prop_map(Reply::Value),
                proptest::collection::vec("[ -~é]{0,200}", 0..9).prop_map(Reply::Lines),
                any::<u32>().prop_map(|number| Reply::Error(ErrorCode::from_number(number))),
            ],
        ) {
            let octets = written(&reply);
            let read = Reply::read(&mut &octets[..], matches!(reply, Reply::Lines(_)));
            prop_assert_eq!(read.unwrap(), reply);
        }
    }
}
