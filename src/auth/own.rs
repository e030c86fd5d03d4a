//! The accounts of the command line and those that PEEP adds when there is no users file. They last as long as the server.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::hidden::Hidden;
use super::mailbox::Mailbox;
use super::name::UserName;
use super::secret::Secret;
use super::source::{Found, Source, Totals};
use super::text::Account;

/// The accounts that this server has of its own. Their passwords are stored as they are.
#[derive(Debug, Default)]
pub(super) struct Own(RwLock<BTreeMap<UserName, Arc<Account>>>);

impl Own {
    /// Adds an account. Returns false if there is one of this name already.
    pub(super) fn add(&self, name: UserName, password: &[u8]) -> bool {
        let mut accounts = self.0.write();
        let is_new = !accounts.contains_key(&name);
        if is_new {
            accounts.insert(name, account(password));
        }
        is_new
    }

    /// Deletes an account. Returns false if no account has this name.
    pub(super) fn remove(&self, name: &UserName) -> bool {
        self.0.write().remove(name).is_some()
    }

    /// As [`super::Users::change_own`].
    pub(super) fn change(&self, before: &[(UserName, String)], now: &[(UserName, String)]) {
        let mut accounts = self.0.write();
        for (name, _) in before.iter().filter(|(name, _)| !now.iter().any(|(other, _)| other == name)) {
            accounts.remove(name);
        }
        for (name, password) in now.iter().filter(|user| !before.contains(user)) {
            accounts.insert(name.clone(), account(password.as_bytes()));
        }
    }
}

impl Source for Own {
    fn name(&self) -> Cow<'_, str> {
        "command line".into()
    }

    fn find(&self, user: &UserName) -> Found {
        self.0.read().get(user).cloned().map_or(Found::Unknown, Found::Account)
    }

    fn totals(&self) -> Totals {
        let some = !self.0.read().is_empty();
        Totals { some, some_readable: some, ..Totals::default() }
    }

    fn names(&self) -> Vec<UserName> {
        self.0.read().keys().cloned().collect()
    }
}

fn account(password: &[u8]) -> Arc<Account> {
    let secret = Secret::Readable(password.to_owned());
    Arc::new(Account { field: Hidden(Vec::new()), secret, mailbox: Arc::<Mailbox>::default() })
}
