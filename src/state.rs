//! The state directory (`--state`): files that survive a restart, and a lock that keeps a second server out. The
//! counters, who fetched what, the key of SCRAM's salts and a self-signed certificate are kept there.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::owner;

/// The file whose lock a server holds while it uses the directory. The kernel releases the lock with the process; the
/// file stays.
const LOCK: &str = "lock";

/// A state directory that no other server can use while this value exists.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    lock: File,
}

impl StateDir {
    /// Opens the directory. If it is missing, it is created and only its owner can read it.
    ///
    /// # Errors
    /// When it cannot be created or written, or another server uses it.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let lock = private(OpenOptions::new().write(true)).open(path.join(LOCK))?;
        owner::give_to_owner_of_parent(&path.join(LOCK), &lock)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, lock }),
            Err(TryLockError::WouldBlock) => Err(io::Error::other("another server uses it")),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file called `name`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Replaces the contents of the file called `name`, which only the owner can read. After a crash the file has
    /// either the old contents or the new ones.
    ///
    /// # Errors
    /// When it cannot be written; the old file is still there.
    pub fn replace(&self, name: &str, octets: &[u8]) -> io::Result<()> {
        let new = self.file(&format!("{name}.new"));
        let mut file = private(OpenOptions::new().write(true).truncate(true)).open(&new)?;
        owner::give_to_owner_of_parent(&new, &file)?;
        file.write_all(octets)?;
        file.sync_all()?;
        fs::rename(new, self.file(name))
    }
}

impl Drop for StateDir {
    /// Releases the lock. Closing the file is not enough, because a program that is being started has a copy of the
    /// descriptor for a moment.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

/// Creates missing files for the owner alone, and follows no symbolic link.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.create(true).mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_the_owner_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path().join("state")).unwrap();
        state.replace("counters", b"old").unwrap();
        state.replace("counters", b"new").unwrap();
        assert_eq!(fs::read(state.file("counters")).unwrap(), b"new");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(state.path()), mode(&state.file("counters"))), (0o700, 0o600));
    }

    /// So that a server that runs as the directory's owner later can use them.
    #[test]
    fn what_root_makes_is_the_directorys_owners() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(directory.path(), Some(54321), Some(54321)).unwrap();
        let state = StateDir::open(directory.path().to_owned()).unwrap();
        state.replace("counters", b"new").unwrap();
        for name in [LOCK, "counters"] {
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(state.file(name)).unwrap()), 54321, "{name}");
        }
    }

    #[test]
    fn a_second_server_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let open = || StateDir::open(directory.path().to_owned());
        let state = open().unwrap();
        assert_eq!(open().unwrap_err().to_string(), "another server uses it");
        drop(state);
        assert!(open().is_ok());
    }

    #[test]
    fn a_file_or_a_missing_parent_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(StateDir::open(file).is_err());
        assert!(StateDir::open(directory.path().join("missing/state")).is_err());
    }
}
