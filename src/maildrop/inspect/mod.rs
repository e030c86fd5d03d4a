//! Examines a maildrop for `pop3d doctor`: what is stored there, and what is wrong with it. It changes nothing.
//!
//! - [`inspect`] opens the maildrop as a session does, reads every message once and returns an [`Inspection`].
//! - `content` reads a message, `tmp` and `quota` look at the rest of a Maildir, `locks` finds who holds a lock.
//! - A [`Finding`] is a [`Fault`] with the files that have it.

mod content;
mod finding;
mod locks;
mod quota;
mod tmp;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, fstat};

use super::location::{Location, is_link};
use super::message::{Folder, Message};
use super::name;
use super::{FileRange, Maildrop, MessageNumber, OpenError, OpenMessage, Source, is_missing};
use content::Content;
pub use finding::{Fault, Finding, Findings};
pub use locks::{Held, HeldBy};

/// How a maildrop is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Messages are the files in `new/` and `cur/`.
    Maildir,
    /// Each file in the directory is a message.
    Flat,
    /// One file holds all messages.
    Mbox,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Maildir => "maildir",
            Self::Flat => "flat",
            Self::Mbox => "mbox",
        })
    }
}

/// What an examination has found.
#[derive(Debug, Default)]
pub struct Inspection {
    /// How the maildrop is stored; `None` if it does not exist or cannot be opened.
    pub layout: Option<Layout>,
    /// The uid that owns the maildrop's directory or file.
    pub owner: Option<u32>,
    /// How many messages a client would see.
    pub messages: u64,
    /// The octets of these messages on the wire.
    pub octets: u64,
    /// The locks that programs hold now.
    pub locks: Vec<Held>,
    /// What is wrong or unusual.
    pub findings: Findings,
}

/// Examines the maildrop at `location`, whose root has to be read-only. Errors become findings. Returns the maildrop, too,
/// if it can be opened.
#[must_use]
pub fn inspect(location: &Location) -> (Inspection, Option<Maildrop>) {
    let mut inspection = Inspection::default();
    let maildrop = inspection.run(location);
    (inspection, maildrop)
}

/// Opens the maildrop, or the one behind the operator's link.
fn open(location: &Location) -> io::Result<(Maildrop, Location)> {
    match Maildrop::open(location.clone()) {
        Err(error) if is_link(&error) => {
            let location = location.behind_link()?;
            Ok((Maildrop::open(location.clone())?, location))
        }
        result => Ok((result?, location.clone())),
    }
}

/// Returns true if there is no maildrop: nothing at the location, or a directory without messages that has to be a Maildir
/// and is none.
fn is_nothing(location: &Location) -> bool {
    let (root, folder) = (location.root(), |folder| location.folder(folder));
    match root.file_stat(location.path()) {
        Err(_) => true,
        Ok(_) => {
            location.is_always_maildir()
                && root.directory(location.path()).is_ok()
                && !root.has(&folder(Folder::New))
                && !root.has(&folder(Folder::Cur))
        }
    }
}

impl Inspection {
    /// The result for a user whose maildrop's location cannot be found.
    #[must_use]
    pub fn of_no_location(error: &io::Error) -> Self {
        let mut inspection = Self::default();
        inspection.findings.say(Fault::Refused, error.to_string());
        inspection
    }

    fn run(&mut self, location: &Location) -> Option<Maildrop> {
        let owner = |location: &Location| Some(location.root().file_stat(location.path()).ok()?.st_uid);
        let (mut maildrop, location) = match open(location) {
            Ok(opened) => opened,
            Err(error) => {
                self.owner = owner(location);
                self.findings.add(Fault::Refused, Cow::Borrowed(location.path()));
                self.findings.explain(Fault::Refused, error.to_string());
                return None;
            }
        };
        self.owner = owner(&location);
        if is_nothing(&location) {
            self.findings.add(Fault::Missing, Cow::Borrowed(location.path()));
            return Some(maildrop);
        }
        let layout = maildrop.format.layout();
        self.layout = Some(layout);
        self.locks = locks::held(&location, layout, &mut self.findings);
        self.note_unreadable(&maildrop);
        for index in 0..maildrop.messages.len() {
            self.examine(&mut maildrop, index);
        }
        if layout == Layout::Maildir {
            tmp::examine(&location, &mut self.findings);
            quota::examine(&location, &mut self.findings);
        }
        Some(maildrop)
    }

