//! How a session ended and what it did, for the log.

use std::fmt;
use std::io;

use crate::wire::{Foreign, is_timeout};

/// Why a session ended.
#[derive(Debug)]
pub enum End {
    /// QUIT
    Quit,
    /// The client closed the connection, or it was lost.
    HangUp,
    /// The client sent no command for too long (RFC 1939 section 3), or did not log in in time.
    Timeout,
    /// The client did not read what it had asked for, or read too slowly.
    Stalled,
    /// There were too many failed logins, on this connection or from this address.
    FailedLogins,
    /// The client sent too many commands without logging in.
    TooManyCommands,
    /// The client spoke another protocol before it had logged in.
    Foreign(Foreign),
    /// The server is shutting down.
    ShuttingDown,
    /// The client's TLS handshake did not succeed.
    Handshake(io::Error),
    /// A message could not be sent to its end.
    Failed(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
                Self::HangUp
            }
            _ if is_timeout(&error) => Self::Stalled,
            _ => Self::Failed(error),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quit => f.write_str("quit"),
            Self::HangUp => f.write_str("client hung up"),
            Self::Timeout => f.write_str("timeout"),
            Self::Stalled => f.write_str("client reads too slowly"),
            Self::FailedLogins => f.write_str("too many failed logins"),
            Self::TooManyCommands => f.write_str("too many commands before login"),
            Self::Foreign(protocol) => write!(f, "client speaks {protocol}"),
            Self::ShuttingDown => f.write_str("server shutting down"),
            Self::Handshake(error) => write!(f, "TLS handshake failed: {error}"),
            Self::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}

/// What a session did, for the last log line about it.
#[derive(Debug)]
pub struct Summary {
    /// Why it ended.
    pub end: End,
    /// Messages sent by RETR.
    pub retrieved: u64,
    /// Octets of these messages.
    pub octets: u64,
    /// Messages removed.
    pub deleted: u64,
    /// Messages that were marked as deleted and stay, because the session did not end with QUIT.
    pub kept: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { end, retrieved, octets, deleted, kept } = self;
        write!(f, "end: {end}; retrieved={retrieved} octets={octets} deleted={deleted}")?;
        if *kept > 0 { write!(f, " marks-dropped={kept}") } else { Ok(()) }
    }
}
