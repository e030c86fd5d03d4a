//! The events themselves: each has the client that it concerns and the values that belong to it.
//!
//! Sessions build an event from references, so an event without a consumer costs no allocation.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::io;
use std::time::Duration;

use log::Level;

use super::client::Client;
use super::first_commands::FirstCommands;
use super::reason::{AdminReason, Method, Reason, WhyRefused};
use crate::faults;
use crate::guard::Penalty;
use crate::maildrop::MessageNumber;

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
    /// A connection was refused.
    Refused {
        /// Why.
        reason: WhyRefused,
        /// False if the log has named this address a moment ago, so that it need not name it again.
        is_news: bool,
    },
    /// A TLS handshake has succeeded.
    Tls {
        /// The version and the cipher.
        agreed: &'a str,
    },
    /// A user has logged in.
    Login {
        /// How the client proved its identity.
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
        penalty: Penalty,
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
    /// No message is removed, because the maildrop's lock file was deleted or replaced during the session.
    LockLost,
    /// QUIT has removed the messages that were marked as deleted, as far as that was possible.
    Update {
        /// How many were removed.
        removed: u64,
        /// How many were not.
        failed: u64,
        /// How many of the messages that stay no session has retrieved as a whole, if that is known.
        never_retrieved: Option<u64>,
    },
    /// Messages of a user have expired and were removed, as far as that was possible.
    Expired {
        /// How many were removed.
        removed: u64,
        /// How many were not.
        failed: u64,
    },
    /// The client gets a fault that a tester has ordered.
    Fault {
        /// The number of the order.
        id: u64,
        /// The fault.
        what: faults::What,
        /// The user who has logged in, or whose login is refused by the fault.
        user: Option<&'a str>,
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
    /// It could not be started.
    NotStarted,
    /// It ended with another exit status than 0, or its output could not be read.
    Failed,
    /// It gave no output for too long.
    Silent,
    /// Its output is not needed any more: the client has left, or has got the lines it asked for.
    Stopped,
}

impl TransformResult {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ok, Self::NotStarted, Self::Failed, Self::Silent, Self::Stopped];

    /// Its name, as metrics and followers have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotStarted => "not-started",
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
    /// The keywords of the first ones.
    pub first_commands: FirstCommands,
}

/// How a session ended, as metrics count it.
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
    /// An admin has banned the client's address.
    Banned,
    /// There were too many commands before login.
    TooManyCommands,
    /// The client spoke another protocol.
    Foreign,
    /// The server is shutting down.
    ShuttingDown,
    /// An admin has ended the session.
    Kicked,
    /// Another login of the user has taken the maildrop over.
    TakenOver,
    /// The TLS handshake failed.
    Handshake,
    /// A message could not be sent to its end, or the connection failed in another way.
    Failed,
    /// The server has a fault.
    Fault,
}

impl EndResult {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Quit,
        Self::HangUp,
        Self::Timeout,
        Self::Stalled,
        Self::FailedLogins,
        Self::Banned,
        Self::TooManyCommands,
        Self::Foreign,
        Self::ShuttingDown,
        Self::Kicked,
        Self::TakenOver,
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
            Self::Banned => "banned",
            Self::TooManyCommands => "too-many-commands",
            Self::Foreign => "other-protocol",
            Self::ShuttingDown => "shutting-down",
            Self::Kicked => "kicked",
            Self::TakenOver => "taken-over",
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
            What::Expired { .. } => "expired",
            What::Fault { .. } => "fault",
            What::Ended(_) => "end",
        }
    }

    /// The level of the event's line in the log; `None` if it has no line there.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        match &self.what {
            What::Refused { is_news: false, .. }
            | What::Penalty { .. }
            | What::Transformed { .. }
            | What::Update { .. } => None,
            What::NotSent { .. } | What::CutOff { .. } | What::LockLost => Some(Level::Error),
            What::LoginRefused { reason, .. } => Some(reason.level()),
            What::Refused { is_news: true, .. } | What::AdminRefused { .. } => Some(Level::Warn),
            What::Ended(Ended { result: EndResult::Fault, .. }) => Some(Level::Error),
            What::Connected
            | What::Tls { .. }
            | What::Login { .. }
            | What::AdminLogin { .. }
            | What::AdminChange { .. }
            | What::Ended(_) => Some(Level::Info),
            What::Expired { .. } | What::Fault { .. } => Some(Level::Info),
            What::Sent(_) => Some(Level::Trace),
        }
    }

    /// The user that the event concerns: the user who has logged in, or the name that the client sent.
    #[must_use]
    pub fn user(&self) -> Option<Cow<'_, str>> {
        match &self.what {
            What::LoginRefused { user: Some(Lossy(user)), .. } => Some(String::from_utf8_lossy(user)),
            What::AdminLogin { name } | What::AdminRefused { name, .. } => Some((*name).into()),
            What::Fault { user, .. } => user.map(Into::into),
            _ => self.client.user().map(Into::into),
        }
    }
}
