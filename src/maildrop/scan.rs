//! Finding a user's messages, and having those measured that the index does not know.
//!
//! Maildir: a message never changes under its name, so the same name on the same inode is a message that the index
//! knows, and directories that have not changed since the index was written need not even be listed. Only a restore puts
//! other files under the same names, and their inodes may be those of the removed ones: a sample of the files shows that.
//! Flat: names are used again and files are written to, so the index is good for a file only while its size and times
//! are the same.
//!
//! Some file systems number their files anew each time. There a file is known by its name, size and times.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::mem;
use std::time::SystemTime;

use super::index::Index;
use super::layout::{self, Layouts};
use super::measure::{self, is_exhaustion};
use super::message::{Content, Folder, Message, Place};
use super::name;
use super::root::{self, Directory, Identity, Root, Stamp, Stamps, is_settled};

/// How often a maildrop is listed that others change meanwhile: a file renamed then may be missed by a listing.
const LISTINGS: usize = 5;

/// How often it is listed if files were renamed before they could be measured.
const MORE_LISTINGS: usize = 200;

/// How many files of a Maildir are compared with the index before it is believed for all of them. That takes about 1 ms
/// and finds every change that concerns a hundredth of a large Maildir. A change that it misses is found when such a
/// message is retrieved: that is refused, and the next login measures everything again.
const SAMPLE: usize = 1000;

/// The user's messages, in the maildrop's order.
pub(super) fn messages(root: &Root, user: &str) -> io::Result<Vec<Message>> {
    let now = nanoseconds_since_1970();
    match Index::load(root, user) {
        Some(Index { stamps: Some(stamps), entries }) if are_still(root, user, stamps, now) => Ok(entries),
        index => Folders::open(root, user)?.refresh(root, user, index, now),
    }
}

/// Whether these are a Maildir's directories, unchanged. That takes no listing, and they need not be opened.
fn are_still(root: &Root, user: &str, stamps: Stamps, now: i64) -> bool {
    let is_still = |folder: Folder, stamp: Option<Stamp>| match root.stamp(&folder.path(user)) {
        Ok(current) => Some(current) == stamp && is_settled(current.modified, now),
        Err(error) => error.kind() == io::ErrorKind::NotFound && stamp.is_none(),
    };
    let [new, cur] = stamps;
    if root.layouts().is_always_flat() {
        return false; // the index is from a time when it was not
    }
    // With neither it is a flat maildrop by now.
    (new.is_some() || cur.is_some()) && is_still(Folder::New, new) && is_still(Folder::Cur, cur)
}

/// A message's file as a listing tells it.
pub(super) struct Listed {
    pub(super) place: Place,
    pub(super) inode: u64,
}

/// What one listing has found.
struct Found {
    messages: Vec<Message>,
    complete: bool,
    /// A listed file was not there when it was to be measured.
    lost: bool,
}

impl Found {
    /// Adds the files that an earlier listing saw and this one did not.
    fn add_missed(&mut self, earlier: &[Message]) {
        let seen: HashSet<_> = self.messages.iter().map(file).collect();
        let missed: Vec<_> = earlier.iter().filter(|it| !seen.contains(&file(it))).cloned().collect();
        self.messages.extend(missed);
    }
}

/// What a message is recognised by.
fn file(message: &Message) -> (&[u8], u64) {
    (message.place.base(), message.content.identity.inode)
}

/// What an index is good for, wherever a mail program has moved the message meanwhile.
fn base_and_content(message: &Message) -> (&[u8], &Content) {
    (message.place.base(), &message.content)
}

/// The directories of a maildrop: one for a flat one, one or two for a Maildir, none for one that is not there.
pub(super) struct Folders<'a> {
    layouts: &'a Layouts,
    directories: Vec<(Folder, Directory)>,
}

impl<'a> Folders<'a> {
    pub(super) fn open(root: &'a Root, user: &str) -> io::Result<Self> {
        Ok(Self { layouts: root.layouts(), directories: layout::folders(root, user)? })
    }

    pub(super) fn directory(&self, folder: Folder) -> Option<&Directory> {
        self.directories.iter().find(|(it, _)| *it == folder).map(|(_, directory)| directory)
    }

    fn is_flat(&self) -> bool {
        self.directory(Folder::Top).is_some()
    }

    /// The directories' times, if they can tell that nothing has changed since: a Maildir's, unless a change is
    /// so recent that another one could have the same time.
    fn stamps(&self, now: i64) -> io::Result<Option<Stamps>> {
        if self.is_flat() {
            return Ok(None);
        }
        let stamp = |folder| self.directory(folder).map(Directory::stamp).transpose();
        let stamps = [stamp(Folder::New)?, stamp(Folder::Cur)?];
        Ok(stamps.iter().flatten().all(|stamp| is_settled(stamp.modified, now)).then_some(stamps))
    }

