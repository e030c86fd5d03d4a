//! The mail root and the only way into it: every path is opened beneath the root, never through a symbolic
//! link, never blocking on a FIFO.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{self, Access, AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno;

use super::homes::Named;
use super::layout::Layouts;
use super::names::{Name, Names};
use super::system;
use crate::owner;

/// The directory that holds a directory for each user, as the operator named it.
#[derive(Debug)]
pub struct MailRoot {
    path: PathBuf,
    layouts: Arc<Layouts>,
    directory: Mutex<Arc<Root>>,
}

impl MailRoot {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// When `path` is not a directory that can be searched, or is one of the system's.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        Self::with_layouts(path, Arc::default())
    }

    /// Opens the directory at `path`, in which maildrops have these layouts.
    ///
    /// # Errors
    /// As of [`MailRoot::open`].
    pub fn with_layouts(path: PathBuf, layouts: Arc<Layouts>) -> io::Result<Self> {
        let directory = Mutex::new(Arc::new(Root::open(&path, &layouts)?));
        Ok(Self { path, layouts, directory })
    }

    /// Opens another directory, in which maildrops have the same layouts.
    ///
    /// # Errors
    /// As of [`MailRoot::open`].
    pub fn elsewhere(&self, path: PathBuf) -> io::Result<Self> {
        Self::with_layouts(path, Arc::clone(&self.layouts))
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
            *directory = Arc::new(Root::open(&self.path, &self.layouts)?);
        }
        Ok(Arc::clone(&directory))
    }
}

/// An open mail root. One descriptor serves all sessions.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    id: RootId,
    layouts: Arc<Layouts>,
}

