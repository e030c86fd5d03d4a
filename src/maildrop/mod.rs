//! Maildrops: a user's messages as a numbered list that is fixed at login (RFC 1939 section 4).
//!
//! `<mail directory>/<user>/` is a Maildir if it has `new/` or `cur/`, else flat: each regular file is a message,
//! unless [`Layouts`] refuses that. A missing directory is an empty maildrop.
//!
//! - [`MailRoot`] is the mail directory as the operator named it, and [`Root`] is its open descriptor. Every file is
//!   opened beneath it.
//! - [`Location`] says where a user's maildrop is. `walk` finds it where its path may lead through a user's directory.
//! - [`Locks`] and [`Lock`] give a maildrop to one session at a time, among the sessions of this server and of others,
//!   unless [`Busy`] lets sessions share it. Those take `turns`.
//! - [`Maildrop`] is the list. Its `Format` lists, opens and removes messages: `files` has the two formats with a file for
//!   each message. `scan` finds these files, `measure` finds their sizes on the wire, and `index` keeps the sizes from
//!   login to login. `compressed` reads messages that another server has compressed.
//! - [`MaildirRules`] say what the server does for the other programs that use a Maildir: `quota` notes removals in
//!   `maildirsize`, `seen` marks retrieved messages, and `with_folders` shows folders of a Maildir in the maildrop.
//! - `transformed` keeps the sizes that messages have after a transform.
//! - [`Expiry`] says when messages expire. `retrieved` finds out which messages clients have retrieved, and `ages` keeps when.
//! - [`Counts`] remembers how many messages a maildrop has, for admins who ask.
//! - [`UniqueIdRules`] say whether messages keep the unique-ids that Dovecot or Courier gave them.
//! - [`inspect()`] examines a maildrop for `pop3d doctor`.
//! - [`Message`] is one message, found by its [`MessageNumber`]. [`Maildrop::open_message`] gives an [`OpenMessage`],
//!   or an [`OpenError`] if the file has changed since login. `moved` finds messages that were renamed since then.
//! - [`Maildrop::commit`] removes the marked messages and returns an [`Update`]. No other code removes messages, but
//!   [`Lock::purge`] those that `trash` has kept long enough. [`Deletes`] says what a session's deletion does instead, and
//!   `undelete` undoes it.
//! - [`finish_interrupted`] finishes that at an mbox if the server was killed.
//!
//! Sessions of [`crate::pop3`] are the callers; the admin's `m=` opens another [`MailRoot`].

mod ages;
mod busy;
mod compressed;
mod counts;
mod directory;
mod every;
mod expiry;
mod files;
mod format;
mod given_ids;
mod hidden;
mod holder;
mod homes;
mod identity;
mod index;
mod inspect;
mod layout;
mod location;
mod lock;
mod lock_file;
mod lock_kept;
mod lock_record;
mod mail_root;
mod marks;
mod mbox;
mod measure;
mod message;
mod missing;
mod moved;
mod name;
mod names;
mod open_file_lock;
mod opened;
mod quota;
mod retrieved;
mod root;
mod scan;
mod seen;
mod system;
mod template;
#[cfg(test)]
mod tests;
mod transformed;
mod trash;
mod turns;
mod undelete;
mod update;
mod walk;
mod with_folders;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

pub use busy::{Busy, Terms, WhenBusy};
pub use counts::{Count, Counts};
pub use expiry::{Expired, Expiry};
use format::{Format, LeftOut, Listing};
use given_ids::GivenIds;
pub use given_ids::{UniqueIdFormat, UniqueIdRules, UniqueIds};
pub use holder::Holder;
pub use inspect::{Fault, Finding, Findings, Held, HeldBy, Inspection, Layout, inspect};
pub use layout::{LayoutChoice, Layouts, MaildirRules};
pub use location::Location;
use location::is_link;
pub use lock::{Lock, LockError, Locks};
pub use lock_record::Elsewhere;
pub use mail_root::MailRoot;
use marks::Marks;
use mbox::Mbox;
pub use mbox::Unlocked;
pub use measure::{PLENTY_OF_DESCRIPTORS, SCAN_DESCRIPTORS};
pub use message::{Message, MessageNumber};
pub use opened::{FileRange, OpenError, OpenMessage, Source, shortened};
use root::Look;
pub use root::{Root, RootId};
pub use template::fixed_part;
use transformed::Transformed;
pub use transformed::{Fingerprint, SizeKey, TransformedSize};
pub use trash::{Batch, Deletes, Kept};
pub use undelete::{Restored, deletions};
pub use update::Update;
pub use with_folders::FolderName;