    /// Every file that may be a message's.
    pub(super) fn listed(&self) -> io::Result<Vec<Listed>> {
        let mut files = Vec::new();
        for &(folder, ref directory) in &self.directories {
            let listed = |(name, inode)| Listed { place: Place { folder, name }, inode };
            let messages = directory.messages(|name| match folder {
                Folder::Top => self.layouts.refuse_maildir_in(directory, name),
                Folder::New | Folder::Cur => Ok(()),
            });
            files.extend(messages?.into_iter().map(listed));
        }
        Ok(files)
    }

    /// Every message's file, in the order of their inodes: that is about their order on the disk.
    fn files(&self) -> io::Result<Vec<Listed>> {
        let mut files = self.listed()?;
        files.sort_by(|a, b| a.inode.cmp(&b.inode).then_with(|| a.place.base().cmp(b.place.base())));
        // One that was seen twice is where it was seen last.
        files.dedup_by(|later, earlier| {
            let same = later.inode == earlier.inode && later.place.base() == earlier.place.base();
            let same = same && !self.are_two_files(later, earlier);
            if same {
                mem::swap(later, earlier);
            }
            same
        });
        Ok(files)
    }

    /// Whether two names that a listing gives the same inode are two files after all. There are file systems whose listings
    /// give all files the same one.
    fn are_two_files(&self, a: &Listed, b: &Listed) -> bool {
        matches!((self.identity(a), self.identity(b)), (Some(a), Some(b)) if a.inode != b.inode)
    }

    /// Which file is listed, and in which state. `None` when it is not there any more.
    fn identity(&self, Listed { place, .. }: &Listed) -> Option<Identity> {
        self.directory(place.folder)?.identity(&place.name).ok()
    }

    /// Brings messages into the maildrop's order.
    fn sort(&self, messages: &mut [Message]) {
        let order = if self.is_flat() { name::flat_order } else { name::maildir_order };
        if !self.is_flat() {
            // This does most of it, as numbers are quick to compare; what is in order already is quick to sort again.
            messages.sort_by_cached_key(|message| name::delivery_time(&message.place.name));
        }
        messages.sort_by(|Message { place: a, .. }, Message { place: b, .. }| {
            order(&a.name, &b.name).then(a.folder.cmp(&b.folder))
        });
    }

    /// Lists the messages, measures those that `index` does not know, and writes a new index if that has changed
    /// anything.
    fn refresh(&self, root: &Root, user: &str, index: Option<Index>, now: i64) -> io::Result<Vec<Message>> {
        let stamps = self.stamps(now)?; // before they are listed
        let index = index.unwrap_or_default();
        let (mut messages, mut complete) = (Cow::Borrowed(&index.entries[..]), true);
        for listing in 1..=MORE_LISTINGS {
            let before = self.times()?;
            let mut found = self.found(user, &messages)?;
            complete = found.complete;
            let undisturbed = self.times()? == before;
            if !undisturbed {
                // What is not seen now has been renamed meanwhile, or removed: better one too many.
                found.add_missed(&messages);
            }
            self.sort(&mut found.messages);
            messages = Cow::Owned(found.messages);
            if undisturbed || (listing >= LISTINGS && !found.lost) {
                break;
            }
        }
        let mut messages = messages.into_owned();
        note_namesakes(&mut messages);
        // A file that was written to just now may be again, without a trace in its identity.
        let settled = |message: &&Message| is_settled(message.written(), now);
        // With a message left out the directories' times do not tell when it can be read.
        let complete = complete && messages.iter().all(|message| settled(&message));
        let stamps = stamps.filter(|_| complete);
        let entries = messages.iter().filter(settled);
        let is_known = entries.clone().map(base_and_content).eq(index.entries.iter().map(base_and_content));
        if !is_known || (stamps.is_some() && stamps != index.stamps) {
            Index::save(root, user, stamps, entries);
        }
        Ok(messages)
    }

