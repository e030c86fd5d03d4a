//! Failed logins by address. A few cost nothing; then the address is refused for a second, two, four … after each.
//!
//! The same wrong credentials again are no guess: a mail program with an old password, which tries each minute, does
//! not make it worse. Credentials that were right are let through all the same, so that a user who shares an address
//! with a guesser is not locked out; but only among the first that are refused, or the guesser could find them out.
//!
//! An attempt counts as failed from its beginning until it has succeeded, so that guesses at the same time are no cheaper
//! than one after the other. It is not refused for that: it waits until enough of the others are decided, since many
//! users behind one address may log in at the same time.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Condvar;

use super::Source;
use super::recent::Recent;

/// Failures that cost nothing. A mail program tries a mistyped password by each mechanism it knows, which is three;
/// twice.
const FREE: u32 = 6;

/// What the same credentials again can come to, at the most: this is for who sends them in a loop.
const REPEATED: u32 = FREE + 2;

/// Where the penalty grows no more.
const MOST: u32 = FREE + 7;

/// The penalty after the first failure that is not free; each further one doubles it.
const FIRST: Duration = Duration::from_secs(1);

/// The longest penalty: a guesser has 60 tries an hour, a user waits no longer than this.
const LONGEST: Duration = Duration::from_secs(60);

/// Attempts that are looked at in each penalty, for whether they were right before.
const LOOKED_AT: u32 = 16;

/// One failure is forgotten for each such time without any.
const DECAY: Duration = Duration::from_secs(300);

/// Credentials that are tried, as a keyed hash; none when it cannot be told whether they were tried before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tried(pub(super) Option<u64>);

/// What becomes of an attempt that begins.
#[derive(Debug)]
pub(super) enum Begun {
    /// It is looked at, and is undecided until [`Penalties::decided`].
    Undecided,
    /// It is looked at. The credentials were right before, so it does not count.
    Known,
    /// It is not looked at.
    Refused(Penalty),
    /// Others from the address have to be decided first; one of them is told by this.
    Wait(Arc<Condvar>),
}

/// How long an address is refused yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalty(Duration);

/// In seconds, rounded up.
impl fmt::Display for Penalty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_millis().div_ceil(1000))
    }
}

#[derive(Debug, Default)]
pub(super) struct Penalties {
    failures: Recent<Source, Failures>,
    /// Attempts that are being looked at.
    undecided: HashMap<Source, Undecided>,
    /// Credentials that have failed, and that were right.
    wrong: Recent<u64, ()>,
    right: Recent<u64, ()>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    refused_until: Instant,
    /// Attempts since the last failure.
    refused: u32,
}

#[derive(Debug, Default)]
struct Undecided {
    count: u32,
    changed: Arc<Condvar>,
}

impl Penalties {
    /// An attempt begins.
    pub(super) fn begin(&mut self, source: Source, attempt: Tried, now: Instant) -> Begun {
        if let Some(penalty) = self.of(source, attempt, now) {
            return Begun::Refused(penalty);
        }
        if self.was_right(attempt) {
            return Begun::Known;
        }
        let failures = self.count(source, now);
        let undecided = self.undecided.entry(source).or_default();
        // The first failure that is not free is looked at, too: it is the one that costs something.
        if undecided.count > 0 && failures + undecided.count > FREE {
            return Begun::Wait(Arc::clone(&undecided.changed));
        }
        undecided.count += 1;
        Begun::Undecided
    }

    /// An attempt that was [`Begun::Undecided`] is over.
    pub(super) fn decided(&mut self, source: Source) {
        if let Some(undecided) = self.undecided.get_mut(&source) {
            undecided.count -= 1;
            if undecided.count > 0 {
                undecided.changed.notify_one();
            } else {
                undecided.changed.notify_all(); // the next one to be looked at has another condition variable
                self.undecided.remove(&source);
            }
        }
    }

