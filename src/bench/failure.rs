//! What can go wrong in a session, and what it is counted under.

use std::fmt;
use std::io;

use crate::printable::printable;
use crate::trust;

/// Why a session ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// The network, or the server hanging up.
    Network(io::Error),
    /// The server's certificate, or other things that TLS does not bear.
    Tls(String),
    /// `-ERR` to this command, with the rest of its line.
    Refusal { command: &'static str, text: String },
    /// The server said something that RFC 1939 does not allow.
    Violation(String),
    /// RETR did not bring what the scan listing promised.
    Octets { message: u32, listed: u64, received: u64 },
    /// The account has no message to retrieve, or not the one that was asked for: in words.
    NothingToRetrieve(String),
}

impl Failure {
    /// What this is counted under.
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

/// The `IN-USE` of ` [IN-USE] …` (RFC 2449, section 8). A code that is not made of printable ASCII is ignored.
pub(super) fn response_code(text: &str) -> Option<&str> {
    let (code, _) = text.trim_start().strip_prefix('[')?.split_once(']')?;
    code.bytes().all(|octet| octet.is_ascii_graphic()).then_some(code)
}

/// The most characters that a message quotes of a server's line.
const QUOTED: usize = 200;

/// The beginning of a server's line for a message: in quotes, with everything that could steer a terminal escaped.
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
    fn faults_of_the_network_are_counted_by_what_they_are() {
        let of = |kind| Failure::from(io::Error::from(kind)).kind();
        assert_eq!(of(io::ErrorKind::ConnectionRefused), "refused");
        assert_eq!(of(io::ErrorKind::TimedOut), "timeout");
        assert_eq!(of(io::ErrorKind::AddrNotAvailable), "no free local port");
    }
}
