//! The format in which one file holds all messages (mbox), as mail transfer agents deliver to `/var/mail`.
//!
//! - `parse` finds the messages in the file. The index keeps where they are, so that a login reads only what was appended.
//! - `lock` takes the locks that other programs go by.
//! - `list` compares file and index, and gives messages their unique-ids.
//! - `rewrite` removes messages, with a journal beside the file. `restore` keeps them and brings them back.

mod journal;
mod list;
mod lock;
mod parse;
mod restore;
mod rewrite;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;

use super::format::Format;
use super::hidden;
use super::identity::Identity;
use super::index::Index;
use super::location::{Location, OwnFiles};
use super::message::{Content, FilePath, Folder, Message};
use super::root;
use super::trash::{Batch, Bin};
use super::{FileRange, OpenError, OpenMessage, Source, Update, is_missing};
pub(super) use list::FileState;
use list::Listing;
pub(super) use restore::restore;

/// Where a message is in an mbox. In a [`Message`] it takes the fields of a file's [`Identity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Section {
    /// Where the `From ` line begins.
    from: u64,
    /// Where the message begins.
    start: u64,
    /// The message's size in the file.
    length: u64,
    /// A part of the message's hash.
    check: i64,
}

impl Section {
    fn of(message: &Message) -> Self {
        let Identity { inode, size, modified, changed } = message.content.identity;
        Self { from: modified.cast_unsigned(), start: inode, length: size, check: changed }
    }

    fn identity(self) -> Identity {
        let Self { from, start, length, check } = self;
        Identity { inode: start, size: length, modified: from.cast_signed(), changed: check }
    }

    fn end(self) -> u64 {
        self.start.saturating_add(self.length)
    }

    /// Makes it a message with a unique-id and a size on the wire. Nothing is sent without a look at it, as other programs
    /// write to the file.
    fn message(self, unique_id: super::names::Name, octets: u64) -> Message {
        let path = FilePath { folder: Folder::Mbox, name: unique_id };
        Message::new(path, Content { identity: self.identity(), octets, wire_form: false, namesake: false })
    }
}

/// An mbox.
#[derive(Debug)]
pub(super) struct Mbox {
    location: Location,
    /// The state of the file in which the session's messages have these sections.
    state: FileState,
    /// All messages that the file had in that state, if some of them are hidden from the session.
    all: Option<Vec<Message>>,
}

impl Mbox {
    pub(super) fn new(location: Location) -> Self {
        Self { location, state: FileState::default(), all: None }
    }

    /// Lists the messages under the lock for reading.
    fn read(&self, known: &[Message], state: Option<FileState>) -> io::Result<Listing> {
        let (file, _) = self.location.root().file(self.location.path())?;
        lock::for_reading(&file)?;
        Listing::read(&file, known, state)
    }

    /// Finds the session's messages again after other programs have changed the file.
    fn follow(&mut self, messages: &mut [Message]) -> io::Result<()> {
        let listing = self.read(self.known(messages), Some(self.state))?;
        let now = by_content(&listing.messages);
        for message in messages {
            let found = now.get(&content_key(message));
            // A message that is no longer there begins nowhere.
            let gone = Section { from: u64::MAX, start: u64::MAX, length: 0, check: message.content.identity.changed };
            message.content.identity = found.map_or(gone.identity(), |&found| found.content.identity);
        }
        self.state = listing.state;
        if self.all.is_some() {
            self.all = Some(listing.messages);
        }
        Ok(())
    }

    /// All messages that the file had in the state that the session knows.
    fn known<'a>(&'a self, messages: &'a [Message]) -> &'a [Message] {
        self.all.as_deref().unwrap_or(messages)
    }

    fn own_files(&self) -> OwnFiles {
        self.location.own_files(Folder::Mbox)
    }

    fn section(&self, file: File, message: &Message) -> Result<OpenMessage, OpenError> {
        let section = Section::of(message);
        if section.start == u64::MAX {
            return Err(OpenError::Io(io::ErrorKind::NotFound.into()));
        }
        let range = FileRange { file, offset: section.start, left: section.length, wire_form: false };
        Ok(OpenMessage { octets: message.octets(), source: Source::File(range) })
    }

