//! A message that is opened for sending, as a source of its plain octets.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::compressed::Decompressed;
use super::mbox::Unlocked;

/// Why a message cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The file is not the one that was listed at login.
    Changed,
    /// The file does not exist any more, or cannot be read.
    Io(io::Error),
}

/// A message opened for sending.
#[derive(Debug)]
pub struct OpenMessage {
    /// The size that LIST gave to the client.
    pub octets: u64,
    /// Where the message's octets come from.
    pub source: Source,
}

/// Where a message's octets come from. As [`Read`] it gives them as they are stored, before line ends are converted.
#[derive(Debug)]
pub enum Source {
    /// A range of a file.
    File(FileRange),
    /// A compressed file.
    Compressed(Box<Decompressed>),
    /// A message in an mbox, to which other programs write.
    Mbox(Box<Unlocked>),
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(range) => range.read(buffer),
            Self::Compressed(decompressed) => decompressed.read(buffer),
            Self::Mbox(message) => message.read(buffer),
        }
    }
}

/// The octets that a file had at login, or a part of them.
#[derive(Debug)]
pub struct FileRange {
    /// The file that holds the message.
    pub file: File,
    /// The offset in the file of the next octet.
    pub offset: u64,
    /// How many octets of the message are left. At first it is the size of the stored message, the same as at login.
    pub left: u64,
    /// True if the message can be sent as it is stored: all its lines end in CRLF and none begins with a dot.
    pub wire_form: bool,
}

/// Octets that were appended to the file since login are not read, and it is an error if some are missing.
impl Read for FileRange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if room == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..room], self.offset)?;
        if read == 0 {
            return Err(shortened());
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// The error when a file has become shorter since login.
pub fn shortened() -> io::Error {
    io::Error::other("the file has become shorter meanwhile")
}
