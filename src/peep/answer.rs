//! A PEEP answer as the client reads it: the first line as a value, the lines behind it one at a time.
//!
//! The server may be a wrong one or a hostile one. No answer takes more memory than one line, and a line is bounded.

use std::fmt;
use std::io::{self, BufRead, Read};

use super::ErrorCode;

/// The most octets of a line, line end included. The protocol's limit is 512; a server that exceeds it a little is
/// tolerated.
const LINE_LIMIT: usize = 4096;

/// The most lines that an answer may announce: more than any server has users, so that a larger number is nonsense.
const MOST_LINES: u64 = 10_000_000;

/// The most characters of a line that an error message quotes.
const QUOTED: usize = 200;

/// The first line of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// `+`
    Done,
    /// `+VALUE`
    Value(String),
    /// `+n`: n lines follow, each to be read with [`read_line`].
    Lines(u64),
    /// `-N`
    Error(ErrorCode),
}

impl Answer {
    /// Reads the first line of an answer; `with_lines` says whether the command is one that [answers lines].
    ///
    /// [answers lines]: super::Command::answers_lines
    ///
    /// # Errors
    /// [`UnreadableAnswer`] if the connection ends or fails, or if the line is not an answer.
    pub fn read(source: &mut impl BufRead, with_lines: bool) -> Result<Self, UnreadableAnswer> {
        let first = read_line(source)?;
        let nonsense = || UnreadableAnswer::Nonsense(first.clone());
        if let Some(code) = first.strip_prefix('-') {
            return Ok(Self::Error(ErrorCode::from_number(code.parse().map_err(|_| nonsense())?)));
        }
        let value = first.strip_prefix('+').ok_or_else(nonsense)?;
        if with_lines && !value.is_empty() {
            return match value.parse().map_err(|_| nonsense())? {
                count @ 0..=MOST_LINES => Ok(Self::Lines(count)),
                count => Err(UnreadableAnswer::TooManyLines(count)),
            };
        }
        Ok(if value.is_empty() { Self::Done } else { Self::Value(value.to_owned()) })
    }
}

/// Why an answer, or a line of it, could not be read.
#[derive(Debug)]
pub enum UnreadableAnswer {
    /// The server closed the connection.
    Closed,
    /// The connection failed.
    Failed(io::Error),
    /// The server has not answered in time.
    Silent,
    /// The answer has begun, but did not end in time.
    Unfinished,
    /// The server speaks TLS and the client does not.
    ByTls,
    /// A line is longer than `LINE_LIMIT`.
    TooLong,
    /// The answer announces more lines than `MOST_LINES`.
    TooManyLines(u64),
    /// The answer announces more lines, the first number, than the client takes for this command, the second.
    MoreLines(u64, u64),
    /// The line is not one of the protocol.
    Nonsense(String),
}

impl fmt::Display for UnreadableAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match self {
            Self::Closed => f.write_str("the server closed the connection"),
            // A server that closes the connection without reading the command, or without TLS's close_notify.
            Self::Failed(error) if matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof) => {
                f.write_str("the server closed the connection")
            }
            Self::Failed(error) => write!(f, "the connection failed: {error}"),
            Self::Silent => f.write_str("the server does not answer"),
            Self::Unfinished => f.write_str("the server's answer takes longer than --timeout allows"),
            Self::ByTls => f.write_str("the server speaks TLS here (see --tls)"),
            Self::TooLong => write!(f, "the server's answer has a line of more than {LINE_LIMIT} octets"),
            Self::TooManyLines(count) => {
                write!(f, "the server's answer announces {count} lines, which is more than {MOST_LINES}")
            }
            Self::MoreLines(count, limit) => {
                write!(f, "the server's answer announces {count} lines, which is more than {limit}")
            }
            Self::Nonsense(line) => {
                write!(f, "the server's answer is not PEEP: {:?}", line.chars().take(QUOTED).collect::<String>())
            }
        }
    }
}

impl std::error::Error for UnreadableAnswer {}

/// The first octets of a TLS alert record (RFC 8446, section 5.1): how a TLS server answers a client that does not
/// speak TLS.
const TLS_ALERT: [u8; 2] = [21, 3];

