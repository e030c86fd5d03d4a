//! The format in which one file holds all messages (mbox), as mail transfer agents deliver to `/var/mail`.
//!
//! - `parse` finds the messages in the file. The index keeps where they are, so that a login reads only what was appended.
//! - `lock` takes the locks that other programs go by.
//! - `list` compares file and index, and gives messages their unique-ids.
//! - `rewrite` removes messages, with a journal beside the file. `kept` has those that are kept in the trash, and `restore`
//!   brings them back.
//! - `unlocked` reads a message that is sent.

mod journal;
mod kept;
mod list;
mod lock;
mod parse;
mod restore;
mod rewrite;
#[cfg(test)]
mod tests;
mod unlocked;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::directory::Directory;
use super::format::{self, Format};
use super::hidden;
use super::identity::Identity;
use super::index::Index;
use super::inspect::Layout;
use super::location::{Location, OwnFiles};
use super::message::{Content, FilePath, Folder, Message};
use super::root::{self, RootId};
use super::trash::{Batch, Bin};
use super::{FileRange, OpenError, OpenMessage, Source, Update, is_missing};
pub(super) use list::FileState;
use list::Listing;
use lock::DotLock;
pub(super) use lock::DotLockState;
pub(super) use restore::{purge, restore, sums};
pub use unlocked::Unlocked;

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
        Message::new(
            path,
            Content { identity: self.identity(), octets, wire_form: false, compressed: false, namesake: false },
        )
    }
}

/// How often a file is opened again because another program has replaced it meanwhile.
const REPLACED_AT_MOST: usize = 5;

/// The index is not written as long as no more octets than these were appended. To read them again takes less time.
const READ_AGAIN: u64 = 1 << 16;

/// An mbox.
#[derive(Debug)]
pub(super) struct Mbox {
    location: Location,
    /// The state of the file in which the session's messages have these sections.
    state: FileState,
    /// All messages that the file has in that state, if the session has others.
    all: Option<Vec<Message>>,
}

impl Mbox {
    pub(super) fn new(location: Location) -> Self {
        Self { location, state: FileState::default(), all: None }
    }

