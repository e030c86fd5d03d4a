//! How fast a client takes what it is sent. Only time spent in writes counts: not the client's between two
//! commands, and not a transform's.

use std::time::{Duration, Instant};

/// The slowest that a client may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate {
    /// Octets a second.
    pub octets: u64,
    /// What they are averaged over.
    pub span: Duration,
}

/// What a client has taken in the present span.
#[derive(Debug, Default)]
pub struct Pace {
    /// Since when a write is going on, and of how many octets.
    writing: Option<(Instant, u64)>,
    spent: Duration,
    octets: u64,
}

impl Pace {
    /// A write of `octets` begins.
    pub fn begin(&mut self, octets: u64, now: Instant) {
        self.writing = Some((now, octets));
    }

    /// It has ended, and `octets` have gone.
    pub fn end(&mut self, octets: u64, now: Instant) {
        self.spent += self.writing.take().map_or(Duration::ZERO, |(since, _)| now.saturating_duration_since(since));
        self.octets += octets;
    }

    /// Whether the span has gone by and the client took too little in it. How much it has taken of a write that goes on
    /// is not known: it may be all. After a span in which it took enough, the next begins with the next write.
    pub fn is_too_slow(&mut self, least: MinRate, now: Instant) -> bool {
        let (ongoing, writing) = self
            .writing
            .map_or_else(Default::default, |(since, octets)| (now.saturating_duration_since(since), octets));
        let spent = self.spent + ongoing;
        if spent < least.span {
            return false;
        }
        let too_slow = u128::from(self.octets + writing) * 1000 < u128::from(least.octets) * spent.as_millis();
        if !too_slow && self.writing.is_none() {
            *self = Self::default();
        }
        too_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: MinRate = MinRate { octets: 100, span: Duration::from_secs(60) };

    /// Whether a client that takes `octets` a second, in a write for each, is given up within `seconds`.
    fn is_given_up(octets: u64, seconds: u64) -> bool {
        let start = Instant::now();
        let mut pace = Pace::default();
        (0..seconds).any(|second| {
            pace.begin(octets, start + Duration::from_secs(second));
            let now = start + Duration::from_secs(second + 1);
            let during = pace.is_too_slow(LEAST, now);
            pace.end(octets, now);
            during || pace.is_too_slow(LEAST, now)
        })
    }

    #[test]
    fn the_slowest_is_as_told() {
        assert!(!is_given_up(102, 100_000));
        assert!(is_given_up(98, 61));
        assert!(!is_given_up(0, 59));
        assert!(is_given_up(0, 60));
    }

    #[test]
    fn a_fast_beginning_does_not_help_for_long() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.begin(1 << 30, start);
        pace.end(1 << 30, start + LEAST.span);
        assert!(!pace.is_too_slow(LEAST, start + LEAST.span));
        pace.begin(1, start + LEAST.span);
        assert!(!pace.is_too_slow(LEAST, start + LEAST.span * 2 - Duration::from_secs(1)));
        assert!(pace.is_too_slow(LEAST, start + LEAST.span * 2));
    }

    #[test]
    fn a_large_write_may_take_as_long_as_the_slowest_takes() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.begin(100_000, start);
        assert!(!pace.is_too_slow(LEAST, start + Duration::from_secs(1000)));
        assert!(pace.is_too_slow(LEAST, start + Duration::from_secs(1001)));
    }

    #[test]
    fn time_without_a_write_does_not_count() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.begin(1, start);
        pace.end(1, start + Duration::from_secs(1));
        assert!(!pace.is_too_slow(LEAST, start + Duration::from_secs(10_000)));
        pace.begin(1, start + Duration::from_secs(10_000));
        assert!(!pace.is_too_slow(LEAST, start + Duration::from_secs(10_058)));
        assert!(pace.is_too_slow(LEAST, start + Duration::from_secs(10_059)));
    }
}
