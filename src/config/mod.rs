//! Configuration: from what the operator typed to what the server needs.
//!
//! - [`Task`] is what the program was asked to do: serve, or print settings, a check, a password's hash, the manual.
//! - [`Args`] has every flag with its default and its limits, declared once with clap. `args` and the files of one topic
//!   each declare them. A configuration file (`file`) is turned into the flags that it stands for.
//! - [`Config`] is the result: checked, with files opened. [`ConfigError`] and [`UsageError`] say what is wrong.
//!
//! `bin/pop3d.rs` reads a [`Task`] and passes the [`Config`] to [`crate::server`].

mod accounts;
mod admin;
mod args;
mod check;
mod command_line;
mod confinement;
mod error;
mod file;
mod limits;
mod show;
mod state;
#[cfg(test)]
mod tests;
mod tls;

use std::net::IpAddr;
use std::sync::Arc;

use rustix::process::geteuid;

use crate::auth::Users;
use crate::connections::MAX_CONNECTIONS;
use crate::guard::Limits;
use crate::maildrop::{Layouts, MailRoot};
use crate::net::ListenAddress;
use crate::settings::{Admin, Settings};
use crate::shared::Shared;
use crate::state::StateDir;
use crate::stats::StatsLog;
use accounts::Account;
use args::seconds;
pub use args::{Args, LogConfig};
pub use check::check;
pub use command_line::{Task, UsageError, command};
pub use error::ConfigError;
pub use file::{Fault, FileError, is_number, keys};

/// What the program is, for its help.
const ABOUT: &str = "A POP3 server for directories of mail";

/// A server's configuration, checked.
#[derive(Debug)]
pub struct Config {
    /// The accounts.
    pub users: Users,
    /// What sessions look up.
    pub settings: Settings,
    /// Nobody has set another admin than root:root.
    pub has_default_admin: bool,
    /// The most connections at once.
    pub max_connections: usize,
    /// Where POP3 is served.
    pub pop3: Endpoint,
    /// Where POP3 is served by TLS from the first octet on.
    pub pop3s: Option<Endpoint>,
    /// Where PEEP is served.
    pub peep: Endpoint,
    /// PEEP goes by TLS.
    pub peep_tls: bool,
    /// What an address is allowed.
    pub limits: Limits,
    /// What outlives the server.
    pub state: Option<StateDir>,
    /// The log of counters.
    pub stats_log: Option<StatsLog>,
}

impl Config {
    /// What the sessions of a server so configured share at its start.
    #[must_use]
    pub fn into_shared(self) -> Shared {
        Shared::new(self.settings, self.users, self.max_connections, self.limits)
    }
}

/// Addresses and a port.
#[derive(Debug)]
pub struct Endpoint {
    /// At least one.
    pub addresses: Vec<ListenAddress>,
    /// 0 for any free one.
    pub port: u16,
    /// The addresses were asked for, so each has to be there.
    pub required: bool,
}

impl Endpoint {
    fn new(asked: Vec<ListenAddress>, default: [IpAddr; 2], port: u16) -> Self {
        let required = !asked.is_empty();
        Self { addresses: if required { asked } else { default.map(ListenAddress::from).to_vec() }, port, required }
    }
}

impl Args {
    /// Opens what the server needs.
    ///
    /// # Errors
    /// [`ConfigError`], of what is not there or not as it has to be.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let admin = self.admin.read()?;
        self.check_admin(admin.is_default)?;
        // Everybody knows the default admin, who could make root serve any file of this machine as mail.
        let is_roots = admin.is_default && !self.confinement.becomes_user() && geteuid().is_root();
        let transform = self.transform()?;
        let (pop3, pop3s, peep) = (self.pop3_endpoint(), self.pop3s_endpoint(), self.peep_endpoint());
        let state =
            self.state.state.map(|path| StateDir::open(path.clone()).map_err(|error| ConfigError::State(path, error)));
        let state = state.transpose()?;
        let file = self.accounts.users_file;
        let mut users =
            Users::open(file.clone()).map_err(|error| ConfigError::UsersFile(file.unwrap_or_default(), error))?;
        if let Some(state) = &state {
            users.keep_salts(state).map_err(|error| ConfigError::State(state.path().to_owned(), error))?;
        }
        for Account { name, password } in self.users {
            users.add_own(name, password.0.as_bytes());
        }
        let mail_root = MailRoot::with_layouts(self.mailbox.clone(), Arc::new(Layouts::new(self.layout)))
            .map_err(|error| ConfigError::MailRoot(self.mailbox, error))?;
        Ok(Config {
            users,
            settings: Settings {
                mail_root: Arc::new(mail_root),
                timeout: seconds(self.timeout),
                min_rate: self.limits.min_rate(),
                admin: Arc::new(Admin { credentials: admin.credentials, is_roots }),
                transform: transform.map(Arc::new),
                certificate: self.tls.certificate(state.as_ref())?.map(Arc::new),
                allow_cleartext: self.tls.allow_cleartext,
            },
            has_default_admin: admin.is_default,
            max_connections: usize::try_from(self.max_connections).unwrap_or(MAX_CONNECTIONS),
            pop3,
            pop3s,
            peep,
            peep_tls: self.tls.peep_tls,
            state,
            limits: self.limits.limits(),
            stats_log: self.state.stats_log.map(|log| StatsLog::new(log.path, log.interval)),
        })
    }
}
