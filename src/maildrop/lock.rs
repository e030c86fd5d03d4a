//! The exclusive-access lock: one session for each maildrop at a time (RFC 1939 section 4).
//!
//! It goes with the session, however that ends. Among the sessions of one server it lives in memory; other servers, on
//! this machine or on others that have the directory by NFS, see it as a lock of the kernel's on a file of the user's
//! directory. That file is empty, stays, and means nothing by itself.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use parking_lot::{Condvar, Mutex};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use super::layout;
use super::message::Folder;
use super::root::{self, Root};
use super::{RootId, is_missing};
use crate::auth::UserName;

/// How long a login waits for a maildrop: the session that holds it may just be ending, as when a client hangs
/// up and calls again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at a lock that another server holds: the kernel tells nobody when it is free again, but who waits
/// without an end.
const POLL: Duration = Duration::from_millis(20);

/// The file that is locked, in the user's directory.
const FILE: &[u8] = b".pop3d-lock";

/// The maildrops that have a session.
#[derive(Debug, Default)]
pub struct Locks {
    held: Mutex<HashSet<(UserName, RootId)>>,
    freed: Condvar,
}

impl Locks {
    /// Takes the maildrop of `user` below a mail root, waiting a little for a session that is ending. `None` when
    /// another one keeps it.
    ///
    /// # Errors
    /// When it cannot be told whether another server has it, or the user's directory is not to be taken for a maildrop.
    pub fn lock(self: &Arc<Self>, user: UserName, root: &Root) -> io::Result<Option<Lock>> {
        // First, as nothing is to be written into a directory that is no maildrop.
        layout::lock_folder(root, user.as_str(), FILE)?;
        let deadline = Instant::now() + PATIENCE;
        let Some(mut lock) = self.lock_here(user, root.id(), deadline) else { return Ok(None) };
        match lock_everywhere(root, lock.user(), deadline)? {
            FileLock::Held => Ok(None),
            FileLock::Taken(file) => {
                lock.file = Some(file);
                Ok(Some(lock))
            }
            FileLock::Needless => Ok(Some(lock)),
        }
    }

    /// Against the other sessions of this server.
    fn lock_here(self: &Arc<Self>, user: UserName, root: RootId, deadline: Instant) -> Option<Lock> {
        let maildrop = (user, root);
        let mut held = self.held.lock();
        while held.contains(&maildrop) {
            if self.freed.wait_until(&mut held, deadline).timed_out() {
                return None;
            }
        }
        held.insert(maildrop.clone());
        Some(Lock { locks: Arc::clone(self), maildrop, file: None })
    }

    /// The users who have a session, in order.
    #[must_use]
    pub fn users(&self) -> Vec<String> {
        let mut names: Vec<_> = self.held.lock().iter().map(|(user, _)| user.to_string()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A maildrop taken; free again when dropped.
#[derive(Debug)]
pub struct Lock {
    locks: Arc<Locks>,
    maildrop: (UserName, RootId),
    /// Locked as long as it is open. No program inherits it.
    file: Option<OwnedFd>,
}

impl Lock {
    /// Whose maildrop it is.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.maildrop.0
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // First, as who waits for the other one takes this next.
        self.file = None;
        self.locks.held.lock().remove(&self.maildrop);
        self.locks.freed.notify_all();
    }
}

/// What has become of locking the user's file.
enum FileLock {
    Taken(OwnedFd),
    /// By another server.
    Held,
    /// There is nothing to keep from others.
    Needless,
}

/// Against other servers.
fn lock_everywhere(root: &Root, user: &UserName, deadline: Instant) -> io::Result<FileLock> {
    let directory = Folder::Top.path(user.as_str());
    let path = [&directory, &b"/"[..], FILE].concat();
    loop {
        let file = match root.lock_file(&path) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(FileLock::Needless),
            // Nothing can be removed there either.
            Err(error) if is_denial(&error) && !root.is_writable(&directory) => return Ok(FileLock::Needless),
            // Mail has to be removed to make room.
            Err(error) if is_full(&error) => return Ok(unlocked(&path, &error)),
            Err(error) => return Err(in_the_way(&path, error)),
        };
        match try_lock(&file) {
            Ok(()) => {
                let stat = fstat(&file)?;
                if !FileType::from_raw_mode(stat.st_mode).is_file() {
                    return Err(in_the_way(&path, io::Error::other("it is no file")));
                }
                // Unless somebody has removed it: then it is another file that counts.
                if stat.st_nlink > 0 {
                    return Ok(FileLock::Taken(file));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Ok(unlocked(&path, &error)), // a file system without locks
        }
        if Instant::now() >= deadline {
            return Ok(FileLock::Held);
        }
        thread::sleep(POLL);
    }
}

/// An OFD lock: of the open file, not of the process as fcntl(2)'s others, and seen by NFS, other than flock(2)'s.
fn try_lock(file: &OwnedFd) -> io::Result<()> {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Err(nix::Error::EACCES) => Err(io::ErrorKind::WouldBlock.into()), // as POSIX may call it
        result => Ok(result.map(|_| ())?),
    }
}

fn unlocked(path: &[u8], error: &io::Error) -> FileLock {
    log::warn!("{} cannot be locked, another server could have the maildrop too: {error}", root::display(path));
    FileLock::Needless
}

fn in_the_way(path: &[u8], error: io::Error) -> io::Error {
    log::error!("{} cannot be used for locking: {error}", root::display(path));
    error
}

fn is_denial(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS))
}

fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildrop::MailRoot;
    use std::fs;

    fn ana() -> UserName {
        "ana".parse().unwrap()
    }

    /// A mail root with a maildrop of ana's.
    fn mail() -> (tempfile::TempDir, Arc<Root>) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("ana")).unwrap();
        let root = MailRoot::open(directory.path().to_owned()).unwrap().current().unwrap();
        (directory, root)
    }

    #[test]
    fn a_maildrop_is_free_when_its_lock_is_dropped() {
        let locks = Arc::new(Locks::default());
        let ((_here, here), (_there, there)) = (mail(), mail());
        let take = |root: &Root| locks.lock(ana(), root).unwrap();
        let lock = take(&here).unwrap();
        assert_eq!(locks.users(), ["ana"]);
        assert!(take(&here).is_none());
        assert!(take(&there).is_some());
        let waiting = std::thread::spawn({
            let (locks, here) = (Arc::clone(&locks), Arc::clone(&here));
            move || locks.lock(ana(), &here).unwrap().is_some()
        });
        drop(lock);
        assert!(waiting.join().unwrap());
        assert!(locks.users().is_empty());
    }

    #[test]
    fn another_server_has_it_too() {
        let (directory, root) = mail();
        let (one, other) = (Arc::new(Locks::default()), Arc::new(Locks::default()));
        let lock = one.lock(ana(), &root).unwrap().unwrap();
        assert!(other.lock(ana(), &root).unwrap().is_none());
        assert!(other.users().is_empty());
        drop(lock);
        let _lock = other.lock(ana(), &root).unwrap().unwrap();
        assert_eq!(fs::metadata(directory.path().join("ana/.pop3d-lock")).unwrap().len(), 0);
    }

    #[test]
    fn no_maildrop_has_no_file() {
        let (directory, root) = mail();
        let locks = Arc::new(Locks::default());
        assert!(locks.lock("bob".parse().unwrap(), &root).unwrap().is_some());
        assert!(!directory.path().join("bob").exists());
    }

    #[test]
    fn what_is_no_file_is_not_locked() {
        let (directory, root) = mail();
        let file = directory.path().join("ana/.pop3d-lock");
        let outside = directory.path().join("outside");
        let refused = || {
            let locks = Arc::new(Locks::default());
            assert!(locks.lock(ana(), &root).is_err());
            assert!(locks.users().is_empty());
        };
        std::os::unix::fs::symlink(&outside, &file).unwrap();
        refused();
        assert!(!outside.exists());
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        refused();
        fs::remove_dir(&file).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        refused();
        let _reader = fs::File::options().read(true).write(true).open(&file).unwrap();
        refused();
    }
}