/// A user's messages as they were at login, and which of them are marked as deleted.
#[derive(Debug)]
pub struct Maildrop {
    format: Box<dyn Format>,
    messages: Vec<Message>,
    marks: Marks,
    /// The messages that the client has retrieved.
    retrieved: Marks,
    location: Location,
    /// The sizes of transformed messages, if the client is told those.
    transformed: Transformed,
    /// The octets of all messages that are not marked. The sum needs more than 64 bits if an index holds absurd sizes.
    octets: u128,
    /// The true octets of messages that were listed with a wrong size, by index.
    corrections: BTreeMap<usize, u64>,
    /// The unique-ids that another server gave to messages.
    given_ids: GivenIds,
    /// The files that would be messages if they could be read.
    left_out: Vec<LeftOut>,
    /// What [`Self::never_retrieved`] has read, so that the UPDATE state need not read it again.
    ages_at_quit: RefCell<Option<Vec<u8>>>,
}

impl Maildrop {
    /// Opens the maildrop at `location`, or behind a link there that the operator has made. A session opens the location of
    /// its [`Lock`] instead, which is behind the link already. No warning is logged if there is no maildrop, as somebody looks
    /// who is not its user, perhaps at the maildrops of all users.
    ///
    /// # Errors
    /// When the maildrop exists and cannot be read, or a link is not the operator's.
    pub fn open_without_lock(location: Location) -> io::Result<Self> {
        match Self::open_or(location.clone(), |_| {}) {
            Err(error) if is_link(&error) => Self::open_or(location.behind_link()?, |_| {}),
            result => result,
        }
    }

    /// Lists and measures the user's messages. If there is no maildrop, it is empty, and a warning is logged.
    ///
    /// # Errors
    /// When the maildrop exists and cannot be read.
    pub fn open(location: Location) -> io::Result<Self> {
        Self::open_or(location, missing::warn)
    }

    /// Opens it, and calls `missing` if there is no maildrop.
    fn open_or(location: Location, missing: impl FnOnce(&Location)) -> io::Result<Self> {
        let mut format = format::of(&location, missing)?;
        let Listing { mut messages, left_out, .. } = format.list()?;
        let given_ids = GivenIds::of(&location, &mut *format, &mut messages);
        let (marks, retrieved, corrections) = (Marks::default(), Marks::default(), BTreeMap::new());
        let transformed = Transformed::default();
        let mut maildrop = Self {
            format,
            messages,
            marks,
            retrieved,
            location,
            transformed,
            octets: 0,
            corrections,
            given_ids,
            left_out,
            ages_at_quit: RefCell::default(),
        };
        maildrop.add_up();
        Ok(maildrop)
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

    /// Adds up the octets of the messages, none of which is marked yet.
    fn add_up(&mut self) {
        self.octets = (0..self.messages.len()).map(|index| u128::from(self.octets_at(index))).sum();
    }

    /// The size that the client is told.
    fn octets_at(&self, index: usize) -> u64 {
        self.transformed.octets(index).unwrap_or_else(|| self.messages[index].octets())
    }

    /// The size of the message with that number as the client is told it, unless the message is marked as deleted.
    #[must_use]
    pub fn octets_of(&self, number: MessageNumber) -> Option<u64> {
        self.message(number).map(|_| self.octets_at(number.index()))
    }

    /// The sizes of the messages that are not marked as deleted, with their numbers.
    pub fn sizes(&self) -> impl Iterator<Item = (usize, u64)> {
        self.messages().map(|(number, _)| (number, self.octets_at(number - 1)))
    }

    /// The message with that number, unless it is marked as deleted. Sessions reach single messages only through this.
    #[must_use]
    pub fn message(&self, number: MessageNumber) -> Option<&Message> {
        self.messages.get(number.index()).filter(|_| !self.marks.contains(number.index()))
    }

    /// The unique-id of the message with that number, unless it is marked as deleted.
    #[must_use]
    pub fn unique_id(&self, number: MessageNumber) -> Option<Cow<'_, [u8]>> {
        Some(self.id_of(number.index(), self.message(number)?))
    }

    /// The unique-ids of the messages that are not marked as deleted, with their numbers.
    pub fn unique_ids(&self) -> impl Iterator<Item = (usize, Cow<'_, [u8]>)> {
        self.messages().map(|(number, message)| (number, self.id_of(number - 1, message)))
    }

    fn id_of<'a>(&'a self, index: usize, message: &'a Message) -> Cow<'a, [u8]> {
        match self.given_ids.get(index) {
            Some(id) => Cow::Borrowed(id),
            None => self.format.unique_id(index, message),
        }
    }

    /// How many messages have a unique-id that another server gave them.
    #[must_use]
    pub fn given_ids(&self) -> usize {
        self.given_ids.count()
    }

    /// The messages that are not marked as deleted, with their numbers.
    pub fn messages(&self) -> impl Iterator<Item = (usize, &Message)> {
        (1..).zip(&self.messages).filter(|&(number, _)| !self.marks.contains(number - 1))
    }

