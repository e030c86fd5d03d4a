//! How a user's directory holds messages: as a Maildir, or flat, each regular file a message.
//!
//! Every file of a flat maildrop is sent to a client that asks for it, and removed when the client deletes it. So a
//! directory is taken for one only if nothing speaks against it: a home directory, or a directory that has a Maildir as a
//! sub-directory, holds other files than mail. Its user cannot log in then, and nothing is written there. An operator who
//! knows better names the layout.

use std::io;

use clap::ValueEnum;

use super::homes::{Homes, Named};
use super::is_missing;
use super::message::Folder;
use super::root::{Directory, Root};

/// Which layout the operator says that maildrops have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LayoutChoice {
    /// A directory with new/ or cur/ is a Maildir; another is flat, unless it is a home directory or has a Maildir in it
    #[default]
    Auto,
    /// Each file in a user's directory is a message, whatever else is there
    Flat,
    /// Only files in new/ and cur/ are messages
    Maildir,
}

/// Decides which layout a maildrop has.
#[derive(Debug)]
pub struct Layouts {
    choice: LayoutChoice,
    homes: Homes,
}

impl Default for Layouts {
    fn default() -> Self {
        Self::new(LayoutChoice::default())
    }
}

impl Layouts {
    /// To be called before the server is confined, as it reads the system's accounts.
    #[must_use]
    pub fn new(choice: LayoutChoice) -> Self {
        Self { choice, homes: Homes::of_system() }
    }

    /// True if no directory is taken for a Maildir.
    pub(super) fn is_always_flat(&self) -> bool {
        self.choice == LayoutChoice::Flat
    }

    fn is_always_maildir(&self) -> bool {
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

/// The files of a directory are not to be served as mail.
fn no_mail(why: &str) -> io::Error {
    let text = format!(
        "{why}, so other files there are not taken for mail: point --mailbox at a directory that has a Maildir for each \
         user, or serve them all the same with --layout flat"
    );
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// Opens the directories that hold a maildrop's messages: one of a flat maildrop, one or two of a Maildir, none if the
/// maildrop is not there.
///
/// # Errors
/// When one cannot be read, or is not to be taken for a maildrop.
pub(super) fn folders(root: &Root, user: &str) -> io::Result<Vec<(Folder, Directory)>> {
    let layouts = root.layouts();
    let mut folders = Vec::new();
    // new/ before cur/: a message that is moved while they are listed is then seen twice, but never missed.
    for folder in [Folder::New, Folder::Cur].into_iter().filter(|_| !layouts.is_always_flat()) {
        match root.directory(&folder.path(user)) {
            Ok(directory) => folders.push((folder, directory)),
            // Not there; or a message of a flat maildrop that is called "new".
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    if folders.is_empty() && !layouts.is_always_maildir() {
        match root.directory(&Folder::Top.path(user)) {
            Ok(directory) => {
                layouts.refuse_home(&directory.named(user)?)?;
                folders.push((Folder::Top, directory));
            }
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(folders)
}

/// The folder of a maildrop that holds the file called `lock`, or is to hold it; `None` if the maildrop is not there.
/// Nothing has been written into the maildrop when this refuses it.
///
/// # Errors
/// When the directory is not to be taken for a maildrop, or this cannot be told.
pub(super) fn lock_folder(root: &Root, user: &str, lock: &[u8]) -> io::Result<Option<Folder>> {
    let layouts = root.layouts();
    if !layouts.is_always_flat() {
        for folder in [Folder::Cur, Folder::New] {
            if root.has_directory(&folder.path(user))? {
                return Ok(Some(folder));
            }
        }
    }
    if layouts.is_always_maildir() {
        return Ok(None);
    }
    let Some(directory) = root.named(user)? else { return Ok(None) };
    layouts.refuse_home(&directory)?;
    let path = Folder::Top.path(user);
    // Where the lock has been taken before, nothing is made anew, and the listing for the session tells the same.
    if root.stamp(&[&path, &b"/"[..], lock].concat()).is_err() {
        let directory = root.directory(&path)?;
        directory.messages(|name| layouts.refuse_maildir_in(&directory, name))?;
    }
    Ok(Some(Folder::Top))
}
