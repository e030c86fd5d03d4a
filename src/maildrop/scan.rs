//! Lists a user's messages, and measures those that the index does not know.
//!
//! Files in a Maildir are never written to after delivery. So a file whose name and inode are in the index is a message
//! that the index knows, and directories that have not changed since the index was written need not be listed. Only a
//! restore from a backup can put other files under the same names, possibly with the same inodes. Comparing a sample of
//! the files with the index reveals that.
//!
//! In a flat maildrop, names are used again and files are written to. So the index is valid for a file only while the
//! size and the times of the file are the same.
//!
//! Some file systems give a file another inode each time. There a file is recognised by its name, size and times.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::mem;

use super::directory::Directory;
use super::format::{LeftOut, Listing};
use super::identity::{Identity, Stamp, Stamps, is_settled};
use super::index::Index;
use super::layout;
use super::location::Location;
use super::measure::{self, is_exhaustion};
use super::message::{Content, FilePath, Folder, Message};
use super::name;
use super::root;
use crate::auth::MailFormat;

/// How often a maildrop is listed at most if other programs change it meanwhile. A listing may miss a file that is
/// renamed during it.
const LISTINGS: usize = 5;

/// How often it is listed at most if files were renamed before they could be measured.
const MORE_LISTINGS: usize = 200;

/// How many files of a Maildir are compared with the index before the index is trusted for all of them. The comparison
/// takes about 1 ms and reveals changes of one file in a hundred. If it misses a change, retrieving such a message is
/// refused, and the next login measures all messages again.
const SAMPLE: usize = 1000;

/// Returns true if the Maildir's directories have not changed since the index was written. They are neither opened nor
/// listed for this.
pub(super) fn are_unchanged(location: &Location, stamps: Stamps, now: i64) -> bool {
    let root = location.root();
    let is_still = |folder: Folder, stamp: Option<Stamp>| match root.stamp(&location.folder(folder)) {
        Ok(current) => Some(current) == stamp && is_settled(current.modified, now),
        Err(error) => error.kind() == io::ErrorKind::NotFound && stamp.is_none(),
    };
    let [new, cur] = stamps;
    if location.is_always_flat() || location.named_format() == Some(MailFormat::Mbox) {
        return false; // the index was written when the operator had chosen another layout
    }
    // Without new/ and cur/ it is a flat maildrop.
    (new.is_some() || cur.is_some()) && is_still(Folder::New, new) && is_still(Folder::Cur, cur)
}

/// A file that a listing has found.
pub(super) struct Listed {
    pub(super) path: FilePath,
    pub(super) inode: u64,
}

/// The messages that one listing has found.
struct Found {
    messages: Vec<Message>,
    /// The files that cannot be read.
    left_out: Vec<LeftOut>,
    /// True if a listed file did not exist any more when it was to be measured.
    lost: bool,
}

impl Found {
    /// Adds the messages that were known before and that this listing does not have. Returns them.
    fn add_missed(&mut self, earlier: &[Message]) -> Vec<Message> {
        let seen: HashSet<_> = self.messages.iter().map(file).collect();
        let missed: Vec<_> = earlier.iter().filter(|it| !seen.contains(&file(it))).cloned().collect();
        self.messages.extend(missed.iter().cloned());
        missed
    }
}

/// The messages that only the index knows, because no listing of this login has had them.
#[derive(Default)]
struct Unlisted(Option<Vec<Message>>);

impl Unlisted {
    /// Takes account of a listing that did not have the messages `missed`.
    fn note(&mut self, missed: Vec<Message>) {
        self.0 = Some(match self.0.take() {
            None => missed,
            Some(mut unlisted) => {
                let missed: HashSet<_> = missed.iter().map(file).collect();
                unlisted.retain(|message| missed.contains(&file(message)));
                unlisted
            }
        });
    }

