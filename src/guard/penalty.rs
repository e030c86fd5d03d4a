//! Penalties for failed logins, by address. The first few failures have no consequence; after each further one, logins from
//! the address are refused for a time that doubles: 1 s, 2 s, 4 s and so on.
//!
//! Repeating the same wrong credentials is not guessing, so a mail program that tries an old password each minute does not
//! raise the penalty. Credentials that were right before are accepted even during a penalty, so that a guesser does not lock
//! out a user who shares the address. That holds only for the first attempts during each penalty; otherwise a guesser
//! could use it to find right credentials.
//!
//! An attempt counts as failed from its beginning until it has succeeded, so guesses at the same time gain nothing over
//! guesses one after the other. Such an attempt is not refused: it waits until enough of the others are finished, because
//! many users behind one address may log in at the same time.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::Condvar;

use super::Source;
use super::recent::Recent;

/// The number of failures without a consequence. A mail program tries a mistyped password with each of the three
/// mechanisms that it may know; this allows for two such rounds.
const FREE: u32 = 6;

/// The most failures that repeating the same wrong credentials can add up to. It slows down programs that send them in a
/// loop.
const REPEATED: u32 = FREE + 2;

/// The most failures that are counted; the penalty has reached [`LONGEST`] there.
const MAX: u32 = FREE + 7;

/// The penalty after the first failure beyond [`FREE`]; each further failure doubles it.
const FIRST: Duration = Duration::from_secs(1);

/// The longest penalty. It leaves a guesser 60 attempts an hour, and a user never waits longer.
const LONGEST: Duration = Duration::from_secs(60);

/// The number of attempts during each penalty whose credentials are compared with those that were right before.
const COMPARED: u32 = 16;

/// One failure is forgotten each time that this long has passed without a new one.
const DECAY: Duration = Duration::from_secs(300);

/// A keyed hash of the credentials of an attempt. `None` if the mechanism hides whether the same credentials were tried
/// before.
#[derive(Debug, Clone, Copy)]
pub(super) struct CredentialsHash(pub(super) Option<u64>);

/// What happens to an attempt that begins.
#[derive(Debug)]
pub(super) enum Begun {
    /// Its credentials are to be verified. It counts as failed until [`Penalties::finished`] is called.
    Pending,
    /// Its credentials are to be verified. They were right before, so it does not count as failed.
    Known,
    /// It is refused.
    Refused(Penalty),
    /// Other attempts from the address have to finish first. The condition variable is notified when one has.
    Wait(Arc<Condvar>),
}

/// How much longer logins from an address are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalty(Duration);

impl Penalty {
    /// The time that is left.
    #[must_use]
    pub fn duration(self) -> Duration {
        self.0
    }
}

/// Formats the time in seconds, rounded up.
impl fmt::Display for Penalty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_millis().div_ceil(1000))
    }
}

/// The failed logins of all addresses.
#[derive(Debug, Default)]
pub(super) struct Penalties {
    failures: Recent<Source, Failures>,
    /// Attempts whose credentials are being verified.
    pending: HashMap<Source, Pending>,
    /// Hashes of credentials that have failed, and of credentials that were right.
    wrong: Recent<u64, ()>,
    right: Recent<u64, ()>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    refused_until: Instant,
    /// Attempts during the present penalty.
    refused: u32,
}

#[derive(Debug, Default)]
struct Pending {
    count: u32,
    changed: Arc<Condvar>,
}

impl Penalties {
    /// Decides what happens to an attempt that begins.
    pub(super) fn begin(&mut self, source: Source, attempt: CredentialsHash, now: Instant) -> Begun {
        if let Some(penalty) = self.of(source, attempt, now) {
            return Begun::Refused(penalty);
        }
        if self.was_right(attempt) {
            return Begun::Known;
        }
        let failures = self.count(source, now);
        let pending = self.pending.entry(source).or_default();
        // The first attempt beyond the free ones is verified without waiting, too: its failure brings the first penalty.
        if pending.count > 0 && failures + pending.count > FREE {
            return Begun::Wait(Arc::clone(&pending.changed));
        }
        pending.count += 1;
        Begun::Pending
    }

    /// Ends an attempt that was [`Begun::Pending`].
    pub(super) fn finished(&mut self, source: Source) {
        if let Some(pending) = self.pending.get_mut(&source) {
            pending.count -= 1;
            if pending.count > 0 {
                pending.changed.notify_one();
            } else {
                pending.changed.notify_all(); // the next pending attempt gets a new condition variable
                self.pending.remove(&source);
            }
        }
    }

