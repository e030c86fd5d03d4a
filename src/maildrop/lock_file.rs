//! The lock against other servers, on this machine or on machines that mount the directory by NFS. It is a kernel lock
//! on a file. The file stays when the lock is released. It has one line that tells who took the lock last.
//!
//! All servers have to use the same file, whatever permissions each of them has. So its directory depends on the layout
//! alone. It is the directory from which messages are removed: `cur/` of a Maildir, `new/` if there is no `cur/`, and
//! the user's directory of a flat maildrop. For an mbox it is the directory that holds the mbox. A server that cannot lock the file there removes no messages.
//!
//! A session that shares the maildrop with others ([`super::busy::Terms`]) locks the file's first octet for reading. Any
//! other locks the whole file for writing, so those keep all others out, and are kept out by all others. Sessions that
//! share a maildrop take turns by locking the second octet for writing.
//!
//! A lock can be lost while its session goes on: see [`super::lock_kept`].

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Stat, fstat, ftruncate};
use rustix::io::{Errno, pread, pwrite};
use rustix::process::geteuid;

use super::directory::Directory;
use super::holder::Holder;
use super::layout;
use super::location::{Location, OwnFiles};
use super::lock_record::{self, Elsewhere, LENGTH, Record};
use super::message::Folder;
use super::open_file_lock::{TURN, is_locked, kind, try_lock, unlock};
use super::root;
use super::{RootId, is_missing};

const FILE: &str = "lock";

/// Returns the folder in which a maildrop's lock file belongs; `None` if the maildrop does not exist.
///
/// # Errors
/// When the directory is refused as a maildrop, or cannot be examined.
pub(super) fn folder(location: &Location) -> io::Result<Option<Folder>> {
    layout::lock_folder(location, FILE)
}

/// A locked lock file. It is unlocked when it is closed, and child processes do not inherit it.
#[derive(Debug)]
pub(super) struct LockFile {
    pub(super) file: OwnedFd,
    /// Its device and inode, as they were when it was opened.
    pub(super) id: RootId,
    pub(super) location: Location,
    pub(super) folder: Folder,
    shared: bool,
    /// True if the file has no other name (hard link). A user may have made another one of a file that is not the user's own.
    is_alone: bool,
    /// What this session has written into the file, if it has.
    pub(super) record: Option<Record>,
}

/// The result of trying to take the lock.
#[derive(Debug)]
pub(super) enum Attempt {
    Taken(LockFile),
    /// Another server holds the lock in this folder, or was faster just now.
    Busy(Folder),
    /// The lock cannot be taken, so nothing may be removed.
    Unavailable(io::Error),
}

impl LockFile {
    /// Tries to lock the maildrop of `user`, whose lock file belongs in `folder`.
    ///
    /// # Errors
    /// When something other than a lock file has its name.
    pub(super) fn take(location: &Location, folder: Folder, shared: bool) -> io::Result<Attempt> {
        let attempt = Self::take_in(location, folder, shared)?;
        match (&attempt, folder) {
            // If the Maildir has got a cur/ meanwhile, other servers lock the file there.
            (Attempt::Taken(_), Folder::New) if self::folder(location)? != Some(folder) => Ok(Attempt::Busy(folder)),
            (Attempt::Taken(_), Folder::Cur) => Ok(Self::end_of_another(location, shared)?.unwrap_or(attempt)),
            _ => Ok(attempt),
        }
    }

    /// Looks for a server that locked the Maildir before it had a cur/. If there is one, returns what that means for
    /// the lock in cur/. If not, removes the lock file in new/, which is not needed any more.
    fn end_of_another(location: &Location, shared: bool) -> io::Result<Option<Attempt>> {
        if !location.root().has(&path(location, Folder::New)) {
            return Ok(None);
        }
        match Self::take_in(location, Folder::New, false)? {
            // Its session shares the maildrop, too, and still needs the file.
            Attempt::Busy(_) if shared && matches!(Self::take_in(location, Folder::New, true)?, Attempt::Taken(_)) => {
                Ok(None)
            }
            Attempt::Taken(_old) => {
                match location
                    .root()
                    .directory(&location.folder(Folder::New))?
                    .unlink(&location.own_files(Folder::New).name(FILE))
                {
                    Ok(()) => Ok(None),
                    Err(error) => Ok(Some(Attempt::Unavailable(error))),
                }
            }
            other => Ok(Some(other)),
        }
    }

