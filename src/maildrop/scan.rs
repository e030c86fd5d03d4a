//! Finding a user's messages, and having those measured that the index does not know.
//!
//! Maildir: a message never changes under its name, so the same name on the same inode is a message that the index
//! knows, and directories that have not changed since the index was written need not even be listed. Flat: names
//! are used again and files are written to, so the index is good for a file only while its identity is the same.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::mem;
use std::time::SystemTime;

use super::index::Index;
use super::measure::{self, is_exhaustion};
use super::message::{Content, Folder, Message, Place};
use super::name;
use super::root::{self, Directory, Identity, Root, Stamp, Stamps, is_settled};

/// How often a maildrop is listed that others change meanwhile: a file renamed then may be missed by a listing.
const LISTINGS: usize = 5;

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
    // With neither it is a flat maildrop by now.
    (new.is_some() || cur.is_some()) && is_still(Folder::New, new) && is_still(Folder::Cur, cur)
}

/// Where the user's messages are now.
pub(super) fn places(root: &Root, user: &str) -> io::Result<Vec<Place>> {
    let files = Folders::open(root, user)?.files()?;
    Ok(files.into_iter().map(|file| file.place).collect())
}

/// A message's file as a listing tells it.
struct Listed {
    place: Place,
    inode: u64,
}

/// What one listing has found.
struct Found {
    messages: Vec<Message>,
    changed: bool,
    complete: bool,
}

impl Found {
    /// Adds the files that an earlier listing saw and this one did not.
    fn add_missed(&mut self, earlier: Vec<Message>) {
        let seen: HashSet<_> = self.messages.iter().map(file).collect();
        let missed: Vec<_> = earlier.into_iter().filter(|it| !seen.contains(&file(it))).collect();
        self.messages.extend(missed);
    }
}

/// What a message is recognised by.
fn file(message: &Message) -> (&[u8], u64) {
    (message.place.base(), message.content.identity.inode)
}

/// The directories of a maildrop: one for a flat one, one or two for a Maildir, none for one that is not there.
struct Folders(Vec<(Folder, Directory)>);

impl Folders {
    fn open(root: &Root, user: &str) -> io::Result<Self> {
        // new/ before cur/: a message that is moved while they are listed is then seen twice, but never missed.
        let mut folders = Vec::new();
        for folder in [Folder::New, Folder::Cur] {
            match root.directory(&folder.path(user)) {
                Ok(directory) => folders.push((folder, directory)),
                // Not there; or a message of a flat maildrop that is called "new".
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        if folders.is_empty() {
            match root.directory(&Folder::Top.path(user)) {
                Ok(directory) => folders.push((Folder::Top, directory)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(folders))
    }

    fn directory(&self, folder: Folder) -> Option<&Directory> {
        self.0.iter().find(|(it, _)| *it == folder).map(|(_, directory)| directory)
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

    /// Every message's file, in the order of their inodes: that is about their order on the disk.
    fn files(&self) -> io::Result<Vec<Listed>> {
        let mut files = Vec::new();
        for &(folder, ref directory) in &self.0 {
            let listed = |(name, inode)| Listed { place: Place { folder, name }, inode };
            files.extend(directory.messages()?.into_iter().map(listed));
        }
        files.sort_by(|a, b| a.inode.cmp(&b.inode).then_with(|| a.place.base().cmp(b.place.base())));
        // One that was seen twice is where it was seen last.
        files.dedup_by(|later, earlier| {
            let same = later.inode == earlier.inode && later.place.base() == earlier.place.base();
            if same {
                mem::swap(later, earlier);
            }
            same
        });
        Ok(files)
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
        let Index { stamps: old_stamps, entries: mut messages } = index.unwrap_or_default();
        let (mut changed, mut complete) = (false, true);
        for _ in 0..LISTINGS {
            let before = self.times()?;
            let mut found = self.found(user, &messages)?;
            changed |= found.changed;
            complete = found.complete;
            let undisturbed = self.times()? == before;
            if !undisturbed {
                // What is not seen now has been renamed meanwhile, or removed: better one too many.
                found.add_missed(messages);
            }
            messages = found.messages;
            if undisturbed {
                break;
            }
        }
        self.sort(&mut messages);
        note_namesakes(&mut messages);
        // A file that was written to just now may be again, without a trace in its identity.
        let settled = |message: &&Message| is_settled(message.written(), now);
        // With a message left out the directories' times do not tell when it can be read.
        let complete = complete && messages.iter().all(|message| settled(&message));
        let stamps = stamps.filter(|_| complete);
        if changed || (stamps.is_some() && stamps != old_stamps) {
            Index::save(root, user, stamps, messages.iter().filter(settled));
        }
        Ok(messages)
    }

    /// Lists the messages once and measures those that are not `known`.
    fn found(&self, user: &str, known: &[Message]) -> io::Result<Found> {
        let mut index = Known::new(known);
        let files = self.files()?;
        let contents: Vec<Option<&Content>> = files.iter().map(|file| self.known_content(&mut index, file)).collect();
        let unknown: Vec<&Listed> =
            files.iter().zip(&contents).filter(|(_, content)| content.is_none()).map(|(file, _)| file).collect();
        let changed = !unknown.is_empty() || index.used != known.len();
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
        let mut found = Found { messages: Vec::with_capacity(files.len()), changed, complete: true };
        for (Listed { place, .. }, content) in files.into_iter().zip(contents) {
            let content = content.map(|content| Ok(*content)).or_else(|| measured.next());
            match content.unwrap_or(Err(io::ErrorKind::NotFound.into())) {
                Ok(content) => found.messages.push(Message::new(place, content)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
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

    fn times(&self) -> io::Result<Vec<Stamp>> {
        self.0.iter().map(|(_, directory)| directory.stamp()).collect()
    }

    fn known_content<'k>(&self, known: &mut Known<'k>, Listed { place, inode }: &Listed) -> Option<&'k Content> {
        let content = *known.by_file.get(&(place.base(), *inode))?;
        let unchanged = || Some(content.is(&self.directory(place.folder)?.identity(&place.name).ok()?, place.folder));
        if self.is_flat() && !unchanged()? {
            return None;
        }
        known.used += 1;
        Some(content)
    }
}

/// What the index knows, by what a message is recognised by.
struct Known<'a> {
    by_file: HashMap<(&'a [u8], u64), &'a Content>,
    used: usize,
}

impl<'a> Known<'a> {
    fn new(messages: &'a [Message]) -> Self {
        let known = |message: &'a Message| (file(message), &message.content);
        Self { by_file: messages.iter().map(known).collect(), used: 0 }
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

fn nanoseconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
