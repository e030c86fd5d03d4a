//! Runs a transform on a message from beginning to end, for no client.

use std::os::fd::BorrowedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Client, Failure, Input, Running, Subject, Transform};
use crate::wire::Block;

/// How long a transform may take for one message, whatever it writes.
const LONGEST: Duration = Duration::from_secs(120);

/// Stands in where there is no client. The transform is killed when the other end of the pipe is closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nobody<'a>(pub(super) Option<BorrowedFd<'a>>);

impl Client for Nobody<'_> {
    fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.0
    }

    fn left(&mut self) -> bool {
        true
    }
}

impl Transform {
    /// Runs the program on a message, and gives each piece of its output to `take`. The run is given up when the other end
    /// of the pipe `end` is closed.
    ///
    /// # Errors
    /// [`Failure`]; [`Failure::ClientLeft`] if the run was given up.
    pub fn run(
        &self,
        message: impl Into<Input>,
        subject: Subject<'_>,
        end: BorrowedFd<'_>,
        take: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        read(self.start(message, subject)?, Nobody(Some(end)), take)
    }

    /// The same to the end, with the program's standard error going to `stderr`.
    ///
    /// # Errors
    /// [`Failure`], but not [`Failure::ClientLeft`].
    pub fn run_noting(
        &self,
        message: impl Into<Input>,
        subject: Subject<'_>,
        stderr: Stdio,
        take: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        read(self.start_with(message, subject, stderr)?, Nobody(None), take)
    }
}

fn read(mut running: Running, mut client: Nobody<'_>, mut take: impl FnMut(&[u8])) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut block = Block::new();
    loop {
        match running.read(&mut block, &mut client)? {
            0 => return running.finish(&mut client),
            read => take(&block[..read]),
        }
        if begun.elapsed() > LONGEST {
            return Err(Failure::Endless);
        }
    }
}