    fn take_in(location: &Location, folder: Folder, shared: bool) -> io::Result<Attempt> {
        let in_the_way = |error| in_the_way(&path(location, folder), error);
        let file = match open(location, folder, shared) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Attempt::Busy(folder)),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => return Err(error),
            Err(error) if is_obstacle(&error) => return Err(in_the_way(error)),
            Err(error) => return Ok(Attempt::Unavailable(error)),
        };
        match try_lock(&file, kind(shared)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Attempt::Busy(folder)),
            Err(error) => return Ok(Attempt::Unavailable(error)), // the file system does not support locks
        }
        let stat = fstat(&file)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(in_the_way(io::Error::other("it is no file")));
        }
        if stat.st_nlink == 0 {
            return Ok(Attempt::Busy(folder)); // another server replaced the file after it was opened here
        }
        if folder == Folder::Top {
            share_if_roots(location, &file, &stat)?;
        }
        let (id, is_alone) = (RootId::new(&stat), stat.st_nlink == 1);
        Ok(Attempt::Taken(Self { file, id, location: location.clone(), folder, shared, is_alone, record: None }))
    }

    /// Returns true if other sessions may share the maildrop.
    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }

    /// Tries to begin this session's turn among those that share the maildrop.
    pub(super) fn try_turn(&self) -> io::Result<()> {
        try_lock(&self.file, &TURN)
    }

    /// Ends this session's turn.
    pub(super) fn end_turn(&self) {
        // It cannot fail for a lock that is held.
        let _ = unlock(&self.file, &TURN);
    }

    /// Writes into the file which session holds the lock.
    pub(super) fn name_holder(&mut self, holder: &Holder) {
        if !self.is_alone {
            return;
        }
        let record = lock_record::record(holder);
        // Without the line, other servers only cannot tell who holds the lock.
        match pwrite(&self.file, &record, 0) {
            Ok(_) => self.record = Some(record),
            // The line of the session before would be wrong.
            Err(_) => drop(ftruncate(&self.file, 0)),
        }
    }

    /// Takes the lock once more, which changes nothing while it is held.
    pub(super) fn take_again(&self) -> io::Result<()> {
        try_lock(&self.file, kind(self.shared))
    }
}

/// Returns which session holds the lock in `folder`, if the file there tells. It does not say whether the lock is held.
pub(super) fn named_holder(location: &Location, folder: Folder) -> Option<Elsewhere> {
    read_holder(location, folder).ok()?
}

/// Does the same, and returns the error if the file cannot be read.
pub(super) fn read_holder(location: &Location, folder: Folder) -> io::Result<Option<Elsewhere>> {
    let (file, _) = location.root().file(&path(location, folder))?;
    let mut record = [0; LENGTH];
    let read = pread(&file, &mut record[..], 0)?;
    Ok(Elsewhere::parse(&record[..read]))
}

/// Returns which session of another server holds the lock now, if one does and the file tells. Does not take the lock.
pub(super) fn holder_elsewhere(location: &Location) -> Option<Elsewhere> {
    held_elsewhere(location)?.1
}

/// Returns the lock file that is locked now, if one is, and the session that it names.
pub(super) fn held_elsewhere(location: &Location) -> Option<(File, Option<Elsewhere>)> {
    let folder = folder(location).ok()??;
    // A Maildir may have been locked before it had a cur/.
    let folders = [Some(folder), (folder == Folder::Cur).then_some(Folder::New)];
    folders.into_iter().flatten().find_map(|folder| {
        let (file, _) = location.root().file(&path(location, folder)).ok()?;
        is_locked(&file).then(|| (file, named_holder(location, folder)))
    })
}

/// The path of a lock file below the mail root.
pub(super) fn path(location: &Location, folder: Folder) -> Vec<u8> {
    location.own_files(folder).path(FILE)
}

/// Opens the lock file, or creates it. Returns `None` if another server was faster. A lock for reading needs a file that can
/// be read.
fn open(location: &Location, folder: Folder, for_reading: bool) -> io::Result<Option<OwnedFd>> {
    let own = location.own_files(folder);
    let directory = || location.root().directory(&own.directory());
    let name = || own.name(FILE);
    let create = |directory: &Directory| create(&own, directory, &name());
    let existing = || location.root().lock_file(&own.path(FILE), for_reading);
    let created = |file: Option<OwnedFd>| file.map(|file| if for_reading { existing() } else { Ok(file) }).transpose();
    match existing() {
        Ok(file) if location.root().may_use(&own, &file) => Ok(Some(file)),
        Ok(_) => {
            let directory = directory()?;
            directory.unlink(&name())?;
            create(&directory).and_then(created)
        }
        Err(error) if is_missing(&error) => create(&directory()?).and_then(created),
        Err(error) if is_denial(&error) => {
            let directory = directory()?;
            if !directory.has_file(&name()) || directory.unlink(&name()).is_err() {
                return Err(error);
            }
            create(&directory).and_then(created)
        }
        Err(error) => Err(error),
    }
}

