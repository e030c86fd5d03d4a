//! The accounts that may log in: those of the command line, which last as long as the server, and those of the users file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use subtle::ConstantTimeEq;

use super::apop;
use super::file::PasswdFile;
use super::hidden::Hidden;
use super::name::UserName;
use super::scram::{self, ScramKeys, hmac};
use super::secret::{Scheme, Secret};
use super::text::{self, Account, Accounts, Mailbox};
use super::verifier::{Busy, Permits, Recent};
use crate::state::StateDir;

/// All accounts, and the only code that verifies their credentials.
#[derive(Debug)]
pub struct Users {
    /// The accounts of the command line. They take precedence over those of the file.
    own: RwLock<BTreeMap<UserName, Arc<Account>>>,
    file: RwLock<UsersFile>,
    permits: Permits,
    recent: Recent,
    /// The key for deriving SCRAM salts for names that have no stored salt.
    salt_key: Hidden<[u8; 32]>,
    names: RwLock<NameRules>,
}

/// How a client's name becomes a user's name. The rules are applied before the name is looked up.
#[derive(Debug, Clone, Default)]
pub struct NameRules {
    /// Capital letters become small letters.
    pub lower_case: bool,
    /// A name without `@` gets this domain.
    pub default_domain: Option<String>,
}

impl NameRules {
    fn apply(&self, name: &[u8]) -> Option<UserName> {
        let name = std::str::from_utf8(name).ok()?;
        let mut name = if self.lower_case { name.to_lowercase() } else { name.to_owned() };
        if let Some(domain) = self.default_domain.as_ref().filter(|_| !name.contains('@')) {
            name = format!("{name}@{domain}");
        }
        name.parse().ok()
    }
}

/// A users file that has been read, or none.
#[derive(Debug, Clone, Default)]
pub struct UsersFile(Option<Arc<PasswdFile>>);

impl UsersFile {
    fn open(path: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self(path.map(PasswdFile::open).transpose()?.map(Arc::new)))
    }
}

/// Why a login is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The name or the password is wrong. The client is not told which; the log gets it from [`Users::explain`].
    Credentials,
    /// The client has asked to act as another user than the one whose password it has sent.
    OtherUser,
    /// Too many passwords are being verified.
    Busy,
}

impl From<Busy> for Denied {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

/// What was wrong with credentials. This is for the operator; a client is never told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// There is no such user.
    Name,
    /// There is such a user, with another password.
    Password,
    /// The user's line in the users file, counted from 1, is wrong.
    Line(usize),
    /// No user may act as another one.
    OtherUser,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("unknown user"),
            Self::Password => f.write_str("wrong password"),
            Self::Line(line) => write!(f, "line {line} of the users file cannot be used"),
            Self::OtherUser => f.write_str("a user may not act as another one"),
        }
    }
}

