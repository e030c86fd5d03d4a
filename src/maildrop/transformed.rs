//! The sizes that messages have after a transform (`--transform-sizes exact`).
//!
//! They are kept in a dot-file beside the index. It only saves work: what is missing there is counted again.
//!
//! ```text
//! pop3d transformed 1
//! 4f1c09aa7d2e5b36 1234 01ab89ef             the octets of a message after a transform
//! 88e0d41f0c9b7a25 !1795831201 9c0d1e2f      the transform failed on this message then
//! 4f1c09aa7d2e5b36 - 5e6f7a8b                the first line was wrong
//! ```
//!
//! The first field is a hash of the message, its user and the transform with its arguments, so another command line has
//! other lines. At the end of a line is the CRC-32 of what precedes it. Lines are appended; the last one about a message
//! counts.

use std::collections::HashMap;
use std::io;

use sha2::{Digest, Sha256};

use super::format::Format;
use super::location::{Location, OwnFiles};
use super::message::{Folder, Message};
use super::{Maildrop, MessageNumber, ages, root};
use crate::clock::seconds_since_1970 as now;

/// The name of the file, and that under which a new one is written.
const FILE: &str = "transformed";

const VERSION: &[u8] = b"pop3d transformed 1\n";

/// How many more lines than messages the file may have before it is written again.
const MANY: usize = 1000;

/// For how many seconds a message on which the transform has failed is not tried again.
const RETRY: u64 = 600;

/// Identifies a transform and all that its output depends on, except for the message.
pub type Fingerprint = [u8; 32];

/// Identifies a message, its user and a transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SizeKey(u64);

/// What is known of a message after a transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransformedSize {
    /// Its size on the wire, byte-stuffing not counted.
    Octets(u64),
    /// The transform failed at this time, in seconds since 1970.
    Failed(u64),
}

impl TransformedSize {
    /// The transform has failed now.
    #[must_use]
    pub fn failed_now() -> Self {
        Self::Failed(now())
    }
}

/// The transformed sizes of a maildrop's messages, in their order.
#[derive(Debug, Default)]
pub(super) struct Transformed {
    keys: Vec<SizeKey>,
    /// The sizes that the client is told. If the transform fails on a message, that of the stored one.
    told: Vec<Option<u64>>,
}

impl Transformed {
    pub(super) fn octets(&self, index: usize) -> Option<u64> {
        self.told.get(index).copied().flatten()
    }
}

impl Maildrop {
    /// Tells the sizes of transformed messages from now on, as far as they are known from earlier logins.
    pub fn tell_transformed(&mut self, transform: &Fingerprint) {
        let user = self.location.user().as_str();
        let keys =
            (0..).zip(&self.messages).map(|(index, message)| key(&*self.format, user, transform, index, message));
        let keys: Vec<_> = keys.collect();
        let known = self.own_files().map(|files| Known::load(&self.location, &files)).unwrap_or_default();
        if known.lines > 2 * keys.len() + MANY {
            self.write_again(&keys, &known);
        }
        self.transformed = Transformed { told: vec![None; keys.len()], keys };
        self.learn(|key| known.sizes.get(&key).copied());
    }

    /// The messages whose transformed sizes are not known.
    #[must_use]
    pub fn unknown_sizes(&self) -> Vec<(MessageNumber, SizeKey)> {
        let Transformed { keys, told } = &self.transformed;
        let unknown = (1..).zip(keys.iter().zip(told)).filter(|(_, (_, told))| told.is_none());
        unknown.filter_map(|(number, (&key, _))| Some((MessageNumber::new(number)?, key))).collect()
    }

    /// Takes sizes that have been determined since.
    pub fn learn(&mut self, size: impl Fn(SizeKey) -> Option<TransformedSize>) {
        let Transformed { keys, told } = &mut self.transformed;
        for ((told, &key), message) in told.iter_mut().zip(&*keys).zip(&self.messages) {
            *told = told.or_else(|| match size(key)? {
                TransformedSize::Octets(octets) => Some(octets),
                TransformedSize::Failed(then) => (then + RETRY > now()).then_some(message.octets()),
            });
        }
        self.add_up();
    }

    /// Tells the stored sizes of the messages whose transformed sizes cannot be determined.
    pub fn tell_stored_for_the_rest(&mut self) {
        for (told, message) in self.transformed.told.iter_mut().zip(&self.messages) {
            told.get_or_insert(message.octets());
        }
        self.add_up();
    }

    /// The size that the client was told of a message that is transformed; `None` if the stored sizes are told.
    #[must_use]
    pub fn transformed_octets(&self, number: MessageNumber) -> Option<u64> {
        self.transformed.octets(number.index())
    }

    /// Notes the size of a transformed message for later logins.
    pub fn note_transformed(&self, key: SizeKey, size: TransformedSize) {
        self.append(key, Some(size));
    }

    /// Notes that a message has another transformed size than the client was told. The next login has it counted again.
    pub fn forget_transformed(&self, number: MessageNumber) {
        if let Some(&key) = self.transformed.keys.get(number.index()) {
            self.append(key, None);
        }
    }

    fn append(&self, key: SizeKey, size: Option<TransformedSize>) {
        let Some(files) = self.own_files() else { return };
        if self.location.root().layouts().is_read_only() {
            return;
        }
        let mut line = Vec::new();
        put(&mut line, key, size);
        if let Err(error) = files.append(self.location.root(), FILE, VERSION, &line) {
            let path = root::display(&files.path(FILE)).to_string();
            log::warn!("{path} cannot be written, so each login has to count transformed sizes: {error}");
        }
    }