/// Gives a lock file that an earlier version left as root's to the owner of the maildrop. Such a file is empty and in a
/// user's directory; versions that lock in cur/ or new/ give their files away when they create them.
fn share_if_roots(location: &Location, file: &OwnedFd, stat: &Stat) -> io::Result<()> {
    let (root, directory) = (location.root(), location.path());
    let is_roots = geteuid().is_root() && (stat.st_uid, stat.st_size, stat.st_nlink) == (0, 0, 1);
    if is_roots && !root.is_shared_like(directory, stat)? {
        root.directory(directory)?.share(file)?;
    }
    Ok(())
}

fn create(own: &OwnFiles<'_>, directory: &Directory, name: &[u8]) -> io::Result<Option<OwnedFd>> {
    match own.create(directory, name) {
        Ok(file) => Ok(Some(file.into())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
    }
}

fn in_the_way(path: &[u8], error: io::Error) -> io::Error {
    log::error!("{} cannot be used for locking: {error}", root::display(path));
    error
}

pub(super) fn is_denial(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ACCESS | Errno::PERM))
}

/// Returns true for errors that make the login fail: something other than a file has the name, or the disk fails.
/// Missing permission or space only makes the maildrop read-only.
fn is_obstacle(error: &io::Error) -> bool {
    let for_now = [Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::NOSPC, Errno::DQUOT, Errno::NOENT];
    !Errno::from_io_error(error).is_some_and(|error| for_now.contains(&error))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::maildrop::MailRoot;
    use crate::maildrop::open_file_lock::WHOLE_FILE;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::path::{Path, PathBuf};

    /// A mail root with a maildrop for ana that has these folders.
    pub(in crate::maildrop) struct Mail(tempfile::TempDir, Location);

    impl Mail {
        pub(in crate::maildrop) fn with(folders: &[&str]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            for folder in folders {
                fs::create_dir_all(directory.path().join("ana").join(folder)).unwrap();
            }
            let root = MailRoot::open(directory.path().to_owned()).unwrap();
            let location = root.location("ana".parse().unwrap()).unwrap();
            Self(directory, location)
        }

        pub(in crate::maildrop) fn path(&self, name: &str) -> PathBuf {
            self.0.path().join("ana").join(name)
        }

        fn take(&self) -> Attempt {
            LockFile::take(&self.1, folder(&self.1).unwrap().unwrap(), false).unwrap()
        }

        #[track_caller]
        pub(in crate::maildrop) fn is_busy(&self) {
            assert!(matches!(self.take(), Attempt::Busy(_)));
        }

        #[track_caller]
        pub(in crate::maildrop) fn taken(&self) -> LockFile {
            match self.take() {
                Attempt::Taken(lock) => lock,
                other => panic!("{other:?}"),
            }
        }
    }

    impl LockFile {
        /// Unlocks the file, as a file system does that has lost its server for a while.
        pub(in crate::maildrop) fn forget(&self) {
            unlock(&self.file, &WHOLE_FILE).unwrap();
        }
    }

    fn give_away(path: &Path) {
        chown(path, Some(54321), Some(54321)).unwrap();
    }

    #[test]
    fn the_lock_file_is_in_the_folder_from_which_messages_are_removed() {
        for (folders, folder) in [(&[""][..], ""), (&["cur", "new"], "cur"), (&["new"], "new"), (&["cur"], "cur")] {
            let mail = Mail::with(folders);
            let lock = mail.taken();
            assert!(mail.path(folder).join(".pop3d-lock").exists(), "{folders:?}");
            mail.is_busy();
            drop(lock);
            mail.taken();
        }
    }

    #[test]
    fn a_maildir_that_gets_a_cur_stays_locked() {
        let mail = Mail::with(&["new"]);
        let lock = mail.taken();
        fs::create_dir(mail.path("cur")).unwrap();
        mail.is_busy();
        drop(lock);
        let lock = mail.taken();
        assert!(!mail.path("new/.pop3d-lock").exists());
        assert!(matches!(LockFile::take(&mail.1, Folder::New, false).unwrap(), Attempt::Busy(_)));
        assert!(lock.is_held());
    }

    #[test]
    fn nothing_is_written_into_a_file_with_other_names() {
        let mail = Mail::with(&["cur"]);
        let other = mail.0.path().join("other");
        fs::write(&other, "another user's").unwrap();
        fs::hard_link(&other, mail.path("cur/.pop3d-lock")).unwrap();
        let origin = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 1)).into();
        mail.taken().name_holder(&Holder { session: Some(17), origin, since: std::time::Instant::now() });
        assert_eq!(fs::read_to_string(other).unwrap(), "another user's");
    }

    #[test]
    fn lock_files_made_by_root_belong_to_the_directorys_owner() {
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
