//! Decides whether a user's directory is a Maildir or a flat maildrop, in which each regular file is a message.
//!
//! A client can read and delete every file of a flat maildrop. So a home directory, and a directory that has a Maildir
//! as a sub-directory, is not taken for a flat maildrop: it holds other files than mail. Then the user cannot log in,
//! and the server writes nothing there. The operator can override this by naming the layout.

use std::io;

use clap::ValueEnum;

use super::directory::Directory;
use super::expiry::Expiry;
use super::given_ids::UniqueIdRules;
use super::homes::{Homes, Named};
use super::is_missing;
use super::location::Location;
use super::mbox;
use super::message::Folder;
use super::root::Look;
use super::trash::Deletes;
use super::with_folders::FolderName;
use crate::auth::MailFormat;

/// The layout of maildrops, as the operator chose it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LayoutChoice {
    /// A directory with new/ or cur/ is a Maildir; any other is flat, unless it is a home directory or contains a Maildir
    #[default]
    Auto,
    /// Each file in a user's directory is a message, whatever else the directory contains
    Flat,
    /// Only files in new/ and cur/ are messages
    Maildir,
}

/// How the server gets along with the other programs that use a Maildir.
#[derive(Debug, Clone, Default)]
pub struct MaildirRules {
    /// Retrieved messages are marked as seen when the client sends QUIT.
    pub seen: bool,
    /// Messages that a mail program has marked as deleted are not shown.
    pub hide_trashed: bool,
    /// The folders whose messages are shown after those of the INBOX.
    pub folders: Vec<FolderName>,
}

/// Decides which layout a maildrop has.
#[derive(Debug)]
pub struct Layouts {
    choice: LayoutChoice,
    homes: Homes,
    unique_ids: UniqueIdRules,
    maildirs: MaildirRules,
    /// True if nothing may be written to a maildrop.
    read_only: bool,
    expiry: Expiry,
    deletes: Deletes,
    /// True if it is written down which messages were retrieved, even if none expires.
    notes_retrieved: bool,
}

impl Default for Layouts {
    fn default() -> Self {
        Self::new(LayoutChoice::default())
    }
}

impl Layouts {
    /// Reads the system's accounts, so it must be called before the server is confined.
    #[must_use]
    pub fn new(choice: LayoutChoice) -> Self {
        Self {
            choice,
            homes: Homes::of_system(),
            unique_ids: UniqueIdRules::default(),
            maildirs: MaildirRules::default(),
            read_only: false,
            expiry: Expiry::default(),
            deletes: Deletes::default(),
            notes_retrieved: false,
        }
    }

    /// The same with other unique-ids.
    #[must_use]
    pub fn with_unique_ids(self, unique_ids: UniqueIdRules) -> Self {
        Self { unique_ids, ..self }
    }

    pub(super) fn start_look_ups(&self) -> io::Result<()> {
        self.homes.start_look_ups()
    }

    /// The same with other rules for Maildirs.
    #[must_use]
    pub fn with_maildirs(self, maildirs: MaildirRules) -> Self {
        Self { maildirs, ..self }
    }

    /// The same with messages that expire.
    #[must_use]
    pub fn with_expiry(self, expiry: Expiry) -> Self {
        Self { expiry, ..self }
    }

    /// The same with another meaning of sessions' deletions.
    #[must_use]
    pub fn with_deletes(self, deletes: Deletes) -> Self {
        Self { deletes, ..self }
    }

    /// The same, and whether it is written down in maildrops which messages were retrieved, even if none expires.
    #[must_use]
    pub fn with_notes_of_retrieved(self, notes_retrieved: bool) -> Self {
        Self { notes_retrieved, ..self }
    }

    pub(super) fn notes_retrieved(&self) -> bool {
        self.notes_retrieved
    }

    pub(super) fn deletes(&self) -> Deletes {
        self.deletes
    }

    pub(super) fn expiry(&self) -> Expiry {
        self.expiry
    }

    pub(super) fn maildirs(&self) -> &MaildirRules {
        &self.maildirs
    }

