//! The fields of the lines of answers of version 1.1, and the macros that declare lines of them.
//!
//! Fields are separated by one space and percent-encoded where they need to be. `-` is a field without a value. Fields
//! behind the last one that is known are ignored, because a newer server may send more.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::text::{self, decoded};
use crate::net::{network_text, parse_network};

/// A line that is not what its command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A field of a line.
pub(super) trait Field: Sized {
    /// Reads it; `None` if it is malformed.
    fn read(word: &str) -> Option<Self>;

    /// Writes it without a space.
    fn write(&self) -> String;

    /// The value for JSON.
    fn json(&self) -> Value;
}

/// Declares a line with its fields.
macro_rules! line {
    ($(#[$attribute:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $($(#[$about])* pub $field: $type,)+
        }

        impl $name {
            /// The names of the fields in their order.
            pub const NAMES: &[&str] = &[$(stringify!($field)),+];

            /// Each field as a value of JSON, in the order of [`Self::NAMES`].
            #[must_use]
            pub fn values(&self) -> Vec<Value> {
                vec![$(self.$field.json()),+]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&[$(self.$field.write()),+].join(" "))
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(line: &str) -> Result<Self, Malformed> {
                let mut words = line.split(' ');
                Ok(Self { $($field: words.next().and_then(<$type>::read).ok_or(Malformed)?,)+ })
            }
        }
    };
}

/// Declares a field that is one of a few words. A client keeps a word that it does not know.
macro_rules! words {
    ($(#[$attribute:meta])* $name:ident { $($variant:ident = $word:literal,)+ }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[allow(missing_docs)] // the words tell
        pub enum $name {
            $($variant,)+
            /// A word of a newer server.
            Other(String),
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                })
            }
        }

        impl Field for $name {
            fn read(word: &str) -> Option<Self> {
                Some(match word {
                    $($word => Self::$variant,)+
                    other => Self::Other(String::read(other)?),
                })
            }

            fn write(&self) -> String {
                self.to_string().write()
            }

            fn json(&self) -> Value {
                self.to_string().into()
            }
        }
    };
}

pub(super) use {line, words};

/// A field without a value.
const NONE: &str = "-";

impl Field for String {
    fn read(word: &str) -> Option<Self> {
        if word.is_empty() { None } else { decoded(word) }
    }

    /// A text that would be read as no value is encoded.
    fn write(&self) -> String {
        if self == NONE { "%2D".to_owned() } else { text::encoded(self).to_string() }
    }

    fn json(&self) -> Value {
        self.as_str().into()
    }
}

impl<T: Field> Field for Option<T> {
    fn read(word: &str) -> Option<Self> {
        if word == NONE { Some(None) } else { T::read(word).map(Some) }
    }

    fn write(&self) -> String {
        self.as_ref().map_or_else(|| NONE.to_owned(), T::write)
    }

    fn json(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::json)
    }
}

impl Field for u64 {
    fn read(word: &str) -> Option<Self> {
        word.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }

    fn json(&self) -> Value {
        (*self).into()
    }
}

impl Field for IpAddr {
    fn read(word: &str) -> Option<Self> {
        word.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }

    fn json(&self) -> Value {
        self.to_string().into()
    }
}

impl Field for IpNet {
    fn read(word: &str) -> Option<Self> {
        parse_network(word)
    }

    fn write(&self) -> String {
        network_text(self)
    }

    fn json(&self) -> Value {
        network_text(self).into()
    }
}
