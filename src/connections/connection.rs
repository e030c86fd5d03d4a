//! An open connection as its session and the registry share it.

use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use socket2::Socket;

use super::Protocol;
use crate::events::Client;
use crate::guard::Pace;

/// An open connection, shared between its session and the registry.
#[derive(Debug)]
pub struct Connection {
    /// The socket. Reading and writing it needs no exclusive access.
    pub stream: Socket,
    /// The client, and the state of its session.
    pub client: Client,
    pub(super) protocol: Protocol,
    /// When the session began to wait for the client's next command or part of the TLS handshake, if it is waiting.
    pub(super) waiting_since: Mutex<Option<Instant>>,
    /// True once the server itself has ended the reading.
    reading_ended: AtomicBool,
    logged_in: AtomicBool,
    /// How fast the client reads the replies of the server.
    pub(super) pace: Mutex<Pace>,
    /// True once the server has closed the connection because the client reads too slowly.
    closed_as_slow: AtomicBool,
}

impl Connection {
    pub(super) fn new(stream: Socket, client: Client, protocol: Protocol) -> Self {
        Self {
            stream,
            client,
            protocol,
            waiting_since: Mutex::new(None),
            reading_ended: AtomicBool::new(false),
            logged_in: AtomicBool::new(false),
            pace: Mutex::default(),
            closed_as_slow: AtomicBool::new(false),
        }
    }

    /// Returns true if the server ended the reading. The end of the stream then does not mean that the client hung up.
    #[must_use]
    pub fn reading_is_ended(&self) -> bool {
        self.reading_ended.load(Ordering::Acquire)
    }

    /// Lets the session read the input that has already arrived, followed by the end of the stream.
    pub(super) fn end_reading(&self) {
        self.reading_ended.store(true, Ordering::Release);
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// Closes the connection of a client that reads too slowly.
    pub(super) fn close_as_slow(&self) {
        self.closed_as_slow.store(true, Ordering::Release);
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Notes since when the session has been waiting for the client, or that it is not waiting.
    pub fn set_waiting(&self, since: Option<Instant>) {
        *self.waiting_since.lock() = since;
    }

    /// Notes that the client has logged in.
    pub fn set_logged_in(&self) {
        self.logged_in.store(true, Ordering::Release);
    }

    pub(super) fn is_logged_in(&self) -> bool {
        self.logged_in.load(Ordering::Acquire)
    }

    /// Calls `write`, which sends up to `octets` and returns how many it has sent, and measures the time it takes.
    ///
    /// # Errors
    /// Those of `write`; `TimedOut` if it failed because the server closed the connection of a slow client.
    pub fn timed(&self, octets: u64, write: impl FnOnce() -> io::Result<u64>) -> io::Result<u64> {
        self.pace.lock().begin(octets, Instant::now());
        let result = write();
        self.pace.lock().end(result.as_ref().copied().unwrap_or(0), Instant::now());
        result.map_err(|error| match self.closed_as_slow.load(Ordering::Acquire) {
            true => io::ErrorKind::TimedOut.into(),
            false => error,
        })
    }
}
