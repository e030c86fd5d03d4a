//! Reads the configuration again while the server runs. This module only opens and checks everything that has changed. The
//! caller applies it afterwards, so a configuration that cannot be used changes nothing.
//!
//! PEEP may have changed a setting. The new configuration overrides it only if it differs from the configuration that was
//! read last.
//!
//! A server that has become another user, or that is confined, may lack the permission to open a file or port again. That
//! is not an error of the configuration: the server keeps what it has open, and reports that the setting needs a restart.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::sync::Arc;

use log::LevelFilter;

use super::accounts::Account;
use super::{Args, ConfigError, FileError, Ports, Task, UsageError};
use crate::auth::{AccountSource, NameRules, UserName, Users};
use crate::guard::Limits;
use crate::maildrop::MailRoot;
use crate::net::Certificates;
use crate::settings::{Admin, Settings};
use crate::state::StateDir;
use crate::stats::StatsLog;
use crate::transform::Transform;

/// A configuration that can be read again.
#[derive(Debug)]
pub struct Rereading {
    /// The command line, of which the first word is the program's name.
    typed: Vec<OsString>,
    started: Args,
    last: Args,
}

/// The parts of the running server that a new configuration may keep.
#[derive(Debug)]
pub struct Running<'a> {
    /// The settings in force.
    pub settings: &'a Settings,
    /// The accounts.
    pub users: &'a Users,
    /// The state directory.
    pub state: Option<&'a StateDir>,
}

/// A configuration that was read again and can be applied.
#[derive(Debug)]
pub struct Next {
    args: Args,
    /// The settings that sessions use.
    pub settings: Settings,
    has_new_mail_root: bool,
    has_new_timeout: bool,
    /// The sources of accounts that the configuration names.
    pub sources: Vec<AccountSource>,
    /// The users of the configuration as it was read last, and as it is now.
    pub own_users: [Vec<(UserName, String)>; 2],
    /// How clients' names become users' names.
    pub name_rules: NameRules,
    /// The limits by address.
    pub limits: Limits,
    /// The most connections at once, if that has changed.
    pub max_connections: Option<usize>,
    /// The least severe level that is logged, if that has changed.
    pub level: Option<LevelFilter>,
    /// The statistics log, if that has changed.
    pub stats_log: Option<Option<StatsLog>>,
    /// The addresses and ports to listen on.
    pub ports: Ports,
    /// The server may have lost the right to bind some ports.
    pub gave_up_rights: bool,
    /// The names of changed settings that only a restart applies.
    pub needs_restart: BTreeSet<&'static str>,
}

/// Why a configuration cannot be used.
pub type Refused = Box<dyn std::error::Error>;

impl Rereading {
    /// Notes the configuration with which this command line has started the server.
    #[must_use]
    pub fn new(typed: Vec<OsString>, started: Args) -> Self {
        Self { typed, last: started.clone(), started }
    }

    /// Reads the configuration again, and opens the files and ports that have changed.
    ///
    /// # Errors
    /// [`UsageError`] or [`ConfigError`], and errors of files.
    pub fn read(&self, running: &Running<'_>) -> Result<Next, Refused> {
        let mut needs_restart = BTreeSet::new();
        let mut args = match Task::parse(self.typed.clone()) {
            Ok(Task::Serve(args)) => *args,
            Ok(_) => return Err("the command line is not that of a server".into()),
            Err(UsageError::File(FileError::Unreadable(_, error))) if self.is_denied(error.kind()) => {
                needs_restart.insert("config");
                self.last.clone()
            }
            Err(error) => return Err(error.into()),
        };
        needs_restart.extend(args.keep_fixed(&self.started));
        Opening { configuration: self, running, args, needs_restart }.open()
    }

    /// Notes that the configuration has been applied. The next one is compared with it.
    pub fn set_applied(&mut self, next: Next) {
        self.last = next.args;
    }

    /// Returns true if an error is due to rights that the server has given up at its start.
    fn is_denied(&self, error: io::ErrorKind) -> bool {
        error == io::ErrorKind::PermissionDenied && self.started.confinement.gives_up_rights()
    }
}

/// A configuration whose files are being opened. If the server is no longer allowed to open one, it keeps what it has open.
/// The setting keeps its last value, so that the next reload tries it again.
struct Opening<'a> {
    configuration: &'a Rereading,
    running: &'a Running<'a>,
    args: Args,
    needs_restart: BTreeSet<&'static str>,
}

