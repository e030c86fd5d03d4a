//! Failed logins by address. A few cost nothing; then the address is refused for a second, two, four … after each.
//!
//! The same wrong credentials again are no guess: a mail program with an old password, which tries each minute, does
//! not make it worse. Credentials that were right are let through all the same, so that a user who shares an address
//! with a guesser is not locked out; but only among the first that are refused, or the guesser could find them out.

use std::fmt;
use std::time::{Duration, Instant};

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

/// How long an address whose failures are no longer free waits for the outcome of a try, if that takes so long: others
/// at the same time would be guesses that cost nothing. About as long as a login waits to be verified.
const LOOK: Duration = Duration::from_secs(5);

/// Credentials that are tried, as a keyed hash; none when it cannot be told whether they were tried before.
#[derive(Debug, Clone, Copy)]
pub struct Attempt(pub(super) Option<u64>);

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

impl Penalties {
    /// What keeps an attempt from being looked at, if anything does.
    pub(super) fn of(&mut self, source: Source, attempt: Attempt, now: Instant) -> Option<Penalty> {
        let failures = self.failures.get_mut(&source)?;
        let left = failures.refused_until.saturating_duration_since(now);
        if left.is_zero() {
            return None;
        }
        failures.refused = failures.refused.saturating_add(1);
        let known = failures.refused <= LOOKED_AT && self.was_right(attempt);
        (!known).then_some(Penalty(left))
    }

    fn was_right(&self, attempt: Attempt) -> bool {
        attempt.0.is_some_and(|hash| self.right.get(&hash).is_some())
    }

    /// An attempt is looked at.
    pub(super) fn looked_at(&mut self, source: Source, attempt: Attempt, now: Instant) {
        if !self.was_right(attempt)
            && let Some(failures) = self.failures.get_mut(&source)
            && failures.count >= FREE
        {
            failures.refused_until = now + LOOK;
        }
    }

    pub(super) fn failed(&mut self, source: Source, attempt: Attempt, now: Instant) {
        let count = self.failures.get(&source).map_or(0, |(last, Failures { count, .. })| {
            let forgotten = now.saturating_duration_since(last).as_secs() / DECAY.as_secs();
            count.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
        });
        let most = if attempt.0.is_some_and(|hash| self.wrong.get(&hash).is_some()) { REPEATED } else { MOST };
        let count = (count + 1).min(most.max(count));
        self.failures.put(source, Failures { count, refused_until: now + penalty(count), refused: 0 }, now);
        if let Some(hash) = attempt.0 {
            self.wrong.put(hash, (), now);
            self.right.remove(&hash);
        }
    }

    pub(super) fn succeeded(&mut self, source: Source, attempt: Attempt, now: Instant) {
        if !self.was_right(attempt)
            && let Some(failures) = self.failures.get_mut(&source)
        {
            failures.refused_until = now;
        }
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

    fn guess(number: u64) -> Attempt {
        Attempt(Some(number))
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
        penalties.failed(source(), Attempt(None), now);
        assert_eq!(penalties.of(source(), Attempt(None), now), Some(Penalty(LONGEST)));
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
        penalties.succeeded(source(), guess(1000), now);
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
        penalties.succeeded(source(), guess(1000), now);
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

    #[test]
    fn guesses_at_one_time_are_one_after_the_other() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        guesses(&mut penalties, &mut now, 0..6);
        penalties.looked_at(source(), guess(6), now);
        assert_eq!(penalties.of(source(), guess(7), now), Some(Penalty(LOOK)));
        penalties.failed(source(), guess(6), now);
        assert_eq!(penalties.of(source(), guess(7), now), Some(Penalty(FIRST)));
        now += FIRST;
        penalties.looked_at(source(), guess(7), now);
        penalties.succeeded(source(), guess(7), now);
        assert_eq!(penalties.of(source(), guess(8), now), None);
        // Those that cannot be told apart, too.
        penalties.looked_at(source(), Attempt(None), now);
        assert_eq!(penalties.of(source(), Attempt(None), now), Some(Penalty(LOOK)));
        penalties.succeeded(source(), Attempt(None), now);
        assert_eq!(penalties.of(source(), Attempt(None), now), None);
        // Who is known keeps nobody waiting, and shortens nobody's penalty.
        penalties.looked_at(source(), guess(7), now);
        assert_eq!(penalties.of(source(), guess(8), now), None);
        penalties.failed(source(), guess(8), now);
        penalties.succeeded(source(), guess(7), now);
        assert!(penalties.of(source(), guess(9), now).is_some());
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