/// Reads one line and removes its line end.
///
/// # Errors
/// [`UnreadableAnswer`] if the connection ends or fails, or if the line is too long or not UTF-8.
pub fn read_line(source: &mut impl BufRead) -> Result<String, UnreadableAnswer> {
    let mut line = Vec::new();
    let read = source.take(LINE_LIMIT as u64).read_until(b'\n', &mut line);
    if let Err(error) = read {
        return Err(match error.kind() {
            io::ErrorKind::TimedOut if line.is_empty() => UnreadableAnswer::Silent,
            io::ErrorKind::TimedOut => UnreadableAnswer::Unfinished,
            _ => UnreadableAnswer::Failed(error),
        });
    }
    match line.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line)) {
        Some(whole) => match std::str::from_utf8(whole) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(UnreadableAnswer::Nonsense(String::from_utf8_lossy(whole).into_owned())),
        },
        None if line.starts_with(&TLS_ALERT) => Err(UnreadableAnswer::ByTls),
        None if line.len() < LINE_LIMIT => Err(UnreadableAnswer::Closed),
        None => Err(UnreadableAnswer::TooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peep::Reply;
    use proptest::prelude::*;

    /// Reads an answer with all its lines, as the reply that the server wrote.
    fn whole(mut octets: &[u8], with_lines: bool) -> Result<Reply, UnreadableAnswer> {
        Ok(match Answer::read(&mut octets, with_lines)? {
            Answer::Done => Reply::Done,
            Answer::Value(value) => Reply::Value(value),
            Answer::Lines(count) => Reply::Lines((0..count).map(|_| read_line(&mut octets)).collect::<Result<_, _>>()?),
            Answer::Error(code) => Reply::Error(code),
        })
    }

    #[test]
    fn nonsense_and_a_lost_connection_are_different_errors() {
        for (octets, with_lines) in [(&b""[..], false), (b"+39", false), (b"+2\r\na\r\n", true)] {
            assert!(matches!(whole(octets, with_lines), Err(UnreadableAnswer::Closed)), "{octets:?}");
        }
        for nonsense in [&b"HTTP/1.1 400\r\n"[..], b"\r\n", b"-x\r\n", b"-\r\n", b"+\xff\r\n"] {
            assert!(matches!(whole(nonsense, false), Err(UnreadableAnswer::Nonsense(_))), "{nonsense:?}");
        }
        assert!(matches!(whole(b"+many\r\n", true), Err(UnreadableAnswer::Nonsense(_))));
        assert!(matches!(whole(b"\x15\x03\x03\x00\x02\x02\x16", false), Err(UnreadableAnswer::ByTls)));
    }

    #[test]
    fn a_line_may_be_longer_than_the_protocols_limit_up_to_the_clients() {
        let line = |length| [b"+", &vec![b'x'; length - 3][..], b"\r\n"].concat();
        assert!(whole(&line(LINE_LIMIT), false).is_ok());
        assert!(matches!(whole(&line(LINE_LIMIT + 1), false), Err(UnreadableAnswer::TooLong)));
        assert!(matches!(read_line(&mut io::BufReader::new(io::repeat(b'x'))), Err(UnreadableAnswer::TooLong)));
    }

    #[test]
    fn an_impossible_number_of_lines_is_refused() {
        let read = |first: &str| Answer::read(&mut first.as_bytes(), true);
        assert_eq!(read("+10000000\r\n").unwrap(), Answer::Lines(MOST_LINES));
        assert!(matches!(read("+10000001\r\n"), Err(UnreadableAnswer::TooManyLines(10_000_001))));
        assert!(matches!(read("+99999999999999999999\r\n"), Err(UnreadableAnswer::Nonsense(_))));
    }

    #[test]
    fn a_message_quotes_only_the_beginning_of_nonsense() {
        let nonsense = UnreadableAnswer::Nonsense("\u{202e}".repeat(4000)).to_string();
        assert!(nonsense.len() < 2000 && !nonsense.contains('\u{202e}'), "{nonsense}");
    }

    proptest! {
        #[test]
        fn what_the_server_writes_is_read_back(
            reply in prop_oneof![
                Just(Reply::Done),
                "[ -~é]{1,200}".prop_map(Reply::Value),
                proptest::collection::vec("[ -~é]{0,200}", 0..9).prop_map(Reply::Lines),
                any::<u32>().prop_map(|number| Reply::Error(ErrorCode::from_number(number))),
            ],
        ) {
            let mut octets = Vec::new();
            reply.write(&mut octets);
            prop_assert_eq!(whole(&octets, matches!(reply, Reply::Lines(_))).unwrap(), reply);
        }
    }
}