    /// Takes the messages off a list, because they are gone: several listings do not miss the same file by chance.
    fn take_off(self, messages: &mut Vec<Message>) {
        let unlisted = self.0.unwrap_or_default();
        let unlisted: HashSet<_> = unlisted.iter().map(file).collect();
        if !unlisted.is_empty() {
            messages.retain(|message| !unlisted.contains(&file(message)));
        }
    }
}

/// The base name and inode by which a message is recognised.
fn file(message: &Message) -> (&[u8], u64) {
    (message.path.base(), message.content.identity.inode)
}

/// The part of a message's index entry that stays valid when a mail program moves the message.
fn base_and_content(message: &Message) -> (&[u8], &Content) {
    (message.path.base(), &message.content)
}

/// The directories that hold a maildrop's messages: one if it is flat, one or two if it is a Maildir, none if it does
/// not exist.
#[derive(Debug)]
pub(super) struct Folders {
    location: Location,
    directories: Vec<(Folder, Directory)>,
}

impl Folders {
    pub(super) fn open(location: &Location) -> io::Result<Self> {
        Ok(Self { location: location.clone(), directories: layout::folders(location)? })
    }

    pub(super) fn directory(&self, folder: Folder) -> Option<&Directory> {
        self.directories.iter().find(|(it, _)| *it == folder).map(|(_, directory)| directory)
    }

    /// Returns true if the maildrop does not exist.
    pub(super) fn are_missing(&self) -> bool {
        self.directories.is_empty()
    }

    pub(super) fn is_flat(&self) -> bool {
        self.directory(Folder::Top).is_some()
    }

    /// Returns the state of a Maildir's directories if a later login can compare it to see that nothing has changed.
    /// Returns `None` for a flat maildrop, and if the last change is so recent that another one could have the same
    /// time stamp.
    fn stamps(&self, now: i64) -> io::Result<Option<Stamps>> {
        if self.is_flat() {
            return Ok(None);
        }
        let stamp = |folder| self.directory(folder).map(Directory::stamp).transpose();
        let stamps = [stamp(Folder::New)?, stamp(Folder::Cur)?];
        Ok(stamps.iter().flatten().all(|stamp| is_settled(stamp.modified, now)).then_some(stamps))
    }

    /// Lists every file that may be a message.
    pub(super) fn listed(&self) -> io::Result<Vec<Listed>> {
        let mut files = Vec::new();
        for &(folder, ref directory) in &self.directories {
            let listed = |(name, inode)| Listed { path: FilePath { folder, name }, inode };
            let messages = directory.messages(|name| match folder {
                Folder::Top => self.location.root().layouts().refuse_maildir_in(directory, name),
                Folder::New | Folder::Cur | Folder::Mbox => Ok(()),
            });
            files.extend(messages?.into_iter().map(listed));
        }
        Ok(files)
    }

    /// Lists every file once, sorted by inode, which is about the order on the disk.
    fn files(&self) -> io::Result<Vec<Listed>> {
        let mut files = self.listed()?;
        files.sort_by(|a, b| a.inode.cmp(&b.inode).then_with(|| a.path.base().cmp(b.path.base())));
        // A file that was seen twice has the path under which it was seen last.
        files.dedup_by(|later, earlier| {
            let same = later.inode == earlier.inode && later.path.base() == earlier.path.base();
            let same = same && !self.are_two_files(later, earlier);
            if same {
                mem::swap(later, earlier);
            }
            same
        });
        Ok(files)
    }

    /// Returns true if two names with the same inode in a listing are different files. Some file systems list all files
    /// with the same inode.
    fn are_two_files(&self, a: &Listed, b: &Listed) -> bool {
        matches!((self.identity(a), self.identity(b)), (Some(a), Some(b)) if a.inode != b.inode)
    }

    /// Returns the identity of a listed file, or `None` if it does not exist any more.
    fn identity(&self, Listed { path, .. }: &Listed) -> Option<Identity> {
        self.directory(path.folder)?.identity(&path.name).ok()
    }

