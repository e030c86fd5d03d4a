//! The named values of an event, for consumers that want them one by one: the log in JSON, and followers.
//!
//! The names are written only here. Text, numbers and seconds keep their types.

use std::time::Duration;

use log::kv::{Error, Key, Source, Value, VisitSource};

use super::event::{Counts, Ended, Event, Sent, What};

impl Source for Event<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        let mut add = |name: &'static str, value: Value<'kvs>| visitor.visit_pair(Key::from_str(name), value);
        add("event", self.name().into())?;
        let client = self.client;
        if let Some(session) = client.session {
            add("session", session.into())?;
        }
        add("address", Value::from_display(&client.origin))?;
        if let Some(proxy) = client.origin.proxy() {
            add("proxy", Value::from_display(proxy))?;
        }
        add("protocol", client.service.name().into())?;
        match &self.what {
            What::LoginRefused { user: Some(user), .. } => add("user", Value::from_display(user))?,
            What::AdminLogin { name } | What::AdminRefused { name, .. } | What::Fault { user: Some(name), .. } => {
                add("user", (*name).into())?;
            }
            _ => {
                if let Some(user) = client.user() {
                    add("user", user.into())?;
                }
            }
        }
        match &self.what {
            What::Connected | What::AdminLogin { .. } | What::LockLost => {}
            What::Refused { reason, .. } => add("reason", reason.text().into())?,
            What::Tls { agreed } => add("tls", (*agreed).into())?,
            What::Login { method, messages, octets, took, scan } => {
                add("mechanism", method.name().into())?;
                add("messages", (*messages).into())?;
                add("octets", (*octets).into())?;
                add("seconds", seconds(*took))?;
                add("scan-seconds", seconds(*scan))?;
            }
            What::LoginRefused { method, reason, took, .. } => {
                add("mechanism", method.name().into())?;
                add("reason", Value::from_display(*reason))?;
                add("seconds", seconds(*took))?;
            }
            What::AdminRefused { reason, .. } => add("reason", Value::from_display(*reason))?,
            What::AdminChange { change } => add("change", Value::from_display(change))?,
            What::Penalty { penalty } => add("seconds", seconds(penalty.duration()))?,
            What::Sent(Sent { number, octets, first_octet, took, .. }) => {
                add("message-number", number.get().into())?;
                add("octets", (*octets).into())?;
                add("first-octet-seconds", seconds(*first_octet))?;
                add("seconds", seconds(*took))?;
            }
            What::NotSent { number, error } | What::CutOff { number, error } => {
                add("message-number", number.get().into())?;
                add("reason", Value::from_display(*error))?;
            }
            What::Transformed { result, took } => {
                add("result", result.name().into())?;
                add("seconds", seconds(*took))?;
            }
            What::Update { removed, failed, .. } | What::Expired { removed, failed } => {
                add("removed", (*removed).into())?;
                add("failed", (*failed).into())?;
            }
            What::Fault { id, what, .. } => {
                add("fault", (*id).into())?;
                add("what", Value::from_display(what))?;
            }
            What::Ended(Ended { result, reason, counts }) => {
                add("result", result.name().into())?;
                if let Some(reason) = reason {
                    add("reason", Value::from_display(reason))?;
                }
                add("seconds", seconds(client.since.elapsed()))?;
                if let Some(Counts { retrieved, octets, deleted, kept, commands, .. }) = counts {
                    add("retrieved", (*retrieved).into())?;
                    add("octets", (*octets).into())?;
                    add("deleted", (*deleted).into())?;
                    add("marks-dropped", (*kept).into())?;
                    add("commands", (*commands).into())?;
                }
            }
        }
        Ok(())
    }
}

/// In whole microseconds, since shorter times have no meaning here.
fn seconds<'v>(time: Duration) -> Value<'v> {
    (time.as_micros() as f64 / 1e6).into()
}
