//! Finding a user's messages and measuring those that the index does not know.
//!
//! Maildir: a message never changes under its name, so the same name on the same inode is a message that the index
//! knows, and directories that have not changed since the index was written need not even be listed. Flat: names
//! are used again and files are written to, so the index is good for a file only while its identity is the same.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::mem;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::index::Index;
use super::message::{Content, Folder, Message, Place};
use super::name;
use super::root::{self, Directory, Identity, Root, Stamp, Stamps, is_settled};
use crate::wire::{BLOCK, Block, Measure, Meter};

/// How often a maildrop is listed that others change meanwhile: a file renamed then may be missed by a listing.
const LISTINGS: usize = 5;

/// From this many messages to measure on, more threads than the session's own pay.
const PARALLEL: usize = 256;

/// The most of them: they wait for the disk more than they compute. Each has so many messages at least.
const SCAN_THREADS: usize = 64;
const PER_THREAD: usize = 64;

/// One scan at a time is parallel, so that many first logins at once do not start threads without bound.
static PARALLEL_SCAN: Mutex<()> = Mutex::new(());

/// The user's messages, in the maildrop's order.
pub(super) fn messages(root: &Root, user: &str) -> io::Result<Vec<Message>> {
    let now = nanoseconds_since_1970();
    let known = match Index::load(root, user) {
        Some(Index { stamps: Some(stamps), entries }) if are_still(root, user, stamps, now) => entries,
        index => Folders::open(root, user)?.refresh(root, user, index, now)?,
    };
    Ok(known.into_iter().map(Message::new).collect())
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
    entries: Vec<(Place, Content)>,
    changed: bool,
    complete: bool,
}

impl Found {
    /// Adds the files that an earlier listing saw and this one did not.
    fn add_missed(&mut self, earlier: Vec<(Place, Content)>) {
        let file = |(place, content): &(Place, Content)| (Box::<[u8]>::from(place.base()), content.identity.inode);
        let seen: HashSet<_> = self.entries.iter().map(file).collect();
        self.entries.extend(earlier.into_iter().filter(|entry| !seen.contains(&file(entry))));
    }
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

