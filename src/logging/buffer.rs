//! A bounded buffer for log lines that are not written yet, between the threads that log and the thread that writes.

use std::mem;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The most octets in the buffer. A server that logs each command of 998 busy clients fills it in about a second.
const CAPACITY: usize = 1 << 20;

/// Log lines that wait for the writing thread.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    state: Mutex<State>,
    /// Notified when there is work for the writing thread.
    filled: Condvar,
    /// Notified when everything has been written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Batch,
    /// True while the writing thread works on a batch that it has taken.
    writing: bool,
}

/// The lines that the writing thread takes at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Complete lines.
    pub(super) octets: Vec<u8>,
    /// If the file is to be opened again: after how many of the octets.
    pub(super) reopen_at: Option<usize>,
    /// The number of lines after these that were lost.
    pub(super) lost: u64,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.octets.is_empty() && self.reopen_at.is_none() && self.lost == 0
    }

    /// Returns the octets in two parts: those to write before the file is opened again, and those after that.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        self.octets.split_at(self.reopen_at.unwrap_or(self.octets.len()))
    }
}

impl Buffer {
    /// Adds complete lines. If there is no room for them, they are lost, and so are all later ones until the writing thread
    /// has taken the buffer. So the lost lines are one gap, which the log can report in its place.
    pub(super) fn push(&self, lines: &[u8]) {
        let mut state = self.state.lock();
        let waiting = &mut state.waiting;
        if waiting.lost > 0 || waiting.octets.len() + lines.len() > CAPACITY {
            waiting.lost += count_lines(lines);
        } else {
            waiting.octets.extend_from_slice(lines);
        }
        self.filled.notify_one();
    }

    /// Requests that the file is opened again after the lines that are now in the buffer.
    pub(super) fn reopen(&self) {
        let mut state = self.state.lock();
        state.waiting.reopen_at = Some(state.waiting.octets.len());
        self.filled.notify_one();
    }

    /// Waits for lines to write and takes them. The caller calls [`Buffer::set_written`] when it has written them.
    pub(super) fn take(&self) -> Batch {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            self.filled.wait(&mut state);
        }
        state.writing = true;
        mem::take(&mut state.waiting)
    }

    /// Notes that the batch that was taken has been written.
    pub(super) fn set_written(&self) {
        self.state.lock().writing = false;
        self.written.notify_all();
    }

    /// Waits until all lines are written, at most for `patience`.
    pub(super) fn wait_until_written(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        while state.writing || !state.waiting.is_empty() {
            if self.written.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }
}

/// Returns the number of line ends in `octets`.
pub(super) fn count_lines(octets: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', octets).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_in_the_order_in_which_they_went_in() {
        let buffer = Buffer::default();
        buffer.push(b"one\n");
        buffer.reopen();
        buffer.push(b"two\n");
        let batch = buffer.take();
        assert_eq!(batch.parts(), (&b"one\n"[..], &b"two\n"[..]));
        buffer.push(b"three\n");
        assert_eq!(buffer.take().parts(), (&b"three\n"[..], &b""[..]));
    }

    #[test]
    fn a_full_buffer_loses_all_later_lines_until_it_is_taken() {
        let buffer = Buffer::default();
        buffer.push(&[b'x'; CAPACITY]);
        buffer.push(b"one\ntwo\n");
        buffer.push(b"");
        buffer.push(b"three\n");
        let batch = buffer.take();
        assert_eq!((batch.octets.len(), batch.lost), (CAPACITY, 3));
        buffer.push(b"four\n");
        let batch = buffer.take();
        assert_eq!((&batch.octets[..], batch.lost), (&b"four\n"[..], 0));
    }

    #[test]
    fn all_is_written_when_the_last_batch_is() {
        let buffer = Buffer::default();
        buffer.wait_until_written(Duration::from_secs(60));
        buffer.push(b"one\n");
        buffer.take();
        buffer.wait_until_written(Duration::ZERO);
        assert!(buffer.state.lock().writing);
        buffer.set_written();
        buffer.wait_until_written(Duration::from_secs(60));
    }
}
