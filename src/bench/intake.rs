//! Where a client's octets arrive.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::buffers::Buffers;
use super::failure::{self, Failure};
use super::line::Stream;
use super::reactor::Readiness;

/// As much as is read at once when messages are not looked into: the next status line, with little else to copy.
const GLANCE_OCTETS: usize = 4096;

/// Where a client's octets arrive: those received and not yet used.
pub(super) struct Intake<'a> {
    /// Empty while there is nothing in it.
    pub(super) buffer: Box<[u8]>,
    pub(super) start: usize,
    end: usize,
    pub(super) buffers: &'a Buffers,
    /// How many octets a read takes at most.
    at_once: usize,
    pub(super) readiness: &'a Readiness,
    timeout: Duration,
    /// When the run is over for good.
    deadline: Option<Instant>,
    received: &'a AtomicU64,
}

impl<'a> Intake<'a> {
    /// Each wait for octets ends after `timeout`, and none is waited for after `deadline`; `received` counts them as
    /// they come off the wire.
    pub(super) fn new(
        buffers: &'a Buffers,
        readiness: &'a Readiness,
        timeout: Duration,
        deadline: Option<Instant>,
        received: &'a AtomicU64,
    ) -> Intake<'a> {
        let at_once = buffers.octets();
        Intake { buffer: Box::default(), start: 0, end: 0, buffers, at_once, readiness, timeout, deadline, received }
    }

    /// Reads little at once, so that much is left to be thrown away.
    pub(super) fn glancing(self) -> Self {
        Intake { at_once: GLANCE_OCTETS, ..self }
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Forgets what was not used.
    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        self.buffers.give_back(mem::take(&mut self.buffer));
    }

    /// Receives once behind the octets not yet used, which move to the front: never more than a partial
    /// line. Returns 0 at the end of the stream.
    pub(super) async fn fill<S: Stream>(&mut self, stream: &mut S) -> Result<usize, Failure> {
        if self.unread().is_empty() {
            self.clear();
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let count = self.receive(stream, self.at_once, S::read).await?;
        self.end += count;
        Ok(count)
    }

    /// Throws away what has come of the next `octets`, when nothing unused is left. Returns 0 at the end of
    /// the stream.
    pub(super) async fn discard<S: Stream>(&mut self, stream: &mut S, octets: u64) -> Result<usize, Failure> {
        self.clear();
        self.receive(stream, usize::try_from(octets).unwrap_or(usize::MAX), S::discard).await
    }

    /// Waits for the stream and has `read` take at most so many octets from it once, into the buffer's free room.
    pub(super) async fn receive<S: Stream>(
        &mut self,
        stream: &mut S,
        most: usize,
        mut read: impl FnMut(&mut S, &mut [u8]) -> io::Result<usize>,
    ) -> Result<usize, Failure> {
        loop {
            let give_up = Instant::now() + self.timeout;
            let until = self.deadline.map_or(give_up, |deadline| deadline.min(give_up));
            let ready = self.readiness.before(until, || false).await;
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(failure::unfinished());
            }
            if !ready {
                return Err(failure::no_answer());
            }
            if self.buffer.is_empty() {
                self.buffer = self.buffers.take();
            }
            if self.end == self.buffer.len() {
                return Err(Failure::Violation("a line without end".to_owned()));
            }
            let free = &mut self.buffer[self.end..];
            let room = most.min(free.len());
            match read(stream, &mut free[..room]) {
                Ok(count) => {
                    // That saves asking again.
                    self.readiness.set(!stream.is_drained(count < room));
                    self.received.fetch_add(count as u64, Ordering::Relaxed);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readiness.set(false);
                    if self.unread().is_empty() {
                        self.clear();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
