//! The users whose maildrops a task goes through.

use crate::auth::{UserName, Users};
use crate::maildrop::MailRoot;

/// Returns the users who are `named`. Without any, these are all users who have accounts; without accounts, all users who
/// have maildrops below the mail directory.
///
/// # Errors
/// When a name cannot be a user's, or the mail directory cannot be listed.
pub fn users(named: &[String], accounts: &Users, mail_root: &MailRoot) -> Result<Vec<UserName>, String> {
    let named = if named.is_empty() { accounts.names() } else { named.to_vec() };
    if named.is_empty() {
        return mail_root.users().map_err(|error| format!("{}: {error}", mail_root.path().display()));
    }
    let user =
        |name: &String| accounts.user_called(name).ok_or_else(|| format!("{name:?} cannot be the name of a user"));
    named.iter().map(user).collect()
}
