//! Accounts of the kind `separate-users-file`.

use std::path::{self, PathBuf};

use super::common::Limits;
use super::{ConfigError, Users};
use crate::auth::AccountSource;

/// The keys of a users file that a process of its own reads.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(in crate::config) struct SeparateUsersFileArgs {
    /// The file. It may be one that only root can read
    #[arg(long, value_name = "FILE", required = true)]
    file: PathBuf,

    #[command(flatten)]
    limits: Limits,
}

impl SeparateUsersFileArgs {
    /// Makes the source. Its process is started later.
    pub(super) fn open(&self, running: &Users) -> Result<AccountSource, ConfigError> {
        if running.is_serving() {
            return Err(ConfigError::ProcessAfterStart);
        }
        // The process has another working directory.
        let path = path::absolute(&self.file).map_err(|error| ConfigError::UsersFile(self.file.clone(), error))?;
        Ok(AccountSource::separate_file(path, self.limits.rules()))
    }
}
