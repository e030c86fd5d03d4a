//! The UPDATE state (RFC 1939 section 6): the only code that removes messages.
//!
//! A file is removed when it has a marked message's base name, size and modification time. Another file could have all of
//! these only if somebody set its time to the message's on purpose, as programs do that restore or copy that very
//! message. Its inode may then be another one, and it is on file systems that number their files anew each time (FAT, many
//! FUSE and SMB mounts). The inode decides where the rest does not: between messages that share a base name, and for a
//! message written so short a time before the login that one written after it could have the same time.
//!
//! Between the look at a file and its removal, other programs may rename it, which makes the removal fail and the message
//! be looked for again. They could also put another file under its name. In a Maildir no program does, as each delivery has
//! a name of its own. In a flat maildrop it takes a program that uses a name again within these few microseconds. Giving
//! the file a private name first would close that gap, but at twice the cost for every message ever removed, and a
//! server that is killed at that moment would leave mail under a name that no program looks for.

use std::io;
use std::mem;

use super::index::Index;
use super::message::Folder;
use super::moved::{Listing, Search};
use super::root::{self, Directory, Identity, is_settled};
use super::{Maildrop, is_missing};

/// What the UPDATE state did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Update {
    /// Messages removed.
    pub removed: u64,
    /// Messages marked that are still there, or may be.
    pub failed: u64,
}

impl Maildrop {
    /// The UPDATE state: removes the marked messages, and those only.
    #[must_use]
    pub fn commit(self) -> Update {
        if self.marks.len() == 0 {
            return Update::default();
        }
        let mut removal =
            Removal { maildrop: &self, update: Update::default(), gone: 0, changed: 0, unsettled: vec![] };
        for folder in Folder::ALL {
            removal.remove_from(folder);
        }
        removal.look_for_the_rest();
        removal.finish()
    }
}

/// A marked message that may still be there.
struct Unsettled {
    /// Which of the maildrop's messages it is.
    index: usize,
    /// One of the links of its file has been removed.
    removed: bool,
}

/// What has become of a file that may be a marked message's.
enum Attempt {
    Removed {
        /// It had other links, which may be in the maildrop too.
        linked: bool,
    },
    /// There is no file of that name.
    Missing,
    /// It is not the message's file.
    Other,
}

/// The removal of a maildrop's marked messages.
struct Removal<'a> {
    maildrop: &'a Maildrop,
    update: Update,
    /// Marked messages that other programs had removed.
    gone: u64,
    /// Marked messages whose files are not what they were at login.
    changed: u64,
    unsettled: Vec<Unsettled>,
}

impl Removal<'_> {
    /// Removes the marked messages of a folder that are where the session knows them to be.
    fn remove_from(&mut self, folder: Folder) {
        let maildrop = self.maildrop;
        let mut due = maildrop.marks.in_order();
        due.retain(|&index| maildrop.messages[index].place.folder == folder);
        if due.is_empty() {
            return;
        }
        let path = folder.path(maildrop.user.as_str());
        let directory = match maildrop.root.directory(&path) {
            Ok(directory) => Some(directory),
            Err(error) if is_missing(&error) => None,
            Err(error) => {
                self.update.failed += due.len() as u64;
                log::error!("cannot remove messages from {}: {error}", root::display(&path));
                return;
            }
        };
        for index in due {
            match self.remove(directory.as_ref(), &maildrop.messages[index].place.name, index) {
                Ok(Attempt::Removed { linked }) if folder == Folder::Top || !linked => self.update.removed += 1,
                // In a flat maildrop a name is all that a message is known by.
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

    /// Looks for the marked messages that other programs have moved, and for further links of those removed, until it is
    /// certain of each that it has gone.
    fn look_for_the_rest(&mut self) {
        let maildrop = self.maildrop;
        let mut search = Search::new(&maildrop.root, maildrop.user.as_str());
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
            log::error!("{}: {count} messages marked as deleted cannot be looked for: {error}", maildrop.user);
        }
    }

    /// Removes every listed file of a message. Returns the message if there may be more of them.
    fn settle(&mut self, mut message: Unsettled, listing: &Listing<'_>) -> Option<Unsettled> {
        let (mut is_complete, mut is_other) = (listing.at_rest, false);
        for file in listing.of(self.maildrop.messages[message.index].place.base()) {
            match self.remove(listing.directory(file), &file.place.name, message.index) {
                Ok(Attempt::Removed { linked: false }) => {
                    self.update.removed += 1;
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
            self.update.removed += 1;
        } else if is_other && self.maildrop.is_alone(message.index) {
            self.fail_as_changed(message.index);
        } else {
            self.gone += 1;
        }
        None
    }

    /// Removes a file if it is the message's.
    fn remove(&self, directory: Option<&Directory>, name: &[u8], index: usize) -> io::Result<Attempt> {
        let removed = directory.map_or(Ok(Attempt::Missing), |directory| {
            let (identity, links) = directory.identity_and_links(name)?;
            if !self.is_marked(index, &identity) {
                return Ok(Attempt::Other);
            }
            directory.unlink(name)?;
            Ok(Attempt::Removed { linked: links > 1 })
        });
        match removed {
            Err(error) if is_missing(&error) => Ok(Attempt::Missing),
            result => result,
        }
    }

    /// Whether a file with the message's base name is the marked message.
    fn is_marked(&self, index: usize, identity: &Identity) -> bool {
        let Identity { inode, modified, .. } = self.maildrop.messages[index].content.identity;
        let is_old = || is_settled(modified, self.maildrop.opened);
        self.maildrop.is_message(index, identity) && (inode == identity.inode || is_old())
    }

    fn fail_as_changed(&mut self, index: usize) {
        self.changed += 1;
        self.fail(index, &io::Error::new(io::ErrorKind::InvalidData, "it has changed since login"));
    }

    fn fail(&mut self, index: usize, error: &io::Error) {
        self.update.failed += 1;
        let path = self.maildrop.messages[index].place.path(self.maildrop.user.as_str());
        log::error!("cannot remove {}: {error}", root::display(&path));
    }

    fn finish(self) -> Update {
        if self.changed > 0 {
            Index::forget(&self.maildrop.root, self.maildrop.user.as_str());
        }
        if self.gone > 0 {
            log::info!("{}: {} messages marked as deleted had gone already", self.maildrop.user, self.gone);
        }
        self.update
    }
}
