//! The users' passwords on the other server.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::auth::{Hidden, UserName, Users};

/// The largest file that is read, in octets. It has room for half a million users.
const SIZE_LIMIT: u64 = 1 << 26;

/// The names that are sent to the other server and the passwords, by the users whom they belong to here.
pub(super) struct Passwords(BTreeMap<UserName, (String, Hidden<String>)>);

impl Passwords {
    /// Reads a file with lines `NAME:PASSWORD`. A password may have colons and spaces. Empty lines are skipped.
    ///
    /// # Errors
    /// A message, which has no password in it.
    pub(super) fn read(path: &Path, accounts: &Users) -> Result<Self, String> {
        let text = read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let mut passwords = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
            let wrong = |why: &str| format!("{}, line {number}: {why}", path.display());
            let (name, password) =
                line.split_once(':').ok_or_else(|| wrong("it has to have the form NAME:PASSWORD"))?;
            if password.contains(['\r', '\0']) || password.is_empty() {
                return Err(wrong("this cannot be a password"));
            }
            let user = accounts.user_called(name).ok_or_else(|| wrong("this cannot be the name of a user"))?;
            passwords.insert(user, (name.to_owned(), Hidden(password.to_owned())));
        }
        Ok(Self(passwords))
    }

    pub(super) fn users(&self) -> impl Iterator<Item = &UserName> {
        self.0.keys()
    }

    /// The name and the password of a user on the other server.
    pub(super) fn of(&self, user: &UserName) -> Option<(&str, &str)> {
        self.0.get(user).map(|(name, password)| (name.as_str(), password.0.as_str()))
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(SIZE_LIMIT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SIZE_LIMIT {
        return Err(io::Error::other("it is too large"));
    }
    Ok(text)
}
