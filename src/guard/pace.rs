//! Measures how fast a client reads what it is sent. Only the time spent in writes counts, not the time that the client
//! takes between two commands or that a transform takes.

use std::time::{Duration, Instant};

/// The slowest that a client may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate {
    /// Octets per second.
    pub octets: u64,
    /// The time over which the rate is averaged.
    pub span: Duration,
}

/// How much a client has read in the present span, and in what time.
#[derive(Debug, Default)]
pub struct Pace {
    /// The start and the octets of the write in progress.
    writing: Option<(Instant, u64)>,
    /// The time spent in writes that have ended.
    spent: Duration,
    /// The octets that these writes have sent.
    octets: u64,
}

impl Pace {
    /// Records that a write of `octets` begins.
    pub fn begin(&mut self, octets: u64, now: Instant) {
        self.writing = Some((now, octets));
    }

    /// Records that the write has ended after sending `octets`.
    pub fn end(&mut self, octets: u64, now: Instant) {
        self.spent += self.writing.take().map_or(Duration::ZERO, |(since, _)| now.saturating_duration_since(since));
        self.octets += octets;
    }

    /// Returns true if the span is over and the client read too little in it. How much it has read of the write in
    /// progress is unknown, so all of it counts. After a span in which the client read enough, a new one begins with the
    /// next write.
    pub fn is_too_slow(&mut self, min: MinRate, now: Instant) -> bool {
        let (ongoing, writing) = self
            .writing
            .map_or_else(Default::default, |(since, octets)| (now.saturating_duration_since(since), octets));
        let spent = self.spent + ongoing;
        if spent < min.span {
            return false;
        }
        let too_slow = u128::from(self.octets + writing) * 1000 < u128::from(min.octets) * spent.as_millis();
        if !too_slow && self.writing.is_none() {
            *self = Self::default();
        }
        too_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: MinRate = MinRate { octets: 100, span: Duration::from_secs(60) };

    /// Returns true if a client that reads `octets` per second, one write each second, is found too slow within `seconds`.
    fn is_found_too_slow(octets: u64, seconds: u64) -> bool {
        let start = Instant::now();
        let mut pace = Pace::default();
        (0..seconds).any(|second| {
            pace.begin(octets, start + Duration::from_secs(second));
            let now = start + Duration::from_secs(second + 1);
            let during = pace.is_too_slow(MIN, now);
            pace.end(octets, now);
            during || pace.is_too_slow(MIN, now)
        })
    }

    #[test]
    fn the_limit_is_the_configured_rate() {
        assert!(!is_found_too_slow(102, 100_000));
        assert!(is_found_too_slow(98, 61));
        assert!(!is_found_too_slow(0, 59));
        assert!(is_found_too_slow(0, 60));
    }

    #[test]
    fn a_fast_beginning_counts_for_one_span_only() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.begin(1 << 30, start);
        pace.end(1 << 30, start + MIN.span);
        assert!(!pace.is_too_slow(MIN, start + MIN.span));
        pace.begin(1, start + MIN.span);
        assert!(!pace.is_too_slow(MIN, start + MIN.span * 2 - Duration::from_secs(1)));
        assert!(pace.is_too_slow(MIN, start + MIN.span * 2));
    }

    #[test]
    fn a_large_write_may_take_as_long_as_at_the_lowest_rate() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.begin(100_000, start);
        assert!(!pace.is_too_slow(MIN, start + Duration::from_secs(1000)));
        assert!(pace.is_too_slow(MIN, start + Duration::from_secs(1001)));
    }

    #[test]
    fn time_without_a_write_does_not_count() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.begin(1, start);
        pace.end(1, start + Duration::from_secs(1));
        assert!(!pace.is_too_slow(MIN, start + Duration::from_secs(10_000)));
        pace.begin(1, start + Duration::from_secs(10_000));
        assert!(!pace.is_too_slow(MIN, start + Duration::from_secs(10_058)));
        assert!(pace.is_too_slow(MIN, start + Duration::from_secs(10_059)));
    }
}
