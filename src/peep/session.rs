//! A PEEP session on the server: reads commands, carries them out on what all sessions share, and answers.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Command, ErrorCode, LINE_LIMIT, Reply};
use crate::auth::{Unchanged, UserName};
use crate::connections::{MAX_CONNECTIONS_RANGE, Protocol};
use crate::events::{AdminReason, Client, What};
use crate::guard::{Admission, AttemptRefused, PreLoginLimits};
use crate::settings::{Admin, TIMEOUT_RANGE};
use crate::shared::{LOGIN_LIMIT, Shared};
use crate::wire::{Foreign, Line, Lines, Link, Output, is_timeout};

/// The reply to a connection when there are too many from its address: [`ErrorCode::TooMany`].
pub const TOO_MANY_CONNECTIONS: &str = "-9\r\n";

/// Runs a PEEP session over `link` until it ends. Its events are those of `client`.
///
/// # Errors
/// Those of the connection.
pub fn serve<L: Link>(link: L, shared: &Shared, admission: &Admission, client: &Client) -> io::Result<()> {
    let mut session = Session { shared, client, limits: PreLoginLimits::new(admission), authenticated: false };
    let mut lines = Lines::new(LINE_LIMIT);
    let mut output = Output::new(link);
    let login_by = Instant::now() + LOGIN_LIMIT;
    loop {
        while let Some(command) = session.next_command(&mut lines) {
            // Before authentication a line that is no command may belong to another protocol, whose next line may have
            // been chosen by an attacker: see `Foreign`. Nothing that follows it is read.
            let is_foreign = !session.authenticated && command.is_err();
            let last = is_foreign || command == Ok(Command::Quit);
            let reply =
                command.and_then(|command| session.carry_out(command, &output.link)).unwrap_or_else(Reply::Error);
            reply.write(output.pending());
            output.flush_if_large()?;
            let refused = reply == Reply::Error(ErrorCode::TooMany) || session.limits.failed_too_often();
            if last || refused || shared.connections.is_closing() {
                return output.flush();
            }
        }
        if session.authenticated {
            output.link.set_logged_in();
        }
        output.flush()?;
        output.release();
        output.link.expect_command(Instant::now(), (!session.authenticated).then_some(login_by));
        match lines.fill(&mut output.link) {
            Ok(0) => return Ok(()),
            Ok(_) if !session.authenticated && Instant::now() >= login_by => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) && (session.authenticated || Instant::now() < login_by) => {}
            Err(error) if is_timeout(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

struct Session<'a> {
    shared: &'a Shared,
    client: &'a Client,
    limits: PreLoginLimits<'a>,
    authenticated: bool,
}

impl Session<'_> {
    /// The next command of the session's state, if a complete line has arrived.
    fn next_command(&mut self, lines: &mut Lines) -> Option<Result<Command, ErrorCode>> {
        if !self.authenticated && lines.begin_tls() {
            return Some(Err(ErrorCode::UnknownCommand));
        }
        let line = lines.next()?;
        if !self.authenticated && !self.limits.allow_command() {
            return Some(Err(ErrorCode::TooMany));
        }
        Some(match line {
            // A line of HTTP can look like a login: `a /name HTTP/1.1`.
            Line::Complete(line) if !self.authenticated && Foreign::of(line).is_some() => {
                Err(ErrorCode::UnknownCommand)
            }
            Line::Complete(line) => Command::parse(line, self.authenticated),
            Line::TooLong => Err(ErrorCode::BadSyntax),
        })
    }

    fn carry_out(&mut self, command: Command, link: &impl Link) -> Result<Reply, ErrorCode> {
        let Shared { users, locks, stats, connections, .. } = self.shared;
        let settings = self.shared.settings();
        let value = |value: u64| Ok(Reply::Value(value.to_string()));
        match command {
            Command::Authenticate { name, password } => self.authenticate(&name, &password.0, link)?,
            Command::Capabilities => return Ok(Reply::Lines(capabilities())),
            Command::Quit => {}
            Command::AddUser { name, password } => {
                let name: UserName = name.parse().map_err(|_| ErrorCode::BadSyntax)?;
                users.add(name.clone(), password.0.as_bytes()).map_err(|why| self.unchanged(why))?;
                self.log_change(format_args!("user {:?} added", name.as_str()));
            }
            Command::DeleteUser { name } => {
                users.remove(&name).map_err(|why| self.unchanged(why))?;
                self.log_change(format_args!("user {name:?} deleted"));
            }
            Command::Users => return Ok(Reply::Lines(users.names())),
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
            _ => return Err(ErrorCode::UnknownCommand), // version 1.1
        }
        Ok(Reply::Done)
    }

    fn authenticate(&mut self, name: &str, password: &str, link: &impl Link) -> Result<(), ErrorCode> {
        let attempt = self.limits.attempt(name.as_bytes(), Some(password.as_bytes())).map_err(|why| {
            let reason = match why {
                AttemptRefused::Penalty(penalty) => AdminReason::Penalty(penalty),
                AttemptRefused::Busy => AdminReason::Busy,
            };
            self.emit(What::AdminRefused { name, reason: &reason });
            ErrorCode::TooMany
        })?;
        let admin = Arc::clone(&self.shared.settings().admin);
        let reason = if !admin.credentials.match_with(name.as_bytes(), password.as_bytes()) {
            AdminReason::Credentials
        } else if let Some(why) = self.is_refused_to_the_client(&admin, link) {
            AdminReason::NotRoot(why)
        } else {
            self.limits.succeeded(attempt);
            self.authenticated = true;
            self.emit(What::AdminLogin { name });
            return Ok(());
        };
        self.emit(What::AdminRefused { name, reason: &reason });
        if let Some(penalty) = self.limits.failed(attempt) {
            self.emit(What::Penalty { penalty });
        }
        Err(ErrorCode::WrongCredentials)
    }

    /// Why this client may not be the admin in spite of the right password.
    fn is_refused_to_the_client(&self, admin: &Admin, link: &impl Link) -> Option<String> {
        if !admin.is_roots {
            return None;
        }
        match link.client_user() {
            Ok(0) => None,
            Ok(user) => Some(format!("the client belongs to user {user}")),
            Err(error) => Some(format!("the client's user cannot be determined: {error}")),
        }
    }

    fn unchanged(&self, why: Unchanged) -> ErrorCode {
        match why {
            Unchanged::Exists => ErrorCode::UserExists,
            Unchanged::Missing => ErrorCode::NoSuchUser,
            Unchanged::File(error) => {
                log::error!("{} the users file cannot be changed: {error}", self.client);
                ErrorCode::UsersNotWritten
            }
        }
    }

    fn log_change(&self, change: std::fmt::Arguments<'_>) {
        self.emit(What::AdminChange { change });
    }

    fn emit(&self, what: What<'_>) {
        self.shared.events.emit(self.client, what);
    }
}

/// The lines of `cap?`: every authentication command, every command that takes an integer with its range, and every
/// command beyond the protocol's table, of which there are none.
fn capabilities() -> Vec<String> {
    let range = |command: &str, (low, high): (u64, u64)| format!("{command}{low}-{high}");
    vec!["a".to_owned(), range("c=", MAX_CONNECTIONS_RANGE), range("t=", TIMEOUT_RANGE)]
}

fn in_range(value: i64, (low, high): (u64, u64)) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| (low..=high).contains(value))
}
