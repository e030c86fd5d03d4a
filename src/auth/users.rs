//! All accounts, and how their users log in.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use parking_lot::RwLock;
use subtle::ConstantTimeEq;

use super::apop;
use super::hidden::Hidden;
use super::mailbox::Mailbox;
use super::name::UserName;
use super::name_rules::NameRules;
use super::outcome::{Denied, Unchanged, Wrong};
use super::own_expiry::OwnExpiry;
use super::scram;
use super::source::{Answer, Attempt, Login};
use super::sources::{AccountSource, Known, LookUp, Sources, Verdict};
use super::text::Account;
use super::users_file::UsersFile;
use super::verifier::Verifier;
use crate::state::StateDir;

/// All accounts, and the only code that verifies their credentials.
#[derive(Debug)]
pub struct Users {
    sources: Sources,
    verifier: Verifier,
    /// The key for deriving SCRAM salts for names that have no stored salt.
    salt_key: Hidden<[u8; 32]>,
    names: RwLock<NameRules>,
    /// True once the server has given up its rights.
    is_serving: AtomicBool,
}

/// The authentication mechanisms that every account supports, besides passwords. A mechanism that only some accounts
/// support is not announced, because clients choose the strongest announced one and do not fall back to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// APOP
    pub apop: bool,
    /// SCRAM-SHA-256
    pub scram: bool,
}

impl Default for Users {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Users {
    /// The accounts of these sources, which are asked in their order.
    #[must_use]
    pub fn new(configured: Vec<AccountSource>) -> Self {
        Self {
            sources: Sources::new(configured),
            verifier: Verifier::new(),
            salt_key: Hidden(super::random()),
            names: RwLock::default(),
            is_serving: AtomicBool::new(false),
        }
    }

    /// Sets how clients' names become users' names.
    pub fn set_name_rules(&self, names: NameRules) {
        *self.names.write() = names;
    }

    /// Uses the salt key of the state directory, so that derived salts stay the same after a restart. Clients may store the
    /// salted password instead of the password.
    ///
    /// # Errors
    /// If the key cannot be read or written.
    pub fn keep_salts(&mut self, state: &StateDir) -> io::Result<()> {
        self.salt_key = Hidden(scram::kept_salt_key(state)?);
        Ok(())
    }

    /// Reads the users file at `path`. A file that is already one of the sources keeps its earlier accounts while another
    /// program writes it.
    ///
    /// # Errors
    /// If it cannot be read, or has lines but no valid account.
    pub fn read_file(&self, path: &Path) -> io::Result<UsersFile> {
        match self.file(path) {
            Some(file) => file.read_again().map(|()| file),
            None => UsersFile::open(path.to_owned()),
        }
    }

    /// The users file at `path`, if it is one of the sources.
    #[must_use]
    pub fn file(&self, path: &Path) -> Option<UsersFile> {
        self.sources.file(path)
    }

    /// Returns true if it is certain that there is no account.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.sources.totals().some
    }

    /// Asks all sources that are elsewhere whether they can be used, as [`AccountSource::check`] says, and logs the warnings.
    ///
    /// # Errors
    /// What is wrong with a source that could never answer.
    pub fn check_sources(&self) -> Result<(), String> {
        for source in self.sources() {
            source.check()?.iter().for_each(|warning| log::warn!("accounts: {warning}"));
        }
        Ok(())
    }

    /// Returns true if this source is one of those that the configuration names.
    #[must_use]
    pub fn has(&self, source: &AccountSource) -> bool {
        self.sources.configured().iter().any(|one| one.is(source))
    }

    /// The sources that the configuration names.
    #[must_use]
    pub fn sources(&self) -> Vec<AccountSource> {
        self.sources.configured().to_vec()
    }

    /// The source that this text of the configuration has declared.
    #[must_use]
    pub fn source(&self, text: &str) -> Option<AccountSource> {
        self.sources.configured().iter().find(|source| source.is_declared_by(text)).cloned()
    }

    /// Replaces the sources that the configuration names.
    pub fn set_sources(&self, configured: Vec<AccountSource>) {
        self.sources.replace(configured);
        self.forget(None);
    }

    /// Forgets what is remembered of a user's passwords, or of all passwords.
    fn forget(&self, user: Option<&UserName>) {
        self.sources.forget(user);
        self.verifier.forget(user);
    }

    /// Replaces the users that the configuration had `before` by those that it has `now`. Users that are in both are left
    /// alone, even if PEEP has deleted them, and so are users that PEEP has added.
    pub fn change_own(&self, before: &[(UserName, String)], now: &[(UserName, String)]) {
        self.sources.own.change(before, now);
    }

