//! The formats of maildrops. No code outside this module and the formats' own knows which formats there are.

use std::fmt;
use std::io;

use super::files::{Flat, Maildir};
use super::identity::nanoseconds_since_1970;
use super::index::Index;
use super::inspect::Layout;
use super::location::{Location, OwnFiles};
use super::mbox::Mbox;
use super::message::{FilePath, Folder, Message};
use super::missing;
use super::scan::{self, Folders};
use super::{OpenError, OpenMessage, Update};

/// A format of maildrops: how messages are stored. A value of it belongs to one session.
pub(super) trait Format: fmt::Debug + Send {
    /// Lists the messages in the maildrop's order, and brings the index up to date. It is called once.
    fn list(&mut self) -> io::Result<Listing>;

    /// Opens a message as a range of a file. If another program has moved messages, their paths are updated.
    fn open(&mut self, messages: &mut [Message], index: usize) -> Result<OpenMessage, OpenError>;

    /// Removes the marked messages, which are given by their ascending indices.
    fn remove(&mut self, messages: &[Message], marked: &[usize]) -> Update;

    /// The files that the server keeps for the maildrop, such as the index.
    fn own_files(&self) -> OwnFiles;

    /// How the maildrop is stored, for people to read.
    fn layout(&self) -> Layout;
}

/// The messages of a maildrop.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) messages: Vec<Message>,
    /// The files that would be messages if they could be read.
    pub(super) left_out: Vec<LeftOut>,
}

/// A file that cannot be read.
#[derive(Debug)]
pub(super) struct LeftOut {
    pub(super) path: FilePath,
    pub(super) error: io::Error,
}

/// Finds out which format a maildrop has.
///
/// # Errors
/// When the location cannot be examined, or is refused as a maildrop.
pub(super) fn of(location: &Location) -> io::Result<Box<dyn Format>> {
    let now = nanoseconds_since_1970();
    let location = location.clone();
    match Index::load(location.root(), &location.own_files(Folder::Top)) {
        Some(Index { stamps: Some(stamps), entries, .. }) if scan::are_unchanged(&location, stamps, now) => {
            Ok(Box::new(Maildir::unchanged(location, entries, now)))
        }
        index => {
            let folders = match Folders::open(&location) {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Box::new(Mbox::new(location))),
                folders => folders?,
            };
            if folders.are_missing() {
                missing::warn(&location);
            }
            if folders.is_flat() {
                Ok(Box::new(Flat::new(location, folders, index, now)))
            } else {
                Ok(Box::new(Maildir::new(location, folders, index, now)))
            }
        }
    }
}