    /// Returns the penalty that an attempt is refused for, if there is one.
    fn of(&mut self, source: Source, attempt: CredentialsHash, now: Instant) -> Option<Penalty> {
        let failures = self.failures.get_mut(&source)?;
        let left = failures.refused_until.saturating_duration_since(now);
        if left.is_zero() {
            return None;
        }
        failures.refused = failures.refused.saturating_add(1);
        let known = failures.refused <= COMPARED && self.was_right(attempt);
        (!known).then_some(Penalty(left))
    }

    /// The networks from which logins are refused, each with the time that is left.
    pub(super) fn in_force(&self, now: Instant) -> Vec<(IpNet, Duration)> {
        let left = |failures: &Failures| failures.refused_until.saturating_duration_since(now);
        let all = self.failures.iter().map(|(source, failures)| (IpNet::from(*source), left(failures)));
        all.filter(|(_, left)| !left.is_zero()).collect()
    }

    /// Forgets the failures of a network, if logins from there are refused. Returns false if they are not.
    pub(super) fn lift(&mut self, network: IpNet, now: Instant) -> bool {
        let source = Source::from(network.addr());
        let is_refused = |failures: &mut Failures| now < failures.refused_until;
        let found = IpNet::from(source) == network && self.failures.get_mut(&source).is_some_and(is_refused);
        if found {
            self.failures.remove(&source);
        }
        found
    }

    fn was_right(&self, attempt: CredentialsHash) -> bool {
        attempt.0.is_some_and(|hash| self.right.get(&hash).is_some())
    }

    /// Returns the number of failures that are not forgotten.
    fn count(&self, source: Source, now: Instant) -> u32 {
        self.failures.get(&source).map_or(0, |(last, Failures { count, .. })| {
            let forgotten = now.saturating_duration_since(last).as_secs() / DECAY.as_secs();
            count.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
        })
    }

    /// Counts a failure. Returns the penalty that follows from it, if any does.
    pub(super) fn failed(&mut self, source: Source, attempt: CredentialsHash, now: Instant) -> Option<Penalty> {
        let count = self.count(source, now);
        let most = if attempt.0.is_some_and(|hash| self.wrong.get(&hash).is_some()) { REPEATED } else { MAX };
        let count = (count + 1).min(most.max(count));
        let penalty = penalty(count);
        self.failures.put(source, Failures { count, refused_until: now + penalty, refused: 0 }, now);
        if let Some(hash) = attempt.0 {
            self.wrong.put(hash, (), now);
            self.right.remove(&hash);
        }
        if let Some(pending) = self.pending.get(&source) {
            pending.changed.notify_all(); // there may be a penalty now, so those that wait look again
        }
        (!penalty.is_zero()).then_some(Penalty(penalty))
    }

    pub(super) fn succeeded(&mut self, attempt: CredentialsHash, now: Instant) {
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

    fn guess(number: u64) -> CredentialsHash {
        CredentialsHash(Some(number))
    }

    /// Tries one guess after the other, each as soon as the penalty allows it. Returns the seconds that each had to wait.
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
    fn penalties_double_up_to_the_longest() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        let waits = guesses(&mut penalties, &mut now, 0..16);
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        // A guess whose credentials are hidden by the mechanism has the same penalty.
        penalties.failed(source(), CredentialsHash(None), now);
        assert_eq!(penalties.of(source(), CredentialsHash(None), now), Some(Penalty(LONGEST)));
    }