    /// Starts the processes that sources need. The server calls this before it gives up its rights.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn prepare(&self) -> io::Result<()> {
        self.sources.prepare()
    }

    /// Starts the threads that sources need, once the server has given up its rights.
    pub fn start(&self) {
        self.is_serving.store(true, Ordering::Relaxed);
        self.sources.start();
    }

    /// Returns true since [`Users::start`].
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.is_serving.load(Ordering::Relaxed)
    }

    /// Adds a user who lasts as long as the server. Returns false if there is such a user already.
    pub fn add_own(&self, name: UserName, password: &[u8]) -> bool {
        self.sources.own.add(name, password)
    }

    /// Adds a user to the first source that can be written, or until the server ends if no source is configured.
    ///
    /// # Errors
    /// [`Unchanged`], if there is a user of this name or no source can be written.
    pub fn add(&self, name: UserName, password: &[u8]) -> Result<(), Unchanged> {
        let added = self.sources.add(name.clone(), password);
        // The password may have been refused a moment ago.
        self.forget(Some(&name));
        added
    }

    /// Deletes a user. An open session of the user continues.
    ///
    /// # Errors
    /// [`Unchanged`], if there is no such user or the source cannot be written.
    pub fn remove(&self, name: &str) -> Result<(), Unchanged> {
        let name = self.user_called(name).ok_or(Unchanged::Missing)?;
        let removed = self.sources.remove(&name);
        self.forget(Some(&name));
        removed
    }

    /// Returns where a user's mail is. This is for users who have not logged in; after a login, the [`Login`] says it.
    #[must_use]
    pub fn mailbox(&self, user: &UserName) -> Arc<Mailbox> {
        self.known_mailbox(user).unwrap_or_default()
    }

    /// Returns the same only if the account is known at present.
    #[must_use]
    pub fn known_mailbox(&self, user: &UserName) -> Option<Arc<Mailbox>> {
        self.sources.look_up(user).account().map(|account| Arc::clone(&account.mailbox))
    }

    /// Returns the user whom a client would mean by this name, with what is known of the account; `None` if it is certain
    /// that there is no such account.
    #[must_use]
    pub fn known(&self, name: &str) -> Option<(UserName, Known)> {
        let user = self.user_called(name)?;
        let known = self.sources.look_up(&user).known()?;
        Some((user, known))
    }

    /// Returns the rules for mail that expires that accounts have of their own, each once.
    #[must_use]
    pub fn own_expiries(&self) -> BTreeSet<OwnExpiry> {
        self.sources.totals().expiries
    }

    /// Returns the user whom a client would mean by this name; `None` if the name cannot be a user's. There may be no such
    /// user.
    #[must_use]
    pub fn user_called(&self, name: &str) -> Option<UserName> {
        self.names.read().apply(name.as_bytes())
    }

    /// Returns the names of all users in order.
    #[must_use]
    pub fn names(&self) -> Vec<UserName> {
        self.sources.names()
    }

    /// Returns the mechanisms to announce.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        let totals = self.sources.totals();
        Abilities { apop: totals.some && !totals.some_unreadable, scram: totals.some && !totals.some_without_scram }
    }

    /// Verifies a name and a password that a client with this address has sent.
    ///
    /// A failed login takes the same time for known and unknown users. If there is no account, or its password is cheap to
    /// verify, the password is verified against the costliest hash of all sources. (If they have several costly schemes,
    /// the time still reveals which of them an account has.)
    ///
    /// # Errors
    /// [`Denied`]
    pub fn authenticate(&self, name: &[u8], password: &[u8], address: Option<IpAddr>) -> Result<Login, Denied> {
        let begun = Instant::now();
        let user = self.names.read().apply(name);
        let verdict = match &user {
            // An empty password never matches: an account without a password was hardly meant to be open to everyone.
            Some(user) if password.is_empty() => self.sources.refuse(user),
            Some(user) => self.sources.verify(&Attempt { user, password, address }, &self.verifier)?,
            None => Verdict { answer: Answer::Unknown, wrong: Wrong::Name },
        };
        let was_costly = matches!(verdict.answer, Answer::Refused { costly: true } | Answer::Closed);
        let denied = match user.map(|user| verdict.login(user)) {
            Some(Err(denied @ Denied::Credentials(_))) => denied,
            Some(result) => return result,
            None => Denied::Credentials(Wrong::Name),
        };
        let totals = self.sources.totals();
        if let Some(decoy) = totals.costliest.filter(|_| !was_costly) {
            self.verifier.check_in_vain(&decoy, password)?;
        }
        thread::sleep(totals.least_refusal.saturating_sub(begun.elapsed()));
        Err(denied)
    }

    /// Verifies an APOP digest of `timestamp` and the password (RFC 1939 section 7).
    ///
    /// # Errors
    /// [`Denied`]
    pub fn authenticate_apop(&self, name: &[u8], timestamp: &str, digest: &[u8]) -> Result<Login, Denied> {
        let user = self.names.read().apply(name);
        let look_up = self.look_up(user.as_ref());
        let account = look_up.account_or_unavailable()?;
        let password = account.and_then(|account| account.secret.readable());
        // For other accounts and unknown names a digest is computed as well, so that the time does not reveal them.
        let expected = apop::digest(timestamp, password.unwrap_or_default());
        let is_right = bool::from(expected.as_bytes().ct_eq(digest)) && password.is_some();
        login(user.as_ref(), account).filter(|_| is_right).ok_or_else(|| self.denied(user.as_ref(), &look_up))
    }

    /// Looks up a name that may be no user's.
    fn look_up(&self, user: Option<&UserName>) -> LookUp {
        user.map(|user| self.sources.look_up(user)).unwrap_or_default()
    }

    fn denied(&self, user: Option<&UserName>, look_up: &LookUp) -> Denied {
        Denied::Credentials(user.map_or(Wrong::Name, |user| self.sources.explain(user, look_up)))
    }
}

fn login(user: Option<&UserName>, account: Option<&Arc<Account>>) -> Option<Login> {
    Some(Login { user: user?.clone(), mailbox: Arc::clone(&account?.mailbox) })
}

mod scram_login;
mod trace;

pub(super) use scram_login::ScramLogin;
pub use trace::{Said, Trace};

#[cfg(test)]
mod tests;
