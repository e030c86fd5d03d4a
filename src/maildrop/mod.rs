//! A user's mail as a numbered list, as it was at login (RFC 1939 section 4).
//!
//! `<mail root>/<user>/` is a Maildir when it has `new/` or `cur/`, else flat: each regular file a message. A
//! missing directory is an empty maildrop. Nothing here removes a file but [`Maildrop::commit`].

mod name;
mod root;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::sync::Arc;

use rustix::io::Errno;

use crate::users::UserName;
use crate::wire::{self, Meter};
use root::Identity;
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

/// Where in the user's directory a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Folder {
    Top,
    New,
    Cur,
}

/// A message's folder and the name of its file.
type Place = (Folder, Box<[u8]>);

/// One message of the maildrop.
#[derive(Debug)]
pub struct Message {
    folder: Folder,
    name: Box<[u8]>,
    identity: Identity,
    octets: u64,
    wire_form: bool,
    /// Another message before this one has the same base name.
    namesake: bool,
    deleted: bool,
}

impl Message {
    /// Its size in octets as the client receives it, byte-stuffing not counted (RFC 1939 section 11).
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Its unique-id: 1 to 70 octets of 0x21–0x7E, the same in every session (RFC 1939 section 7).
    #[must_use]
    pub fn unique_id(&self) -> Cow<'_, [u8]> {
        match self.folder {
            Folder::New | Folder::Cur if !self.namesake => name::maildir_unique_id(&self.name),
            _ => Cow::Owned(name::dated_unique_id(&self.name, self.identity.modified)),
        }
    }
}

