//! A directory below the mail root: lists it, and opens and removes files in it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, Stat};
use rustix::io::Errno;

use super::homes::Named;
use super::identity::{Identity, Stamp};
use super::names::{Name, Names};
use super::root::{READ, named, regular};
use crate::owner;

/// The size of the buffer for listing a directory: room for some 500 names.
const LISTING_BUFFER: usize = 1 << 15;

/// A directory below the root.
#[derive(Debug)]
pub(super) struct Directory(pub(super) OwnedFd);

impl Directory {
    /// Lists the messages by name and inode: regular files whose name does not begin with a dot.
    ///
    /// They are sorted by inode, which is usually the order of delivery too. The names lie in memory in this order, so
    /// a loop over a large maildrop in either order makes good use of the processor's cache.
    ///
    /// `check` is called with the name of each sub-directory, also of hidden ones. If it fails, the listing fails.
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
        found.sort_by_key(|&(inode, _)| inode); // stable: the last name of a renamed file stays last
        let mut sorted = Vec::with_capacity(listed.len());
        found.iter().for_each(|(_, name)| sorted.extend_from_slice(&listed[name.clone()]));
        let mut names = Names::new(sorted);
        let named = |(inode, name): (u64, Range<usize>)| Some((names.next(name.len())?, inode));
        found.into_iter().map(named).collect::<Option<_>>().ok_or_else(|| Errno::FBIG.into())
    }

    /// The names of the directories in it.
    pub(super) fn sub_directories(&self) -> io::Result<Vec<Vec<u8>>> {
        let found = std::cell::RefCell::new(Vec::new());
        self.messages(|name| {
            found.borrow_mut().push(name.to_vec());
            Ok(())
        })?;
        Ok(found.into_inner())
    }

    /// Opens a directory in it for listing.
    pub(super) fn sub_directory(&self, name: &[u8]) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Makes a directory in it for the server's own data, unless there is one, and opens it. It has the owner of this
    /// directory, and the same mode, but none for others.
    pub(super) fn make_directory(&self, name: &[u8]) -> io::Result<Self> {
        let mode = Mode::from_raw_mode(fs::fstat(&self.0)?.st_mode & 0o770) | Mode::RWXU;
        match fs::mkdirat(&self.0, name, Mode::RWXU) {
            Err(Errno::EXIST) => self.sub_directory(name),
            made => {
                made?;
                let directory = self.sub_directory(name)?;
                let _ = owner::give_directory_like(&self.0, &directory.0)
                    .and_then(|()| Ok(fs::fchmod(&directory.0, mode)?));
                Ok(directory)
            }
        }
    }

    /// Removes a directory in it that is empty.
    pub(super) fn remove_directory(&self, name: &[u8]) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Lists the names of everything that is not hidden.
    pub(super) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let names = fs::Dir::new(fs::openat(&self.0, ".", flags, Mode::empty())?)?;
        let names = names.map(|entry| Ok(entry?.file_name().to_bytes().to_vec()));
        names.filter(|name| name.as_ref().map_or(true, |name: &Vec<u8>| !name.starts_with(b"."))).collect()
    }

    /// Returns the type of the file `name`. Some file systems leave the type out of a listing.
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

    /// Returns true if there is a directory at `path` below this one.
    pub(super) fn has_directory(&self, path: &[u8]) -> bool {
        let found = fs::statat(&self.0, path, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
    }

    /// This directory as the directory of `user`.
    pub(super) fn named(&self, user: &str) -> io::Result<Named> {
        Ok(named(&fs::fstat(&self.0)?, user))
    }

    /// Opens the message `name` of a listing for reading.
    pub(super) fn file(&self, name: &[u8]) -> io::Result<(File, Identity)> {
        // A single component needs no openat2(2), which is slower.
        regular(fs::openat(&self.0, name, READ | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Returns the state of the file `name`.
    pub(super) fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        Ok(fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Returns which file has the name `name` now, and its state.
    pub(super) fn identity(&self, name: &[u8]) -> io::Result<Identity> {
        self.identity_and_links(name).map(|(identity, _)| identity)
    }

    /// Returns the same, and how many links the file has.
    pub(super) fn identity_and_links(&self, name: &[u8]) -> io::Result<(Identity, u64)> {
        let stat = fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((Identity::new(&stat), stat.st_nlink))
    }

    /// Returns when the directory was last changed.
    pub(super) fn stamp(&self) -> io::Result<Stamp> {
        Ok(Stamp::new(&fs::fstat(&self.0)?))
    }

    /// Creates an empty file for the server's own data. Every user who may change the directory may write to the file.
    pub(super) fn create(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?;
        owner::share_like(&self.0, &file)?;
        Ok(file.into())
    }

    /// Creates an empty file that every user may read: a dot-lock.
    pub(super) fn create_plain(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH)?.into())
    }

    /// Creates an empty file for the server's own data, which is read, too. It belongs to the owner of `like`.
    pub(super) fn create_like(&self, name: &[u8], like: impl AsFd) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?;
        owner::share_as(like, &file)?;
        Ok(file.into())
    }

    /// Opens a file only to examine it.
    pub(super) fn path_only(&self, name: &[u8]) -> io::Result<OwnedFd> {
        Ok(fs::openat(&self.0, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Waits until the names in the directory are on the disk. Some file systems cannot do that.
    pub(super) fn sync(&self) -> io::Result<()> {
        match fs::fsync(&self.0) {
            Err(Errno::INVAL) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Opens a regular file for reading and writing.
    pub(super) fn file_for_update(&self, name: &[u8]) -> io::Result<(File, Identity)> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        regular(fs::openat(&self.0, name, flags, Mode::empty())?)
    }

    /// Gives one of the server's own files the owner and permissions that [`Self::create`] would give it. An earlier
    /// version of the server left such files to root.
    pub(super) fn share(&self, file: &OwnedFd) -> io::Result<()> {
        owner::share_like(&self.0, file)
    }

    /// Returns true if `name` is a regular file.
    pub(super) fn has_file(&self, name: &[u8]) -> bool {
        self.kind(name, FileType::Unknown).is_ok_and(FileType::is_file)
    }

    /// Moves a message to another directory or gives it another name. A file that already has that name is not replaced.
    pub(super) fn move_to(&self, name: &[u8], to: &Self, new_name: &[u8]) -> io::Result<()> {
        match fs::renameat_with(&self.0, name, &to.0, new_name, RenameFlags::NOREPLACE) {
            // Some file systems, such as NFS, cannot exclude a replacement.
            Err(Errno::INVAL | Errno::NOSYS) => match fs::statat(&to.0, new_name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => Ok(fs::renameat(&self.0, name, &to.0, new_name)?),
                Ok(_) => Err(Errno::EXIST.into()),
                Err(error) => Err(error.into()),
            },
            result => Ok(result?),
        }
    }

    /// Renames one of the server's own files. A file that already has the new name is replaced.
    pub(super) fn rename(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        Ok(fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// Removes a file.
    pub(super) fn unlink(&self, name: &[u8]) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }
}
