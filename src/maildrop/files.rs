//! The two formats in which each message is a file of its own: flat maildrops and Maildirs.

use std::io;
use std::mem;

use rustix::io::Errno;

use super::compressed::{Compression, Decompressed};
use super::format::{self, Format};
use super::hidden;
use super::identity::Identity;
use super::index::Index;
use super::inspect::Layout;
use super::location::Location;
use super::lock_file;
use super::message::{FilePath, Folder, Message};
use super::moved::{Listing, Search};
use super::name;
use super::quota;
use super::root;
use super::scan::{self, Folders};
use super::seen;
use super::trash::{Batch, Bin};
use super::update::Removal;
use super::{FileRange, OpenError, OpenMessage, Source, Update, is_missing};

/// What a login has found before the messages are listed.
#[derive(Debug)]
enum Found {
    /// The directories, and the index if there is one.
    Folders(Folders, Option<Index>),
    /// The messages of a Maildir, which has not changed since its index was written. Also the state after listing.
    Messages(Vec<Message>),
}

impl Found {
    fn list(&mut self, now: i64) -> io::Result<format::Listing> {
        match mem::replace(self, Self::Messages(Vec::new())) {
            Self::Folders(folders, index) => folders.refresh(index, now),
            Self::Messages(messages) => Ok(format::Listing { messages, ..format::Listing::default() }),
        }
    }
}

/// A flat maildrop: each regular file in the directory is a message.
#[derive(Debug)]
pub(super) struct Flat {
    location: Location,
    found: Found,
    /// When the session began, in ns since 1970.
    now: i64,
}

impl Flat {
    pub(super) fn new(location: Location, folders: Folders, index: Option<Index>, now: i64) -> Self {
        Self { location, found: Found::Folders(folders, index), now }
    }
}

impl Format for Flat {
    fn list(&mut self) -> io::Result<format::Listing> {
        let mut listing = self.found.list(self.now)?;
        listing.hidden = hidden::leave_out(&self.location, &mut listing.messages);
        Ok(listing)
    }

    fn open(&mut self, messages: &mut [Message], index: usize) -> Result<OpenMessage, OpenError> {
        open(&self.location, messages, index)
    }

    fn remove(&mut self, messages: &[Message], marked: &[usize], batch: Option<&Batch>) -> Update {
        let Some(bin) = bin(&self.location, batch) else {
            return Update { removed: 0, failed: marked.len() as u64 };
        };
        let mut removal = Removal::new(&self.location, messages, self.now, bin.as_ref());
        removal.remove_from(Folder::Top, marked);
        removal.finish().0
    }

    fn place(&self) -> (&Location, Folder) {
        (&self.location, Folder::Top)
    }

    fn layout(&self) -> Layout {
        Layout::Flat
    }
}

/// A Maildir: the files in `new/` and `cur/` are the messages. Mail programs move and rename them.
#[derive(Debug)]
pub(super) struct Maildir {
    location: Location,
    /// The Maildir that this one is a folder of, or itself. The quota is there.
    top: Location,
    found: Found,
    /// When the session began, in ns since 1970.
    now: i64,
}

impl Maildir {
    pub(super) fn new(location: Location, folders: Folders, index: Option<Index>, now: i64) -> Self {
        Self { top: location.clone(), location, found: Found::Folders(folders, index), now }
    }

    /// Opens a folder of the Maildir at `top`. Returns `None` if it does not exist.
    pub(super) fn open_folder(top: &Location, location: &Location, now: i64) -> io::Result<Option<Self>> {
        let (top, location) = (top.clone(), location.clone());
        let found = match Index::load(location.root(), &location.own_files(Folder::Top)) {
            Some(Index { stamps: Some(stamps), entries, .. }) if scan::are_unchanged(&location, stamps, now) => {
                Found::Messages(entries)
            }
            index => match Folders::open(&location)? {
                folders if folders.are_missing() => return Ok(None),
                folders => Found::Folders(folders, index),
            },
        };
        Ok(Some(Self { location, top, found, now }))
    }

    /// A Maildir whose directories have not changed since the index with these entries was written.
    pub(super) fn unchanged(location: Location, entries: Vec<Message>, now: i64) -> Self {
        Self { top: location.clone(), location, found: Found::Messages(entries), now }
    }

    /// Opens a message that was moved or renamed since it was listed.
    fn open_moved(&self, messages: &mut [Message], index: usize) -> Result<OpenMessage, OpenError> {
        let mut search = Search::new(&self.location);
        loop {
            let Some(listing) = search.list().map_err(OpenError::Io)? else {
                return open(&self.location, messages, index);
            };
            let is_listed = follow(&mut messages[index], &listing);
            match open(&self.location, messages, index) {
                Err(OpenError::Changed) if !listing.at_rest => {}
                // It was renamed again during the listing or after it.
                Err(OpenError::Io(error)) if is_missing(&error) && (is_listed || !listing.at_rest) => {}
                Ok(opened) => {
                    // A program that moves one message often moves others too, so all messages are updated.
                    for message in messages {
                        follow(message, &listing);
                    }
                    return Ok(opened);
                }
                result => return result,
            }
        }
    }
}

