//! The file in which the server keeps the unique-ids that other servers gave to messages. With it the lists of these servers
//! are read only when they change, and the unique-ids stay when the lists are gone.
//!
//! ```text
//! pop3d-ids 1 CHECKSUM                               CRC-32 of all that follows, in hexadecimal digits
//! rule RULE                                          where the unique-ids come from
//! list NAME INODE SIZE MODIFIED CHANGED              the state of each list when it was read
//! FLAG UID ID NAME                                   a message
//! ```
//!
//! FLAG is `f` if the unique-id never changes, else `-`. UID is 0 unless it matters. ID is empty for a message that has this
//! server's own unique-id. NAME is the base name of the message's file; in an mbox, this server's own unique-id.

use std::collections::HashMap;
use std::io::Read;

use crate::maildrop::identity::Identity;
use crate::maildrop::location::OwnFiles;
use crate::maildrop::root::{self, Root};

/// The name of the file, and the name under which a new one is written.
const FILE: &str = "ids";

const MAGIC: &[u8] = b"pop3d-ids 1 ";

/// The largest file that is read or written: enough for 2 million messages.
pub(super) const MOST_OCTETS: u64 = 256 << 20;

/// The state of a list when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct List {
    pub(super) name: String,
    pub(super) identity: Identity,
}

/// A message's unique-id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    /// `None` for this server's own.
    pub(super) id: Option<&'a [u8]>,
    pub(super) uid: u32,
    /// True if a client may have retrieved the message under this unique-id, so that it must not change.
    pub(super) is_fixed: bool,
}

/// What the file has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kept<'a> {
    pub(super) rule: String,
    pub(super) lists: Vec<List>,
    pub(super) entries: Vec<Entry<'a>>,
}

/// Reads the file. Returns nothing if there is none.
pub(super) fn read(root: &Root, files: &OwnFiles<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    if let Ok((file, identity)) = root.file(&files.path(FILE)) {
        let read = file.take(identity.size.min(MOST_OCTETS)).read_to_end(&mut text);
        if let Err(error) = read {
            log::warn!("{} cannot be read: {error}", root::display(&files.path(FILE)));
        }
    }
    text
}

impl<'a> Kept<'a> {
    /// Parses the file's text. A damaged file counts as none.
    pub(super) fn parse(text: &'a [u8]) -> Self {
        Self::parsed(text).unwrap_or_default()
    }

    fn parsed(text: &'a [u8]) -> Option<Self> {
        let text = text.strip_prefix(MAGIC)?;
        let (checksum, rest) = text.split_at_checked(9)?;
        if checksum != format!("{:08x}\n", crc32fast::hash(rest)).as_bytes() {
            return None;
        }
        let mut kept = Self::default();
        for line in rest.strip_suffix(b"\n")?.split(|&octet| octet == b'\n') {
            if let Some(rule) = line.strip_prefix(b"rule ") {
                kept.rule = String::from_utf8(rule.to_vec()).ok()?;
            } else if let Some(list) = line.strip_prefix(b"list ") {
                kept.lists.push(list_of(list)?);
            } else {
                kept.entries.push(entry_of(line)?);
            }
        }
        Some(kept)
    }

    /// Replaces the file.
    pub(super) fn save(&self, root: &Root, files: &OwnFiles<'_>) {
        if root.layouts().is_read_only() {
            return;
        }
        if let Err(error) = files.replace(root, FILE, &self.text()) {
            log::debug!("{} cannot be written: {error}", root::display(&files.path(FILE)));
        }
    }

    fn text(&self) -> Vec<u8> {
        let mut rest = format!("rule {}\n", self.rule).into_bytes();
        for List { name, identity: Identity { inode, size, modified, changed } } in &self.lists {
            rest.extend(format!("list {name} {inode} {size} {modified} {changed}\n").into_bytes());
        }
        // A name with a line end would be read back as two lines.
        for Entry { name, id, uid, is_fixed } in self.entries.iter().filter(|entry| !entry.name.contains(&b'\n')) {
            rest.extend(format!("{} {uid} ", if *is_fixed { 'f' } else { '-' }).into_bytes());
            rest.extend_from_slice(id.unwrap_or_default());
            rest.push(b' ');
            rest.extend_from_slice(name);
            rest.push(b'\n');
        }
        let checksum = format!("{:08x}\n", crc32fast::hash(&rest)).into_bytes();
        [MAGIC, &checksum, &rest].concat()
    }

