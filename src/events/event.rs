//! The events themselves: each has the client that it concerns and the values that belong to it.
//!
//! Sessions build an event from references, so that one that nobody listens to costs no allocation.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt::{self, Write};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::Level;

use super::reason::{AdminReason, Method, Reason};
use crate::auth::UserName;
use crate::connections::Protocol;
use crate::maildrop::MessageNumber;

/// The service that a client has connected to, as metrics and followers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// POP3 that begins without TLS.
    Pop3,
    /// POP3 over TLS from the first octet on.
    Pop3s,
    /// The admin protocol, with or without TLS.
    Peep,
}

impl Service {
    /// The service on a port that speaks `protocol`, by TLS from the first octet on if `tls` is true.
    #[must_use]
    pub fn new(protocol: Protocol, tls: bool) -> Self {
        match (protocol, tls) {
            (Protocol::Pop3, false) => Self::Pop3,
            (Protocol::Pop3, true) => Self::Pop3s,
            (Protocol::Peep, _) => Self::Peep,
        }
    }

    /// Its name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pop3 => "pop3",
            Self::Pop3s => "pop3s",
            Self::Peep => "peep",
        }
    }
}

/// A client, as events name it.
#[derive(Debug)]
pub struct Client {
    /// The session's number. A connection that was refused has no session.
    pub session: Option<u64>,
    /// The address that the client has connected from.
    pub address: SocketAddr,
    /// The service that it has connected to.
    pub service: Service,
    /// When the session began.
    pub since: Instant,
    /// `#17 192.0.2.4:5555`, formatted once, because most lines of the log begin with it.
    name: String,
    user: OnceCell<UserName>,
    tls: OnceCell<TlsVersion>,
}

impl Client {
    /// The client of the session with this number.
    #[must_use]
    pub fn new(session: u64, address: SocketAddr, service: Service) -> Self {
        Self { session: Some(session), name: format!("#{session} {address}"), ..Self::refused(address, service) }
    }

    /// A client that gets no session.
    #[must_use]
    pub fn refused(address: SocketAddr, service: Service) -> Self {
        let (user, tls) = (OnceCell::new(), OnceCell::new());
        Self { session: None, address, service, since: Instant::now(), name: String::new(), user, tls }
    }

    /// The user who has logged in, if one has.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.get().map(UserName::as_str)
    }

    /// Notes who has logged in.
    pub fn set_user(&self, user: UserName) {
        let _ = self.user.set(user);
    }

    /// The version of TLS, if it is in use.
    #[must_use]
    pub fn tls(&self) -> Option<TlsVersion> {
        self.tls.get().copied()
    }

    /// Notes what the TLS handshake has agreed on.
    pub fn set_tls(&self, agreed: &str) {
        let _ = self.tls.set(if agreed.starts_with("TLSv1_2") { TlsVersion::V1_2 } else { TlsVersion::V1_3 });
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() { self.address.fmt(f) } else { f.write_str(&self.name) }
    }
}

/// The versions of TLS that the server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// TLS 1.2
    V1_2,
    /// TLS 1.3
    V1_3,
}

impl TlsVersion {
    /// The version's number.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }
}

/// A name as the client sent it, which need not be UTF-8. Other octets are shown as U+FFFD.
#[derive(Debug, Clone, Copy)]
pub struct Lossy<'a>(pub &'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| {
            f.write_str(chunk.valid())?;
            if chunk.invalid().is_empty() { Ok(()) } else { f.write_char(char::REPLACEMENT_CHARACTER) }
        })
    }
}

/// Something that has happened to a client.
#[derive(Debug)]
pub struct Event<'a> {
    /// The client.
    pub client: &'a Client,
    /// What has happened.
    pub what: What<'a>,
}