    #[test]
    fn repeating_the_same_credentials_is_not_guessing() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        let waits = guesses(&mut penalties, &mut now, [7; 100]);
        assert_eq!(waits.iter().max(), Some(&2));
        // A program that repeats them each minute never has to wait, and even after a thousand times another wrong
        // password has a penalty of a few seconds only.
        for _ in 0..1000 {
            now += Duration::from_secs(60);
            assert_eq!(guesses(&mut penalties, &mut now, [7]), [0]);
        }
        assert_eq!(guesses(&mut penalties, &mut now, [8, 9]), [2, 4]);
    }

    #[test]
    fn repeating_the_same_credentials_does_not_lower_a_penalty() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        guesses(&mut penalties, &mut now, 0..20);
        assert_eq!(guesses(&mut penalties, &mut now, [19, 19, 19]), [60, 60, 60]);
    }

    #[test]
    fn credentials_that_were_right_are_accepted_during_a_penalty() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        penalties.succeeded(guess(1000), now);
        guesses(&mut penalties, &mut now, 0..20);
        assert_eq!(penalties.of(source(), guess(1000), now), None);
        assert!(penalties.of(source(), guess(1001), now).is_some());
        // This ends when they fail, because the password has been changed.
        penalties.failed(source(), guess(1000), now);
        assert!(penalties.of(source(), guess(1000), now).is_some());
    }

    #[test]
    fn right_credentials_cannot_be_found_by_guessing_during_a_penalty() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        penalties.succeeded(guess(1000), now);
        guesses(&mut penalties, &mut now, 0..20);
        for number in 2000..2000 + u64::from(COMPARED) {
            assert!(penalties.of(source(), guess(number), now).is_some());
        }
        assert!(penalties.of(source(), guess(1000), now).is_some());
        // During the next penalty, some attempts are compared again.
        now += LONGEST;
        penalties.failed(source(), guess(3000), now);
        assert_eq!(penalties.of(source(), guess(1000), now), None);
    }

    fn is_verified(penalties: &mut Penalties, number: u64, now: Instant) -> bool {
        matches!(penalties.begin(source(), guess(number), now), Begun::Pending)
    }

    fn waits(penalties: &mut Penalties, number: u64, now: Instant) -> bool {
        matches!(penalties.begin(source(), guess(number), now), Begun::Wait(_))
    }

    #[test]
    fn an_attempt_counts_as_failed_until_it_has_succeeded() {
        let (mut penalties, now) = (Penalties::default(), Instant::now());
        assert!((0..7).all(|number| is_verified(&mut penalties, number, now)));
        assert!(waits(&mut penalties, 7, now));
        // A success makes room for another attempt, even if its credentials are hidden by the mechanism.
        penalties.succeeded(guess(0), now);
        penalties.finished(source());
        assert!(matches!(penalties.begin(source(), CredentialsHash(None), now), Begun::Pending));
        assert!(waits(&mut penalties, 7, now));
        // So does an attempt that was never verified, because the server was too busy.
        penalties.finished(source());
        assert!(is_verified(&mut penalties, 7, now));
        assert!(waits(&mut penalties, 8, now));
        // A failure does not; the seventh brings a penalty of one second.
        for number in 1..=7 {
            assert!(waits(&mut penalties, 8, now), "{number}");
            penalties.failed(source(), guess(number), now);
            penalties.finished(source());
        }
        assert_eq!(penalties.of(source(), guess(8), now), Some(Penalty(FIRST)));
        assert!(penalties.pending.is_empty());
    }

    #[test]
    fn attempts_beyond_the_free_ones_are_verified_one_at_a_time() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        guesses(&mut penalties, &mut now, 0..7);
        now += FIRST;
        assert!(is_verified(&mut penalties, 7, now));
        assert!(waits(&mut penalties, 8, now));
        penalties.succeeded(guess(7), now);
        penalties.finished(source());
        // Known credentials make no other attempt wait, and do not shorten a penalty.
        assert!(matches!(penalties.begin(source(), guess(7), now), Begun::Known));
        assert!(is_verified(&mut penalties, 8, now));
        penalties.failed(source(), guess(8), now);
        penalties.finished(source());
        penalties.succeeded(guess(7), now);
        assert!(matches!(penalties.begin(source(), guess(9), now), Begun::Refused(_)));
    }

    #[test]
    fn a_penalty_holds_for_one_address_only() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        guesses(&mut penalties, &mut now, 0..20);
        let other = Source::from("192.0.2.2".parse::<IpAddr>().unwrap());
        assert_eq!(penalties.of(other, guess(1), now), None);
    }

    #[test]
    fn a_penalty_can_be_lifted() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        guesses(&mut penalties, &mut now, 0..20);
        let network = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(penalties.in_force(now), [(network("192.0.2.1/32"), LONGEST)]);
        assert!(!penalties.lift(network("192.0.2.0/24"), now));
        assert!(penalties.lift(network("192.0.2.1/32"), now));
        assert!(!penalties.lift(network("192.0.2.1/32"), now));
        assert_eq!((penalties.of(source(), guess(20), now), penalties.in_force(now)), (None, vec![]));
        let v6 = Source::from("2001:db8::1".parse::<IpAddr>().unwrap());
        assert_eq!(IpNet::from(v6), network("2001:db8::/64"));
    }

    #[test]
    fn failures_are_forgotten_in_time() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        guesses(&mut penalties, &mut now, 0..20);
        now += DECAY * MAX;
        assert_eq!(guesses(&mut penalties, &mut now, 20..27), [0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_penalty_is_printed_in_whole_seconds() {
        assert_eq!(Penalty(Duration::from_millis(1)).to_string(), "1 s");
        assert_eq!(Penalty(Duration::from_millis(1001)).to_string(), "2 s");
    }
}