    /// What keeps an attempt from being looked at, if anything does.
    fn of(&mut self, source: Source, attempt: Tried, now: Instant) -> Option<Penalty> {
        let failures = self.failures.get_mut(&source)?;
        let left = failures.refused_until.saturating_duration_since(now);
        if left.is_zero() {
            return None;
        }
        failures.refused = failures.refused.saturating_add(1);
        let known = failures.refused <= LOOKED_AT && self.was_right(attempt);
        (!known).then_some(Penalty(left))
    }

    fn was_right(&self, attempt: Tried) -> bool {
        attempt.0.is_some_and(|hash| self.right.get(&hash).is_some())
    }

    /// The failures that are not forgotten.
    fn count(&self, source: Source, now: Instant) -> u32 {
        self.failures.get(&source).map_or(0, |(last, Failures { count, .. })| {
            let forgotten = now.saturating_duration_since(last).as_secs() / DECAY.as_secs();
            count.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
        })
    }

    pub(super) fn failed(&mut self, source: Source, attempt: Tried, now: Instant) {
        let count = self.count(source, now);
        let most = if attempt.0.is_some_and(|hash| self.wrong.get(&hash).is_some()) { REPEATED } else { MOST };
        let count = (count + 1).min(most.max(count));
        self.failures.put(source, Failures { count, refused_until: now + penalty(count), refused: 0 }, now);
        if let Some(hash) = attempt.0 {
            self.wrong.put(hash, (), now);
            self.right.remove(&hash);
        }
        if let Some(undecided) = self.undecided.get(&source) {
            undecided.changed.notify_all(); // there may be a penalty now
        }
    }

    pub(super) fn succeeded(&mut self, attempt: Tried, now: Instant) {
        if let Some(hash) = attempt.0 {
            self.right.put(hash, (), now);
            self.wrong.remove(&hash);
        }
    }
}

