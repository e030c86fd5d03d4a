//! Octets by day.

use std::fmt;
use std::str::FromStr;

use time::{Date, OffsetDateTime};

/// How many days are kept, the present one included.
pub const MOST_DAYS: u32 = 30;

const SECONDS: u64 = 86_400;

/// A day in UTC: its number since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(u32);

impl Day {
    /// The day of a time in seconds since 1970.
    #[must_use]
    pub fn of(seconds: u64) -> Self {
        Self(u32::try_from(seconds / SECONDS).unwrap_or(u32::MAX))
    }

    /// Returns true if this day is one of the last ones that are kept.
    fn is_kept(self, today: Self) -> bool {
        today.0 < self.0.saturating_add(MOST_DAYS)
    }
}

/// `2026-11-28`
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::from(self.0) * SECONDS.cast_signed();
        let date = OffsetDateTime::from_unix_timestamp(seconds).map_or(Date::MAX, OffsetDateTime::date);
        write!(f, "{date}")
    }
}

/// The octets that a user has retrieved on each of the last [`MOST_DAYS`] days, oldest first. Days without any are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Days(Vec<(Day, u64)>);

impl Days {
    /// Adds octets of `today`. Later days are those of a clock that was wrong, so their octets count as today's.
    pub(super) fn add(&mut self, today: Day, octets: u64) {
        let later = self.0.partition_point(|&(day, _)| day < today);
        let octets = self.0.drain(later..).fold(octets, |sum, (_, octets)| sum.saturating_add(octets));
        if octets > 0 {
            self.0.push((today, octets));
        }
        self.0.retain(|&(day, _)| day.is_kept(today));
    }

    /// The last days, each with its octets.
    pub fn until(&self, today: Day) -> impl Iterator<Item = (Day, u64)> {
        self.0.iter().copied().filter(move |(day, _)| day.is_kept(today))
    }

    /// The octets of `today`, and those of all the last days.
    #[must_use]
    pub fn sums(&self, today: Day) -> (u64, u64) {
        let sum = |of: &dyn Fn(Day) -> bool| {
            self.until(today).filter(|&(day, _)| of(day)).fold(0, |sum: u64, (_, octets)| sum.saturating_add(octets))
        };
        (sum(&|day| day == today), sum(&|_| true))
    }
}

/// `20785:395,20786:12`, or `-`
impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (at, (Day(day), octets)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{day}:{octets}")?;
        }
        Ok(())
    }
}

impl FromStr for Days {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "-" {
            return Ok(Self::default());
        }
        let pair = |pair: &str| {
            let (day, octets) = pair.split_once(':')?;
            Some((Day(day.parse().ok()?), octets.parse().ok()?))
        };
        let days = text.split(',').map(|it| pair(it).ok_or(())).collect::<Result<Vec<_>, ()>>()?;
        let is_in_order = days.is_sorted_by(|(a, _), (b, _)| a < b) && days.len() <= MOST_DAYS as usize;
        if is_in_order { Ok(Self(days)) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(days: &Days) -> String {
        days.to_string()
    }

    #[test]
    fn the_last_days_are_kept() {
        let mut days = Days::default();
        for day in 100..200 {
            days.add(Day(day), 5);
            days.add(Day(day), u64::from(day));
        }
        assert_eq!(days.0.len(), MOST_DAYS as usize);
        assert_eq!((days.0[0], days.0[29]), ((Day(170), 175), (Day(199), 204)));
        assert_eq!(days.sums(Day(199)).0, 204);
        days.add(Day(1000), 0);
        assert_eq!(text(&days), "-");
    }

    /// A report that is asked for later leaves out what is too old.
    #[test]
    fn old_days_are_not_shown() {
        let days: Days = "100:1,105:2,129:4".parse().unwrap();
        assert_eq!([129, 130, 134, 135, 200].map(|day| days.sums(Day(day)).1), [7, 6, 6, 4, 0]);
        assert_eq!([129, 130].map(|day| days.sums(Day(day)).0), [4, 0]);
    }

    #[test]
    fn what_a_wrong_clock_has_dated_later_is_of_today() {
        let mut days: Days = "100:1,20000:2,4294967295:4".parse().unwrap();
        days.add(Day(101), 8);
        assert_eq!(text(&days), "100:1,101:14");
        days.add(Day(99), 0);
        assert_eq!(text(&days), "99:15", "the clock goes back by days");
    }

    #[test]
    fn other_text_is_refused() {
        for bad in ["", "1", "1:", ":1", "1:1,", "2:1,1:1", "1:1,1:1", "1:-1", "x:1", "4294967296:1", "1:1 "] {
            assert!(bad.parse::<Days>().is_err(), "{bad}");
        }
        let many = |count: u32| (0..count).map(|day| format!("{day}:1")).collect::<Vec<_>>().join(",");
        assert!(many(30).parse::<Days>().is_ok() && many(31).parse::<Days>().is_err());
    }

    #[test]
    fn a_day_is_a_date() {
        assert_eq!(Day::of(1_795_831_201).to_string(), "2026-11-28");
        assert_eq!(Day::of(u64::MAX).to_string(), Date::MAX.to_string());
    }

    proptest! {
        #[test]
        fn they_are_read_as_written_and_bounded(added in proptest::collection::vec((0..200u32, 0..u64::MAX), 0..100)) {
            let mut days = Days::default();
            for (day, octets) in added {
                days.add(Day(day), octets);
                prop_assert!(days.0.len() <= MOST_DAYS as usize);
                prop_assert_eq!(&text(&days).parse::<Days>().unwrap(), &days);
            }
        }
    }
}
