//! How clients log in, and why they are refused.

use std::fmt;
use std::io;

use log::Level;

use crate::account_sessions::TooManySessions;
use crate::auth::sasl::{Failure, Mechanism};
use crate::auth::{Denied, Wrong};
use crate::counting::Uncounted;
use crate::faults::Kind;
use crate::guard::Penalty;
use crate::maildrop::{Elsewhere, Holder, LockError};

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
    pub const ALL: [Self; 6] = [
        Self::Pass,
        Self::Apop,
        Self::Auth(Mechanism::Plain),
        Self::Auth(Mechanism::Login),
        Self::Auth(Mechanism::ScramSha256),
        Self::Auth(Mechanism::ScramSha256Plus),
    ];

    /// Its name, as metrics and followers have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Apop => "apop",
            Self::Auth(Mechanism::Plain) => "plain",
            Self::Auth(Mechanism::Login) => "login",
            Self::Auth(Mechanism::ScramSha256) => "scram-sha-256",
            Self::Auth(Mechanism::ScramSha256Plus) => "scram-sha-256-plus",
        }
    }
}

/// Why a login is refused. This is for the operator: the client is not told more than the protocol has words for.
#[derive(Debug)]
pub enum Reason {
    /// The credentials are wrong.
    Credentials(Wrong),
    /// The admin has banned the client's address.
    Banned,
    /// There were too many failed logins from the client's address.
    Penalty(Penalty),
    /// Too many logins from the client's address are undecided.
    BusyAddress,
    /// Too many passwords are being verified.
    BusyVerifier,
    /// An account source cannot be asked at present.
    Unavailable,
    /// The client may not send a password without TLS.
    NoTls,
    /// The exchange of AUTH was not completed.
    Exchange(Failure),
    /// Another session of this server has the maildrop.
    InUse(Holder),
    /// Another server or program has the maildrop, and this session if it is a server that tells.
    InUseElsewhere(Option<Elsewhere>),
    /// The account has as many sessions as it may have.
    TooManySessions(TooManySessions),
    /// The maildrop cannot be opened.
    Maildrop(io::Error),
    /// Some transformed messages have no known size yet.
    Uncounted(Uncounted),
    /// A tester has ordered this fault.
    Fault(Kind),
}

impl From<LockError> for Reason {
    fn from(error: LockError) -> Self {
        match error {
            LockError::HeldBy(holder) => Self::InUse(holder),
            LockError::HeldElsewhere(holder) => Self::InUseElsewhere(holder),
            LockError::Io(error) => Self::Maildrop(error),
        }
    }
}

impl From<TooManySessions> for Reason {
    fn from(too_many: TooManySessions) -> Self {
        Self::TooManySessions(too_many)
    }
}

impl From<Denied> for Reason {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Credentials(wrong) => Self::Credentials(wrong),
            Denied::OtherUser => Self::Credentials(Wrong::OtherUser),
            Denied::Busy => Self::BusyVerifier,
            Denied::Unavailable => Self::Unavailable,
        }
    }
}

impl Reason {
    /// The names that [`Reason::class`] has.
    pub const CLASSES: [&'static str; 16] = [
        "unknown-user",
        "wrong-password",
        "closed",
        "wrong-line",
        "other-user",
        "banned",
        "penalty",
        "busy",
        "unavailable",
        "no-tls",
        "exchange",
        "in-use",
        "too-many-sessions",
        "maildrop",
        "sizes",
        "fault",
    ];

    /// Its name for metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Credentials(Wrong::Name) => "unknown-user",
            Self::Credentials(Wrong::Password | Wrong::NameOrPassword) => "wrong-password",
            Self::Credentials(Wrong::Closed) => "closed",
            Self::Credentials(Wrong::Line(_)) => "wrong-line",
            Self::Credentials(Wrong::OtherUser) => "other-user",
            Self::Banned => "banned",
            Self::Penalty(_) => "penalty",
            Self::BusyAddress | Self::BusyVerifier => "busy",
            Self::Unavailable => "unavailable",
            Self::NoTls => "no-tls",
            Self::Exchange(_) => "exchange",
            Self::InUse(_) | Self::InUseElsewhere(_) => "in-use",
            Self::TooManySessions(_) => "too-many-sessions",
            Self::Maildrop(_) => "maildrop",
            Self::Uncounted(_) => "sizes",
            Self::Fault(_) => "fault",
        }
    }

    /// The level of the line in the log.
    pub(super) fn level(&self) -> Level {
        match self {
            Self::Maildrop(_) | Self::Unavailable => Level::Error,
            _ => Level::Warn,
        }
    }

    /// Returns true if the credentials were looked at and are wrong.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Credentials(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credentials(wrong) => wrong.fmt(f),
            Self::Banned => f.write_str(WhyRefused::Banned.text()),
            Self::Penalty(penalty) => write!(f, "too many failed logins, for {penalty}"),
            Self::BusyAddress => f.write_str("too many logins at once from the client's address"),
            Self::BusyVerifier => f.write_str("too many passwords are being verified"),
            Self::Unavailable => f.write_str("the account source cannot be asked at present"),
            Self::NoTls => f.write_str("no TLS"),
            Self::Exchange(failure) => failure.fmt(f),
            Self::InUse(holder) => write!(f, "the maildrop is locked by {holder}"),
            Self::InUseElsewhere(Some(holder)) => write!(f, "the maildrop is locked by {holder}"),
            Self::InUseElsewhere(None) => f.write_str("the maildrop is locked by another server or program"),
            Self::TooManySessions(too_many) => too_many.fmt(f),
            Self::Maildrop(error) => write!(f, "the maildrop cannot be opened: {error}"),
            Self::Uncounted(uncounted) => uncounted.fmt(f),
            Self::Fault(_) => f.write_str("a fault that was ordered"),
        }
    }
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhyRefused {
    /// There are too many connections from the client's address.
    TooMany,
    /// The admin has banned the client's address.
    Banned,
    /// The server takes no more clients, because the admin drains it.
    Draining,
    /// A proxy has not begun with a header.
    NoHeader,
    /// A proxy has not sent a whole header in time.
    LateHeader,
    /// A proxy has sent a malformed header.
    WrongHeader,
}

impl WhyRefused {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::TooMany, Self::Banned, Self::Draining, Self::NoHeader, Self::LateHeader, Self::WrongHeader];

    /// Its name for metrics.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::TooMany => "too-many",
            Self::Banned => "banned",
            Self::Draining => "draining",
            Self::NoHeader => "no-proxy-header",
            Self::LateHeader => "late-proxy-header",
            Self::WrongHeader => "wrong-proxy-header",
        }
    }

    /// The reason in words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::TooMany => "too many connections from this address",
            Self::Banned => "this address is banned",
            Self::Draining => "the server takes no more clients",
            Self::NoHeader => "this address is a proxy's, and the connection has no PROXY header",
            Self::LateHeader => "this address is a proxy's, and there was no whole PROXY header in time",
            Self::WrongHeader => "this address is a proxy's, and the PROXY header is malformed",
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
