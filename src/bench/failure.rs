//! The errors of sessions, and the kinds under which they are counted.

use std::fmt;
use std::io;

use crate::printable::printable;
use crate::trust;

/// Why a session ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// The network failed, or the server closed the connection.
    Network(io::Error),
    /// TLS failed, for example because of the server's certificate.
    Tls(String),
    /// The server answered this command with `-ERR` and this text.
    Refusal { command: &'static str, text: String },
    /// The server sent something that RFC 1939 does not allow.
    Violation(String),
    /// A message does not have as many octets as the scan listing says.
    Octets { message: u32, listed: u64, received: u64 },
    /// The account does not have the message to retrieve. The text says what is missing.
    NothingToRetrieve(String),
}

impl Failure {
    /// The kind under which the error is counted.
    pub(super) fn kind(&self) -> String {
        match self {
            Failure::Network(error) => network_kind(error).to_owned(),
            Failure::Tls(_) => "TLS".to_owned(),
            Failure::Refusal { command, text } => match response_code(text) {
                Some(code) => format!("-ERR [{code}]"),
                None => format!("-ERR to {command}"),
            },
            Failure::Violation(_) => "protocol violation".to_owned(),
            Failure::Octets { .. } => "octet mismatch".to_owned(),
            Failure::NothingToRetrieve(_) => "nothing to retrieve".to_owned(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Network(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                write!(f, "{error}: this host has no free port left, closed connections may hold them in TIME_WAIT")
            }
            Failure::Network(error) => write!(f, "{error}"),
            Failure::Refusal { command, text } => write!(f, "{command} was answered -ERR{}", printable(text)),
            Failure::Tls(what) | Failure::Violation(what) | Failure::NothingToRetrieve(what) => f.write_str(what),
            Failure::Octets { message, listed, received } => {
                write!(f, "message {message} is listed with {listed} octets, {received} came")
            }
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match trust::explain(&error) {
            Some(reason) => Failure::Tls(reason),
            None => Failure::Network(error),
        }
    }
}

fn network_kind(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => "reset",
        io::ErrorKind::TimedOut => "timeout",
        io::ErrorKind::UnexpectedEof => "hang-up",
        io::ErrorKind::AddrNotAvailable => "no free local port",
        _ => "network",
    }
}

/// The response code in the text behind `-ERR` (RFC 2449, section 8), for example `IN-USE`. A code that has other
/// characters than printable ASCII is ignored.
pub(super) fn response_code(text: &str) -> Option<&str> {
    let (code, _) = text.trim_start().strip_prefix('[')?.split_once(']')?;
    code.bytes().all(|octet| octet.is_ascii_graphic()).then_some(code)
}

/// The most characters that a message quotes of a server's line.
const QUOTED: usize = 200;

/// Quotes the beginning of a server's line for a message. Characters that could steer a terminal are escaped.
pub(super) fn quoted(line: &str) -> String {
    format!("'{}'", line.chars().take(QUOTED).collect::<String>().escape_debug())
}

pub(super) fn no_answer() -> Failure {
    io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time").into()
}

pub(super) fn unfinished() -> Failure {
    io::Error::new(io::ErrorKind::TimedOut, "the session went on long after the time of the run").into()
}

pub(super) fn hang_up() -> Failure {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up in the middle").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_errors_are_counted_by_kind() {
        let of = |kind| Failure::from(io::Error::from(kind)).kind();
        assert_eq!(of(io::ErrorKind::ConnectionRefused), "refused");
        assert_eq!(of(io::ErrorKind::TimedOut), "timeout");
        assert_eq!(of(io::ErrorKind::AddrNotAvailable), "no free local port");
    }
}
