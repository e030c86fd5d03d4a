//! Remembers what was found out about passwords a short while ago. Only hashes with a key of this process are kept.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::name::UserName;
use super::scram::hmac;

/// The size at which a generation of remembered passwords is replaced. There are two generations.
const REMEMBERED: usize = 10_000;

/// The hash under which something is remembered.
pub(super) type Mark = [u8; 32];

/// A state of the memory. What is found out for a login is not remembered if the user was forgotten meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// What was found out about passwords: a `T` for each.
///
/// A generation is replaced when it is as old as `keep` or full, so something is kept for once or twice this time.
pub(super) struct Memory<T> {
    key: [u8; 32],
    keep: Duration,
    kept: Mutex<Kept<T>>,
}

struct Kept<T> {
    new: HashMap<Mark, Entry<T>>,
    old: HashMap<Mark, Entry<T>>,
    /// When the newer generation was begun.
    since: Instant,
    /// How often something was forgotten on request.
    forgotten: u64,
}

struct Entry<T> {
    found: T,
    user: UserName,
    at: Instant,
}

impl<T: Clone> Memory<T> {
    /// Keeps everything for `keep` at least, unless there is too much.
    pub(super) fn new(keep: Duration) -> Self {
        Self { key: super::random(), keep, kept: Mutex::new(Kept::new()) }
    }

    /// Returns the hash under which something is remembered of a user's password. What the source has said goes into it, so
    /// that the password is forgotten when the source says something else.
    pub(super) fn mark(&self, user: &UserName, said: &[u8], password: &[u8]) -> Mark {
        let length = |octets: &[u8]| octets.len().to_le_bytes();
        let parts = [user.as_str().as_bytes(), said, password];
        hmac(&self.key, &parts.map(|part| [&length(part)[..], part].concat()).concat())
    }

    /// The state before something is found out.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.kept.lock().forgotten)
    }

    /// Returns what is remembered, and for how long it has been.
    pub(super) fn recall(&self, mark: &Mark) -> Option<(T, Duration)> {
        let mut kept = self.kept.lock();
        let now = Instant::now();
        kept.replace_generation(now, self.keep);
        let entry = kept.new.get(mark).or_else(|| kept.old.get(mark))?;
        Some((entry.found.clone(), now.saturating_duration_since(entry.at)))
    }

    /// Remembers what was found out since the ticket was drawn.
    pub(super) fn remember(&self, ticket: Ticket, user: &UserName, mark: Mark, found: T) {
        let mut kept = self.kept.lock();
        if kept.forgotten != ticket.0 {
            return;
        }
        let at = Instant::now();
        kept.replace_generation(at, self.keep);
        kept.old.remove(&mark);
        kept.new.insert(mark, Entry { found, user: user.clone(), at });
    }

    /// Forgets one password.
    pub(super) fn forget_mark(&self, mark: &Mark) {
        let mut kept = self.kept.lock();
        kept.new.remove(mark);
        kept.old.remove(mark);
    }

    /// Forgets a user's passwords, or all passwords.
    pub(super) fn forget(&self, user: Option<&UserName>) {
        let mut kept = self.kept.lock();
        kept.forgotten += 1;
        let is_other = |entry: &mut Entry<T>| user.is_some_and(|user| entry.user != *user);
        kept.new.retain(|_, entry| is_other(entry));
        kept.old.retain(|_, entry| is_other(entry));
    }
}

impl<T> Kept<T> {
    fn new() -> Self {
        Self { new: HashMap::new(), old: HashMap::new(), since: Instant::now(), forgotten: 0 }
    }

    /// Drops the older generation when the newer one is large or old enough.
    fn replace_generation(&mut self, now: Instant, keep: Duration) {
        let age = now.saturating_duration_since(self.since);
        if age >= keep || self.new.len() >= REMEMBERED {
            self.old = if age >= 2 * keep { HashMap::new() } else { mem::take(&mut self.new) };
            self.new.clear();
            self.since = now;
        }
    }
}

/// Does not show the key.
impl<T> fmt::Debug for Memory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    #[test]
    fn a_password_is_remembered_with_its_name_and_what_the_source_said() {
        let memory = Memory::new(HOUR);
        let mark =
            |name: &str, said: &str, password: &str| memory.mark(&user(name), said.as_bytes(), password.as_bytes());
        memory.remember(memory.ticket(), &user("ana"), mark("ana", "field", "password"), 7);
        assert_eq!(memory.recall(&mark("ana", "field", "password")).unwrap().0, 7);
        for (name, said, password) in
            [("an", "afield", "password"), ("ana", "fieldp", "assword"), ("bob", "field", "password")]
        {
            assert!(memory.recall(&mark(name, said, password)).is_none());
        }
        assert_ne!(mark("a", "b", "c"), Memory::<()>::new(HOUR).mark(&user("a"), b"b", b"c"));
    }

    #[test]
    fn what_is_remembered_is_bounded_in_number_and_time() {
        let memory = Memory::new(HOUR);
        let ana = user("ana");
        let mark = |n: usize| memory.mark(&ana, b"", &n.to_le_bytes());
        (0..5 * REMEMBERED / 2).for_each(|n| memory.remember(memory.ticket(), &ana, mark(n), ()));
        let mut kept = memory.kept.lock();
        assert_eq!((kept.new.len(), kept.old.len()), (REMEMBERED / 2, REMEMBERED));
        let since = kept.since;
        kept.replace_generation(since + HOUR, HOUR);
        assert_eq!((kept.new.len(), kept.old.len()), (0, REMEMBERED / 2));
        kept.replace_generation(since + 4 * HOUR, HOUR);
        assert_eq!((kept.new.len(), kept.old.len()), (0, 0));
    }

    #[test]
    fn what_was_found_out_before_a_user_is_forgotten_is_not_remembered_afterwards() {
        let memory = Memory::new(HOUR);
        let [ana, bob] = ["ana", "bob"].map(user);
        let [of_ana, of_bob] = [&ana, &bob].map(|user| memory.mark(user, b"", b"x"));
        memory.remember(memory.ticket(), &ana, of_ana, ());
        memory.remember(memory.ticket(), &bob, of_bob, ());
        let before = memory.ticket();
        memory.forget(Some(&ana));
        memory.remember(before, &ana, of_ana, ());
        assert!(memory.recall(&of_ana).is_none() && memory.recall(&of_bob).is_some());
        memory.forget(None);
        assert!(memory.recall(&of_bob).is_none());
    }
}
