//! The input of a transform: the message's file, or a pipe if the message is only a part of its file.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::process::{ChildStdin, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::wire::Block;

/// A message as the input of a transform.
#[derive(Debug)]
pub enum Input {
    /// All of a file, which becomes the program's standard input itself.
    File(File),
    /// A part of a file, which goes to the program by a pipe.
    Part(File, Range<u64>),
}

impl From<File> for Input {
    fn from(file: File) -> Self {
        Self::File(file)
    }
}

impl Input {
    /// The program's standard input, and what has to be fed into it.
    pub(super) fn into_stdin(self) -> (Stdio, Option<(File, Range<u64>)>) {
        match self {
            Self::File(file) => (file.into(), None),
            Self::Part(file, range) => (Stdio::piped(), Some((file, range))),
        }
    }
}

/// Writes a part of a file into a program's pipe as fast as the program reads.
#[derive(Debug)]
pub(super) struct Feed {
    file: File,
    rest: Range<u64>,
    /// `None` once everything is written or the program has closed the pipe.
    pipe: Option<ChildStdin>,
}

impl Feed {
    pub(super) fn new(file: File, range: Range<u64>, pipe: ChildStdin) -> io::Result<Self> {
        fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        Ok(Self { file, rest: range, pipe: Some(pipe) })
    }

    /// The pipe, as long as there is something to write into it.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Writes as much as the pipe has room for. It is closed at the end.
    pub(super) fn push(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let mut block = Block::new();
        while !self.rest.is_empty() {
            let left = self.rest.end - self.rest.start;
            let room = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
            self.file.read_exact_at(&mut block[..room], self.rest.start)?;
            match pipe.write(&block[..room]) {
                Ok(written) => self.rest.start += written as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => break, // the program does not want the rest
            }
        }
        self.pipe = None;
        Ok(())
    }
}