    /// Marks a message as deleted. Returns false if there is no such message, or if it is marked already.
    pub fn mark(&mut self, number: MessageNumber) -> bool {
        let index = number.index();
        let is_new = index < self.messages.len() && self.marks.insert(index);
        if is_new {
            self.octets -= u128::from(self.octets_at(index));
        }
        is_new
    }

    /// Removes all marks.
    pub fn reset(&mut self) {
        for index in self.marks.take() {
            self.octets += u128::from(self.octets_at(index));
        }
    }

    /// Opens a message for sending. If a mail program has moved it within the Maildir, it is looked for.
    ///
    /// # Errors
    /// When the message was removed or changed, or cannot be read. Other messages can still be opened.
    pub fn open_message(&mut self, number: MessageNumber) -> Result<OpenMessage, OpenError> {
        let opened = self.format.open(&mut self.messages, number.index());
        if matches!(opened, Err(OpenError::Changed)) {
            // The index is wrong, so the next login has to read the messages again.
            self.format.forget_index(number.index());
        }
        opened
    }

    /// Notes that a message has `octets` on the wire, and not as many as its file name says. The index gets the right
    /// size for the next login; this session keeps the size that it has already given to the client.
    pub fn correct_octets(&mut self, number: MessageNumber, octets: u64) {
        self.corrections.insert(number.index(), octets);
    }

    /// Returns true if [`Self::commit`] has anything to do.
    #[must_use]
    pub fn needs_update(&self) -> bool {
        self.marks.len() > 0 || (self.marks_seen() && self.retrieved.len() > 0)
    }

    /// Returns true if retrieved messages are to be marked as seen.
    fn marks_seen(&self) -> bool {
        self.location.root().layouts().maildirs().seen
    }

    fn deletes(&self) -> Deletes {
        self.location.root().layouts().deletes()
    }

    /// Returns true if clients cannot mark messages as deleted.
    #[must_use]
    pub fn refuses_marks(&self) -> bool {
        self.deletes() == Deletes::Refuse
    }

    /// The UPDATE state: removes the marked messages, and those only. Retrieved messages that stay are marked as seen if
    /// the operator wants that. If a session is given, the operator's rule for the deletions of sessions applies.
    #[must_use]
    pub fn commit(mut self, session: Option<&Holder>) -> Update {
        let marked = if self.marks.len() > 0 { self.marks.in_order() } else { Vec::new() };
        let update = match (self.deletes(), session) {
            _ if marked.is_empty() => Update::default(),
            (deletes @ (Deletes::Hide | Deletes::Trash(_)), Some(session)) => match Batch::of(session) {
                Some(batch) if deletes == Deletes::Hide => self.format.hide(&self.messages, &marked, &batch),
                Some(batch) => self.format.remove(&self.messages, &marked, Some(&batch)),
                None => Update { removed: 0, failed: marked.len() as u64 },
            },
            _ => self.format.remove(&self.messages, &marked, None),
        };
        let mut retrieved = self.retrieved.in_order();
        retrieved.retain(|&index| !self.marks.contains(index));
        self.write_read(&retrieved);
        if self.marks_seen() && !retrieved.is_empty() {
            self.format.mark_seen(&self.messages, retrieved.clone());
        }
        self.retrieved = Marks::default();
        self.given_ids.fix(&self.location, &self.messages, &retrieved);
        update
    }
}

impl Drop for Maildrop {
    /// Writes all corrections to the index at once, because each write replaces the whole index.
    fn drop(&mut self) {
        if !self.corrections.is_empty() {
            self.format.correct_index(&self.messages, &self.corrections);
        }
        // A session that ends without UPDATE has retrieved messages, too.
        let retrieved = self.retrieved.in_order();
        if !retrieved.is_empty() {
            self.write_read(&retrieved);
            self.given_ids.fix(&self.location, &self.messages, &retrieved);
        }
    }
}

/// Finishes what a server that was killed has begun at an mbox, and removes the dot-lock that it has left. The maildrop is locked
/// for `holder` meanwhile.
///
/// # Errors
/// When the maildrop cannot be looked at or locked, or the removal cannot be finished.
pub fn finish_interrupted(locks: &Arc<Locks>, location: Location, holder: Holder) -> Result<(), LockError> {
    let mbox = |location: &Location| -> io::Result<Option<Mbox>> {
        let is_file = matches!(location.root().look(location)?, Look::File);
        Ok(is_file.then(|| Mbox::new(location.clone())))
    };
    let found = match mbox(&location) {
        Err(error) if is_link(&error) => mbox(&location.behind_link()?)?,
        found => found?,
    };
    match found {
        Some(mbox) if mbox.is_interrupted()? => {
            let _lock = locks.lock(&location, holder, Terms::default())?;
            Ok(mbox.finish_interrupted()?)
        }
        _ => Ok(()),
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
