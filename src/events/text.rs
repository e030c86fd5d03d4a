//! The line of an event in the log. Its words are written only here.

use std::fmt;

use super::event::{Counts, Ended, Event, Lossy, What};
use super::reason::AdminReason;
use crate::connections::Service;

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = self.client;
        match &self.what {
            What::Connected => {
                let service = if client.service == Service::Peep { "PEEP" } else { "POP3" };
                write!(f, "{client} connected to {service}")?;
                client.origin.proxy().map_or(Ok(()), |proxy| write!(f, " by the proxy {proxy}"))
            }
            What::Refused { reason, .. } => write!(f, "{client} refused: {}", reason.text()),
            What::Tls { agreed } => write!(f, "{client} TLS: {agreed}"),
            What::Login { messages, octets, .. } => {
                let user = client.user().unwrap_or_default();
                write!(f, "{client} login: user={user:?} messages={messages} octets={octets}")
            }
            What::LoginRefused { user, reason, .. } => {
                let user = user.map(|Lossy(user)| String::from_utf8_lossy(user)).unwrap_or_default();
                let how = if reason.is_failure() { "failed" } else { "refused" };
                write!(f, "{client} login {how}: user={user:?} reason={:?}", reason.to_string())
            }
            What::AdminLogin { name } => write!(f, "{client} admin login: name={name:?}"),
            What::AdminRefused { name, reason } => {
                let how = if matches!(reason, AdminReason::Credentials) { "failed" } else { "refused" };
                write!(f, "{client} admin login {how}: name={name:?} reason={:?}", reason.to_string())
            }
            What::AdminChange { change } => write!(f, "{client} set: {change}"),
            What::Penalty { penalty } => write!(f, "{client} penalty: {penalty}"),
            What::Sent(sent) => write!(f, "{client} +OK {} octets sent", sent.octets),
            What::NotSent { number, error } => write!(f, "{client} message {number} was not sent: {error}"),
            What::CutOff { number, error } => write!(f, "{client} message {number} was cut off: {error}"),
            What::Transformed { result, .. } => write!(f, "{client} transform: {}", result.name()),
            What::LockLost => {
                write!(
                    f,
                    "{client} no message is removed: the maildrop's lock file was deleted or replaced during the session"
                )
            }
            What::Update { removed, failed, .. } => write!(f, "{client} update: removed={removed} failed={failed}"),
            What::Expired { removed, failed } => {
                let user = client.user().unwrap_or_default();
                write!(f, "{client} expired: user={user:?} removed={removed} failed={failed}")
            }
            What::Fault { id, what, user } => {
                write!(f, "{client} fault {id}: {what}")?;
                user.map_or(Ok(()), |user| write!(f, " user={user:?}"))
            }
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::{Client, EndResult, Lossy, Method, Reason, WhyRefused};
    use super::*;
    use crate::auth::Wrong;
    use std::io;

    /// Programs read these lines: fail2ban's filter, and scripts of operators.
    #[test]
    fn each_event_has_its_line() {
        let client = Client::new(17, "192.0.2.4:5555".parse::<SocketAddr>().unwrap().into(), Service::Pop3s);
        client.set_user("ana".parse().unwrap());
        let number = crate::maildrop::MessageNumber::new(2).unwrap();
        let error = io::Error::other("no disk");
        let counts = Counts { retrieved: 2, octets: 395, deleted: 1, commands: 9, ..Counts::default() };
        let took = std::time::Duration::ZERO;
        let refused = |reason| What::LoginRefused { user: Some(Lossy(b"a\"\xff")), method: Method::Pass, reason, took };
        let end = |reason, counts| What::Ended(Ended { result: EndResult::Quit, reason, counts });
        for (what, expected) in [
            (What::Connected, "connected to POP3"),
            (What::Tls { agreed: "TLSv1.3 SUITE" }, "TLS: TLSv1.3 SUITE"),
            (
                What::Login { method: Method::Pass, messages: 2, octets: 395, took, scan: took },
                "login: user=\"ana\" messages=2 octets=395",
            ),
            (
                refused(&Reason::Credentials(Wrong::Name)),
                "login failed: user=\"a\\\"\u{fffd}\" reason=\"unknown user\"",
            ),
            (refused(&Reason::NoTls), "login refused: user=\"a\\\"\u{fffd}\" reason=\"no TLS\""),
            (What::AdminLogin { name: "root" }, "admin login: name=\"root\""),
            (
                What::AdminRefused { name: "root", reason: &AdminReason::Credentials },
                "admin login failed: name=\"root\" reason=\"wrong name or password\"",
            ),
            (What::AdminChange { change: format_args!("timeout = 5 s") }, "set: timeout = 5 s"),
            (What::Fault { id: 3, what: "drop-after=9".parse().unwrap(), user: None }, "fault 3: drop-after=9"),
            (What::Fault { id: 4, what: "auth".parse().unwrap(), user: Some("ana") }, "fault 4: auth user=\"ana\""),
            (What::NotSent { number, error: &error }, "message 2 was not sent: no disk"),
            (What::CutOff { number, error: &error }, "message 2 was cut off: no disk"),
            (end(Some(format_args!("quit")), Some(counts)), "end: quit; retrieved=2 octets=395 deleted=1"),
            (
                end(Some(format_args!("timeout")), Some(Counts { kept: 3, ..counts })),
                "end: timeout; retrieved=2 octets=395 deleted=1 marks-dropped=3",
            ),
            (end(Some(format_args!("no disk")), None), "end: no disk"),
            (end(None, None), "end"),
        ] {
            assert_eq!(Event { client: &client, what }.to_string(), format!("#17 192.0.2.4:5555 {expected}"));
        }
        let refused = Client::refused("[2001:db8::1]:7".parse::<SocketAddr>().unwrap().into(), Service::Pop3);
        let what = What::Refused { reason: WhyRefused::TooMany, is_news: true };
        let line = Event { client: &refused, what }.to_string();
        assert_eq!(line, "[2001:db8::1]:7 refused: too many connections from this address");
    }
}