/// A message opened for sending.
#[derive(Debug)]
pub struct OpenMessage {
    /// At its beginning.
    pub file: File,
    /// How many octets are stored, at login and now.
    pub stored: u64,
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
        let mut maildrop = Self { root, user, messages: Vec::new(), marked: 0, octets: 0 };
        let files = maildrop.files()?;
        maildrop.messages = maildrop.measure_all(files)?;
        maildrop.octets = maildrop.messages.iter().map(|message| message.octets).sum();
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
        self.octets -= message.octets;
        true
    }

    /// Takes all marks back.
    pub fn reset(&mut self) {
        for message in &mut self.messages {
            message.deleted = false;
        }
        self.marked = 0;
        self.octets = self.messages.iter().map(|message| message.octets).sum();
    }

    /// Opens a message for sending. One that another program has moved within the Maildir is found.
    ///
    /// # Errors
    /// When it has gone, changed or cannot be read; the rest of the maildrop is not concerned.
    pub fn open_message(&mut self, number: MessageNumber) -> Result<OpenMessage, OpenError> {
        let opened = match self.open_file(number.index()) {
            Err(error) if is_missing(&error) && self.find_moved().map_err(OpenError::Io)? => {
                self.open_file(number.index())
            }
            result => result,
        };
        let (file, identity) = opened.map_err(OpenError::Io)?;
        let message = &self.messages[number.index()];
        if identity != message.identity {
            return Err(OpenError::Changed);
        }
        Ok(OpenMessage { file, stored: identity.size, wire_form: message.wire_form })
    }

    /// The UPDATE state: removes the marked messages, and those only.
    #[must_use]
    pub fn commit(mut self) -> Update {
        let mut update = Update::default();
        if self.marked == 0 {
            return update;
        }
        let mut missing = self.remove_marked(&mut update);
        if missing > 0 && self.find_moved().unwrap_or(false) {
            missing = self.remove_marked(&mut update);
        }
        if missing > 0 {
            log::info!("{}: {missing} deleted messages had gone already", self.user);
        }
        update
    }

    /// Removes what it can and takes the marks of those off; returns how many files are not where they were.
    fn remove_marked(&mut self, update: &mut Update) -> u64 {
        let mut missing = 0;
        update.failed = 0;
        for folder in [Folder::Top, Folder::New, Folder::Cur] {
            let is_due = |message: &&mut Message| message.deleted && message.folder == folder;
            let due = self.messages.iter_mut().filter(is_due).count() as u64;
            if due == 0 {
                continue;
            }
            let path = folder_path(&self.user, folder);
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
            for message in self.messages.iter_mut().filter(is_due) {
                match directory.remove(&message.name, &message.identity) {
                    Ok(()) => {
                        message.deleted = false;
                        update.removed += 1;
                    }
                    Err(error) if is_missing(&error) => missing += 1,
                    Err(error) => {
                        update.failed += 1;
                        log::error!("cannot remove {}: {error}", root::display(&join(&path, &message.name)));
                    }
                }
            }
        }
        missing
    }

    fn open_file(&self, index: usize) -> io::Result<(File, Identity)> {
        let message = &self.messages[index];
        self.root.file(&self.path(message.folder, &message.name))
    }

    fn path(&self, folder: Folder, name: &[u8]) -> Vec<u8> {
        join(&folder_path(&self.user, folder), name)
    }

    /// Every message's file, in the maildrop's order.
    fn files(&self) -> io::Result<Vec<Place>> {
        // new/ before cur/: a message that is moved in between is then listed twice, but never missed.
        let mut files = Vec::new();
        let mut maildir = false;
        for folder in [Folder::New, Folder::Cur] {
            if let Some(names) = self.list(folder)? {
                maildir = true;
                files.extend(names.into_iter().map(|name| (folder, name)));
            }
        }
        if maildir {
            files.sort_unstable_by(|(_, a), (_, b)| name::maildir_order(a, b));
        } else if let Some(names) = self.list(Folder::Top)? {
            files.extend(names.into_iter().map(|name| (Folder::Top, name)));
            files.sort_unstable_by(|(_, a), (_, b)| name::flat_order(a, b));
        }
        Ok(files)
    }

    /// The messages of one folder, or `None` when there is no such directory.
    fn list(&self, folder: Folder) -> io::Result<Option<Vec<Box<[u8]>>>> {
        match self.root.directory(&folder_path(&self.user, folder)) {
            Ok(directory) => directory.messages().map(Some),
            Err(error) if is_missing(&error) => Ok(None),
            // A message of a flat maildrop may be called "new".
            Err(error) if folder != Folder::Top && error.kind() == io::ErrorKind::NotADirectory => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn measure_all(&self, files: Vec<Place>) -> io::Result<Vec<Message>> {
        let mut buffer = vec![0; wire::BLOCK];
        let mut messages: Vec<Message> = Vec::with_capacity(files.len());
        for (folder, name) in files {
            match self.measure(folder, name, &mut buffer) {
                Ok(message) => messages.push(message),
                Err((path, error)) if is_missing(&error) => {
                    log::debug!("{} went while it was listed", root::display(&path))
                }
                Err((_, error)) if is_exhaustion(&error) => return Err(error),
                Err((path, error)) => log::warn!("{} is left out: {error}", root::display(&path)),
            }
        }
        for index in 1..messages.len() {
            let (before, message) = (&messages[index - 1], &messages[index]);
            messages[index].namesake =
                message.folder != Folder::Top && name::base(&before.name) == name::base(&message.name);
        }
        Ok(messages)
    }

    fn measure(&self, folder: Folder, name: Box<[u8]>, buffer: &mut [u8]) -> Result<Message, (Vec<u8>, io::Error)> {
        let path = self.path(folder, &name);
        let measured = self.root.file(&path).and_then(|(mut file, identity)| {
            let mut meter = Meter::default();
            // No further than its size now: it may be growing.
            let mut stored = (&mut file).take(identity.size);
            loop {
                match stored.read(buffer)? {
                    0 => return Ok((identity, meter.finish())),
                    read => meter.push(&buffer[..read]),
                }
            }
        });
        match measured {
            Ok((identity, measure)) => Ok(Message {
                folder,
                name,
                identity,
                octets: measure.octets,
                wire_form: measure.wire_form,
                namesake: false,
                deleted: false,
            }),
            Err(error) => Err((path, error)),
        }
    }

    /// Looks again where the Maildir's messages are: a mail program moves them from new/ to cur/ and renames
    /// them when their flags change. True when that may have found some.
    fn find_moved(&mut self) -> io::Result<bool> {
        if self.messages.iter().all(|message| message.folder == Folder::Top) {
            return Ok(false);
        }
        let mut places: HashMap<Box<[u8]>, Vec<Place>> = HashMap::new();
        for (folder, name) in self.files()? {
            places.entry(name::base(&name).into()).or_default().push((folder, name));
        }
        for message in &mut self.messages {
            // A message that is still there keeps its place, and two of one base name are not told apart.
            if let Some([(folder, name)]) = places.get(name::base(&message.name)).map(Vec::as_slice) {
                (message.folder, message.name) = (*folder, name.clone());
            }
        }
        Ok(true)
    }
}

fn folder_path(user: &UserName, folder: Folder) -> Vec<u8> {
    let mut path = user.as_str().as_bytes().to_vec();
    path.extend_from_slice(match folder {
        Folder::Top => b"",
        Folder::New => b"/new",
        Folder::Cur => b"/cur",
    });
    path
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    [folder, b"/", name].concat()
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Out of descriptors or memory: says nothing of the file.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}
