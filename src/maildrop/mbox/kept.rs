//! The messages that one session has removed from an mbox, in the session's directory in the trash. No other code knows
//! how they are stored there.
//!
//! They are in one file, which is written and synchronised with the disk once:
//!
//! ```text
//! pop3d removed 1
//! 395 0b7d…c2                 a message: its size here, and its unique-id
//! 1234 91aa…07-2
//!                             an empty line
//! From ana@example.com …      the messages as they were in the mbox, one behind the other
//! ```
//!
//! The file is on the disk before the mbox is changed. So if it is not complete, all its messages are still in the mbox.
//!
//! Earlier versions of the server wrote a file for each message, whose name is the unique-id. Its text is the message as it
//! was in the mbox. If the server was killed meanwhile, the last of these files may have only the beginning of its message.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::journal::note;
use super::list::{Listing, is_unique_id_of};
use super::parse::{self, Parsed};
use super::{Section, is_missing};
use crate::maildrop::directory::Directory;
use crate::maildrop::names::Name;
use crate::maildrop::trash::Bin;

/// The name of the file. It is hidden, as earlier versions of the server take every other file for a message.
const FILE: &[u8] = b".messages";

const VERSION: &[u8] = b"pop3d removed 1\n";

/// The longest line in front of the messages that is read.
const LONGEST_LINE: u64 = 1024;

/// Copies the messages that are due into the file.
pub(super) fn keep(bin: &Bin, mut mbox: &File, listing: &Listing<'_>, due: &[bool]) -> io::Result<()> {
    let mut text = VERSION.to_vec();
    let mut pieces: Vec<(u64, u64)> = Vec::new();
    for (index, message) in listing.messages.iter().enumerate().filter(|&(index, _)| due[index]) {
        let from = Section::of(message).from;
        let length = listing.end_of(index) - from;
        text.extend_from_slice(format!("{length} ").as_bytes());
        text.extend_from_slice(&message.path.name);
        text.push(b'\n');
        match pieces.last_mut() {
            Some((offset, before)) if *offset + *before == from => *before += length,
            _ => pieces.push((from, length)),
        }
    }
    text.push(b'\n');
    let mut file = bin.directory().create_like(FILE, mbox)?;
    note();
    file.write_all(&text)?;
    for (from, length) in pieces {
        note();
        mbox.seek(SeekFrom::Start(from))?;
        if io::copy(&mut mbox.take(length), &mut file)? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    file.sync_data()?;
    note();
    Ok(())
}

/// A message that is kept.
#[derive(Debug)]
pub(super) struct Removed {
    /// Its unique-id.
    pub(super) name: Name,
    /// Where it begins in the file of all messages. `None` if it has a file of its own.
    at: Option<u64>,
    /// How many octets it has.
    length: u64,
}

/// The messages of a session.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    bin: &'a Directory,
    /// The file that has all messages without a file of their own.
    file: Option<File>,
    pub(super) messages: Vec<Removed>,
}

