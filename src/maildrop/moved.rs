//! Finding a Maildir's messages again during a session: mail programs move them from `new/` to `cur/`, and rename them
//! there when their flags change.
//!
//! A listing may miss a file that is renamed while the directory is read. A message therefore counts as gone only when a
//! listing during which nothing was renamed does not have it.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::message::Message;
use super::root::{Directory, Root, Stamp, is_settled};
use super::scan::{Folders, Listed, nanoseconds_since_1970};
use super::{Maildrop, MessageNumber, OpenError, OpenMessage, is_missing};

/// How long messages are looked for among files that other programs rename without a pause. A client waits for the
/// answer, and most give up after a minute.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Between two listings, so that looking for messages does not keep a core from those who rename them.
const PAUSE: Duration = Duration::from_millis(1);

/// The time that has to pass until a directory's next change has another time. Linux takes the time of files from a
/// clock that ticks every 1 to 10 ms. File systems that keep whole seconds go by steps of one second or, as FAT does, two.
const TICK: Duration = Duration::from_millis(20);
const COARSE_TICK: Duration = Duration::from_secs(2);

/// The files of a maildrop as they were listed during a session.
pub(super) struct Listing<'a> {
    folders: Folders<'a>,
    /// In the order of their base names.
    files: Vec<Listed>,
    /// Nothing was renamed while they were listed.
    pub(super) at_rest: bool,
}

impl Listing<'_> {
    /// The files with a base name: usually one, several if messages share it or if a file has several links.
    pub(super) fn of(&self, base: &[u8]) -> &[Listed] {
        let start = self.files.partition_point(|file| file.place.base() < base);
        let count = self.files[start..].iter().take_while(|file| file.place.base() == base).count();
        &self.files[start..start + count]
    }

    /// The directory that a listed file is in.
    pub(super) fn directory(&self, file: &Listed) -> Option<&Directory> {
        self.folders.directory(file.place.folder)
    }
}

/// Lists a maildrop again and again, within the time limit, until its user has found what it looks for.
pub(super) struct Search<'a> {
    root: &'a Root,
    user: &'a str,
    deadline: Instant,
    pause: Duration,
    /// The directories' times, if they were the same before and after the last listing, and when they were first seen.
    unchanged: Option<(Vec<Stamp>, Instant)>,
}

impl<'a> Search<'a> {
    pub(super) fn new(root: &'a Root, user: &'a str) -> Self {
        Self { root, user, deadline: Instant::now() + TIME_LIMIT, pause: Duration::ZERO, unchanged: None }
    }

    /// The maildrop's files as they are now. `None` when the time is over; the first call always lists them.
    pub(super) fn list(&mut self) -> io::Result<Option<Listing<'a>>> {
        if Instant::now() + self.pause > self.deadline {
            return Ok(None);
        }
        thread::sleep(self.pause);
        let folders = Folders::open(self.root, self.user)?;
        let (before, now) = (folders.times()?, Instant::now());
        let since = match self.unchanged.take() {
            Some((times, since)) if times == before => since,
            _ => now,
        };
        let mut files = folders.listed()?;
        files.sort_by(|a, b| a.place.base().cmp(b.place.base()));
        let undisturbed = folders.times()? == before;
        let at_rest = undisturbed && is_conclusive(&before, now - since);
        self.pause = if undisturbed { tick(&before) } else { PAUSE };
        self.unchanged = undisturbed.then_some((before, since));
        Ok(Some(Listing { folders, files, at_rest }))
    }
}

/// Whether directories that had these times before and after a listing cannot have been changed during it: a change would
/// have given them another time, because the last one was `ago` or longer before the listing began.
///
/// That is measured by this machine's monotonic clock, as the clock of a file server may be wrong. Only a directory that
/// seems to have been left alone for long is believed without that.
fn is_conclusive(times: &[Stamp], ago: Duration) -> bool {
    let now = nanoseconds_since_1970();
    ago >= tick(times) || times.iter().all(|stamp| is_settled(stamp.changed, now))
}

fn tick(times: &[Stamp]) -> Duration {
    let is_coarse = |stamp: &Stamp| stamp.changed % 1_000_000_000 == 0;
    if times.iter().any(is_coarse) { COARSE_TICK } else { TICK }
}

impl Maildrop {
    /// Opens a message of a Maildir that is not where it was, wherever it is now.
    pub(super) fn open_moved(&mut self, number: MessageNumber) -> Result<OpenMessage, OpenError> {
        let (root, user) = (self.root.clone(), self.user.clone());
        let mut search = Search::new(&root, user.as_str());
        loop {
            let Some(listing) = search.list().map_err(OpenError::Io)? else { return self.open_here(number) };
            let is_listed = self.follow(number.index(), &listing);
            match self.open_here(number) {
                Err(OpenError::Changed) if !listing.at_rest => {}
                // It was renamed again after it was listed, or during that.
                Err(OpenError::Io(error)) if is_missing(&error) && (is_listed || !listing.at_rest) => {}
                Ok(opened) => {
                    // A program that moves one message moves others too.
                    for index in 0..self.messages.len() {
                        self.follow(index, &listing);
                    }
                    return Ok(opened);
                }
                result => return result,
            }
        }
    }

    /// Notes where a message is now. False when the listing does not have it.
    fn follow(&mut self, index: usize, listing: &Listing<'_>) -> bool {
        let Message { place, content, .. } = &self.messages[index];
        let found = match listing.of(place.base()) {
            [only] => Some(only),
            several => several.iter().find(|file| file.inode == content.identity.inode),
        };
        if let Some(file) = found {
            self.messages[index].place = file.place.clone();
        }
        found.is_some()
    }
}
