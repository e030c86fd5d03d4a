//! The mail root and the only way into it: every path is opened beneath the root, never through a symbolic
//! link, never blocking on a FIFO.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// The directory that holds a directory for each user, as the operator named it.
#[derive(Debug)]
pub struct MailRoot {
    path: PathBuf,
    directory: Mutex<Arc<Root>>,
}

impl MailRoot {
    /// # Errors
    /// When `path` is not a directory that can be searched.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let directory = Mutex::new(Arc::new(Root::open(&path)?));
        Ok(Self { path, directory })
    }

    /// As the operator named it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that the path names now, which may be another than yesterday's: mounted, moved, made anew.
    ///
    /// # Errors
    /// When the path is no longer a directory that can be searched.
    pub fn current(&self) -> io::Result<Arc<Root>> {
        let now = RootId::new(&fs::stat(&self.path)?);
        let mut directory = self.directory.lock();
        if directory.id != now {
            *directory = Arc::new(Root::open(&self.path)?);
        }
        Ok(Arc::clone(&directory))
    }
}

/// An open mail root. One descriptor serves all sessions.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    id: RootId,
}

/// Tells a mail root from another, whatever path leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl RootId {
    fn new(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

impl Root {
    fn open(path: &Path) -> io::Result<Self> {
        // Links on the way to the root are the operator's own and are followed. Opening "." below it asks for
        // the permission to search.
        let directory = fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let id = RootId::new(&fs::statat(&directory, ".", AtFlags::empty())?);
        Ok(Self { directory, id })
    }

    /// Which directory it is.
    #[must_use]
    pub fn id(&self) -> RootId {
        self.id
    }

    /// Opens the directory at `path` below the root, for listing it.
    pub(super) fn directory(&self, path: &[u8]) -> io::Result<Directory> {
        self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY).map(Directory)
    }

    /// Opens the regular file at `path` below the root, for reading.
    pub(super) fn file(&self, path: &[u8]) -> io::Result<(File, Identity)> {
        let file = self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = fs::fstat(&file)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Errno::NOENT.into());
        }
        Ok((file.into(), Identity::new(&stat)))
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match fs::openat2(&self.directory, path, flags, Mode::empty(), resolve) {
            // Old kernels, and containers that know openat2 too little to let it pass.
            Err(Errno::NOSYS | Errno::PERM) => self.walk_beneath(path, flags),
            result => Ok(result?),
        }
    }

    /// The same one component at a time.
    fn walk_beneath(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let mut components = path.split(|&octet| octet == b'/');
        let last = components.next_back().unwrap_or_default();
        let mut directory = self.directory.try_clone()?;
        for component in components {
            let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            directory = fs::openat(&directory, component, step, Mode::empty())?;
        }
        Ok(fs::openat(&directory, last, flags | OFlags::NOFOLLOW, Mode::empty())?)
    }
}

/// A directory below the root.
#[derive(Debug)]
pub(super) struct Directory(OwnedFd);

impl Directory {
    /// The names of the messages in it: regular files whose name does not begin with a dot.
    pub(super) fn messages(&self) -> io::Result<Vec<Box<[u8]>>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !name.starts_with(b".") && self.is_file(name, entry.file_type())? {
                names.push(name.into());
            }
        }
        Ok(names)
    }

    /// Some file systems do not tell the type in a listing.
    fn is_file(&self, name: &[u8], listed: FileType) -> io::Result<bool> {
        if listed != FileType::Unknown {
            return Ok(listed.is_file());
        }
        match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode).is_file()),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the message `name` if it is still the one that `identity` tells of.
    pub(super) fn remove(&self, name: &[u8], identity: &Identity) -> io::Result<()> {
        let stat = fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if Identity::new(&stat) != *identity {
            return Err(io::Error::other("another file has taken its place"));
        }
        Ok(fs::unlinkat(self.0.as_fd(), name, AtFlags::empty())?)
    }
}

/// Tells a file from another, and from itself after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Nanoseconds since 1970.
    pub(super) modified: i128,
}

impl Identity {
    fn new(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
        }
    }
}

/// For log lines.
pub(super) fn display(path: &[u8]) -> String {
    format!("{:?}", OsString::from_vec(path.to_vec()))
}