    fn note_unreadable(&mut self, maildrop: &Maildrop) {
        for left_out in &maildrop.left_out {
            self.findings.add(Fault::Unreadable, Cow::Borrowed(&left_out.path[..]));
            self.findings.explain(Fault::Unreadable, left_out.error.to_string());
        }
    }

    /// Reads a message and notes what is wrong with it. A message that another program removes meanwhile is left out.
    fn examine(&mut self, maildrop: &mut Maildrop, index: usize) {
        let Some(number) = u32::try_from(index + 1).ok().and_then(MessageNumber::new) else { return };
        let read = match maildrop.open_message(number) {
            Ok(opened) => read(opened),
            Err(OpenError::Io(error)) => Err(error),
            Err(OpenError::Changed) => Err(io::Error::other("it has changed since it was listed")),
        };
        let message = &maildrop.messages[index];
        let name = || Cow::Owned(maildrop.format.shown_path(index, message));
        let Read { content, owner, is_compressed } = match read {
            Ok(read) => read,
            Err(error) if is_missing(&error) => return,
            Err(error) => {
                self.findings.add(Fault::Unreadable, name());
                return self.findings.explain(Fault::Unreadable, error.to_string());
            }
        };
        self.messages += 1;
        self.octets = self.octets.saturating_add(content.octets);
        for fault in faults(message, &content) {
            self.findings.add(fault, name());
        }
        if is_compressed {
            self.findings.add(Fault::Compressed, name());
        }
        if message.path.folder != Folder::Mbox && owner.is_some() && owner != self.owner {
            self.findings.add(Fault::OtherOwner, name());
        }
    }
}

/// A message that has been read.
struct Read {
    content: Content,
    /// The uid that owns its file, if that is known.
    owner: Option<u32>,
    is_compressed: bool,
}

fn read(mut opened: OpenMessage) -> io::Result<Read> {
    let is_compressed = matches!(opened.source, Source::Compressed(_));
    let file = match &opened.source {
        Source::File(FileRange { file, .. }) => Some(file),
        Source::Mbox(message) => Some(message.file()),
        Source::Compressed(_) => None,
    };
    let owner = file.and_then(|file| {
        keep_access_time(file);
        fstat(file).ok().map(|stat| stat.st_uid)
    });
    Ok(Read { content: Content::read(&mut opened.source)?, owner, is_compressed })
}

/// What is wrong with a message that has been read.
fn faults(message: &Message, content: &Content) -> impl Iterator<Item = Fault> {
    let is_in_maildir = matches!(message.path.folder, Folder::New | Folder::Cur);
    let told = |size: fn(&[u8]) -> Option<u64>| size(&message.path.name).filter(|_| is_in_maildir);
    // Programs that write `W=` do not count the line end that a server adds to the last line.
    let counted = content.octets - if content.is_unended { 2 } else { 0 };
    [
        (Fault::Duplicate, message.content.namesake),
        (Fault::WrongStoredSize, told(name::told_size).is_some_and(|size| size != content.stored)),
        (
            Fault::WrongWireSize,
            told(name::told_wire_size).is_some_and(|size| size != content.octets && size != counted),
        ),
        (Fault::WrongListedSize, message.octets() != content.octets),
        (Fault::InvalidName, is_in_maildir && !name::is_unique_id(message.path.base())),
        (Fault::EqualMessages, is_counted(message)),
        (Fault::NoLineEnd, content.is_unended),
        (Fault::Nul, content.has_nul),
        (Fault::LongLine, content.has_long_line),
    ]
    .into_iter()
    .filter_map(|(fault, is_so)| is_so.then_some(fault))
}

/// Returns true for a message of an mbox that has the same content as another one: its unique-id has a counter.
fn is_counted(message: &Message) -> bool {
    message.path.folder == Folder::Mbox && message.path.name.contains(&b'-')
}

/// Asks the kernel to leave the time of the last access as it is, which it allows to the file's owner and to root.
fn keep_access_time(file: &File) {
    if let Ok(flags) = fcntl_getfl(file) {
        let _ = fcntl_setfl(file, flags | OFlags::NOATIME);
    }
}
