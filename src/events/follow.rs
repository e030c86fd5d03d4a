//! Followers: each reads the events as lines, at its own pace. A follower that is too slow loses the events that the ring
//! has no room for, and all followers lose some when there are too many. They are told how many.

use std::borrow::Cow;
use std::sync::Arc;

use super::ring::{Block, Recent};

/// Reads the events since it was made. Events are not kept for longer than there are followers.
#[derive(Debug)]
pub struct Follower {
    recent: Arc<Recent>,
    user: Option<String>,
    /// The number of events that it has read or lost, and of those before it began.
    read: u64,
    /// The number of events after which it takes no more, once that is known.
    last: Option<u64>,
}

/// Events that a follower has taken.
#[derive(Debug)]
pub struct Batch {
    /// The number of events before and among these that were lost, because the follower was too slow or there were too
    /// many. They are events of any user.
    pub lost: u64,
    /// The events.
    pub block: Arc<Block>,
}

impl Follower {
    pub(super) fn new(recent: Arc<Recent>, user: Option<String>) -> Self {
        let read = recent.join(user.as_deref());
        Self { recent, user, read, last: None }
    }

    /// Returns events that have not been taken, the oldest first, without waiting; `None` if there are none. Events of the
    /// last moment are not among them, so that many can be sent together. A follower calls it several times a second.
    pub fn take(&mut self) -> Option<Batch> {
        let block =
            self.recent.block_from(self.read).filter(|block| self.last.is_none_or(|last| block.first() < last))?;
        // The events of a user who is followed are in the block, however many others there were.
        let left_out = if self.user.is_none() { block.lost() } else { 0 };
        let lost = block.first() - self.read + left_out;
        self.read = block.end();
        Some(Batch { lost, block })
    }

    /// Ends the following: events that happen from now on are not taken, and all others can be taken at once.
    pub fn finish(&mut self) {
        self.last = Some(self.recent.close());
    }

    /// The lines of those events that the follower has asked for: each has its CRLF, the time, the event's name, and
    /// `name=value` for each of its fields.
    #[must_use]
    pub fn lines<'a>(&self, block: &'a Block) -> Cow<'a, str> {
        match &self.user {
            None => block.text().into(),
            Some(user) => block.text_of(user).into(),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.recent.leave(self.user.as_deref());
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::{Client, Event, Lossy, Method, Reason, Service, What};
    use super::*;

    fn client(session: u64) -> Client {
        Client::new(session, "192.0.2.4:5555".parse::<SocketAddr>().unwrap().into(), Service::Pop3s)
    }

    fn add(recent: &Recent, client: &Client) {
        recent.add(&Event { client, what: What::Connected });
    }

    fn follower(recent: &Arc<Recent>, user: Option<&str>) -> Follower {
        Follower::new(Arc::clone(recent), user.map(str::to_owned))
    }

    /// The number of events lost and the lines of all events that happened until now.
    fn taken(follower: &mut Follower) -> (u64, Vec<String>) {
        follower.recent.close();
        let (mut lost, mut lines) = (0, Vec::new());
        while let Some(batch) = follower.take() {
            lost += batch.lost;
            lines.extend(follower.lines(&batch.block).split_inclusive("\r\n").map(str::to_owned));
        }
        (lost, lines)
    }

    fn sessions(follower: &mut Follower) -> Vec<String> {
        let (lost, lines) = taken(follower);
        assert_eq!(lost, 0);
        lines.iter().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect()
    }

    #[test]
    fn a_follower_reads_what_happens_after_it_has_begun() {
        let recent = Arc::default();
        add(&recent, &client(1));
        let mut first = follower(&recent, None);
        add(&recent, &client(2));
        let mut second = follower(&recent, None);
        add(&recent, &client(3));
        assert_eq!(sessions(&mut first), ["session=2", "session=3"]);
        assert_eq!(sessions(&mut second), ["session=3"]);
        assert!(first.take().is_none());
        drop(first);
        add(&recent, &client(4));
        assert_eq!(sessions(&mut second), ["session=4"]);
    }

    #[test]
    fn a_follower_that_has_finished_takes_what_happened_before() {
        let recent = Arc::default();
        let (mut first, mut second) = (follower(&recent, None), follower(&recent, None));
        add(&recent, &client(1));
        first.finish();
        add(&recent, &client(2));
        second.finish();
        assert_eq!(sessions(&mut first), ["session=1"]);
        assert_eq!(sessions(&mut second), ["session=1", "session=2"]);
    }

    #[test]
    fn a_slow_follower_is_told_how_much_it_has_lost() {
        let recent = Arc::default();
        let (mut slow, mut quick) = (follower(&recent, None), follower(&recent, None));
        let mut read = 0;
        for session in 1..=100_000 {
            add(&recent, &client(session));
            if session % 100 == 0 {
                read += sessions(&mut quick).len();
            }
        }
        assert_eq!(read, 100_000);
        let (lost, lines) = taken(&mut slow);
        assert!(lost > 0 && lost + lines.len() as u64 == 100_000, "{lost}");
        assert!(lines[0].contains(&format!(" session={} ", lost + 1)), "{}", lines[0]);
        assert!(slow.take().is_none() && quick.take().is_none());
    }

    #[test]
    fn if_there_are_too_many_events_only_those_of_a_followed_user_are_kept() {
        let recent = Arc::default();
        let (mut all, mut of_ana) = (follower(&recent, None), follower(&recent, Some("ana")));
        let ana = client(7);
        ana.set_user("ana".parse().unwrap());
        for _ in 0..50_000 {
            add(&recent, &client(1));
        }
        add(&recent, &ana);
        let (lost, lines) = taken(&mut all);
        assert!(lost > 0 && lost + lines.len() as u64 == 50_001, "{lost}");
        assert!(lines.last().unwrap().contains(" user=ana"));
        assert_eq!(sessions(&mut of_ana), ["session=7"]);
        // The next block has room again.
        add(&recent, &client(8));
        assert_eq!(sessions(&mut all), ["session=8"]);
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
        let lines = taken(&mut follower).1;
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains(" user=ana") && lines[1].contains(" login-refused session=4 "), "{lines:?}");
    }
}