    /// Removes messages under the locks for writing.
    fn rewrite(&self, messages: &[Message], marked: &[usize], batch: Option<&Batch>) -> io::Result<Update> {
        let root = self.location.root();
        let own = self.own_files();
        let directory = root.directory(&own.directory)?;
        let (file, _) = root.writable_file(self.location.path())?;
        let _lock = lock::for_writing(&file, &directory, self.location.name())?;
        let known = self.known(messages);
        let mut listing = Listing::read(&file, known, Some(self.state))?;
        let keys: Vec<_> = marked.iter().map(|&index| content_key(&messages[index])).collect();
        if !listing.confirm(&file, &keys)? {
            // Another program has changed the file in place. Everything is read again.
            listing = Listing::read(&file, known, None)?;
        }
        let mut due = vec![false; listing.messages.len()];
        let mut removed = 0;
        let positions: HashMap<_, _> =
            listing.messages.iter().enumerate().map(|(index, message)| (content_key(message), index)).collect();
        for key in &keys {
            if let Some(&index) = positions.get(key) {
                due[index] = true;
                removed += 1;
            }
        }
        let gone = keys.len() as u64 - removed;
        if gone > 0 {
            log::info!("{}: other programs had removed {gone} of the marked messages already", self.location.user());
        }
        if let Some(batch) = batch.filter(|_| removed > 0) {
            let bin = Bin::create(&self.location, Folder::Mbox, batch)?;
            restore::keep(&bin, &file, &listing, &due)?;
        }
        if removed > 0 {
            let plan = rewrite::Plan::without(&listing, &due);
            let journal = journal::Journal::new(&directory, own.name(journal::FILE));
            let kept = plan.kept(&listing, &due);
            rewrite::run(&file, plan, &journal)?;
            if let Ok(state) = FileState::of(&file) {
                Index::save_mbox(root, &own, state, &kept);
            }
            if let Err(error) = journal.remove() {
                // The next login sees that the removal is complete.
                log::error!("{} cannot be removed: {error}", root::display(&own.path(journal::FILE)));
            }
        }
        Ok(Update { removed, failed: 0 })
    }

    /// Finishes what an earlier session has begun, if the server ended while it removed messages.
    pub(super) fn recover(&self) -> io::Result<()> {
        let (root, own) = (self.location.root(), self.own_files());
        let name = own.name(journal::FILE);
        if !root.has(&own.path(journal::FILE)) {
            return Ok(());
        }
        let directory = root.directory(&own.directory)?;
        let (file, _) = root.writable_file(self.location.path())?;
        let _lock = lock::for_writing(&file, &directory, self.location.name())?;
        let path = root::display(&own.path(journal::FILE));
        match rewrite::recover(&file, &journal::Journal::new(&directory, name))? {
            true => log::warn!("{path}: the removal of messages that was interrupted is finished"),
            false => log::warn!("{path}: nothing had been removed yet, or another program has replaced the mbox"),
        }
        Ok(())
    }
}

impl Format for Mbox {
    fn list(&mut self) -> io::Result<Vec<Message>> {
        self.recover()?;
        let own = self.own_files();
        let index = Index::load(self.location.root(), &own).unwrap_or_default();
        let listing = match self.read(&index.entries, index.mbox) {
            Err(error) if is_missing(&error) => Listing::default(),
            result => result?,
        };
        self.state = listing.state;
        if index.mbox != Some(listing.state) || index.entries != listing.messages {
            Index::save_mbox(self.location.root(), &own, listing.state, &listing.messages);
        }
        let mut messages = listing.messages;
        if hidden::hides(&self.location) {
            let all = messages.clone();
            self.all = hidden::leave_out(&self.location, &mut messages).then_some(all);
        }
        Ok(messages)
    }

    fn open(&mut self, messages: &mut [Message], index: usize) -> Result<OpenMessage, OpenError> {
        let (file, identity) = self.location.root().file(self.location.path()).map_err(OpenError::Io)?;
        if !self.state.is_exactly(&identity) {
            self.follow(messages).map_err(OpenError::Io)?;
        }
        self.section(file, &messages[index])
    }

    fn hide(&mut self, messages: &[Message], marked: &[usize]) -> Update {
        hidden::hide(&self.location, messages, marked)
    }

    fn remove(&mut self, messages: &[Message], marked: &[usize], batch: Option<&Batch>) -> Update {
        self.rewrite(messages, marked, batch).unwrap_or_else(|error| {
            let path = root::display(self.location.path());
            log::error!("cannot remove messages from {path}: {error}");
            Update { removed: 0, failed: marked.len() as u64 }
        })
    }

    fn forget_index(&self, _: usize) {
        Index::forget(self.location.root(), &self.own_files());
    }

    fn correct_index(&self, messages: &[Message], corrections: &BTreeMap<usize, u64>) {
        Index::correct(self.location.root(), &self.own_files(), messages, corrections);
    }
}

/// What a message is recognised by, wherever it is in the file.
fn content_key(message: &Message) -> (&[u8], i64) {
    (&message.path.name, message.content.identity.changed)
}

fn by_content(messages: &[Message]) -> HashMap<(&[u8], i64), &Message> {
    messages.iter().map(|message| (content_key(message), message)).collect()
}

/// Refuses a file that is not an mbox: it has octets and does not begin with a `From ` line.
///
/// # Errors
/// When it is none, or cannot be read.
pub(super) fn refuse_other_file(location: &Location) -> io::Result<()> {
    let (file, identity) = location.root().file(location.path())?;
    let end = identity.size.min(parse::LOOKED_AT);
    parse::begins(&file, end)
}
