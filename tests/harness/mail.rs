//! Mail directories for a server to serve.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

/// A temporary mail directory. Clones share it, and the last one removes it.
#[derive(Clone)]
pub(crate) struct MailRoot(Arc<TempDir>);

impl MailRoot {
    /// Makes an empty mail directory.
    pub(crate) fn new() -> Self {
        Self(Arc::new(TempDir::new().unwrap()))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The maildrop of this user, which may not exist yet.
    pub(crate) fn maildrop(&self, user: &str) -> Maildrop {
        Maildrop::at(self.path().join(user))
    }
}

/// One user's directory. [`Maildrop::put`] creates it with the first message.
#[derive(Clone)]
pub(crate) struct Maildrop {
    path: PathBuf,
}

impl Maildrop {
    /// The maildrop in the directory `path`.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The path of the file `name`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the maildrop an empty Maildir.
    pub(crate) fn make_maildir(&self) {
        for folder in ["tmp", "new", "cur"] {
            fs::create_dir_all(self.path(folder)).unwrap();
        }
    }

    /// Writes a message and returns its path. `name` is `NAME` for a flat maildrop and `new/NAME` or `cur/NAME:2,FLAGS`
    /// for a Maildir, which is created if it does not exist.
    pub(crate) fn put(&self, name: &str, octets: impl AsRef<[u8]>) -> PathBuf {
        if name.starts_with("new/") || name.starts_with("cur/") {
            self.make_maildir();
        }
        fs::create_dir_all(&self.path).unwrap();
        let path = self.path(name);
        fs::write(&path, octets).unwrap();
        path
    }

    /// Sets the modification time of a message, in seconds since 1970.
    pub(crate) fn set_modified(&self, name: &str, seconds: u64) {
        let file = File::options().write(true).open(self.path(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    /// Sets the modification time of a sub-directory, in seconds since 1970.
    pub(crate) fn set_modified_directory(&self, name: &str, seconds: u64) {
        let directory = File::open(self.path(name)).unwrap();
        directory.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// The files of the messages on disk, sorted. They are the regular files without a leading dot in their name, in
    /// `new/` and `cur/` if one of these exists and otherwise in the maildrop's directory itself.
    pub(crate) fn messages(&self) -> Vec<String> {
        let is_maildir = self.path("new").is_dir() || self.path("cur").is_dir();
        let folders: &[&str] = if is_maildir { &["new/", "cur/"] } else { &[""] };
        let mut found: Vec<String> = folders.iter().flat_map(|folder| self.files_in(folder)).collect();
        found.sort();
        found
    }

    fn files_in(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        entries
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.'))
            .map(|name| format!("{folder}{name}"))
            .collect()
    }
}
