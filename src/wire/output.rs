//! Replies on their way to the client: gathered, and sent in one write when there is nothing more to gather.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// Gathered replies are sent on when they reach this size.
pub const BLOCK: usize = 64 * 1024;

/// The largest buffer that a session keeps while it waits for its client.
const IDLE_BUFFER: usize = 1024;

/// What a session needs of its connection. The server's is a socket; tests use octets in memory.
pub trait Link: Read + Write {
    /// The client has been due to send a command since `since`; a read fails with [`io::ErrorKind::WouldBlock`]
    /// or [`io::ErrorKind::TimedOut`] at `deadline` or somewhat before.
    fn expect_command(&mut self, since: Instant, deadline: Option<Instant>);

    /// Sends `octets` octets of `file` from its start. Fails with [`io::ErrorKind::UnexpectedEof`] when the file
    /// has fewer.
    ///
    /// # Errors
    /// Those of reading the file and of writing to the client.
    fn send_file(&mut self, file: &File, octets: u64) -> io::Result<()>;

    /// Whether the client has gone, as far as can be told without a write: it has closed its side and all that
    /// it sent has been read.
    fn client_left(&self) -> bool;

    /// What to poll for the client's going, where that is possible.
    fn watch(&self) -> Option<BorrowedFd<'_>>;
}

/// A connection and the replies that are gathered for it.
#[derive(Debug)]
pub struct Output<L> {
    /// The connection, for reading and for what is not gathered.
    pub link: L,
    pending: Vec<u8>,
}

impl<L: Link> Output<L> {
    /// Nothing gathered yet.
    pub fn new(link: L) -> Self {
        Self { link, pending: Vec::new() }
    }

    /// Where to append replies. Follow a long one by [`Output::send_blocks`].
    pub fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Sends what is gathered if it is a block or more, so that a long response takes no more memory than that.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send_blocks(&mut self) -> io::Result<()> {
        if self.pending.len() < BLOCK {
            return Ok(());
        }
        self.link.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// Sends all that is gathered.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.link.write_all(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }

    /// Gives back the memory of a past transfer; called before waiting for the client.
    pub fn release(&mut self) {
        if self.pending.capacity() > IDLE_BUFFER {
            self.pending = Vec::new();
        }
    }
}
