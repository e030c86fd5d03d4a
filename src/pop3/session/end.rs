//! How a session ended and what it did, for the log.

use std::fmt;
use std::io;

use crate::connections::EndedBy;
use crate::events::{Counts, EndResult};
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
    /// An admin has banned the client's address, and the client tried to log in after that.
    Banned,
    /// The client sent too many commands without logging in.
    TooManyCommands,
    /// The client spoke another protocol before it had logged in.
    Foreign(Foreign),
    /// The server is shutting down.
    ShuttingDown,
    /// An admin has ended the session.
    Kicked,
    /// Another login of the user has taken the maildrop over.
    TakenOver,
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

impl From<EndedBy> for End {
    fn from(by: EndedBy) -> Self {
        match by {
            EndedBy::Admin => Self::Kicked,
            EndedBy::Login => Self::TakenOver,
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
            Self::Banned => f.write_str("the address is banned"),
            Self::TooManyCommands => f.write_str("too many commands before login"),
            Self::Foreign(protocol) => write!(f, "client speaks {protocol}"),
            Self::ShuttingDown => f.write_str("server shutting down"),
            Self::Kicked => f.write_str("ended by an admin"),
            Self::TakenOver => f.write_str("taken over by another login"),
            Self::Handshake(error) => write!(f, "TLS handshake failed: {error}"),
            Self::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}

impl End {
    /// The same without details, as metrics count it.
    #[must_use]
    pub fn result(&self) -> EndResult {
        match self {
            Self::Quit => EndResult::Quit,
            Self::HangUp => EndResult::HangUp,
            Self::Timeout => EndResult::Timeout,
            Self::Stalled => EndResult::Stalled,
            Self::FailedLogins => EndResult::FailedLogins,
            Self::Banned => EndResult::Banned,
            Self::TooManyCommands => EndResult::TooManyCommands,
            Self::Foreign(_) => EndResult::Foreign,
            Self::ShuttingDown => EndResult::ShuttingDown,
            Self::Kicked => EndResult::Kicked,
            Self::TakenOver => EndResult::TakenOver,
            Self::Handshake(_) => EndResult::Handshake,
            Self::Failed(_) => EndResult::Failed,
        }
    }
}

/// How a session ended and what it did.
#[derive(Debug)]
pub struct Summary {
    /// Why it ended.
    pub end: End,
    /// What it did.
    pub counts: Counts,
}
