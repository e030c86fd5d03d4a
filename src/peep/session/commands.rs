//! Carries out a command of an admin.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Session;
use crate::auth::Unchanged;
use crate::connections::{MAX_CONNECTIONS_RANGE, Protocol};
use crate::logging;
use crate::metrics;
use crate::peep::{Command, ErrorCode, MORE, Reply, VERSION_1_1};
use crate::settings::TIMEOUT_RANGE;
use crate::shared::Shared;
use crate::wire::Link;

impl Session<'_> {
    /// Carries out a command that is known in the session's state.
    pub(super) fn carry_out(&mut self, command: Command, link: &impl Link) -> Result<Reply, ErrorCode> {
        let Shared { users, locks, stats, connections, .. } = self.shared;
        let settings = self.shared.settings();
        let value = |value: u64| Ok(Reply::Value(value.to_string()));
        match command {
            Command::Authenticate { name, password } => self.authenticate(&name, &password.0, link)?,
            Command::Capabilities => return Ok(Reply::Lines(capabilities())),
            Command::Quit => {}
            Command::AddUser { name, password } => {
                let name = users.user_called(&name).ok_or(ErrorCode::BadSyntax)?;
                users.add(name.clone(), password.0.as_bytes()).map_err(|why| self.unchanged(why))?;
                self.log_change(format_args!("user {:?} added", name.as_str()));
            }
            Command::DeleteUser { name } => {
                if let Err(why) = users.remove(&name) {
                    if !matches!(why, Unchanged::Missing) {
                        self.log_change(format_args!("remembered passwords of user {name:?} are forgotten"));
                    }
                    return Err(self.unchanged(why));
                }
                if let Ok(user) = name.parse() {
                    self.shared.set_transformed(user, true); // for a later account of that name
                }
                if let Some(user) = users.user_called(&name) {
                    self.shared.events.fetches.forget(&user);
                }
                self.log_change(format_args!("user {name:?} deleted"));
            }
            Command::Users => return Ok(Reply::Lines(users.names().iter().map(ToString::to_string).collect())),
            Command::SetMaxConnections { limit } => {
                let limit = in_range(limit, MAX_CONNECTIONS_RANGE).ok_or(ErrorCode::BadMaxConnections)?;
                connections.set_limit(usize::try_from(limit).map_err(|_| ErrorCode::BadMaxConnections)?);
                self.log_change(format_args!("maximum connections = {limit}"));
            }
            Command::MaxConnections => return value(connections.limit() as u64),
            Command::SetMaildir { path } => {
                let root = settings.mail_root.elsewhere(PathBuf::from(&path)).map_err(|error| {
                    log::warn!("{} mail directory {path:?} refused: {error}", self.client);
                    ErrorCode::BadMaildir
                })?;
                self.shared.change_settings(|settings| settings.mail_root = Arc::new(root));
                self.log_change(format_args!("mail directory = {path:?}"));
            }
            Command::Maildir => return Ok(Reply::Value(settings.mail_root.path().to_string_lossy().into_owned())),
            Command::SetTimeout { seconds } => {
                let seconds = in_range(seconds, TIMEOUT_RANGE).ok_or(ErrorCode::BadTimeout)?;
                let timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
                self.shared.change_settings(|settings| settings.timeout = timeout);
                self.log_change(format_args!("timeout = {seconds} s"));
            }
            Command::Timeout => return value(settings.timeout.map_or(0, |timeout| timeout.as_secs())),
            Command::RetrievedBytes => return value(stats.sent.value()),
            Command::RetrievedEmails => return value(stats.retrieved.value()),
            Command::RemovedEmails => return value(stats.removed.value()),
            Command::CurrentConnections => return value(connections.count(Protocol::Pop3) as u64),
            Command::CurrentUsers => return Ok(Reply::Lines(locks.users())),
            Command::AllConnections => return value(stats.connections.value()),
            Command::AllLogins => return value(stats.logins.value()),
            Command::Reload => {
                let needs_restart = self.shared.reloader.ask_and_wait().ok_or(ErrorCode::BadConfiguration)?;
                self.log_change(format_args!("configuration read again"));
                if !needs_restart.is_empty() {
                    return Ok(Reply::Lines(needs_restart.into_iter().map(str::to_owned).collect()));
                }
            }
            Command::Sessions => return Ok(self.connections()),
            Command::Kick { id } => return self.kick(id),
            Command::KickUser { name } => return self.kick_user(&name.0),
            Command::KickAddress { network } => return self.kick_address(network),
            Command::Ban { network, seconds } => self.ban(network, seconds),
            Command::Unban { network } => self.unban(network)?,
            Command::Bans => return Ok(self.bans()),
            Command::SetDraining { on } => {
                connections.set_draining(on);
                self.log_change(format_args!("draining = {}", u8::from(on)));
            }
            Command::Draining => return value(u64::from(connections.is_draining())),
            Command::Statistics => return Ok(self.statistics()),
            Command::AboutUser { name } => return self.about_user(&name.0),
            Command::TestLogin { name, password, more } => {
                return Ok(self.test_login(&name.0, &password.0, more.is_some_and(|more| more.0 == MORE)));
            }
            Command::Errors => return Ok(Reply::Lines(self.shared.events.recent_problems())),
            Command::SetLogLevel { level } => {
                logging::set_level(level.to_level_filter());
                self.log_change(format_args!("log level = {}", level.as_str().to_lowercase()));
            }
            Command::LogLevel => return Ok(Reply::Value(log::max_level().as_str().to_lowercase())),
            Command::Metrics => {
                return Ok(Reply::Lines(metrics::text(self.shared).lines().map(str::to_owned).collect()));
            }
            Command::Expire => return Ok(self.expire(false)),
            Command::WouldExpire => return Ok(self.expire(true)),
            Command::Deletions { name } => return self.deletions(&name.0),
            Command::Undelete { id } => return self.undelete(&id.0),
            Command::UndeleteSince { name, seconds } => return self.undelete_since(&name.0, seconds),
            Command::Report { name } => return self.report(name.as_ref().map(|name| &*name.0)),
            Command::ReportByDay { name } => return self.report_by_day(name.as_ref().map(|name| &*name.0)),
            Command::AddFault { who, what, count, seconds } => return self.add_fault(&who.0, what, count, seconds),
            Command::ClearFaults { id } => return self.clear_faults(id),
            Command::Faults => return self.faults(),
            Command::SetTransform { name, on } => return self.set_transform(&name.0, on),
            Command::Untransformed => return Ok(self.untransformed()),
            Command::TestTransform { name, number } => return self.test_transform(&name.0, number),
            // The session's loop carries this out, because it is not answered at once.
            Command::Follow { .. } => return Err(ErrorCode::UnknownCommand),
        }
        Ok(Reply::Done)
    }

    fn unchanged(&self, why: Unchanged) -> ErrorCode {
        match why {
            Unchanged::Exists => ErrorCode::UserExists,
            Unchanged::Missing => ErrorCode::NoSuchUser,
            Unchanged::File(error) => {
                log::error!("{} the users file cannot be changed: {error}", self.client);
                ErrorCode::UsersNotWritten
            }
            Unchanged::ReadOnly => {
                log::error!("{} the accounts cannot be changed: no account source can be written", self.client);
                ErrorCode::UsersNotWritten
            }
            Unchanged::Elsewhere => {
                log::error!("{} nothing is deleted: the account may be in a source that is not changed", self.client);
                ErrorCode::UsersNotWritten
            }
            Unchanged::Source(why) => {
                log::error!("{} an account source cannot be changed: {why}", self.client);
                ErrorCode::UsersNotWritten
            }
        }
    }
}

/// The lines of `cap?`: every authentication command, every command that takes an integer with its range, and every
/// command beyond the table of version 1.0.
fn capabilities() -> Vec<String> {
    let range = |command: &str, (low, high): (u64, u64)| format!("{command}{low}-{high}");
    let first = ["a".to_owned(), range("c=", MAX_CONNECTIONS_RANGE), range("t=", TIMEOUT_RANGE)];
    let later = VERSION_1_1.into_iter().chain(["v1.1"]).map(str::to_owned);
    first.into_iter().chain(later).collect()
}

fn in_range(value: i64, (low, high): (u64, u64)) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| (low..=high).contains(value))
}
