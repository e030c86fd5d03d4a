//! The source of commands: a terminal, or a file or pipe as standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The most octets of a line. A command has at most 268; a longer line is refused as one line.
const LINE_LIMIT: u64 = 64 * 1024;

/// Lines with commands.
pub(super) trait Input: Iterator<Item = io::Result<String>> {
    /// Called before events are shown.
    fn events_begin(&mut self) {}

    /// Called when no more events are shown.
    fn events_end(&mut self) {}

    /// Returns true if a line has been entered, or the input has ended, while events were shown. That line only ends the
    /// events if a person has entered it.
    fn ends_events(&mut self) -> bool;
}

/// Standard input that is not a terminal.
pub(super) struct Piped(BufReader<File>);

impl Piped {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(BufReader::new(File::from(io::stdin().as_fd().try_clone_to_owned()?))))
    }
}

impl Iterator for Piped {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        match (&mut self.0).take(LINE_LIMIT).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(String::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Input for Piped {
    fn ends_events(&mut self) -> bool {
        !self.0.buffer().is_empty() || is_ready(self.0.get_ref())
    }
}

/// Returns true if reading would not have to wait.
pub(super) fn is_ready(input: &impl AsFd) -> bool {
    let mut inputs = [PollFd::new(input, PollFlags::IN)];
    poll(&mut inputs, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}
