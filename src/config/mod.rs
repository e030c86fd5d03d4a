//! Configuration: turns the operator's flags and files into what the server needs.
//!
//! - [`Task`] is what the program is asked to do: serve, check, or print settings, a password's hash or the manual.
//! - [`Args`] has every flag with its default and its limits, declared once with clap, in `args` and in a file for each
//!   topic. A configuration file (`file`) is converted to flags.
//! - [`Config`] is the result: checked, with files opened (`resolve`). [`ConfigError`] and [`UsageError`] say what is
//!   wrong.
//! - [`Rereading`] reads all of this again while the server runs (`again`).
//!
//! `bin/pop3d.rs` reads a [`Task`] and passes the [`Config`] to [`crate::server`].

mod accounts;
mod admin;
mod again;
mod args;
mod busy;
mod check;
mod command_line;
mod confinement;
mod deletes;
mod error;
mod every;
mod expiry;
mod faults;
mod file;
mod health;
mod in_force;
mod limits;
mod maildirs;
mod peep_socket;
mod ports;
mod proxies;
mod resolve;
mod show;
mod state;
#[cfg(test)]
mod tests;
mod tls;
mod transforms;

pub use accounts::kinds;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::auth::Users;
use crate::faults::Faults;
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
pub use every::Maildrops;
pub use file::{Fault, FileError, is_number, keys};
pub use health::health;
pub use ports::{Endpoint, Ports};
pub use show::fixed;

/// The description of the program in its help.
const ABOUT: &str = "A POP3 server for directories of mail";

/// A server's configuration, checked.
#[derive(Debug)]
pub struct Config {
    /// The accounts.
    pub users: Users,
    /// The settings that sessions use.
    pub settings: Settings,
    /// The most connections at once.
    pub max_connections: usize,
    /// The addresses and ports to listen on.
    pub ports: Ports,
    /// The limits by address.
    pub limits: Limits,
    /// The state directory.
    pub state: Option<Arc<StateDir>>,
    /// The statistics log.
    pub stats_log: Option<StatsLog>,
    /// Where metrics are served over HTTP, if they are.
    pub metrics: Option<SocketAddr>,
    /// The faults to begin with; `None` if faults are not allowed.
    pub faults: Option<Faults>,
}

impl Config {
    /// Returns what the sessions of a server with this configuration share.
    #[must_use]
    pub fn into_shared(self) -> Shared {
        let mut shared = Shared::new(self.settings, self.users, self.max_connections, self.limits);
        shared.faults = self.faults;
        shared
    }
}
