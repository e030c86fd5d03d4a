//! A user's mail as a numbered list, as it was at login (RFC 1939 section 4).
//!
//! `<mail root>/<user>/` is a Maildir when it has `new/` or `cur/`, else flat: each regular file a message. A
//! missing directory is an empty maildrop. Nothing here removes a message but [`Maildrop::commit`].

mod index;
mod lock;
mod measure;
mod message;
mod name;
mod names;
mod root;
mod scan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;

use rustix::io::Errno;

use crate::auth::UserName;
use index::Index;
pub use lock::{Lock, Locks};
pub use measure::{PLENTY_OF_DESCRIPTORS, SCAN_DESCRIPTORS};
pub use message::Message;
use message::{Folder, Place};
use root::{Directory, Identity};
pub use root::{MailRoot, Root, RootId};

/// A message's number in the session: from 1 (RFC 1939 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageNumber(NonZeroU32);

impl MessageNumber {
    /// `None` for 0, which no message has.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl fmt::Display for MessageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A message opened for sending.
#[derive(Debug)]
pub struct OpenMessage {
    /// At its beginning.
    pub file: File,
    /// How many octets are stored, at login and now.
    pub stored: u64,
    /// How many octets the client was told.
    pub octets: u64,
    /// The stored octets are the wire's.
    pub wire_form: bool,
}

/// Why a message cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// It is not the file that it was at login.
    Changed,
    /// It has gone, or cannot be read.
    Io(io::Error),
}

/// What the UPDATE state did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Update {
    /// Messages removed.
    pub removed: u64,
    /// Messages marked that are still there.
    pub failed: u64,
}

/// A user's messages as they were at login, and which of them are marked as deleted.
#[derive(Debug)]
pub struct Maildrop {
    root: Arc<Root>,
    user: UserName,
    messages: Vec<Message>,
    marked: usize,
    /// Of the messages that are not marked.
    octets: u64,
}

