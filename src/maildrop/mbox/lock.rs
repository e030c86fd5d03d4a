//! Locks of an mbox, as Debian's policy (section 11.6) has them: fcntl(2) for reading, and for writing fcntl(2) and then a
//! dot-lock, a file `NAME.lock`. Mail is delivered only between such locks, so they are held for one read or rewrite and
//! never while a client is waited for.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
use rustix::io::Errno;
use rustix::process::{Pid, getpid, test_kill_process};

use crate::maildrop::directory::Directory;
use crate::owner;

/// How long a session waits for a program that is delivering or rewriting.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a lock that another program holds is tried.
const POLL: Duration = Duration::from_millis(10);

/// The age at which a dot-lock is stale. A program that holds one for longer has to touch it.
const STALE: Duration = Duration::from_secs(300);

/// Locks a file for reading, until it is closed.
///
/// # Errors
/// When another program keeps it locked for writing, or the file system has no locks.
pub(super) fn for_reading(file: &File) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !try_lock(file, libc::F_RDLCK)? {
        wait(deadline)?;
    }
    Ok(())
}

/// Locks the file `name` of a directory for writing: by fcntl(2) until it is closed, and by a dot-lock until that is
/// dropped.
///
/// # Errors
/// When another program keeps it locked, or the locks cannot be made.
pub(super) fn for_writing<'a>(file: &File, directory: &'a Directory, name: &[u8]) -> io::Result<DotLock<'a>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if try_lock(file, libc::F_WRLCK)? {
            if let Some(lock) = DotLock::try_new(file, directory, name)? {
                return Ok(lock);
            }
            // The program that holds the dot-lock may be waiting for the other lock.
            try_lock(file, libc::F_UNLCK)?;
        }
        wait(deadline)?;
    }
}

fn wait(deadline: Instant) -> io::Result<()> {
    if Instant::now() >= deadline {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "another program keeps the mbox locked"));
    }
    thread::sleep(POLL);
    Ok(())
}

/// Takes a lock of the open file on the whole file, or gives it up.
fn try_lock(file: &File, kind: libc::c_int) -> io::Result<bool> {
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(true),
        Err(nix::Error::EACCES | nix::Error::EAGAIN | nix::Error::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A dot-lock. Dropping it removes the file, if it is still this one.
#[derive(Debug)]
pub(super) struct DotLock<'a> {
    directory: &'a Directory,
    name: Vec<u8>,
    file: File,
}

impl<'a> DotLock<'a> {
    /// Makes the dot-lock. Returns `None` if another program holds it. The mbox is locked by fcntl(2) meanwhile, so no two
    /// programs that go by the policy break a stale lock at once.
    fn try_new(mbox: &File, directory: &'a Directory, mbox_name: &[u8]) -> io::Result<Option<Self>> {
        let name = dot_lock_name(mbox_name);
        let made = match directory.create_plain(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_stale(directory, &name) => {
                break_stale(directory, &name)?;
                directory.create_plain(&name)
            }
            made => made,
        };
        match made {
            Ok(mut file) => {
                // The user's own programs have to be able to break it where only a file's owner may remove it.
                let _ = owner::give_to_owner_of(mbox, &file);
                // On a full disk the lock is empty. Then it goes by its age.
                let _ = write!(file, "{}", std::process::id());
                Ok(Some(Self { directory, name, file }))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Shows other programs that the lock is not stale. It is called again and again while the lock is held.
    pub(super) fn refresh(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let _ = futimens(&self.file, &Timestamps { last_access: now, last_modification: now });
    }

    fn is_there(&self) -> io::Result<bool> {
        Ok(self.directory.identity(&self.name)?.inode == self.file.metadata()?.ino())
    }
}

impl Drop for DotLock<'_> {
    fn drop(&mut self) {
        let removed = match self.is_there() {
            Ok(true) => self.directory.unlink(&self.name),
            Ok(false) => Err(io::Error::other("another program has replaced it")),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            log::error!("the lock {} cannot be removed: {error}", crate::maildrop::root::display(&self.name));
        }
    }
}

/// Removes the dot-lock of the mbox `name` if it is stale: a server that was killed has left it. Programs that go by its age
/// alone would wait for minutes.
pub(super) fn remove_stale(mbox: &File, directory: &Directory, name: &[u8]) -> io::Result<()> {
    let name = dot_lock_name(name);
    if is_stale(directory, &name) && try_lock(mbox, libc::F_WRLCK)? {
        let broken = if is_stale(directory, &name) { break_stale(directory, &name) } else { Ok(()) };
        try_lock(mbox, libc::F_UNLCK)?;
        return broken;
    }
    Ok(())
}

/// The name of an mbox's dot-lock.
pub(super) fn dot_lock_name(name: &[u8]) -> Vec<u8> {
    [name, b".lock"].concat()
}

fn break_stale(directory: &Directory, name: &[u8]) -> io::Result<()> {
    log::warn!("the stale lock {} is removed", crate::maildrop::root::display(name));
    directory.unlink(name)
}

/// A dot-lock that some program has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::maildrop) struct DotLockState {
    /// It is 5 minutes old, or names a process that has ended. A lock without a process id, or with 0, goes by its age.
    pub(in crate::maildrop) is_stale: bool,
    /// The process that it names.
    pub(in crate::maildrop) process: Option<i32>,
}

/// The dot-lock of the mbox `name`, if there is one that can be read.
pub(super) fn dot_lock(directory: &Directory, name: &[u8]) -> Option<DotLockState> {
    state(directory, &dot_lock_name(name))
}

pub(super) fn is_stale(directory: &Directory, name: &[u8]) -> bool {
    state(directory, name).is_some_and(|state| state.is_stale)
}

/// Examines a dot-lock.
///
/// A lock that names this process is stale as well. The server keeps an mbox locked by fcntl(2) as long as it has a dot-lock,
/// so another server that had the same process id has left it, as in a container.
fn state(directory: &Directory, name: &[u8]) -> Option<DotLockState> {
    let (mut file, _) = directory.file(name).ok()?;
    let modified = file.metadata().ok()?.mtime();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(modified).unwrap_or(0));
    let is_old = SystemTime::now().duration_since(modified).is_ok_and(|age| age >= STALE);
    let mut text = [0; 16];
    let length = file.read(&mut text).unwrap_or(0);
    let process = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse().ok());
    let process = process.filter(|&process| process > 0);
    let pid = process.and_then(Pid::from_raw);
    let has_ended = pid.is_some_and(|pid| pid == getpid() || test_kill_process(pid) == Err(Errno::SRCH));
    Some(DotLockState { is_stale: is_old || has_ended, process })
}
