//! Lists the messages of an mbox: those that are known already, and those that were appended since.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::Section;
use super::parse::{self, Parsed};
use crate::maildrop::identity::{Identity, is_settled, nanoseconds_since_1970};
use crate::maildrop::message::Message;
use crate::maildrop::names::Names;

/// How many octets of the end and of the beginning are compared to see that an mbox has only been appended to.
const COMPARED: u64 = 4096;

/// How many known messages are looked for in the file for the same purpose.
const SAMPLE: usize = 32;

/// The state of an mbox when it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::maildrop) struct FileState {
    pub(in crate::maildrop) inode: u64,
    pub(in crate::maildrop) size: u64,
    pub(in crate::maildrop) modified: i64,
    pub(in crate::maildrop) changed: i64,
    /// A hash of the beginning and of the end of what was read.
    pub(in crate::maildrop) check: u64,
    /// 0 if the file was written to so shortly before it was read that a later change may have the same times, else 1.
    pub(in crate::maildrop) settled: u64,
}

impl FileState {
    /// The state of a file that is locked and has been read to its end.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        let (size, modified) = (metadata.size(), nanoseconds(metadata.mtime(), metadata.mtime_nsec()));
        let changed = nanoseconds(metadata.ctime(), metadata.ctime_nsec());
        let now = nanoseconds_since_1970();
        let settled = u64::from(is_settled(modified, now) && is_settled(changed, now));
        Ok(Self { inode: metadata.ino(), size, modified, changed, check: check(file, size)?, settled })
    }

    /// Returns true if a file with this identity has certainly not been written to since.
    pub(super) fn is_exactly(&self, identity: &Identity) -> bool {
        let Identity { inode, size, modified, changed } = *identity;
        (self.inode, self.size, self.modified, self.changed) == (inode, size, modified, changed)
    }

    fn has_times_of(&self, other: &Self) -> bool {
        (self.modified, self.changed) == (other.modified, other.changed)
    }
}

/// A hash of the beginning and of the end of the first `size` octets.
fn check(file: &File, size: u64) -> io::Result<u64> {
    let length = usize::try_from(size.min(COMPARED)).unwrap_or(0);
    let mut octets = vec![0; 2 * length];
    let (beginning, end) = octets.split_at_mut(length);
    file.read_exact_at(beginning, 0)?;
    file.read_exact_at(end, size - length as u64)?;
    Ok(u64::from(crc32fast::hash(beginning)) << 32 | u64::from(crc32fast::hash(end)))
}

/// The messages of an mbox.
#[derive(Debug, Default)]
pub(super) struct Listing<'a> {
    pub(super) messages: Cow<'a, [Message]>,
    /// The state of the file when they were read.
    pub(super) state: FileState,
    /// How many octets were read behind the known messages. `None` if all of the file was read.
    pub(super) appended: Option<u64>,
}

impl<'a> Listing<'a> {
    /// Lists the messages of a locked file. `known` are those that it had in a `state`; without a state only their
    /// unique-ids are used.
    pub(super) fn read(file: &File, known: Cow<'a, [Message]>, state: Option<FileState>) -> io::Result<Self> {
        let now = FileState::of(file)?;
        if let Some(state) = state.filter(|state| state.inode == now.inode && is_in_order(&known, state.size)) {
            let is_same = now.size == state.size && now.check == state.check;
            let is_certain = now.has_times_of(&state) && state.settled == 1;
            // A file that was written to just before it was read may have changed since, but most often has not.
            if is_same && (is_certain || state.settled == 0 && is_appended_to(file, &known, &state)?) {
                return Ok(Self { messages: known, state: now, appended: Some(0) });
            }
            if now.size > state.size && is_appended_to(file, &known, &state)? {
                return Self::read_appended(file, known, &state, now);
            }
        }
        let mut found = Vec::new();
        parse::parse(file, 0, now.size, &mut |message| found.push(message))?;
        Ok(Self { messages: named(&found, &[], &known).into(), state: now, appended: None })
    }

    /// Reads what was appended behind the known messages.
    fn read_appended(file: &File, known: Cow<'a, [Message]>, state: &FileState, now: FileState) -> io::Result<Self> {
        let (kept, from) = match new_message_at(file, state.size, now.size)? {
            Some(from) => (known.len(), from),
            // The last message has grown: it was still being delivered.
            None => known.split_last().map_or((0, 0), |(last, kept)| (kept.len(), Section::of(last).from)),
        };
        let mut found = Vec::new();
        parse::parse(file, from, now.size, &mut |message| found.push(message))?;
        let new = named(&found, &known[..kept], &known[kept..]);
        let mut messages = known.into_owned();
        messages.truncate(kept);
        messages.extend(new);
        Ok(Self { messages: messages.into(), state: now, appended: Some(now.size - from) })
    }

    /// Where the next message begins, or the file ends.
    pub(super) fn end_of(&self, index: usize) -> u64 {
        self.messages.get(index + 1).map_or(self.state.size, |next| Section::of(next).from)
    }

