//! Where a maildrop is: a path below an open directory.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::directory::Directory;
use super::message::{FilePath, Folder};
use super::root::{Root, RootId};
use crate::auth::UserName;

/// What distinguishes a maildrop from others: the directory beneath which it is opened, and its path there.
pub(super) type Key = (RootId, Vec<u8>);

/// The location of a user's maildrop. Everything in the maildrop is opened beneath its root directory.
#[derive(Debug, Clone)]
pub struct Location(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    root: Arc<Root>,
    /// The maildrop's path below the root.
    path: Vec<u8>,
    user: UserName,
    /// True if it is a folder of a Maildir, and so a Maildir itself.
    is_folder: bool,
}

impl Location {
    pub(super) fn new(root: Arc<Root>, path: Vec<u8>, user: UserName) -> Self {
        Self(Arc::new(Parts { root, path, user, is_folder: false }))
    }

    /// The location of a folder of this Maildir (Maildir++).
    pub(super) fn maildir_folder(&self, name: &str) -> Self {
        let path = [self.path(), b"/.", name.as_bytes()].concat();
        let (root, user) = (Arc::clone(&self.0.root), self.user().clone());
        Self(Arc::new(Parts { root, path, user, is_folder: true }))
    }

    /// Returns true if it is a folder of a Maildir.
    pub(super) fn is_maildir_folder(&self) -> bool {
        self.0.is_folder
    }

    /// The user whose maildrop it is.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.0.user
    }

    /// The same maildrop behind a link: the first component of the path, if the operator has made that a link.
    ///
    /// # Errors
    /// When it is no link, or not the operator's.
    pub(super) fn behind_link(&self) -> io::Result<Self> {
        let path = self.path();
        let end = memchr::memchr(b'/', path).unwrap_or(path.len());
        let (root, name) = self.root().follow(&path[..end])?;
        Ok(Self::new(Arc::new(root), [&name, &path[end..]].concat(), self.user().clone()))
    }

    /// The same maildrop, behind a link if the operator has made one there. A session's lock has this location already.
    ///
    /// # Errors
    /// When a link is not the operator's, or the path cannot be examined.
    pub fn behind_links(&self) -> io::Result<Self> {
        match self.root().has_directory(self.path()) {
            Err(error) if is_link(&error) => self.behind_link(),
            result => result.map(|_| self.clone()),
        }
    }

    /// The directory beneath which the maildrop is opened.
    pub(super) fn root(&self) -> &Root {
        &self.0.root
    }

    /// Identifies the maildrop among those of this server.
    pub(super) fn key(&self) -> Key {
        (self.0.root.id(), self.0.path.clone())
    }

    /// The maildrop's own path below the root.
    pub(super) fn path(&self) -> &[u8] {
        &self.0.path
    }

    /// The path of a folder below the root.
    pub(super) fn folder(&self, folder: Folder) -> Vec<u8> {
        [&self.0.path, folder.below()].concat()
    }

    /// The path of a message's file below the root.
    pub(super) fn file(&self, path: &FilePath) -> Vec<u8> {
        [&self.0.path, path.folder.below(), b"/", &path.name].concat()
    }

    /// The name of the maildrop in its directory.
    pub(super) fn name(&self) -> &[u8] {
        let path = self.path();
        &path[memchr::memrchr(b'/', path).map_or(0, |slash| slash + 1)..]
    }

    /// The files that the server keeps in `folder`, or beside an mbox.
    pub(super) fn own_files(&self, folder: Folder) -> OwnFiles {
        if folder == Folder::Mbox {
            let directory = self.path().strip_suffix(self.name()).and_then(|path| path.strip_suffix(b"/"));
            let prefix = [b".", self.name(), b".pop3d-"].concat();
            let mbox = Some(self.name().to_vec());
            return OwnFiles { directory: directory.unwrap_or(b".").to_vec(), prefix, mbox };
        }
        OwnFiles { directory: self.folder(folder), prefix: b".pop3d-".to_vec(), mbox: None }
    }
}

/// Returns true for the error of opening a maildrop that is, or is below, a symbolic link.
pub(super) fn is_link(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::LOOP)
}

/// The files that the server keeps for a maildrop: dot-files in one directory.
#[derive(Debug)]
pub(super) struct OwnFiles {
    /// The directory's path below the root.
    pub(super) directory: Vec<u8>,
    prefix: Vec<u8>,
    /// The name of the mbox that they belong to.
    mbox: Option<Vec<u8>>,
}

impl OwnFiles {
    /// The name of a file in the directory.
    pub(super) fn name(&self, kind: &str) -> Vec<u8> {
        [&self.prefix, kind.as_bytes()].concat()
    }

    /// The path of a file below the root.
    pub(super) fn path(&self, kind: &str) -> Vec<u8> {
        [&self.directory, &b"/"[..], &self.prefix, kind.as_bytes()].concat()
    }

    /// The path below the root of the mbox that they belong to.
    pub(super) fn mbox(&self) -> Option<Vec<u8>> {
        Some([&self.directory, &b"/"[..], self.mbox.as_ref()?].concat())
    }

    /// Creates one of them in their directory. It belongs to the owner of the mbox or, without an mbox, of the directory.
    pub(super) fn create(&self, directory: &Directory, name: &[u8]) -> io::Result<File> {
        match &self.mbox {
            Some(mbox) => directory.create_like(name, directory.path_only(mbox)?),
            None => directory.create(name),
        }
    }

    /// The same, and replaces any file of that name.
    pub(super) fn replace(&self, directory: &Directory, name: &[u8]) -> io::Result<File> {
        let _ = directory.unlink(name);
        self.create(directory, name)
    }
}
