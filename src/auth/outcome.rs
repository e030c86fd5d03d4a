//! Why a login is refused, and why accounts were not changed.

use std::fmt;
use std::io;

use super::permits::Busy;

/// Why a login is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The name or the password is wrong. Only the log is told which.
    Credentials(Wrong),
    /// The client has asked to act as another user than the one whose password it has sent.
    OtherUser,
    /// Too many passwords are being verified.
    Busy,
    /// The account source that has to decide cannot be asked at present. The client has not failed.
    Unavailable,
}

impl From<Busy> for Denied {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

/// What was wrong with credentials. This is for the operator; a client is never told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// There is no such user.
    Name,
    /// There is such a user, with another password.
    Password,
    /// The password is right, but the user's account may not be used at present: it has expired, or its password has.
    Closed,
    /// One of the two. The source does not tell which.
    NameOrPassword,
    /// The user's line in the users file, counted from 1, is wrong.
    Line(usize),
    /// No user may act as another one.
    OtherUser,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("unknown user"),
            Self::Password => f.write_str("wrong password"),
            Self::Closed => f.write_str("the account may not be used at present"),
            Self::NameOrPassword => f.write_str("unknown user or wrong password"),
            Self::Line(line) => write!(f, "line {line} of the users file cannot be used"),
            Self::OtherUser => f.write_str("a user may not act as another one"),
        }
    }
}

/// Why the accounts were not changed.
#[derive(Debug)]
pub enum Unchanged {
    /// The name is taken.
    Exists,
    /// There is no such user.
    Missing,
    /// The users file cannot be written.
    File(io::Error),
    /// No account source can be written.
    ReadOnly,
    /// The account is, or may be, in a source that is not changed.
    Elsewhere,
    /// An account source does not do it, for this reason.
    Source(String),
}