fn penalty(failures: u32) -> Duration {
    match failures.checked_sub(FREE + 1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn source() -> Source {
        Source::from("192.0.2.1".parse::<IpAddr>().unwrap())
    }

    fn guess(number: u64) -> Tried {
        Tried(Some(number))
    }

    /// Tries one guess after the other, each as soon as it may; the seconds that each had to wait.
    fn guesses(penalties: &mut Penalties, now: &mut Instant, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut waits = Vec::new();
        for number in numbers {
            let wait = penalties.of(source(), guess(number), *now).map_or(Duration::ZERO, |penalty| penalty.0);
            *now += wait;
            assert_eq!(penalties.of(source(), guess(number), *now), None);
            penalties.failed(source(), guess(number), *now);
            waits.push(wait.as_secs());
        }
        waits
    }

    #[test]
    fn a_guesser_gets_slower_to_a_cap() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        let waits = guesses(&mut penalties, &mut now, 0..16);
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        // That it could not be told apart makes no guess cheaper.
        penalties.failed(source(), Tried(None), now);
        assert_eq!(penalties.of(source(), Tried(None), now), Some(Penalty(LONGEST)));
    }

    #[test]
    fn the_same_again_is_no_guess() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        let waits = guesses(&mut penalties, &mut now, [7; 100]);
        assert_eq!(waits.iter().max(), Some(&2));
        // Each minute: it never has to wait, and after a thousand times a typo still costs a few seconds.
        for _ in 0..1000 {
            now += Duration::from_secs(60);
            assert_eq!(guesses(&mut penalties, &mut now, [7]), [0]);
        }
        assert_eq!(guesses(&mut penalties, &mut now, [8, 9]), [2, 4]);
    }

    #[test]
    fn it_does_not_make_a_guessers_penalty_smaller() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        guesses(&mut penalties, &mut now, 0..20);
        assert_eq!(guesses(&mut penalties, &mut now, [19, 19, 19]), [60, 60, 60]);
    }

    #[test]
    fn who_logged_in_before_is_let_through() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        penalties.succeeded(guess(1000), now);
        guesses(&mut penalties, &mut now, 0..20);
        assert_eq!(penalties.of(source(), guess(1000), now), None);
        assert!(penalties.of(source(), guess(1001), now).is_some());
        // Until that is wrong: the password has been changed.
        penalties.failed(source(), guess(1000), now);
        assert!(penalties.of(source(), guess(1000), now).is_some());
    }

    #[test]
    fn what_was_right_cannot_be_found_out_in_a_penalty() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        penalties.succeeded(guess(1000), now);
        guesses(&mut penalties, &mut now, 0..20);
        for number in 2000..2000 + u64::from(LOOKED_AT) {
            assert!(penalties.of(source(), guess(number), now).is_some());
        }
        assert!(penalties.of(source(), guess(1000), now).is_some());
        // The next penalty looks at some again.
        now += LONGEST;
        penalties.failed(source(), guess(3000), now);
        assert_eq!(penalties.of(source(), guess(1000), now), None);
    }

    fn is_looked_at(penalties: &mut Penalties, number: u64, now: Instant) -> bool {
        matches!(penalties.begin(source(), guess(number), now), Begun::Undecided)
    }

    fn waits(penalties: &mut Penalties, number: u64, now: Instant) -> bool {
        matches!(penalties.begin(source(), guess(number), now), Begun::Wait(_))
    }

    #[test]
    fn an_attempt_counts_as_failed_until_it_has_succeeded() {
        let (mut penalties, now) = (Penalties::default(), Instant::now());
        assert!((0..7).all(|number| is_looked_at(&mut penalties, number, now)));
        assert!(waits(&mut penalties, 7, now));
        // A success gives it back, also to those that cannot be told apart.
        penalties.succeeded(guess(0), now);
        penalties.decided(source());
        assert!(matches!(penalties.begin(source(), Tried(None), now), Begun::Undecided));
        assert!(waits(&mut penalties, 7, now));
        // One that has not been looked at after all, since too many were, gives it back, too.
        penalties.decided(source());
        assert!(is_looked_at(&mut penalties, 7, now));
        assert!(waits(&mut penalties, 8, now));
        // A failure does not; the seventh costs a second.
        for number in 1..=7 {
            assert!(waits(&mut penalties, 8, now), "{number}");
            penalties.failed(source(), guess(number), now);
            penalties.decided(source());
        }
        assert_eq!(penalties.of(source(), guess(8), now), Some(Penalty(FIRST)));
        assert!(penalties.undecided.is_empty());
    }

    #[test]
    fn guesses_that_are_not_free_are_one_after_the_other() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        guesses(&mut penalties, &mut now, 0..7);
        now += FIRST;
        assert!(is_looked_at(&mut penalties, 7, now));
        assert!(waits(&mut penalties, 8, now));
        penalties.succeeded(guess(7), now);
        penalties.decided(source());
        // Known credentials keep nobody waiting, and shorten nobody's penalty.
        assert!(matches!(penalties.begin(source(), guess(7), now), Begun::Known));
        assert!(is_looked_at(&mut penalties, 8, now));
        penalties.failed(source(), guess(8), now);
        penalties.decided(source());
        penalties.succeeded(guess(7), now);
        assert!(matches!(penalties.begin(source(), guess(9), now), Begun::Refused(_)));
    }

    #[test]
    fn other_addresses_are_not_touched() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        guesses(&mut penalties, &mut now, 0..20);
        let other = Source::from("192.0.2.2".parse::<IpAddr>().unwrap());
        assert_eq!(penalties.of(other, guess(1), now), None);
    }

    #[test]
    fn failures_are_forgotten() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        guesses(&mut penalties, &mut now, 0..20);
        now += DECAY * MOST;
        assert_eq!(guesses(&mut penalties, &mut now, 20..27), [0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_penalty_is_told_in_whole_seconds() {
        assert_eq!(Penalty(Duration::from_millis(1)).to_string(), "1 s");
        assert_eq!(Penalty(Duration::from_millis(1001)).to_string(), "2 s");
    }
}