    /// The same for a program that only looks at maildrops. Opening one then writes no index, and leaves a removal of
    /// messages that was interrupted as it is.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn unique_ids(&self) -> &UniqueIdRules {
        &self.unique_ids
    }

    /// Returns true if directories are never taken for Maildirs.
    pub(super) fn is_always_flat(&self) -> bool {
        self.choice == LayoutChoice::Flat
    }

    pub(super) fn is_always_maildir(&self) -> bool {
        self.choice == LayoutChoice::Maildir
    }

    /// Refuses a flat maildrop that is the home directory of an account.
    fn refuse_home(&self, directory: &Named) -> io::Result<()> {
        if self.is_always_flat() {
            return Ok(());
        }
        match self.homes.account_of(directory)? {
            Some(account) => Err(no_mail(&format!("the directory is the home of the account {account:?}"))),
            None => Ok(()),
        }
    }

    /// Refuses a flat maildrop whose sub-directory `name` is a Maildir.
    pub(super) fn refuse_maildir_in(&self, directory: &Directory, name: &[u8]) -> io::Result<()> {
        let is_directory = |folder: &[u8]| directory.has_directory(&[name, b"/", folder].concat());
        if self.is_always_flat() || !(is_directory(b"cur") || is_directory(b"new")) {
            return Ok(());
        }
        Err(no_mail(&format!("its sub-directory {:?} is a Maildir", String::from_utf8_lossy(name))))
    }
}

/// The error for a directory whose files are not served as mail.
fn no_mail(why: &str) -> io::Error {
    let text = format!(
        "{why}, so other files there are not taken for mail: point --mailbox at a directory that has a Maildir for each \
         user, or serve them all the same with --layout flat"
    );
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// Returns what is at the location.
///
/// # Errors
/// When it cannot be examined, or has another format than the users file names.
fn look(location: &Location) -> io::Result<Look> {
    let found = location.root().look(location)?;
    let why = match (location.named_format(), &found) {
        (Some(MailFormat::Mbox), Look::Directory(_)) => "the users file says that it is an mbox, but it is a directory",
        (Some(MailFormat::Maildir), Look::File) => "the users file says that it is a Maildir, but it is a file",
        _ => return Ok(found),
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Opens the directories that hold a maildrop's messages: one for a flat maildrop, one or two for a Maildir, none if
/// the maildrop does not exist.
///
/// # Errors
/// When a directory cannot be read, or is refused as a maildrop; `NotADirectory` when the location is a file.
pub(super) fn folders(location: &Location) -> io::Result<Vec<(Folder, Directory)>> {
    let (root, layouts) = (location.root(), location.root().layouts());
    let mut folders = Vec::new();
    if location.named_format() == Some(MailFormat::Mbox) {
        return match look(location)? {
            Look::File => Err(io::ErrorKind::NotADirectory.into()),
            Look::Nothing | Look::Directory(_) => Ok(folders),
        };
    }
    // new/ is listed before cur/. A message that is moved in between is then seen twice, but never missed.
    for folder in [Folder::New, Folder::Cur].into_iter().filter(|_| !location.is_always_flat()) {
        match root.directory(&location.folder(folder)) {
            Ok(directory) => folders.push((folder, directory)),
            // It does not exist, or a message in a flat maildrop is called "new".
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    if folders.is_empty() && location.is_always_maildir() && !location.is_maildir_folder() {
        // A file is an mbox, whichever layout directories have.
        if let Look::File = look(location)? {
            return Err(io::ErrorKind::NotADirectory.into());
        }
    } else if folders.is_empty() && !location.is_maildir_folder() {
        match root.directory(location.path()) {
            Ok(directory) => {
                layouts.refuse_home(&directory.named(location.user().as_str())?)?;
                folders.push((Folder::Top, directory));
            }
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(folders)
}

/// Returns the folder in which the lock file called `lock` belongs; `None` if the maildrop does not exist. It writes
/// nothing, so a directory that it refuses stays as it was.
///
/// # Errors
/// When the directory is refused as a maildrop, or cannot be examined.
pub(super) fn lock_folder(location: &Location, lock: &str) -> io::Result<Option<Folder>> {
    let (root, layouts) = (location.root(), location.root().layouts());
    if !location.is_always_flat() && location.named_format() != Some(MailFormat::Mbox) {
        for folder in [Folder::Cur, Folder::New] {
            if root.has_directory(&location.folder(folder))? {
                return Ok(Some(folder));
            }
        }
    }
    let directory = match look(location)? {
        Look::Nothing => return Ok(None),
        Look::File => {
            mbox::refuse_other_file(location)?;
            return Ok(Some(Folder::Mbox));
        }
        Look::Directory(directory) => directory,
    };
    if location.is_always_maildir() {
        return Ok(None);
    }
    layouts.refuse_home(&directory)?;
    // A lock file from an earlier session shows that the directory was accepted then. The session's own listing checks
    // it again.
    if root.stamp(&location.own_files(Folder::Top).path(lock)).is_err() {
        let directory = root.directory(location.path())?;
        directory.messages(|name| layouts.refuse_maildir_in(&directory, name))?;
    }
    Ok(Some(Folder::Top))
}