    /// Lists the messages under the lock for reading.
    fn read<'a>(&self, known: Cow<'a, [Message]>, state: Option<FileState>) -> io::Result<Listing<'a>> {
        let root = self.location.root();
        for _ in 0..REPLACED_AT_MOST {
            let (file, _) = root.file(self.location.path())?;
            lock::for_reading(&file)?;
            if self.is_at_its_place(&file)? {
                return Listing::read(&file, known, state);
            }
        }
        Err(is_being_replaced())
    }

    /// Opens the file and locks it for writing.
    fn open_for_writing<'a>(&self, directory: &'a Directory) -> io::Result<(File, DotLock<'a>)> {
        let root = self.location.root();
        for _ in 0..REPLACED_AT_MOST {
            let (file, _) = root.writable_file(self.location.path())?;
            let lock = lock::for_writing(&file, directory, self.location.name())?;
            if self.is_at_its_place(&file)? {
                return Ok((file, lock));
            }
        }
        Err(is_being_replaced())
    }

    /// Returns true if a locked file is still the mbox. Another program may have put a new file in its place before.
    fn is_at_its_place(&self, file: &File) -> io::Result<bool> {
        refuse_other_names(file)?;
        let id = RootId::new(&rustix::fs::fstat(file)?);
        match self.location.root().names(self.location.path(), file, id) {
            Err(error) if is_missing(&error) => Ok(false),
            result => result,
        }
    }

    /// Finds the session's messages again after other programs have changed the file.
    fn follow(&mut self, messages: &mut [Message]) -> io::Result<()> {
        let listing = self.read(self.all.as_deref().unwrap_or(messages).to_vec().into(), Some(self.state))?;
        let now = by_content(&listing.messages);
        for message in &mut *messages {
            let found = now.get(&content_key(message));
            // A message that is no longer there begins nowhere.
            let gone = Section { from: u64::MAX, start: u64::MAX, length: 0, check: message.content.identity.changed };
            message.content.identity = found.map_or(gone.identity(), |&found| found.content.identity);
        }
        self.state = listing.state;
        self.all = (*listing.messages != *messages).then(|| listing.messages.into_owned());
        Ok(())
    }

    fn own_files(&self) -> OwnFiles<'_> {
        self.location.own_files(Folder::Mbox)
    }

    fn section(&self, file: File, message: &Message) -> Result<OpenMessage, OpenError> {
        let section = Section::of(message);
        if section.start == u64::MAX {
            return Err(OpenError::Io(io::ErrorKind::NotFound.into()));
        }
        let unlocked = Unlocked::new(file, section, self.state);
        Ok(OpenMessage { octets: message.octets(), source: Source::Mbox(Box::new(unlocked)) })
    }

    /// Removes messages under the locks for writing.
    fn rewrite(&self, messages: &[Message], marked: &[usize], batch: Option<&Batch>) -> io::Result<Update> {
        let root = self.location.root();
        let own = self.own_files();
        let directory = root.directory(&own.directory())?;
        let (file, lock) = self.open_for_writing(&directory)?;
        let known = self.all.as_deref().unwrap_or(messages);
        let marked: HashSet<_> = marked.iter().map(|&index| content_key(&messages[index])).collect();
        let due_in = |listing: &Listing<'_>| -> Vec<bool> {
            listing.messages.iter().map(|message| marked.contains(&content_key(message))).collect()
        };
        let mut listing = Listing::read(&file, known.into(), Some(self.state))?;
        let mut due = due_in(&listing);
        if !listing.confirm(&file, &due)? {
            // Another program has changed the file in place. Everything is read again.
            listing = Listing::read(&file, known.into(), None)?;
            due = due_in(&listing);
        }
        let removed = due.iter().filter(|&&is_due| is_due).count() as u64;
        let gone = marked.len() as u64 - removed;
        if gone > 0 {
            log::info!("{}: other programs had removed {gone} of the marked messages already", self.location.user());
        }
        if let Some(batch) = batch.filter(|_| removed > 0) {
            let bin = Bin::create(&self.location, Folder::Mbox, batch)?;
            kept::keep(&bin, &file, &listing, &due)?;
        }
        if removed > 0 {
            let plan = rewrite::Plan::without(&listing, &due);
            let journal = journal::Journal::new(&directory, own.name(journal::FILE));
            rewrite::run(&file, plan, &journal, &lock)?;
            if let Ok(state) = FileState::of(&file) {
                Index::save_mbox(root, &own, state, listing.without(&due));
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
        if root.layouts().is_read_only() || !root.has(&own.path(journal::FILE)) {
            return Ok(());
        }
        let directory = root.directory(&own.directory())?;
        let path = root::display(&own.path(journal::FILE));
        let journal = journal::Journal::new(&directory, own.name(journal::FILE));
        let (file, lock) = self.open_for_writing(&directory)?;
        if !root.may_use(&own, &root.file(&own.path(journal::FILE))?.0) {
            log::warn!("{path} is not used: it belongs to another user");
            return journal.put_aside();
        }
        match rewrite::recover(&file, &journal, &lock)? {
            true => log::warn!("{path}: the removal of messages that was interrupted is finished"),
            false => log::warn!("{path}: nothing had been removed yet, or another program has replaced the mbox"),
        }
        Ok(())
    }

    /// Removes the dot-lock of a server that was killed.
    fn remove_stale_lock(&self) -> io::Result<()> {
        let own = self.own_files();
        let root = self.location.root();
        if root.layouts().is_read_only() || !root.has(&lock::dot_lock_name(self.location.path())) {
            return Ok(());
        }
        let directory = root.directory(&own.directory())?;
        let (file, _) = root.writable_file(self.location.path())?;
        lock::remove_stale(&file, &directory, self.location.name())
    }

    /// Returns true if a server that was killed has left a journal or a dot-lock.
    pub(super) fn is_interrupted(&self) -> io::Result<bool> {
        let (root, own) = (self.location.root(), self.own_files());
        let lock = lock::dot_lock_name(self.location.path());
        let has_lock = root.has(&lock);
        let has_journal = root.has(&own.path(journal::FILE));
        Ok(has_journal
            || has_lock
                && lock::is_stale(&root.directory(&own.directory())?, &lock::dot_lock_name(self.location.name())))
    }

    /// Finishes what a server that was killed has begun, and removes the dot-lock that it has left.
    pub(super) fn finish_interrupted(&self) -> io::Result<()> {
        self.recover()?;
        self.remove_stale_lock()
    }
}

