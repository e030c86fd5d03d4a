//! For how long the messages of one account are kept, where that differs from the rule for all.

use std::str;

/// For how long messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeptFor {
    /// For this number of days.
    Days(u32),
    /// Without end.
    Ever,
}

/// An account's own rules for mail that expires. What is `None` follows the rule for all accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnExpiry {
    /// How long messages are kept after they were first retrieved as a whole.
    pub read: Option<KeptFor>,
    /// How long they are kept after they have arrived.
    pub all: Option<KeptFor>,
}

impl OwnExpiry {
    /// The most days: ten years.
    pub const MOST_DAYS: u32 = 3660;

    /// Reads the account's fields `userdb_expire_read` and `userdb_expire_all`, which are numbers of days or `never`. `field`
    /// returns the value of a field. Returns the name of a field whose value is wrong as an error.
    pub(super) fn read<'f>(field: impl Fn(&str) -> Option<&'f [u8]>) -> Result<Self, &'static str> {
        let kept_for = |name: &'static str| field(name).map(|value| parse(value).ok_or(name)).transpose();
        Ok(Self { read: kept_for("userdb_expire_read")?, all: kept_for("userdb_expire_all")? })
    }

    /// Returns the values of the two fields. That of a rule which the account does not have is empty.
    pub(super) fn fields(self) -> [String; 2] {
        [self.read, self.all].map(|kept| match kept {
            None => String::new(),
            Some(KeptFor::Ever) => "never".to_owned(),
            Some(KeptFor::Days(days)) => days.to_string(),
        })
    }

    /// Reads the values that [`OwnExpiry::fields`] has returned.
    pub(super) fn of_fields(values: [&[u8]; 2]) -> Option<Self> {
        let [read, all] = values.map(|value| if value.is_empty() { Some(None) } else { parse(value).map(Some) });
        Some(Self { read: read?, all: all? })
    }
}

fn parse(value: &[u8]) -> Option<KeptFor> {
    if value == b"never" {
        return Some(KeptFor::Ever);
    }
    let digits = str::from_utf8(value).ok().filter(|text| text.bytes().all(|octet| octet.is_ascii_digit()))?;
    digits.parse().ok().filter(|days| *days <= OwnExpiry::MOST_DAYS).map(KeptFor::Days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_decimal_and_bounded() {
        for (value, kept_for) in [("0", 0), ("30", 30), ("3660", 3660)] {
            assert_eq!(parse(value.as_bytes()), Some(KeptFor::Days(kept_for)));
        }
        assert_eq!(parse(b"never"), Some(KeptFor::Ever));
        for bad in ["", "3661", "-1", "+1", "30d", "Never", "1.0", " 1", "99999999999"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(b"\xff"), None);
    }
}
