//! Accounts: which ones exist, and how a client proves that it may use one.
//!
//! - [`Users`] is the only place where credentials are checked. It asks the account sources in order (`sources`): the
//!   flags, then each [`AccountSource`] of the configuration. `source` says what a source is; `own` and `users_file` are
//!   two. A right login gives a [`Login`].
//! - [`UserName`] is a name that is safe as a directory's name. [`Scheme`] is a way to store a password, [`make_field`]
//!   applies one for `pop3d passwd`. [`Hidden`] keeps passwords out of debug output.
//! - [`Denied`] says why a login failed, [`Unchanged`] why the users file could not be written, [`Abilities`] which
//!   mechanisms every account supports.
//! - [`sasl`] has the exchanges of AUTH; `apop` and `scram` compute those two mechanisms; `verifier` bounds how many
//!   passwords are checked at a time and remembers those that were right. `asked` bounds how many logins ask a source
//!   that is another program at a time, and remembers its answers; `memory` is what both use. `program` is such a
//!   source, and `separate_file` a users file that another process reads.
//!
//! The sessions of [`crate::pop3`] check logins here, those of [`crate::peep`] change accounts.

mod accounts;
mod admin;
mod apop;
mod asked;
mod file;
mod hidden;
mod local_client;
mod location;
mod mailbox;
mod memory;
mod name;
mod name_rules;
mod old_schemes;
mod on_disk;
mod outage;
mod outcome;
mod own;
mod own_expiry;
mod pam;
mod passwd;
mod permits;
mod program;
pub mod sasl;
mod scheme;
mod scram;
mod secret;
mod separate_file;
mod session_limit;
mod source;
mod sources;
mod sql;
mod text;
mod users;
mod users_file;
mod verifier;

pub use admin::Credentials;
pub use apop::timestamp;
pub use asked::AskRules;
pub use hidden::Hidden;
pub use local_client::user_of_local_client;
pub use location::{MailFormat, MailLocation};
pub use mailbox::Mailbox;
pub use name::{InvalidName, UserName};
pub use name_rules::NameRules;
pub use outcome::{Denied, Unchanged, Wrong};
pub use own_expiry::{KeptFor, OwnExpiry};
pub use passwd::{ask_for_password, make_field};
pub use scheme::Scheme;
pub use separate_file::read_users_file_for_server;
pub use session_limit::SessionLimit;
pub use source::Login;
pub use sources::{AccountSource, Known};
pub use sql::{SqlReach, SqlSettings};
pub use users::{Abilities, Said, Trace, Users};
pub use users_file::UsersFile;

/// Random octets from the kernel, which cannot be predicted.
///
/// # Panics
/// When the kernel has no random octets, which does not happen on current versions of Linux.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).expect("the kernel gives random octets");
    octets
}
