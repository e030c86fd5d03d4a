//! Users' names, and the admin's name and password.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::hidden::Hidden;

/// A user's name. It is a directory below the mail root, so it is one path component and no hidden one; where
/// accounts are written `NAME:PASSWORD` a `:` would end it, and a `#` in front would make it a comment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Arc<str>);

impl UserName {
    /// A name's most octets: what fits a PEEP argument.
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

/// Not a user's name.
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

/// A name and what proves it.
#[derive(Debug, Clone)]
pub struct Credentials {
    name: String,
    password: Hidden<Vec<u8>>,
}

impl Credentials {
    /// Any name, any password.
    #[must_use]
    pub fn new(name: &str, password: &[u8]) -> Self {
        Self { name: name.to_owned(), password: Hidden(password.to_owned()) }
    }

    /// Whether these are they; takes as long for a wrong name as for a wrong password.
    #[must_use]
    pub fn match_with(&self, name: &[u8], password: &[u8]) -> bool {
        bool::from(self.name.as_bytes().ct_eq(name) & self.password.0.ct_eq(password))
    }
}

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
