//! What sessions have removed, kept for some days (`--deletes trash=DAYS`).
//!
//! A removed message is moved into a hidden directory within the maildrop: `cur/.pop3d-trash/` of a Maildir, or `new/`'s if
//! there is no `cur/`. Mail programs look at no hidden file there, while a hidden directory beside `cur/` would be a folder
//! of Maildir++. In a flat maildrop the directory is in the user's own, and for an mbox beside it.
//!
//! Each session has a directory of its own there: `SECONDS.SESSION@ADDRESS`, with the time of its UPDATE state in seconds
//! since 1970. In it each message is a file, with the name that it had. `mbox` knows how the messages of an mbox are stored in
//! such a directory.
//!
//! A message is moved by one rename(2). So whenever the server is killed, it is either in the maildrop or here, and never
//! lost. The messages of an mbox are copied before they are removed there. If the server is killed in between, they are in
//! both, and bringing them back finds that they are still there.

use std::fmt;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use super::directory::Directory;
use super::holder::Holder;
use super::is_missing;
use super::location::Location;
use super::lock_file;
use super::mbox;
use super::message::Folder;
use super::name;

const DIRECTORY: &str = "trash";

/// What became of the deletions of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Deletes {
    /// Messages are removed.
    #[default]
    Remove,
    /// They are kept elsewhere for so many days.
    Trash(u32),
    /// They stay for other programs, and POP3 clients do not see them any more.
    Hide,
    /// Clients cannot mark messages as deleted.
    Refuse,
}

/// A session whose messages are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// When it removed them, in seconds since 1970.
    pub time: u64,
    /// The session's number.
    pub session: u64,
    /// Where its client came from.
    pub address: String,
}

/// The name of the session's directory.
impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.time, self.without_time())
    }
}

impl Batch {
    /// The session that removes messages now; `None` if it is none.
    pub(super) fn of(holder: &Holder) -> Option<Self> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let address = holder.origin.ip().map_or_else(|| "local".to_owned(), |ip| ip.to_string());
        Some(Self { time, session: holder.session?, address })
    }

    /// A session of which no more is known.
    pub(super) fn unknown(time: u64) -> Self {
        Self { time, session: 0, address: "unknown".to_owned() }
    }

    /// `SESSION@ADDRESS`
    pub(super) fn without_time(&self) -> String {
        format!("{}@{}", self.session, self.address)
    }

    /// The session that is written as [`Self::without_time`], at this time.
    pub(super) fn at(time: u64, text: &[u8]) -> Option<Self> {
        let (session, address) = std::str::from_utf8(text).ok()?.split_once('@')?;
        let batch = Self { time, session: session.parse().ok()?, address: address.to_owned() };
        (batch.without_time().as_bytes() == text).then_some(batch)
    }

    fn parse(name: &[u8]) -> Option<Self> {
        let (time, rest) = std::str::from_utf8(name).ok()?.split_once('.')?;
        let batch = Self::at(time.parse().ok()?, rest.as_bytes())?;
        (batch.to_string().as_bytes() == name).then_some(batch)
    }
}

/// A session's messages that are kept.
#[derive(Debug)]
pub struct Kept {
    /// The session.
    pub batch: Batch,
    /// How many messages there are.
    pub messages: u64,
    /// Their octets as they are stored; of hidden messages, as LIST tells them.
    pub octets: u64,
}

impl Kept {
    /// A session of whose messages none is known yet.
    pub(super) fn none_of(batch: Batch) -> Self {
        Self { batch, messages: 0, octets: 0 }
    }
}

/// Refuses a directory beside an mbox that another user may have put there.
fn refuse_others(location: &Location, folder: Folder, directory: &Directory) -> io::Result<()> {
    match location.root().may_use(&location.own_files(folder), &directory.0) {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::PermissionDenied, "the trash belongs to another user")),
    }
}

/// The directory of one session.
#[derive(Debug)]
pub(super) struct Bin(Directory);

impl Bin {
    /// Makes the directory for a session that removes messages from a maildrop.
    pub(super) fn create(location: &Location, folder: Folder, batch: &Batch) -> io::Result<Self> {
        let own = location.own_files(folder);
        let trash = location.root().directory(&own.directory())?.make_directory(&own.name(DIRECTORY))?;
        refuse_others(location, folder, &trash)?;
        let mut batch = batch.clone();
        // A session of a server that was started again, or of another server, may have this name already.
        while trash.has_directory(batch.to_string().as_bytes()) {
            batch.time += 1;
        }
        trash.make_directory(batch.to_string().as_bytes()).map(Self)
    }