impl<'a> Kept<'a> {
    /// Reads which messages there are. A file that is not complete has none.
    pub(super) fn open(bin: &'a Directory) -> io::Result<Self> {
        let mut messages = Vec::new();
        for (name, _) in bin.messages(|_| Ok(()))? {
            let length = bin.identity(&name)?.size;
            messages.push(Removed { name, at: None, length });
        }
        let file = match bin.file(FILE) {
            Ok((file, identity)) => {
                messages.extend(read(&file, identity.size)?);
                Some(file)
            }
            Err(error) if is_missing(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { bin, file, messages })
    }

    /// How many messages there are, and their octets.
    pub(super) fn sums(&self) -> (u64, u64) {
        (self.messages.len() as u64, self.messages.iter().map(|message| message.length).sum())
    }

    pub(super) fn find(&self, unique_id: &[u8]) -> Option<&Removed> {
        self.messages.iter().find(|message| *message.name == *unique_id)
    }

    /// Adds the octets of a message to `text`. Returns what they are, with offsets in `text`.
    ///
    /// # Errors
    /// Those of reading, and when the octets are not the whole message.
    pub(super) fn append_to(&self, text: &mut Vec<u8>, message: &Removed) -> io::Result<Parsed> {
        let own = if message.at.is_none() { Some(self.bin.file(&message.name)?.0) } else { None };
        let file = own.as_ref().or(self.file.as_ref()).ok_or(io::ErrorKind::NotFound)?;
        let at = message.at.unwrap_or(0);
        let mut found = Vec::new();
        parse::parse(file, at, at + message.length, &mut |message| found.push(message))?;
        let parsed = match found.pop() {
            Some(parsed) if found.is_empty() && is_unique_id_of(&message.name, &parsed) => parsed,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not complete")),
        };
        let start = text.len();
        text.resize(start + usize::try_from(message.length).map_err(io::Error::other)?, 0);
        file.read_exact_at(&mut text[start..], at)?;
        let moved = |offset: u64| offset - at + start as u64;
        let (from, end) = (moved(parsed.from), moved(parsed.end));
        Ok(Parsed { from, start: moved(parsed.start), end, ..parsed })
    }

    /// Removes the messages for good.
    pub(super) fn remove(self) -> io::Result<()> {
        for message in self.messages.iter().filter(|message| message.at.is_none()) {
            self.bin.unlink(&message.name)?;
            note();
        }
        if self.file.is_some() {
            self.bin.unlink(FILE)?;
            note();
        }
        Ok(())
    }
}

/// Reads which messages a file of this size has: none if it is not complete.
fn read(file: &File, size: u64) -> io::Result<Vec<Removed>> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut next = |line: &mut Vec<u8>| {
        line.clear();
        (&mut reader).take(LONGEST_LINE).read_until(b'\n', line)
    };
    let mut at = next(&mut line)? as u64;
    if line != VERSION {
        return Ok(Vec::new());
    }
    let mut messages = Vec::new();
    loop {
        at += next(&mut line)? as u64;
        if line == b"\n" {
            break;
        }
        let Some((length, name)) = parse_line(&line) else { return Ok(Vec::new()) };
        messages.push(Removed { name: Name::from(name), at: Some(0), length });
    }
    for message in &mut messages {
        message.at = Some(at);
        at = at.saturating_add(message.length);
    }
    Ok(if at == size { messages } else { Vec::new() })
}

/// The size and the unique-id of a message.
fn parse_line(line: &[u8]) -> Option<(u64, &[u8])> {
    let line = line.strip_suffix(b"\n")?;
    let (length, name) = line.split_at(memchr::memchr(b' ', line)?);
    let name = name.get(1..).filter(|name| !name.is_empty())?;
    Some((std::str::from_utf8(length).ok()?.parse().ok()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listed(text: &[u8]) -> Vec<(String, u64, u64)> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file.rewind().unwrap();
        let messages = read(&file, text.len() as u64).unwrap();
        messages.iter().map(|it| (it.name.escape_ascii().to_string(), it.at.unwrap(), it.length)).collect()
    }

    #[test]
    fn only_a_complete_file_is_used() {
        let text = b"pop3d removed 1\n3 a\n0 b-2\n5 c\n\nFroFrom ";
        let message = |name: &str, at, length| (name.to_owned(), at, length);
        assert_eq!(listed(text), [message("a", 31, 3), message("b-2", 34, 0), message("c", 34, 5)]);
        assert!((0..text.len()).all(|end| listed(&text[..end]).is_empty()));
        assert!(listed(&[text, &b"\n"[..]].concat()).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(lines in "(([0-9]{1,20}|x)( [ab]?)?\n){0,4}\n?a{0,3}") {
            let text = [VERSION, lines.as_bytes()].concat();
            let end = listed(&text).iter().map(|(_, at, length)| at + length).max();
            prop_assert!(end.is_none_or(|end| end == text.len() as u64));
        }
    }
}
