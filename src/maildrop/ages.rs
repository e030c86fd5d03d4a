//! When the messages of a maildrop arrived and when they were first retrieved, for `--expire-read` and `--expire-all`, and for
//! reports of who fetched what (`--state`).
//!
//! This is kept in a dot-file beside the index, by unique-id, so it is still true if the index is lost or the maildrop has
//! moved to another host. If the file is lost, messages are kept longer, and never shorter:
//!
//! ```text
//! pop3d ages 1
//! r 1795831201 1700000005.M1P1.host 01ab89ef      first retrieved then
//! a 1795830000 1700000005.M1P1.host 9c0d1e2f      there since then, or longer
//! h 1795831202 1700000005.M1P1.host 5e6f7a8b      hidden from POP3 since then
//! s 1795831202 17@192.0.2.4 1a2b3c4d              the session that has hidden messages then, and its client's address
//! ```
//!
//! Times are in seconds since 1970. At the end of a line is the CRC-32 of what precedes it. Sessions append lines. A sweep
//! writes the file again without the messages that are gone, and so does a session if the file has become long.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;

use super::is_missing;
use super::location::{Location, OwnFiles};
use super::message::Folder;
use super::root;
use super::trash::Batch;
use crate::clock::seconds_since_1970;

/// The name of the file, and that under which a new one is written.
const FILE: &str = "ages";

const VERSION: &[u8] = b"pop3d ages 1\n";

/// A clock that says an earlier time is wrong: this is the year 2026. Such times are not noted.
const EARLIEST: u64 = 1_767_225_600;

/// How many more messages than are there are remembered after they are gone.
const MANY: usize = 1000;

/// What follows if the file cannot be read or written.
const LOST: &str = "messages count as not retrieved, and are kept longer";

/// What is known of a message, in seconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Age {
    /// A time at which the message was there already.
    pub(super) arrived: Option<u64>,
    /// When it was first retrieved as a whole.
    pub(super) read: Option<u64>,
    /// When it was hidden.
    pub(super) hidden: Option<u64>,
}

/// What is known of a maildrop's messages, by unique-id.
#[derive(Debug, Default)]
pub(super) struct Ages {
    by_id: HashMap<Vec<u8>, Age>,
    /// The sessions that have hidden messages, by the time. A session takes a later second if another one has its own.
    sessions: BTreeMap<u64, Batch>,
    /// How many lines the file has.
    lines: usize,
}

/// The present time in seconds since 1970; `None` if the clock is wrong.
pub(super) fn now() -> Option<u64> {
    let now = seconds_since_1970();
    (now >= EARLIEST).then_some(now)
}

pub(super) fn files(location: &Location, folder: Folder) -> OwnFiles<'_> {
    location.own_files(if folder == Folder::Mbox { folder } else { Folder::Top })
}

/// Notes that messages were retrieved now. `folder` is one that the maildrop has, and `there` are all of its messages, `count`
/// in number. If the file has become much longer than that, it is written again without those that are gone. `text` is what was
/// read from it shortly before.
pub(super) fn note_read<'a>(
    location: &Location,
    folder: Folder,
    text: Option<Vec<u8>>,
    ids: impl Iterator<Item = Cow<'a, [u8]>>,
    count: usize,
    there: impl FnOnce() -> HashSet<Vec<u8>>,
) {
    let Some(now) = now() else { return };
    let files = files(location, folder);
    let text = text.unwrap_or_else(|| read(location, folder));
    let known = Retrieved::of(&text);
    let (mut lines, mut noted) = (Vec::new(), 0);
    for id in ids.filter(|id| !known.ids.contains(&**id)) {
        put(&mut lines, b'r', now, &id);
        noted += 1;
    }
    if noted == 0 {
        return;
    }
    if known.lines + noted > 2 * count + MANY {
        // A session that shares the maildrop may have written meanwhile.
        let mut known = Ages::load(location, folder);
        lines.split_inclusive(|&octet| octet == b'\n').for_each(|line| known.take(line));
        known.save(location, folder, &there(), true);
    } else if let Err(error) = files.append(location.root(), FILE, VERSION, &lines) {
        log::warn!("{} cannot be written, so {LOST}: {error}", root::display(&files.path(FILE)));
    }
}

/// How many of these messages no session has ever retrieved as a whole, according to the `text` of the file.
pub(super) fn count_never_retrieved<'a>(text: &[u8], ids: impl Iterator<Item = Cow<'a, [u8]>>) -> usize {
    let known = Retrieved::of(text);
    ids.filter(|id| !known.ids.contains(&**id)).count()
}

