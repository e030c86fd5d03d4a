//! Receives a client's octets.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::buffers::Buffers;
use super::failure::{self, Failure};
use super::line::Stream;
use super::reactor::Readiness;

/// The most octets that are read at once if messages are discarded: enough for the next status line, with little copied
/// besides.
const GLANCE_OCTETS: usize = 4096;

/// A client's octets that have been received but not used yet, and how more are received.
pub(super) struct Intake<'a> {
    /// Empty while there are no octets.
    pub(super) buffer: Box<[u8]>,
    pub(super) start: usize,
    end: usize,
    pub(super) buffers: &'a Buffers,
    /// The most octets that one read takes.
    at_once: usize,
    pub(super) readiness: &'a Readiness,
    timeout: Duration,
    /// The time at which every session of the run ends.
    deadline: Option<Instant>,
    received: &'a AtomicU64,
}

impl<'a> Intake<'a> {
    /// Each wait for octets ends after `timeout` or at `deadline`. `received` counts the octets as they arrive.
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

    /// Reads little at once, so that the rest can be discarded without copying it.
    pub(super) fn glancing(self) -> Self {
        Intake { at_once: GLANCE_OCTETS, ..self }
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Forgets the unused octets and gives the buffer back.
    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        self.buffers.give_back(mem::take(&mut self.buffer));
    }

    /// Receives once. The unused octets, which are at most part of a line, move to the front of the buffer. Returns 0
    /// at the end of the stream.
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

    /// Discards those of the next `octets` that have arrived. There must be no unused octets. Returns 0 at the end of
    /// the stream.
    pub(super) async fn discard<S: Stream>(&mut self, stream: &mut S, octets: u64) -> Result<usize, Failure> {
        self.clear();
        self.receive(stream, usize::try_from(octets).unwrap_or(usize::MAX), S::discard).await
    }

    /// Waits for the stream, then calls `read` once for at most `most` octets and the free room of the buffer.
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
                    // A drained socket is not asked again before epoll reports it.
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
