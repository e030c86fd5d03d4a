//! The input of a transform: the message's file, or a pipe if the message is not the whole of its file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{ChildStdin, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::maildrop::{FileRange, OpenMessage, Source};
use crate::wire::Block;

/// A message as the input of a transform.
#[derive(Debug)]
pub enum Input {
    /// All of a file, which becomes the program's standard input itself.
    File(File),
    /// Any other message, which goes to the program by a pipe.
    Source(Source),
}

/// Of a file with one message, the program gets the file itself.
impl From<OpenMessage> for Input {
    fn from(message: OpenMessage) -> Self {
        match message.source {
            Source::File(FileRange { file, offset: 0, .. }) => Self::File(file),
            source => Self::Source(source),
        }
    }
}

impl From<File> for Input {
    fn from(file: File) -> Self {
        Self::File(file)
    }
}

impl Input {
    /// The program's standard input, and what has to be fed into it.
    pub(super) fn into_stdin(self) -> (Stdio, Option<Source>) {
        match self {
            Self::File(file) => (file.into(), None),
            Self::Source(source) => (Stdio::piped(), Some(source)),
        }
    }
}

/// Writes a message into a program's pipe as fast as the program reads.
#[derive(Debug)]
pub(super) struct Feed {
    source: Source,
    /// The octets that were read last, and which of them are not written yet.
    block: Block,
    unwritten: Range<usize>,
    /// `None` once everything is written or the program has closed the pipe.
    pipe: Option<ChildStdin>,
}

impl Feed {
    pub(super) fn new(source: Source, pipe: ChildStdin) -> io::Result<Self> {
        fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        Ok(Self { source, block: Block::new(), unwritten: 0..0, pipe: Some(pipe) })
    }

    /// The pipe, as long as there is something to write into it.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Writes as much as the pipe has room for. It is closed at the end.
    pub(super) fn push(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        loop {
            if self.unwritten.is_empty() {
                self.unwritten = 0..self.source.read(&mut self.block)?;
                if self.unwritten.is_empty() {
                    break;
                }
            }
            match pipe.write(&self.block[self.unwritten.clone()]) {
                Ok(written) => self.unwritten.start += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => break, // the program does not want the rest
            }
        }
        self.pipe = None;
        Ok(())
    }
}
