//! The commands that tell about the server (`s?`) and about one account (`i?`).

use std::fmt::Display;
use std::process;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Role, Session};
use crate::auth::{Known, Login, SessionLimit};
use crate::connections::{Protocol, Stage};
use crate::events::Reason;
use crate::maildrop::{Count, Location};
use crate::metrics;
use crate::peep::{ErrorCode, NameValue, Reply, time, time_of};
use crate::settings::Setting;
use crate::shared::Shared;

/// Lines of names and values.
#[derive(Default)]
struct Pairs(Vec<String>);

impl Pairs {
    fn add(&mut self, name: &str, value: impl Display) {
        self.0.push(NameValue::new(name, value).to_string());
    }

    /// Adds a value that there may not be.
    fn add_some(&mut self, name: &str, value: Option<impl Display>) {
        let value = value.map(|value| value.to_string());
        self.0.push(NameValue { name: name.to_owned(), value }.to_string());
    }
}

impl Session<'_> {
    /// `s?`: every counter, gauge and setting.
    pub(super) fn statistics(&self) -> Reply {
        let mut pairs = Pairs::default();
        pairs.add("version", env!("CARGO_PKG_VERSION"));
        pairs.add("pid", process::id());
        pairs.add("started", time(SystemTime::now() - self.shared.started.elapsed()));
        self.add_values_of_version_1_0(&mut pairs);
        for (name, value) in metrics::names_and_values(self.shared) {
            match name.ends_with("_timestamp") {
                true => pairs.add_some(&name, metrics::timestamp(value).map(time)),
                false => pairs.add(&name, value),
            }
        }
        self.add_settings(&mut pairs);
        Reply::Lines(pairs.0)
    }

    /// The counters of version 1.0 by the names that `peepclient` gives their commands. The metrics have most of them, too,
    /// by other names.
    fn add_values_of_version_1_0(&self, pairs: &mut Pairs) {
        let Shared { stats, connections, locks, .. } = self.shared;
        pairs.add("current_connections", connections.count(Protocol::Pop3));
        pairs.add("current_logged_users", locks.users().len());
        pairs.add("retrieved_bytes", stats.sent.value());
        pairs.add("retrieved_emails", stats.retrieved.value());
        pairs.add("removed_emails", stats.removed.value());
        pairs.add("all_connections", stats.connections.value());
        pairs.add("all_logins", stats.logins.value());
    }

    /// The settings in force, without secrets. A viewer does not see where secrets are either.
    fn add_settings(&self, pairs: &mut Pairs) {
        let settings = self.shared.settings();
        let limits = self.shared.guard.limits();
        pairs.add("max_connections", self.shared.connections.limit());
        pairs.add_some("per_address", limits.per_address);
        pairs.add("maildir", settings.mail_root.path().display());
        pairs.add("timeout", settings.timeout.map_or(0, |timeout| timeout.as_secs()));
        pairs.add_some("min_rate_octets", settings.min_rate.map(|rate| rate.octets));
        pairs.add_some("min_rate_seconds", settings.min_rate.map(|rate| rate.span.as_secs()));
        pairs.add("transform", u8::from(settings.transform.is_some()));
        pairs.add("tls", u8::from(settings.certificates.is_some()));
        pairs.add("peep_tls", u8::from(settings.peep_tls));
        pairs.add("peep_viewers", settings.admin.viewers.len());
        pairs.add("allow_cleartext", u8::from(settings.allow_cleartext));
        pairs.add("log_level", log::max_level().as_str().to_lowercase());
        for Setting { key, value, is_private, .. } in settings.in_force.iter() {
            let value = match &**key {
                // PEEP can change these.
                "mailbox" => Some(settings.mail_root.path().display().to_string()),
                "max-connections" => Some(self.shared.connections.limit().to_string()),
                "timeout" => Some(settings.timeout.map_or(0, |timeout| timeout.as_secs()).to_string()),
                _ if *is_private && self.role != Some(Role::Admin) => value.as_ref().map(|_| "(hidden)".to_owned()),
                _ => value.clone(),
            };
            pairs.add_some(&format!("setting_{}", key.replace('-', "_")), value);
        }
    }

    /// `i?`: an account and its maildrop.
    pub(super) fn about_user(&self, name: &str) -> Result<Reply, ErrorCode> {
        let (user, known) = self.shared.users.known(name).ok_or(ErrorCode::NoSuchUser)?;
        let name = user.as_str();
        // Of an account that is not told, the maildrop is looked for where it would be by its name.
        let mailbox = if let Known::Exists(mailbox) = &known { Arc::clone(mailbox) } else { Arc::default() };
        let login = Login { user: user.clone(), mailbox };
        let mut pairs = Pairs::default();
        pairs.add("user", name);
        let (mut elsewhere, mut place) = (None, None);
        let look = |(_acting, location): (_, Location)| {
            place = Some(location.shown());
            elsewhere = self.shared.locks.holder_elsewhere(&location);
            self.shared.counts.of(&location)
        };
        match self.shared.act_for_login(&login).and_then(look).map_err(Reason::Maildrop) {
            Ok(Count { messages, octets }) => {
                pairs.add("messages", messages);
                pairs.add("octets", octets);
            }
            Err(reason) => pairs.add("problem", reason),
        }
        if self.shared.settings().transform.is_some() {
            pairs.add("transform", u8::from(self.shared.transform_of(&user).is_some()));
        }
        let open = self.shared.connections.open();
        let has_maildrop = |stage| matches!(stage, Stage::Transaction | Stage::Update);
        let sessions: Vec<_> = open
            .iter()
            .map(|connection| &connection.client)
            .filter(|client| has_maildrop(client.progress.stage()) && client.user() == Some(name))
            .collect();
        let session = sessions.first();
        pairs.add_some("session", session.and_then(|client| client.session));
        pairs.add_some("session_address", session.map(|client| client.origin));
        pairs.add_some("session_seconds", session.map(|client| client.since.elapsed().as_secs()));
        pairs.add_some("holder_host", elsewhere.as_ref().map(|holder| &holder.host));
        pairs.add_some("holder_pid", elsewhere.as_ref().map(|holder| holder.process));
        pairs.add_some("holder_session", elsewhere.as_ref().and_then(|holder| holder.session));
        pairs.add_some("holder_seconds", elsewhere.as_ref().map(|holder| holder.age().as_secs()));
        let record = self.shared.events.fetches.of(&user);
        pairs.add("logins", record.as_ref().map_or(0, |record| record.logins));
        pairs.add_some("last_login", record.as_ref().map(|record| time_of(record.last_login)));
        pairs.add_some("last_login_address", record.and_then(|record| record.address));
        pairs.add("sessions", sessions.len());
        pairs.add_some("session_limit", login.mailbox.session_limit.map(SessionLimit::sessions));
        pairs.add_some("maildrop", place);
        pairs.add(
            "account",
            match known {
                Known::Exists(_) => "exists",
                Known::Untold => "untold",
                Known::Unavailable => "unavailable",
            },
        );
        Ok(Reply::Lines(pairs.0))
    }
}
