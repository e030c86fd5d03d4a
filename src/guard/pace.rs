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
    /// Since when a write is going on.
    writing_since: Option<Instant>,
    spent: Duration,
    octets: u64,
}

impl Pace {
    /// A write begins.
    pub fn begin(&mut self, now: Instant) {
        self.writing_since = Some(now);
    }

    /// It has ended, and `octets` have gone.
    pub fn end(&mut self, octets: u64, now: Instant) {
        self.spent += self.writing_since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.octets += octets;
    }

    /// Whether the span has gone by and the client took too little in it. After a span in which it took enough, the next
    /// begins.
    pub fn is_too_slow(&mut self, least: MinRate, now: Instant) -> bool {
        let since = self.writing_since;
        let spent = self.spent + since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if spent < least.span {
            return false;
        }
        let too_slow = u128::from(self.octets) * 1000 < u128::from(least.octets) * spent.as_millis();
        if !too_slow {
            *self = Self { writing_since: since.map(|_| now), ..Self::default() };
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
            pace.begin(start + Duration::from_secs(second));
            let now = start + Duration::from_secs(second + 1);
            let too_slow = pace.is_too_slow(LEAST, now);
            pace.end(octets, now);
            too_slow
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
        pace.begin(start);
        pace.end(1 << 30, start);
        pace.begin(start);
        assert!(!pace.is_too_slow(LEAST, start + LEAST.span));
        assert!(!pace.is_too_slow(LEAST, start + LEAST.span * 2 - Duration::from_secs(1)));
        assert!(pace.is_too_slow(LEAST, start + LEAST.span * 2));
    }

    #[test]
    fn time_without_a_write_does_not_count() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.begin(start);
        pace.end(1, start + Duration::from_secs(1));
        assert!(!pace.is_too_slow(LEAST, start + Duration::from_secs(10_000)));
        pace.begin(start + Duration::from_secs(10_000));
        assert!(!pace.is_too_slow(LEAST, start + Duration::from_secs(10_058)));
        assert!(pace.is_too_slow(LEAST, start + Duration::from_secs(10_059)));
    }
}
