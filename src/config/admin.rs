//! The flags of PEEP's admin.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Account, ConfigError};
use crate::auth::Credentials;
use crate::peep::is_argument;

/// The admin of a server that nobody has set one for; good for loopback only.
pub(super) const DEFAULT_ADMIN: &str = "root:root";

/// Who may log in by PEEP.
#[derive(Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// The admin, who may log in by PEEP; in place of the password a hash may stand, as `pop3d passwd` prints it
    #[arg(short = 'a', long, value_name = "NAME:PASSWORD", default_value = DEFAULT_ADMIN, value_parser = admin)]
    peep_admin: Account,

    /// Read the admin's NAME:PASSWORD from the first line of this file, so that it is not in the list of processes
    #[arg(long, value_name = "FILE", conflicts_with = "peep_admin")]
    peep_admin_file: Option<PathBuf>,
}

impl AdminArgs {
    /// Returns whether nobody has set another admin than [`DEFAULT_ADMIN`].
    pub(super) fn is_default(&self) -> bool {
        let account = self.account();
        account.is_ok_and(|Account { name, password }| format!("{name}:{}", password.0) == DEFAULT_ADMIN)
    }

    /// The admin's name.
    pub(super) fn name(&self) -> Result<String, ConfigError> {
        Ok(self.account()?.name.to_string())
    }

    /// What the admin has to know to log in.
    pub(super) fn credentials(&self) -> Result<Credentials, ConfigError> {
        let Account { name, password } = self.account()?;
        Credentials::new(name.as_str(), &password.0).map_err(|error| ConfigError::Admin(error.to_string()))
    }

    fn account(&self) -> Result<Account, ConfigError> {
        let Some(path) = &self.peep_admin_file else { return Ok(self.peep_admin.clone()) };
        read(path).map_err(|why| ConfigError::Admin(format!("{}: {why}", path.display())))
    }
}

/// The account in a file's first line.
fn read(path: &Path) -> Result<Account, String> {
    let open =
        || -> io::Result<(String, u32)> { Ok((fs::read_to_string(path)?, fs::metadata(path)?.permissions().mode())) };
    let (text, mode) = open().map_err(|error| error.to_string())?;
    if mode & 0o007 != 0 {
        log::warn!("{} can be read or written by others: chmod o= it", path.display());
    }
    admin(text.lines().next().unwrap_or_default())
}

/// An account that can log in by PEEP.
fn admin(text: &str) -> Result<Account, String> {
    let account: Account = text.parse()?;
    if is_argument(&account.password.0) {
        Ok(account)
    } else {
        Err("PEEP takes a password of 1 to 128 octets, without spaces and control characters".to_owned())
    }
}
