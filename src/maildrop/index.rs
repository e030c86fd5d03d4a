//! The index: a dot-file in the user's directory that keeps what the server knows about the messages between logins.
//!
//! The index only saves work. If it is missing, damaged, of another version or not writable, the messages are read again.
//! It is replaced by rename(2), so another server sees either the old index or the new one.
//!
//! ```text
//! magic     8 octets     "pop3d-ix"
//! version   u32
//! checksum  u32          CRC-32 of all that follows
//! stamps    2 × (inode u64, modified i64, changed i64), behind one octet: 0 none, else bit 0 new/, bit 1 cur/, bit 7;
//!           with bit 6 the state of an mbox: inode, modified, changed, size, check, settled
//! count     u32
//! names     one after another, as the entries are
//! entries   folder u8, notes u8, inode u64, size u64, modified i64, changed i64, octets u64, length of the name u16
//! ```
//!
//! Numbers are little-endian, times in ns since 1970, entries in the maildrop's order. The names come first so that a
//! large index can be read in pieces: the names into the memory where they stay, the entries through a small buffer.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, BufReader, Read};

use crc32fast::Hasher;
use parking_lot::Mutex;

use super::identity::{Identity, Stamp, Stamps, is_settled};
use super::location::OwnFiles;
use super::mbox::FileState;
use super::message::{Content, FilePath, Folder, Message};
use super::names::Names;
use super::root::{self, Root};

/// The name of the index in the user's directory, and the name under which a new index is written.
const FILE: &str = "index";

const MAGIC: &[u8; 8] = b"pop3d-ix";

/// The version of the format. It must be raised when the format changes, or when the meaning of octets or wire form
/// does.
const VERSION: u32 = 4;

/// Sizes in octets: of magic, version and checksum; of the stamps with the octet before them; of the count; of an entry
/// without its name.
const HEADER: usize = 16;
const STAMPS: usize = 49;
const COUNT: usize = 4;
const ENTRY: usize = 44;

/// How many octets of an index are read at once, and how many entries are decoded at once.
const BUFFER: usize = 1 << 16;
const DECODED_AT_ONCE: usize = 1000;

/// The limits for every index that is written or read: enough for two million messages with names of 90 octets.
const LIMITS: Limits = Limits { messages: 2_000_000, octets: 1 << 28 };

/// The bit, in the octet before the stamps, that says that there are stamps.
const STAMPED: u8 = 0x80;

/// The bit that says that the two stamps are the state of an mbox instead.
const MBOX: u8 = 0x40;

/// The bits of an entry's notes.
const WIRE_FORM: u8 = 1;
const NAMESAKE: u8 = 2;
const COMPRESSED: u8 = 4;

/// A maildrop's messages as an earlier login found them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// The state of the Maildir's directories for which the entries are known to be complete.
    pub(super) stamps: Option<Stamps>,
    /// The state of the mbox in which the entries have their sections.
    pub(super) mbox: Option<FileState>,
    pub(super) entries: Vec<Message>,
}

impl Index {
    /// Reads the user's index. Returns `None` if there is none, or if it cannot be used.
    pub(super) fn load(root: &Root, files: &OwnFiles<'_>) -> Option<Self> {
        let (file, identity) = root.file(&files.path(FILE)).ok()?;
        if !root.may_use(files, &file) {
            log::warn!("{} is not used: it belongs to another user", root::display(&files.path(FILE)));
            return None;
        }
        let size = usize::try_from(identity.size).ok()?;
        let Some(mut index) = Self::decode(BufReader::with_capacity(size.min(BUFFER), file), size, LIMITS) else {
            log::debug!("{} cannot be used and will be replaced", root::display(&files.path(FILE)));
            return None;
        };
        index.keep_settled(identity.modified);
        Some(index)
    }

    /// Drops entries and stamps that were so recent when the index was `written` that a later change may have the same
    /// time stamp. `written` is by the clock of the file system; the clock of the server that wrote the index may have
    /// been ahead.
    fn keep_settled(&mut self, written: i64) {
        let count = self.entries.len();
        self.entries.retain(|message| is_settled(message.written(), written));
        let complete = self.entries.len() == count;
        let settled = |stamps: &Stamps| stamps.iter().flatten().all(|stamp| is_settled(stamp.modified, written));
        self.stamps = self.stamps.filter(|stamps| complete && settled(stamps));
        if let Some(mbox) = &mut self.mbox {
            let is_settled = is_settled(mbox.modified, written) && is_settled(mbox.changed, written);
            mbox.settled &= u64::from(is_settled);
        }
    }

