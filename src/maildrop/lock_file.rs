//! The lock against other servers, on this machine or on others that have the directory by NFS: a lock of the kernel's on
//! a file that stays, is empty and means nothing by itself.
//!
//! All servers have to agree where that file is, whatever rights each of them has. So its place depends on the layout
//! alone. It is where messages are removed: in `cur/` of a Maildir, in `new/` if there is no `cur/`, and in the user's
//! directory of a flat maildrop. A server that cannot lock it there removes nothing.
//!
//! A lock is good as long as its file is the one in the directory. A server that may not open a file, because another one
//! left it with narrow permissions, may put a new one in its place. Then the lock on the old one is lost.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{FileType, Stat, fstat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::layout;
use super::message::Folder;
use super::root::{self, Root};
use super::{RootId, UserName, is_missing};

const NAME: &[u8] = b".pop3d-lock";

/// The folder in which the lock file of a maildrop is or is to be; `None` if the maildrop is not there.
///
/// # Errors
/// When the directory is not to be taken for a maildrop, or this cannot be told.
pub(super) fn folder(root: &Root, user: &UserName) -> io::Result<Option<Folder>> {
    layout::lock_folder(root, user.as_str(), NAME)
}

/// A lock file that is locked as long as it is open. No program inherits it.
#[derive(Debug)]
pub(super) struct LockFile {
    file: OwnedFd,
    /// Its device and inode, as they were when it was opened.
    id: RootId,
    root: Arc<Root>,
    folder: Folder,
}

/// What has come of an attempt to take the lock.
#[derive(Debug)]
pub(super) enum Attempt {
    Taken(LockFile),
    /// Another server has it, or was faster just now.
    Busy,
    /// It cannot be taken, so nothing may be removed.
    Unavailable(io::Error),
}

impl LockFile {
    /// Tries to lock the maildrop of `user`, whose lock file belongs in `folder`.
    ///
    /// # Errors
    /// When something that is not a lock file is in its place.
    pub(super) fn take(root: &Arc<Root>, user: &UserName, folder: Folder) -> io::Result<Attempt> {
        let attempt = Self::take_in(root, user, folder)?;
        match (&attempt, folder) {
            // A Maildir that has got its cur/ meanwhile is locked there by others.
            (Attempt::Taken(_), Folder::New) if self::folder(root, user)? != Some(folder) => Ok(Attempt::Busy),
            (Attempt::Taken(_), Folder::Cur) => Ok(Self::end_of_another(root, user)?.unwrap_or(attempt)),
            _ => Ok(attempt),
        }
    }

    /// Whoever locked a Maildir before it had a cur/ may still have it. If so, returns what that means for the lock in
    /// cur/; if not, removes the file, which counts no longer.
    fn end_of_another(root: &Arc<Root>, user: &UserName) -> io::Result<Option<Attempt>> {
        if !root.has(&path(Folder::New, user)) {
            return Ok(None);
        }
        match Self::take_in(root, user, Folder::New)? {
            Attempt::Taken(_old) => match root.directory(&Folder::New.path(user.as_str()))?.unlink(NAME) {
                Ok(()) => Ok(None),
                Err(error) => Ok(Some(Attempt::Unavailable(error))),
            },
            other => Ok(Some(other)),
        }
    }

    fn take_in(root: &Arc<Root>, user: &UserName, folder: Folder) -> io::Result<Attempt> {
        let path = path(folder, user);
        let file = match open(root, user, folder) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Attempt::Busy),
            Err(error) if is_obstacle(&error) => return Err(in_the_way(&path, error)),
            Err(error) => return Ok(Attempt::Unavailable(error)),
        };
        match try_lock(&file) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Attempt::Busy),
            Err(error) => return Ok(Attempt::Unavailable(error)), // a file system without locks
        }
        let stat = fstat(&file)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(in_the_way(&path, io::Error::other("it is no file")));
        }
        if stat.st_nlink == 0 {
            return Ok(Attempt::Busy); // another server replaced the file after it was opened here
        }
        if folder == Folder::Top {
            share_if_roots(root, user, &file, &stat)?;
        }
        Ok(Attempt::Taken(Self { file, id: RootId::new(&stat), root: Arc::clone(root), folder }))
    }

    /// Whether the locked file is still the one that other servers would lock. Nothing is left to lock if the maildrop has
    /// gone with the file.
    pub(super) fn is_held(&self, user: &UserName) -> bool {
        match self.root.names(&path(self.folder, user), &self.file, self.id) {
            Ok(is_named) => is_named,
            Err(error) => is_missing(&error) && matches!(self.root.named(user.as_str()), Ok(None)),
        }
    }
}

/// The path of a lock file below the mail root.
fn path(folder: Folder, user: &UserName) -> Vec<u8> {
    [&folder.path(user.as_str()), &b"/"[..], NAME].concat()
}

