//! Where a maildrop is: a path below an open directory.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustix::io::Errno;

use super::directory::Directory;
use super::expiry::Expiry;
use super::is_missing;
use super::message::{FilePath, Folder};
use super::root::{Root, RootId};
use crate::auth::{MailFormat, OwnExpiry, UserName};

/// The location of a user's maildrop. Everything in the maildrop is opened beneath its root directory. Locations are equal if
/// they are those of the same maildrop, whoever the users are.
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
    /// The format that the users file names, which then counts instead of the operator's choice for all maildrops.
    format: Option<MailFormat>,
    /// For how long the account's messages are kept, where that differs from the rule for all.
    expiry: OwnExpiry,
}

impl Location {
    pub(super) fn new(
        root: Arc<Root>,
        path: Vec<u8>,
        user: UserName,
        format: Option<MailFormat>,
        expiry: OwnExpiry,
    ) -> Self {
        Self(Arc::new(Parts { root, path, user, is_folder: false, format, expiry }))
    }

    /// The location of a folder of this Maildir (Maildir++).
    pub(super) fn maildir_folder(&self, name: &str) -> Self {
        let path = [self.path(), b"/.", name.as_bytes()].concat();
        let (root, user) = (Arc::clone(&self.0.root), self.user().clone());
        Self(Arc::new(Parts { root, path, user, is_folder: true, format: self.0.format, expiry: self.0.expiry }))
    }

    /// Returns true if it is a folder of a Maildir.
    pub(super) fn is_maildir_folder(&self) -> bool {
        self.0.is_folder
    }

    /// Returns true if a directory here is never a Maildir.
    pub(super) fn is_always_flat(&self) -> bool {
        self.0.format.is_none() && self.root().layouts().is_always_flat()
    }

    /// Returns true if a directory here is never a flat maildrop.
    pub(super) fn is_always_maildir(&self) -> bool {
        match self.0.format {
            Some(format) => format == MailFormat::Maildir,
            None => self.root().layouts().is_always_maildir(),
        }
    }

    /// The format that the users file names for this maildrop.
    pub(super) fn named_format(&self) -> Option<MailFormat> {
        self.0.format
    }

    /// After how many days the messages here expire.
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        self.root().layouts().expiry().with(self.0.expiry)
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
        let path = [&name, &path[end..]].concat();
        Ok(Self::new(Arc::new(root), path, self.user().clone(), self.0.format, self.0.expiry))
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

    /// What distinguishes the maildrop from others: the directory beneath which it is opened, and its path there.
    pub(super) fn key(&self) -> (RootId, &[u8]) {
        (self.root().id(), self.path())
    }

    /// The maildrop's whole path, for the operator. It is found out from the open directory above the maildrop, so links have
    /// been followed.
    #[must_use]
    pub fn shown(&self) -> String {
        let path = self.root().absolute().map(|above| [above.as_bytes(), b"/", self.path()].concat());
        String::from_utf8_lossy(path.as_deref().unwrap_or(self.path())).into_owned()
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
    pub(super) fn own_files(&self, folder: Folder) -> OwnFiles<'_> {
        if folder == Folder::Mbox {
            let directory = self.path().strip_suffix(self.name()).and_then(|path| path.strip_suffix(b"/"));
            return OwnFiles { directory: [directory.unwrap_or(b"."), b""], mbox: Some(self.name()) };
        }
        OwnFiles { directory: [self.path(), folder.below()], mbox: None }
    }
}

impl PartialEq for Location {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Location {}

impl Hash for Location {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// Returns true for the error of opening a maildrop that is, or is below, a symbolic link.
pub(super) fn is_link(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::LOOP)
}

/// The largest file that is read: enough for lines about two million messages.
const MOST_OCTETS: u64 = 256 << 20;

/// The files that the server keeps for a maildrop: dot-files in one directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnFiles<'a> {
    /// The two parts of the directory's path below the root.
    directory: [&'a [u8]; 2],
    /// The name of the mbox that they belong to.
    mbox: Option<&'a [u8]>,
}

impl OwnFiles<'_> {
    /// The directory's path below the root.
    pub(super) fn directory(&self) -> Vec<u8> {
        self.directory.concat()
    }

    /// The name of a file in the directory.
    pub(super) fn name(&self, kind: &str) -> Vec<u8> {
        match self.mbox {
            Some(mbox) => [b".", mbox, b".pop3d-", kind.as_bytes()].concat(),
            None => [b".pop3d-", kind.as_bytes()].concat(),
        }
    }

    /// The path of a file below the root.
    pub(super) fn path(&self, kind: &str) -> Vec<u8> {
        let [above, folder] = self.directory;
        match self.mbox {
            Some(mbox) => [above, folder, b"/.", mbox, b".pop3d-", kind.as_bytes()].concat(),
            None => [above, folder, b"/.pop3d-", kind.as_bytes()].concat(),
        }
    }

    /// The path below the root of the mbox that they belong to.
    pub(super) fn mbox(&self) -> Option<Vec<u8>> {
        let [above, folder] = self.directory;
        Some([above, folder, b"/", self.mbox?].concat())
    }

    /// Creates one of them in their directory. It belongs to the owner of the mbox or, without an mbox, of the directory.
    pub(super) fn create(&self, directory: &Directory, name: &[u8]) -> io::Result<File> {
        match self.mbox {
            Some(mbox) => directory.create_like(name, directory.path_only(mbox)?),
            None => directory.create(name),
        }
    }

