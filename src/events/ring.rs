//! The lines of recent events, for all followers together.
//!
//! A session appends its event's line to the open block. That is all it pays, for one follower and for many, and it never
//! waits for a follower. Followers read closed blocks, each at its own pace, and send a block as it is: a line is
//! formatted once. When the ring has no room, the oldest block is dropped.
//!
//! A server at its limit has a hundred thousand events a second. If each were formatted, and sent to many followers, this
//! would take a good part of its processors. So a block has room for a number of lines, and until it is closed further
//! events are only counted as lost. The events of a user whom someone follows are always kept.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
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

/// The most lines of a block, added up over the followers to whom it is sent: at most 240,000 lines a second in all. To
/// send a line and to receive it on the same machine takes about 0.15 µs, so this is at most a fiftieth of two cores.
const SENT_LINES: usize = 12_000;

/// The most lines of a block if there are few followers, and the least if there are very many.
const LINES: std::ops::RangeInclusive<usize> = 10..=2000;

/// The lines that followers read.
#[derive(Debug, Default)]
pub(super) struct Recent {
    followers: AtomicUsize,
    /// Those of the followers who follow one user: the user's name.
    users: RwLock<Vec<String>>,
    overflow: Overflow,
    ring: Mutex<Ring>,
}

/// Whether the open block takes more lines. Sessions look at this without a lock.
#[derive(Debug, Default)]
struct Overflow {
    is_full: AtomicBool,
    /// The events that were lost since the block was opened.
    lost: AtomicU64,
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
    /// The number of events that have no line here, because there were too many at this time.
    lost: u64,
}

#[derive(Debug)]
struct Ring {
    closed: VecDeque<Arc<Block>>,
    /// The octets of the closed blocks.
    octets: usize,
    open: Block,
    /// When the open block got its first line.
    opened: Instant,
    /// The most lines of a block.
    room: usize,
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
        let user = event.user();
        let user = user.as_deref().unwrap_or_default();
        if self.overflow.is_full.load(Ordering::Acquire) && !self.is_followed(user) {
            self.overflow.lost.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let line = line::line(event);
        self.ring.lock().add(&line, user, &self.overflow);
    }

    fn is_followed(&self, user: &str) -> bool {
        self.users.read().iter().any(|followed| followed == user)
    }

    /// Counts one more follower, of one user or of all. Returns the number of events that have happened before it began.
    pub(super) fn join(&self, user: Option<&str>) -> u64 {
        let mut users = self.users.write();
        users.extend(user.map(str::to_owned));
        let followers = self.followers.fetch_add(1, Ordering::AcqRel) + 1;
        let mut ring = self.ring.lock();
        ring.room = room(followers - users.len());
        ring.close(&self.overflow)
    }

    /// Counts one follower less. The last one releases the memory.
    pub(super) fn leave(&self, user: Option<&str>) {
        let mut users = self.users.write();
        if let Some(at) = user.and_then(|user| users.iter().position(|followed| followed == user)) {
            users.swap_remove(at);
        }
        let mut ring = self.ring.lock();
        let followers = self.followers.fetch_sub(1, Ordering::AcqRel) - 1;
        ring.room = room(followers - users.len());
        if followers == 0 {
            ring.clear(&self.overflow);
        }
    }

    /// Closes the open block, so that followers find it. Returns the number of events so far.
    pub(super) fn close(&self) -> u64 {
        self.ring.lock().close(&self.overflow)
    }

    /// The oldest block that is closed, or old enough to be, and has no event before the event with this number.
    pub(super) fn block_from(&self, first: u64) -> Option<Arc<Block>> {
        let mut ring = self.ring.lock();
        if ring.opened.elapsed() >= AGE {
            ring.close(&self.overflow);
        }
        ring.closed.get(ring.closed.partition_point(|block| block.first < first)).map(Arc::clone)
    }
}

/// The most lines of a block that goes to so many followers.
fn room(followers: usize) -> usize {
    (SENT_LINES / followers.max(1)).clamp(*LINES.start(), *LINES.end())
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            closed: VecDeque::new(),
            octets: 0,
            open: Block::default(),
            opened: Instant::now(),
            room: *LINES.end(),
            clock: Clock::default(),
        }
    }
}

impl Ring {
    fn add(&mut self, line: &str, user: &str, overflow: &Overflow) {
        if self.open.ends.is_empty() {
            self.opened = Instant::now();
        }
        self.open.add(self.clock.now(), line, user);
        if self.open.text.len() >= BLOCK {
            self.close(overflow);
        } else if self.open.ends.len() >= self.room {
            overflow.is_full.store(true, Ordering::Release);
        }
    }

    fn close(&mut self, overflow: &Overflow) -> u64 {
        if self.open.ends.is_empty() {
            return self.open.first;
        }
        overflow.is_full.store(false, Ordering::Release);
        self.open.lost = overflow.lost.swap(0, Ordering::AcqRel);
        let next = self.open.end();
        let text = String::with_capacity(self.open.text.len());
        let block = mem::replace(&mut self.open, Block { first: next, text, ..Block::default() });
        self.octets += block.text.len();
        self.closed.push_back(Arc::new(block));
        while self.octets > CAPACITY
            && let Some(oldest) = self.closed.pop_front()
        {
            self.octets -= oldest.text.len();
        }
        next
    }

    fn clear(&mut self, overflow: &Overflow) {
        let first = self.close(overflow);
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
        self.first + self.ends.len() as u64 + self.lost
    }

    /// The number of events that have no line here, because there were too many at this time.
    pub(super) fn lost(&self) -> u64 {
        self.lost
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
        let (mut ring, overflow) = (Ring::default(), Overflow::default());
        let line = "x".repeat(1000);
        let count = 3 * CAPACITY as u64 / 1000;
        for _ in 0..count {
            ring.add(&line, "", &overflow);
        }
        assert_eq!(ring.close(&overflow), count);
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
        let add = |line| recent.ring.lock().add(line, "", &recent.overflow);
        assert_eq!((recent.join(None), recent.join(Some("ana"))), (0, 0));
        add("a");
        assert_eq!(recent.join(None), 1);
        add("b");
        for user in [None, Some("ana")] {
            recent.leave(user);
            assert!(!recent.ring.lock().closed.is_empty());
        }
        recent.leave(None);
        let ring = recent.ring.lock();
        assert!(ring.closed.is_empty() && ring.open.text.is_empty() && ring.octets == 0);
        assert_eq!(ring.open.first, 2, "the events are still counted");
        assert!(recent.users.read().is_empty());
    }

    #[test]
    fn a_block_has_less_room_the_more_followers_there_are() {
        assert_eq!([0, 1, 3, 32, 990].map(room), [2000, 2000, 2000, 375, 12]);
    }

    #[test]
    fn a_line_begins_with_the_time() {
        let (mut ring, overflow) = (Ring::default(), Overflow::default());
        let before = OffsetDateTime::now_utc().format(TIME).unwrap();
        ring.add("connected", "", &overflow);
        let after = OffsetDateTime::now_utc().format(TIME).unwrap();
        let (time, rest) = ring.open.text.split_once(' ').unwrap();
        assert!(before.as_str() <= time && time <= after.as_str(), "{time}");
        assert_eq!((rest, time.len()), ("connected\r\n", 24));
    }
}