    /// Replaces the user's index.
    pub(super) fn save<'a>(
        root: &Root,
        files: &OwnFiles<'_>,
        stamps: Option<Stamps>,
        entries: impl Iterator<Item = &'a Message> + Clone,
    ) {
        Self::write(root, files, Self::encode(stamps, None, entries, LIMITS));
    }

    /// Replaces the index of an mbox.
    pub(super) fn save_mbox(
        root: &Root,
        files: &OwnFiles<'_>,
        state: FileState,
        entries: impl Iterator<Item: Borrow<Message>> + Clone,
    ) {
        Self::write(root, files, Self::encode(None, Some(state), entries, LIMITS));
    }

    fn write(root: &Root, files: &OwnFiles<'_>, octets: Option<Vec<u8>>) {
        if root.layouts().is_read_only() {
            return;
        }
        let Some(octets) = octets else {
            return warn_of_size(&files.path(FILE));
        };
        if let Err(error) = files.replace(root, FILE, &octets) {
            log::debug!("{} cannot be written: {error}", root::display(&files.path(FILE)));
        }
    }

    /// Stores the true sizes of messages that were listed with a wrong size.
    pub(super) fn correct(root: &Root, files: &OwnFiles<'_>, messages: &[Message], corrections: &BTreeMap<usize, u64>) {
        let Some(mut index) = Self::load(root, files) else { return };
        // The index may have an older path of a message that a mail program has moved. So messages are matched by base
        // name and inode.
        let file = |message: &Message| (message.path.base().to_vec(), message.content.identity.inode);
        let corrections: HashMap<_, _> =
            corrections.iter().map(|(&index, &octets)| (file(&messages[index]), octets)).collect();
        let mut is_changed = false;
        for entry in &mut index.entries {
            if let Some(&octets) = corrections.get(&file(entry)) {
                is_changed |= entry.content.octets != octets;
                entry.content.octets = octets;
            }
        }
        if is_changed {
            Self::write(root, files, Self::encode(index.stamps, index.mbox, index.entries.iter(), LIMITS));
        }
    }

    /// Removes the user's index because it is wrong.
    pub(super) fn forget(root: &Root, files: &OwnFiles<'_>) {
        if root.layouts().is_read_only() {
            return;
        }
        let removed = root.directory(&files.directory()).and_then(|directory| directory.unlink(&files.name(FILE)));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("{} is wrong and cannot be removed: {error}", root::display(&files.path(FILE)));
            }
            _ => {}
        }
    }

    /// Returns `None` if the index would be too large to be read again.
    fn encode(
        stamps: Option<Stamps>,
        mbox: Option<FileState>,
        entries: impl Iterator<Item: Borrow<Message>> + Clone,
        limits: Limits,
    ) -> Option<Vec<u8>> {
        let (count, names) =
            entries.clone().fold((0, 0), |(count, names), entry| (count + 1, names + entry.borrow().path.name.len()));
        let size = HEADER + STAMPS + COUNT + count * ENTRY + names;
        if !limits.allow(count, size) {
            return None;
        }
        let mut index = Vec::with_capacity(size);
        index.resize(HEADER, 0);
        let [new, cur] = match mbox {
            Some(FileState { inode, size, modified, changed, check, settled }) => [
                Some(Stamp { inode, modified, changed }),
                Some(Stamp { inode: size, modified: check.cast_signed(), changed: settled.cast_signed() }),
            ],
            None => stamps.unwrap_or_default(),
        };
        index.push(
            if mbox.is_some() { MBOX } else { 0 }
                | u8::from(new.is_some())
                | u8::from(cur.is_some()) << 1
                | if stamps.is_some() { STAMPED } else { 0 },
        );
        for stamp in [new, cur] {
            let stamp = stamp.unwrap_or_default();
            index.extend_from_slice(&stamp.inode.to_le_bytes());
            index.extend_from_slice(&stamp.modified.to_le_bytes());
            index.extend_from_slice(&stamp.changed.to_le_bytes());
        }
        index.extend_from_slice(&u32::try_from(count).ok()?.to_le_bytes());
        for entry in entries.clone() {
            index.extend_from_slice(&entry.borrow().path.name);
        }
        for entry in entries {
            let Message { path, content: Content { identity, octets, wire_form, compressed, namesake } } =
                entry.borrow();
            let length = u16::try_from(path.name.len()).unwrap_or(u16::MAX); // no file system allows longer names
            let notes =
                u8::from(*wire_form) * WIRE_FORM + u8::from(*namesake) * NAMESAKE + u8::from(*compressed) * COMPRESSED;
            index.extend_from_slice(&[path.folder as u8, notes]);
            index.extend_from_slice(&identity.inode.to_le_bytes());
            index.extend_from_slice(&identity.size.to_le_bytes());
            index.extend_from_slice(&identity.modified.to_le_bytes());
            index.extend_from_slice(&identity.changed.to_le_bytes());
            index.extend_from_slice(&octets.to_le_bytes());
            index.extend_from_slice(&length.to_le_bytes());
        }
        let checksum = crc32fast::hash(&index[HEADER..]);
        let header = [&MAGIC[..], &VERSION.to_le_bytes(), &checksum.to_le_bytes()].concat();
        index[..HEADER].copy_from_slice(&header);
        Some(index)
    }

    /// Reads an index that is `size` octets long. Returns `None` if it is damaged or exceeds the limits.
    fn decode(mut source: impl Read, size: usize, limits: Limits) -> Option<Self> {
        let mut header = [0; HEADER];
        source.read_exact(&mut header).ok()?;
        let mut header = Fields(&header);
        if header.take()? != *MAGIC || header.u32()? != VERSION {
            return None;
        }
        let checksum = header.u32()?;

        let mut source = Checked { source, checksum: Hasher::new() };
        let mut start = [0; STAMPS + COUNT];
        source.fill(&mut start)?;
        let mut start = Fields(&start);
        let which = start.u8()?;
        let mut stamp = || Some(Stamp { inode: start.u64()?, modified: start.i64()?, changed: start.i64()? });
        let (new, cur) = (stamp()?, stamp()?);
        let stamps =
            (which & STAMPED != 0).then_some([(which & 1 != 0).then_some(new), (which & 2 != 0).then_some(cur)]);
        let mbox = (which & MBOX != 0).then_some(FileState {
            inode: new.inode,
            size: cur.inode,
            modified: new.modified,
            changed: new.changed,
            check: cur.modified.cast_unsigned(),
            settled: cur.changed.cast_unsigned(),
        });
        let count = usize::try_from(start.u32()?).ok().filter(|&count| limits.allow(count, size))?;

        let names = size.checked_sub(HEADER + STAMPS + COUNT)?.checked_sub(count.checked_mul(ENTRY)?)?;
        let mut block = vec![0; names];
        source.fill(&mut block)?;
        let mut names = Names::new(block);
        let mut entries = Vec::with_capacity(count);
        let mut octets = vec![0; count.min(DECODED_AT_ONCE) * ENTRY];
        while entries.len() < count {
            octets.truncate((count - entries.len()) * ENTRY);
            source.fill(&mut octets)?;
            let mut fields = Fields(&octets);
            while !fields.0.is_empty() {
                entries.push(fields.entry(&mut names)?);
            }
        }
        (names.is_at_end() && source.checksum.finalize() == checksum).then_some(Self { stamps, mbox, entries })
    }
}

