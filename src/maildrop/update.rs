//! The UPDATE state (RFC 1939 section 6): the only code that removes messages, or moves them into the trash.
//!
//! A file is removed if it has a marked message's base name, size and modification time. Another file has all three
//! only if a program set its time on purpose, as backup programs do when they restore or copy that very message. The
//! inode may differ then, and it always differs on file systems that give a file another inode each time (FAT, many
//! FUSE and SMB mounts). So the inode is compared only where it is needed: between messages that share a base name, and
//! for a message that was written so shortly before the login that a later file could have the same modification time.
//!
//! Between the check of a file and its removal, another program may rename the file. Then the removal fails, and the
//! message is looked for again. Another program could also put a different file under that name. In a Maildir this does
//! not happen, because each delivery uses a new name. In a flat maildrop a program would have to use the name again
//! within a few microseconds. Renaming the file to a private name first would close that gap, but it would double the
//! cost of each removal, and a server killed at that moment would leave mail under a name that no program looks for.

use std::io;
use std::mem;

use super::directory::Directory;
use super::files::{is_alone, is_message};
use super::identity::{Identity, is_settled};
use super::index::Index;
use super::is_missing;
use super::location::Location;
use super::message::{Folder, Message};
use super::moved::{Listing, Search};
use super::quota::Freed;
use super::root;
use super::trash::Bin;

/// What the UPDATE state did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Update {
    /// Messages removed.
    pub removed: u64,
    /// Marked messages that were not removed, or may not have been.
    pub failed: u64,
}

impl Update {
    pub(super) fn add(&mut self, Self { removed, failed }: Self) {
        self.removed += removed;
        self.failed += failed;
    }
}

/// A marked message that may still exist.
struct Unsettled {
    /// The message's index in the maildrop's list.
    index: usize,
    /// True if one of the links of its file has been removed.
    removed: bool,
}

/// The result of trying to remove a file.
enum Attempt {
    Removed {
        /// True if the file had other links, which may be in the maildrop too.
        linked: bool,
    },
    /// There is no file of that name.
    Missing,
    /// The file is not the marked message.
    Other,
}

/// The removal of a maildrop's marked messages.
pub(super) struct Removal<'a> {
    location: &'a Location,
    messages: &'a [Message],
    /// When the messages were listed, in ns since 1970.
    listed: i64,
    update: Update,
    /// What the removed messages have freed.
    freed: Freed,
    /// How many marked messages other programs had removed already.
    gone: u64,
    /// How many marked messages have changed since login.
    changed: u64,
    unsettled: Vec<Unsettled>,
    /// Where removed messages are kept, if they are.
    bin: Option<&'a Bin>,
}

impl<'a> Removal<'a> {
    pub(super) fn new(location: &'a Location, messages: &'a [Message], listed: i64, bin: Option<&'a Bin>) -> Self {
        Self {
            location,
            messages,
            listed,
            update: Update::default(),
            freed: Freed::default(),
            gone: 0,
            changed: 0,
            unsettled: vec![],
            bin,
        }
    }

    /// Removes the marked messages that are in `folder`, if their paths are the ones the session knows.
    pub(super) fn remove_from(&mut self, folder: Folder, marked: &[usize]) {
        let mut due = marked.to_vec();
        due.retain(|&index| self.messages[index].path.folder == folder);
        if due.is_empty() {
            return;
        }
        let path = self.location.folder(folder);
        let directory = match self.location.root().directory(&path) {
            Ok(directory) => Some(directory),
            Err(error) if is_missing(&error) => None,
            Err(error) => {
                self.update.failed += due.len() as u64;
                log::error!("cannot remove messages from {}: {error}", root::display(&path));
                return;
            }
        };
        for index in due {
            match self.remove(directory.as_ref(), &self.messages[index].path.name, index) {
                Ok(Attempt::Removed { linked }) if folder == Folder::Top || !linked => self.note_removed(index),
                // A message in a flat maildrop is identified by its name alone, so it is not looked for elsewhere.
                Ok(Attempt::Missing) if folder == Folder::Top => self.gone += 1,
                Ok(Attempt::Other) if folder == Folder::Top => self.fail_as_changed(index),
                Ok(attempt) => {
                    let removed = matches!(attempt, Attempt::Removed { .. });
                    self.unsettled.push(Unsettled { index, removed });
                }
                Err(error) => self.fail(index, &error),
            }
        }
    }