impl Maildrop {
    /// Lists and measures the user's messages.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn open(root: Arc<Root>, user: UserName) -> io::Result<Self> {
        let messages = scan::messages(&root, user.as_str())?;
        let mut maildrop = Self { root, user, messages, marked: 0, octets: 0 };
        maildrop.reset();
        Ok(maildrop)
    }

    /// How many messages are not marked as deleted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.messages.len() - self.marked
    }

    /// The octets of the messages that are not marked as deleted.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// The message with that number, unless it is marked as deleted. The only door to a single message.
    #[must_use]
    pub fn message(&self, number: MessageNumber) -> Option<&Message> {
        self.messages.get(number.index()).filter(|message| !message.deleted)
    }

    /// The messages that are not marked as deleted, with their numbers.
    pub fn messages(&self) -> impl Iterator<Item = (usize, &Message)> {
        (1..).zip(&self.messages).filter(|(_, message)| !message.deleted)
    }

    /// Marks a message as deleted. False when there is none of that number that is not marked yet.
    pub fn mark(&mut self, number: MessageNumber) -> bool {
        let Some(message) = self.messages.get_mut(number.index()).filter(|message| !message.deleted) else {
            return false;
        };
        message.deleted = true;
        self.marked += 1;
        self.octets = self.octets.saturating_sub(message.octets());
        true
    }

    /// Takes all marks back.
    pub fn reset(&mut self) {
        for message in &mut self.messages {
            message.deleted = false;
        }
        self.marked = 0;
        self.octets = self.messages.iter().map(Message::octets).fold(0, u64::saturating_add);
    }

    /// Opens a message for sending; one that a mail program has moved within the Maildir is found.
    ///
    /// # Errors
    /// When it has gone, changed or cannot be read; the rest of the maildrop is not concerned.
    pub fn open_message(&mut self, number: MessageNumber) -> Result<OpenMessage, OpenError> {
        let opened = match self.open_file(number) {
            Err(error) if is_missing(&error) => {
                self.find_moved().map_err(OpenError::Io)?;
                self.open_file(number)
            }
            result => result,
        };
        let (file, identity) = opened.map_err(|error| match Errno::from_io_error(&error) {
            // A link where its file was, or where the way to it led.
            Some(Errno::LOOP | Errno::NOTDIR) => OpenError::Changed,
            _ => OpenError::Io(error),
        })?;
        let Message { place, content, .. } = &self.messages[number.index()];
        if !content.is(&identity, place.folder) {
            // The index will tell the same again: the next login has to read the messages anew.
            Index::forget(&self.root, self.user.as_str());
            return Err(OpenError::Changed);
        }
        Ok(OpenMessage { file, stored: identity.size, octets: content.octets, wire_form: content.wire_form })
    }

    /// A message that is the same file as at login turned out to have `octets` on the wire: its name told something
    /// else. The next login will know; this session keeps to what it said.
    pub fn correct_octets(&self, number: MessageNumber, octets: u64) {
        let Some(mut index) = Index::load(&self.root, self.user.as_str()) else { return };
        let Message { place, content, .. } = &self.messages[number.index()];
        // The index may have it where it was before a mail program moved it or changed its flags.
        let entry = index
            .entries
            .iter_mut()
            .find(|it| it.content.identity.inode == content.identity.inode && it.place.base() == place.base());
        if let Some(entry) = entry.filter(|it| it.content.octets != octets) {
            entry.content.octets = octets;
            Index::save(&self.root, self.user.as_str(), index.stamps, index.entries.iter());
        }
    }

    /// The UPDATE state: removes the marked messages, and those only.
    #[must_use]
    pub fn commit(mut self) -> Update {
        let mut update = Update::default();
        if self.marked == 0 {
            return update;
        }
        let mut missing = self.remove_marked(&mut update);
        if missing > 0 {
            match self.find_moved() {
                Ok(()) => missing = self.remove_marked(&mut update),
                Err(error) => {
                    log::error!("cannot look for messages of {}: {error}", self.user);
                    update.failed += std::mem::take(&mut missing);
                }
            }
        }
        if missing > 0 {
            log::info!("{}: {missing} messages marked as deleted had gone already", self.user);
        }
        update
    }

    /// Removes what it can and takes the marks of those off; returns how many files are not where they were.
    fn remove_marked(&mut self, update: &mut Update) -> u64 {
        let mut missing = 0;
        update.failed = 0;
        for folder in Folder::ALL {
            let is_due = |message: &&mut Message| message.deleted && message.place.folder == folder;
            let due = self.messages.iter_mut().filter(is_due).count() as u64;
            if due == 0 {
                continue;
            }
            let path = folder.path(self.user.as_str());
            let directory = match self.root.directory(&path) {
                Ok(directory) => directory,
                Err(error) if is_missing(&error) => {
                    missing += due;
                    continue;
                }
                Err(error) => {
                    update.failed += due;
                    log::error!("cannot remove messages from {}: {error}", root::display(&path));
                    continue;
                }
            };
            let mut changed = false;
            for message in self.messages.iter_mut().filter(is_due) {
                match remove(&directory, message) {
                    Ok(()) => {
                        message.deleted = false;
                        update.removed += 1;
                    }
                    Err(error) if is_missing(&error) => missing += 1,
                    Err(error) => {
                        update.failed += 1;
                        changed |= error.kind() == io::ErrorKind::InvalidData;
                        log::error!(
                            "cannot remove {}: {error}",
                            root::display(&message.place.path(self.user.as_str()))
                        );
                    }
                }
            }
            if changed {
                Index::forget(&self.root, self.user.as_str());
            }
        }
        missing
    }

    fn open_file(&self, number: MessageNumber) -> io::Result<(File, Identity)> {
        self.root.file(&self.messages[number.index()].place.path(self.user.as_str()))
    }

    /// Looks again where a Maildir's messages are: a mail program moves them from new/ to cur/ and renames them
    /// when their flags change.
    fn find_moved(&mut self) -> io::Result<()> {
        if self.messages.iter().all(|message| message.place.folder == Folder::Top) {
            return Ok(());
        }
        let places = scan::places(&self.root, self.user.as_str())?;
        let mut by_base: HashMap<&[u8], Vec<&Place>> = HashMap::new();
        for place in &places {
            by_base.entry(place.base()).or_default().push(place);
        }
        for message in &mut self.messages {
            // Two of one base name are not told apart: they stay where they were.
            if let Some(&[place]) = by_base.get(message.place.base()).map(Vec::as_slice) {
                message.place = place.clone();
            }
        }
        Ok(())
    }
}

/// Removes a message's file if it is still that message.
fn remove(directory: &Directory, message: &Message) -> io::Result<()> {
    let Message { place, content, .. } = message;
    if !content.is(&directory.identity(&place.name)?, place.folder) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it has changed since login"));
    }
    directory.unlink(&place.name)
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