/// Tells a directory, such as a mail root, from another, whatever path leads to it.
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
    fn open(path: &Path, layouts: &Arc<Layouts>) -> io::Result<Self> {
        // Links on the way to the root are the operator's own and are followed. Opening "." below it asks for
        // the permission to search.
        let directory = fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        system::refuse(&directory)?;
        if is_fenced_off(&directory) {
            let why = "the server may not reach it (--allow-dir at its start would let it)";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let id = RootId::new(&fs::statat(&directory, ".", AtFlags::empty())?);
        Ok(Self { directory, id, layouts: Arc::clone(layouts) })
    }

    /// Which directory it is.
    #[must_use]
    pub fn id(&self) -> RootId {
        self.id
    }

    /// What decides on the layout of its maildrops.
    pub(super) fn layouts(&self) -> &Layouts {
        &self.layouts
    }

    /// Whether there is a directory at `path` below the root.
    ///
    /// # Errors
    /// When that cannot be told, or there is a link: none is followed.
    pub(super) fn has_directory(&self, path: &[u8]) -> io::Result<bool> {
        match fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_symlink() => Err(Errno::LOOP.into()),
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode).is_dir()),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory of `user`, if it is there.
    ///
    /// # Errors
    /// When that cannot be told, or something else is there.
    pub(super) fn named(&self, user: &str) -> io::Result<Option<Named>> {
        match fs::statat(&self.directory, user, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Ok(Some(named(&stat, user))),
                FileType::Symlink => Err(Errno::LOOP.into()),
                _ => Err(Errno::NOTDIR.into()),
            },
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the directory at `path` below the root, for listing it.
    pub(super) fn directory(&self, path: &[u8]) -> io::Result<Directory> {
        open_beneath(&self.directory, path, OFlags::RDONLY | OFlags::DIRECTORY).map(Directory)
    }

    /// When the directory at `path` below the root was last changed. A link on the way is followed: this tells whether
    /// a directory is still the one that was opened before, and nothing else of it.
    pub(super) fn stamp(&self, path: &[u8]) -> io::Result<Stamp> {
        Ok(Stamp::new(&fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// Opens the regular file at `path` below the root, for reading.
    pub(super) fn file(&self, path: &[u8]) -> io::Result<(File, Identity)> {
        regular(open_beneath(&self.directory, path, READ)?)
    }

    /// Opens a file of ours at `path` below the root for locking.
    pub(super) fn lock_file(&self, path: &[u8]) -> io::Result<OwnedFd> {
        open_beneath(&self.directory, path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    /// Whether there is anything at `path` below the root. A link there is not followed.
    pub(super) fn has(&self, path: &[u8]) -> bool {
        fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Whether a file already has the owner and the mode that [`Directory::share`] would give it in the directory `path`
    /// below the root. That takes one system call.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub(super) fn is_shared_like(&self, path: &[u8], file: &Stat) -> io::Result<bool> {
        Ok(owner::is_shared_like(&fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW)?, file))
    }

    /// Whether `path` below the root still names the open `file`, whose device and inode were `id` when it was opened. A
    /// symbolic link there is not followed.
    ///
    /// On some FUSE mounts a file has another inode each time it is looked at. There the times are compared: two files have
    /// equal times only if they were created at the same moment and were not renamed since.
    ///
    /// # Errors
    /// Those of fstatat(2) and fstat(2); `NotFound` when nothing has that name.
    pub(super) fn names(&self, path: &[u8], file: &OwnedFd, id: RootId) -> io::Result<bool> {
        let named = fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW)?;
        if RootId::new(&named) == id {
            return Ok(true); // no other file can have the inode of one that is open
        }
        let open = fs::fstat(file)?;
        let times = |stat: &Stat| Identity { inode: 0, ..Identity::new(stat) };
        Ok(open.st_nlink > 0 && times(&named) == times(&open))
    }
}

fn named(stat: &Stat, user: &str) -> Named {
    Named { id: RootId::new(stat), user: user.to_owned(), owner: stat.st_uid }
}

/// Whether it is Landlock that keeps the server from a directory: its user may read it, and it may not.
fn is_fenced_off(directory: &OwnedFd) -> bool {
    let opened = fs::openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    matches!(opened, Err(Errno::ACCESS)) && fs::accessat(directory, ".", Access::READ_OK, AtFlags::empty()).is_ok()
}

/// For reading; a FIFO or a terminal among the mail does no harm.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// An open file as a regular one. Anything else is not there.
fn regular(file: OwnedFd) -> io::Result<(File, Identity)> {
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
        // Old kernels, and containers that know openat2 too little to let it pass.
        Err(Errno::NOSYS | Errno::PERM) => walk_beneath(directory, path, flags),
        result => Ok(result?),
    }
}

/// The same one component at a time.
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

/// How many octets of a directory's listing are asked for at once: some 500 names.
const LISTING_BUFFER: usize = 1 << 15;

/// A directory below the root.
#[derive(Debug)]
pub(super) struct Directory(OwnedFd);

impl Directory {
    /// The messages in it, by name and inode: regular files whose name does not begin with a dot.
    ///
    /// They come in the order of their inodes, which tends to be that of delivery, and so do the names in memory:
    /// what goes through a large maildrop in either order is then not waiting for memory at each name.
    ///
    /// Each sub-directory, hidden ones too, is shown to `check`, which may refuse the directory for it.
    pub(super) fn messages(&self, check: impl Fn(&[u8]) -> io::Result<()>) -> io::Result<Vec<(Name, u64)>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = fs::openat(&self.0, ".", flags, Mode::empty())?;
        let mut buffer = Vec::with_capacity(LISTING_BUFFER);
        let mut listing = RawDir::new(listing, buffer.spare_capacity_mut());
        let (mut listed, mut found) = (Vec::new(), Vec::new());
        while let Some(entry) = listing.next() {
            let entry = match entry {
                Err(Errno::INTR) => continue,
                Err(Errno::NOENT) => break, // the directory has been removed
                entry => entry?,
            };
            let name = entry.file_name().to_bytes();
            let kind = self.kind(name, entry.file_type())?;
            if kind.is_dir() && name != b"." && name != b".." {
                check(name)?;
            } else if kind.is_file() && !name.starts_with(b".") {
                let start = listed.len();
                listed.extend_from_slice(name);
                found.push((entry.ino(), start..listed.len()));
            }
        }
        found.sort_by_key(|&(inode, _)| inode); // one that was renamed meanwhile is where it was seen last
        let mut sorted = Vec::with_capacity(listed.len());
        found.iter().for_each(|(_, name)| sorted.extend_from_slice(&listed[name.clone()]));
        let mut names = Names::new(sorted);
        let named = |(inode, name): (u64, Range<usize>)| Some((names.next(name.len())?, inode));
        found.into_iter().map(named).collect::<Option<_>>().ok_or_else(|| Errno::FBIG.into())
    }

    /// What `name` is. Some file systems do not tell that in a listing.
    fn kind(&self, name: &[u8], listed: FileType) -> io::Result<FileType> {
        if listed != FileType::Unknown {
            return Ok(listed);
        }
        match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode)),
            Err(Errno::NOENT) => Ok(FileType::Unknown),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there is a directory at `path` below it.
    pub(super) fn has_directory(&self, path: &[u8]) -> bool {
        let found = fs::statat(&self.0, path, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
    }

    /// What tells it from others, as the directory of `user`.
    pub(super) fn named(&self, user: &str) -> io::Result<Named> {
        Ok(named(&fs::fstat(&self.0)?, user))
    }

    /// Opens the message `name` of a listing for reading.
    pub(super) fn file(&self, name: &[u8]) -> io::Result<(File, Identity)> {
        // As it has no component but the last, that takes no openat2(2), which is slower.
        regular(fs::openat(&self.0, name, READ | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Which file `name` is now, and in which state.
    pub(super) fn identity(&self, name: &[u8]) -> io::Result<Identity> {
        self.identity_and_links(name).map(|(identity, _)| identity)
    }

    /// The same, and how many links the file has.
    pub(super) fn identity_and_links(&self, name: &[u8]) -> io::Result<(Identity, u64)> {
        let stat = fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((Identity::new(&stat), stat.st_nlink))
    }

    /// When the directory was last changed.
    pub(super) fn stamp(&self) -> io::Result<Stamp> {
        Ok(Stamp::new(&fs::fstat(&self.0)?))
    }

    /// Creates a file of ours, empty, in the place of any of that name.
    pub(super) fn replace(&self, name: &[u8]) -> io::Result<File> {
        let _ = self.unlink(name);
        self.create(name)
    }

    /// Creates a file of ours, empty, for all who may change what is in the directory.
    pub(super) fn create(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?;
        owner::share_like(&self.0, &file)?;
        Ok(file.into())
    }

    /// Shares a file of ours as if it had just been created here: an earlier version of the server may have kept it for
    /// root.
    pub(super) fn share(&self, file: &OwnedFd) -> io::Result<()> {
        owner::share_like(&self.0, file)
    }

    /// Whether `name` is a regular file.
    pub(super) fn has_file(&self, name: &[u8]) -> bool {
        self.kind(name, FileType::Unknown).is_ok_and(FileType::is_file)
    }

    /// Gives a file of ours another's name and takes that one's place.
    pub(super) fn rename(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        Ok(fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// Removes a file.
    pub(super) fn unlink(&self, name: &[u8]) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }
}

/// Tells a file from another, and from itself after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) inode: u64,
    pub(super) size: u64,
    /// When its content was changed, in ns since 1970.
    pub(super) modified: i64,
    /// When anything of it was changed, its name too; nobody can set this back.
    pub(super) changed: i64,
}

impl Identity {
    fn new(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// How long ago, in ns, a change has to be for its time to tell it from the next one: there are file systems
/// that keep times in steps of 2 s.
const SETTLED: i64 = 2_000_000_000;

/// Whether something that was changed at a time, in ns since 1970, would have another one if it had been changed again
/// before `now`.
pub(super) fn is_settled(changed: i64, now: i64) -> bool {
    changed.saturating_add(SETTLED) < now
}

/// Tells a directory's state from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    pub(super) inode: u64,
    /// Nanoseconds since 1970: when an entry came or went.
    pub(super) modified: i64,
    /// The same for any change of the directory, which nobody can set back.
    pub(super) changed: i64,
}

impl Stamp {
    fn new(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// When a Maildir's new/ and cur/ were last changed, each if it is there.
pub(super) type Stamps = [Option<Stamp>; 2];

/// Of a time in a [`Stat`]; saturated where it is further off than 292 years.
fn nanoseconds(seconds: i64, rest: u64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add_unsigned(rest)
}

/// For log lines.
pub(super) fn display(path: &[u8]) -> String {
    format!("{:?}", OsString::from_vec(path.to_vec()))
}
