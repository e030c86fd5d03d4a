//! The maildrops that a task goes through, which is not a server.

use std::io;

use crate::acting::{self, ActingAs, Owners};
use crate::auth::{Login, UserName, Users};
use crate::maildrop::{Location, MailRoot};

/// The maildrops of a configuration.
#[derive(Debug)]
pub struct Maildrops {
    /// The accounts.
    pub accounts: Users,
    pub(super) mail_root: MailRoot,
    /// The ids that the task takes for each maildrop, as sessions do; `None` if it keeps its own.
    pub(super) owners: Option<Owners>,
}

impl Maildrops {
    /// Returns the users who are `named`. Without any, these are all users who have accounts; without accounts, all users who
    /// have maildrops below the mail directory.
    ///
    /// # Errors
    /// When a name cannot be a user's, or the mail directory cannot be listed.
    pub fn users(&self, named: &[String]) -> Result<Vec<UserName>, String> {
        let Self { accounts, mail_root, .. } = self;
        let all = || accounts.names().iter().map(ToString::to_string).collect();
        let named = if named.is_empty() { all() } else { named.to_vec() };
        if named.is_empty() {
            return mail_root.users().map_err(|error| format!("{}: {error}", mail_root.path().display()));
        }
        let user =
            |name: &String| accounts.user_called(name).ok_or_else(|| format!("{name:?} cannot be the name of a user"));
        named.iter().map(user).collect()
    }

    /// Lets this thread act for a user and returns the location of the maildrop, as a session does.
    ///
    /// # Errors
    /// As of [`acting::act_for`], and if the thread has not got its own ids back after an earlier maildrop.
    pub fn act_for(&self, user: &UserName) -> io::Result<(ActingAs, Location)> {
        self.act_for_login(&Login { user: user.clone(), mailbox: self.accounts.mailbox(user) })
    }

    /// Does the same for a user about whom a source has been asked.
    ///
    /// # Errors
    /// As of [`Maildrops::act_for`].
    pub fn act_for_login(&self, login: &Login) -> io::Result<(ActingAs, Location)> {
        acting::act_for(self.owners.as_ref(), &self.mail_root, login)
    }
}
