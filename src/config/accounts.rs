//! The flags of accounts.

use std::path::PathBuf;
use std::str::FromStr;

use crate::auth::{Hidden, UserName};

/// The flags for the users file and for user names.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Accounts")]
pub(super) struct AccountsArgs {
    /// Read users from this file, one NAME:{SCHEME}HASH per line as in Dovecot's passwd-file; PEEP adds and deletes users in it
    #[arg(long = "users", value_name = "FILE")]
    pub(super) users_file: Option<PathBuf>,

    /// Convert the user names that clients send to lower case before they are looked up
    #[arg(long)]
    pub(super) lower_case_names: bool,

    /// Append @DOMAIN to a user name without '@' before it is looked up
    #[arg(long, value_name = "DOMAIN")]
    pub(super) default_domain: Option<String>,
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