    /// Looks for marked messages that other programs have moved, and for further links of removed files, until every
    /// one of them is known to be removed.
    pub(super) fn look_for_the_rest(&mut self) {
        let mut search = Search::new(self.location);
        while !self.unsettled.is_empty() {
            let error = match search.list() {
                Ok(Some(listing)) => {
                    let unsettled = mem::take(&mut self.unsettled).into_iter();
                    self.unsettled = unsettled.filter_map(|message| self.settle(message, &listing)).collect();
                    continue;
                }
                Ok(None) => io::Error::new(io::ErrorKind::TimedOut, "other programs rename messages without a pause"),
                Err(error) => error,
            };
            let count = mem::take(&mut self.unsettled).len();
            self.update.failed += count as u64;
            log::error!("{}: {count} marked messages cannot be looked for: {error}", self.location.user());
        }
    }

    /// Removes every listed file of a message. Returns the message if it may have further files.
    fn settle(&mut self, mut message: Unsettled, listing: &Listing) -> Option<Unsettled> {
        let (mut is_complete, mut is_other) = (listing.at_rest, false);
        for file in listing.of(self.messages[message.index].path.base()) {
            match self.remove(listing.directory(file), &file.path.name, message.index) {
                Ok(Attempt::Removed { linked: false }) => {
                    self.note_removed(message.index);
                    return None;
                }
                Ok(Attempt::Removed { linked: true }) => message.removed = true,
                Ok(Attempt::Missing) => is_complete = false,
                Ok(Attempt::Other) => is_other = true,
                Err(error) => {
                    self.fail(message.index, &error);
                    return None;
                }
            }
        }
        if !is_complete {
            return Some(message);
        }
        if message.removed {
            self.note_removed(message.index);
        } else if is_other && is_alone(self.messages, message.index) {
            self.fail_as_changed(message.index);
        } else {
            self.gone += 1;
        }
        None
    }

    /// Removes a file if it is the marked message.
    fn remove(&self, directory: Option<&Directory>, name: &[u8], index: usize) -> io::Result<Attempt> {
        let removed = directory.map_or(Ok(Attempt::Missing), |directory| {
            let (identity, links) = directory.identity_and_links(name)?;
            if !self.is_marked(index, &identity) {
                return Ok(Attempt::Other);
            }
            match self.bin {
                Some(bin) => bin.take(directory, name)?,
                None => directory.unlink(name)?,
            }
            Ok(Attempt::Removed { linked: links > 1 })
        });
        match removed {
            Err(error) if is_missing(&error) => Ok(Attempt::Missing),
            result => result,
        }
    }

    /// Returns true if a file with the message's base name is the marked message.
    fn is_marked(&self, index: usize, identity: &Identity) -> bool {
        let Identity { inode, modified, .. } = self.messages[index].content.identity;
        let is_old = || is_settled(modified, self.listed);
        is_message(self.messages, index, identity) && (inode == identity.inode || is_old())
    }

    fn note_removed(&mut self, index: usize) {
        self.update.removed += 1;
        self.freed.add(&self.messages[index]);
    }

    fn fail_as_changed(&mut self, index: usize) {
        self.changed += 1;
        self.fail(index, &io::Error::new(io::ErrorKind::InvalidData, "it has changed since login"));
    }

    fn fail(&mut self, index: usize, error: &io::Error) {
        self.update.failed += 1;
        let path = self.location.file(&self.messages[index].path);
        log::error!("cannot remove {}: {error}", root::display(&path));
    }

    pub(super) fn finish(self) -> (Update, Freed) {
        if self.changed > 0 {
            Index::forget(self.location.root(), &self.location.own_files(Folder::Top));
        }
        if self.gone > 0 {
            log::info!(
                "{}: other programs had removed {} of the marked messages already",
                self.location.user(),
                self.gone
            );
        }
        (self.update, self.freed)
    }
}
