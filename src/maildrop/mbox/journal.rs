//! The journal of a removal: a dot-file beside the mbox that says what is being moved where.
//!
//! ```text
//! magic      8 octets   "pop3d-jn"
//! version    u32
//! checksum   u32        CRC-32 of the rest of the header
//! plan       inode of the mbox, its old size, its new size, where the first piece goes, 1 if it must be finished, the most
//!            octets of a step (u64 each)
//! pieces     count u64, then offset and length of each (u64)
//! two slots, each: number of the step, where its octets go, how many they are, CRC-32 of all of it (u64 each), octets
//! ```
//!
//! Numbers are little-endian. A step's octets are written into the slot that the step before does not use, and then into
//! the mbox. So one of the slots always holds the last step that has reached the mbox, or all octets of the one that may
//! have reached it in part.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::rewrite::Plan;
use crate::maildrop::directory::Directory;
use crate::maildrop::is_missing;
use crate::wire::Block;

/// The kinds of the server's own files for the journal, the one that is being written, and one that cannot be used.
pub(super) const FILE: &str = "journal";
const NEW: &[u8] = b".new";
const STALE: &[u8] = b".stale";

const MAGIC: &[u8; 8] = b"pop3d-jn";
const VERSION: u32 = 2;

/// In journals of version 1 the most octets of a step are always these, and are not in the plan.
const VERSION_1: u32 = 1;
pub(super) const CHUNK_1: u64 = 8 << 20;

/// The most octets of a step. Larger steps need more room, and take longer because all of it is new to the page cache; smaller
/// ones wait for the disk more often.
#[cfg(not(test))]
pub(super) const CHUNK: u64 = 4 << 20;
#[cfg(test)]
pub(super) const CHUNK: u64 = 100;

const SLOT_HEADER: usize = 32;

/// Slots begin at multiples of this.
const PAGE: u64 = 4096;

/// The largest header that is read.
const MOST_OCTETS: u64 = 64 << 20;

/// The name of a journal that may exist.
#[derive(Debug)]
pub(super) struct Journal<'a> {
    directory: &'a Directory,
    name: Vec<u8>,
}

/// An open journal.
#[derive(Debug)]
pub(super) struct OpenJournal {
    file: File,
    /// Where the first slot begins.
    slots: u64,
    /// The most octets in a slot.
    room: u64,
}

/// A step that a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) number: u64,
    /// Where its octets go in the mbox.
    pub(super) to: u64,
    pub(super) length: u64,
}

impl<'a> Journal<'a> {
    pub(super) fn new(directory: &'a Directory, name: Vec<u8>) -> Self {
        Self { directory, name }
    }

    /// Writes a journal, which replaces any that is there and belongs to the owner of the mbox. Its room is allocated, so that
    /// a full disk is noticed now.
    pub(super) fn write(&self, plan: &Plan, mbox: &File) -> io::Result<OpenJournal> {
        let new = [&self.name[..], NEW].concat();
        let written = self.write_new(&new, plan, mbox);
        written.inspect_err(|_| self.directory.unlink(&new).unwrap_or(()))
    }

    fn write_new(&self, new: &[u8], plan: &Plan, mbox: &File) -> io::Result<OpenJournal> {
        let header = encode(plan);
        let slots = (header.len() as u64).next_multiple_of(PAGE);
        let room = plan.room();
        let _ = self.directory.unlink(new);
        let file = self.directory.create_like(new, mbox)?;
        let size = slots + 2 * slot_size(room);
        match fallocate(&file, FallocateFlags::empty(), 0, size) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(size)?,
            result => result?,
        }
        file.write_all_at(&header, 0)?;
        file.sync_data()?;
        self.directory.rename(new, &self.name)?;
        // The journal has to be found even if the power fails once the mbox is being changed.
        self.directory.sync()?;
        note();
        Ok(OpenJournal { file, slots, room })
    }

    /// Opens a journal that an earlier session has left. `None` if it is damaged.
    pub(super) fn open(&self) -> io::Result<Option<(OpenJournal, Plan)>> {
        let (file, identity) = self.directory.file_for_update(&self.name)?;
        let mut octets = vec![0; usize::try_from(identity.size.min(MOST_OCTETS)).unwrap_or(0)];
        file.read_exact_at(&mut octets, 0)?;
        Ok(decode(&octets).map(|(plan, length)| {
            let slots = (length as u64).next_multiple_of(PAGE);
            let room = plan.room();
            (OpenJournal { file, slots, room }, plan)
        }))
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        match self.directory.unlink(&self.name) {
            Err(error) if is_missing(&error) => Ok(()),
            result => result,
        }
    }

    /// Puts a journal that cannot be used aside: octets of messages may be in it.
    pub(super) fn put_aside(&self) -> io::Result<()> {
        self.directory.rename(&self.name, &[&self.name[..], STALE].concat())
    }
}

