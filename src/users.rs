//! Accounts: names, and what proves them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::RwLock;
use subtle::ConstantTimeEq;

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

/// The accounts.
#[derive(Debug, Default)]
pub struct Users(RwLock<BTreeMap<UserName, Credentials>>);

impl Users {
    /// False when the name is taken.
    pub fn add(&self, name: UserName, password: &[u8]) -> bool {
        let mut accounts = self.0.write();
        if accounts.contains_key(&name) {
            return false;
        }
        let credentials = Credentials::new(name.as_str(), password);
        accounts.insert(name, credentials);
        true
    }

    /// False when there is no such user. A session of the user goes on.
    pub fn remove(&self, name: &str) -> bool {
        name.parse().is_ok_and(|name: UserName| self.0.write().remove(&name).is_some())
    }

    /// All users, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.read().keys().map(ToString::to_string).collect()
    }

    /// Whose credentials these are.
    #[must_use]
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<UserName> {
        let user: Option<UserName> = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        let account = user.as_ref().and_then(|user| self.0.read().get(user).cloned());
        // An unknown user's password is compared too, so the time does not tell who exists.
        let credentials = account.unwrap_or_else(|| Credentials::new("", b"no such user"));
        user.filter(|user| credentials.match_with(user.as_str().as_bytes(), password))
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
}