/// Reads an index and computes the checksum of what it has read.
struct Checked<R> {
    source: R,
    checksum: Hasher,
}

impl<R: Read> Checked<R> {
    fn fill(&mut self, octets: &mut [u8]) -> Option<()> {
        self.source.read_exact(octets).ok()?;
        self.checksum.update(octets);
        Some(())
    }
}

/// The fields of a part of an index that have not been decoded yet. Its methods return `None` if too few octets are left.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn octets(&mut self, count: usize) -> Option<&'a [u8]> {
        let (octets, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(octets)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.octets(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[octet]| octet)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }

    fn entry(&mut self, names: &mut Names) -> Option<Message> {
        let folder = *Folder::ALL.get(usize::from(self.u8()?))?;
        let notes = self.u8()?;
        let [wire_form, namesake, compressed] = [WIRE_FORM, NAMESAKE, COMPRESSED].map(|bit| notes & bit != 0);
        let identity = Identity { inode: self.u64()?, size: self.u64()?, modified: self.i64()?, changed: self.i64()? };
        let octets = self.u64()?;
        let length = u16::from_le_bytes(self.take()?);
        let name = names.next(usize::from(length))?;
        // The index may have been forged, and its names must not lead out of the folder.
        let plain = match folder {
            Folder::Mbox => (1..=70).contains(&name.len()) && name.iter().all(|octet| (0x21..=0x7e).contains(octet)),
            _ => !name.is_empty() && name[0] != b'.' && memchr::memchr2(b'/', 0, &name).is_none(),
        };
        plain.then(|| {
            Message::new(FilePath { folder, name }, Content { identity, octets, wire_form, compressed, namesake })
        })
    }
}

/// How large an index may be. Reading it takes memory, and anybody who can write to the maildrop can put an index
/// there.
#[derive(Debug, Clone, Copy)]
struct Limits {
    messages: usize,
    octets: u64,
}

impl Limits {
    fn allow(self, messages: usize, octets: usize) -> bool {
        messages <= self.messages && octets as u64 <= self.octets
    }
}