/// What has happened.
#[derive(Debug)]
pub enum What<'a> {
    /// A session has begun.
    Connected,
    /// A connection was refused, because there are too many from its address.
    Refused {
        /// False if the log has told of the address only a moment ago.
        is_news: bool,
    },
    /// A TLS handshake has succeeded.
    Tls {
        /// The version and the cipher.
        agreed: &'a str,
    },
    /// A user has logged in.
    Login {
        /// How the user has proven to be who it is.
        method: Method,
        /// The messages in the maildrop.
        messages: usize,
        /// Their octets.
        octets: u64,
        /// The time from the credentials to the open maildrop.
        took: Duration,
        /// The part of that time in which the maildrop was listed and measured.
        scan: Duration,
    },
    /// A login was refused.
    LoginRefused {
        /// The name that the client gave, if it gave one.
        user: Option<Lossy<'a>>,
        /// How it tried to log in.
        method: Method,
        /// Why it was refused.
        reason: &'a Reason,
        /// The time from the credentials to the refusal.
        took: Duration,
    },
    /// The admin has logged in.
    AdminLogin {
        /// The admin's name.
        name: &'a str,
    },
    /// A login of the admin was refused.
    AdminRefused {
        /// The name that the client gave.
        name: &'a str,
        /// Why it was refused.
        reason: &'a AdminReason,
    },
    /// The admin has changed something.
    AdminChange {
        /// What is different now.
        change: fmt::Arguments<'a>,
    },
    /// Logins from the client's address are refused from now on, because too many have failed.
    Penalty {
        /// For how long.
        lasts: Duration,
    },
    /// A message was sent by RETR or TOP.
    Sent(Sent),
    /// A message could not be sent, which the client was told.
    NotSent {
        /// The message's number.
        number: MessageNumber,
        /// Why it could not be sent.
        error: &'a io::Error,
    },
    /// A part of a message was sent, and the connection is closed because the rest could not be.
    CutOff {
        /// The message's number.
        number: MessageNumber,
        /// Why the rest could not be sent.
        error: &'a io::Error,
    },
    /// A transform has ended.
    Transformed {
        /// What became of it.
        result: TransformResult,
        /// The time since it was started.
        took: Duration,
    },
    /// The maildrop's lock file has been taken away, so nothing is removed.
    LockLost,
    /// QUIT has removed the messages that were marked as deleted, as far as that was possible.
    Update {
        /// How many were removed.
        removed: u64,
        /// How many were not.
        failed: u64,
    },
    /// A session has ended.
    Ended(Ended<'a>),
}

/// A message that was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// The message's number.
    pub number: MessageNumber,
    /// True for RETR, false for TOP.
    pub whole: bool,
    /// The message's octets, before byte-stuffing.
    pub octets: u64,
    /// The time from the command until the status line was ready to be sent.
    pub first_octet: Duration,
    /// The time from the command until all was handed to the kernel.
    pub took: Duration,
}

/// What became of a transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransformResult {
    /// It has transformed the message.
    Ok,
    /// It could not be started, or its output could not be read.
    Unstarted,
    /// It ended with another exit status than 0.
    Failed,
    /// It gave no output for too long.
    Silent,
    /// Its output is not needed any more: the client has left, or has got the lines it asked for.
    Stopped,
}

impl TransformResult {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Unstarted, Self::Failed, Self::Silent, Self::Stopped];

    /// Its name, as metrics and followers have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unstarted => "not-started",
            Self::Failed => "failed",
            Self::Silent => "silent",
            Self::Stopped => "stopped",
        }
    }
}

/// The end of a session.
#[derive(Debug)]
pub struct Ended<'a> {
    /// How it ended.
    pub result: EndResult,
    /// The same in words, with the error if there was one. A PEEP session that ended as it should has none.
    pub reason: Option<fmt::Arguments<'a>>,
    /// What a POP3 session has done.
    pub counts: Option<Counts>,
}

