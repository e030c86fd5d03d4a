//! How many messages maildrops have, for an admin who asks repeatedly. A Maildir whose directories have not changed since
//! the last question is not listed again: a question costs a few system calls, however many messages there are.
//!
//! In a flat maildrop and in an mbox programs write to files without a change of the directory, and so does the server when it
//! notes that a message is hidden. Those maildrops are read each time.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::hidden;
use super::identity::{Stamp, is_settled, nanoseconds_since_1970};
use super::layout::Layouts;
use super::location::Location;
use super::message::Folder;
use super::with_folders::FolderName;
use super::{Maildrop, RootId, is_missing};
use crate::auth::MailFormat;

/// How many maildrops are remembered. The next one makes all be forgotten.
const MOST: usize = 1000;

/// How many messages the Maildirs have about which an admin has asked.
#[derive(Debug, Default)]
pub struct Counts(Mutex<HashMap<Key, Counted>>);

/// What distinguishes a maildrop from others. It keeps no directory open.
type Key = (RootId, Vec<u8>);

#[derive(Debug)]
struct Counted {
    state: State,
    count: Count,
}

/// How many messages a maildrop has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The messages.
    pub messages: usize,
    /// Their octets, as LIST tells them.
    pub octets: u64,
}

/// All on which the messages of a Maildir depend.
#[derive(Debug)]
struct State {
    layouts: Arc<Layouts>,
    format: Option<MailFormat>,
    /// The directory, its `new/` and `cur/`, and the same of each folder that is shown with it.
    directories: Vec<Option<Stamp>>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.layouts, &other.layouts)
            && self.format == other.format
            && self.directories == other.directories
    }
}

impl State {
    /// Returns `None` if a change may leave the directories as they are, or if they have changed so recently that another change
    /// may have the same time stamp.
    fn of(location: &Location, now: i64) -> Option<Self> {
        if hidden::hides(location) || location.is_always_flat() || location.named_format() == Some(MailFormat::Mbox) {
            return None;
        }
        let root = location.root();
        let layouts = root.shared_layouts();
        let folders = layouts.maildirs().folders.iter().filter_map(|name| match name {
            FolderName::Folder(name) => Some(location.maildir_folder(name)),
            FolderName::Inbox => None,
        });
        let mut directories = Vec::new();
        for place in std::iter::once(location.clone()).chain(folders) {
            for folder in [Folder::Top, Folder::New, Folder::Cur] {
                directories.push(match root.stamp(&place.folder(folder)) {
                    Ok(stamp) if is_settled(stamp.changed, now) => Some(stamp),
                    Err(error) if is_missing(&error) => None,
                    _ => return None,
                });
            }
        }
        let is_maildir = directories[1].is_some() || directories[2].is_some();
        is_maildir.then(|| Self { layouts: Arc::clone(layouts), format: location.named_format(), directories })
    }
}

impl Counts {
    /// Counts the messages of the maildrop at `location`, without its lock.
    ///
    /// # Errors
    /// As of [`Maildrop::open_without_lock`].
    pub fn of(&self, location: &Location) -> io::Result<Count> {
        self.of_at(location, nanoseconds_since_1970())
    }

