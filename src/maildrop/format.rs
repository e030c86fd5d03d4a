//! The formats of maildrops. No code outside this module and the formats' own knows which formats there are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io;

use super::files::{Flat, Maildir};
use super::hidden;
use super::identity::nanoseconds_since_1970;
use super::index::Index;
use super::inspect::Layout;
use super::location::Location;
use super::mbox::Mbox;
use super::message::{Folder, Message};
use super::scan::{self, Folders};
use super::trash::{Batch, Kept};
use super::with_folders::WithFolders;
use super::{OpenError, OpenMessage, Update};

/// A format of maildrops: how messages are stored. A value of it belongs to one session.
pub(super) trait Format: fmt::Debug + Send {
    /// Lists the messages in the maildrop's order, and brings the index up to date. It is called once.
    fn list(&mut self) -> io::Result<Listing>;

    /// The messages of the INBOX, which come first; in most formats all of them.
    fn inbox<'a>(&self, messages: &'a [Message]) -> &'a [Message] {
        messages
    }

    /// The message's unique-id: 1 to 70 octets of 0x21–0x7E, the same in every session, and no other message's.
    fn unique_id<'a>(&self, _index: usize, message: &'a Message) -> Cow<'a, [u8]> {
        message.unique_id()
    }

    /// Opens a message for sending. If another program has moved messages, their paths are updated.
    fn open(&mut self, messages: &mut [Message], index: usize) -> Result<OpenMessage, OpenError>;

    /// Removes the marked messages, which are given by their ascending indices. If there is a batch, they are kept in the
    /// maildrop's trash under its name.
    fn remove(&mut self, messages: &[Message], marked: &[usize], batch: Option<&Batch>) -> Update;

    /// The location, and the folder in which the index is.
    fn place(&self) -> (&Location, Folder);

    /// Hides the messages that a session has marked from POP3.
    fn hide(&mut self, messages: &[Message], marked: &[usize], session: &Batch) -> Update {
        hidden::hide(self.place().0, messages, marked, session.clone())
    }

    /// Marks messages as seen, which are given by their indices. Only in a Maildir other programs look at such marks.
    fn mark_seen(&mut self, _messages: &[Message], _retrieved: Vec<usize>) {}

    /// Removes the index that has this message, because it is wrong.
    fn forget_index(&self, _index: usize) {
        let (location, folder) = self.place();
        Index::forget(location.root(), &location.own_files(folder));
    }

    /// Stores the true octets of messages that were listed with a wrong size in the index.
    fn correct_index(&self, messages: &[Message], corrections: &BTreeMap<usize, u64>) {
        let (location, folder) = self.place();
        Index::correct(location.root(), &location.own_files(folder), messages, corrections);
    }

    /// How the maildrop is stored, for people to read.
    fn layout(&self) -> Layout;

    /// The path of a message below the maildrop's own, for people to read. In an mbox it is the message's unique-id.
    fn shown_path(&self, _index: usize, message: &Message) -> Vec<u8> {
        message.path.shown()
    }
}

/// The messages of a maildrop.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) messages: Vec<Message>,
    /// The files that would be messages if they could be read.
    pub(super) left_out: Vec<LeftOut>,
    /// The sessions that have hidden messages. In a Maildir with folders a session is there once for each folder.
    pub(super) hidden: Vec<Kept>,
}

/// A file that cannot be read.
#[derive(Debug)]
pub(super) struct LeftOut {
    /// Its path as [`Format::shown_path`] would show it.
    pub(super) path: Vec<u8>,
    pub(super) error: io::Error,
}

/// Finds out which format a maildrop has. If there is none, `missing` is called.
///
/// # Errors
/// When the location cannot be examined, or is refused as a maildrop.
pub(super) fn of(location: &Location, missing: impl FnOnce(&Location)) -> io::Result<Box<dyn Format>> {
    let now = nanoseconds_since_1970();
    let location = location.clone();
    let maildir = match Index::load(location.root(), &location.own_files(Folder::Top)) {
        Some(Index { stamps: Some(stamps), entries, .. }) if scan::are_unchanged(&location, stamps, now) => {
            Maildir::unchanged(location.clone(), entries, now)
        }
        index => {
            let folders = match Folders::open(&location) {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Box::new(Mbox::new(location))),
                folders => folders?,
            };
            if folders.are_missing() {
                missing(&location);
            }
            if folders.is_flat() {
                return Ok(Box::new(Flat::new(location, folders, index, now)));
            }
            Maildir::new(location.clone(), folders, index, now)
        }
    };
    match &location.root().layouts().maildirs().folders[..] {
        [] => Ok(Box::new(maildir)),
        folders => Ok(Box::new(WithFolders::open(maildir, &location, folders, now)?)),
    }
}