impl Format for Mbox {
    fn list(&mut self) -> io::Result<format::Listing> {
        self.recover()?;
        if let Err(error) = self.remove_stale_lock() {
            log::debug!("{}: a stale lock cannot be removed: {error}", self.location.user());
        }
        let index = Index::load(self.location.root(), &self.own_files()).unwrap_or_default();
        let listing = match self.read(index.entries.into(), index.mbox) {
            Err(error) if is_missing(&error) => Listing::default(),
            result => result?,
        };
        self.state = listing.state;
        let is_known = match listing.appended {
            Some(0) => index.mbox == Some(listing.state),
            Some(octets) => octets <= READ_AGAIN,
            None => false,
        };
        if !is_known {
            Index::save_mbox(self.location.root(), &self.own_files(), listing.state, listing.messages.iter());
        }
        let mut listing = format::Listing { messages: listing.messages.into_owned(), ..format::Listing::default() };
        if hidden::hides(&self.location) {
            let all = listing.messages.clone();
            listing.hidden = hidden::leave_out(&self.location, &mut listing.messages);
            self.all = (!listing.hidden.is_empty()).then_some(all);
        }
        Ok(listing)
    }

    fn open(&mut self, messages: &mut [Message], index: usize) -> Result<OpenMessage, OpenError> {
        let (file, identity) = self.location.root().file(self.location.path()).map_err(OpenError::Io)?;
        refuse_other_names(&file).map_err(OpenError::Io)?;
        if !self.state.is_exactly(&identity) {
            self.follow(messages).map_err(OpenError::Io)?;
        }
        self.section(file, &messages[index])
    }

    fn place(&self) -> (&Location, Folder) {
        (&self.location, Folder::Mbox)
    }

    fn remove(&mut self, messages: &[Message], marked: &[usize], batch: Option<&Batch>) -> Update {
        self.rewrite(messages, marked, batch).unwrap_or_else(|error| {
            let path = root::display(self.location.path());
            log::error!("cannot remove messages from {path}: {error}");
            Update { removed: 0, failed: marked.len() as u64 }
        })
    }

    fn layout(&self) -> Layout {
        Layout::Mbox
    }
}

/// The dot-lock of the mbox at a location, if there is one.
pub(super) fn dot_lock(location: &Location) -> Option<DotLockState> {
    let directory = location.root().directory(&location.own_files(Folder::Mbox).directory()).ok()?;
    lock::dot_lock(&directory, location.name())
}

/// Returns true if a removal of messages was interrupted, or is going on.
pub(super) fn has_journal(location: &Location) -> bool {
    location.root().has(&location.own_files(Folder::Mbox).path(journal::FILE))
}

/// Refuses a file that has other names (hard links). A user may have given a second name to the mbox of another one, which a
/// server with more rights would then serve.
fn refuse_other_names(file: &File) -> io::Result<()> {
    if file.metadata()?.nlink() > 1 {
        let why = "the mbox has another name elsewhere (a hard link), so it may be another user's";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

fn is_being_replaced() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "other programs replace the mbox again and again")
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
    refuse_other_names(&file)?;
    let end = identity.size.min(parse::LOOKED_AT);
    parse::begins(&file, end)
}
