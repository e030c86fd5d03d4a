//! The session that holds a maildrop, as other sessions and the log are told of it.

use std::fmt;
use std::time::Instant;

use crate::net::Origin;

/// The session that holds a maildrop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The session's number; `None` if the server itself works on the maildrop.
    pub session: Option<u64>,
    /// Where its client comes from.
    pub origin: Origin,
    /// When the session began.
    pub since: Instant,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, origin, since } = self;
        f.write_str("session ")?;
        if let Some(session) = session {
            write!(f, "{session} ")?;
        }
        match origin.ip() {
            Some(address) => write!(f, "of {address}")?,
            None => write!(f, "of {origin}")?,
        }
        write!(f, " for {} s", since.elapsed().as_secs())
    }
}
