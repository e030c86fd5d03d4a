//! Accounts, and who is logged in: one session for each maildrop at a time (RFC 1939 section 4).

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use subtle::ConstantTimeEq;

use crate::maildrop::RootId;

/// How long a login waits for a maildrop: the session that holds it may just be ending, as when a client hangs
/// up and calls again.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// A user's name. It is a directory below the mail root, so it is one path component and no hidden one; a `:`
/// would end it where accounts are written `NAME:PASSWORD`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Arc<str>);

impl UserName {
    /// A name's most octets: what fits a PEEP argument.
    const LIMIT: usize = 128;

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        let fits = (1..=Self::LIMIT).contains(&name.len());
        let plain = !name.chars().any(|c| matches!(c, '/' | ':' | ' ') || c.is_control());
        if fits && plain && !name.starts_with('.') { Ok(Self(name.into())) } else { Err(InvalidName) }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not a user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidName;

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a user's name has 1 to 128 octets, no '/', ':', space or control character, and no dot in front")
    }
}

impl std::error::Error for InvalidName {}

/// A name and what proves it.
#[derive(Clone)]
pub struct Credentials {
    name: String,
    password: Vec<u8>,
}

impl Credentials {
    /// Any name, any password.
    #[must_use]
    pub fn new(name: &str, password: &[u8]) -> Self {
        Self { name: name.to_owned(), password: password.to_owned() }
    }

    /// Whether these are they; takes as long for a wrong name as for a wrong password.
    #[must_use]
    pub fn match_with(&self, name: &[u8], password: &[u8]) -> bool {
        bool::from(self.name.as_bytes().ct_eq(name) & self.password.ct_eq(password))
    }
}

/// Passwords are for nobody's eyes.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The accounts, and the maildrops in use.
#[derive(Debug, Default)]
pub struct Users {
    accounts: RwLock<BTreeMap<UserName, Credentials>>,
    /// Maildrops with a session.
    open: Mutex<HashSet<(UserName, RootId)>>,
    closed: Condvar,
}

impl Users {
    /// False when the name is taken.
    pub fn add(&self, name: UserName, password: &[u8]) -> bool {
        let mut accounts = self.accounts.write();
        if accounts.contains_key(&name) {
            return false;
        }
        let credentials = Credentials::new(name.as_str(), password);
        accounts.insert(name, credentials);
        true
    }

    /// False when there is no such user. A session of the user goes on.
    pub fn remove(&self, name: &str) -> bool {
        name.parse().is_ok_and(|name: UserName| self.accounts.write().remove(&name).is_some())
    }

    /// All users, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.accounts.read().keys().map(ToString::to_string).collect()
    }

    /// The users who are logged in, in order.
    #[must_use]
    pub fn logged_in(&self) -> Vec<String> {
        let mut names: Vec<_> = self.open.lock().iter().map(|(user, _)| user.to_string()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whose credentials these are.
    #[must_use]
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<UserName> {
        let user: Option<UserName> = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        let account = user.as_ref().and_then(|user| self.accounts.read().get(user).cloned());
        // An unknown user's password is compared too, so the time does not tell who exists.
        let credentials = account.unwrap_or_else(|| Credentials::new("", b"no such user"));
        user.filter(|user| credentials.match_with(user.as_str().as_bytes(), password))
    }

    /// Takes the maildrop of `user` below a mail root for a session, waiting a little for one that is ending.
    /// `None` when another session keeps it.
    #[must_use]
    pub fn lock(self: &Arc<Self>, user: UserName, root: RootId) -> Option<Login> {
        let maildrop = (user, root);
        let deadline = Instant::now() + LOCK_WAIT;
        let mut open = self.open.lock();
        while open.contains(&maildrop) {
            if self.closed.wait_until(&mut open, deadline).timed_out() {
                return None;
            }
        }
        open.insert(maildrop.clone());
        Some(Login { users: Arc::clone(self), maildrop })
    }
}

/// A user logged in: the maildrop's exclusive-access lock, which goes with this value.
#[derive(Debug)]
pub struct Login {
    users: Arc<Users>,
    maildrop: (UserName, RootId),
}

impl Login {
    /// Who.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.maildrop.0
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.users.open.lock().remove(&self.maildrop);
        self.users.closed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_visible_path_component() {
        for name in ["", ".", "..", ".hidden", "a/b", "/", "a b", "a:b", "a\0", "a\n", &"x".repeat(129)] {
            assert_eq!(name.parse::<UserName>(), Err(InvalidName), "{name:?}");
        }
        for name in ["user", "user@example.org", "josé", "a..b", &"x".repeat(128)] {
            assert!(name.parse::<UserName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn only_name_and_password_together_are_credentials() {
        let users = Users::default();
        assert!(users.add("ana".parse().unwrap(), b"a b:c"));
        assert!(!users.add("ana".parse().unwrap(), b"other"));
        assert_eq!(users.authenticate(b"ana", b"a b:c").unwrap().as_str(), "ana");
        for (name, password) in
            [("ana", "a b:"), ("ana", ""), ("bob", "a b:c"), ("", "no such user"), ("bob", "no such user")]
        {
            assert_eq!(users.authenticate(name.as_bytes(), password.as_bytes()), None, "{name} {password}");
        }
        assert!(users.remove("ana"));
        assert!(!users.remove("ana"));
        assert_eq!(users.authenticate(b"ana", b"a b:c"), None);
    }

    #[test]
    fn a_maildrop_is_free_when_its_login_is_dropped() {
        let users = Arc::new(Users::default());
        let user: UserName = "ana".parse().unwrap();
        let (here, there) = (RootId { device: 1, inode: 2 }, RootId { device: 1, inode: 3 });
        let login = users.lock(user.clone(), here).unwrap();
        assert_eq!(users.logged_in(), ["ana"]);
        assert!(users.lock(user.clone(), here).is_none());
        assert!(users.lock(user.clone(), there).is_some());
        let waiting = std::thread::spawn({
            let (users, user) = (Arc::clone(&users), user.clone());
            move || users.lock(user, here).is_some()
        });
        drop(login);
        assert!(waiting.join().unwrap());
        assert!(users.logged_in().is_empty());
    }
}
