//! The line of an event in the log. This is the only place that knows it.

use std::fmt;

use super::event::{Counts, Ended, Event, Lossy, Service, What};
use super::reason::AdminReason;

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = self.client;
        match &self.what {
            What::Connected => {
                let service = if client.service == Service::Peep { "PEEP" } else { "POP3" };
                write!(f, "{client} connected to {service}")
            }
            What::Refused { .. } => write!(f, "{client} refused: too many connections from this address"),
            What::Tls { agreed } => write!(f, "{client} TLS: {agreed}"),
            What::Login { messages, octets, .. } => {
                let user = client.user().unwrap_or_default();
                write!(f, "{client} login: user={user:?} messages={messages} octets={octets}")
            }
            What::LoginRefused { user, reason, .. } => {
                let user = user.map(|Lossy(user)| String::from_utf8_lossy(user)).unwrap_or_default();
                match reason.is_failure() {
                    true => write!(f, "{client} login failed: user={user:?}"),
                    false => write!(f, "{client} login refused: user={user:?}, {reason}"),
                }
            }
            What::AdminLogin { name } => write!(f, "{client} admin login: name={name:?}"),
            What::AdminRefused { name, reason: AdminReason::Credentials } => {
                write!(f, "{client} admin login failed: name={name:?}")
            }
            What::AdminRefused { name, reason } => {
                write!(f, "{client} admin login refused: name={name:?}, {reason}")
            }
            What::AdminChange { change } => write!(f, "{client} set: {change}"),
            What::Penalty { lasts } => write!(f, "{client} penalty: {} s", lasts.as_secs()),
            What::Sent(sent) => write!(f, "{client} +OK {} octets sent", sent.octets),
            What::NotSent { number, error } => write!(f, "{client} message {number} was not sent: {error}"),
            What::CutOff { number, error } => write!(f, "{client} message {number} was cut off: {error}"),
            What::Transformed { result, .. } => write!(f, "{client} transform: {}", result.name()),
            What::LockLost => {
                write!(f, "{client} nothing is removed: the maildrop's lock file has been taken away")
            }
            What::Update { removed, failed } => write!(f, "{client} update: removed={removed} failed={failed}"),
            What::Ended(Ended { reason, counts, .. }) => {
                write!(f, "{client} end")?;
                if let Some(reason) = reason {
                    write!(f, ": {reason}")?;
                }
                counts.as_ref().map_or(Ok(()), |counts| write!(f, "; {counts}"))
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { retrieved, octets, deleted, kept, .. } = self;
        write!(f, "retrieved={retrieved} octets={octets} deleted={deleted}")?;
        if *kept > 0 { write!(f, " marks-dropped={kept}") } else { Ok(()) }
    }
}
