//! How many sessions one account may have at the same time.

use std::fmt;
use std::num::NonZeroU32;
use std::str;

/// The most sessions that an account may have at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimit(NonZeroU32);

impl SessionLimit {
    /// The field of a users file that sets it.
    pub(super) const FIELD: &str = "userdb_connections";

    /// Reads the value of a field or a column. An empty one and 0 are no limit.
    pub(super) fn read(value: &[u8]) -> Result<Option<Self>, NoNumber> {
        let digits = value.trim_ascii();
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(NoNumber);
        }
        let digits = str::from_utf8(digits).map_err(|_| NoNumber)?;
        let number = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| NoNumber)? };
        Ok(NonZeroU32::new(number).map(Self))
    }

    #[cfg(test)]
    pub(crate) fn of(sessions: u32) -> Option<Self> {
        NonZeroU32::new(sessions).map(Self)
    }

    /// The limit as a number.
    #[must_use]
    pub fn sessions(self) -> u32 {
        self.0.get()
    }
}

/// The error for a value that is no number of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoNumber;

impl fmt::Display for NoNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("has to be a number of sessions, or 0 for no limit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_decimal_number() {
        let read = |value: &str| SessionLimit::read(value.as_bytes()).map(|limit| limit.map(SessionLimit::sessions));
        for (value, limit) in [("1", 1), ("3", 3), ("007", 7), (" 2 ", 2), ("4294967295", u32::MAX)] {
            assert_eq!(read(value), Ok(Some(limit)), "{value}");
        }
        assert_eq!([read(""), read("0"), read("000")], [Ok(None); 3]);
        for bad in ["-1", "+1", "1.5", "two", "1 2", "0x10", "4294967296"] {
            assert_eq!(read(bad), Err(NoNumber), "{bad}");
        }
        assert_eq!(SessionLimit::read(b"\xff"), Err(NoNumber));
    }
}
