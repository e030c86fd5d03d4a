//! All accounts, in the order in which their sources are asked: those of the command line, which last as long as the server,
//! then those of the users file.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use subtle::ConstantTimeEq;

use super::apop;
use super::hidden::Hidden;
use super::name::UserName;
use super::name_rules::NameRules;
use super::outcome::{Denied, Unchanged, Wrong};
use super::own::Own;
use super::scram::{self, ScramKeys, hmac};
use super::secret::{Scheme, Secret};
use super::source::{Answer, Found, Login, Source, Totals};
use super::text::{self, Account, Mailbox};
use super::users_file::UsersFile;
use super::verifier::Verifier;
use crate::state::StateDir;

/// All accounts, and the only code that verifies their credentials.
#[derive(Debug)]
pub struct Users {
    /// The accounts of the command line. They take precedence over those of the file.
    own: Own,
    file: RwLock<UsersFile>,
    /// The sources that are asked after these, in their order.
    further: RwLock<Arc<[Arc<dyn Source>]>>,
    verifier: Verifier,
    /// The key for deriving SCRAM salts for names that have no stored salt.
    salt_key: Hidden<[u8; 32]>,
    names: RwLock<NameRules>,
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
        Self::new(UsersFile::default())
    }
}

impl Users {
    /// Reads the users file, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or has lines but no valid account.
    pub fn open(file: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self::new(UsersFile::open(file)?))
    }

    fn new(file: UsersFile) -> Self {
        Self {
            own: Own::default(),
            file: RwLock::new(file),
            further: RwLock::new(Arc::new([])),
            verifier: Verifier::new(),
            salt_key: Hidden(super::random()),
            names: RwLock::default(),
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

    /// The users file.
    #[must_use]
    pub fn file(&self) -> UsersFile {
        self.file.read().clone()
    }

    /// Reads the users file at `path`, which may differ from the present one. Does not put it in force.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn read_file(&self, path: Option<PathBuf>) -> io::Result<UsersFile> {
        self.file().or_read(path)
    }

    /// Replaces the users file.
    pub fn set_file(&self, file: UsersFile) {
        *self.file.write() = file;
    }

    /// Replaces the users that the configuration had `before` by those that it has `now`. Users that are in both are left
    /// alone, even if PEEP has deleted them, and so are users that PEEP has added.
    pub fn change_own(&self, before: &[(UserName, String)], now: &[(UserName, String)]) {
        self.own.change(before, now);
    }

    /// Replaces the sources that are asked after the flags and the users file.
    #[cfg_attr(not(test), expect(dead_code, reason = "the configuration cannot declare such sources yet"))]
    pub(super) fn set_further(&self, sources: impl IntoIterator<Item = Arc<dyn Source>>) {
        *self.further.write() = sources.into_iter().collect();
    }

    /// Adds a user who lasts as long as the server. Returns false if there is such a user already.
    pub fn add_own(&self, name: UserName, password: &[u8]) -> bool {
        self.own.add(name, password)
    }

    /// Adds a user: to the users file if there is one.
    ///
    /// # Errors
    /// If there is a user of this name or the file cannot be written.
    pub fn add(&self, name: UserName, password: &[u8]) -> Result<(), Unchanged> {
        let Some(file) = self.file().0 else {
            return if self.add_own(name, password) { Ok(()) } else { Err(Unchanged::Exists) };
        };
        if matches!(self.find(&name), Found::Account(_)) {
            return Err(Unchanged::Exists);
        }
        let field = Scheme::Argon2id.field(password);
        match file.change(|text| text::with_user(text, &name, &field)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Unchanged::Exists),
            Err(error) => Err(Unchanged::File(error)),
        }
    }

    /// Deletes a user. An open session of the user continues.
    ///
    /// # Errors
    /// If there is no such user or the file cannot be written.
    pub fn remove(&self, name: &str) -> Result<(), Unchanged> {
        let name = self.user_called(name).ok_or(Unchanged::Missing)?;
        let of_file = match self.file().0 {
            Some(file) => file.change(|text| text::without_user(text, &name)).map_err(Unchanged::File)?,
            None => false,
        };
        let own = self.own.remove(&name);
        if own || of_file { Ok(()) } else { Err(Unchanged::Missing) }
    }

    /// Returns where a user's mail is. This is for users who have not logged in; after a login, the [`Login`] says it.
    #[must_use]
    pub fn mailbox(&self, user: &UserName) -> Arc<Mailbox> {
        match self.find(user) {
            Found::Account(account) => Arc::clone(&account.mailbox),
            Found::Unknown | Found::Unavailable => Arc::default(),
        }
    }

    /// Returns the user whom a client would mean by this name; `None` if the name cannot be a user's. There may be no such
    /// user.
    #[must_use]
    pub fn user_called(&self, name: &str) -> Option<UserName> {
        self.names.read().apply(name.as_bytes())
    }

    /// Returns the names of all users in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = BTreeSet::new();
        self.for_each(|source| names.extend(source.names()));
        names.iter().map(ToString::to_string).collect()
    }

    /// Returns the mechanisms to announce.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        let totals = self.totals();
        Abilities { apop: totals.some && !totals.some_unreadable, scram: totals.some && !totals.some_without_scram }
    }

    /// Verifies a name and a password.
    ///
    /// A failed login takes the same time for known and unknown users. If there is no account, or its password is cheap to
    /// verify, the password is verified against the costliest hash of all sources. (If they have several costly schemes,
    /// the time still reveals which of them an account has.)
    ///
    /// # Errors
    /// [`Denied`]
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Result<Login, Denied> {
        let user = self.names.read().apply(name);
        // An empty password never matches: an account without a password was hardly meant to be open to everyone.
        let answer = match user.as_ref().filter(|_| !password.is_empty()) {
            Some(user) => self.verify(user, password)?,
            None => Answer::Unknown,
        };
        match (user, answer) {
            (Some(user), Answer::Accepted(mailbox)) => return Ok(Login { user, mailbox }),
            (_, Answer::Unavailable) => return Err(Denied::Unavailable),
            (_, Answer::Refused { costly: true }) => {}
            _ => {
                if let Some(decoy) = self.totals().costliest {
                    self.verifier.check_in_vain(&decoy, password)?;
                }
            }
        }
        Err(Denied::Credentials)
    }

    /// Verifies an APOP digest of `timestamp` and the password (RFC 1939 section 7).
    ///
    /// # Errors
    /// [`Denied`]
    pub fn authenticate_apop(&self, name: &[u8], timestamp: &str, digest: &[u8]) -> Result<Login, Denied> {
        let user = self.names.read().apply(name);
        let account = self.account(user.as_ref())?;
        let password = account.as_ref().and_then(|account| account.secret.readable());
        // For other accounts and unknown names a digest is computed as well, so that the time does not reveal them.
        let expected = apop::digest(timestamp, password.unwrap_or_default());
        let is_right = bool::from(expected.as_bytes().ct_eq(digest)) && password.is_some();
        login(user, account.as_ref()).filter(|_| is_right).ok_or(Denied::Credentials)
    }

    /// Returns the salt and the iterations with which a SCRAM exchange for this name begins. Unknown names get some as well,
    /// the same each time. An account is revealed only if its stored keys have other iterations than the first ones of
    /// the file.
    /// That a source is unavailable is told when the proof is verified.
    pub(super) fn scram_parameters(&self, name: &[u8]) -> (Vec<u8>, u32) {
        let user = self.names.read().apply(name);
        let account = self.account(user.as_ref()).unwrap_or_default();
        self.scram_parameters_of(name, account.as_deref(), &self.totals())
    }

    fn scram_parameters_of(&self, name: &[u8], account: Option<&Account>, totals: &Totals) -> (Vec<u8>, u32) {
        match account.and_then(|account| account.secret.scram_keys()) {
            Some(keys) => (keys.salt.clone(), keys.iterations),
            None => {
                let salt = hmac(&self.salt_key.0, name)[..scram::SALT].to_vec();
                (salt, totals.scram_iterations.unwrap_or(scram::ITERATIONS))
            }
        }
    }

    /// Verifies a SCRAM client's proof for an exchange. Returns the user and the server's signature.
    ///
    /// # Errors
    /// [`Denied`]
    pub(super) fn authenticate_scram(
        &self,
        name: &[u8],
        exchange: &[u8],
        proof: &[u8],
    ) -> Result<(Login, [u8; 32]), Denied> {
        let user = self.names.read().apply(name);
        let account = self.account(user.as_ref())?;
        let totals = self.totals();
        let secret = account.as_ref().map(|account| &account.secret);
        let stored = secret.and_then(Secret::scram_keys);
        let password = secret.and_then(Secret::readable);
        // Keys have to be derived for accounts with readable passwords. If there are such accounts, keys are derived for
        // every name, so that the time reveals nothing.
        let made = if totals.some_readable {
            let (salt, iterations) = self.scram_parameters_of(name, account.as_deref(), &totals);
            Some(self.verifier.run(|| ScramKeys::derive(password.unwrap_or_default(), salt, iterations))?)
        } else {
            None
        };
        let keys = stored.or(made.as_ref().filter(|_| password.is_some()));
        let right = keys.filter(|keys| keys.match_proof(exchange, proof)).map(|keys| keys.server_signature(exchange));
        login(user, account.as_ref()).zip(right).ok_or(Denied::Credentials)
    }

    /// Says what is wrong with credentials that were refused. It looks up the same for all names, so that the time does not
    /// tell who exists.
    #[must_use]
    pub fn explain(&self, name: &[u8]) -> Wrong {
        let Some(user) = self.names.read().apply(name) else { return Wrong::Name };
        let (mut is_known, mut line) = (false, None);
        self.for_each(|source| {
            is_known |= matches!(source.find(&user), Found::Account(_));
            line = line.or_else(|| source.wrong_line(&user));
        });
        match line {
            _ if is_known => Wrong::Password,
            Some(line) => Wrong::Line(line),
            None => Wrong::Name,
        }
    }

    /// Asks the sources in order whether a password is right, until one knows the name. If that one refuses the password,
    /// the others are asked for the name in vain, so that the time does not tell which source knows it.
    fn verify(&self, user: &UserName, password: &[u8]) -> Result<Answer, Denied> {
        let mut answer = Answer::Unknown;
        self.until(|source| {
            match answer {
                Answer::Unknown => answer = source.verify(user, password, &self.verifier)?,
                _ => drop(source.find(user)),
            }
            let is_decided = matches!(answer, Answer::Accepted(_) | Answer::Unavailable);
            Ok::<_, Denied>(is_decided)
        })?;
        Ok(answer)
    }

    /// Looks up the account of a name that may be no user's.
    fn account(&self, user: Option<&UserName>) -> Result<Option<Arc<Account>>, Denied> {
        match user.map(|user| self.find(user)) {
            Some(Found::Account(account)) => Ok(Some(account)),
            Some(Found::Unavailable) => Err(Denied::Unavailable),
            Some(Found::Unknown) | None => Ok(None),
        }
    }

    /// Looks an account up in the first source that knows it.
    fn find(&self, user: &UserName) -> Found {
        let mut found = Found::Unknown;
        let Ok(()) = self.until(|source| {
            found = source.find(user);
            Ok::<_, Infallible>(!matches!(found, Found::Unknown))
        });
        found
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.for_each(|source| totals = mem::take(&mut totals).with(source.totals()));
        totals
    }

    fn for_each(&self, mut ask: impl FnMut(&dyn Source)) {
        let Ok(()) = self.until(|source| {
            ask(source);
            Ok::<_, Infallible>(false)
        });
    }

    /// Asks the sources in order until `ask` returns true or fails. No lock is held while a source is asked.
    fn until<E>(&self, mut ask: impl FnMut(&dyn Source) -> Result<bool, E>) -> Result<(), E> {
        if ask(&self.own)? || ask(&self.file())? {
            return Ok(());
        }
        let further = Arc::clone(&self.further.read());
        for source in further.iter() {
            if ask(&**source)? {
                break;
            }
        }
        Ok(())
    }
}

fn login(user: Option<UserName>, account: Option<&Arc<Account>>) -> Option<Login> {
    Some(Login { user: user?, mailbox: Arc::clone(&account?.mailbox) })
}

#[cfg(test)]
mod tests;
