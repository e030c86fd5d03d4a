//! The kernel's locks on ranges of a file, which belong to the open file and work across NFS.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Takes an open file description lock (fcntl(2)). Unlike fcntl(2)'s other locks it belongs to the open file rather
/// than to the process, and unlike flock(2)'s it works across NFS.
pub(super) fn try_lock(file: &OwnedFd, lock: &libc::flock) -> io::Result<()> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(lock)) {
        Err(nix::Error::EACCES) => Err(io::ErrorKind::WouldBlock.into()), // POSIX allows this error too
        result => Ok(result.map(|_| ())?),
    }
}

/// Releases a lock.
pub(super) fn unlock(file: &OwnedFd, lock: &libc::flock) -> io::Result<()> {
    try_lock(file, &libc::flock { l_type: libc::F_UNLCK as libc::c_short, ..*lock })
}

/// Returns true if the lock is held through another open file.
pub(super) fn is_locked(file: &File) -> bool {
    let mut found = WHOLE_FILE;
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).is_ok() && found.l_type != libc::F_UNLCK as libc::c_short
}

/// The lock of a session that holds a maildrop, or that shares it.
pub(super) fn kind(shared: bool) -> &'static libc::flock {
    if shared { &FOR_READING } else { &WHOLE_FILE }
}

/// A lock for writing on all of a file.
pub(super) const WHOLE_FILE: libc::flock = libc::flock {
    l_type: libc::F_WRLCK as libc::c_short,
    l_whence: libc::SEEK_SET as libc::c_short,
    l_start: 0,
    l_len: 0,
    l_pid: 0,
};

/// The lock of a session that shares the maildrop.
const FOR_READING: libc::flock = libc::flock { l_type: libc::F_RDLCK as libc::c_short, l_len: 1, ..WHOLE_FILE };

/// The lock of the session, among those that share the maildrop, whose turn it is.
pub(super) const TURN: libc::flock = libc::flock { l_start: 1, l_len: 1, ..WHOLE_FILE };
