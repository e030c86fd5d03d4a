//! Remembers what was found out about passwords a short while ago. Only hashes with a key of this process are kept.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::mem;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::name::UserName;
use super::scram::hmac;

/// The size at which a generation of right passwords is replaced. There are two generations, so the last 100,000 users are
/// remembered and at most 200,000. Only users who have logged in are among them.
pub(super) const RIGHT: usize = 100_000;

/// The size at which a generation of wrong passwords is replaced. It is smaller because anybody can send wrong passwords, and
/// they are only remembered for a moment.
pub(super) const WRONG: usize = 10_000;

/// The hash under which something is remembered. It has 128 bits and a key, so that nobody can find another password with the
/// same hash.
pub(super) type Mark = [u8; 16];

/// A state of the memory. What is found out for a login is not remembered if the user was forgotten meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// What was found out about passwords: a `T` for each.
///
/// A generation is replaced when it is as old as `keep` or full, so something is kept for once or twice this time.
pub(super) struct Memory<T> {
    key: [u8; 32],
    /// Hashes the names of users.
    names: RandomState,
    keep: Duration,
    /// The size at which a generation is replaced.
    most: usize,
    kept: Mutex<Kept<T>>,
}

struct Kept<T> {
    new: Generation<T>,
    old: Generation<T>,
    /// How often something was forgotten on request.
    forgotten: u64,
}

struct Generation<T> {
    since: Instant,
    entries: HashMap<Mark, Entry<T>>,
}

/// There may be hundreds of thousands of these, so they are small.
struct Entry<T> {
    found: T,
    /// A hash of the user's name. To forget one user may forget another one with the same hash, too.
    user: u32,
    /// When it was found out, in milliseconds since the generation began.
    at: u32,
}

impl<T: Clone> Memory<T> {
    /// Keeps everything for `keep` at least, unless there is more than `most`.
    pub(super) fn new(keep: Duration, most: usize) -> Self {
        let kept = Kept { new: Generation::begin(), old: Generation::begin(), forgotten: 0 };
        Self { key: super::random(), names: RandomState::new(), keep, most, kept: Mutex::new(kept) }
    }

    /// Returns the hash under which something is remembered of a user's password. What the source has said goes into it, so
    /// that the password is forgotten when the source says something else.
    pub(super) fn mark(&self, user: &UserName, said: &[u8], password: &[u8]) -> Mark {
        let length = |octets: &[u8]| octets.len().to_le_bytes();
        let parts = [user.as_str().as_bytes(), said, password];
        let hash = hmac(&self.key, &parts.map(|part| [&length(part)[..], part].concat()).concat());
        let mut mark = Mark::default();
        mark.copy_from_slice(&hash[..size_of::<Mark>()]);
        mark
    }

    /// The state before something is found out.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.kept.lock().forgotten)
    }

    /// Returns what is remembered, and for how long it has been.
    pub(super) fn recall(&self, mark: &Mark) -> Option<(T, Duration)> {
        let mut kept = self.kept.lock();
        let now = Instant::now();
        kept.replace_generation(now, self.keep, self.most);
        kept.new.recall(mark, now).or_else(|| kept.old.recall(mark, now))
    }

    /// Remembers what was found out since the ticket was drawn.
    pub(super) fn remember(&self, ticket: Ticket, user: &UserName, mark: Mark, found: T) {
        let user = self.hash(user);
        let mut kept = self.kept.lock();
        if kept.forgotten != ticket.0 {
            return;
        }
        let now = Instant::now();
        kept.replace_generation(now, self.keep, self.most);
        kept.old.entries.remove(&mark);
        let at = u32::try_from(now.saturating_duration_since(kept.new.since).as_millis()).unwrap_or(u32::MAX);
        kept.new.entries.insert(mark, Entry { found, user, at });
    }

    /// Forgets one password.
    pub(super) fn forget_mark(&self, mark: &Mark) {
        let mut kept = self.kept.lock();
        kept.new.entries.remove(mark);
        kept.old.entries.remove(mark);
    }

    /// Forgets a user's passwords, or all passwords.
    pub(super) fn forget(&self, user: Option<&UserName>) {
        let user = user.map(|user| self.hash(user));
        let mut kept = self.kept.lock();
        kept.forgotten += 1;
        let is_other = |_: &Mark, entry: &mut Entry<T>| user.is_some_and(|user| entry.user != user);
        kept.new.entries.retain(is_other);
        kept.old.entries.retain(is_other);
    }

    /// Forgets the passwords of which this was found out.
    pub(super) fn forget_if(&self, is_meant: impl Fn(&T) -> bool) {
        let mut kept = self.kept.lock();
        kept.forgotten += 1;
        let is_other = |_: &Mark, entry: &mut Entry<T>| !is_meant(&entry.found);
        kept.new.entries.retain(is_other);
        kept.old.entries.retain(is_other);
    }

    /// The hash of a user's name that an entry has.
    fn hash(&self, user: &UserName) -> u32 {
        (self.names.hash_one(user) >> 32) as u32
    }
}