    /// Brings messages into the maildrop's order.
    fn sort(&self, messages: &mut [Message]) {
        let order = if self.is_flat() { name::flat_order } else { name::maildir_order };
        if !self.is_flat() {
            // Comparing numbers is fast and does most of the sorting. Sorting an almost sorted list again is fast too.
            messages.sort_by_cached_key(|message| name::delivery_time(&message.path.name));
        }
        messages.sort_by(|Message { path: a, .. }, Message { path: b, .. }| {
            order(&a.name, &b.name).then(a.folder.cmp(&b.folder))
        });
    }

    /// Lists the messages, measures those that `index` does not know, and writes a new index if it differs from the old
    /// one.
    pub(super) fn refresh(&self, index: Option<Index>, now: i64) -> io::Result<Listing> {
        let stamps = self.stamps(now)?; // taken before the directories are listed
        let index = index.unwrap_or_default();
        let (mut messages, mut left_out) = (Cow::Borrowed(&index.entries[..]), Vec::new());
        let mut unlisted = Unlisted::default();
        for listing in 1..=MORE_LISTINGS {
            let before = self.times()?;
            let mut found = self.found(&messages)?;
            left_out = mem::take(&mut found.left_out);
            let undisturbed = self.times()? == before;
            if undisturbed {
                unlisted = Unlisted::default();
            } else {
                // A file that is missing now may have been renamed during the listing, or removed.
                unlisted.note(found.add_missed(&messages));
            }
            self.sort(&mut found.messages);
            messages = Cow::Owned(found.messages);
            if undisturbed || (listing >= LISTINGS && !found.lost) {
                break;
            }
        }
        let mut messages = messages.into_owned();
        unlisted.take_off(&mut messages);
        note_namesakes(&mut messages);
        // A file that was written to just now may be written to again without a change of its identity.
        let settled = |message: &&Message| is_settled(message.written(), now);
        // An unreadable message may become readable without a change of the directories.
        let complete = left_out.is_empty() && messages.iter().all(|message| settled(&message));
        let stamps = stamps.filter(|_| complete);
        let entries = messages.iter().filter(settled);
        let is_known = entries.clone().map(base_and_content).eq(index.entries.iter().map(base_and_content));
        if !is_known || (stamps.is_some() && stamps != index.stamps) {
            Index::save(self.location.root(), &self.location.own_files(Folder::Top), stamps, entries);
        }
        Ok(Listing { messages, left_out, hidden: Vec::new() })
    }

