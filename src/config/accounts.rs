//! The flags of accounts.

use std::path::PathBuf;

/// Where accounts are, beside the command line.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Accounts")]
pub(super) struct AccountsArgs {
    /// A file of users, NAME:{SCHEME}HASH on each line as Dovecot's passwd-file; PEEP adds and deletes users there
    #[arg(long = "users", value_name = "FILE")]
    pub(super) users_file: Option<PathBuf>,
}
