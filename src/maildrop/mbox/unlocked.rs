//! A message of an mbox that is read without a lock, because nothing may wait for a client.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::fstat;

use super::list::{self, FileState};
use super::{FileRange, Section, parse};
use crate::maildrop::identity::Identity;

/// Reads a section of an mbox. If another program has changed the message meanwhile, the end of it is an error, so that no
/// client takes a mixture of two messages for one.
#[derive(Debug)]
pub struct Unlocked {
    range: FileRange,
    section: Section,
    /// The state of the file in which the section was found.
    state: FileState,
    is_checked: bool,
}

impl Unlocked {
    pub(super) fn new(file: File, section: Section, state: FileState) -> Self {
        let range = FileRange { file, offset: section.start, left: section.length, wire_form: false };
        Self { range, section, state, is_checked: false }
    }

    /// The mbox.
    pub(in crate::maildrop) fn file(&self) -> &File {
        &self.range.file
    }

    /// Returns true if the message is where it was.
    fn is_there(&self) -> io::Result<bool> {
        let file = &self.range.file;
        let identity = Identity::new(&fstat(file)?);
        if self.state.is_exactly(&identity) {
            return Ok(true);
        }
        // Behind the message there is an empty line, unless the file ends with the message.
        let mut octet = [0];
        let read = file.read_at(&mut octet, self.section.end())?;
        let empty = if octet == [b'\r'] { 2 } else { 1 };
        let end = if read == 0 { self.section.end() } else { self.section.end() + empty };
        let mut found = Vec::new();
        let parsed = parse::parse(file, self.section.from, end, &mut |message| found.push(message));
        Ok(parsed.is_ok()
            && matches!(&found[..], [only] if list::check_of(only) == self.section.check
                && only.start == self.section.start && only.end == self.section.end()))
    }
}

impl Read for Unlocked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.range.read(buffer)?;
        if self.range.left == 0 && !self.is_checked {
            self.is_checked = true;
            if !self.is_there()? {
                return Err(io::Error::other("another program has changed the message meanwhile"));
            }
        }
        Ok(read)
    }
}
