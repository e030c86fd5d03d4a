//! How clients log in, and why they are refused.

use std::fmt;
use std::io;

use log::Level;

use crate::auth::sasl::{Failure, Mechanism};
use crate::guard::Penalty;

/// How a client tries to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// USER and PASS
    Pass,
    /// APOP
    Apop,
    /// AUTH with this mechanism.
    Auth(Mechanism),
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Pass, Self::Apop, Self::Auth(Mechanism::Plain), Self::Auth(Mechanism::ScramSha256)];

    /// Its name, as metrics and followers have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Apop => "apop",
            Self::Auth(Mechanism::Plain) => "plain",
            Self::Auth(Mechanism::ScramSha256) => "scram-sha-256",
        }
    }
}

/// Why a login is refused. This is for the operator: the client is not told more than the protocol has words for.
#[derive(Debug)]
pub enum Reason {
    /// The name or the password is wrong.
    Credentials,
    /// There were too many failed logins from the client's address.
    Penalty(Penalty),
    /// Too many logins from the client's address are undecided.
    BusyAddress,
    /// Too many passwords are being verified.
    BusyVerifier,
    /// The client may not send a password without TLS.
    NoTls,
    /// The exchange of AUTH was not completed.
    Exchange(Failure),
    /// Another session has the maildrop.
    InUse,
    /// The maildrop cannot be opened.
    Maildrop(io::Error),
}

impl Reason {
    /// Its name for metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Penalty(_) => "penalty",
            Self::BusyAddress | Self::BusyVerifier => "busy",
            Self::NoTls => "no-tls",
            Self::Exchange(_) => "exchange",
            Self::InUse => "in-use",
            Self::Maildrop(_) => "maildrop",
        }
    }

    /// The level of the line in the log.
    pub(super) fn level(&self) -> Level {
        match self {
            Self::Maildrop(_) => Level::Error,
            _ => Level::Warn,
        }
    }

    /// Returns true if the credentials were looked at and are wrong.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Credentials)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credentials => f.write_str("wrong name or password"),
            Self::Penalty(penalty) => write!(f, "too many failed logins, for {penalty}"),
            Self::BusyAddress => f.write_str("too many logins at once from the client's address"),
            Self::BusyVerifier => f.write_str("too many passwords are being verified"),
            Self::NoTls => f.write_str("no TLS"),
            Self::Exchange(failure) => failure.fmt(f),
            Self::InUse => f.write_str("the maildrop is in use"),
            Self::Maildrop(error) => write!(f, "the maildrop cannot be opened: {error}"),
        }
    }
}

/// Why a login of the admin is refused.
#[derive(Debug)]
pub enum AdminReason {
    /// The name or the password is wrong.
    Credentials,
    /// There were too many failed logins from the client's address.
    Penalty(Penalty),
    /// Too many logins from the client's address are undecided.
    Busy,
    /// Only programs of root may be the default admin, and the client is none, for this reason.
    NotRoot(String),
}

impl fmt::Display for AdminReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credentials => f.write_str("wrong name or password"),
            Self::Penalty(penalty) => Reason::Penalty(*penalty).fmt(f),
            Self::Busy => Reason::BusyAddress.fmt(f),
            Self::NotRoot(why) => {
                write!(f, "only programs of root may log in as the default admin (see --peep-admin), and {why}")
            }
        }
    }
}