impl<T: Clone> Generation<T> {
    fn begin() -> Self {
        Self { since: Instant::now(), entries: HashMap::new() }
    }

    fn recall(&self, mark: &Mark, now: Instant) -> Option<(T, Duration)> {
        let Entry { found, at, .. } = self.entries.get(mark)?;
        let age = now.saturating_duration_since(self.since + Duration::from_millis((*at).into()));
        Some((found.clone(), age))
    }
}

impl<T: Clone> Kept<T> {
    /// Drops the older generation when the newer one is large or old enough.
    fn replace_generation(&mut self, now: Instant, keep: Duration, most: usize) {
        let age = now.saturating_duration_since(self.new.since);
        if age >= keep || self.new.entries.len() >= most {
            let new = mem::replace(&mut self.new, Generation { since: now, entries: HashMap::new() });
            self.old = if age >= 2 * keep { Generation::begin() } else { new };
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
        let memory = Memory::new(HOUR, 100);
        let mark =
            |name: &str, said: &str, password: &str| memory.mark(&user(name), said.as_bytes(), password.as_bytes());
        memory.remember(memory.ticket(), &user("ana"), mark("ana", "field", "password"), 7);
        assert_eq!(memory.recall(&mark("ana", "field", "password")).unwrap().0, 7);
        for (name, said, password) in
            [("an", "afield", "password"), ("ana", "fieldp", "assword"), ("bob", "field", "password")]
        {
            assert!(memory.recall(&mark(name, said, password)).is_none());
        }
        assert_ne!(mark("a", "b", "c"), Memory::<()>::new(HOUR, 100).mark(&user("a"), b"b", b"c"));
    }

    #[test]
    fn what_is_remembered_is_bounded_in_number_and_time() {
        let memory = Memory::new(HOUR, 100);
        let ana = user("ana");
        let mark = |n: usize| memory.mark(&ana, b"", &n.to_le_bytes());
        (0..250).for_each(|n| memory.remember(memory.ticket(), &ana, mark(n), ()));
        let mut kept = memory.kept.lock();
        let sizes = |kept: &Kept<()>| (kept.new.entries.len(), kept.old.entries.len());
        assert_eq!(sizes(&kept), (50, 100));
        let since = kept.new.since;
        kept.replace_generation(since + HOUR, HOUR, 100);
        assert_eq!(sizes(&kept), (0, 50));
        kept.replace_generation(since + 4 * HOUR, HOUR, 100);
        assert_eq!(sizes(&kept), (0, 0));
    }

    /// 100,000 accounts of a hosting set-up are to fit into a few megabytes.
    #[test]
    fn all_users_of_a_large_host_are_remembered() {
        let memory = Memory::new(HOUR, RIGHT);
        let mark = |n: usize| -> Mark { std::array::from_fn(|at| n.to_le_bytes()[at % 8]) };
        let ana = user("ana");
        (0..RIGHT + 1).for_each(|n| memory.remember(memory.ticket(), &ana, mark(n), ()));
        assert!((0..RIGHT + 1).all(|n| memory.recall(&mark(n)).is_some()));
        assert_eq!((size_of::<(Mark, Entry<()>)>(), size_of::<(Mark, Entry<Box<[u8]>>)>()), (24, 40));
    }

    #[test]
    fn an_age_counts_from_the_moment_at_which_it_was_found_out() {
        let memory = Memory::new(HOUR, 1);
        let ana = user("ana");
        let marks = ["1", "2"].map(|password| memory.mark(&ana, b"", password.as_bytes()));
        marks.iter().for_each(|mark| memory.remember(memory.ticket(), &ana, *mark, ()));
        let kept = memory.kept.lock();
        let (old, new) = (kept.old.since, kept.new.since);
        assert_eq!(kept.old.recall(&marks[0], old + HOUR).map(|(found, age)| (found, age <= HOUR)), Some(((), true)));
        assert_eq!(kept.new.recall(&marks[1], new + HOUR).map(|(found, age)| (found, age <= HOUR)), Some(((), true)));
        assert!(kept.new.recall(&marks[1], new + 2 * HOUR).unwrap().1 > HOUR);
    }

    #[test]
    fn what_was_found_out_before_a_user_is_forgotten_is_not_remembered_afterwards() {
        let memory = Memory::new(HOUR, 100);
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