    /// Returns true if the messages that are due are where they are listed, with their neighbours' `From ` lines around them.
    pub(super) fn confirm(&self, file: &File, due: &[bool]) -> io::Result<bool> {
        for (index, message) in self.messages.iter().enumerate().filter(|&(index, _)| due[index]) {
            let section = Section::of(message);
            let end = self.end_of(index);
            let mut found = Vec::new();
            let parsed = parse::parse(file, section.from, end, &mut |message| found.push(message));
            let is_there = matches!(&found[..], [only] if check_of(only) == section.check && only.start == section.start
                && only.end == section.end());
            let is_followed = end == self.state.size || begins_message(file, end)?;
            if parsed.is_err() || !is_there || !is_followed {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The messages that stay when those that are due are removed, with their new sections.
    pub(super) fn without(&self, due: &[bool]) -> impl Iterator<Item = Message> + Clone {
        let mut removed = 0;
        self.messages.iter().enumerate().filter_map(move |(index, message)| {
            let section = Section::of(message);
            if due[index] {
                removed += self.end_of(index) - section.from;
                return None;
            }
            let moved = Section { from: section.from - removed, start: section.start - removed, ..section };
            let mut message = message.clone();
            message.content.identity = moved.identity();
            Some(message)
        })
    }
}

/// Returns true if known messages lie one behind the other in a file of this size. An index may have been forged.
fn is_in_order(known: &[Message], size: u64) -> bool {
    let mut end = 0;
    known.iter().all(|message| {
        let section = Section::of(message);
        let in_order = end <= section.from && section.from < section.start && section.end() <= size;
        end = section.end();
        in_order
    })
}

/// Returns true if an mbox still begins with what it had in `state`.
fn is_appended_to(file: &File, known: &[Message], state: &FileState) -> io::Result<bool> {
    if check(file, state.size)? != state.check {
        return Ok(false);
    }
    for message in known.iter().step_by(known.len().div_ceil(SAMPLE).max(1)) {
        if !begins_message(file, Section::of(message).from)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns true if a `From ` line begins at an offset, at the beginning of the file or behind an empty line.
fn begins_message(file: &File, at: u64) -> io::Result<bool> {
    let before = at.min(3);
    let mut octets = [0; 8];
    let octets = &mut octets[..usize::try_from(before).unwrap_or(0) + 5];
    match file.read_exact_at(octets, at - before) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        result => result?,
    }
    let (before, line) = octets.split_at(octets.len() - 5);
    Ok(line == b"From " && is_after_empty_line(before))
}

/// Returns true if text, of which the last 3 octets are given, ends in an empty line or is none.
fn is_after_empty_line(end: &[u8]) -> bool {
    matches!(end, b"" | b"\n" | b"\r\n" | [.., b'\n', b'\n'] | [.., b'\n', b'\r', b'\n'])
}

/// Where a new message begins behind the first `size` octets, if the new text begins with one. The program that appends it
/// may have put an empty line in front of it.
fn new_message_at(file: &File, size: u64, end: u64) -> io::Result<Option<u64>> {
    for empty in 0..=2 {
        if size + empty < end && begins_message(file, size + empty)? {
            return Ok(Some(size + empty));
        }
    }
    Ok(None)
}

pub(super) fn check_of(message: &Parsed) -> i64 {
    ((message.hash >> 64) as u64).cast_signed()
}

/// Gives parsed messages their unique-ids. `before` are messages in front of them, and `known` those that may be among them:
/// a message keeps the unique-id that it has there.
///
/// The unique-id is the hash of the content, with a counter if other messages have had the same.
fn named(parsed: &[Parsed], before: &[Message], known: &[Message]) -> Vec<Message> {
    // Only the first message of a file can be one that an IMAP server keeps data in.
    let is_internal = |index: usize, message: &Parsed| index == 0 && before.is_empty() && message.is_internal;
    let listed = || parsed.iter().enumerate().filter(|&(index, it)| !is_internal(index, it)).map(|(_, it)| it);
    let hashes: Vec<_> = listed().map(|message| format!("{:032x}", message.hash).into_bytes()).collect();
    // Few messages are appended to many, so only the unique-ids with their hashes are kept here.
    let mut highest: HashMap<&[u8], u64> = hashes.iter().map(|hash| (&hash[..], 0)).collect();
    let mut known_ids: HashMap<i64, VecDeque<&[u8]>> = HashMap::new();
    for (message, is_known) in before.iter().map(|it| (it, false)).chain(known.iter().map(|it| (it, true))) {
        let (hash, counter) = split_counter(&message.path.name);
        let Some(highest) = highest.get_mut(hash) else { continue };
        *highest = counter.max(*highest);
        if is_known {
            known_ids.entry(message.content.identity.changed).or_default().push_back(&message.path.name);
        }
    }
    let mut ids = Vec::with_capacity(hashes.len() * 32);
    let mut lengths = Vec::with_capacity(hashes.len());
    for (message, hash) in listed().zip(&hashes) {
        let kept = known_ids.get_mut(&check_of(message)).and_then(|ids| {
            let at = ids.iter().position(|id| split_counter(id).0 == hash)?;
            ids.remove(at)
        });
        let start = ids.len();
        match kept {
            Some(id) => ids.extend_from_slice(id),
            None => {
                let counter = highest.entry(hash).or_default();
                *counter += 1;
                ids.extend_from_slice(hash);
                if *counter > 1 {
                    ids.extend_from_slice(format!("-{counter}").as_bytes());
                }
            }
        }
        lengths.push(ids.len() - start);
    }
    let mut names = Names::new(ids);
    let sections = listed().zip(lengths).map(|(message, length)| {
        let Parsed { from, start, end, octets, .. } = *message;
        let section = Section { from, start, length: end - start, check: check_of(message) };
        Some(section.message(names.next(length)?, octets))
    });
    sections.collect::<Option<_>>().unwrap_or_default()
}

/// Returns true if a message may have this unique-id, whatever its counter.
pub(super) fn is_unique_id_of(id: &[u8], message: &Parsed) -> bool {
    split_counter(id).0 == format!("{:032x}", message.hash).as_bytes()
}

/// The hash in a unique-id and its counter.
fn split_counter(id: &[u8]) -> (&[u8], u64) {
    let Some(at) = memchr::memrchr(b'-', id) else { return (id, 1) };
    let counter = std::str::from_utf8(&id[at + 1..]).ok().and_then(|digits| digits.parse().ok());
    counter.map_or((id, 1), |counter| (&id[..at], counter))
}