/// Logs that an index is too large to be written, once for each index.
fn warn_of_size(path: &[u8]) {
    static WARNED: Mutex<BTreeSet<Vec<u8>>> = Mutex::new(BTreeSet::new());
    if is_first(&WARNED, path) {
        let Limits { messages, octets } = LIMITS;
        let path = root::display(path);
        log::warn!(
            "{path} is not written, as it would have more than {messages} messages or {octets} octets: \
             every login reads the messages again"
        );
    }
}

fn is_first(warned: &Mutex<BTreeSet<Vec<u8>>>, path: &[u8]) -> bool {
    warned.lock().insert(path.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Index {
        let stamp = Stamp { inode: 7, modified: 1_700_000_000_000_000_001, changed: -1 };
        let content = |size| Content {
            identity: Identity { inode: size, size, modified: 5, changed: 6 },
            octets: size + 1,
            wire_form: size % 2 == 0,
            compressed: size % 5 == 0,
            namesake: size % 3 == 0,
        };
        let entry =
            |folder, name: &str, size| Message::new(FilePath { folder, name: name.as_bytes().into() }, content(size));
        Index {
            stamps: Some([Some(stamp), None]),
            mbox: None,
            entries: vec![
                entry(Folder::New, "1.a.h", 10),
                entry(Folder::Cur, "2.b.h:2,S", 11),
                entry(Folder::Cur, &"x".repeat(255), 12),
            ],
        }
    }

    fn encoded(index: &Index) -> Vec<u8> {
        Index::encode(index.stamps, index.mbox, index.entries.iter(), LIMITS).unwrap()
    }

    fn decoded(octets: &[u8]) -> Option<Index> {
        Index::decode(octets, octets.len(), LIMITS)
    }

    #[test]
    fn a_written_index_is_read_back() {
        for index in [sample(), Index::default(), Index { stamps: Some([None, None]), ..Index::default() }] {
            assert_eq!(decoded(&encoded(&index)), Some(index));
        }
    }

    #[test]
    fn any_damage_is_noticed() {
        let good = encoded(&sample());
        for length in 0..good.len() {
            assert_eq!(decoded(&good[..length]), None, "cut to {length}");
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(decoded(&bad), None, "bit {bit} of octet {at}");
            }
        }
        assert_eq!(decoded(&[good, vec![0]].concat()), None);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", ".hidden", "..", "a/b", "../x", "a\0b"] {
            let mut index = sample();
            index.entries[0].path.name = name.as_bytes().into();
            assert_eq!(decoded(&encoded(&index)), None, "{name:?}");
        }
    }

    #[test]
    fn an_index_is_written_only_if_it_can_be_read() {
        let index = sample();
        let size = encoded(&index).len();
        let (messages, octets) = (index.entries.len(), size as u64);
        let limits = |messages, octets| Limits { messages, octets };
        for (limits, allowed) in [
            (limits(messages, octets), true),
            (limits(messages - 1, octets), false),
            (limits(messages, octets - 1), false),
        ] {
            let written = Index::encode(index.stamps, index.mbox, index.entries.iter(), limits);
            assert_eq!(written.is_some(), allowed, "{limits:?}");
            assert_eq!(Index::decode(&encoded(&index)[..], size, limits).is_some(), allowed, "{limits:?}");
        }
    }

    #[test]
    fn one_warning_is_logged_for_an_index_that_is_not_written() {
        let warned = Mutex::default();
        let paths = ["ana", "bob", "ana", "bob"];
        assert_eq!(paths.map(|path| is_first(&warned, path.as_bytes())), [true, true, false, false]);
    }

    proptest! {
        #[test]
        fn any_entries_are_read_back(
            names in proptest::collection::vec(("[!-.0-~][!-.0-~]{0,80}", 0..3usize, any::<[i64; 5]>(), any::<[bool; 3]>()), 0..20)
        ) {
            let entries = names.iter().filter(|(name, ..)| !name.starts_with('.'));
            let entries = entries.map(|(name, folder, [a, b, modified, changed, c], [wire_form, compressed, namesake])| {
                let identity = Identity { inode: *a as u64, size: *b as u64, modified: *modified, changed: *changed };
                let content = Content { identity, octets: *c as u64, wire_form: *wire_form, compressed: *compressed, namesake: *namesake };
                Message::new(FilePath { folder: Folder::ALL[*folder], name: name.as_bytes().into() }, content)
            });
            let index = Index { entries: entries.collect(), ..Index::default() };
            prop_assert_eq!(decoded(&encoded(&index)), Some(index));
        }

        #[test]
        fn no_octets_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let checksum = crc32fast::hash(&body).to_le_bytes();
            let _ = decoded(&[&MAGIC[..], &VERSION.to_le_bytes(), &checksum, &body].concat());
        }
    }
}
