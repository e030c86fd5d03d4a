//! Replies on their way to the client. They are gathered and sent in one write before the session waits for its client.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use super::spare::Spares;
use crate::faults::Kind;

/// Messages are read in blocks of this many octets.
pub const BLOCK: usize = 64 * 1024;

/// Gathered replies are sent when they reach this size. Several blocks in one write make fewer packets and wake the
/// client less often.
const WRITE: usize = 4 * BLOCK;

/// The largest buffer that a session keeps while it waits for its client.
const IDLE_BUFFER: usize = 1024;

/// The capacity of a buffer for long replies: what is sent in one write, and one block more with its byte-stuffing.
const LARGE_BUFFER: usize = WRITE + 2 * BLOCK;

static LARGE_BUFFERS: Spares<Vec<u8>> = Spares::new();

static BLOCKS: Spares<Box<[u8]>> = Spares::new();

/// A buffer of [`BLOCK`] octets to read into. It is used again by later transfers, so its contents are arbitrary.
#[derive(Debug)]
pub struct Block(Box<[u8]>);

impl Block {
    /// Takes a spare block or makes one.
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

/// The state of TLS on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// The server has no certificate.
    Absent,
    /// TLS can be started.
    Ready,
    /// TLS is in use.
    Active,
}

/// What a session needs of its connection. In the server that is a socket; tests use octets in memory.
pub trait Link: Read + Write {
    /// Tells the link that the session waits for a command since `since`. A read then fails at about `deadline` with an
    /// error for which [`is_timeout`] is true.
    fn expect_command(&mut self, since: Instant, deadline: Option<Instant>);

    /// Tells the link that the client has logged in.
    fn set_logged_in(&self) {}

    /// Tells the link that the connection is closed after the next write. Both may then go in one packet, which wakes
    /// the client once.
    fn set_ending(&mut self) {}

    /// Sends a range of `file`. Fails with [`io::ErrorKind::UnexpectedEof`] if the file ends before the range does.
    ///
    /// # Errors
    /// Those of reading the file and of writing to the client.
    fn send_file(&mut self, file: &File, range: Range<u64>) -> io::Result<()>;

    /// Returns true if the client has closed its side and everything that it sent has been read. A client that vanished
    /// without closing is noticed only by a write.
    fn client_left(&mut self) -> bool;

    /// The descriptor to poll for the end of the connection, if there is one.
    fn watch(&self) -> Option<BorrowedFd<'_>>;

    /// Returns true if no one on the network can read the connection: it uses TLS or does not leave this machine.
    fn is_private(&self) -> bool;

    /// The id of the user whose program the client is. It is known only for a client on this machine.
    ///
    /// # Errors
    /// When it cannot be found out. The client may then be any user's.
    fn client_user(&self) -> io::Result<u32> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The state of TLS.
    fn tls(&self) -> Tls;

    /// The octets that identify the TLS connection: `tls-exporter` of RFC 9266. Only TLS 1.3 always has them.
    fn channel_binding(&self) -> Option<[u8; 32]> {
        None
    }

    /// Answers the client's TLS handshake, which has to be complete at `deadline`. Returns the version and the cipher,
    /// for the log.
    ///
    /// # Errors
    /// When the handshake fails. No reply can be sent after that.
    fn start_tls(&mut self, deadline: Instant) -> io::Result<String>;

    /// Returns true if the session has to show this fault, which a tester has ordered. Only a
    /// [`crate::faults::FaultyLink`] has faults.
    fn fault(&mut self, _: Kind) -> bool {
        false
    }

    /// Returns the one of these faults with which a login of this user, whose credentials are right, has to be refused.
    fn fault_at_login(&mut self, _: &[Kind], _user: &str) -> Option<Kind> {
        None
    }
}

/// Reads a range of `file` block by block and writes it, for a link that cannot hand it to the kernel. Fails with
/// [`io::ErrorKind::UnexpectedEof`] if the file ends before the range does.
///
/// # Errors
/// Those of reading and of writing.
pub fn copy_range(file: &File, range: Range<u64>, to: &mut impl Write) -> io::Result<()> {
    let mut block = Block::new();
    let mut offset = range.start;
    while offset < range.end {
        let wanted = usize::try_from(range.end - offset).map_or(block.len(), |left| left.min(block.len()));
        file.read_exact_at(&mut block[..wanted], offset)?;
        to.write_all(&block[..wanted])?;
        offset += wanted as u64;
    }
    Ok(())
}

/// Returns true if a read or a write failed because it took too long.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A connection and the replies that are gathered for it.
#[derive(Debug)]
pub struct Output<L> {
    /// The connection, for reading and for data that is not gathered.
    pub link: L,
    pending: Vec<u8>,
}

impl<L: Link> Output<L> {
    /// Starts with nothing gathered.
    pub fn new(link: L) -> Self {
        Self { link, pending: Vec::new() }
    }

    /// The buffer to append replies to. After a long reply call [`Output::flush_if_large`].
    pub fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Makes the buffer large enough for long replies.
    pub fn enlarge(&mut self) {
        if self.pending.capacity() < LARGE_BUFFER {
            let mut large = LARGE_BUFFERS.take().unwrap_or_else(|| Vec::with_capacity(LARGE_BUFFER));
            large.append(&mut self.pending);
            self.pending = large;
        }
    }

    /// Sends what is gathered if it is large, so that a long response needs bounded memory.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn flush_if_large(&mut self) -> io::Result<()> {
        if self.pending.len() < WRITE { Ok(()) } else { self.flush() }
    }

    /// Sends everything that is gathered.
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

    /// Sends everything that is gathered, as the last data of the connection.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn finish(&mut self) -> io::Result<()> {
        self.link.set_ending();
        self.flush()
    }

    /// Releases the memory of a past transfer. To be called before the session waits for the client.
    pub fn release(&mut self) {
        let capacity = self.pending.capacity();
        if capacity > IDLE_BUFFER {
            let buffer = mem::take(&mut self.pending);
            // A buffer that grew beyond its usual capacity, as for lines of dots, is freed.
            if capacity == LARGE_BUFFER {
                LARGE_BUFFERS.give(buffer);
            }
        }
    }
}