    /// Writes the file again with the lines that are of use.
    fn write_again(&self, keys: &[SizeKey], known: &Known) {
        let Some(files) = self.own_files() else { return };
        if self.location.root().layouts().is_read_only() {
            return;
        }
        let mut text = VERSION.to_vec();
        for key in keys {
            if let Some(&size) = known.sizes.get(key) {
                put(&mut text, *key, Some(size));
            }
        }
        if let Err(error) = files.replace(self.location.root(), FILE, &text) {
            log::debug!("{} cannot be written: {error}", root::display(&files.path(FILE)));
        }
    }

    fn own_files(&self) -> Option<OwnFiles<'_>> {
        self.folder().map(|folder| ages::files(&self.location, folder))
    }
}

fn key(format: &dyn Format, user: &str, transform: &Fingerprint, index: usize, message: &Message) -> SizeKey {
    let mut hash = Sha256::new_with_prefix(transform);
    hash.update(user);
    hash.update([0]);
    hash.update(format.unique_id(index, message));
    hash.update([0]);
    hash.update(message.octets().to_le_bytes());
    let identity = message.content.identity;
    // In an mbox the unique-id depends on the content, and the rest of the identity on the messages before it.
    if message.path.folder != Folder::Mbox {
        hash.update(identity.size.to_le_bytes());
        hash.update(identity.modified.to_le_bytes());
    }
    let hash: [u8; 32] = hash.finalize().into();
    SizeKey(hash[..8].iter().fold(0, |key, &octet| key << 8 | u64::from(octet)))
}

/// What the file says.
#[derive(Debug, Default)]
struct Known {
    sizes: HashMap<SizeKey, TransformedSize>,
    lines: usize,
}

impl Known {
    fn load(location: &Location, files: &OwnFiles<'_>) -> Self {
        match files.read(location.root(), FILE) {
            Ok(text) => Self::parse(&text),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    log::warn!("{} cannot be read: {error}", root::display(&files.path(FILE)));
                }
                Self::default()
            }
        }
    }

    /// Lines that are damaged or incomplete are left out.
    fn parse(text: &[u8]) -> Self {
        let mut known = Self::default();
        for line in text.strip_prefix(VERSION).unwrap_or_default().split_inclusive(|&octet| octet == b'\n') {
            known.lines += 1;
            match parse_line(line) {
                Some((key, Some(size))) => drop(known.sizes.insert(key, size)),
                Some((key, None)) => drop(known.sizes.remove(&key)),
                None => {}
            }
        }
        known
    }
}

fn put(text: &mut Vec<u8>, SizeKey(key): SizeKey, size: Option<TransformedSize>) {
    let line = match size {
        Some(TransformedSize::Octets(octets)) => format!("{key:016x} {octets}"),
        Some(TransformedSize::Failed(then)) => format!("{key:016x} !{then}"),
        None => format!("{key:016x} -"),
    };
    text.extend_from_slice(format!("{line} {:08x}\n", crc32fast::hash(line.as_bytes())).as_bytes());
}

fn parse_line(line: &[u8]) -> Option<(SizeKey, Option<TransformedSize>)> {
    let (line, checksum) = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.rsplit_once(' ')?;
    if checksum != format!("{:08x}", crc32fast::hash(line.as_bytes())) {
        return None;
    }
    let (key, size) = line.split_once(' ')?;
    let size = match (size, size.strip_prefix('!')) {
        ("-", _) => None,
        (_, Some(then)) => Some(TransformedSize::Failed(then.parse().ok()?)),
        (octets, None) => Some(TransformedSize::Octets(octets.parse().ok()?)),
    };
    Some((SizeKey(u64::from_str_radix(key, 16).ok()?), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SizeKey = SizeKey(0x4f1c_09aa_7d2e_5b36);

    fn text(lines: &[(SizeKey, Option<TransformedSize>)]) -> Vec<u8> {
        let mut text = VERSION.to_vec();
        lines.iter().for_each(|&(key, size)| put(&mut text, key, size));
        text
    }

    #[test]
    fn the_last_line_about_a_message_counts() {
        let (one, two) = (TransformedSize::Octets(1), TransformedSize::Octets(2));
        let last = |sizes: &[Option<TransformedSize>]| {
            let lines: Vec<_> = sizes.iter().map(|&size| (KEY, size)).collect();
            Known::parse(&text(&lines)).sizes.get(&KEY).copied()
        };
        assert_eq!(last(&[Some(one), Some(two)]), Some(two));
        assert_eq!(last(&[Some(one), None]), None);
        assert_eq!(last(&[None, Some(TransformedSize::Failed(9))]), Some(TransformedSize::Failed(9)));
    }

    /// No damage of a single octet gives a message another size.
    #[test]
    fn damaged_lines_are_left_out() {
        let good = text(&[(KEY, Some(TransformedSize::Octets(1234)))]);
        for at in 0..good.len() {
            for other in 0..=255 {
                let mut damaged = good.clone();
                damaged[at] = other;
                let known = Known::parse(&damaged);
                assert!(known.sizes.values().all(|&size| size == TransformedSize::Octets(1234)), "{at} {other}");
                assert!(known.sizes.keys().all(|&key| key == KEY), "{at} {other}");
            }
            assert!(at == 0 || Known::parse(&good[..at]).sizes.is_empty());
        }
    }
}
