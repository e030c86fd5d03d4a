//! Users' names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A user's name. It is also the name of a directory in the mail directory, so it is a single path component without a
/// leading dot. It has no `:`, which ends the name in `NAME:PASSWORD`, and no leading `#`, which begins a comment in a
/// users file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Arc<str>);

impl UserName {
    /// The most octets that a name can have. This is the limit of an argument in PEEP.
    const LIMIT: usize = 128;

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        let fits = (1..=Self::LIMIT).contains(&name.len());
        let plain = !name.chars().any(|c| matches!(c, '/' | ':' | ' ') || c.is_control());
        if fits && plain && !name.starts_with(['.', '#']) { Ok(Self(name.into())) } else { Err(InvalidName) }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<&str> for UserName {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

/// The error for a text that cannot be a user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidName;

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a user's name has 1 to 128 octets, no '/', ':', space or control character, and no '.' or '#' in front",
        )
    }
}

impl std::error::Error for InvalidName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_visible_path_component() {
        for name in ["", ".", "..", ".hidden", "a/b", "/", "a b", "a:b", "a\0", "a\n", "#a", &"x".repeat(129)] {
            assert_eq!(name.parse::<UserName>(), Err(InvalidName), "{name:?}");
        }
        for name in ["user", "user@example.org", "josé", "a..b", &"x".repeat(128)] {
            assert!(name.parse::<UserName>().is_ok(), "{name}");
        }
    }
}
