//! The flags of PEEP's admin.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::accounts::Account;
use crate::auth::Credentials;
use crate::owner;
use crate::peep::is_argument;

/// The admin if the operator does not set one. It can only be used on loopback.
pub(super) const DEFAULT_ADMIN: &str = "root:root";

/// The flags for the admin.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct AdminArgs {
    /// The name and password of the admin, who may log in by PEEP; a hash from `pop3d passwd` can replace the password
    #[arg(short = 'a', long, value_name = "NAME:PASSWORD", default_value = DEFAULT_ADMIN, value_parser = admin)]
    peep_admin: Account,

    /// Read the admin's NAME:PASSWORD from the first line of this file, which keeps it out of the list of processes
    #[arg(long, value_name = "FILE", conflicts_with = "peep_admin")]
    peep_admin_file: Option<PathBuf>,

    /// The name and password of a viewer, who may ask and follow by PEEP but change nothing; can be repeated
    #[arg(long, value_name = "NAME:PASSWORD", value_parser = admin)]
    peep_viewer: Vec<Account>,
}

/// The admin of a server.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) name: String,
    /// The name and password, or hash, that a login is checked against.
    pub(super) credentials: Credentials,
    /// True if the admin is [`DEFAULT_ADMIN`].
    pub(super) is_default: bool,
    /// What each viewer has to know to log in.
    pub(super) viewers: Vec<Credentials>,
}

impl AdminArgs {
    /// Returns the file that a reload reads again, with its flag.
    pub(super) fn file(&self) -> Option<(&'static str, PathBuf)> {
        self.peep_admin_file.clone().map(|file| ("--peep-admin-file", file))
    }

    /// Returns true if the flags name no other admin than [`DEFAULT_ADMIN`]. Does not read the file.
    pub(super) fn are_at_default(&self) -> bool {
        self.peep_admin_file.is_none() && is_default(&self.peep_admin)
    }

    /// Returns the admin; reads the file if there is one.
    pub(super) fn read(&self) -> Result<Admin, ConfigError> {
        let account = match &self.peep_admin_file {
            None => self.peep_admin.clone(),
            Some(path) => {
                let text = read(path).map_err(|error| ConfigError::AdminFile(path.clone(), error))?;
                let first = text.lines().next().unwrap_or_default();
                admin(first).map_err(|error| ConfigError::Admin(format!("{}: {error}", path.display())))?
            }
        };
        let is_default = is_default(&account);
        let credentials = |Account { name, password }: &Account| {
            Credentials::new(name.as_str(), &password.0).map_err(|error| ConfigError::Admin(error.to_string()))
        };
        if self.peep_viewer.iter().any(|viewer| viewer.name == account.name) {
            return Err(ConfigError::ViewerIsAdmin(account.name.to_string()));
        }
        let viewers = self.peep_viewer.iter().map(credentials).collect::<Result<_, _>>()?;
        Ok(Admin { name: account.name.to_string(), credentials: credentials(&account)?, is_default, viewers })
    }
}

fn is_default(Account { name, password }: &Account) -> bool {
    format!("{name}:{}", password.0) == DEFAULT_ADMIN
}

fn read(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    owner::warn_of_others(path);
    Ok(text)
}

/// An account that can log in by PEEP. The admin types a password, but never a hash, so only a password has to fit PEEP's
/// grammar. A hash that fits no scheme is reported by [`AdminArgs::read`].
fn admin(text: &str) -> Result<Account, String> {
    let account: Account = text.parse()?;
    let credentials = Credentials::new(account.name.as_str(), &account.password.0);
    if credentials.ok().as_ref().and_then(Credentials::password).is_none_or(is_argument) {
        Ok(account)
    } else {
        Err("PEEP takes a password of 1 to 128 octets, without spaces and control characters".to_owned())
    }
}