/// The messages that were retrieved. Each session with a maildrop of thousands of messages looks at them, so nothing is copied.
#[derive(Debug, Default)]
struct Retrieved<'a> {
    ids: HashSet<&'a [u8]>,
    /// How many lines the file has.
    lines: usize,
}

impl<'a> Retrieved<'a> {
    fn of(text: &'a [u8]) -> Self {
        let mut found = Self::default();
        for line in lines(text) {
            found.lines += 1;
            if let Some((b'r', _, id)) = parse_line(line) {
                found.ids.insert(id);
            }
        }
        found
    }
}

/// Reads the file. If there is none, it is as if it were empty.
pub(super) fn read(location: &Location, folder: Folder) -> Vec<u8> {
    let files = files(location, folder);
    files.read(location.root(), FILE).unwrap_or_else(|error| {
        if !is_missing(&error) {
            log::warn!("{} cannot be read, so {LOST}: {error}", root::display(&files.path(FILE)));
        }
        Vec::new()
    })
}

/// The lines about messages, with their line ends.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.strip_prefix(VERSION).unwrap_or_default().split_inclusive(|&octet| octet == b'\n')
}

/// Notes that a session has hidden messages.
///
/// # Errors
/// If that cannot be written.
pub(super) fn note_hidden<'a>(
    location: &Location,
    folder: Folder,
    ids: impl Iterator<Item = Cow<'a, [u8]>>,
    session: Batch,
) -> io::Result<()> {
    let known = Ages::load(location, folder);
    let mut session = Batch { time: session.time.max(EARLIEST), ..session };
    while known.sessions.contains_key(&session.time) {
        session.time += 1;
    }
    let mut lines = Vec::new();
    put(&mut lines, b's', session.time, session.without_time().as_bytes());
    ids.for_each(|id| put(&mut lines, b'h', session.time, &id));
    files(location, folder).append(location.root(), FILE, VERSION, &lines)
}

fn put(lines: &mut Vec<u8>, kind: u8, time: u64, id: &[u8]) {
    let line = [&[kind], format!(" {time} ").as_bytes(), id].concat();
    let checksum = crc32fast::hash(&line);
    lines.extend_from_slice(&line);
    lines.extend_from_slice(format!(" {checksum:08x}\n").as_bytes());
}

impl Ages {
    /// Reads what is known.
    pub(super) fn load(location: &Location, folder: Folder) -> Self {
        Self::parse(&read(location, folder))
    }

    /// Lines that are damaged or incomplete are left out.
    fn parse(text: &[u8]) -> Self {
        let mut ages = Self::default();
        lines(text).for_each(|line| ages.take(line));
        ages
    }

    fn take(&mut self, line: &[u8]) {
        self.lines += 1;
        let Some((kind, time, id)) = parse_line(line) else { return };
        if kind == b's' {
            self.sessions.extend(Batch::at(time, id).map(|session| (time, session)));
            return;
        }
        let age = self.by_id.entry(id.to_vec()).or_default();
        let slot = match kind {
            b'r' => &mut age.read,
            b'a' => &mut age.arrived,
            _ => &mut age.hidden,
        };
        *slot = Some(slot.map_or(time, |other| other.min(time)));
    }

    pub(super) fn of(&self, id: &[u8]) -> Age {
        self.by_id.get(id).copied().unwrap_or_default()
    }

    /// The session that has hidden messages at this time.
    pub(super) fn session(&self, time: u64) -> Batch {
        self.sessions.get(&time).cloned().unwrap_or_else(|| Batch::unknown(time))
    }

    /// Forgets that messages are hidden, if the sessions that have hidden them are `meant`.
    ///
    /// # Errors
    /// If that cannot be written.
    pub(super) fn show(
        mut self,
        location: &Location,
        folder: Folder,
        meant: impl Fn(&Batch) -> bool,
    ) -> io::Result<()> {
        let hidden = self.by_id.values().filter_map(|age| age.hidden);
        let shown: BTreeSet<u64> = hidden.filter(|&time| meant(&self.session(time))).collect();
        if shown.is_empty() {
            return Ok(());
        }
        for age in self.by_id.values_mut() {
            age.hidden = age.hidden.filter(|time| !shown.contains(time));
        }
        files(location, folder).replace(location.root(), FILE, &self.text(|_, _| true).0)
    }

    /// Forgets hidden messages that are not there any more, if they are many.
    pub(super) fn forget_hidden(&mut self, location: &Location, folder: Folder, there: &HashSet<Vec<u8>>) {
        let is_gone = |(id, age): &(&Vec<u8>, &Age)| age.hidden.is_some() && !there.contains(*id);
        if self.by_id.iter().filter(is_gone).count() > there.len() + MANY {
            self.by_id.retain(|id, _| there.contains(id));
            self.save(location, folder, there, true);
        }
    }

