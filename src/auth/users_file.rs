//! The users file as an account source.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::file::PasswdFile;
use super::name::UserName;
use super::source::{Found, Source, Totals};
use super::text::Accounts;

/// A users file that has been read, or none.
#[derive(Debug, Clone, Default)]
pub struct UsersFile(pub(super) Option<Arc<PasswdFile>>);

impl UsersFile {
    pub(super) fn open(path: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self(path.map(PasswdFile::open).transpose()?.map(Arc::new)))
    }

    /// As [`super::Users::read_file`], when this is the present file.
    pub(super) fn or_read(self, path: Option<PathBuf>) -> io::Result<Self> {
        match (&self.0, &path) {
            // The present file is kept, because it knows its earlier accounts and which faults have been logged.
            (Some(file), Some(path)) if file.path() == path => file.read_again().map(|()| self),
            _ => Self::open(path),
        }
    }

    /// The present accounts of the file, which is read again when it has changed.
    fn accounts(&self) -> Option<Arc<Accounts>> {
        self.0.as_deref().map(PasswdFile::accounts)
    }
}

impl Source for UsersFile {
    fn find(&self, user: &UserName) -> Found {
        let account = self.accounts().and_then(|accounts| accounts.by_name.get(user).cloned());
        account.map_or(Found::Unknown, Found::Account)
    }

    fn totals(&self) -> Totals {
        self.accounts().map(|accounts| accounts.totals()).unwrap_or_default()
    }

    fn names(&self) -> Vec<UserName> {
        self.accounts().map(|accounts| accounts.by_name.keys().cloned().collect()).unwrap_or_default()
    }

    fn wrong_line(&self, user: &UserName) -> Option<usize> {
        self.accounts()?.wrong_lines.get(user).copied()
    }
}
