//! Followers: each reads the events as lines, at its own pace.
//!
//! There is one ring of recent lines for all followers, so an event costs the same for one follower and for many, and a
//! session never waits for a follower. A follower that is too slow loses the lines that the ring has no room for.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use log::kv::{Error, Key, Source, Value, VisitSource, VisitValue};
use parking_lot::Mutex;
use time::OffsetDateTime;

use super::event::Event;
use crate::logging::TIME;

/// The lines in the ring: about a second's events of a busy server, in a megabyte.
const CAPACITY: usize = 4096;

/// The longest line, without its line end, that PEEP allows.
const LINE_LIMIT: usize = 510;

/// The most octets of a value. Names and reasons that a client has chosen must not crowd out the rest of the line.
const VALUE_LIMIT: usize = 150;

/// The lines that followers read.
#[derive(Debug, Default)]
pub(super) struct Recent {
    followers: AtomicUsize,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Arc<Line>>,
    /// The number of lines that were added so far. The last line in the ring has this number.
    added: u64,
}

#[derive(Debug)]
struct Line {
    user: Option<String>,
    text: Arc<str>,
}

impl Recent {
    /// Adds the event's line, if anyone follows.
    pub(super) fn add(&self, event: &Event<'_>) {
        if self.followers.load(Ordering::Acquire) == 0 {
            return;
        }
        let line =
            Arc::new(Line { user: event.user().map(Into::into), text: text(OffsetDateTime::now_utc(), event).into() });
        let mut ring = self.ring.lock();
        ring.added += 1;
        if ring.lines.len() == CAPACITY {
            ring.lines.pop_front();
        }
        ring.lines.push_back(line);
    }
}

/// Reads the events since it was made. Events are not kept for longer than there are followers.
#[derive(Debug)]
pub struct Follower {
    recent: Arc<Recent>,
    user: Option<String>,
    /// The number of lines that were added before those that have not been read.
    read: u64,
}

/// The lines that a follower has not read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The number of events before these lines that were lost because the follower was too slow. They are events of any
    /// user.
    pub lost: u64,
    /// A line for each event: the time, the event's name, and `name=value` for each of its fields.
    pub lines: Vec<Arc<str>>,
}

impl Follower {
    pub(super) fn new(recent: Arc<Recent>, user: Option<String>) -> Self {
        recent.followers.fetch_add(1, Ordering::AcqRel);
        let read = recent.ring.lock().added;
        Self { recent, user, read }
    }

    /// Returns what has been added since the last call, without waiting. A follower calls it several times a second.
    pub fn take(&mut self) -> Batch {
        let (lost, lines): (u64, Vec<_>) = {
            let ring = self.recent.ring.lock();
            let oldest = ring.added - ring.lines.len() as u64;
            let lost = oldest.saturating_sub(self.read);
            let read = usize::try_from(self.read + lost - oldest).unwrap_or(usize::MAX);
            self.read = ring.added;
            (lost, ring.lines.iter().skip(read).cloned().collect())
        };
        let wanted = lines.into_iter().filter(|line| self.user.is_none() || self.user == line.user);
        Batch { lost, lines: wanted.map(|line| Arc::clone(&line.text)).collect() }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut ring = self.recent.ring.lock();
        if self.recent.followers.fetch_sub(1, Ordering::AcqRel) == 1 {
            ring.lines = VecDeque::new();
        }
    }
}

/// The event's line.
fn text(now: OffsetDateTime, event: &Event<'_>) -> String {
    let mut line = now.format(TIME).unwrap_or_default();
    let _ = write!(line, " {}", event.name());
    let _ = event.visit(&mut Fields(&mut line));
    line.truncate(LINE_LIMIT); // all of it is ASCII
    line
}

struct Fields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, name: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if name.as_str() == "event" {
            return Ok(()); // it stands in front
        }
        let _ = write!(self.0, " {name}=");
        value.visit(Encoded { line: self.0, room: VALUE_LIMIT })
    }
}

/// Writes a value with all octets percent-encoded that could end it.
struct Encoded<'a> {
    line: &'a mut String,
    room: usize,
}

impl Write for Encoded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for octet in text.bytes() {
            let is_plain = octet.is_ascii_graphic() && octet != b'%';
            let length = if is_plain { 1 } else { 3 };
            if self.room < length {
                self.room = 0;
                return Ok(());
            }
            self.room -= length;
            if is_plain { self.line.push(char::from(octet)) } else { write!(self.line, "%{octet:02X}")? }
        }
        Ok(())
    }
}