    /// Notes a time at which a message was there, if no earlier one is known.
    pub(super) fn note_arrival(&mut self, id: &[u8], time: u64) -> bool {
        let age = self.by_id.entry(id.to_vec()).or_default();
        let is_new = age.arrived.is_none_or(|arrived| time < arrived);
        if is_new {
            age.arrived = Some(time);
        }
        is_new
    }

    /// Writes the file again with the messages that are `there`, if that makes a difference.
    pub(super) fn save(&self, location: &Location, folder: Folder, there: &HashSet<Vec<u8>>, is_changed: bool) {
        // Hidden messages are not listed.
        let (text, lines) = self.text(|id, age| there.contains(id) || age.hidden.is_some());
        if !is_changed && lines == self.lines {
            return;
        }
        let files = files(location, folder);
        if let Err(error) = files.replace(location.root(), FILE, &text) {
            log::warn!("{} cannot be written, so {LOST}: {error}", root::display(&files.path(FILE)));
        }
    }

    /// The text of a file with the messages that are `kept`, and the number of its lines.
    fn text(&self, kept: impl Fn(&[u8], &Age) -> bool) -> (Vec<u8>, usize) {
        let (mut text, mut lines) = (VERSION.to_vec(), 0);
        let mut sessions = BTreeMap::new();
        for (id, age) in self.by_id.iter().filter(|(id, age)| kept(id, age)) {
            for (kind, time) in [(b'r', age.read), (b'a', age.arrived), (b'h', age.hidden)] {
                if let Some(time) = time {
                    put(&mut text, kind, time, id);
                    lines += 1;
                }
            }
            sessions.extend(age.hidden.and_then(|time| self.sessions.get_key_value(&time)));
        }
        for (&&time, session) in &sessions {
            put(&mut text, b's', time, session.without_time().as_bytes());
        }
        (text, lines + sessions.len())
    }
}

fn parse_line(line: &[u8]) -> Option<(u8, u64, &[u8])> {
    let line = line.strip_suffix(b"\n")?;
    let end = memchr::memrchr(b' ', line)?;
    let (line, checksum) = (&line[..end], &line[end + 1..]);
    // All of its digits are there, so it was not cut off.
    let checksum = std::str::from_utf8(checksum).ok().filter(|digits| digits.len() == 8)?;
    if u32::from_str_radix(checksum, 16) != Ok(crc32fast::hash(line)) {
        return None;
    }
    let mut fields = line.split(|&octet| octet == b' ');
    let (kind, time, id) = (fields.next()?, fields.next()?, fields.next()?);
    let time = std::str::from_utf8(time).ok()?.parse().ok().filter(|&time| time >= EARLIEST)?;
    (fields.next().is_none() && matches!(kind, b"r" | b"a" | b"h" | b"s")).then_some((kind[0], time, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_831_201;

    fn text(lines: &[(u8, u64, &str)]) -> Vec<u8> {
        let mut text = VERSION.to_vec();
        lines.iter().for_each(|&(kind, time, id)| put(&mut text, kind, time, id.as_bytes()));
        text
    }

    #[test]
    fn the_earliest_time_counts() {
        let ages =
            Ages::parse(&text(&[(b'r', NOW, "x"), (b'r', NOW - 9, "x"), (b'r', NOW + 9, "x"), (b'a', NOW, "y")]));
        assert_eq!(ages.of(b"x"), Age { read: Some(NOW - 9), ..Age::default() });
        assert_eq!(ages.of(b"y"), Age { arrived: Some(NOW), ..Age::default() });
        assert_eq!(ages.of(b"z"), Age::default());
    }

    /// A damaged line never makes a message older. Each single octet is changed or cut off.
    #[test]
    fn damage_makes_no_message_older() {
        let good = text(&[(b'r', NOW, "x"), (b'a', NOW, "y")]);
        let is_no_older = |ages: &Ages| {
            ages.by_id.values().all(|age| age.read.is_none_or(|it| it >= NOW) && age.arrived.is_none_or(|it| it >= NOW))
        };
        for at in 0..good.len() {
            for other in 0..=255 {
                let mut text = good.clone();
                text[at] = other;
                assert!(is_no_older(&Ages::parse(&text)), "{at} {other}");
            }
            let cut = [&good[..at], &text(&[(b'r', NOW, "z")])[VERSION.len()..]].concat();
            assert!(is_no_older(&Ages::parse(&cut)), "{at}");
        }
        assert_eq!(Ages::parse(&text(&[(b'r', 5, "x")])).of(b"x"), Age::default(), "the clock was wrong");
    }
}
