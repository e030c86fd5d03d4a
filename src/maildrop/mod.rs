//! A user's mail as a numbered list, as it was at login (RFC 1939 section 4).
//!
//! `<mail directory>/<user>/` is a Maildir if it has `new/` or `cur/`, else flat: each regular file is a message,
//! unless [`Layouts`] refuses that. A missing directory is an empty maildrop.
//!
//! - [`MailRoot`] is the mail directory and [`Root`] its open descriptor; nothing is opened outside it.
//! - [`Locks`] and [`Lock`] give one session the maildrop, in this process and towards others.
//! - [`Maildrop`] is the list. `scan` finds the files, `measure` their sizes on the wire, `index` remembers these.
//! - [`Message`] is one of them, by [`MessageNumber`]; [`Maildrop::open_message`] gives [`OpenMessage`], or
//!   [`OpenError`] when the file has changed since login. `moved` finds messages that were renamed since.
//! - [`Maildrop::commit`] removes what is marked and returns an [`Update`]. No other code removes messages.
//!
//! Sessions of [`crate::pop3`] are the callers; the admin's `m=` opens another [`MailRoot`].

mod homes;
mod index;
mod layout;
mod lock;
mod lock_file;
mod marks;
mod measure;
mod message;
mod moved;
mod name;
mod names;
mod root;
mod scan;
mod system;
#[cfg(test)]
mod tests;
mod update;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;

use rustix::io::Errno;

use crate::auth::UserName;
use index::Index;
pub use layout::{LayoutChoice, Layouts};
pub use lock::{Lock, Locks};
use marks::Marks;
pub use measure::{PLENTY_OF_DESCRIPTORS, SCAN_DESCRIPTORS};
use message::Folder;
pub use message::Message;
use root::Identity;
pub use root::{MailRoot, Root, RootId};
pub use update::Update;

/// A message's number in the session: from 1 (RFC 1939 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageNumber(NonZeroU32);

impl MessageNumber {
    /// `None` for 0, which no message has.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
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

/// A user's messages as they were at login, and which of them are marked as deleted.
#[derive(Debug)]
pub struct Maildrop {
    root: Arc<Root>,
    user: UserName,
    /// When it was opened, in ns since 1970.
    opened: i64,
    messages: Vec<Message>,
    marks: Marks,
    /// Of the messages that are not marked. An index may tell sizes that 64 bits do not hold together.
    octets: u128,
    /// The octets of messages that were listed with others.
    corrections: BTreeMap<usize, u64>,
}

impl Maildrop {
    /// Lists and measures the user's messages.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn open(root: Arc<Root>, user: UserName) -> io::Result<Self> {
        let opened = scan::nanoseconds_since_1970();
        let messages = scan::messages(&root, user.as_str())?;
        let octets = messages.iter().map(|message| u128::from(message.octets())).sum();
        Ok(Self { root, user, opened, messages, marks: Marks::default(), octets, corrections: BTreeMap::new() })
    }

    /// How many messages are not marked as deleted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.messages.len() - self.marks.len()
    }

    /// How many messages are marked as deleted.
    #[must_use]
    pub fn marked(&self) -> usize {
        self.marks.len()
    }

    /// The octets of the messages that are not marked as deleted.
    #[must_use]
    pub fn octets(&self) -> u64 {
        u64::try_from(self.octets).unwrap_or(u64::MAX)
    }

    /// The message with that number, unless it is marked as deleted. The only door to a single message.
    #[must_use]
    pub fn message(&self, number: MessageNumber) -> Option<&Message> {
        self.messages.get(number.index()).filter(|_| !self.marks.contains(number.index()))
    }

    /// The messages that are not marked as deleted, with their numbers.
    pub fn messages(&self) -> impl Iterator<Item = (usize, &Message)> {
        (1..).zip(&self.messages).filter(|&(number, _)| !self.marks.contains(number - 1))
    }

    /// Marks a message as deleted. False when there is none of that number that is not marked yet.
    pub fn mark(&mut self, number: MessageNumber) -> bool {
        let Some(message) = self.messages.get(number.index()) else { return false };
        let is_new = self.marks.insert(number.index());
        if is_new {
            self.octets -= u128::from(message.octets());
        }
        is_new
    }

    /// Takes all marks back.
    pub fn reset(&mut self) {
        for index in self.marks.take() {
            self.octets += u128::from(self.messages[index].octets());
        }
    }

    /// Opens a message for sending; one that a mail program has moved within the Maildir is found.
    ///
    /// # Errors
    /// When it has gone, changed or cannot be read; the rest of the maildrop is not concerned.
    pub fn open_message(&mut self, number: MessageNumber) -> Result<OpenMessage, OpenError> {
        let opened = match self.open_here(number) {
            Err(error) if self.may_be_elsewhere(number, &error) => self.open_moved(number),
            result => result,
        };
        if matches!(opened, Err(OpenError::Changed)) {
            // The index will tell the same again: the next login has to read the messages anew.
            Index::forget(&self.root, self.user.as_str());
        }
        opened
    }

    /// Opens a message where the session knows it to be.
    fn open_here(&self, number: MessageNumber) -> Result<OpenMessage, OpenError> {
        let Message { place, content, .. } = &self.messages[number.index()];
        let (file, identity) = self.root.file(&place.path(self.user.as_str())).map_err(|error| {
            match Errno::from_io_error(&error) {
                // A link where its file was, or where the way to it led.
                Some(Errno::LOOP | Errno::NOTDIR) => OpenError::Changed,
                _ => OpenError::Io(error),
            }
        })?;
        if !self.is_message(number.index(), &identity) {
            return Err(OpenError::Changed);
        }
        let wire_form = content.wire_form && content.is_measured(&identity, place.folder);
        Ok(OpenMessage { file, stored: identity.size, octets: content.octets, wire_form })
    }

    fn may_be_elsewhere(&self, number: MessageNumber, error: &OpenError) -> bool {
        let is_missing = match error {
            OpenError::Changed => true,
            OpenError::Io(error) => is_missing(error),
        };
        is_missing && self.messages[number.index()].place.folder != Folder::Top
    }

    /// A message that is the same file as at login turned out to have `octets` on the wire: its name told something
    /// else. The next login will know; this session keeps to what it said.
    pub fn correct_octets(&mut self, number: MessageNumber, octets: u64) {
        self.corrections.insert(number.index(), octets);
    }

    /// Whether a file with the message's base name is the message: see [`update`] for how a file is recognised.
    fn is_message(&self, index: usize, identity: &Identity) -> bool {
        let content = &self.messages[index].content;
        content.is(identity) && (content.identity.inode == identity.inode || self.is_alone(index))
    }

    /// Whether no other message has the message's base name. Those that have it are beside it.
    fn is_alone(&self, index: usize) -> bool {
        let base = |index: usize| self.messages.get(index).map(|message| message.place.base());
        base(index) != base(index + 1) && (index == 0 || base(index) != base(index - 1))
    }
}

impl Drop for Maildrop {
    /// Has the index corrected for all messages at once, as the whole of it is written.
    fn drop(&mut self) {
        if !self.corrections.is_empty() {
            let corrections = self.corrections.iter().map(|(&index, &octets)| (&self.messages[index], octets));
            Index::correct(&self.root, self.user.as_str(), corrections);
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