    /// Every message's file, in the maildrop's order.
    fn files(&self) -> io::Result<Vec<Listed>> {
        let mut files = Vec::new();
        for &(folder, ref directory) in &self.0 {
            let listed = |(name, inode)| Listed { place: Place { folder, name }, inode };
            files.extend(directory.messages()?.into_iter().map(listed));
        }
        self.sort(&mut files, |file| &file.place);
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

    fn sort<T>(&self, messages: &mut [T], place: impl Fn(&T) -> &Place) {
        let order = if self.is_flat() { name::flat_order } else { name::maildir_order };
        if !self.is_flat() {
            // This does most of it, as numbers are quick to compare; what is in order already is quick to sort again.
            messages.sort_by_cached_key(|message| name::delivery_time(&place(message).name));
        }
        messages.sort_by(|a, b| {
            let (a, b) = (place(a), place(b));
            order(&a.name, &b.name).then(a.folder.cmp(&b.folder))
        });
    }

    /// Lists the messages, measures those that `index` does not know, and writes a new index if that has changed
    /// anything.
    fn refresh(&self, root: &Root, user: &str, index: Option<Index>, now: i64) -> io::Result<Vec<(Place, Content)>> {
        let stamps = self.stamps(now)?; // before they are listed
        let Index { stamps: old_stamps, mut entries } = index.unwrap_or_default();
        let (mut changed, mut complete) = (false, true);
        for _ in 0..LISTINGS {
            let before = self.times()?;
            let mut found = self.found(user, &entries)?;
            changed |= found.changed;
            complete = found.complete;
            let undisturbed = self.times()? == before;
            if !undisturbed {
                // What is not seen now has been renamed meanwhile, or removed: better one too many.
                found.add_missed(entries);
                self.sort(&mut found.entries, |(place, _)| place);
            }
            entries = found.entries;
            if undisturbed {
                break;
            }
        }
        note_namesakes(&mut entries);
        // A file that was written to just now may be again, without a trace in its identity.
        let settled = |(place, content): &&(Place, Content)| is_settled(content.written(place.folder), now);
        // With a message left out the directories' times do not tell when it can be read.
        let complete = complete && entries.iter().all(|entry| settled(&entry));
        let stamps = stamps.filter(|_| complete);
        if changed || (stamps.is_some() && stamps != old_stamps) {
            Index::save(root, user, stamps, entries.iter().filter(settled));
        }
        Ok(entries)
    }

    /// Lists the messages once and measures those that are not `known`.
    fn found(&self, user: &str, known: &[(Place, Content)]) -> io::Result<Found> {
        let mut index = Known::new(known);
        let files = self.files()?;
        let contents: Vec<Option<Content>> = files.iter().map(|file| self.known_content(&mut index, file)).collect();
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
        let measured = self.measure_all(&unknown).into_iter().zip(namesakes);
        let mut measured = measured.map(|(content, namesake)| content.map(|content| Content { namesake, ..content }));
        let mut found = Found { entries: Vec::with_capacity(files.len()), changed, complete: true };
        for (Listed { place, .. }, content) in files.into_iter().zip(contents) {
            match content.map_or_else(|| measured.next().unwrap_or(Err(io::ErrorKind::NotFound.into())), Ok) {
                Ok(content) => found.entries.push((place, content)),
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

    fn times(&self) -> io::Result<Vec<Stamp>> {
        self.0.iter().map(|(_, directory)| directory.stamp()).collect()
    }

    fn known_content(&self, known: &mut Known<'_>, Listed { place, inode }: &Listed) -> Option<Content> {
        let content = **known.by_file.get(&(place.base(), *inode))?;
        let unchanged = || Some(content.is(&self.directory(place.folder)?.identity(&place.name).ok()?, place.folder));
        if self.is_flat() && !unchanged()? {
            return None;
        }
        known.used += 1;
        Some(content)
    }

    /// Measures messages, many of them on several threads, in the order of their inodes: that is about their order
    /// on the disk.
    fn measure_all(&self, files: &[&Listed]) -> Vec<io::Result<Content>> {
        let mut order: Vec<usize> = (0..files.len()).collect();
        order.sort_by_cached_key(|&index| files[index].inode);
        let measure = |part: &[usize]| -> Vec<io::Result<Content>> {
            let mut buffer = Block::new();
            part.iter().map(|&index| self.measure(&files[index].place, &mut buffer)).collect()
        };
        let alone = if files.len() < PARALLEL { None } else { PARALLEL_SCAN.try_lock() };
        let results = match alone {
            None => measure(&order),
            Some(_) => thread::scope(|scope| {
                let workers: Vec<_> = order
                    .chunks(order.len().div_ceil(SCAN_THREADS).max(PER_THREAD))
                    .map(|part| (part, thread::Builder::new().spawn_scoped(scope, move || measure(part)).ok()))
                    .collect();
                // Measured here if there was no thread to be had.
                let results = workers.into_iter().flat_map(|(part, worker)| {
                    worker.and_then(|worker| worker.join().ok()).unwrap_or_else(|| measure(part))
                });
                results.collect()
            }),
        };
        let mut measured: Vec<_> = files.iter().map(|_| Err(io::ErrorKind::NotFound.into())).collect();
        order.into_iter().zip(results).for_each(|(index, result)| measured[index] = result);
        measured
    }

    fn measure(&self, place: &Place, buffer: &mut [u8]) -> io::Result<Content> {
        let directory = self.directory(place.folder).ok_or(io::ErrorKind::NotFound)?;
        let (mut file, identity) = directory.file(&place.name)?;
        if let Some(octets) = told_octets(place, &identity)
            && ends_in_lf(&file, identity.size)?
        {
            return Ok(Content { identity, octets, wire_form: false, namesake: false });
        }
        let mut meter = Meter::default();
        // No further than its size now: it may be growing.
        let mut left = identity.size;
        while left > 0 {
            let room = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            match file.read(&mut buffer[..room]) {
                Ok(0) => break,
                Ok(read) => {
                    meter.push(&buffer[..read]);
                    left -= read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let Measure { octets, wire_form } = meter.finish();
        Ok(Content { identity, octets, wire_form, namesake: false })
    }
}

/// A large message's octets as its Maildir name tells them (`W=`), if the stored size it tells (`S=`) is right.
/// Small ones are read: that is as quick as looking closely enough.
fn told_octets(place: &Place, identity: &Identity) -> Option<u64> {
    if place.folder == Folder::Top || identity.size <= BLOCK as u64 {
        return None;
    }
    let (stored, octets) = name::sizes(&place.name)?;
    (stored == identity.size && (stored..=stored.saturating_mul(2)).contains(&octets)).then_some(octets)
}

/// Those who write `W=` do not count the line end that a last line may lack.
fn ends_in_lf(file: &std::fs::File, size: u64) -> io::Result<bool> {
    let mut last = [0];
    file.read_exact_at(&mut last, size.saturating_sub(1))?;
    Ok(last == *b"\n")
}

/// What the index knows, by what a message is recognised by.
struct Known<'a> {
    by_file: HashMap<(&'a [u8], u64), &'a Content>,
    used: usize,
}

impl<'a> Known<'a> {
    fn new(entries: &'a [(Place, Content)]) -> Self {
        let file = |(place, content): &'a (Place, Content)| ((place.base(), content.identity.inode), content);
        Self { by_file: entries.iter().map(file).collect(), used: 0 }
    }
}

/// Notes of messages with one base name, which is not to be, all but the one that had it first.
fn note_namesakes(entries: &mut [(Place, Content)]) {
    for group in entries.chunk_by_mut(|(a, _), (b, _)| a.base() == b.base()) {
        let age = |content: &Content| (content.identity.modified, content.identity.inode);
        let first = group.iter().map(|(_, content)| content).filter(|content| !content.namesake).map(age).min();
        for (_, content) in group.iter_mut().filter(|(_, content)| Some(age(content)) != first) {
            content.namesake = true;
        }
    }
}

fn nanoseconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Out of descriptors or memory: says nothing of the file.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}
