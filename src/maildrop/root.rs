//! The mail directory. All files are opened through this module: beneath the mail directory, never through a symbolic
//! link, and without blocking on a FIFO.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{self, Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::process::{geteuid, getuid};

use super::directory::Directory;
use super::homes::Named;
use super::identity::{Identity, Stamp};
use super::layout::Layouts;
use super::location::{Location, OwnFiles};
use super::system;
use super::walk;
use crate::owner;

/// An open mail directory. All sessions share its descriptor.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    id: RootId,
    links: Links,
    layouts: Arc<Layouts>,
}

/// What becomes of the operator's links in a mail directory. Links below it are never followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    Followed,
    /// They were followed before the directory was opened.
    Refused,
}

/// Identifies a directory by device and inode, whichever path leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl RootId {
    pub(super) fn new(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

impl Root {
    pub(super) fn open(path: &Path, layouts: &Arc<Layouts>) -> io::Result<Self> {
        // Links in the path of the mail directory were made by the operator, so they are followed. The look at "."
        // below needs the permission to search the directory.
        let directory = fs::openat(CWD, path, SEARCH, Mode::empty())?;
        system::refuse(&directory)?;
        Self::new(directory, Links::Followed, layouts)
    }

    pub(super) fn new(directory: OwnedFd, links: Links, layouts: &Arc<Layouts>) -> io::Result<Self> {
        if is_fenced_off(&directory) {
            let why = "the server may not reach it (--allow-dir at its start would let it)";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let id = RootId::new(&fs::statat(&directory, ".", AtFlags::empty())?);
        Ok(Self { directory, id, links, layouts: Arc::clone(layouts) })
    }

    /// Follows a link that the operator has put into this directory: one that root or the server's own user owns. Returns
    /// the directory that holds the link's target, and the target's path there. Links on the way to the target are not
    /// followed, because users may have made them.
    ///
    /// # Errors
    /// When `name` is no such link, or its target cannot be reached.
    pub(super) fn follow(&self, name: &[u8]) -> io::Result<(Self, Vec<u8>)> {
        let link = fs::openat(&self.directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = fs::fstat(&link)?;
        let is_link = FileType::from_raw_mode(stat.st_mode).is_symlink();
        if self.links == Links::Refused || !is_link || !walk::is_operators(&stat) {
            return Err(Errno::LOOP.into());
        }
        let target = fs::readlinkat(&link, c"", Vec::new())?.into_bytes();
        let found = walk::find_target(&self.directory, &target)?;
        if found.rest == b"." {
            return Err(Errno::LOOP.into());
        }
        Ok((Self::new(found.directory, Links::Refused, &self.layouts)?, found.rest))
    }

    /// The directory's path as the kernel knows it at present, if it tells.
    pub(super) fn absolute(&self) -> Option<CString> {
        let link = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        fs::readlink(link, Vec::new()).ok()
    }

    /// The directory's device and inode.
    #[must_use]
    pub fn id(&self) -> RootId {
        self.id
    }

    /// The rules for the layout of the maildrops in this directory.
    pub(super) fn layouts(&self) -> &Layouts {
        &self.layouts
    }

    /// The same rules, to be kept and compared with those of another time.
    pub(super) fn shared_layouts(&self) -> &Arc<Layouts> {
        &self.layouts
    }

    /// Returns true if there is a directory at `path` below the root.
    ///
    /// # Errors
    /// When the path cannot be examined, or is a link, which is not followed.
    pub(super) fn has_directory(&self, path: &[u8]) -> io::Result<bool> {
        match fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_symlink() => Err(Errno::LOOP.into()),
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode).is_dir()),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns what is at `location`.
    ///
    /// # Errors
    /// When the path cannot be examined, or is neither a directory nor a regular file.
    pub(super) fn look(&self, location: &Location) -> io::Result<Look> {
        match fs::statat(&self.directory, location.path(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Ok(Look::Directory(named(&stat, location.user().as_str()))),
                FileType::Symlink => Err(Errno::LOOP.into()),
                FileType::RegularFile => Ok(Look::File),
                _ => Err(Errno::NOTDIR.into()),
            },
            Err(Errno::NOENT) => Ok(Look::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the directory at `path` below the root for listing it.
    pub(super) fn directory(&self, path: &[u8]) -> io::Result<Directory> {
        open_beneath(&self.directory, path, OFlags::RDONLY | OFlags::DIRECTORY).map(Directory)
    }

    /// Returns when the directory at `path` below the root was last changed. Links in the path are followed: the caller
    /// only compares the result with that of a directory that was opened without following links.
    pub(super) fn stamp(&self, path: &[u8]) -> io::Result<Stamp> {
        Ok(Stamp::new(&fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// Returns the state of what is at `path` below the root. A link there is not followed.
    pub(super) fn file_stat(&self, path: &[u8]) -> io::Result<Stat> {
        Ok(fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Opens the regular file at `path` below the root for reading.
    pub(super) fn file(&self, path: &[u8]) -> io::Result<(File, Identity)> {
        regular(open_beneath(&self.directory, path, READ)?)
    }

    /// Opens the regular file at `path` below the root for reading and writing.
    pub(super) fn writable_file(&self, path: &[u8]) -> io::Result<(File, Identity)> {
        regular(open_beneath(&self.directory, path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY)?)
    }

    /// Opens the regular file at `path` below the root for appending to it.
    pub(super) fn file_to_append(&self, path: &[u8]) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY;
        regular(open_beneath(&self.directory, path, flags)?).map(|(file, _)| file)
    }

    /// Opens the server's lock file at `path` below the root. Only a lock for reading needs the right to read it.
    pub(super) fn lock_file(&self, path: &[u8], for_reading: bool) -> io::Result<OwnedFd> {
        let access = if for_reading { OFlags::RDWR } else { OFlags::WRONLY };
        open_beneath(&self.directory, path, access | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    /// Returns true if something exists at `path` below the root. A link there is not followed.
    pub(super) fn has(&self, path: &[u8]) -> bool {
        fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Returns true if a file already has the owner and the mode that [`Directory::share`] would give it in the directory
    /// `path` below the root. That takes one system call.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub(super) fn is_shared_like(&self, path: &[u8], file: &Stat) -> io::Result<bool> {
        Ok(owner::is_shared_like(&fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW)?, file))
    }

    /// Returns true unless another user may have put an open file of the server's own beside an mbox. Where every user may
    /// create files, such a file has to belong to the mbox's owner, the directory's or the server's user, or root.
    pub(super) fn may_use(&self, files: &OwnFiles<'_>, file: impl AsFd) -> bool {
        let Some(mbox) = files.mbox() else { return true };
        let stat = |path: &[u8]| fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW);
        let (Ok(directory), Ok(file)) = (stat(&files.directory()), fs::fstat(file)) else { return false };
        if directory.st_mode & 0o002 == 0 {
            return true;
        }
        let is_known = [0, geteuid().as_raw(), getuid().as_raw(), directory.st_uid].contains(&file.st_uid);
        let has_one_name = file.st_nlink == 1 || FileType::from_raw_mode(file.st_mode).is_dir();
        has_one_name && (is_known || stat(&mbox).is_ok_and(|mbox| mbox.st_uid == file.st_uid))
    }

    /// Whether `path` below the root still names the open `file`, whose device and inode were `id` when it was opened.
    /// A symbolic link there is not followed.
    ///
    /// On some FUSE mounts a file has another inode each time it is looked at. There the times are compared: two files
    /// have equal times only if they were created at the same moment and were not renamed since.
    ///
    /// # Errors
    /// Those of fstatat(2) and fstat(2); `NotFound` when nothing has that name.
    pub(super) fn names(&self, path: &[u8], file: impl AsFd, id: RootId) -> io::Result<bool> {
        let named = fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW)?;
        if RootId::new(&named) == id {
            return Ok(true); // no other file can have the inode of one that is open
        }
        let open = fs::fstat(file)?;
        let times = |stat: &Stat| Identity { inode: 0, ..Identity::new(stat) };
        Ok(open.st_nlink > 0 && times(&named) == times(&open))
    }
}

/// What a location is, as [`Root::look`] finds it.
pub(super) enum Look {
    Nothing,
    Directory(Named),
    File,
}

pub(super) fn named(stat: &Stat, user: &str) -> Named {
    Named { id: RootId::new(stat), user: user.to_owned(), owner: stat.st_uid }
}

/// Returns true if Landlock, rather than file permissions, denies access to the directory.
fn is_fenced_off(directory: &OwnedFd) -> bool {
    let opened = fs::openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    matches!(opened, Err(Errno::ACCESS)) && fs::accessat(directory, ".", Access::READ_OK, AtFlags::EACCESS).is_ok()
}

/// Flags for opening a directory below which other files are opened.
pub(super) const SEARCH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Flags for reading. With them a FIFO does not block the server, and a terminal does not become its controlling
/// terminal.
pub(super) const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Returns an open file if it is a regular one. Anything else counts as missing.
pub(super) fn regular(file: OwnedFd) -> io::Result<(File, Identity)> {
    let stat = fs::fstat(&file)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(Errno::NOENT.into());
    }
    Ok((file.into(), Identity::new(&stat)))
}

fn open_beneath(directory: &OwnedFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match fs::openat2(directory, path, flags, Mode::empty(), resolve) {
        // Old kernels lack openat2(2), and the seccomp filters of some containers refuse it.
        Err(Errno::NOSYS | Errno::PERM) => walk_beneath(directory, path, flags),
        result => Ok(result?),
    }
}

/// Does the same as openat2(2) by opening one component at a time.
fn walk_beneath(directory: &OwnedFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let mut components = path.split(|&octet| octet == b'/');
    let last = components.next_back().unwrap_or_default();
    let mut directory = directory.try_clone()?;
    for component in components {
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = fs::openat(&directory, component, step, Mode::empty())?;
    }
    Ok(fs::openat(&directory, last, flags | OFlags::NOFOLLOW, Mode::empty())?)
}

/// Formats a path for log lines.
pub(super) fn display(path: &[u8]) -> String {
    format!("{:?}", OsString::from_vec(path.to_vec()))
}
