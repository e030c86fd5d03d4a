//! The receive buffers of a thread.

use std::cell::RefCell;

/// Enough that a system call moves much at once, small enough to stay in a core's second-level cache. A
/// client that receives little touches only the first pages of it.
const BUFFER_OCTETS: usize = 256 * 1024;

/// Receive buffers of one thread. A client keeps one only while it has octets not yet used, so that a few of
/// them, warm in the cache, serve thousands of clients.
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
