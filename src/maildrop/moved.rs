//! Finds messages of a Maildir again that were moved during a session. Mail programs move messages from `new/` to
//! `cur/`, and rename them there when their flags change.
//!
//! A listing may miss a file that is renamed while the directory is read. So a message counts as removed only if it is
//! missing from a listing during which no file was renamed.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::identity::{Stamp, is_settled, nanoseconds_since_1970};
use super::location::Location;
use super::scan::{Folders, Listed};

/// How long messages are looked for while other programs keep renaming files. The client waits for the answer
/// meanwhile, and most clients give up after a minute.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// The pause between two listings. It leaves the processor to the programs that rename the files.
const PAUSE: Duration = Duration::from_millis(1);

/// The time that has to pass until a directory's next change gets a different time stamp. Linux takes time stamps from
/// a clock that ticks every 1 to 10 ms. Some file systems keep whole seconds only, and FAT steps of two seconds.
const TICK: Duration = Duration::from_millis(20);
const COARSE_TICK: Duration = Duration::from_secs(2);

/// The files of a maildrop as they were listed during a session.
pub(super) struct Listing {
    folders: Folders,
    /// In the order of their base names.
    files: Vec<Listed>,
    /// True if nothing was renamed while the files were listed.
    pub(super) at_rest: bool,
}

impl Listing {
    /// The files with a base name. Usually it is one; there are several if messages share the base name or if a file
    /// has several links.
    pub(super) fn of(&self, base: &[u8]) -> &[Listed] {
        let start = self.files.partition_point(|file| file.path.base() < base);
        let count = self.files[start..].iter().take_while(|file| file.path.base() == base).count();
        &self.files[start..start + count]
    }

    /// The directory that a listed file is in.
    pub(super) fn directory(&self, file: &Listed) -> Option<&Directory> {
        self.folders.directory(file.path.folder)
    }
}

/// Lists a maildrop repeatedly, until the caller has found its messages or the time limit is reached.
pub(super) struct Search<'a> {
    location: &'a Location,
    deadline: Instant,
    pause: Duration,
    /// The directories' time stamps, if the last listing did not change them, and when they were first seen.
    unchanged: Option<(Vec<Stamp>, Instant)>,
}

impl<'a> Search<'a> {
    pub(super) fn new(location: &'a Location) -> Self {
        Self { location, deadline: Instant::now() + TIME_LIMIT, pause: Duration::ZERO, unchanged: None }
    }

    /// Lists the maildrop's files. Returns `None` when the time limit is reached, but never for the first call.
    pub(super) fn list(&mut self) -> io::Result<Option<Listing>> {
        if Instant::now() + self.pause > self.deadline {
            return Ok(None);
        }
        thread::sleep(self.pause);
        let folders = Folders::open(self.location)?;
        let (before, now) = (folders.times()?, Instant::now());
        let since = match self.unchanged.take() {
            Some((times, since)) if times == before => since,
            _ => now,
        };
        let mut files = folders.listed()?;
        files.sort_by(|a, b| a.path.base().cmp(b.path.base()));
        let undisturbed = folders.times()? == before;
        let at_rest = undisturbed && is_conclusive(&before, now - since);
        self.pause = if undisturbed { tick(&before) } else { PAUSE };
        self.unchanged = undisturbed.then_some((before, since));
        Ok(Some(Listing { folders, files, at_rest }))
    }
}

/// Returns true if directories that had these time stamps before and after a listing were certainly not changed during
/// it. A change would have given them another time stamp, because their last change was at least `ago` before the
/// listing began.
///
/// `ago` is measured by this machine's monotonic clock, because the clock of a file server may be wrong. The time
/// stamps alone are trusted only if they are old.
fn is_conclusive(times: &[Stamp], ago: Duration) -> bool {
    let now = nanoseconds_since_1970();
    ago >= tick(times) || times.iter().all(|stamp| is_settled(stamp.changed, now))
}

fn tick(times: &[Stamp]) -> Duration {
    let is_coarse = |stamp: &Stamp| stamp.changed % 1_000_000_000 == 0;
    if times.iter().any(is_coarse) { COARSE_TICK } else { TICK }
}