/// Why the accounts were not changed.
#[derive(Debug)]
pub enum Unchanged {
    /// The name is taken.
    Exists,
    /// There is no such user.
    Missing,
    /// The users file cannot be written.
    File(io::Error),
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
            own: RwLock::default(),
            file: RwLock::new(file),
            permits: Permits::for_all_cores(),
            recent: Recent::new(super::random()),
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
        let now = self.file();
        match (&now.0, &path) {
            // The present file is kept, because it knows its earlier accounts and which faults have been logged.
            (Some(file), Some(path)) if file.path() == path => file.read_again().map(|()| now),
            _ => UsersFile::open(path),
        }
    }

    /// Replaces the users file.
    pub fn set_file(&self, file: UsersFile) {
        *self.file.write() = file;
    }

    /// Replaces the users that the configuration had `before` by those that it has `now`. Users that are in both are left
    /// alone, even if PEEP has deleted them, and so are users that PEEP has added.
    pub fn change_own(&self, before: &[(UserName, String)], now: &[(UserName, String)]) {
        let mut own = self.own.write();
        for (name, _) in before.iter().filter(|(name, _)| !now.iter().any(|(other, _)| other == name)) {
            own.remove(name);
        }
        for (name, password) in now.iter().filter(|user| !before.contains(user)) {
            own.insert(name.clone(), own_account(password.as_bytes()));
        }
    }

    /// Adds a user who lasts as long as the server. Returns false if there is such a user already.
    pub fn add_own(&self, name: UserName, password: &[u8]) -> bool {
        let mut own = self.own.write();
        let is_new = !own.contains_key(&name);
        if is_new {
            own.insert(name, own_account(password));
        }
        is_new
    }

    /// Adds a user: to the users file if there is one.
    ///
    /// # Errors
    /// If there is a user of this name or the file cannot be written.
    pub fn add(&self, name: UserName, password: &[u8]) -> Result<(), Unchanged> {
        let Some(file) = self.file().0 else {
            return if self.add_own(name, password) { Ok(()) } else { Err(Unchanged::Exists) };
        };
        if self.find(&name, &file.accounts()).is_some() {
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
        let name: UserName = name.parse().map_err(|_| Unchanged::Missing)?;
        let of_file = match self.file().0 {
            Some(file) => file.change(|text| text::without_user(text, &name)).map_err(Unchanged::File)?,
            None => false,
        };
        let own = self.own.write().remove(&name).is_some();
        if own || of_file { Ok(()) } else { Err(Unchanged::Missing) }
    }

    /// Returns where the users file says that a user's mail is. Uses the accounts that were read at the user's login and
    /// does not read the file again.
    #[must_use]
    pub fn mailbox(&self, user: &UserName) -> Mailbox {
        if self.own.read().contains_key(user) {
            return Mailbox::default();
        }
        let known = self.file.read().0.as_deref().map(PasswdFile::known);
        known.and_then(|accounts| Some(accounts.by_name.get(user)?.mailbox.clone())).unwrap_or_default()
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
        let of_file = self.file_accounts();
        let own = self.own.read();
        let names: BTreeSet<&UserName> = own.keys().chain(of_file.by_name.keys()).collect();
        names.into_iter().map(ToString::to_string).collect()
    }

    /// Returns the mechanisms to announce.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        let of_file = self.file_accounts();
        let has_accounts = !(of_file.by_name.is_empty() && self.own.read().is_empty());
        Abilities { apop: has_accounts && !of_file.some_unreadable, scram: has_accounts && !of_file.some_without_scram }
    }

    /// Verifies a name and a password.
    ///
    /// A failed login takes the same time for known and unknown users. If there is no account, or its password is cheap to
    /// verify, the password is verified against the costliest hash of the file. (If a file has several costly schemes, the
    /// time still reveals which of them an account has.)
    ///
    /// # Errors
    /// [`Denied`]
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Result<UserName, Denied> {
        let user = self.names.read().apply(name);
        let of_file = self.file_accounts();
        // An empty password never matches: an account without a password was hardly meant to be open to everyone.
        let account = user.as_ref().filter(|_| !password.is_empty()).and_then(|user| self.find(user, &of_file));
        match (user, account) {
            (Some(user), Some(account)) if account.secret.is_costly() => {
                let mark = self.recent.mark(user.as_str(), &account.field.0, password);
                if self.recent.knows(&mark) {
                    return Ok(user);
                }
                if self.permits.run(|| account.secret.matches(password))? {
                    self.recent.remember(mark);
                    return Ok(user);
                }
            }
            (Some(user), Some(account)) if account.secret.matches(password) => return Ok(user),
            _ => {
                if let Some(decoy) = of_file.costliest.as_ref().filter(|decoy| decoy.secret.is_costly()) {
                    self.permits.run(|| decoy.secret.matches(password))?;
                }
            }
        }
        Err(Denied::Credentials)
    }

    /// Verifies an APOP digest of `timestamp` and the password (RFC 1939 section 7).
    ///
    /// # Errors
    /// [`Denied::Credentials`]
    pub fn authenticate_apop(&self, name: &[u8], timestamp: &str, digest: &[u8]) -> Result<UserName, Denied> {
        let user = self.names.read().apply(name);
        let account = user.as_ref().and_then(|user| self.find(user, &self.file_accounts()));
        let password = account.as_ref().and_then(|account| account.secret.readable());
        // For other accounts and unknown names a digest is computed as well, so that the time does not reveal them.
        let expected = apop::digest(timestamp, password.unwrap_or_default());
        let is_right = bool::from(expected.as_bytes().ct_eq(digest)) && password.is_some();
        user.filter(|_| is_right).ok_or(Denied::Credentials)
    }

    /// Returns the salt and the iterations with which a SCRAM exchange for this name begins. Unknown names get some as well,
    /// the same each time. An account is revealed only if its stored keys have other iterations than the first ones of
    /// the file.
    pub(super) fn scram_parameters(&self, name: &[u8]) -> (Vec<u8>, u32) {
        self.scram_parameters_of(name, &self.file_accounts())
    }

    fn scram_parameters_of(&self, name: &[u8], of_file: &Accounts) -> (Vec<u8>, u32) {
        let account = self.names.read().apply(name).and_then(|user| self.find(&user, of_file));
        match account.as_ref().and_then(|account| account.secret.scram_keys()) {
            Some(keys) => (keys.salt.clone(), keys.iterations),
            None => {
                let salt = hmac(&self.salt_key.0, name)[..scram::SALT].to_vec();
                (salt, of_file.scram_iterations.unwrap_or(scram::ITERATIONS))
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
    ) -> Result<(UserName, [u8; 32]), Denied> {
        let user = self.names.read().apply(name);
        let of_file = self.file_accounts();
        let account = user.as_ref().and_then(|user| self.find(user, &of_file));
        let secret = account.as_ref().map(|account| &account.secret);
        let stored = secret.and_then(Secret::scram_keys);
        let password = secret.and_then(Secret::readable);
        // Keys have to be derived for accounts with readable passwords. If there are such accounts, keys are derived for
        // every name, so that the time reveals nothing.
        let made = if of_file.some_readable || !self.own.read().is_empty() {
            let (salt, iterations) = self.scram_parameters_of(name, &of_file);
            Some(self.permits.run(|| ScramKeys::derive(password.unwrap_or_default(), salt, iterations))?)
        } else {
            None
        };
        let keys = stored.or(made.as_ref().filter(|_| password.is_some()));
        let right = keys.filter(|keys| keys.match_proof(exchange, proof)).map(|keys| keys.server_signature(exchange));
        user.zip(right).ok_or(Denied::Credentials)
    }

    /// Says what is wrong with credentials that were refused. It looks up the same for all names, so that the time does not
    /// tell who exists.
    #[must_use]
    pub fn explain(&self, name: &[u8]) -> Wrong {
        let Some(user) = self.names.read().apply(name) else { return Wrong::Name };
        let of_file = self.file_accounts();
        let line = of_file.wrong_lines.get(&user).copied();
        match (self.find(&user, &of_file), line) {
            (Some(_), _) => Wrong::Password,
            (None, Some(line)) => Wrong::Line(line),
            (None, None) => Wrong::Name,
        }
    }

    /// Returns the present accounts of the file. Called once for each verification.
    fn file_accounts(&self) -> Arc<Accounts> {
        self.file().0.as_deref().map(PasswdFile::accounts).unwrap_or_default()
    }

    fn find(&self, user: &UserName, of_file: &Accounts) -> Option<Arc<Account>> {
        self.own.read().get(user).or_else(|| of_file.by_name.get(user)).cloned()
    }
}

fn own_account(password: &[u8]) -> Arc<Account> {
    let secret = Secret::Readable(password.to_owned());
    Arc::new(Account { field: Hidden(Vec::new()), secret, mailbox: Mailbox::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    /// Users of a file with these lines. The file exists as long as the directory.
    fn of_file(text: &str) -> (tempfile::TempDir, Users) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        std::fs::write(&path, text).unwrap();
        (directory, Users::open(Some(path)).unwrap())
    }

    #[test]
    fn name_rules_are_applied_before_the_look_up() {
        let users = Users::default();
        assert!(users.add_own(user("ana@example.com"), b"x") && users.add_own(user("Bob@Other"), b"x"));
        let names = |users: &Users| {
            ["ana", "Ana@Example.COM", "Bob@Other", "bob"].map(|name| users.authenticate(name.as_bytes(), b"x").is_ok())
        };
        assert_eq!(names(&users), [false, false, true, false]);
        users.set_name_rules(NameRules { lower_case: true, default_domain: Some("example.com".to_owned()) });
        assert_eq!(names(&users), [true, true, false, false]);
        assert_eq!(users.authenticate(b"ANA", b"x").unwrap(), user("ana@example.com"));
        users.set_name_rules(NameRules { lower_case: false, default_domain: Some("Other".to_owned()) });
        assert_eq!(users.authenticate(b"Bob", b"x").unwrap(), user("Bob@Other"));
    }

    #[test]
    fn a_login_needs_the_right_name_and_password() {
        let users = Users::default();
        assert!(users.add_own(user("ana"), b"a b:c"));
        assert!(!users.add_own(user("ana"), b"other"));
        assert_eq!(users.authenticate(b"ana", b"a b:c").unwrap().as_str(), "ana");
        for (name, password) in [("ana", "a b:"), ("ana", ""), ("bob", "a b:c"), ("", ""), ("bob", "")] {
            let denied = Err(Denied::Credentials);
            assert_eq!(users.authenticate(name.as_bytes(), password.as_bytes()), denied, "{name} {password}");
        }
        users.remove("ana").unwrap();
        assert!(matches!(users.remove("ana"), Err(Unchanged::Missing)));
        assert_eq!(users.authenticate(b"ana", b"a b:c"), Err(Denied::Credentials));
    }

    #[test]
    fn users_are_added_to_the_file_and_removed_from_it() {
        let (directory, users) = of_file("# mine\nbob:{PLAIN}b:1:2\n");
        users.add_own(user("own"), b"o");
        for name in ["bob", "own"] {
            assert!(matches!(users.add(user(name), b"x"), Err(Unchanged::Exists)), "{name}");
        }
        users.add(user("ana"), b"a:b").unwrap();
        assert_eq!(users.names(), ["ana", "bob", "own"]);
        let path = directory.path().join("users");
        let other = Users::open(Some(path.clone())).unwrap();
        for users in [&users, &other] {
            // The second login uses the remembered result of the first verification.
            for _ in 0..2 {
                assert_eq!(users.authenticate(b"ana", b"a:b"), Ok(user("ana")));
            }
            assert_eq!(users.authenticate(b"ana", b"a"), Err(Denied::Credentials));
        }
        for name in ["ana", "own"] {
            users.remove(name).unwrap();
            assert!(matches!(users.remove(name), Err(Unchanged::Missing)), "{name}");
        }
        assert_eq!(other.authenticate(b"ana", b"a:b"), Err(Denied::Credentials));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "# mine\nbob:{PLAIN}b:1:2\n");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(users.add(user("ana"), b"x"), Err(Unchanged::File(_))));
        assert!(matches!(users.remove("bob"), Err(Unchanged::File(_))));
    }

    #[test]
    fn a_user_of_the_command_line_comes_before_one_of_the_file() {
        let (_directory, users) = of_file("ana:{PLAIN}file\n");
        users.add_own(user("ana"), b"own");
        assert_eq!(users.authenticate(b"ana", b"own"), Ok(user("ana")));
        assert_eq!(users.authenticate(b"ana", b"file"), Err(Denied::Credentials));
        assert_eq!(users.names(), ["ana"]);
        users.remove("ana").unwrap();
        assert!(users.names().is_empty());
    }

    #[test]
    fn a_reload_changes_what_differs_in_the_configuration_and_nothing_else() {
        let users = Users::default();
        let of = |text: &str| -> Vec<_> {
            let user = |word: &str| word.split_once(':').map(|(name, password)| (user(name), password.to_owned()));
            text.split(' ').filter_map(user).collect()
        };
        let before = of("kept:1 changed:1 gone:1 deleted:1");
        users.change_own(&[], &before);
        users.remove("deleted").unwrap();
        users.add(user("added"), b"1").unwrap();
        users.change_own(&before, &of("kept:1 changed:2 deleted:1 new:1"));
        assert_eq!(users.names(), ["added", "changed", "kept", "new"]);
        assert!(users.authenticate(b"changed", b"2").is_ok() && users.authenticate(b"changed", b"1").is_err());
    }

    #[test]
    fn a_users_file_that_cannot_be_used_changes_nothing() {
        let (directory, users) = of_file("ana:{PLAIN}a\n");
        let other = directory.path().join("other");
        std::fs::write(&other, "bob:{PLAIN}b\n").unwrap();
        let (path, nowhere) = (directory.path().join("users"), directory.path().join("nowhere"));
        assert!(users.read_file(Some(nowhere)).is_err());
        std::fs::write(&path, "no account\n").unwrap();
        std::fs::File::open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert!(users.read_file(Some(path.clone())).is_err());
        let file = users.read_file(Some(other)).unwrap();
        assert_eq!(users.names(), ["ana"]);
        users.set_file(file);
        assert_eq!(users.names(), ["bob"]);
        users.set_file(users.read_file(None).unwrap());
        assert!(users.names().is_empty());
    }

    /// Lines with an empty password arise by mistake, for example from an empty variable in a script.
    #[test]
    fn an_empty_password_is_always_refused() {
        let (_directory, users) = of_file(&format!(
            "ana:{{SHA256}}47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\nbob:{}\neve:{{PLAIN}}\nfay:{{PLAIN}}f\n",
            Scheme::BlfCrypt.field(b"")
        ));
        assert_eq!(users.names(), ["ana", "bob", "fay"]);
        for name in ["ana", "bob", "eve", "fay", "nobody"] {
            assert_eq!(users.authenticate(name.as_bytes(), b""), Err(Denied::Credentials), "{name}");
        }
    }

    #[test]
    fn apop_needs_a_plaintext_password() {
        let (_directory, users) = of_file("bob:{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=\n");
        users.add_own(user("mrose"), b"tanstaaf");
        // RFC 1939 section 7
        let timestamp = "<1896.697170952@dbc.mtview.ca.us>";
        let digest = b"c4c9334bac560ecc979e58001b3e22fb";
        assert_eq!(users.authenticate_apop(b"mrose", timestamp, digest), Ok(user("mrose")));
        for (name, digest) in [
            ("mrose", digest.to_ascii_uppercase()),
            ("mrose", Vec::new()),
            ("bob", apop::digest(timestamp, b"secret").into()),
            ("bob", apop::digest(timestamp, b"").into()),
            ("nobody", apop::digest(timestamp, b"").into()),
        ] {
            let denied = Err(Denied::Credentials);
            assert_eq!(users.authenticate_apop(name.as_bytes(), timestamp, &digest), denied, "{name}");
        }
    }

    #[test]
    fn a_mechanism_that_only_some_accounts_support_is_not_announced() {
        let hashed = "bob:{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=\n";
        let keys = format!("ana:{{SCRAM-SHA-256}}{}\n", ScramKeys::derive(b"secret", vec![7; scram::SALT], 5000));
        let readable = "eve:{PLAIN}e\n";
        for (text, apop, scram) in [
            ("", false, false),
            (hashed, false, false),
            (readable, true, true),
            (&keys, false, true),
            (&format!("{keys}{readable}"), false, true),
            (&format!("{hashed}{readable}"), false, false),
        ] {
            let (_directory, users) = of_file(text);
            assert_eq!(users.abilities(), Abilities { apop, scram }, "{text}");
            users.add_own(user("own"), b"o");
            let is_only = text.is_empty();
            assert_eq!(users.abilities(), Abilities { apop: apop || is_only, scram: scram || is_only }, "{text}");
        }
    }

    #[test]
    fn every_name_has_a_salt_that_stays_the_same() {
        let keys = ScramKeys::derive(b"secret", vec![7; scram::SALT], 5000);
        let (_directory, users) = of_file(&format!("ana:{{SCRAM-SHA-256}}{keys}\nbob:{{PLAIN}}b\n"));
        for name in [&b"ana"[..], b"bob", b"nobody", b"no/name"] {
            let (salt, iterations) = users.scram_parameters(name);
            assert_eq!((salt.len(), iterations), (scram::SALT, 5000));
            assert_eq!(users.scram_parameters(name).0, salt);
        }
        assert_eq!(users.scram_parameters(b"ana").0, keys.salt);
        assert_ne!(users.scram_parameters(b"bob").0, users.scram_parameters(b"nobody").0);

        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path().to_owned()).unwrap();
        let salt_of_bob = || {
            let mut users = Users::default();
            users.keep_salts(&state).unwrap();
            users.scram_parameters(b"bob").0
        };
        let salt = salt_of_bob();
        assert_eq!(salt_of_bob(), salt);
        assert_ne!(users.scram_parameters(b"bob").0, salt);
        // A key that was cut off is replaced by a new one.
        std::fs::write(state.file("scram-salt-key"), "").unwrap();
        assert_ne!(salt_of_bob(), salt);
    }
}
