//! Accounts of the kind `users-file`.

use std::path::{Path, PathBuf};

use super::ConfigError;
use crate::auth::{AccountSource, Users};

/// The keys of a users file.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(in crate::config) struct UsersFileArgs {
    /// The file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl UsersFileArgs {
    /// The file, unless it is that of `--users`.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file, or that of `--users`.
    pub(super) fn open(&self, users_file: Option<&Path>, running: &Users) -> Result<AccountSource, ConfigError> {
        read(self.file().or(users_file).ok_or(ConfigError::NoUsersFile)?, running)
    }
}

/// Reads a users file. One that is a source already keeps what it knows.
pub(super) fn read(path: &Path, running: &Users) -> Result<AccountSource, ConfigError> {
    let file = running.read_file(path).map_err(|error| ConfigError::UsersFile(path.to_owned(), error))?;
    Ok(file.into())
}
