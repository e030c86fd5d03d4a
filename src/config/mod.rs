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
use std::time::Duration;

use rustix::process::geteuid;

use crate::auth::{Credentials, Users};
use crate::connections::{Connections, MAX_CONNECTIONS};
use crate::guard::{Guard, Limits, MinRate};
use crate::maildrop::{Layouts, MailRoot};
use crate::net::{Certificate, ListenAddress};
use crate::shared::{Settings, Shared};
use crate::state::StateDir;
use crate::stats::{Stats, StatsLog};
use crate::transform::Transform;
use accounts::Account;
use args::seconds;
pub use args::{Args, LogConfig};
pub use check::check;
pub use command_line::{Task, UsageError, command};
pub use error::ConfigError;
pub use file::{Fault, FileError, is_number, keys};

/// What the program is, for its help.
const ABOUT: &str = "Serves directories of mail over POP3";

/// A server's configuration, checked.
#[derive(Debug)]
pub struct Config {
    /// The accounts.
    pub users: Users,
    /// The admin.
    pub admin: Credentials,
    /// Nobody has set another admin than root:root.
    pub has_default_admin: bool,
    /// Only programs of root may log in as the admin.
    pub admin_is_roots: bool,
    /// The directory of the users' directories.
    pub mail_root: MailRoot,
    /// The program that messages go through, if any.
    pub transform: Option<Transform>,
    /// The autologout timer.
    pub timeout: Option<Duration>,
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
    /// What TLS needs.
    pub certificate: Option<Certificate>,
    /// Passwords may cross the net in clear.
    pub allow_cleartext: bool,
    /// What an address is allowed.
    pub limits: Limits,
    /// The slowest that a client may read.
    pub min_rate: Option<MinRate>,
    /// What outlives the server.
    pub state: Option<StateDir>,
    /// The log of counters.
    pub stats_log: Option<StatsLog>,
}

impl Config {
    /// What the sessions of a server so configured share at its start, and its certificate.
    #[must_use]
    pub fn into_shared(self) -> (Shared, Option<Certificate>) {
        let shared = Shared {
            settings: Settings::new(self.mail_root, self.timeout),
            users: self.users,
            locks: Arc::default(),
            stats: Stats::default(),
            connections: Connections::new(self.max_connections),
            guard: Guard::new(self.limits),
            min_rate: self.min_rate,
            admin: self.admin,
            admin_is_roots: self.admin_is_roots,
            transform: self.transform,
            allow_cleartext: self.allow_cleartext,
        };
        (shared, self.certificate)
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
        let admin_is_roots = admin.is_default && !self.confinement.becomes_user() && geteuid().is_root();
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
        Ok(Config {
            users,
            has_default_admin: admin.is_default,
            admin_is_roots,
            admin: admin.credentials,
            mail_root: MailRoot::with_layouts(self.mailbox.clone(), Arc::new(Layouts::new(self.layout)))
                .map_err(|error| ConfigError::MailRoot(self.mailbox, error))?,
            transform,
            timeout: seconds(self.timeout),
            max_connections: usize::try_from(self.max_connections).unwrap_or(MAX_CONNECTIONS),
            pop3,
            pop3s,
            peep,
            peep_tls: self.tls.peep_tls,
            certificate: self.tls.certificate(state.as_ref())?,
            allow_cleartext: self.tls.allow_cleartext,
            state,
            limits: self.limits.limits(),
            min_rate: self.limits.min_rate(),
            stats_log: self.state.stats_log.map(|log| StatsLog::new(log.path, log.interval)),
        })
    }
}