/// What a POP3 session has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages sent by RETR.
    pub retrieved: u64,
    /// The octets of these messages.
    pub octets: u64,
    /// Messages removed.
    pub deleted: u64,
    /// Messages that were marked as deleted and stay, because the session did not end with QUIT.
    pub kept: u64,
    /// Lines that the client has sent, commands or not.
    pub commands: u64,
}

/// How a session ended, for those who count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndResult {
    /// The client has sent QUIT, or the admin's client has left.
    Quit,
    /// The client closed the connection, or it was lost.
    HangUp,
    /// The client sent nothing for too long, or did not log in in time.
    Timeout,
    /// The client did not read what it had asked for, or read too slowly.
    Stalled,
    /// There were too many failed logins.
    FailedLogins,
    /// There were too many commands before login.
    TooManyCommands,
    /// The client spoke another protocol.
    Foreign,
    /// The server is shutting down.
    ShuttingDown,
    /// The TLS handshake failed.
    Handshake,
    /// A message could not be sent to its end, or the connection failed in another way.
    Failed,
    /// The server has a fault.
    Fault,
}

impl EndResult {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Quit,
        Self::HangUp,
        Self::Timeout,
        Self::Stalled,
        Self::FailedLogins,
        Self::TooManyCommands,
        Self::Foreign,
        Self::ShuttingDown,
        Self::Handshake,
        Self::Failed,
        Self::Fault,
    ];

    /// Its name, as metrics and followers have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::HangUp => "hang-up",
            Self::Timeout => "timeout",
            Self::Stalled => "stalled",
            Self::FailedLogins => "failed-logins",
            Self::TooManyCommands => "too-many-commands",
            Self::Foreign => "other-protocol",
            Self::ShuttingDown => "shutting-down",
            Self::Handshake => "handshake",
            Self::Failed => "failed",
            Self::Fault => "fault",
        }
    }
}

impl Event<'_> {
    /// The event's name, as followers and the log in JSON have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match &self.what {
            What::Connected => "connected",
            What::Refused { .. } => "refused",
            What::Tls { .. } => "tls",
            What::Login { .. } => "login",
            What::LoginRefused { .. } => "login-refused",
            What::AdminLogin { .. } => "admin-login",
            What::AdminRefused { .. } => "admin-refused",
            What::AdminChange { .. } => "admin-change",
            What::Penalty { .. } => "penalty",
            What::Sent(Sent { whole: true, .. }) => "retrieved",
            What::Sent(Sent { whole: false, .. }) => "top",
            What::NotSent { .. } => "not-sent",
            What::CutOff { .. } => "cut-off",
            What::Transformed { .. } => "transformed",
            What::LockLost => "lock-lost",
            What::Update { .. } => "update",
            What::Ended(_) => "end",
        }
    }

    /// The level of the event's line in the log; `None` if it has no line there.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        match &self.what {
            What::Refused { is_news: false }
            | What::Penalty { .. }
            | What::Transformed { .. }
            | What::Update { .. } => None,
            What::NotSent { .. } | What::CutOff { .. } | What::LockLost => Some(Level::Error),
            What::LoginRefused { reason, .. } => Some(reason.level()),
            What::Refused { is_news: true } | What::AdminRefused { .. } => Some(Level::Warn),
            What::Ended(Ended { result: EndResult::Fault, .. }) => Some(Level::Error),
            What::Connected
            | What::Tls { .. }
            | What::Login { .. }
            | What::AdminLogin { .. }
            | What::AdminChange { .. }
            | What::Ended(_) => Some(Level::Info),
            What::Sent(_) => Some(Level::Trace),
        }
    }

    /// The user that the event concerns: who has logged in, or the name that was given.
    #[must_use]
    pub fn user(&self) -> Option<Cow<'_, str>> {
        match &self.what {
            What::LoginRefused { user: Some(Lossy(user)), .. } => Some(String::from_utf8_lossy(user)),
            What::AdminLogin { name } | What::AdminRefused { name, .. } => Some((*name).into()),
            _ => self.client.user().map(Into::into),
        }
    }
}