impl Format for Maildir {
    fn list(&mut self) -> io::Result<format::Listing> {
        let mut listing = self.found.list(self.now)?;
        if self.location.root().layouts().maildirs().hide_trashed {
            listing.messages.retain(|message| !name::is_trashed(&message.path.name));
        }
        listing.hidden = hidden::leave_out(&self.location, &mut listing.messages);
        Ok(listing)
    }

    fn open(&mut self, messages: &mut [Message], index: usize) -> Result<OpenMessage, OpenError> {
        match open(&self.location, messages, index) {
            Err(OpenError::Changed) => self.open_moved(messages, index),
            Err(OpenError::Io(error)) if is_missing(&error) => self.open_moved(messages, index),
            result => result,
        }
    }

    fn remove(&mut self, messages: &[Message], marked: &[usize], batch: Option<&Batch>) -> Update {
        let Some(bin) = bin(&self.location, batch) else {
            return Update { removed: 0, failed: marked.len() as u64 };
        };
        let mut removal = Removal::new(&self.location, messages, self.now, bin.as_ref());
        removal.remove_from(Folder::New, marked);
        removal.remove_from(Folder::Cur, marked);
        removal.look_for_the_rest();
        let (update, freed) = removal.finish();
        let is_trash = self.location.is_maildir_folder() && self.location.name() == b".Trash";
        quota::note(&self.top, if is_trash { freed.as_trashed() } else { freed });
        update
    }

    fn mark_seen(&mut self, messages: &[Message], retrieved: Vec<usize>) {
        seen::mark(&self.location, messages, retrieved);
    }

    fn place(&self) -> (&Location, Folder) {
        (&self.location, Folder::Top)
    }

    fn layout(&self) -> Layout {
        Layout::Maildir
    }
}

/// Makes the directory for what is removed, if it is to be kept. Returns `None` if that fails.
fn bin(location: &Location, batch: Option<&Batch>) -> Option<Option<Bin>> {
    let Some(batch) = batch else { return Some(None) };
    let bin = lock_file::folder(location).and_then(|folder| {
        let folder = folder.ok_or(io::ErrorKind::NotFound)?;
        Bin::create(location, folder, batch)
    });
    let path = || root::display(location.path());
    bin.map(Some).inspect_err(|error| log::error!("deleted messages of {} cannot be kept: {error}", path())).ok()
}

/// Notes in the quota that messages have come back.
pub(super) fn restored(location: &Location, octets: u64, messages: u64) {
    if !location.root().layouts().is_always_flat() {
        quota::note_restored(location, octets, messages);
    }
}

/// Updates a message's path from a listing. Returns false if the listing does not have the message.
fn follow(message: &mut Message, listing: &Listing) -> bool {
    let Message { path, content, .. } = message;
    let found = match listing.of(path.base()) {
        [only] => Some(only),
        several => several.iter().find(|file| file.inode == content.identity.inode),
    };
    let is_found = found.is_some();
    if let Some(file) = found {
        *path = file.path.clone();
    }
    is_found
}

/// Opens a message under the path that the session knows.
fn open(location: &Location, messages: &[Message], index: usize) -> Result<OpenMessage, OpenError> {
    let Message { path, content, .. } = &messages[index];
    let (file, identity) = location.root().file(&location.file(path)).map_err(|error| {
        match Errno::from_io_error(&error) {
            // The file, or a directory on its path, has been replaced by a link or by something else.
            Some(Errno::LOOP | Errno::NOTDIR) => OpenError::Changed,
            _ => OpenError::Io(error),
        }
    })?;
    if !is_message(messages, index, &identity) {
        return Err(OpenError::Changed);
    }
    let wire_form = content.wire_form && content.is_measured(&identity, path.folder);
    let range = FileRange { file, offset: 0, left: identity.size, wire_form };
    let source =
        if content.compressed { decompressed(range, path).map_err(OpenError::Io)? } else { Source::File(range) };
    Ok(OpenMessage { octets: content.octets, source })
}

fn decompressed(range: FileRange, path: &FilePath) -> io::Result<Source> {
    match Compression::of_file(&range.file)? {
        Some(compression) => Ok(Source::Compressed(Box::new(Decompressed::new(compression, range, &path.name)?))),
        None => Ok(Source::File(range)),
    }
}

/// Returns true if a file with the message's base name is the message. [`super::update`] explains how a file is
/// recognised.
pub(super) fn is_message(messages: &[Message], index: usize, identity: &Identity) -> bool {
    let content = &messages[index].content;
    content.is(identity) && (content.identity.inode == identity.inode || is_alone(messages, index))
}

/// Returns true if no other message has the message's base name. Messages with equal base names are neighbours in the
/// list.
pub(super) fn is_alone(messages: &[Message], index: usize) -> bool {
    let base = |index: usize| messages.get(index).map(|message| message.path.base());
    base(index) != base(index + 1) && (index == 0 || base(index) != base(index - 1))
}