impl OpenJournal {
    fn slot(&self, number: u64) -> u64 {
        self.slots + (number % 2) * slot_size(self.room)
    }

    /// Writes a step whose octets are those of `source` at these offsets.
    pub(super) fn put(&self, step: Step, source: &File, pieces: &[(u64, u64)]) -> io::Result<()> {
        let mut block = Block::new();
        let mut checksum = hasher(step);
        let mut at = self.slot(step.number) + SLOT_HEADER as u64;
        for &(offset, length) in pieces {
            copy(source, offset, length, &mut block, |octets| {
                checksum.update(octets);
                self.file.write_all_at(octets, at)?;
                note();
                at += octets.len() as u64;
                Ok(())
            })?;
        }
        self.seal(step, checksum)
    }

    /// Writes a step that has these octets.
    pub(super) fn put_octets(&self, step: Step, octets: &[u8]) -> io::Result<()> {
        let mut checksum = hasher(step);
        checksum.update(octets);
        self.file.write_all_at(octets, self.slot(step.number) + SLOT_HEADER as u64)?;
        note();
        self.seal(step, checksum)
    }

    fn seal(&self, step: Step, checksum: crc32fast::Hasher) -> io::Result<()> {
        let fields = [step.number, step.to, step.length, u64::from(checksum.finalize())];
        self.file.write_all_at(&fields.map(u64::to_le_bytes).concat(), self.slot(step.number))?;
        note();
        self.file.sync_data()
    }

    /// Writes the octets of a step into the mbox.
    pub(super) fn apply(&self, step: Step, mbox: &File) -> io::Result<()> {
        let mut to = step.to;
        let from = self.slot(step.number) + SLOT_HEADER as u64;
        copy(&self.file, from, step.length, &mut Block::new(), |octets| {
            // A server that is killed may have written a part.
            #[cfg(test)]
            mbox.write_all_at(&octets[..octets.len() / 2], to)?;
            note();
            mbox.write_all_at(octets, to)?;
            note();
            to += octets.len() as u64;
            Ok(())
        })?;
        mbox.sync_data()
    }

    /// The last step that has been written completely.
    pub(super) fn last_step(&self) -> io::Result<Option<Step>> {
        let mut last: Option<Step> = None;
        for number in 0..2 {
            if let Some(step) = self.step_in(number)?
                && last.is_none_or(|last| last.number < step.number)
            {
                last = Some(step);
            }
        }
        Ok(last)
    }

    fn step_in(&self, slot: u64) -> io::Result<Option<Step>> {
        let mut header = [0; SLOT_HEADER];
        let at = self.slot(slot);
        match self.file.read_exact_at(&mut header, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let field = |index: usize| {
            let octets = header[8 * index..].first_chunk().copied().unwrap_or_default();
            u64::from_le_bytes(octets)
        };
        let step = Step { number: field(0), to: field(1), length: field(2) };
        // Steps are counted from 1, so a slot that has never been used is no step.
        if step.number == 0 || step.number % 2 != slot || step.length > self.room {
            return Ok(None);
        }
        let mut checksum = hasher(step);
        copy(&self.file, at + SLOT_HEADER as u64, step.length, &mut Block::new(), |octets| {
            checksum.update(octets);
            Ok(())
        })?;
        Ok((u64::from(checksum.finalize()) == field(3)).then_some(step))
    }
}

fn slot_size(room: u64) -> u64 {
    (room + SLOT_HEADER as u64).next_multiple_of(PAGE)
}

fn hasher(step: Step) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[step.number, step.to, step.length].map(u64::to_le_bytes).concat());
    hasher
}