    /// Does it at the time `now`, in ns since 1970.
    fn of_at(&self, location: &Location, now: i64) -> io::Result<Count> {
        let location = location.behind_links()?;
        let (id, path) = location.key();
        let (key, before) = ((id, path.to_vec()), State::of(&location, now));
        if let Some(before) = &before
            && let Some(counted) = self.0.lock().get(&key).filter(|counted| counted.state == *before)
        {
            return Ok(counted.count);
        }
        let maildrop = Maildrop::open_without_lock(location.clone())?;
        let count = Count { messages: maildrop.count(), octets: maildrop.octets() };
        let unchanged = before.filter(|before| State::of(&location, now).as_ref() == Some(before));
        let mut counts = self.0.lock();
        match unchanged {
            Some(state) => {
                if counts.len() >= MOST && !counts.contains_key(&key) {
                    counts.clear();
                }
                counts.insert(key, Counted { state, count });
            }
            None => drop(counts.remove(&key)),
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, FileTimes};
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::time::{Duration, Instant, SystemTime};

    use super::*;
    use crate::maildrop::{Deletes, Holder, LayoutChoice, MailRoot, MessageNumber};
    use crate::net::Origin;

    /// Ana's Maildir has one message. The server writes nothing there, as that would be a change, too.
    fn mail() -> (tempfile::TempDir, Location) {
        let directory = tempfile::tempdir().unwrap();
        for folder in ["ana/new", "ana/cur"] {
            fs::create_dir_all(directory.path().join(folder)).unwrap();
        }
        fs::write(directory.path().join("ana/new/1"), "one\r\n").unwrap();
        let location = location(directory.path(), LayoutChoice::default());
        (directory, location)
    }

    fn location(root: &Path, choice: LayoutChoice) -> Location {
        location_with(root, Layouts::new(choice).read_only())
    }

    fn location_with(root: &Path, layouts: Layouts) -> Location {
        MailRoot::with_layouts(root.to_owned(), Arc::new(layouts)).unwrap().location("ana".parse().unwrap()).unwrap()
    }

    /// What is counted an hour later, when all changes are old.
    fn later(counts: &Counts, location: &Location) -> (usize, u64) {
        let Count { messages, octets } = counts.of_at(location, nanoseconds_since_1970() + 3_600_000_000_000).unwrap();
        (messages, octets)
    }

    #[test]
    fn an_unchanged_maildir_is_not_listed_again() {
        let (directory, location) = mail();
        let counts = Counts::default();
        assert_eq!(counts.of(&location).unwrap(), Count { messages: 1, octets: 5 });
        assert!(counts.0.lock().is_empty(), "it has changed too recently");
        assert_eq!(later(&counts, &location), (1, 5));
        // No mail program writes to a message in a Maildir. Here it shows that nothing is read.
        fs::write(directory.path().join("ana/new/1"), "longer\r\n").unwrap();
        assert_eq!(later(&counts, &location), (1, 5));
        assert_eq!(counts.of(&location).unwrap(), Count { messages: 1, octets: 8 });
    }

    #[test]
    fn a_change_is_seen_at_once() {
        let (directory, location) = mail();
        let counts = Counts::default();
        assert_eq!(later(&counts, &location), (1, 5));
        for (count, name) in [(2, "cur/2:2,S"), (3, "new/3")] {
            let path = directory.path().join("ana").join(name);
            fs::write(&path, "one\r\n").unwrap();
            // The change may have the same time as the one before, so it gets another.
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(count);
            let times = FileTimes::new().set_modified(time);
            File::open(path.parent().unwrap()).unwrap().set_times(times).unwrap();
            assert_eq!(later(&counts, &location), (usize::try_from(count).unwrap(), 5 * count));
        }
        fs::remove_dir_all(directory.path().join("ana")).unwrap();
        assert_eq!(later(&counts, &location), (0, 0));
        assert!(counts.0.lock().is_empty());
    }

    #[test]
    fn hidden_messages_are_not_counted() {
        let (directory, _) = mail();
        let layouts = Layouts::new(LayoutChoice::default()).with_deletes(Deletes::Hide);
        let location = location_with(directory.path(), layouts);
        fs::write(directory.path().join("ana/new/2"), "two\r\n").unwrap();
        let origin = Origin::Address((Ipv4Addr::LOCALHOST, 1).into());
        let holder = Holder { session: Some(17), origin, since: Instant::now() };
        let counts = Counts::default();
        assert_eq!(later(&counts, &location), (2, 10));
        for left in [(1, 5), (0, 0)] {
            let mut session = Maildrop::open(location.clone()).unwrap();
            assert!(session.mark(MessageNumber::new(1).unwrap()));
            assert_eq!(session.commit(Some(&holder)).removed, 1);
            assert_eq!(later(&counts, &location), left);
        }
    }

    #[test]
    fn a_maildrop_of_another_layout_is_counted_again() {
        let (directory, location) = mail();
        let counts = Counts::default();
        assert_eq!(later(&counts, &location), (1, 5));
        assert_eq!(later(&counts, &self::location(directory.path(), LayoutChoice::Flat)), (0, 0));
        assert_eq!(later(&counts, &location), (1, 5));
    }
}
