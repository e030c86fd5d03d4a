//! The arguments of commands, as they are read from a line and written to it.

use std::fmt::{self, Formatter};

use ipnet::IpNet;
use log::Level;

use super::ErrorCode;
use super::text::{self, decoded};
use crate::auth::Hidden;
use crate::faults::What;
use crate::net::{network_text, parse_network};

/// The most octets of an argument.
const LIMIT: usize = 128;

/// Returns true if `text` can be sent as an argument: 1 to 128 octets, no space, no control character.
#[must_use]
pub(crate) fn is_argument(text: &str) -> bool {
    (1..=LIMIT).contains(&text.len()) && !text.chars().any(|c| c == ' ' || c.is_control())
}

/// Checks a word of a line.
pub(super) fn from_octets(word: &[u8]) -> Result<&str, ErrorCode> {
    std::str::from_utf8(word).ok().filter(|text| is_argument(text)).ok_or(ErrorCode::BadSyntax)
}

/// A type of argument.
pub(super) trait Argument: Sized {
    /// Reads it from one word, which has been checked; `None` if it is malformed.
    fn read(word: &str) -> Option<Self>;

    /// Writes it as one word.
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result;

    /// Reads it from the next word of a line.
    fn from_words<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Self, ErrorCode> {
        words.next().and_then(Self::read).ok_or(ErrorCode::BadSyntax)
    }

    /// Appends it to a line.
    fn put(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(" ")?;
        self.write(f)
    }
}

/// A text as it is, as in version 1.0.
impl Argument for String {
    fn read(word: &str) -> Option<Self> {
        Some(word.to_owned())
    }

    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl Argument for Hidden<String> {
    fn read(word: &str) -> Option<Self> {
        String::read(word).map(Hidden)
    }

    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.write(f)
    }
}

/// A text that is percent-encoded on the wire where it needs to be, so that a name which an answer of version 1.1
/// contains can be sent as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded(pub String);

impl Argument for Encoded {
    fn read(word: &str) -> Option<Self> {
        decoded(word).filter(|text| !text.is_empty()).map(Self)
    }

    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&text::sparingly_encoded(&self.0))
    }
}

impl<T: Argument> Argument for Option<T> {
    fn read(word: &str) -> Option<Self> {
        T::read(word).map(Some)
    }

    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.as_ref().map_or(Ok(()), |argument| argument.write(f))
    }

    fn from_words<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Self, ErrorCode> {
        words.next().map(|word| T::read(word).ok_or(ErrorCode::BadSyntax)).transpose()
    }

    fn put(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.as_ref().map_or(Ok(()), |argument| argument.put(f))
    }
}

/// A decimal integer, perhaps negative. One that is too large for the type is out of every range anyway, so it
/// saturates.
impl Argument for i64 {
    fn read(word: &str) -> Option<Self> {
        let (digits, bound) = match word.strip_prefix('-') {
            Some(digits) => (digits, Self::MIN),
            None => (word, Self::MAX),
        };
        is_digits(digits).then(|| word.parse().unwrap_or(bound))
    }

    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The number of a connection. One that is too large saturates: it is no connection's.
impl Argument for u64 {
    fn read(word: &str) -> Option<Self> {
        is_digits(word).then(|| word.parse().unwrap_or(Self::MAX))
    }

    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Seconds, or a count. One that is too large is malformed: a ban must not end sooner than the admin has said.
impl Argument for u32 {
    fn read(word: &str) -> Option<Self> {
        is_digits(word).then(|| word.parse().ok()).flatten()
    }

    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

/// A network, or an address, which is the network of that address alone. An IPv4 address that is written as an IPv6 one
/// is the IPv4 address.
impl Argument for IpNet {
    fn read(word: &str) -> Option<Self> {
        parse_network(word)
    }

    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&network_text(self))
    }
}

/// A fault on demand.
impl Argument for What {
    fn read(word: &str) -> Option<Self> {
        word.parse().ok()
    }

    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Argument for Level {
    fn read(word: &str) -> Option<Self> {
        Self::iter().find(|level| word == text::level(*level))
    }

    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(text::level(*self))
    }
}

/// `0` or `1`.
impl Argument for bool {
    fn read(word: &str) -> Option<Self> {
        match word {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }

    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if *self { "1" } else { "0" })
    }
}
