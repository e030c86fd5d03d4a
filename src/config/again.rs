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
use crate::auth::{NameRules, UserName, Users, UsersFile};
use crate::guard::Limits;
use crate::settings::Settings;
use crate::state::StateDir;
use crate::stats::StatsLog;

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
    /// The accounts of the users file.
    pub users_file: UsersFile,
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
        let last = &self.last;

        // A setting that cannot be opened keeps its last value here, so that the next reload tries it again.
        let mut permitted = |names: &[&'static str], error: ConfigError| match error.kind() {
            Some(kind) if self.is_denied(kind) => {
                log::error!("{error}; that needs a restart, because this server is no longer allowed to open it");
                needs_restart.extend(names);
                Ok(())
            }
            _ => Err(error),
        };
        let admin = match args.open_admin() {
            Ok(admin) => Arc::new(admin),
            Err(error) => {
                permitted(&["peep-admin-file"], error)?;
                Arc::clone(&running.settings.admin)
            }
        };
        let has_new_mail_root = args.mailbox != last.mailbox || args.layout != last.layout;
        let mut mail_root = Arc::clone(&running.settings.mail_root);
        if has_new_mail_root {
            let moved = args.mailbox != last.mailbox;
            let path = if moved { args.mailbox.clone() } else { mail_root.path().to_owned() };
            match args.open_mail_root(path) {
                Ok(root) => mail_root = Arc::new(root),
                Err(error) => {
                    permitted(&["mailbox"], error)?;
                    (args.mailbox, args.layout) = (last.mailbox.clone(), last.layout);
                }
            }
        }
        let certificates = match running
            .settings
            .certificates
            .as_ref()
            .filter(|_| args.tls.keeps_that_of_this_run(&last.tls, running.state))
        {
            Some(certificates) => Some(Arc::clone(certificates)),
            None => match args.tls.certificates(running.state) {
                Ok(certificates) => certificates.map(Arc::new),
                Err(error) => {
                    permitted(&["tls-cert", "tls-key"], error)?;
                    if running.settings.certificates.is_none() {
                        args.tls.clone_from(&last.tls);
                    }
                    running.settings.certificates.clone()
                }
            },
        };
        let users_file = match running.users.read_file(args.accounts.users_file.clone()) {
            Ok(file) => file,
            Err(error) => {
                let path = args.accounts.users_file.clone().unwrap_or_default();
                permitted(&["users"], ConfigError::UsersFile(path, error))?;
                args.accounts.users_file.clone_from(&last.accounts.users_file);
                running.users.file()
            }
        };
        let mut transform = args.transform()?;
        if let Some(Err(error)) = transform.as_ref().and_then(|it| it.program().ok()).map(File::open)
            && self.is_denied(error.kind())
        {
            needs_restart.insert("transform");
            transform = running.settings.transform.as_deref().cloned();
        }
        let stats_log = if args.state.stats_log == last.state.stats_log {
            None
        } else {
            let log = args.stats_log();
            match log.as_ref().map(StatsLog::try_open) {
                Some(Err(error)) if self.is_denied(error.kind()) => {
                    needs_restart.insert("stats-log");
                    args.state.stats_log.clone_from(&last.state.stats_log);
                    None
                }
                _ => Some(log),
            }
        };
        Ok(Next {
            settings: args.settings(Arc::clone(&mail_root), admin, transform.map(Arc::new), certificates),
            has_new_mail_root: !Arc::ptr_eq(&mail_root, &running.settings.mail_root),
            has_new_timeout: args.timeout != last.timeout,
            users_file,
            own_users: [own_users(last), own_users(&args)],
            name_rules: args.name_rules(),
            limits: args.limits.limits(),
            max_connections: (args.max_connections != last.max_connections).then(|| args.max_connections()),
            level: (args.log().level != last.log().level).then(|| args.log().level),
            stats_log,
            ports: args.ports(),
            needs_restart,
            args,
        })
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

fn own_users(args: &Args) -> Vec<(UserName, String)> {
    args.users.iter().map(|Account { name, password }| (name.clone(), password.0.clone())).collect()
}
