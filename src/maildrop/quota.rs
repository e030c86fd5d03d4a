//! Keeps a Maildir's quota right: notes in `maildirsize` which messages were removed (Maildir++).
//!
//! The first line of that file is the quota. Each further line has octets and messages that came or went, and the sum of
//! the lines is the use. A program appends a line by one write. It creates no file, because the quota is not its own.
//!
//! All removals of a session make one line. Readers count everything again when the file has more than 5,120 octets, and
//! a line for each of a thousand messages would bring that about.

use std::io::{self, Write};

use super::is_missing;
use super::location::Location;
use super::message::Message;
use super::name;
use super::root;

const FILE: &[u8] = b"/maildirsize";

/// Removed messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    octets: u64,
    messages: u64,
}

/// What the removal of messages has freed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Freed {
    others: Sum,
    /// The messages with flag `T` or in the folder for deleted messages.
    trashed: Sum,
}

impl Freed {
    /// Adds a message of a Maildir. Its size is the one that its name tells, since that is what programs count.
    pub(super) fn add(&mut self, message: &Message) {
        let Message { path, content } = message;
        let sum = if name::is_trashed(&path.name) { &mut self.trashed } else { &mut self.others };
        sum.octets = sum.octets.saturating_add(name::told_size(&path.name).unwrap_or(content.identity.size));
        sum.messages += 1;
    }

    /// The same messages, if they were in the folder for deleted messages.
    pub(super) fn as_trashed(self) -> Self {
        let Self { others, trashed } = self;
        let trashed =
            Sum { octets: others.octets.saturating_add(trashed.octets), messages: others.messages + trashed.messages };
        Self { others: Sum::default(), trashed }
    }
}

/// Notes that messages were removed from a Maildir or from one of its folders. If that fails, the messages are removed
/// all the same, so it is only logged.
pub(super) fn note(maildir: &Location, freed: Freed) {
    if let Err(error) = append(maildir, freed)
        && !is_missing(&error)
    {
        let path = root::display(&[maildir.path(), FILE].concat());
        log::warn!("{path} does not count the messages that were removed: {error}");
    }
}

/// Notes that messages have come back into a Maildir.
pub(super) fn note_restored(maildir: &Location, octets: u64, messages: u64) {
    let line = format!("{octets} {messages}\n");
    if messages > 0
        && let Err(error) = write(maildir, &line)
        && !is_missing(&error)
    {
        let path = root::display(&[maildir.path(), FILE].concat());
        log::warn!("{path} does not count the messages that have come back: {error}");
    }
}

fn append(maildir: &Location, Freed { mut others, trashed }: Freed) -> io::Result<()> {
    if trashed.messages > 0 && counts_trashed(maildir) {
        others.octets = others.octets.saturating_add(trashed.octets);
        others.messages += trashed.messages;
    }
    if others.messages == 0 {
        return Ok(());
    }
    write(maildir, &format!("-{} -{}\n", others.octets, others.messages))
}

/// Appends a line by one write.
fn write(maildir: &Location, line: &str) -> io::Result<()> {
    let mut file = maildir.root().file_to_append(&[maildir.path(), FILE].concat())?;
    match file.write(line.as_bytes())? {
        written if written == line.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Returns true if messages with flag `T` and the folder Trash are part of the use. By Maildir++ they are not, but Dovecot counts them.
fn counts_trashed(maildir: &Location) -> bool {
    maildir.root().has(&[maildir.path(), b"/dovecot-uidlist"].concat())
}
