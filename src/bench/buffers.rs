//! The receive buffers of a thread.

use std::cell::RefCell;

/// The size of a buffer: large enough that one system call receives much, small enough for a core's second-level cache.
/// A client that receives little touches only the first pages of it.
const BUFFER_OCTETS: usize = 256 * 1024;

/// The receive buffers of one thread. A client keeps one only while it has unread octets, so that a few buffers, which
/// stay in the cache, serve thousands of clients.
pub(super) struct Buffers {
    idle: RefCell<Vec<Box<[u8]>>>,
    octets: usize,
}

impl Buffers {
    pub(super) fn new() -> Buffers {
        Buffers::of(BUFFER_OCTETS)
    }

    pub(super) fn of(octets: usize) -> Buffers {
        Buffers { idle: RefCell::default(), octets }
    }

    /// The size of each buffer.
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    pub(super) fn take(&self) -> Box<[u8]> {
        self.idle.borrow_mut().pop().unwrap_or_else(|| vec![0; self.octets].into())
    }

    pub(super) fn give_back(&self, buffer: Box<[u8]>) {
        if !buffer.is_empty() {
            self.idle.borrow_mut().push(buffer);
        }
    }
}