/// Opens the lock file, which is made if it is missing. `None` when another server was faster.
fn open(root: &Root, user: &UserName, folder: Folder) -> io::Result<Option<OwnedFd>> {
    let directory = || root.directory(&folder.path(user.as_str()));
    match root.lock_file(&path(folder, user)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if is_missing(&error) => create(&directory()?),
        Err(error) if is_denial(&error) => {
            let directory = directory()?;
            if !directory.has_file(NAME) || directory.unlink(NAME).is_err() {
                return Err(error);
            }
            create(&directory)
        }
        Err(error) => Err(error),
    }
}

/// Gives a lock file that an earlier version left as root's to the owner of the maildrop. Such a file is empty and in a
/// user's directory; versions that lock in cur/ or new/ give their files away when they create them.
fn share_if_roots(root: &Root, user: &UserName, file: &OwnedFd, stat: &Stat) -> io::Result<()> {
    let directory = Folder::Top.path(user.as_str());
    let is_roots = geteuid().is_root() && (stat.st_uid, stat.st_size, stat.st_nlink) == (0, 0, 1);
    if is_roots && !root.is_shared_like(&directory, stat)? {
        root.directory(&directory)?.share(file)?;
    }
    Ok(())
}

fn create(directory: &root::Directory) -> io::Result<Option<OwnedFd>> {
    match directory.create(NAME) {
        Ok(file) => Ok(Some(file.into())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
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

fn in_the_way(path: &[u8], error: io::Error) -> io::Error {
    log::error!("{} cannot be used for locking: {error}", root::display(path));
    error
}

fn is_denial(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ACCESS | Errno::PERM))
}

/// Something else than a file, a failing disk or the server itself: not a matter of rights or room, so the login fails
/// and may succeed later.
fn is_obstacle(error: &io::Error) -> bool {
    let for_now = [Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::NOSPC, Errno::DQUOT, Errno::NOENT];
    !Errno::from_io_error(error).is_some_and(|error| for_now.contains(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildrop::MailRoot;
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::path::{Path, PathBuf};

    /// A mail root with a maildrop of ana's, which has these folders.
    struct Mail(tempfile::TempDir, Arc<Root>);

    impl Mail {
        fn with(folders: &[&str]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            for folder in folders {
                fs::create_dir_all(directory.path().join("ana").join(folder)).unwrap();
            }
            let root = MailRoot::open(directory.path().to_owned()).unwrap().current().unwrap();
            Self(directory, root)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join("ana").join(name)
        }

        fn take(&self) -> Attempt {
            LockFile::take(&self.1, &ana(), folder(&self.1, &ana()).unwrap().unwrap()).unwrap()
        }

        #[track_caller]
        fn taken(&self) -> LockFile {
            match self.take() {
                Attempt::Taken(lock) => lock,
                other => panic!("{other:?}"),
            }
        }
    }

    fn ana() -> UserName {
        "ana".parse().unwrap()
    }

    fn give_away(path: &Path) {
        chown(path, Some(54321), Some(54321)).unwrap();
    }

    #[test]
    fn it_is_where_messages_are_removed() {
        for (folders, place) in [(&[""][..], ""), (&["cur", "new"], "cur"), (&["new"], "new"), (&["cur"], "cur")] {
            let mail = Mail::with(folders);
            let lock = mail.taken();
            assert!(mail.path(place).join(".pop3d-lock").exists(), "{folders:?}");
            assert!(matches!(mail.take(), Attempt::Busy));
            drop(lock);
            mail.taken();
        }
    }

    #[test]
    fn a_maildir_that_gets_a_cur_stays_locked() {
        let mail = Mail::with(&["new"]);
        let lock = mail.taken();
        fs::create_dir(mail.path("cur")).unwrap();
        assert!(matches!(mail.take(), Attempt::Busy));
        drop(lock);
        let lock = mail.taken();
        assert!(!mail.path("new/.pop3d-lock").exists());
        assert!(matches!(LockFile::take(&mail.1, &ana(), Folder::New).unwrap(), Attempt::Busy));
        assert!(lock.is_held(&ana()));
    }

    #[test]
    fn a_lock_is_lost_with_its_file() {
        let mail = Mail::with(&[""]);
        let lock = mail.taken();
        assert!(lock.is_held(&ana()));
        fs::remove_file(mail.path(".pop3d-lock")).unwrap();
        assert!(!lock.is_held(&ana()));
        let next = mail.taken();
        assert!(next.is_held(&ana()) && !lock.is_held(&ana()));
        // Moved away, the file still exists.
        fs::rename(mail.path(".pop3d-lock"), mail.path(".elsewhere")).unwrap();
        assert!(!next.is_held(&ana()));
        let last = mail.taken();
        assert!(last.is_held(&ana()) && !next.is_held(&ana()));
    }

    #[test]
    fn what_root_makes_and_has_left_is_the_owners() {
        if !geteuid().is_root() {
            return;
        }
        for (folder, left) in [("cur", false), ("", false), ("", true)] {
            let mail = Mail::with(&[folder]);
            let path = mail.path(folder).join(".pop3d-lock");
            give_away(&mail.path(folder));
            if left {
                File::create(&path).unwrap().set_permissions(Permissions::from_mode(0o640)).unwrap();
            }
            mail.taken();
            let made = fs::metadata(&path).unwrap();
            assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (54321, 54321, 0o600));
        }
    }
}