impl Opening<'_> {
    fn open(mut self) -> Result<Next, Refused> {
        let admin = self.admin()?;
        let mail_root = self.mail_root()?;
        let certificates = self.certificates()?;
        let sources = self.sources()?;
        let transform = self.transform()?;
        let stats_log = self.stats_log();
        let Self { configuration: Rereading { last, started, .. }, running, args, needs_restart } = self;
        Ok(Next {
            has_new_mail_root: !Arc::ptr_eq(&mail_root, &running.settings.mail_root),
            has_new_timeout: args.timeout != last.timeout,
            settings: args.settings(mail_root, admin, transform, certificates),
            sources,
            own_users: [own_users(last), own_users(&args)],
            name_rules: args.name_rules(),
            limits: args.limits.limits(),
            max_connections: (args.max_connections != last.max_connections).then(|| args.max_connections()),
            level: (args.log().level != last.log().level).then(|| args.log().level),
            stats_log,
            ports: args.ports(),
            gave_up_rights: started.confinement.gives_up_rights(),
            needs_restart,
            args,
        })
    }

    /// Passes over an error that says that the server may not open something any more, and notes the settings.
    fn pass_over(&mut self, names: &[&'static str], error: ConfigError) -> Result<(), ConfigError> {
        if !error.kind().is_some_and(|kind| self.configuration.is_denied(kind)) {
            return Err(error);
        }
        log::error!("{error}; that needs a restart, because this server is no longer allowed to open it");
        self.needs_restart.extend(names);
        Ok(())
    }

    fn admin(&mut self) -> Result<Arc<Admin>, ConfigError> {
        self.args.open_admin().map(Arc::new).or_else(|error| {
            self.pass_over(&["peep-admin-file"], error)?;
            Ok(Arc::clone(&self.running.settings.admin))
        })
    }

    fn mail_root(&mut self) -> Result<Arc<MailRoot>, ConfigError> {
        let last = &self.configuration.last;
        let present = &self.running.settings.mail_root;
        let has_moved = self.args.mailbox != last.mailbox;
        let rules = |args: &Args| {
            let Args { layout, unique_ids, dovecot_uidl_format, maildirs, expiry, deletes, .. } = args.clone();
            (layout, unique_ids, dovecot_uidl_format, maildirs, expiry, deletes)
        };
        if !has_moved && rules(&self.args) == rules(last) {
            return Ok(Arc::clone(present));
        }
        // PEEP may have moved it elsewhere.
        let path = if has_moved { self.args.mailbox.clone() } else { present.path().to_owned() };
        self.args.open_mail_root(path).map(Arc::new).or_else(|error| {
            self.pass_over(&["mailbox"], error)?;
            self.args.mailbox.clone_from(&last.mailbox);
            let args = &mut self.args;
            (args.layout, args.unique_ids, args.dovecot_uidl_format, args.maildirs, args.expiry, args.deletes) =
                rules(last);
            Ok(Arc::clone(present))
        })
    }

    fn certificates(&mut self) -> Result<Option<Arc<Certificates>>, ConfigError> {
        let (last, present) = (&self.configuration.last.tls, &self.running.settings.certificates);
        if present.is_some() && self.args.tls.keeps_that_of_this_run(last, self.running.state) {
            return Ok(present.clone());
        }
        self.args.tls.certificates(self.running.state).map(|opened| opened.map(Arc::new)).or_else(|error| {
            self.pass_over(&["tls-cert", "tls-key"], error)?;
            if present.is_none() {
                self.args.tls.clone_from(last); // or ports would need TLS that is not there
            }
            Ok(present.clone())
        })
    }

    fn sources(&mut self) -> Result<Vec<AccountSource>, ConfigError> {
        let opened = self.args.open_sources(self.running.users).and_then(|sources| {
            check_new(&sources, self.running.users)?;
            Ok(sources)
        });
        opened.or_else(|error| {
            self.pass_over(&["users"], error)?;
            let last = &self.configuration.last.accounts;
            self.args.accounts.users_file.clone_from(&last.users_file);
            self.args.accounts.accounts.clone_from(&last.accounts);
            Ok(self.running.users.sources())
        })
    }

    /// The transform. One whose program is not there is told of by its start, as at the server's.
    fn transform(&mut self) -> Result<Option<Arc<Transform>>, ConfigError> {
        let transform = self.args.transform()?;
        match transform.as_ref().and_then(|transform| transform.program().ok()).map(File::open) {
            Some(Err(error)) if self.configuration.is_denied(error.kind()) => {
                self.needs_restart.insert("transform");
                Ok(self.running.settings.transform.clone())
            }
            _ => Ok(transform.map(Arc::new)),
        }
    }

    /// The log of counters, if that has changed. One that cannot be written is told of when a line is due.
    fn stats_log(&mut self) -> Option<Option<StatsLog>> {
        let last = &self.configuration.last.state.stats_log;
        if self.args.state.stats_log == *last {
            return None;
        }
        let log = self.args.stats_log();
        match log.as_ref().map(StatsLog::try_open) {
            Some(Err(error)) if self.configuration.is_denied(error.kind()) => {
                self.needs_restart.insert("stats-log");
                self.args.state.stats_log.clone_from(last);
                None
            }
            _ => Some(log),
        }
    }
}

impl Next {
    /// Changes the settings in force to those of this configuration, except for those that PEEP has changed and the
    /// configuration has not.
    pub fn apply_to(&self, settings: &mut Settings) {
        let mut new = self.settings.clone();
        if !self.has_new_mail_root {
            new.mail_root = Arc::clone(&settings.mail_root);
        }
        if !self.has_new_timeout {
            new.timeout = settings.timeout;
        }
        *settings = new;
    }
}

/// Checks the sources that are not in force yet, and logs the warnings.
fn check_new(sources: &[AccountSource], running: &Users) -> Result<(), ConfigError> {
    for source in sources.iter().filter(|source| !running.has(source)) {
        let warnings = source.check().map_err(ConfigError::AccountSource)?;
        warnings.iter().for_each(|warning| log::warn!("accounts: {warning}"));
    }
    Ok(())
}

fn own_users(args: &Args) -> Vec<(UserName, String)> {
    args.users.iter().map(|Account { name, password }| (name.clone(), password.0.clone())).collect()
}