impl<'v> VisitValue<'v> for Encoded<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        let start = self.line.len();
        let _ = write!(self, "{value}");
        if self.line.len() == start {
            self.line.push('-');
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Client, EndResult, Ended, Lossy, Method, Reason, Service, What};
    use super::*;

    fn client(session: u64) -> Client {
        Client::new(session, "192.0.2.4:5555".parse().unwrap(), Service::Pop3s)
    }

    fn add(recent: &Recent, client: &Client) {
        recent.add(&Event { client, what: What::Connected });
    }

    fn follower(recent: &Arc<Recent>, user: Option<&str>) -> Follower {
        Follower::new(Arc::clone(recent), user.map(str::to_owned))
    }

    #[test]
    fn a_follower_reads_what_happens_after_it_has_begun() {
        let recent = Arc::default();
        add(&recent, &client(1));
        let mut first = follower(&recent, None);
        add(&recent, &client(2));
        let mut second = follower(&recent, None);
        add(&recent, &client(3));
        let sessions = |batch: Batch| -> Vec<String> {
            assert_eq!(batch.lost, 0);
            batch.lines.iter().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect()
        };
        assert_eq!(sessions(first.take()), ["session=2", "session=3"]);
        assert_eq!(sessions(second.take()), ["session=3"]);
        assert_eq!(first.take(), Batch::default());
        drop(first);
        add(&recent, &client(4));
        assert_eq!(sessions(second.take()), ["session=4"]);
    }

    #[test]
    fn nothing_is_kept_without_followers() {
        let recent = Arc::default();
        drop(follower(&recent, None));
        add(&recent, &client(1));
        assert_eq!(recent.ring.lock().added, 0);
        let last = follower(&recent, None);
        add(&recent, &client(2));
        drop(last);
        assert!(recent.ring.lock().lines.is_empty());
        assert_eq!(follower(&recent, None).take(), Batch::default());
    }

    #[test]
    fn a_slow_follower_is_told_how_much_it_has_lost() {
        let recent = Arc::default();
        let (mut slow, mut quick) = (follower(&recent, None), follower(&recent, None));
        for session in 1..=(CAPACITY as u64 + 7) {
            add(&recent, &client(session));
            assert_eq!(quick.take().lines.len(), 1);
        }
        let batch = slow.take();
        assert_eq!((batch.lost, batch.lines.len()), (7, CAPACITY));
        assert!(batch.lines[0].contains(" session=8 "), "{}", batch.lines[0]);
        assert_eq!((slow.take(), quick.take()), (Batch::default(), Batch::default()));
    }

    #[test]
    fn only_one_users_events_can_be_followed() {
        let recent = Arc::default();
        let mut follower = follower(&recent, Some("ana"));
        let (ana, bob) = (client(1), client(2));
        ana.set_user("ana".parse().unwrap());
        bob.set_user("bob".parse().unwrap());
        add(&recent, &client(3));
        add(&recent, &bob);
        add(&recent, &ana);
        let (user, reason) = (Some(Lossy(b"ana")), &Reason::NoTls);
        let what = What::LoginRefused { user, method: Method::Pass, reason, took: Default::default() };
        recent.add(&Event { client: &client(4), what });
        let lines = follower.take().lines;
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains(" user=ana") && lines[1].contains(" login-refused session=4 "), "{lines:?}");
    }

    #[test]
    fn a_line_has_the_time_the_name_and_the_fields() {
        let client = client(17);
        let (user, reason) = (Some(Lossy(b"a b%\r\n\xff\xc3\xa9")), &Reason::NoTls);
        let what = What::LoginRefused { user, method: Method::Pass, reason, took: Default::default() };
        let line = text(OffsetDateTime::UNIX_EPOCH, &Event { client: &client, what });
        assert_eq!(
            line,
            "1970-01-01T00:00:00.000Z login-refused session=17 address=192.0.2.4:5555 protocol=pop3s \
             user=a%20b%25%0D%0A%EF%BF%BD%C3%A9 mechanism=pass reason=no%20TLS seconds=0"
        );
        let what = What::Ended(Ended { result: EndResult::Quit, reason: Some(format_args!("")), counts: None });
        let line = text(OffsetDateTime::UNIX_EPOCH, &Event { client: &client, what });
        assert!(line.contains(" end session=17 ") && line.contains(" result=quit reason=- seconds="), "{line}");
    }

    #[test]
    fn no_value_makes_a_line_too_long() {
        let (user, reason) = ([b'\x01'; 500], "é".repeat(500));
        let client = client(u64::MAX);
        let reason = Reason::Maildrop(std::io::Error::other(reason));
        let what = What::LoginRefused {
            user: Some(Lossy(&user)),
            method: Method::Pass,
            reason: &reason,
            took: std::time::Duration::MAX,
        };
        let line = text(OffsetDateTime::UNIX_EPOCH, &Event { client: &client, what });
        assert!(line.is_ascii() && line.len() <= LINE_LIMIT && line.contains(" seconds="), "{}: {line}", line.len());
    }
}
