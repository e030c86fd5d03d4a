//! Configuration: from what the operator typed to what the server needs.
//!
//! - [`Task`] is what the program was asked to do: serve, or print settings, a check, a password's hash, the manual.
//! - [`Args`] has every flag with its default and its limits, declared once with clap. `args` and the files of one topic
//!   each declare them. A configuration file (`file`) is turned into the flags that it stands for.
//! - [`Config`] is the result: checked, with files opened (`resolve`). [`ConfigError`] and [`UsageError`] say what is
//!   wrong.
//! - [`Rereading`] reads all that again while the server runs (`again`).
//!
//! `bin/pop3d.rs` reads a [`Task`] and passes the [`Config`] to [`crate::server`].

mod accounts;
mod admin;
mod again;
mod args;
mod check;
mod command_line;
mod confinement;
mod error;
mod file;
mod limits;
mod ports;
mod resolve;
mod show;
mod state;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::auth::Users;
use crate::guard::Limits;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::state::StateDir;
use crate::stats::StatsLog;
pub use again::{Next, Refused, Rereading, Running};
pub use args::{Args, LogConfig, NEEDS_RESTART};
pub use check::check;
pub use command_line::{Task, UsageError, command};
pub use error::ConfigError;
pub use file::{Fault, FileError, is_number, keys};
pub use ports::{Endpoint, Ports};
pub use show::fixed;

/// What the program is, for its help.
const ABOUT: &str = "A POP3 server for directories of mail";

/// A server's configuration, checked.
#[derive(Debug)]
pub struct Config {
    /// The accounts.
    pub users: Users,
    /// What sessions look up.
    pub settings: Settings,
    /// The most connections at once.
    pub max_connections: usize,
    /// What is served where.
    pub ports: Ports,
    /// What an address is allowed.
    pub limits: Limits,
    /// What outlives the server.
    pub state: Option<Arc<StateDir>>,
    /// The log of counters.
    pub stats_log: Option<StatsLog>,
    /// Where metrics are served over HTTP, if they are.
    pub metrics: Option<SocketAddr>,
}

impl Config {
    /// What the sessions of a server so configured share at its start.
    #[must_use]
    pub fn into_shared(self) -> Shared {
        Shared::new(self.settings, self.users, self.max_connections, self.limits)
    }
}
