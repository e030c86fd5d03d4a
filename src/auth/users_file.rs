//! The users file as an account source.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::PasswdFile;
use super::name::UserName;
use super::outcome::Unchanged;
use super::scheme::Scheme;
use super::source::{Found, Source, Totals};
use super::text;

/// A users file that has been read.
#[derive(Debug, Clone)]
pub struct UsersFile(Arc<PasswdFile>);

impl UsersFile {
    /// Reads a file for the first time.
    ///
    /// # Errors
    /// If it cannot be read, or has lines but no valid account.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        Ok(Self(Arc::new(PasswdFile::open(path)?)))
    }

    /// The file's path.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Calls `use_names` with the names behind this one, in their order, or with all names.
    pub(super) fn with_names_behind<T>(
        &self,
        after: Option<&UserName>,
        use_names: impl FnOnce(&mut dyn Iterator<Item = UserName>) -> T,
    ) -> T {
        use_names(&mut self.0.accounts().names(after))
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// If it cannot be used; the accounts then stay as they were.
    pub(super) fn read_again(&self) -> io::Result<()> {
        self.0.read_again()
    }
}

impl Source for UsersFile {
    fn name(&self) -> Cow<'_, str> {
        format!("users file {}", self.path().display()).into()
    }

    fn find(&self, user: &UserName) -> Found {
        self.0.accounts().get(user).map_or(Found::Unknown, |account| Found::Account(Arc::new(account)))
    }

    fn totals(&self) -> Totals {
        self.0.accounts().totals()
    }

    fn names(&self) -> Vec<UserName> {
        self.0.accounts().names(None).collect()
    }

    fn wrong_line(&self, user: &UserName) -> Option<usize> {
        self.0.accounts().wrong_lines.get(user).copied()
    }

    fn add(&self, user: &UserName, password: &[u8]) -> Result<(), Unchanged> {
        let field = Scheme::Argon2id.field(password);
        match self.0.change(|text| text::with_user(text, user, &field)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Unchanged::Exists),
            Err(error) => Err(Unchanged::File(error)),
        }
    }

    fn remove(&self, user: &UserName) -> Result<(), Unchanged> {
        match self.0.change(|text| text::without_user(text, user)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Unchanged::Missing),
            Err(error) => Err(Unchanged::File(error)),
        }
    }
}