    /// Lists the messages once and measures those that are not `known`.
    fn found(&self, known: &[Message]) -> io::Result<Found> {
        let index = Known::new(known);
        let files = self.files()?;
        let trusted = !self.is_flat() && self.confirm(&index, &files);
        let contents: Vec<_> = files.iter().map(|file| self.known_content(&index, file, trusted)).collect();
        let unknown: Vec<&Listed> =
            files.iter().zip(&contents).filter(|(_, content)| content.is_none()).map(|(file, _)| file).collect();
        // A known message keeps its unique-id, also if an older file with the same base name turns up.
        let taken: HashSet<&[u8]> = files
            .iter()
            .zip(&contents)
            .filter(|(_, content)| content.is_some_and(|content| !content.namesake))
            .map(|(file, _)| file.path.base())
            .collect();
        let namesakes: Vec<bool> = unknown.iter().map(|file| taken.contains(file.path.base())).collect();
        let paths: Vec<&FilePath> = unknown.iter().map(|file| &file.path).collect();
        let measured = measure::all(&paths, |path| self.open_file(path)).into_iter().zip(namesakes);
        let mut measured = measured.map(|(content, namesake)| content.map(|content| Content { namesake, ..content }));
        let mut found = Found { messages: Vec::with_capacity(files.len()), left_out: Vec::new(), lost: false };
        for (Listed { path, .. }, content) in files.into_iter().zip(contents) {
            let content = content.map(|content| Ok(*content)).or_else(|| measured.next());
            match content.unwrap_or(Err(io::ErrorKind::NotFound.into())) {
                Ok(content) => found.messages.push(Message::new(path, content)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => found.lost = true,
                Err(error) if is_exhaustion(&error) => return Err(error),
                Err(error) => {
                    log::warn!("{} is left out: {error}", root::display(&self.location.file(&path)));
                    found.left_out.push(LeftOut { path: path.shown(), error });
                }
            }
        }
        Ok(found)
    }

    fn open_file(&self, path: &FilePath) -> io::Result<(File, Identity)> {
        self.directory(path.folder).ok_or(io::ErrorKind::NotFound)?.file(&path.name)
    }

    /// Returns when the directories were last changed. Their inodes are left out, because some file systems give a
    /// directory another inode each time.
    pub(super) fn times(&self) -> io::Result<Vec<Stamp>> {
        let times = |directory: &Directory| directory.stamp().map(|stamp| Stamp { inode: 0, ..stamp });
        self.directories.iter().map(|(_, directory)| times(directory)).collect()
    }

    /// Compares a sample of the files with the index. Returns true if they match.
    fn confirm(&self, known: &Known<'_>, files: &[Listed]) -> bool {
        let is_as_known = |file: &Listed| {
            let Some(content) = known.by_inode(file) else { return true };
            self.identity(file).is_none_or(|identity| content.is(&identity))
        };
        files.iter().step_by(files.len().div_ceil(SAMPLE).max(1)).all(is_as_known)
    }

    /// Returns what the index knows about a file. If the index is `trusted`, a file of a Maildir is not compared with
    /// it.
    fn known_content<'k>(&self, known: &Known<'k>, file: &Listed, trusted: bool) -> Option<&'k Content> {
        let by_inode = known.by_inode(file);
        if trusted && by_inode.is_some() {
            return by_inode;
        }
        let content = by_inode.or_else(|| known.by_name(file))?;
        let identity = self.identity(file)?;
        // A file with another inode is another file, which is measured. Two cases differ: in a flat maildrop the change
        // time identifies the file as well as an inode, and on some file systems a listing gives other inodes than
        // stat(2).
        let is_recognised = by_inode.is_some() || self.is_flat() || identity.inode != file.inode;
        (is_recognised && content.is_untouched(&identity, file.path.folder)).then_some(content)
    }
}

/// The messages that the index knows, in the maildrop's order.
struct Known<'a> {
    messages: &'a [Message],
    /// The index of the first message with each base name.
    by_base: HashMap<&'a [u8], usize>,
}

impl<'a> Known<'a> {
    fn new(messages: &'a [Message]) -> Self {
        let mut by_base = HashMap::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            by_base.entry(message.path.base()).or_insert(index);
        }
        Self { messages, by_base }
    }

    fn namesakes(&self, base: &[u8]) -> &'a [Message] {
        let Some(&start) = self.by_base.get(base) else { return &[] };
        let rest = &self.messages[start..];
        let end = rest.iter().position(|message| message.path.base() != base);
        &rest[..end.unwrap_or(rest.len())]
    }

    fn by_inode(&self, file: &Listed) -> Option<&'a Content> {
        let mut contents = self.namesakes(file.path.base()).iter().map(|message| &message.content);
        contents.find(|content| content.identity.inode == file.inode)
    }

    /// Finds a message by its base name alone, if only one message has that base name.
    fn by_name(&self, file: &Listed) -> Option<&'a Content> {
        match self.namesakes(file.path.base()) {
            [only] => Some(&only.content),
            _ => None,
        }
    }
}

/// Marks messages whose base name another message had first. Correct delivery programs never use a base name twice.
fn note_namesakes(messages: &mut [Message]) {
    for group in messages.chunk_by_mut(|a, b| a.path.base() == b.path.base()) {
        let age = |content: &Content| (content.identity.modified, content.identity.inode);
        let first = group.iter().map(|it| &it.content).filter(|content| !content.namesake).map(age).min();
        for content in group.iter_mut().map(|it| &mut it.content).filter(|content| Some(age(content)) != first) {
            content.namesake = true;
        }
    }
}