    /// Lists the messages once and measures those that are not `known`.
    fn found(&self, user: &str, known: &[Message]) -> io::Result<Found> {
        let index = Known::new(known);
        let files = self.files()?;
        let believed = !self.is_flat() && self.confirm(&index, &files);
        let contents: Vec<_> = files.iter().map(|file| self.known_content(&index, file, believed)).collect();
        let unknown: Vec<&Listed> =
            files.iter().zip(&contents).filter(|(_, content)| content.is_none()).map(|(file, _)| file).collect();
        // Their unique-ids are taken, also by files that are younger.
        let taken: HashSet<&[u8]> = files
            .iter()
            .zip(&contents)
            .filter(|(_, content)| content.is_some_and(|content| !content.namesake))
            .map(|(file, _)| file.place.base())
            .collect();
        let namesakes: Vec<bool> = unknown.iter().map(|file| taken.contains(file.place.base())).collect();
        let places: Vec<&Place> = unknown.iter().map(|file| &file.place).collect();
        let measured = measure::all(&places, |place| self.open_file(place)).into_iter().zip(namesakes);
        let mut measured = measured.map(|(content, namesake)| content.map(|content| Content { namesake, ..content }));
        let mut found = Found { messages: Vec::with_capacity(files.len()), complete: true, lost: false };
        for (Listed { place, .. }, content) in files.into_iter().zip(contents) {
            let content = content.map(|content| Ok(*content)).or_else(|| measured.next());
            match content.unwrap_or(Err(io::ErrorKind::NotFound.into())) {
                Ok(content) => found.messages.push(Message::new(place, content)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => found.lost = true,
                Err(error) if is_exhaustion(&error) => return Err(error),
                Err(error) => {
                    log::warn!("{} is left out: {error}", root::display(&place.path(user)));
                    found.complete = false;
                }
            }
        }
        Ok(found)
    }

    fn open_file(&self, place: &Place) -> io::Result<(File, Identity)> {
        self.directory(place.folder).ok_or(io::ErrorKind::NotFound)?.file(&place.name)
    }

    /// When the directories were last changed. Their inodes are left out: some file systems give a directory another one
    /// each time it is looked at.
    pub(super) fn times(&self) -> io::Result<Vec<Stamp>> {
        let times = |directory: &Directory| directory.stamp().map(|stamp| Stamp { inode: 0, ..stamp });
        self.directories.iter().map(|(_, directory)| times(directory)).collect()
    }

    /// Whether the files that the index knows by their inodes are as it says, as far as a sample tells.
    fn confirm(&self, known: &Known<'_>, files: &[Listed]) -> bool {
        let is_as_known = |file: &Listed| {
            let Some(content) = known.by_inode(file) else { return true };
            self.identity(file).is_none_or(|identity| content.is(&identity))
        };
        files.iter().step_by(files.len().div_ceil(SAMPLE).max(1)).all(is_as_known)
    }

    /// What the index knows of a file. A Maildir's index that is `believed` need not be compared with the file.
    fn known_content<'k>(&self, known: &Known<'k>, file: &Listed, believed: bool) -> Option<&'k Content> {
        let by_inode = known.by_inode(file);
        if believed && by_inode.is_some() {
            return by_inode;
        }
        let content = by_inode.or_else(|| known.by_name(file))?;
        let identity = self.identity(file)?;
        // A file of another inode is another file, which is measured, unless inodes mean nothing here: then the listing
        // tells another one than the file itself. Times that nobody can set back are as good as an inode.
        let is_recognised = by_inode.is_some() || self.is_flat() || identity.inode != file.inode;
        (is_recognised && content.is_untouched(&identity, file.place.folder)).then_some(content)
    }
}

/// What the index knows of the messages, which are in the maildrop's order.
struct Known<'a> {
    messages: &'a [Message],
    /// Where the messages with a base name begin.
    by_base: HashMap<&'a [u8], usize>,
}

impl<'a> Known<'a> {
    fn new(messages: &'a [Message]) -> Self {
        let mut by_base = HashMap::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            by_base.entry(message.place.base()).or_insert(index);
        }
        Self { messages, by_base }
    }

    fn namesakes(&self, base: &[u8]) -> &'a [Message] {
        let Some(&start) = self.by_base.get(base) else { return &[] };
        let rest = &self.messages[start..];
        let end = rest.iter().position(|message| message.place.base() != base);
        &rest[..end.unwrap_or(rest.len())]
    }

    fn by_inode(&self, file: &Listed) -> Option<&'a Content> {
        let mut contents = self.namesakes(file.place.base()).iter().map(|message| &message.content);
        contents.find(|content| content.identity.inode == file.inode)
    }

    /// By the base name alone, if only one message has it.
    fn by_name(&self, file: &Listed) -> Option<&'a Content> {
        match self.namesakes(file.place.base()) {
            [only] => Some(&only.content),
            _ => None,
        }
    }
}

/// Notes of messages with one base name, which is not to be, all but the one that had it first.
fn note_namesakes(messages: &mut [Message]) {
    for group in messages.chunk_by_mut(|a, b| a.place.base() == b.place.base()) {
        let age = |content: &Content| (content.identity.modified, content.identity.inode);
        let first = group.iter().map(|it| &it.content).filter(|content| !content.namesake).map(age).min();
        for content in group.iter_mut().map(|it| &mut it.content).filter(|content| Some(age(content)) != first) {
            content.namesake = true;
        }
    }
}

pub(super) fn nanoseconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