    /// Reads one of them.
    ///
    /// # Errors
    /// Those of reading it; `PermissionDenied` if another user may have put it there.
    pub(super) fn read(&self, root: &Root, kind: &str) -> io::Result<Vec<u8>> {
        let (file, identity) = root.file(&self.path(kind))?;
        if !root.may_use(self, &file) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
        }
        let size = identity.size.min(MOST_OCTETS);
        // With the room allocated, it is one read(2).
        let mut octets = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.take(size).read_to_end(&mut octets)?;
        Ok(octets)
    }

    /// Appends lines to one of them. If it is missing, it is created with the line `first` as its beginning. Sessions that share
    /// the maildrop may do so at the same time. Then each line is there, and `first` may be there more than once.
    pub(super) fn append(&self, root: &Root, kind: &str, first: &[u8], lines: &[u8]) -> io::Result<()> {
        let path = self.path(kind);
        let mut file = match root.file_to_append(&path) {
            Err(error) if is_missing(&error) => {
                match self.create(&root.directory(&self.directory())?, &self.name(kind)) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => root.file_to_append(&path)?,
                }
            }
            file => file?,
        };
        match file.metadata()?.len() {
            0 => file.write_all(&[first, lines].concat()),
            _ => file.write_all(lines),
        }
    }

    /// Replaces one of them by a file with these octets. Whoever opens it finds the old file or the new one.
    pub(super) fn replace(&self, root: &Root, kind: &str, octets: &[u8]) -> io::Result<()> {
        let directory = root.directory(&self.directory())?;
        let new = self.name(&format!("{kind}.new"));
        let _ = directory.unlink(&new);
        let written = self.create(&directory, &new)?.write_all(octets);
        let replaced = written.and_then(|()| directory.rename(&new, &self.name(kind)));
        replaced.inspect_err(|_| directory.unlink(&new).unwrap_or(()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::create_dir;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::auth::{MailLocation, Mailbox};
    use crate::maildrop::MailRoot;

    fn location(mail: &Path, path: &Path, format: MailFormat) -> io::Result<Location> {
        let mailbox = Mailbox { location: Some(MailLocation { format, path: path.to_owned() }), ..Mailbox::default() };
        MailRoot::open(mail.to_owned()).unwrap().location_of("ana".parse().unwrap(), &mailbox)
    }

    #[test]
    fn the_named_format_is_that_of_a_links_target_and_of_folders() {
        let mail = tempfile::tempdir().unwrap();
        create_dir(mail.path().join("target")).unwrap();
        symlink("target", mail.path().join("link")).unwrap();
        let target = location(mail.path(), &mail.path().join("link"), MailFormat::Maildir).unwrap();
        assert_eq!(target.path(), b"target");
        for location in [&target, &target.maildir_folder("Junk")] {
            assert_eq!(location.named_format(), Some(MailFormat::Maildir));
            assert!(location.is_always_maildir() && !location.is_always_flat());
        }
        let mbox = location(mail.path(), &mail.path().join("mbox"), MailFormat::Mbox).unwrap();
        assert!(!mbox.is_always_maildir() && !mbox.is_always_flat());
    }

    #[test]
    fn directories_above_an_accounts_own_location_may_be_missing() {
        let mail = tempfile::tempdir().unwrap();
        let of = |below: &str| location(mail.path(), &mail.path().join(below), MailFormat::Mbox);
        let here = of("mbox").unwrap();
        assert_eq!(here.path(), b"mbox");
        symlink("absent/mail", mail.path().join("link")).unwrap();
        for (below, path) in [("a/mbox", "a/mbox"), ("a/b/%u/c", "a/b/ana/c"), ("link/mbox", "absent/mail/mbox")] {
            let location = of(below).unwrap();
            assert_eq!((location.root().id(), location.path()), (here.root().id(), path.as_bytes()), "{below}");
        }
        // A path through a file does not exist for another reason than that nothing has been delivered yet.
        std::fs::write(mail.path().join("file"), "").unwrap();
        assert_eq!(of("file/a/mbox").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        // The same with a path relative to the working directory, and directly below the root.
        for absent in ["absent-directory/mbox", "/absent-directory/mbox"] {
            let location = location(mail.path(), Path::new(absent), MailFormat::Mbox).unwrap();
            assert_eq!(location.path(), b"absent-directory/mbox");
        }
    }

    #[test]
    fn sessions_that_create_a_file_at_the_same_time_lose_no_line() {
        const SESSIONS: usize = 4;
        let mail = tempfile::tempdir().unwrap();
        for round in 0..200 {
            let mbox = mail.path().join(round.to_string());
            std::fs::write(&mbox, "").unwrap();
            let location = location(mail.path(), &mbox, MailFormat::Mbox).unwrap();
            let (files, start) = (location.own_files(Folder::Mbox), Barrier::new(SESSIONS));
            thread::scope(|scope| {
                for session in 0..SESSIONS {
                    let (location, files, start) = (&location, &files, &start);
                    scope.spawn(move || {
                        start.wait();
                        files.append(location.root(), "ages", b"first\n", format!("{session}\n").as_bytes()).unwrap();
                    });
                }
            });
            let text = String::from_utf8(files.read(location.root(), "ages").unwrap()).unwrap();
            assert!(text.starts_with("first\n"), "{text}");
            let mut lines: Vec<_> = text.lines().filter(|line| *line != "first").collect();
            lines.sort_unstable();
            assert_eq!(lines, ["0", "1", "2", "3"], "{text}");
        }
    }
}