    /// Moves a message's file here. A second link to it is removed.
    pub(super) fn take(&self, from: &Directory, name: &[u8]) -> io::Result<()> {
        match from.move_to(name, &self.0, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.0.identity(name)?.inode != from.identity(name)?.inode {
                    return Err(error);
                }
                from.unlink(name)
            }
            result => result,
        }
    }

    /// The directory itself.
    pub(super) fn directory(&self) -> &Directory {
        &self.0
    }
}

/// The kept messages of a maildrop.
#[derive(Debug)]
pub(super) struct Trash {
    location: Location,
    directory: Directory,
    folder: Folder,
}

impl Trash {
    /// Opens the directory, if there is one.
    pub(super) fn open(location: &Location) -> io::Result<Option<Self>> {
        let Some(folder) = lock_file::folder(location)? else { return Ok(None) };
        match location.root().directory(&location.own_files(folder).path(DIRECTORY)) {
            Ok(directory) => {
                refuse_others(location, folder, &directory)?;
                Ok(Some(Self { location: location.clone(), directory, folder }))
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn folder(&self) -> Folder {
        self.folder
    }

    /// The sessions, the oldest first.
    pub(super) fn batches(&self) -> io::Result<Vec<Batch>> {
        let mut batches: Vec<_> =
            self.directory.sub_directories()?.iter().filter_map(|name| Batch::parse(name)).collect();
        batches.sort_by_key(|batch| (batch.time, batch.session));
        Ok(batches)
    }

    pub(super) fn bin(&self, batch: &Batch) -> io::Result<Bin> {
        self.directory.sub_directory(batch.to_string().as_bytes()).map(Bin)
    }

    /// The messages of a session.
    pub(super) fn look(&self, batch: Batch) -> io::Result<Kept> {
        let Bin(directory) = self.bin(&batch)?;
        if self.folder == Folder::Mbox {
            let (messages, octets) = mbox::sums(&directory)?;
            return Ok(Kept { batch, messages, octets });
        }
        let (mut messages, mut octets) = (0, 0);
        for (name, _) in directory.messages(|_| Ok(()))? {
            messages += 1;
            octets += directory.identity(&name)?.size;
        }
        Ok(Kept { batch, messages, octets })
    }

    /// Moves the files of a session back. Returns how many there were, and how many could not be moved.
    pub(super) fn put_back(&self, batch: &Batch) -> io::Result<(u64, u64)> {
        let Bin(bin) = self.bin(batch)?;
        let (mut done, mut failed) = (0, 0);
        for (name, _) in bin.messages(|_| Ok(()))? {
            match self.home_of(&name).and_then(|home| bin.move_to(&name, &home, &name)) {
                Ok(()) => done += 1,
                Err(error) => {
                    failed += 1;
                    let name = name.escape_ascii();
                    log::error!("{}: message {name} cannot be brought back: {error}", self.location.user());
                }
            }
        }
        self.remove_if_empty(batch);
        Ok((done, failed))
    }

    /// The directory that a message was in: a name without flags is one of `new/`.
    fn home_of(&self, name: &[u8]) -> io::Result<Directory> {
        let folder = match self.folder {
            Folder::Cur if name::base(name).len() == name.len() => Folder::New,
            folder => folder,
        };
        match self.location.root().directory(&self.location.folder(folder)) {
            Err(error) if is_missing(&error) => self.location.root().directory(&self.location.folder(self.folder)),
            result => result,
        }
    }

    /// Removes the messages of a session for good.
    pub(super) fn purge(&self, batch: &Batch) -> io::Result<u64> {
        let Bin(bin) = self.bin(batch)?;
        let removed = if self.folder == Folder::Mbox { mbox::purge(&bin)? } else { remove_all(&bin)? };
        self.remove_if_empty(batch);
        Ok(removed)
    }

    pub(super) fn remove_if_empty(&self, batch: &Batch) {
        // It is not empty if a message could not be moved.
        let _ = self.directory.remove_directory(batch.to_string().as_bytes());
    }
}

/// Removes all messages of a directory. Returns how many there were.
fn remove_all(directory: &Directory) -> io::Result<u64> {
    let messages = directory.messages(|_| Ok(()))?;
    messages.iter().try_for_each(|(name, _)| directory.unlink(name))?;
    Ok(messages.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_a_directory_of_its_own() {
        for name in ["1795831201.17@192.0.2.4", "1795831201.17@2001:db8::1", "1.2@local"] {
            assert_eq!(Batch::parse(name.as_bytes()).unwrap().to_string(), name);
        }
        for name in ["", "x", "1.2", "1@local", "01.2@local", "1.2.3@local", "-1.2@local", "1.x@local"] {
            assert_eq!(Batch::parse(name.as_bytes()), None, "{name}");
        }
    }
}
