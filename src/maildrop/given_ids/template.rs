//! Dovecot's `pop3_uidl_format`, from which it makes the unique-ids of messages.

use std::fmt;
use std::str::FromStr;

/// Dovecot's `pop3_uidl_format`, such as `%08Xu%08Xv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(u8),
    Variable {
        /// `u` UID, `v` UIDVALIDITY, `f` base name, `g` GUID, `m` MD5 of the header.
        name: u8,
        width: usize,
        is_hex: bool,
    },
}

/// What is known about a message for its unique-id.
#[derive(Debug, Default)]
pub(super) struct Known<'a> {
    pub(super) uid: Option<u32>,
    pub(super) validity: Option<u32>,
    pub(super) base: Option<&'a [u8]>,
    pub(super) guid: Option<&'a [u8]>,
    /// The MD5 of some fields of the header, in hexadecimal digits.
    pub(super) header_hash: Option<&'a [u8]>,
}

impl Default for Format {
    /// Dovecot's own default.
    fn default() -> Self {
        let number = |name| Part::Variable { name, width: 8, is_hex: true };
        Self { text: "%08Xu%08Xv".to_owned(), parts: vec![number(b'u'), number(b'v')] }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut octets = text.bytes().peekable();
        while let Some(octet) = octets.next() {
            if octet != b'%' {
                parts.push(Part::Text(octet));
                continue;
            }
            let mut width = 0;
            while let Some(digit) = octets.next_if(u8::is_ascii_digit) {
                width = (10 * width + usize::from(digit - b'0')).min(70);
            }
            let is_hex = octets.next_if(|&octet| matches!(octet, b'X' | b'x')).is_some();
            match octets.next() {
                Some(b'%') => parts.push(Part::Text(b'%')),
                Some(name @ (b'u' | b'v' | b'f' | b'g' | b'm')) => parts.push(Part::Variable { name, width, is_hex }),
                _ => return Err("it has the variables %u, %v, %f, %g and %m, with X and a width, as %08Xu".to_owned()),
            }
        }
        match parts.is_empty() {
            true => Err("it is empty".to_owned()),
            false => Ok(Self { text: text.to_owned(), parts }),
        }
    }
}

impl Format {
    /// Returns true if the message's UID or the UIDVALIDITY is part of the unique-id.
    pub(super) fn has_numbers(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable { name: b'u' | b'v', .. }))
    }

    /// Returns the unique-id; `None` if something that is part of it is not known.
    pub(super) fn expand(&self, known: &Known<'_>) -> Option<Vec<u8>> {
        let mut id = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(octet) => id.push(*octet),
                Part::Variable { name: b'f', .. } => id.extend_from_slice(known.base?),
                Part::Variable { name: b'g', .. } => id.extend_from_slice(known.guid?),
                Part::Variable { name: b'm', .. } => id.extend_from_slice(known.header_hash?),
                Part::Variable { name, width, is_hex } => {
                    let number = if *name == b'u' { known.uid? } else { known.validity? };
                    // Dovecot writes small letters, whichever way X is written.
                    let text = if *is_hex { format!("{number:0width$x}") } else { format!("{number:0width$}") };
                    id.extend_from_slice(text.as_bytes());
                }
            }
        }
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_shown_as_it_was_typed() {
        for text in ["%08Xu%08Xv", "UID%u-%v", "%m", "100%%%f"] {
            assert_eq!(text.parse::<Format>().unwrap().to_string(), text);
        }
        assert_eq!(Format::default().to_string().parse::<Format>(), Ok(Format::default()));
        for wrong in ["", "%", "%z", "%08X"] {
            assert!(wrong.parse::<Format>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn there_is_no_unique_id_if_a_part_of_it_is_unknown() {
        let known = Known { uid: Some(1), header_hash: Some(b"ab"), ..Known::default() };
        for (format, expected) in [("%u%m", Some("1ab")), ("%v", None), ("%g", None), ("%f", None)] {
            let expected = expected.map(|id| id.as_bytes().to_vec());
            assert_eq!(format.parse::<Format>().unwrap().expand(&known), expected, "{format}");
        }
    }
}