/// Reads octets of a file block by block.
fn copy(
    file: &File,
    mut offset: u64,
    length: u64,
    block: &mut [u8],
    mut put: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let end = offset + length;
    while offset < end {
        let room = usize::try_from(end - offset).map_or(block.len(), |left| left.min(block.len()));
        file.read_exact_at(&mut block[..room], offset)?;
        put(&block[..room])?;
        offset += room as u64;
    }
    Ok(())
}

fn encode(plan: &Plan) -> Vec<u8> {
    let mut body = Vec::new();
    let Plan { inode, old, new, to, must_finish, chunk, pieces } = plan;
    for field in [*inode, *old, *new, *to, u64::from(*must_finish), *chunk, pieces.len() as u64] {
        body.extend_from_slice(&field.to_le_bytes());
    }
    for (offset, length) in pieces {
        body.extend_from_slice(&offset.to_le_bytes());
        body.extend_from_slice(&length.to_le_bytes());
    }
    [&MAGIC[..], &VERSION.to_le_bytes(), &crc32fast::hash(&body).to_le_bytes(), &body].concat()
}

/// The plan, and how many octets the header has.
fn decode(octets: &[u8]) -> Option<(Plan, usize)> {
    let (version, octets) = octets.strip_prefix(MAGIC)?.split_first_chunk()?;
    let (checksum, body) = octets.split_first_chunk()?;
    let field = |index: usize| Some(u64::from_le_bytes(*body.get(8 * index..)?.first_chunk()?));
    let (chunk, fields) = match u32::from_le_bytes(*version) {
        VERSION => (field(5)?, 7),
        VERSION_1 => (CHUNK_1, 6),
        _ => return None,
    };
    let count = usize::try_from(field(fields - 1)?).ok()?;
    let length = count.checked_mul(16)?.checked_add(8 * fields)?;
    if crc32fast::hash(body.get(..length)?) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let piece = |index: usize| Some((field(fields + 2 * index)?, field(fields + 2 * index + 1)?));
    let pieces = (0..count).map(piece).collect::<Option<_>>()?;
    let must_finish = field(4)? == 1;
    let plan = Plan { inode: field(0)?, old: field(1)?, new: field(2)?, to: field(3)?, must_finish, chunk, pieces };
    plan.is_sound().then_some((plan, 16 + length))
}

/// Called after each change of the files, so that tests can see the states in which a server may be killed.
#[inline]
pub(super) fn note() {
    #[cfg(test)]
    observing::note();
}

#[cfg(test)]
pub(super) use observing::{observe, observed, of_version_1, with_inode};

#[cfg(test)]
mod observing {
    use std::cell::RefCell;

    /// The octets of the mbox and of the journal.
    type State = (Vec<u8>, Option<Vec<u8>>);
    type Observer = Box<dyn Fn() -> State>;

    thread_local! {
        static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
        static OBSERVED: RefCell<Vec<State>> = const { RefCell::new(Vec::new()) };
    }

    pub(in super::super) fn observe(observer: Option<Observer>) {
        OBSERVER.set(observer);
    }

    /// The states seen since the last call; nothing is observed any more.
    pub(in super::super) fn observed() -> Vec<State> {
        OBSERVER.set(None);
        OBSERVED.take()
    }

    pub(super) fn note() {
        OBSERVER.with_borrow(|observer| {
            if let Some(observer) = observer {
                OBSERVED.with_borrow_mut(|observed| observed.push(observer()));
            }
        });
    }

    /// The octets of a journal as version 1 wrote it, if its steps are as large.
    pub(in super::super) fn of_version_1(journal: &[u8]) -> Vec<u8> {
        let (plan, length) = super::decode(journal).unwrap();
        assert_eq!(plan.chunk, super::CHUNK_1);
        let body = [&journal[16..56], &journal[64..length]].concat();
        let slots = journal[length.next_multiple_of(4096)..].to_vec();
        let checksum = crc32fast::hash(&body).to_le_bytes();
        let mut header = [&super::MAGIC[..], &1_u32.to_le_bytes(), &checksum, &body].concat();
        header.resize(header.len().next_multiple_of(4096), 0);
        [header, slots].concat()
    }

    /// The octets of a journal that is for another copy of the mbox.
    pub(in super::super) fn with_inode(journal: &[u8], inode: u64) -> Vec<u8> {
        let Some((mut plan, length)) = super::decode(journal) else { return journal.to_vec() };
        plan.inode = inode;
        [super::encode(&plan), journal[length..].to_vec()].concat()
    }
}