    pub(super) fn finder(&self) -> Finder<'_, 'a> {
        Finder { entries: &self.entries, next: 0, by_name: None }
    }
}

fn list_of(line: &[u8]) -> Option<List> {
    let mut fields = std::str::from_utf8(line).ok()?.split(' ');
    let name = fields.next()?.to_owned();
    let mut next = || fields.next();
    let identity = Identity {
        inode: next()?.parse().ok()?,
        size: next()?.parse().ok()?,
        modified: next()?.parse().ok()?,
        changed: next()?.parse().ok()?,
    };
    Some(List { name, identity })
}

fn entry_of(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = line.splitn(4, |&octet| octet == b' ');
    let (flag, uid, id, name) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let id = (!id.is_empty()).then_some(id);
    let is_valid = matches!(flag, b"f" | b"-") && !name.is_empty() && id.is_none_or(super::is_unique_id);
    is_valid.then_some(Entry { name, id, uid: super::number(uid)?, is_fixed: flag == b"f" })
}

/// Finds entries by name. It is fast if they are looked for in the order in which they are kept.
pub(super) struct Finder<'k, 'a> {
    entries: &'k [Entry<'a>],
    next: usize,
    by_name: Option<HashMap<&'a [u8], usize>>,
}

impl<'a> Finder<'_, 'a> {
    pub(super) fn find(&mut self, name: &[u8]) -> Option<Entry<'a>> {
        let at = match self.entries.get(self.next) {
            Some(entry) if entry.name == name => self.next,
            _ => {
                let entries = self.entries;
                let by_name = || entries.iter().enumerate().map(|(at, entry)| (entry.name, at)).collect();
                *self.by_name.get_or_insert_with(by_name).get(name)?
            }
        };
        self.next = at + 1;
        Some(self.entries[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Kept<'static> {
        let entry =
            |name, id: Option<&'static str>, uid, is_fixed| Entry { name, id: id.map(str::as_bytes), uid, is_fixed };
        Kept {
            rule: "dovecot %08Xu%08Xv".to_owned(),
            lists: vec![List {
                name: "dovecot-uidlist".to_owned(),
                identity: Identity { inode: 1, size: 2, modified: -3, changed: 4 },
            }],
            entries: vec![
                entry(b"1.a.h", Some("000000010000000a"), 0, false),
                entry(b"with a space", Some("="), 7, true),
                entry(b"own", None, 0, true),
            ],
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for kept in [sample(), Kept { rule: "x".to_owned(), ..Kept::default() }] {
            assert_eq!(Kept::parse(&kept.text()), kept);
        }
        let entries = vec![Entry { name: b"a\nb", id: None, uid: 0, is_fixed: true }];
        assert_eq!(Kept::parse(&Kept { entries, ..sample() }.text()), Kept { entries: Vec::new(), ..sample() });
    }

    #[test]
    fn any_damage_is_noticed() {
        let good = sample().text();
        for length in 0..good.len() {
            assert_eq!(Kept::parse(&good[..length]), Kept::default(), "cut to {length}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(Kept::parse(&bad), Kept::default(), "octet {at}");
        }
    }

    #[test]
    fn entries_are_found_in_any_order() {
        let kept = sample();
        let mut finder = kept.finder();
        let mut uid = |name: &str| finder.find(name.as_bytes()).map(|entry| entry.uid);
        assert_eq!(
            ["1.a.h", "own", "missing", "with a space", "own"].map(&mut uid),
            [Some(0), Some(0), None, Some(7), Some(0)]
        );
    }
}
