//! The flags of accounts, and the table `[[accounts]]` of the configuration file, which declares account sources.
//!
//! - [`AccountsArgs`] has the flags. [`AccountsArgs::open`] opens the sources in the order in which they are asked.
//! - [`Kind`] is one source of the list: an enum with a struct for each kind, in a file of its own. A field is a key of the
//!   table; it is declared with clap as flags are, so key, default, limits and help are written once.
//! - [`Table`] is the text of one source (`table`). [`common::Common`] has the keys that several kinds have.
//!
//! A new kind takes a struct with its keys, a variant of [`Kind`], its branch in [`Kind::open`], and a sample in
//! `src/config/command_line/tests.rs`; the manual's table of its keys is compared with it by a test.

mod common;
mod pam;
mod program;
mod separate_users_file;
mod sql;
mod table;
mod users_file;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::ConfigError;
use crate::auth::{AccountSource, Hidden, SqlReach, UserName, Users};
use pam::PamArgs;
pub(super) use program::Fence;
use program::ProgramArgs;
use separate_users_file::SeparateUsersFileArgs;
use sql::SqlArgs;
pub use table::kinds;
pub(super) use table::{Table, in_file, shown};
use users_file::UsersFileArgs;

/// The flags for the users file and for user names.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Accounts")]
pub(super) struct AccountsArgs {
    /// Read users from this file, one NAME:{SCHEME}HASH per line as in Dovecot's passwd-file; PEEP adds and deletes users in it
    #[arg(long = "users", value_name = "FILE")]
    pub(super) users_file: Option<PathBuf>,

    /// Ask this account source, too, given as the keys and values of a table `[[accounts]]` of the configuration file; can be
    /// repeated. The accounts of --user come first, then those of --users, then the sources in their order
    #[arg(long, value_name = "SETTINGS")]
    pub(super) accounts: Vec<Table>,

    /// Convert the user names that clients send to lower case before they are looked up
    #[arg(long)]
    pub(super) lower_case_names: bool,

    /// Append @DOMAIN to a user name without '@' before it is looked up
    #[arg(long, value_name = "DOMAIN")]
    pub(super) default_domain: Option<String>,
}

/// The kinds of account sources, each with the keys that its table has.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub(super) enum Kind {
    /// A users file; without `file` that of --users, which is asked here instead of before all other sources
    UsersFile(UsersFileArgs),
    /// A users file that the server itself does not read; a process of its own does, with the rights that the server gives up
    SeparateUsersFile(SeparateUsersFileArgs),
    /// A database: SQLite, PostgreSQL, MariaDB or MySQL
    Sql(Box<SqlArgs>),
    /// The accounts that PAM knows, such as those of the system
    Pam(PamArgs),
    /// A program with the interface of checkpassword
    Program(ProgramArgs),
}

/// What a source uses while the server runs, so that the confinement can allow it.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Files that are read again and replaced.
    pub(super) written: Vec<PathBuf>,
    /// Files that are read again.
    pub(super) read: Vec<PathBuf>,
    /// What a database needs.
    pub(super) database: Option<SqlReach>,
    /// Programs that are run, and files that they read.
    pub(super) programs: Vec<PathBuf>,
    /// True if its programs use the network.
    pub(super) network: bool,
}

impl Kind {
    /// Opens the source. `running` has the sources that are in force.
    fn open(&self, users_file: Option<&Path>, running: &Users, fence: Fence) -> Result<AccountSource, ConfigError> {
        match self {
            Self::UsersFile(keys) => keys.open(users_file, running),
            Self::SeparateUsersFile(keys) => keys.open(running),
            Self::Sql(keys) => keys.open(),
            Self::Pam(keys) => keys.open(running),
            Self::Program(keys) => keys.open(fence),
        }
    }

    /// What the source uses while the server runs.
    fn uses(&self) -> Uses {
        match self {
            Self::UsersFile(keys) => {
                Uses { written: keys.file().map(Path::to_owned).into_iter().collect(), ..Uses::default() }
            }
            Self::Sql(keys) => keys.uses(),
            Self::Program(keys) => keys.uses(),
            // Their processes are started before the confinement.
            Self::Pam(_) | Self::SeparateUsersFile(_) => Uses::default(),
        }
    }

    /// Logs what an operator should know of the source before it is used.
    fn warn(&self) {
        if let Self::Pam(keys) = self {
            keys.warn();
        }
    }

    fn is_place_of_users_file(&self) -> bool {
        matches!(self, Self::UsersFile(keys) if keys.file().is_none())
    }
}

impl AccountsArgs {
    /// Checks that the users file has one place at the most.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let places = self.accounts.iter().filter(|table| table.kind.is_place_of_users_file()).count();
        match (&self.users_file, places) {
            (_, 0) | (Some(_), 1) => Ok(()),
            (None, _) => Err(ConfigError::NoUsersFile),
            (Some(_), _) => Err(ConfigError::UsersFileTwice),
        }
    }

    /// Opens the sources in the order in which they are asked. `running` has those that are in force: a source whose table
    /// has not changed is kept.
    pub(super) fn open(&self, running: &Users, fence: Fence) -> Result<Vec<AccountSource>, ConfigError> {
        let file = self.users_file.as_deref();
        let has_place = self.accounts.iter().any(|table| table.kind.is_place_of_users_file());
        let first = file.filter(|_| !has_place).map(|path| users_file::read(path, running));
        let listed = self.accounts.iter().map(|table| match running.source(table.text()) {
            Some(kept) if !matches!(table.kind, Kind::UsersFile(_)) => Ok(kept),
            _ => Ok(table.kind.open(file, running, fence)?.declared_by(table.text())),
        });
        first.into_iter().chain(listed).collect()
    }

    /// Logs what an operator should know of the sources before they are used.
    pub(super) fn warn(&self) {
        self.accounts.iter().for_each(|table| table.kind.warn());
    }

    /// The files that the sources read again, each with the flag that names it.
    pub(super) fn read(&self) -> Vec<(&'static str, PathBuf)> {
        self.accounts.iter().flat_map(|table| table.kind.uses().read).map(|file| ("--accounts", file)).collect()
    }

    /// What the databases need.
    pub(super) fn databases(&self) -> Vec<SqlReach> {
        self.accounts.iter().filter_map(|table| table.kind.uses().database).collect()
    }

    /// The programs that the sources run, and the files that these read.
    pub(super) fn programs(&self) -> Vec<PathBuf> {
        self.accounts.iter().flat_map(|table| table.kind.uses().programs).collect()
    }

    /// Returns true if a program of a source uses the network.
    pub(super) fn use_network(&self) -> bool {
        self.accounts.iter().any(|table| table.kind.uses().network)
    }

    /// The files that the sources read again and replace, each with the flag that names it.
    pub(super) fn written(&self) -> Vec<(&'static str, PathBuf)> {
        let listed = self.accounts.iter().flat_map(|table| table.kind.uses().written);
        let listed = listed.map(|file| ("--accounts", file));
        self.users_file.clone().map(|file| ("--users", file)).into_iter().chain(listed).collect()
    }
}

/// A name and a password, in the form `NAME:PASSWORD`.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: UserName,
    pub(super) password: Hidden<String>,
}

impl FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, password) = text.split_once(':').ok_or("it has to have the form NAME:PASSWORD")?;
        let name = name.parse().map_err(|error| format!("{error}"))?;
        if password.is_empty() {
            return Err("the password is empty".to_owned());
        }
        if password.contains(['\r', '\n', '\0']) {
            return Err("a password cannot contain a line end or a NUL".to_owned());
        }
        Ok(Self { name, password: Hidden(password.to_owned()) })
    }
}
