//! Accounts of the kind `sql`.

use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::common::Common;
use super::{ConfigError, Uses};
use crate::auth::{AccountSource, Hidden, SqlSettings};
use crate::span::span;

/// The keys of a database of accounts.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(in crate::config) struct SqlArgs {
    /// Where the database is: sqlite:/PATH, postgres://USER@HOST/DATABASE or mysql://USER@HOST/DATABASE
    #[arg(long, value_name = "URL_WITH_PASSWORD", required = true, value_parser = hidden)]
    url: Hidden<String>,

    /// The file with the password of the database's user, so that it is not in the URL
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// When to use TLS to the database; remote stands for databases on other machines
    #[arg(long, value_name = "WHEN", default_value = "remote")]
    tls: Tls,

    /// The file with the certificates (PEM) that are trusted, instead of the system's authorities
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// The query for an account, with the parameters :user, :name, :domain and :address
    #[arg(long, value_name = "SQL", required = true)]
    query: String,

    /// The statement to run after each login, with the same parameters
    #[arg(long, value_name = "SQL")]
    login_statement: Option<String>,

    /// The statement that adds an account for PEEP, with :user, :name, :domain and :password, which is a hash
    #[arg(long, value_name = "SQL")]
    add_statement: Option<String>,

    /// The statement that deletes an account for PEEP, with :user, :name and :domain
    #[arg(long, value_name = "SQL")]
    remove_statement: Option<String>,

    /// The query for the names of all accounts, without parameters
    #[arg(long, value_name = "SQL")]
    names_statement: Option<String>,

    /// How long a connection to the database may take
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = span)]
    connect_timeout: Duration,

    #[command(flatten)]
    common: Common,
}

fn hidden(text: &str) -> Result<Hidden<String>, Infallible> {
    Ok(Hidden(text.to_owned()))
}

/// When TLS is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Tls {
    On,
    Off,
    Remote,
}

impl SqlArgs {
    /// Opens the source. The database is not asked yet.
    pub(super) fn open(&self) -> Result<AccountSource, ConfigError> {
        let password = self.password_file.as_ref().map(|path| {
            let text = fs::read_to_string(path);
            let why = |error| format!("cannot read the password of a database from {}: {error}", path.display());
            let text = text.map_err(|error| ConfigError::AccountSource(why(error)))?;
            Ok(Hidden(text.trim_end_matches(['\r', '\n']).to_owned()))
        });
        let settings = SqlSettings { password: password.transpose()?, ..self.settings() };
        AccountSource::sql(settings, self.common.rules())
            .map_err(|why| ConfigError::AccountSource(format!("an account source of the kind sql: {why}")))
    }

    /// The settings without the password.
    fn settings(&self) -> SqlSettings {
        SqlSettings {
            url: self.url.clone(),
            password: None,
            tls: match self.tls {
                Tls::On => Some(true),
                Tls::Off => Some(false),
                Tls::Remote => None,
            },
            tls_ca: self.tls_ca.clone(),
            query: self.query.clone(),
            login_statement: self.login_statement.clone(),
            add_statement: self.add_statement.clone(),
            remove_statement: self.remove_statement.clone(),
            names_statement: self.names_statement.clone(),
            connect_timeout: self.connect_timeout,
        }
    }

    /// What the source uses while the server runs.
    pub(super) fn uses(&self) -> Uses {
        let read = self.password_file.iter().chain(&self.tls_ca).cloned().collect();
        Uses { read, database: Some(self.settings().reach()), ..Uses::default() }
    }
}
