//! Replies on their way to the client: gathered, and sent in one write when there is nothing more to gather.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::ops::{Deref, DerefMut};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::spare::Spares;

/// What messages are read in.
pub const BLOCK: usize = 64 * 1024;

/// Gathered replies are sent on when they reach this size: several blocks in a write make fewer packets and wake the
/// client's side less often.
const WRITE: usize = 4 * BLOCK;

/// The largest buffer that a session keeps while it waits for its client.
const IDLE_BUFFER: usize = 1024;

/// Room for one block more than is sent on, with its stuffing; more is rare.
const LARGE_BUFFER: usize = WRITE + 2 * BLOCK;

static LARGE_BUFFERS: Spares<Vec<u8>> = Spares::new();

static BLOCKS: Spares<Box<[u8]>> = Spares::new();

/// A block to read into, with anything in it.
#[derive(Debug)]
pub struct Block(Box<[u8]>);

impl Block {
    /// One of [`BLOCK`] octets.
    #[must_use]
    pub fn new() -> Self {
        Self(BLOCKS.take().unwrap_or_else(|| vec![0; BLOCK].into_boxed_slice()))
    }
}

impl Default for Block {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        BLOCKS.give(mem::take(&mut self.0));
    }
}

/// TLS on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// The server has no certificate.
    Absent,
    /// It can be started.
    Ready,
    /// All goes by it.
    Active,
}

/// What a session needs of its connection. The server's is a socket; tests use octets in memory.
pub trait Link: Read + Write {
    /// The client has been due to send a command since `since`; a read fails with an error that [`is_timeout`] at
    /// about `deadline`.
    fn expect_command(&mut self, since: Instant, deadline: Option<Instant>);

    /// The client has logged in.
    fn set_logged_in(&self) {}

    /// The connection is closed after the next write: the two may go as one packet, which wakes the client once.
    fn set_ending(&mut self) {}

    /// Sends `octets` octets of `file` from its start. Fails with [`io::ErrorKind::UnexpectedEof`] when the file
    /// has fewer.
    ///
    /// # Errors
    /// Those of reading the file and of writing to the client.
    fn send_file(&mut self, file: &File, octets: u64) -> io::Result<()>;

    /// Whether the client has gone, as far as can be told without a write: it has closed its side and all that
    /// it sent has been read.
    fn client_left(&mut self) -> bool;

    /// What to poll for the client's going, where that is possible.
    fn watch(&self) -> Option<BorrowedFd<'_>>;

    /// Whether nobody on the way can read what is said: it goes by TLS, or does not leave this machine.
    fn is_private(&self) -> bool;

    /// The user whose program the client is. Only for a client on this machine.
    ///
    /// # Errors
    /// When that cannot be told; such a client is to be taken for any user's.
    fn client_user(&self) -> io::Result<u32> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// How it stands with TLS.
    fn tls(&self) -> Tls;

    /// Answers the client's TLS handshake, which has to be done at `deadline`. Returns what has been agreed on, for the
    /// log.
    ///
    /// # Errors
    /// When the client does otherwise; nothing can be said to it any more.
    fn start_tls(&mut self, deadline: Instant) -> io::Result<String>;
}

/// Whether a read or a write failed because it took too long.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
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

    /// Where to append replies. Follow a long one by [`Output::flush_if_large`].
    pub fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Makes room for long replies at once.
    pub fn enlarge(&mut self) {
        if self.pending.capacity() < LARGE_BUFFER {
            let mut large = LARGE_BUFFERS.take().unwrap_or_else(|| Vec::with_capacity(LARGE_BUFFER));
            large.append(&mut self.pending);
            self.pending = large;
        }
    }

    /// Sends what is gathered if it is large, so that a long response takes no more memory than that.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn flush_if_large(&mut self) -> io::Result<()> {
        if self.pending.len() < WRITE { Ok(()) } else { self.flush() }
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

    /// Sends all that is gathered, as the last.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn finish(&mut self) -> io::Result<()> {
        self.link.set_ending();
        self.flush()
    }

    /// Gives back the memory of a past transfer; called before waiting for the client.
    pub fn release(&mut self) {
        let capacity = self.pending.capacity();
        if capacity > IDLE_BUFFER {
            let buffer = mem::take(&mut self.pending);
            // One that a line of dots has made larger is not kept.
            if capacity == LARGE_BUFFER {
                LARGE_BUFFERS.give(buffer);
            }
        }
    }
}
