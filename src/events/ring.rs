//! The lines of recent events, for all followers together.
//!
//! A session appends its event's line to the open block. That is all it pays, for one follower and for many, and it never
//! waits for a follower. Followers read closed blocks, each at its own pace, and send a block as it is: a line is
//! formatted once. When the ring has no room, the oldest block is dropped.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use time::OffsetDateTime;

use super::event::Event;
use super::line;
use crate::logging::TIME;

/// The most octets of closed blocks: more than a second's events of a busy server.
const CAPACITY: usize = 4 * 1024 * 1024;

/// A block is closed at this size, because one write sends a block.
const BLOCK: usize = 256 * 1024;

/// A block is closed at this age. So followers share few large blocks, and an event waits no longer than a person would
/// notice.
const AGE: Duration = Duration::from_millis(50);

/// The lines that followers read.
#[derive(Debug, Default)]
pub(super) struct Recent {
    followers: AtomicUsize,
    ring: Mutex<Ring>,
}

/// Lines of events that happened one after another.
#[derive(Debug, Default)]
pub struct Block {
    /// The number of events before this block since the server's start.
    first: u64,
    text: String,
    /// The user of each event, one behind the other. An event that concerns no user has an empty name.
    users: String,
    /// Where the line and the user of each event end.
    ends: Vec<(usize, usize)>,
}

#[derive(Debug)]
pub(super) struct Ring {
    closed: VecDeque<Arc<Block>>,
    /// The octets of the closed blocks.
    octets: usize,
    open: Block,
    /// When the open block got its first line.
    opened: Instant,
    clock: Clock,
}

/// The time as text. Many events happen in the same millisecond, and formatting the time takes longer than adding a line.
#[derive(Debug, Default)]
struct Clock {
    millisecond: i128,
    text: String,
}

impl Recent {
    /// Adds the event's line, if anyone follows.
    pub(super) fn add(&self, event: &Event<'_>) {
        if self.followers.load(Ordering::Acquire) == 0 {
            return;
        }
        let line = line::line(event);
        self.ring.lock().add(&line, event.user().as_deref().unwrap_or_default());
    }

    /// Counts one more follower. Returns the number of events that have happened before it began.
    pub(super) fn join(&self) -> u64 {
        self.followers.fetch_add(1, Ordering::AcqRel);
        self.ring.lock().close()
    }

    /// Counts one follower less. The last one releases the memory.
    pub(super) fn leave(&self) {
        let mut ring = self.ring.lock();
        if self.followers.fetch_sub(1, Ordering::AcqRel) == 1 {
            ring.clear();
        }
    }

    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock()
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            closed: VecDeque::new(),
            octets: 0,
            open: Block::default(),
            opened: Instant::now(),
            clock: Clock::default(),
        }
    }
}

impl Ring {
    fn add(&mut self, line: &str, user: &str) {
        if self.open.ends.is_empty() {
            self.opened = Instant::now();
        }
        self.open.add(self.clock.now(), line, user);
        if self.open.text.len() >= BLOCK {
            self.close();
        }
    }

    /// Closes the open block, so that followers find it. Returns the number of events so far.
    pub(super) fn close(&mut self) -> u64 {
        let next = self.open.end();
        if next > self.open.first {
            let room = String::with_capacity(self.open.text.len().min(BLOCK));
            let block = mem::replace(&mut self.open, Block { first: next, text: room, ..Block::default() });
            self.octets += block.text.len();
            self.closed.push_back(Arc::new(block));
            while self.octets > CAPACITY
                && let Some(oldest) = self.closed.pop_front()
            {
                self.octets -= oldest.text.len();
            }
        }
        next
    }

    /// Closes the open block if it is old enough.
    pub(super) fn close_if_old(&mut self) {
        if self.opened.elapsed() >= AGE {
            self.close();
        }
    }

    /// The oldest closed block that has no event before the event with this number.
    pub(super) fn block_from(&self, first: u64) -> Option<Arc<Block>> {
        self.closed.get(self.closed.partition_point(|block| block.first < first)).map(Arc::clone)
    }

    fn clear(&mut self) {
        let first = self.open.end();
        *self = Self { open: Block { first, ..Block::default() }, ..Self::default() };
    }
}

impl Block {
    fn add(&mut self, time: &str, line: &str, user: &str) {
        for part in [time, " ", line, "\r\n"] {
            self.text.push_str(part);
        }
        self.users.push_str(user);
        self.ends.push((self.text.len(), self.users.len()));
    }

    /// The number of events before this block.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The number of events before the next block.
    pub(super) fn end(&self) -> u64 {
        self.first + self.ends.len() as u64
    }

    /// All lines, each with its CRLF: the time, the event's name, and `name=value` for each of its fields.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The lines of the events that concern this user.
    pub(super) fn text_of(&self, user: &str) -> String {
        let (mut text, mut start) = (String::new(), (0, 0));
        for &end in &self.ends {
            if &self.users[start.1..end.1] == user {
                text.push_str(&self.text[start.0..end.0]);
            }
            start = end;
        }
        text
    }
}

impl Clock {
    fn now(&mut self) -> &str {
        let now = OffsetDateTime::now_utc();
        let millisecond = now.unix_timestamp_nanos() / 1_000_000;
        if millisecond != self.millisecond {
            self.millisecond = millisecond;
            self.text = now.format(TIME).unwrap_or_default();
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_blocks_are_dropped() {
        let mut ring = Ring::default();
        let line = "x".repeat(1000);
        let count = 3 * CAPACITY as u64 / 1000;
        for _ in 0..count {
            ring.add(&line, "");
        }
        assert_eq!(ring.close(), count);
        let kept: usize = ring.closed.iter().map(|block| block.text.len()).sum();
        assert_eq!(kept, ring.octets);
        assert!(kept <= CAPACITY && kept > CAPACITY - 2 * BLOCK, "{kept}");
        let mut next = ring.closed[0].first;
        assert!(next > 0);
        for block in &ring.closed {
            assert!(block.first == next && block.text.len() <= BLOCK + 1100);
            next = block.end();
        }
        assert_eq!(next, count);
    }

    #[test]
    fn nothing_is_kept_without_followers() {
        let recent = Recent::default();
        assert_eq!((recent.join(), recent.join()), (0, 0));
        recent.ring().add("a", "");
        assert_eq!(recent.join(), 1);
        recent.ring().add("b", "");
        for _ in 0..2 {
            recent.leave();
            assert!(!recent.ring().closed.is_empty());
        }
        recent.leave();
        let ring = recent.ring();
        assert!(ring.closed.is_empty() && ring.open.text.is_empty() && ring.octets == 0);
        assert_eq!(ring.open.first, 2, "the events are still counted");
    }

    #[test]
    fn a_line_begins_with_the_time() {
        let mut ring = Ring::default();
        let before = OffsetDateTime::now_utc().format(TIME).unwrap();
        ring.add("connected", "");
        let after = OffsetDateTime::now_utc().format(TIME).unwrap();
        let (time, rest) = ring.open.text.split_once(' ').unwrap();
        assert!(before.as_str() <= time && time <= after.as_str(), "{time}");
        assert_eq!((rest, time.len()), ("connected\r\n", 24));
    }
}
